"""A profile: the merged fields of one person, the keys it is found by, and what it is made of.

Its stored form is one JSON object, and what is held in memory has the same shape, so that storing and loading are a
call of orjson each:

| Key | Holds |
|---|---|
| `f` | the state of each field (`merge.py`), by its slot's key; of a single-valued identity the key itself stands |
| `k` | the keys: identity field to the list of its values, in the order of their coming |
| `m` | `[created_us, modified_us, events, conflicts, [stream, …]]` |
| `h` | the home fragment: the key of highest rank in the first event, `[field, value]` |
| `p` | only once events came from several home fragments: `[[field, value, f, m], …]`, each fragment's own part |
| `e` | only if there are any: the links `[field, value, field, value, lane, position]`, and the event that made each |
| `s` | only if there is any: what is remembered of stitches (`stitches.py`) |

Parts and links keep a stitch undoable. All times are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from streams import stitches
from streams.fragments import (
    CONFLICTS,
    EVENTS,
    MODIFIED,
    STREAMS,
    Part,
    count_event,
    merge_meta,
    merge_states,
)
from streams.merge import State, Value
from streams.profile_view import meta_of, shower
from streams.ql.missing import MISSING
from streams.schema import Schema

if TYPE_CHECKING:
    from streams.identity import Resolution
    from streams.mapping import Key

#: Where an event stands in the log: lane and position.
Position: TypeAlias = tuple[str, int]


class Profile:
    """One profile in memory. Belongs to the schema that it was loaded with; after a change of schema, load it again.

    `values` is the typed view that filters read: always current, except for meta fields (`refresh_meta`) and for what
    keep_days lets expire (`expire`). Treat it and all else as read-only outside of this module. `dropped` has the keys
    that a capacity pushed out since the caller last emptied the list: they must lose their identity rows.
    """

    __slots__ = (
        "_tail", "dropped", "edges", "fields", "home", "id", "keys", "last", "memory", "meta", "parts", "values",
    )  # fmt: skip

    def __init__(
        self,
        id: int,  # noqa: A002  (the name of the column)
        *,
        fields: dict[str, State],
        keys: dict[str, list[str]],
        meta: list[Any],
        home: Key | None = None,
        parts: dict[Key, Part] | None = None,
        edges: list[list[Any]] | None = None,
        memory: stitches.Memory | None = None,
    ) -> None:
        self.id = id
        self.fields = fields
        self.keys = keys
        self.meta = meta
        self.home = home
        self.parts = parts
        self.edges = edges
        self.memory = memory
        self.values: dict[str, Value] = {}
        self.last: Position | None = None
        self.dropped: list[Key] = []
        self._tail: bytes | None = None

    def apply(
        self,
        schema: Schema,
        resolution: Resolution,
        *,
        event_us: int,
        event_id: str | None,
        stream: str,
        received_us: int,
        position: Position,
    ) -> int:
        """Takes in what an event contributes: attaches keys, absorbs stitched profiles, merges values.

        Returns the bits of the fields whose typed value changed (`Schema.names_of`). An event that comes by several
        queries is counted once, as long as its calls follow one another.
        """
        linked = 0
        if resolution.attach or resolution.absorb or resolution.refused:
            linked = self._link(schema, resolution, position, received_us)
        return linked | self.merge(
            schema, resolution.keys[0], resolution.values, event_us, event_id, stream, received_us, position
        )

    def merge(
        self,
        schema: Schema,
        home: Key,
        contributions: Sequence[tuple[str, Value]],
        event_us: int,
        event_id: str | None,
        stream: str,
        received_us: int,
        position: Position,
    ) -> int:
        """Takes in the values of an event whose keys are all this profile's already; see `apply`."""
        part: Part | None = None
        if home != self.home:
            if self.home is None:
                self.home = home
                self._tail = None
            else:
                part = self._part(home, received_us)
        elif self.parts is not None:
            part = self._part(home, received_us)
        meta = self.meta
        if position != self.last:
            self.last = position
            meta[EVENTS] += 1
            if received_us > meta[MODIFIED]:  # noqa: PLR1730  (each event comes here: three times as fast as max)
                meta[MODIFIED] = received_us
            if stream not in meta[STREAMS]:
                meta[STREAMS].append(stream)
            if part is not None:
                count_event(part[1], stream, received_us)
        merges = schema.merges
        states, view = self.fields, self.values
        event_id = event_id or ""
        mask = 0
        for name, value in contributions:
            mask |= merges[name](states, view, value, event_us, event_id)
        if part is not None:
            states, view = part[0], {}
            for name, value in contributions:
                merges[name](states, view, value, event_us, event_id)
        if mask & schema.single_bits:
            mask &= ~self._show_keys(schema)
        if schema.limited:
            self._limit_keys(schema)
        return mask

    def take_past(
        self,
        schema: Schema,
        resolution: Resolution,
        *,
        event_us: int,
        event_id: str | None,
        stream: str,
        received_us: int,
        position: Position,
        counted: bool,
    ) -> int:
        """Takes in what an event of the past contributes to the states that a rebuilding makes (`Schema.shadows`).

        Contributions to other fields change them as `apply` does; keys and stitched profiles too. `counted` says that
        the event stands in the meta fields already. Returns the bits of the fields whose typed value changed.
        """
        mask = 0
        if resolution.attach or resolution.absorb:
            mask = self._link(schema, resolution, position, received_us)
        home = resolution.keys[0]
        if self.home is None:
            self.home = home
            self._tail = None
        part = self._part(home, received_us) if home != self.home or self.parts is not None else None
        if not counted and position != self.last:
            self.last = position
            count_event(self.meta, stream, received_us)
            if part is not None:
                count_event(part[1], stream, received_us)
        event_id = event_id or ""
        for name, value in resolution.values:
            shadow = schema.shadows.get(name)
            merge = schema.merges[name] if shadow is None else shadow.merge
            changed = merge(self.fields, self.values if shadow is None else {}, value, event_us, event_id)
            mask |= changed if shadow is None else 0
            if part is not None:
                merge(part[0], {}, value, event_us, event_id)
        if schema.limited:
            self._limit_keys(schema)
        return mask

    def dump(self) -> str:
        """Gives the JSON text of `profile.body`; `load` of it is this profile again."""
        tail = self._tail
        try:
            if tail is None:
                tail = self._tail = self._dump_tail()
            if self.parts is None:
                head = orjson.dumps({"f": self.fields, "m": self.meta})
            else:
                parts = [[*home, *part] for home, part in self.parts.items()]
                head = orjson.dumps({"f": self.fields, "m": self.meta, "p": parts})
        except TypeError:  # text that is no UTF-8 (lone surrogates made by a function)
            self._clean()
            return self.dump()
        return (head[:-1] + tail).decode()

    def _dump_tail(self) -> bytes:
        """Writes what only new keys and stitches change; it is kept written, since most events bring neither."""
        seldom: dict[str, Any] = {"k": self.keys, "h": self.home}
        if self.edges is not None:
            seldom["e"] = self.edges
        if self.memory:
            seldom["s"] = self.memory
        return b"," + orjson.dumps(seldom)[1:]

    def _clean(self) -> None:
        """Replaces what cannot be written as UTF-8."""
        self.fields, self.keys, self.meta = _clean(self.fields), _clean(self.keys), _clean(self.meta)
        self.home = None if self.home is None else _clean_key(self.home)
        self.edges = _clean(self.edges)
        self.memory = _clean(self.memory)
        if self.parts is not None:
            self.parts = {_clean_key(home): (_clean(part[0]), _clean(part[1])) for home, part in self.parts.items()}

    def expire(self, schema: Schema, now_us: int) -> int:
        """Drops the elements that keep_days no longer keeps at `now_us`; returns the bits of changed fields."""
        mask = 0
        for slot in schema.expiring:
            state = self.fields.get(slot.key)
            if state is None or not slot.expire(state, now_us - slot.keep_us):
                continue
            mask |= slot.bit
            if state:
                self.values[slot.name] = slot.render(state)
            else:
                del self.fields[slot.key]
                self.values.pop(slot.name, None)
        return mask

    def next_expiry(self, schema: Schema) -> int | None:
        """Gives the first moment (µs) at which `expire` would drop something; None if never."""
        due: int | None = None
        for slot in schema.expiring:
            state = self.fields.get(slot.key)
            oldest = None if state is None else slot.oldest(state)
            if oldest is not None and (due is None or oldest + slot.keep_us < due):
                due = oldest + slot.keep_us + 1
        return due

    def refresh_meta(self, schema: Schema) -> None:
        """Writes the meta fields into `values`; for filters that read them."""
        meta = meta_of(self)
        if "_uid" in schema.fields:  # queries map it from events, and then it is theirs
            meta.pop("_uid", None)
        self.values.update(meta)

    def all_keys(self) -> list[Key]:
        """Gives every key that this profile is found by."""
        return [(name, text) for name, texts in self.keys.items() for text in texts]

    def key_count(self) -> int:
        """Gives the number of keys."""
        return sum(map(len, self.keys.values()))

    def remember(self, memory: stitches.Memory | None) -> None:
        """Takes what is remembered of stitches as it is now."""
        self.memory = memory
        self._tail = None

    # --- stitching

    def _link(self, schema: Schema, resolution: Resolution, position: Position, received_us: int) -> int:
        """Attaches the new keys and takes the absorbed profiles in; leaves a link for each key of the event."""
        mask = 0
        if resolution.refused:
            self._tail = None
            self.meta[CONFLICTS] += stitches.note_refusals(self, resolution.refused, position, received_us)
        if not (resolution.attach or resolution.absorb):
            return 0
        self._tail = None
        for other in resolution.absorb:
            mask |= self._absorb(schema, other)
            if other.last == position:  # another query has counted this event there
                self.last = position
        for key in resolution.attach:
            mask |= self._attach(schema, key)
        home, *others = resolution.keys
        if others:
            if self.edges is None:
                self.edges = []
            known = {(*edge[:4],) for edge in self.edges}
            self.edges += [[*home, *key, *position] for key in others if (*home, *key) not in known]
        if resolution.joins is not None:
            stitches.note_joins(self, resolution.joins, received_us)
        return mask

    def _attach(self, schema: Schema, key: Key) -> int:
        name, text = key
        self.keys.setdefault(name, []).append(text)
        if name not in schema.singles:
            return 0  # its values are contributions
        slot = schema.slots[name]
        value = slot.from_text(text)
        if self.values.get(name) == value:
            return 0
        self.values[name] = value
        return slot.bit

    def _show_keys(self, schema: Schema) -> int:
        """Shows the attached keys of single-valued identities, whatever columns outside of BY say; their bits."""
        bits = 0
        for slot in schema.single_slots:
            texts = self.keys.get(slot.name)
            if texts:
                self.values[slot.name] = slot.from_text(texts[0])
                bits |= slot.bit
        return bits

    def _absorb(self, schema: Schema, other: Profile) -> int:
        """Merges another profile into this one; the other is no more."""
        parts = self._split_parts()
        for home, part in other._split_parts().items():
            mine = parts.get(home)
            if mine is not None:
                merge_states(schema, mine[0], part[0])
                merge_meta(mine[1], part[1])
            else:
                parts[home] = part
        for name, texts in other.keys.items():
            mine_texts = self.keys.setdefault(name, [])
            mine_texts += [text for text in texts if text not in mine_texts]
        if other.edges:
            self.edges = [*(self.edges or ()), *other.edges]
        self.memory = stitches.united(self.memory, other.memory)
        merge_meta(self.meta, other.meta)
        self.dropped += other.dropped
        before = {
            name: value.copy() if isinstance(value, dict | list) else value for name, value in self.values.items()
        }
        merge_states(schema, self.fields, other.fields)
        names = {slot.name for key in other.fields if (slot := schema.by_key.get(key)) is not None}
        for name in names:
            slot = schema.slots[name]
            self.values[name] = slot.render(self.fields[slot.key])
        self._show_keys(schema)
        return schema.mask_of(
            name for name in names | schema.singles if before.get(name, MISSING) != self.values.get(name, MISSING)
        )

    def _split_parts(self) -> dict[Key, Part]:
        """Gives the parts; makes the first of them, a copy of what the home fragment gave, when there is none."""
        if self.parts is None:
            fields, meta = orjson.loads(orjson.dumps((self.fields, self.meta)))
            self.parts = {} if self.home is None else {self.home: (fields, meta)}
        return self.parts

    def _part(self, home: Key, received_us: int) -> Part:
        parts = self._split_parts()
        part = parts.get(home)
        if part is None:
            part = parts[home] = ({}, [received_us, received_us, 0, 0, []])
        return part

    def _limit_keys(self, schema: Schema) -> None:
        """Gives up the keys whose values the capacity of their field has pushed out."""
        for slot in schema.limited:
            texts = self.keys.get(slot.name)
            if texts is None or len(texts) <= slot.capacity:
                continue
            kept = self.fields.get(slot.key, {})
            self.let_go(schema, [(slot.name, text) for text in texts if text not in kept])

    def let_go(self, schema: Schema, keys: Collection[Key]) -> None:
        """Gives up keys: the profile is not found by them any more, and their links go. All values stay.

        What they gave as home fragments counts to the home fragment from then on: it cannot be split off any more.
        At least one key must be left.
        """
        self._tail = None
        self.dropped += keys
        stitches.forget_keys(self, keys)
        for name in {name for name, _ in keys}:
            self.keys[name] = [text for text in self.keys[name] if (name, text) not in keys]
            if not self.keys[name]:
                del self.keys[name]
        if self.home in keys:
            ranked = [(each.name, text) for each in schema.identities for text in self.keys.get(each.name, ())]
            known = [key for key in ranked if self.parts is not None and key in self.parts]
            self.home = next(iter(known or ranked or self.all_keys()), None)
        if self.edges is not None:
            gone = {*map(tuple, keys)}
            self.edges = [each for each in self.edges if gone.isdisjoint({(*each[:2],), (*each[2:4],)})] or None
        if self.parts is None or self.home is None:
            return
        for key in keys:
            part = self.parts.pop(key, None)
            if part is not None:
                mine = self.parts.setdefault(self.home, ({}, [*part[1][:2], 0, 0, []]))
                merge_states(schema, mine[0], part[0])
                merge_meta(mine[1], part[1])
        if self.parts.keys() == {self.home}:
            self.parts = None


def new(id: int, created_us: int) -> Profile:  # noqa: A002
    """Makes a profile without anything in it."""
    return Profile(id, fields={}, keys={}, meta=[created_us, created_us, 0, 0, []])


def load(schema: Schema, id: int, body: str | bytes | dict[str, Any]) -> Profile:  # noqa: A002
    """Makes a profile of its stored body (text, or the object it was parsed to, which then belongs to the profile).

    States of fields that the schema does not have (any more, or as another kind) are kept but not shown.
    """
    stored = body if isinstance(body, dict) else orjson.loads(body)
    home, parts = stored["h"], stored.get("p")
    profile = Profile(
        id,
        fields=stored["f"],
        keys=stored["k"],
        meta=stored["m"],
        home=None if home is None else (home[0], home[1]),
        parts=None if parts is None else {(part[0], part[1]): (part[2], part[3]) for part in parts},
        edges=stored.get("e"),
        memory=stored.get("s"),
    )
    if schema.generations:
        forget_outlived(schema, profile.fields)
        for part in (profile.parts or {}).values():
            forget_outlived(schema, part[0])
    fields = profile.fields
    shape = tuple(fields)
    show = schema.shows.get(shape) or shower(schema, shape)
    values = profile.values = show(fields)
    for slot in schema.single_slots:
        texts = profile.keys.get(slot.name)
        if texts:
            values[slot.name] = slot.from_text(texts[0])
    return profile


def forget_outlived(schema: Schema, fields: dict[str, State]) -> None:
    """Takes the states away that a rebuilding has replaced, or left unfinished."""
    for key in [*fields]:
        name, _, shape = key.rpartition(":")
        living = schema.generations.get(name)
        if living is not None:
            shown, made = living
            generation = int(shape.partition("@")[2] or 0)
            if generation != shown and (not made or generation != made):
                del fields[key]


def _clean_key(key: Key) -> Key:
    return _clean(key[0]), _clean(key[1])


def _clean(value: Any) -> Any:
    """Replaces what cannot be written as UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_clean(name): _clean(each) for name, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, list | tuple) else value
