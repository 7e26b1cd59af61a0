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

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from streams import stitches
from streams.merge import DAY_US, State, Value, moment
from streams.ql.coerce import text_of_date
from streams.ql.missing import MISSING
from streams.schema import Schema

if TYPE_CHECKING:
    from streams.identity import Resolution
    from streams.mapping import Key

#: Sets of fields for which a function of its own is written out.
MOST_SHAPES: Final = 256

#: Where an event stands in the log: lane and position.
Position: TypeAlias = tuple[str, int]
#: A fragment's own states and meta.
Part: TypeAlias = tuple[dict[str, State], list[Any]]

CREATED: Final = 0
MODIFIED: Final = 1
EVENTS: Final = 2
CONFLICTS: Final = 3
STREAMS: Final = 4

#: The fields that every profile has besides those of its schema.
META_NAMES: Final = (
    "_id",
    "_created",
    "_modified",
    "_num_events",
    "_num_streams",
    "_streamnames",
    "_num_aliases",
    "_num_conflicts",
    "_num_days",
    "_uid",
    "_split",
)

#: And those that are only shown: a filter cannot read them.
SHOWN_META_NAMES: Final = ("_segments", "_cust_sz", "_internal_sz", "_total_sz")


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
                _count(part[1], stream, received_us)
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
            _count(self.meta, stream, received_us)
            if part is not None:
                _count(part[1], stream, received_us)
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
                _merge_states(schema, mine[0], part[0])
                _merge_meta(mine[1], part[1])
            else:
                parts[home] = part
        for name, texts in other.keys.items():
            mine_texts = self.keys.setdefault(name, [])
            mine_texts += [text for text in texts if text not in mine_texts]
        if other.edges:
            self.edges = [*(self.edges or ()), *other.edges]
        self.memory = stitches.united(self.memory, other.memory)
        _merge_meta(self.meta, other.meta)
        self.dropped += other.dropped
        before = {
            name: value.copy() if isinstance(value, dict | list) else value for name, value in self.values.items()
        }
        _merge_states(schema, self.fields, other.fields)
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
                _merge_states(schema, mine[0], part[0])
                _merge_meta(mine[1], part[1])
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
    show = schema.shows.get(shape) or _show(schema, shape)
    values = profile.values = show(fields)
    for slot in schema.single_slots:
        texts = profile.keys.get(slot.name)
        if texts:
            values[slot.name] = slot.from_text(texts[0])
    return profile


def _show(schema: Schema, shape: tuple[str, ...]) -> Callable[[dict[str, State]], dict[str, Value]]:
    """Makes the function from field states with these keys to their typed values.

    Most profiles have the same few fields. For each set of them a function is written out, which takes a third of the
    time of asking each slot; when sets become many, the slots are asked.
    """
    if len(schema.shows) >= MOST_SHAPES:
        by_key = schema.by_key
        return lambda states: {
            slot.name: slot.render(state) for key, state in states.items() if (slot := by_key.get(key)) is not None
        }
    bound: dict[str, Any] = {"moment": moment}
    lines = ["def show(f):", "    v = {}"]
    for place, key in enumerate(shape):
        slot = schema.by_key.get(key)
        if slot is not None:
            bound |= {f"k{place}": key, f"n{place}": slot.name, f"r{place}": slot.render}
            lines += [f"    s = f[k{place}]", f"    v[n{place}] = {slot.expression.replace('render(', f'r{place}(')}"]
    lines.append("    return v")
    exec("\n".join(lines), bound)  # noqa: S102  (only our own constants are in the source; names are bound)
    show: Callable[[dict[str, State]], dict[str, Value]] = bound["show"]
    schema.shows[shape] = show
    return show


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


# --- what is shown


def output(
    profile: Profile,
    schema: Schema,
    names: Collection[str] | None = None,
    *,
    meta: bool = True,
    stored: str | None = None,
) -> dict[str, Any]:
    """Gives the profile as API and messages show it: JSON-able, moments in RFC 3339, nothing absent or null.

    All fields, or those in `names`; meta fields stand among them unless `meta` is false. The result shares nothing
    that later merging changes. `stored` is its stored text: the sizes stand beside the meta fields then, in bytes.
    """
    shown = {
        name: shown_value(value)
        for name, value in profile.values.items()
        if (names is None or name in names) and name in schema.fields
    }
    if meta and (names is None or any(name in names for name in META_NAMES)):
        for name, value in meta_of(profile).items():
            if (names is None or name in names) and not (name == "_uid" and name in schema.fields):
                shown[name] = shown_value(value)
    if stored is not None and (names is None or any(name in names for name in SHOWN_META_NAMES)):
        shown |= {name: size for name, size in _sizes(profile, stored).items() if names is None or name in names}
    return shown


def _sizes(profile: Profile, stored: str) -> dict[str, int]:
    total = len(stored) if stored.isascii() else len(stored.encode())
    customer = min(total, len(orjson.dumps(profile.fields)))
    return {"_cust_sz": customer, "_internal_sz": total - customer, "_total_sz": total}


def shown_value(value: Value) -> Any:
    """Gives a typed value in JSON shape, moments as RFC 3339 text in UTC."""
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list):
        return [shown_value(each) for each in value]
    if isinstance(value, dict):
        return {name: shown_value(each) for name, each in value.items()}
    return value if value is None else text_of_date(value)


def meta_of(profile: Profile) -> dict[str, Value]:
    """Gives the meta fields of a profile in memory."""
    return meta_values(profile.id, profile.meta, profile.keys, profile.home, profile.memory)


def meta_values(
    id: int,  # noqa: A002
    meta: Sequence[Any],
    keys: Mapping[str, Sequence[str]],
    home: Sequence[str] | None = None,
    memory: Mapping[str, Any] | None = None,
) -> dict[str, Value]:
    """Gives the meta fields as typed values. `_split` is missing while the profile was never split."""
    created, modified = meta[CREATED], meta[MODIFIED]
    values: dict[str, Value] = {
        "_id": str(id),
        "_created": moment(created),
        "_modified": moment(modified),
        "_num_events": meta[EVENTS],
        "_num_streams": len(meta[STREAMS]),
        "_streamnames": sorted(meta[STREAMS]),
        "_num_aliases": sum(map(len, keys.values())),
        "_num_conflicts": meta[CONFLICTS],
        "_num_days": modified // DAY_US - created // DAY_US + 1,
    }
    if home is not None:
        values["_uid"] = home[1]
    if memory is not None and "x" in memory:
        values["_split"] = moment(max(each[0] for each in memory["x"]))
    return values


def viewer(schema: Schema, names: Iterable[str]) -> Callable[[int, dict[str, Any]], dict[str, Value]]:
    """Makes a function (id, stored body as parsed) -> the typed values of the fields that `names` read.

    For passes over many stored profiles: it makes no `Profile`, and looks at nothing that is not asked for. `names`
    are as filters have them: of any case, dotted, meta fields among them. What keep_days lets expire is still there:
    load the profile where `schema.expiring` matters.
    """
    wanted = fields_read(schema, names)
    bound: dict[str, Any] = {"moment": moment, "meta_values": meta_values}
    lines = ["def view(i, b):", "    f = b['f']", "    keys = b['k']", "    v = {}"]
    for place, name in enumerate(sorted(wanted & schema.fields.keys())):
        slot = schema.slots[name]
        bound |= {f"k{place}": slot.key, f"n{place}": name, f"r{place}": slot.render}
        lines += [
            f"    s = f.get(k{place})",
            "    if s is not None:",
            f"        v[n{place}] = {slot.expression.replace('render(', f'r{place}(')}",
        ]
        if name in schema.singles:
            bound[f"t{place}"] = slot.from_text
            lines += [f"    s = keys.get(n{place})", f"    if s: v[n{place}] = t{place}(s[0])"]
    if not wanted.isdisjoint(META_NAMES):
        lines.append("    m = meta_values(i, b['m'], b['k'], b['h'], b.get('s'))")
        if "_uid" in schema.fields:
            lines.append("    m.pop('_uid', None)")
        lines.append("    v.update(m)")
    lines.append("    return v")
    exec("\n".join(lines), bound)  # noqa: S102  (only our own constants are in the source; names are bound)
    view: Callable[[int, dict[str, Any]], dict[str, Value]] = bound["view"]
    return view


def fields_read(schema: Schema, names: Iterable[str]) -> frozenset[str]:
    """Gives the fields (meta fields too) that an expression with these names can see, see `ql.compiler`.

    A name means the field of that name, of that name in another case, or a key in the map before one of its dots.
    """
    every = _lowered(schema)
    found: set[str] = set()
    for name in names:
        pieces = name.lower().split(".")
        for end in range(1, len(pieces) + 1):
            found.update(every.get(".".join(pieces[:end]), ()))
    return frozenset(found)


# --- parts of the above


@lru_cache(maxsize=4)
def _lowered(schema: Schema) -> Mapping[str, Sequence[str]]:
    """The names of all fields by their lower-case spelling: asked for again by each of many audiences."""
    every: dict[str, list[str]] = {}
    for name in (*schema.fields, *META_NAMES):
        every.setdefault(name.lower(), []).append(name)
    return every


def _count(meta: list[Any], stream: str, received_us: int) -> None:
    meta[EVENTS] += 1
    meta[MODIFIED] = max(meta[MODIFIED], received_us)
    if stream not in meta[STREAMS]:
        meta[STREAMS].append(stream)


def _merge_meta(mine: list[Any], other: list[Any]) -> None:
    mine[CREATED] = min(mine[CREATED], other[CREATED])
    mine[MODIFIED] = max(mine[MODIFIED], other[MODIFIED])
    mine[EVENTS] += other[EVENTS]
    mine[CONFLICTS] += other[CONFLICTS]
    mine[STREAMS] += [stream for stream in other[STREAMS] if stream not in mine[STREAMS]]


def _merge_states(schema: Schema, mine: dict[str, State], other: dict[str, State]) -> None:
    """Merges the states of `other` into `mine`; a state that the schema does not know is kept from whoever has it."""
    for key, state in other.items():
        old = mine.get(key)
        slot = schema.states.get(key)
        if old is None:
            mine[key] = state
        elif slot is not None:
            mine[key] = slot.combine(old, state)


def united_parts(schema: Schema, parts: Iterable[Part], at_us: int) -> Part:
    """Gives what fragments gave together; `at_us` is the time of a profile that none gave anything to."""
    fields: dict[str, State] = {}
    meta: list[Any] | None = None
    for part in parts:
        its_fields, its_meta = orjson.loads(orjson.dumps(part))
        _merge_states(schema, fields, its_fields)
        if meta is None:
            meta = its_meta
        else:
            _merge_meta(meta, its_meta)
    return fields, [at_us, at_us, 0, 0, []] if meta is None else meta


def _clean_key(key: Key) -> Key:
    return _clean(key[0]), _clean(key[1])


def _clean(value: Any) -> Any:
    """Replaces what cannot be written as UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_clean(name): _clean(each) for name, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, list | tuple) else value
