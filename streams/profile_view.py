"""What is seen of a profile: by filters as typed values, by people and messages as JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson

from streams.fragments import CONFLICTS, CREATED, EVENTS, MODIFIED, STREAMS
from streams.merge import DAY_US, State, Value, moment
from streams.ql.coerce import text_of_date
from streams.schema import Schema

if TYPE_CHECKING:
    from streams.profile import Profile

#: Sets of fields for which a function of its own is written out.
MOST_SHAPES: Final = 256

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
#: What is shown as it is.
_PLAIN: Final = (str, int, float)


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
    if isinstance(value, _PLAIN):
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


@lru_cache(maxsize=4)
def _lowered(schema: Schema) -> Mapping[str, Sequence[str]]:
    """The names of all fields by their lower-case spelling: asked for again by each of many audiences."""
    every: dict[str, list[str]] = {}
    for name in (*schema.fields, *META_NAMES):
        every.setdefault(name.lower(), []).append(name)
    return every


# --- of states


def shower(schema: Schema, shape: tuple[str, ...]) -> Callable[[dict[str, State]], dict[str, Value]]:
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
