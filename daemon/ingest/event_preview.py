"""What changed queries would make of the last events of their streams, beside what the present ones make of them.

Nothing is merged and nothing is stored: it is what each event contributes, field by field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from daemon.ingest.definitions import Definitions
from daemon.ingest.proposal import Proposed, document_of
from daemon.ingest.slices import Slices
from daemon.store import streams
from daemon.store.database import Database
from daemon.store.streams import RecentEvent
from streams.mapping import Mapped, Mapper
from streams.profile_view import shown_value
from streams.schema_diff import Status, compare

#: Events shown for a field.
SAMPLE: Final = 3


@dataclass(frozen=True, slots=True)
class EventSample:
    """One event that gives something else: the two contributions, None where there is none."""

    event: RecentEvent
    before: Any
    after: Any


@dataclass(slots=True)
class FieldPreview:
    """How many events contribute to a field anew, otherwise, or no more; and some of them."""

    new: int = 0
    modified: int = 0
    deleted: int = 0
    unmodified: int = 0
    sample: list[EventSample] = field(default_factory=list)


@dataclass(slots=True)
class QueryPreview:
    """One query on the last events of its stream, or of both streams when it is to read another one."""

    alias: str
    streams: tuple[str, ...]
    events: int = 0
    #: Events of which the query makes something: it has a usable key, and WHERE holds.
    mapped_before: int = 0
    mapped_after: int = 0
    differing: int = 0
    fields: dict[str, FieldPreview] = field(default_factory=dict)


async def preview_events(events: Database, proposed: Proposed, limit: int) -> list[QueryPreview]:
    """Maps up to `limit` events of each stream by each query that changes, or whose fields do, before and after."""
    slices = Slices()
    found = []
    for alias in await _changed(proposed):
        before, after = _mapper(proposed.before, alias), _mapper(proposed.after, alias)
        names = sorted(before.streams | after.streams)
        result = QueryPreview(alias, tuple(names))
        for name in names:
            for event in await events.read(partial(streams.recent, name=name, limit=limit)):
                _compare(result, event, _contributed(before, name, event), _contributed(after, name, event))
                if slices.over:
                    await slices.turn()
        found.append(result)
    return found


async def _changed(proposed: Proposed) -> list[str]:
    """Gives the queries that change, and those that make something else because a field's kind does."""
    diff = compare(await document_of(proposed.before), await document_of(proposed.after))
    moved = {each.name for each in diff.queries if each.status != "unmodified"}
    for each in diff.fields:
        if each.item.status == "modified":
            moved.update(mapping.name for mapping in each.mappings)
    return sorted(moved)


def _mapper(definitions: Definitions, alias: str) -> Mapper:
    stored = definitions.queries.get(alias)
    queries = [] if stored is None or stored.query is None else [stored.query]
    return Mapper(definitions.schema, queries, definitions.guards)


def _contributed(mapper: Mapper, stream: str, event: RecentEvent) -> dict[str, Any] | None:
    """Gives what an event contributes, as it is shown; None when nothing is made of it."""
    mapped = mapper.map(stream, event.body, event.event_us, event.event_id, event.received_us)
    return _shown(mapped) if mapped else None


def _shown(mapped: Sequence[Mapped]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for each in mapped:
        for name, text in each.keys:
            shown[name] = text if name not in shown else [*_listed(shown[name]), text]
        shown.update((name, shown_value(value)) for name, value in each.values)
    return shown


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _compare(
    result: QueryPreview, event: RecentEvent, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> None:
    result.events += 1
    result.mapped_before += before is not None
    result.mapped_after += after is not None
    old, new = before or {}, after or {}
    differs = False
    for name in {**new, **old}:
        status = _status(name, old, new)
        counted = result.fields.setdefault(name, FieldPreview())
        setattr(counted, status, getattr(counted, status) + 1)
        if status != "unmodified":
            differs = True
            if len(counted.sample) < SAMPLE:
                counted.sample.append(EventSample(event, old.get(name), new.get(name)))
    result.differing += differs


def _status(name: str, old: dict[str, Any], new: dict[str, Any]) -> Status:
    if name not in old:
        return "new"
    if name not in new:
        return "deleted"
    before, after = old[name], new[name]
    return "unmodified" if type(before) is type(after) and before == after else "modified"
