"""What is noted of streams as events pass, kept in memory until it is written about once a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from daemon.store.streams import Counts, FieldRow, RejectRow
from streams.event import Refusal

#: A field seen again is written again after this time, in microseconds.
_AGAIN_US: Final = 60_000_000

#: Different sets of top-level keys that are looked at, for each stream and flush.
_SHAPES: Final = 100

#: Refusals that wait to be written; more of them are counted only.
_WAITING_REJECTS: Final = 1000

_KINDS: Final = {str: "string", int: "number", float: "number", bool: "bool", list: "list", dict: "object"}


class _Stream:
    __slots__ = ("duplicates", "events", "fields", "first_us", "last_us", "rejects", "shapes")

    def __init__(self) -> None:
        self.fields: dict[str, int] = {}
        self.shapes: dict[tuple[str, ...], dict[str, Any]] = {}
        self.first_us = self.last_us = self.events = self.duplicates = self.rejects = 0


class Seen:
    """Counts, fields and refusals not yet written. Bounded: `most_fields` names of a stream are known at a time."""

    def __init__(self, most_fields: int) -> None:
        self._most_fields = most_fields
        self._streams: dict[str, _Stream] = {}
        self._touched: set[str] = set()
        self._rejects: list[RejectRow] = []

    def __contains__(self, stream: str) -> bool:
        return stream in self._streams

    def __len__(self) -> int:
        return len(self._streams)

    def know(self, stream: str, fields: Mapping[str, int] | None = None) -> None:
        """Takes over what is stored of a stream: its fields, and when each was last written as seen."""
        self._stream(stream).fields.update(fields or {})

    def shape(self, stream: str, data: dict[str, Any]) -> None:
        """Looks at an event's keys; costs next to nothing when the like was there since the last flush."""
        shapes = self._stream(stream).shapes
        shape = tuple(data)
        if shape not in shapes and len(shapes) < _SHAPES:
            shapes[shape] = data

    def count(self, stream: str, now_us: int, *, events: int = 0, duplicates: int = 0, rejects: int = 0) -> None:
        """Adds to the counts of a stream."""
        one = self._stream(stream)
        one.first_us = one.first_us or now_us
        one.last_us = now_us
        one.events += events
        one.duplicates += duplicates
        one.rejects += rejects
        self._touched.add(stream)

    def refuse(self, stream: str, place: str, refusals: Sequence[Refusal], request_id: str, now_us: int) -> None:
        """Notes refusals; `place` says what their numbers count ("index", "line"), "" that they have none."""
        self.count(stream, now_us, rejects=len(refusals))
        for each in refusals[: max(0, _WAITING_REJECTS - len(self._rejects))]:
            where = f"{place} {each.place}" if place else "body"
            self._rejects.append((now_us, stream, where, each.reason, each.sample, request_id))

    def take(self, now_us: int) -> tuple[list[Counts], list[FieldRow], list[RejectRow]]:
        """Gives what is to be written, and begins anew."""
        counts: list[Counts] = []
        fields: list[FieldRow] = []
        for name in self._touched:
            one = self._streams[name]
            counts.append(Counts(name, one.first_us, one.last_us, one.events, one.duplicates, one.rejects))
            one.first_us = one.events = one.duplicates = one.rejects = 0
            for data in one.shapes.values():
                self._fields(name, one, data, "", now_us, fields)
            one.shapes = {}
        self._touched = set()
        rejects, self._rejects = self._rejects, []
        return counts, fields, rejects

    def put_back(self, counts: Sequence[Counts], fields: Sequence[FieldRow], rejects: Sequence[RejectRow]) -> None:
        """Takes back what `take` gave and could not be written."""
        for each in counts:
            self.count(each.name, each.last_us, events=each.events, duplicates=each.duplicates, rejects=each.rejects)
            self._streams[each.name].first_us = each.first_us
        for stream, field, _, _ in fields:
            self._streams[stream].fields.pop(field, None)
        self._rejects[:0] = rejects[: max(0, _WAITING_REJECTS - len(self._rejects))]

    def _stream(self, name: str) -> _Stream:
        one = self._streams.get(name)
        if one is None:
            one = self._streams[name] = _Stream()
        return one

    def _fields(
        self, stream: str, one: _Stream, data: dict[str, Any], prefix: str, now_us: int, found: list[FieldRow]
    ) -> None:
        for key, value in data.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict) and value:
                self._fields(stream, one, value, f"{name}.", now_us, found)
                continue
            last_us = one.fields.get(name)
            if last_us is None and len(one.fields) >= self._most_fields:
                continue
            if last_us is None or now_us - last_us > _AGAIN_US:
                one.fields[name] = now_us
                found.append((stream, name, _KINDS.get(type(value), "null"), now_us))
