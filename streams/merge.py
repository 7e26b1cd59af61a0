"""How a field's contributions become one value: the merge operators, each specialised for its field.

Of every field a profile keeps a *state*, the least that the operator needs, in JSON shape, so that storing is one
call of orjson and loading another. All merging is commutative and associative: the order in which events arrive, or
profiles are stitched, does not show in the result (sums of `number` agree up to rounding). Where time decides, equal
event times are decided by the event id (none is the smallest), then by the value's canonical JSON.

| family | operators | state |
|---|---|---|
| timed | `latest`, `oldest`: one event's whole value | `[stored, event_us]` or `[stored, event_us, event_id]` |
| extreme | `min`, `max` of a scalar | `stored` |
| total | `sum`, `count` | number |
| set | `merge`, `capped` of `[]string`, `ts[]string`, `membership` | `{element: newest event_us}` |
| moments | `merge`, `capped` of `[]time`, `[]timebucket` | ascending `[us, …]` |
| keyed | `merge`, `capped`, `latestmap`, `oldestmap` of a map | `{key: timed state}` |
| keyed total | `sum` of a map, any `map[string]intsum` | `{key: number}` |
| keyed extreme | `mapmin`, `mapmax` (also `min`, `max`) of a map | `{key: stored}` |

Sets and maps hold at most their capacity, without one 10,000 elements; the oldest go first (of sums and extremes per
key without a capacity: no more are taken, since what is lost could not be made good again).

`stored` is the value itself, except that moments are microseconds since the epoch. A bounded map (capacity or
keep_days) of the last two families holds `[number or stored, newest event_us]` per key.
"""

from __future__ import annotations

from streams.merge_collections import keyed, keyed_extreme, keyed_total, moments, text_set
from streams.merge_scalars import extreme, timed, total
from streams.merge_state import (
    ADDABLE,
    CAPPED_DEFAULT,
    DAY_US,
    MOMENTS,
    SETS,
    Merge,
    Place,
    Slot,
    State,
    Value,
    microseconds,
    moment,
)
from streams.ql.kinds import Kind, is_map

__all__ = [
    "DAY_US",
    "MOMENTS",
    "SETS",
    "Merge",
    "Slot",
    "State",
    "Value",
    "allowed_operators",
    "default_operator",
    "make_slot",
    "microseconds",
    "moment",
]


def allowed_operators(kind: str) -> frozenset[str]:
    """Names the merge operators that fields of this kind can have."""
    if is_map(kind):
        names = {"merge", "capped", "latest", "oldest", "latestmap", "oldestmap", "mapmin", "mapmax", "min", "max"}
    elif kind in SETS or kind in MOMENTS:
        names = {"merge", "capped", "latest", "oldest"}
    elif kind in {Kind.GEOLOCATION, Kind.EMBEDDING, Kind.DYNAMIC}:
        names = {"latest", "oldest"}
    else:
        names = {"latest", "oldest", "min", "max"}
        if kind in {Kind.INT, Kind.NUMBER}:
            names.add("count")
    if kind in ADDABLE:
        names.add("sum")
    return frozenset(names)


def default_operator(kind: str) -> str:
    """Gives the operator of a field whose query names none."""
    if kind == Kind.MAP_INTSUM:
        return "sum"
    return "merge" if is_map(kind) or kind in SETS or kind in MOMENTS else "latest"


def make_slot(
    name: str, kind: str, operator: str, *, bit: int, capacity: int = 0, keep_days: int = 0, generation: int = 0
) -> Slot:
    """Makes the slot of a field. The operator must be one of `allowed_operators(kind)`."""
    if operator == "capped" and not capacity:
        capacity = CAPPED_DEFAULT
    place = Place(name, kind, bit, capacity, keep_days * DAY_US, generation)
    if operator in {"latest", "oldest"}:
        return timed(place, newest=operator == "latest")
    if operator == "count":
        return total(place, count=True)
    if is_map(kind):
        if operator == "sum":
            return keyed_total(place)
        if operator in {"mapmin", "min", "mapmax", "max"}:
            return keyed_extreme(place, greatest=operator.endswith("max"))
        return keyed(place, newest=operator != "oldestmap")
    if operator == "sum":
        return total(place, count=False)
    if operator in {"min", "max"}:
        return extreme(place, greatest=operator == "max")
    return moments(place) if kind in MOMENTS else text_set(place)
