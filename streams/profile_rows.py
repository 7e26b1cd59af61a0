"""Profiles as they are shown, made straight from their stored texts: for passes over many of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, timedelta
from functools import lru_cache
from typing import Any, Final

import orjson

from streams import profile as profiles
from streams.fragments import CONFLICTS, CREATED, EVENTS, MODIFIED, STREAMS
from streams.merge import DAY_US
from streams.profile_view import META_NAMES, MOST_SHAPES, SHOWN_META_NAMES, output, shown_value
from streams.ql.kinds import Kind
from streams.schema import Schema

#: (id, stored text) -> what is shown of the profile.
Show = Callable[[int, str], dict[str, Any]]

_FIRST_DAY = date(1970, 1, 1)
#: Kinds whose values are as they are shown: there is no moment in them.
_PLAIN: Final = frozenset({
    Kind.INT, Kind.NUMBER, Kind.BOOL, Kind.STRING, Kind.STRINGS, Kind.TS_STRINGS, Kind.MAP_INT, Kind.MAP_INTSUM,
    Kind.MAP_NUMBER, Kind.MAP_STRING, Kind.MAP_BOOL,
})  # fmt: skip


def showing(schema: Schema, names: Collection[str] | None = None) -> Show:
    """Makes a function that gives what `output(load(schema, id, text), schema, names, stored=text)` gives.

    It makes no `Profile`: for each set of fields that profiles have, a function is written out, which takes a fifth of
    the time; when sets become many, profiles are loaded. So they are where fields were rebuilt. What keep_days lets
    expire is still there: load the profile where `schema.expiring` matters.
    """
    wanted = None if names is None else frozenset(names)
    shapes: dict[tuple[str, ...], Callable[[int, dict[str, Any], str], dict[str, Any]]] = {}

    def loaded(number: int, text: str) -> dict[str, Any]:
        return output(profiles.load(schema, number, text), schema, wanted, stored=text)

    def show(number: int, text: str) -> dict[str, Any]:
        body = orjson.loads(text)
        shape = tuple(body["f"])
        made = shapes.get(shape)
        if made is None:
            if len(shapes) >= MOST_SHAPES:
                return loaded(number, text)
            made = shapes[shape] = _written(schema, shape, wanted)
        return made(number, body, text)

    return loaded if schema.generations else show


def _written(
    schema: Schema, shape: tuple[str, ...], wanted: frozenset[str] | None
) -> Callable[[int, dict[str, Any], str], dict[str, Any]]:
    """Writes the function for profiles with these states out."""
    bound: dict[str, Any] = {"text": text_of_us, "shown": shown_value, "dumps": orjson.dumps}
    lines = ["def show(i, b, z):", "    f = b['f']", "    keys = b['k']", "    m = b['m']", "    v = {}"]
    for place, key in enumerate(shape):
        slot = schema.by_key.get(key)
        if slot is None or not (wanted is None or slot.name in wanted):
            continue
        bound |= {f"k{place}": key, f"n{place}": slot.name, f"r{place}": slot.render}
        value = slot.expression.replace("render(", f"r{place}(")
        if "moment(" in value:
            value = value.replace("moment(", "text(")
        elif slot.kind not in _PLAIN:
            value = f"shown({value})"
        lines += [f"    s = f[k{place}]", f"    v[n{place}] = {value}"]
    for place, slot in enumerate(schema.single_slots):
        if wanted is None or slot.name in wanted:
            bound |= {f"o{place}": slot.name, f"t{place}": slot.from_text}
            lines += [f"    s = keys.get(o{place})", f"    if s: v[o{place}] = t{place}(s[0])"]
    for name, code in _META.items():
        if (wanted is None or name in wanted) and not (name == "_uid" and name in schema.fields):
            lines += ["    " + line for line in code]
    if wanted is None or not wanted.isdisjoint(SHOWN_META_NAMES):
        lines += ["    z = len(z) if z.isascii() else len(z.encode())", "    c = min(z, len(dumps(f)))"]
        for name, size in _SIZES.items():
            if wanted is None or name in wanted:
                lines.append(f"    {size}")
    lines.append("    return v")
    exec("\n".join(lines), bound)  # noqa: S102  (only our own constants are in the source; names are bound)
    made: Callable[[int, dict[str, Any], str], dict[str, Any]] = bound["show"]
    return made


#: How each meta field is made of a stored body; see `profile_view.meta_values`.
_META: Final = {
    "_id": ["v['_id'] = str(i)"],
    "_created": [f"v['_created'] = text(m[{CREATED}])"],
    "_modified": [f"v['_modified'] = text(m[{MODIFIED}])"],
    "_num_events": [f"v['_num_events'] = m[{EVENTS}]"],
    "_num_streams": [f"v['_num_streams'] = len(m[{STREAMS}])"],
    "_streamnames": [f"v['_streamnames'] = sorted(m[{STREAMS}])"],
    "_num_aliases": ["v['_num_aliases'] = sum(map(len, keys.values()))"],
    "_num_conflicts": [f"v['_num_conflicts'] = m[{CONFLICTS}]"],
    "_num_days": [f"v['_num_days'] = m[{MODIFIED}] // {DAY_US} - m[{CREATED}] // {DAY_US} + 1"],
    "_uid": ["s = b['h']", "if s is not None: v['_uid'] = s[1]"],
    "_split": ["s = b.get('s')", "if s is not None and 'x' in s: v['_split'] = text(max(e[0] for e in s['x']))"],
}
assert tuple(_META) == META_NAMES  # noqa: S101  (the two are one list)
_SIZES: Final = {
    "_cust_sz": "v['_cust_sz'] = c",
    "_internal_sz": "v['_internal_sz'] = z - c",
    "_total_sz": "v['_total_sz'] = z",
}


def text_of_us(us: int) -> str:
    """Gives the moment of microseconds since the epoch as RFC 3339 in UTC, as `text_of_date(moment(us))` does."""
    days, us = divmod(us, DAY_US)
    second, us = divmod(us, 1_000_000)
    return f"{_day(days)}{_clock(second)}.{us:06}Z" if us else f"{_day(days)}{_clock(second)}Z"


@lru_cache(maxsize=10_000)
def _day(days: int) -> str:
    return f"{_FIRST_DAY + timedelta(days=days)}T"


@lru_cache(maxsize=86_400)
def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
