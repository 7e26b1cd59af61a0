"""From an event to what it contributes to a profile: each query on its stream, compiled.

A contribution is a field's name and a typed value. Columns named in BY give keys: normalised, guarded against values
that identify nobody, ranked. An event without a usable key contributes nothing; what was refused of it is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from streams.guards import EMPTY, NO_GUARDS, Guards
from streams.merge import MOMENTS, SETS, moment
from streams.ql.coerce import text_of_date, to_bool, to_date, to_int, to_number, to_text
from streams.ql.compiler import Sink, compile_into
from streams.ql.kinds import Kind, element, is_map
from streams.ql.missing import MISSING, Value
from streams.ql.nodes import Call, Column, Query
from streams.schema import Schema

#: An identity field and the normalised text of a value.
Key: TypeAlias = tuple[str, str]
#: From a value of the languages to one of a field's kind; MISSING where there is none to be had.
Coerce: TypeAlias = Callable[[Value], Value]

_INT_LIMIT: Final = 1 << 63


class Refusal(NamedTuple):
    """A key that was not taken, and why.

    `blocked` and `too_long`: it can identify nobody. `conflict`: its profile has another value of a single-valued
    identity. `limit`: the profile would be known by too many keys. `window`: it was stitched too often lately. `split`:
    somebody took the two apart.
    """

    key: Key
    reason: str


class Mapped(NamedTuple):
    """What one event says by one query.

    `keys` are ordered by rank, the first is the event's home fragment. `values` are typed contributions; those to
    identities of one value are not among them: attaching the key sets the field. `refused` are unusable keys.
    """

    keys: tuple[Key, ...]
    values: list[tuple[str, Value]]
    refused: tuple[Refusal, ...] = ()


_Run: TypeAlias = Callable[[Mapping[str, Any], datetime], Mapped | None]


class _Compiled(NamedTuple):
    """A query's function, and what it was made of: besides query and guards, the ranks, and what its fields are."""

    query: Query
    guards: Guards
    made_of: tuple[object, ...]
    run: _Run

    def stands(self, query: Query, guards: Guards, made_of: tuple[object, ...]) -> bool:
        """Says whether the function would be the same."""
        return self.query is query and self.guards is guards and self.made_of == made_of


class Mapper:
    """Maps the events of all streams. Pure: the same event gives the same contributions."""

    def __init__(
        self, schema: Schema, queries: Sequence[Query], guards: Guards = NO_GUARDS, before: Mapper | None = None
    ) -> None:
        """Compiles the queries; takes over from `before` those for which nothing is different."""
        #: Refused keys of events that had no other, by field and reason, for whoever counts them: take and clear.
        self.lost: Counter[tuple[str, str]] = Counter() if before is None else before.lost
        known = {} if before is None else before._compiled  # noqa: SLF001  (of its own class)
        ranks = tuple((each.name, each.rank) for each in schema.identities)
        runs: dict[str, list[_Run]] = {}
        self._compiled: dict[int, _Compiled] = {}
        for query in queries:
            fields = (schema.fields[column.name] for column in query.columns)
            made_of = (ranks, *((each.kind, each.merge_op, each.single, each.rank) for each in fields))
            one = known.get(id(query))
            if one is None or not one.stands(query, guards, made_of):
                run = compile_into(query, _sink(schema, query, guards, partial(_lose, self.lost)))[0]
                one = _Compiled(query, guards, made_of, run)
            self._compiled[id(query)] = one
            runs.setdefault(query.stream, []).append(one.run)
        self._runs = {stream: tuple(each) for stream, each in runs.items()}

    @property
    def streams(self) -> frozenset[str]:
        """The streams that some query reads; events of all others change nothing."""
        return frozenset(self._runs)

    def map(
        self, stream: str, body: dict[str, Any], event_us: int, event_id: str | None = None, received_us: int = 0
    ) -> list[Mapped]:
        """Gives what an event contributes by each query on its stream, in the order of the queries.

        `body` is the event's JSON object, `event_us` its time. Empty when no query reads the stream, or when no
        query finds a usable key in it.
        """
        del event_id, received_us  # fixed in the interface: mapping by them must stay possible
        runs = self._runs.get(stream)
        if runs is None:
            return []
        now = moment(event_us)
        return [mapped for run in runs if (mapped := run(body, now)) is not None]


def _lose(lost: Counter[tuple[str, str]], refused: list[Refusal]) -> None:
    for (name, _), reason in refused:
        lost[name, reason] += 1


# --- what a query does with the values of its columns


def _sink(schema: Schema, query: Query, guards: Guards, lose: Callable[[list[Refusal]], None]) -> Sink:
    """Source that makes a `Mapped` of a query's columns, or None without a key.

    Written out for each column: the usual class of its kind is taken as it is, all else through its `coercer`.
    """
    names: dict[str, Any] = {
        "Mapped": Mapped, "refuse": Refusal, "take_keys": _take_keys, "lose": lose,
        "datetime": datetime, "INF": math.inf, "LIMIT": _INT_LIMIT,
    }  # fmt: skip
    columns: list[list[str]] = []
    ranks: list[int] = []
    several = False
    for place, column in enumerate(query.columns):
        field = schema.fields[column.name]
        kind = Kind(field.kind)
        name, to = f"name{place}", f"to{place}"
        names[name] = column.name
        if column.name in query.by:
            ranks.append(field.rank or 0)
            names[to] = _SINGLE_KEYS[kind] if field.single else _strings_key
            several = several or not field.single
            names |= {f"nobody{place}": guards.nobody(column.name), f"unusable{place}": guards.unusable(column.name)}
            lines = _key_lines(
                place, single=field.single, text=kind == Kind.STRING, globs=guards.has_globs(column.name)
            )
            columns.append(lines)
        else:
            names[to] = coercer(kind)
            columns.append(_value_lines(name, to, kind, column, count=field.merge_op == "count"))
    after = ["if not keys: return lose(refused) if refused else None"]
    if ranks != sorted(ranks):
        names["rank"] = {each.name: each.rank or 0 for each in schema.identities}
        after.append("keys.sort(key=lambda key: rank[key[0]])")
    if several or len(set(ranks)) < len(ranks):  # the same text may come twice
        after.append("keys = dict.fromkeys(keys)")
    after.append("return Mapped((*keys,), values, (*refused,))")
    before = ["keys = []", "values = []", "refused = []", "add = values.append"]
    return Sink(before, columns, after, names)


_SOME: Final = "v is not None and v is not M and not nil(v)"


def _key_lines(place: int, *, single: bool, text: bool, globs: bool) -> list[str]:
    name, to, unusable = f"name{place}", f"to{place}", f"unusable{place}"
    if not single:
        return [
            f"if {_SOME}:",
            f"    v = take_keys({name}, {to}(v), keys, refused, {unusable})",
            f"    if v: add(({name}, v))",
        ]
    taken = ["if v.__class__ is str: v = v.strip() or M", f"elif {_SOME}: v = {to}(v)"]
    # Most keys are seen to be usable at once.
    usual = f"len(v) < 64 and v[0] not in {EMPTY!r} and v.lower() not in nobody{place}"
    judged = (
        [f"    reason = {unusable}(v)"]
        if globs
        else [f"    if {usual}: reason = None", f"    else: reason = {unusable}(v)"]
    )
    return [
        *(taken if text else [f"if {_SOME}: v = {to}(v)"]),
        "else: v = M",
        "if v is not M:",
        *judged,
        f"    if reason is None: keys.append(({name}, v))",
        f"    else: refused.append(refuse(({name}, v), reason))",
    ]


def _take_keys(
    name: str, texts: Value, keys: list[Key], refused: list[Refusal], unusable: Callable[[str], str | None]
) -> list[str]:
    """Sorts the texts of an identity of several values into keys and refusals; gives the usable ones."""
    good: list[str] = []
    for text in texts or ():
        reason = unusable(text)
        if reason is None:
            good.append(text)
            keys.append((name, text))
        else:
            refused.append(Refusal((name, text), reason))
    return good


def _value_lines(name: str, to: str, kind: Kind, column: Column, *, count: bool) -> list[str]:
    if count:
        return [f"if {_SOME}: add(({name}, 1))"]
    made_by = column.expr.name if isinstance(column.expr, Call) else None
    usual = _USUAL.get(kind)
    # These aggregates give only what their kind takes.
    if made_by == "set" and kind in SETS:
        usual = ("list", "v")
    elif made_by == "valuect" and kind in {Kind.MAP_INT, Kind.MAP_INTSUM}:
        usual = ("dict", "v")
    coerced = [f"    v = {to}(v)", f"    if v is not M: add(({name}, v))"]
    if usual is None:
        return [f"if {_SOME}:", *coerced]
    of, good = usual
    return [f"if v.__class__ is {of}:", f"    if {good}: add(({name}, v))", f"elif {_SOME}:", *coerced]


#: The class that values of a kind nearly always have, and what more must hold of them.
_USUAL: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.STRING: ("str", "v"),
    Kind.DATE: ("datetime", "v.year > 1"),
    Kind.BOOL: ("bool", "True"),
    Kind.NUMBER: ("float", "-INF < v < INF"),
    Kind.INT: ("int", "-LIMIT <= v < LIMIT and v != NIL_INT"),
}


# --- to the kinds


def coercer(kind: str) -> Coerce:
    """Gives the function from any value of the languages to one of this kind.

    It gives MISSING for what cannot be taken, and for nil values ("" and empty collections): they change no field.
    """
    if kind in SETS:
        return _strings
    if kind in MOMENTS:
        return _moments
    if kind == Kind.EMBEDDING:
        return _embedding
    if is_map(kind):
        return _map_of(_SCALARS[element(kind) or Kind.DYNAMIC])
    return _SCALARS[Kind(kind)]


def _string(value: Value) -> Value:
    if type(value) is not str:
        value = to_text(value)
    return value or MISSING


def _int(value: Value) -> Value:
    if type(value) is not int:
        value = int(value) if type(value) is float and value.is_integer() else to_int(value)
        if value is MISSING:
            return MISSING
    return value if -_INT_LIMIT <= value < _INT_LIMIT else MISSING


def _number(value: Value) -> Value:
    if type(value) is not float:
        try:
            value = to_number(value)
        except OverflowError:  # an integer beyond all floats
            return MISSING
        if value is MISSING:
            return MISSING
    return value if -math.inf < value < math.inf else MISSING


def _date(value: Value) -> Value:
    if type(value) is not datetime:
        value = to_date(value)
        if value is MISSING:
            return MISSING
    return value if value.year > 1 else MISSING


def _strings(value: Value) -> Value:
    if type(value) is str:
        return [value] if value else MISSING
    if isinstance(value, list | dict):
        texts = [text for text in map(to_text, value) if text]
        return list(dict.fromkeys(texts)) or MISSING
    text = to_text(value)
    return [text] if text else MISSING


def _moments(value: Value) -> Value:
    elements = value if isinstance(value, list) else [value]
    return [each for each in map(_date, elements) if each is not MISSING] or MISSING


def _embedding(value: Value) -> Value:
    if not isinstance(value, list):
        return MISSING
    numbers = [_number(each) for each in value]
    return MISSING if MISSING in numbers else numbers or MISSING


def _geolocation(value: Value) -> Value:
    """Text "latitude,longitude" in degrees, of such text, of a pair, or of a map with lat and lon."""
    if isinstance(value, str):
        parts: list[Value] = value.split(",")
    elif isinstance(value, dict):
        found = {str(name).lower()[:3]: each for name, each in value.items()}
        parts = [found.get("lat", MISSING), found.get("lon", found.get("lng", MISSING))]
    else:
        parts = value if isinstance(value, list) else []
    if len(parts) != 2:
        return MISSING
    latitude, longitude = _number(parts[0]), _number(parts[1])
    if latitude is MISSING or longitude is MISSING or not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return MISSING
    return f"{latitude!r},{longitude!r}"


def _dynamic(value: Value) -> Value:
    if value is None or value is MISSING or value in ("", [], {}):
        return MISSING
    return _json(value)


def _json(value: Value) -> Value:
    """Gives a value in JSON shape: moments as text, integers beyond 64 bits as floats."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value if -_INT_LIMIT <= value < _INT_LIMIT else float(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return text_of_date(value)
    if isinstance(value, dict):
        return {str(name): _json(each) for name, each in value.items()}
    return [_json(each) for each in value] if isinstance(value, list) else None


def _map_of(coerce: Coerce) -> Coerce:
    def to_map(value: Value) -> Value:
        if type(value) is not dict:
            return MISSING
        result = {}
        for name, each in value.items():
            item = coerce(each)
            if item is not MISSING:
                result[name] = item
        return result or MISSING

    return to_map


_SCALARS: Final[Mapping[Kind, Coerce]] = {
    Kind.STRING: _string,
    Kind.INT: _int,
    Kind.NUMBER: _number,
    Kind.BOOL: to_bool,
    Kind.DATE: _date,
    Kind.DYNAMIC: _dynamic,
    Kind.GEOLOCATION: _geolocation,
}


def _string_key(value: Value) -> Value:
    text = _string(value)
    return MISSING if text is MISSING else text.strip() or MISSING


def _strings_key(value: Value) -> Value:
    texts = _strings(value)
    if texts is MISSING:
        return MISSING
    return list(dict.fromkeys([text for each in texts if (text := each.strip())])) or MISSING


def _int_key(value: Value) -> Value:
    number = _int(value)
    return MISSING if number is MISSING else str(number)


def _number_key(value: Value) -> Value:
    number = _number(value)
    return MISSING if number is MISSING else to_text(number)


_SINGLE_KEYS: Final[Mapping[Kind, Coerce]] = {
    Kind.STRING: _string_key,
    Kind.INT: _int_key,
    Kind.NUMBER: _number_key,
}
