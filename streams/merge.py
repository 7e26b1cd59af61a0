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

`stored` is the value itself, except that moments are microseconds since the epoch. A bounded map (capacity or
keep_days) of the last two families holds `[number or stored, newest event_us]` per key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import orjson

from streams.ql.kinds import Kind, element, is_map

#: JSON-able; what a profile stores of a field.
State: TypeAlias = Any
#: A typed value of the languages.
Value: TypeAlias = Any
#: (states, view, value, event_us, event_id) -> the field's bit when its typed value changed, else 0. Works in place.
Merge: TypeAlias = Callable[[dict[str, State], dict[str, Value], Value, int, str], int]

DAY_US: Final = 86_400_000_000
#: Event time of a value that stands above all times: an attached key of a single-valued identity.
KEYED_US: Final = (1 << 63) - 1
#: Capacity of `MERGEOP capped` where none is given.
CAPPED_DEFAULT: Final = 100

SETS: Final = frozenset({Kind.STRINGS, Kind.TS_STRINGS, Kind.MEMBERSHIP})
MOMENTS: Final = frozenset({Kind.TIMES, Kind.TIMEBUCKETS})
ADDABLE: Final = frozenset({Kind.INT, Kind.NUMBER, Kind.MAP_INT, Kind.MAP_NUMBER, Kind.MAP_INTSUM, Kind.MAP_VALUE})

#: Kinds in which values that are equal to Python may be different: 1, 1.0 and true.
_LOOSE: Final = frozenset({Kind.DYNAMIC, Kind.MAP_VALUE, Kind.FLOWS})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_from_timestamp = datetime.fromtimestamp
#: Seconds as a float are exact to the microsecond within so many microseconds of the epoch (until 2106).
_EXACT_US: Final = 1 << 52
_INT_MAX = (1 << 63) - 1
_FLOAT_MAX = 1.7976931348623157e308
_CODES: Final = {
    Kind.INT: "i",
    Kind.NUMBER: "n",
    Kind.BOOL: "b",
    Kind.DATE: "d",
    Kind.STRING: "s",
    Kind.DYNAMIC: "j",
    Kind.GEOLOCATION: "g",
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A field's place in its schema: the operator, made for its kind.

    `key` names the state in a profile's body: the field's name and what shape the state has, so that after a change
    of kind or operator a state is never read as something that it is not; the field then begins anew.
    """

    name: str
    key: str
    kind: str
    bit: int
    capacity: int  # 0: unlimited
    keep_us: int  # 0: unlimited
    merge: Merge
    combine: Callable[[State, State], State]  # of two profiles; may reuse the first
    render: Callable[[State], Value]  # the typed value; {} and [] when nothing is left
    expression: str  # `render` as Python over `s`, `moment` and `render`, for generated code
    oldest: Callable[[State], int | None]  # event time of the element that keep_days drops next
    expire: Callable[[State, int], bool]  # drop elements older than this time; says whether any was

    def from_text(self, text: str) -> Value:
        """Gives the value of a key's text, for identities of one value."""
        if self.kind == Kind.INT:
            return int(text)
        return float(text) if self.kind == Kind.NUMBER else text


def moment(us: int) -> datetime:
    """Gives the moment of microseconds since the epoch."""
    if -_EXACT_US < us < _EXACT_US:
        return _from_timestamp(us / 1_000_000, UTC)  # twice as fast as by timedelta
    return _EPOCH + timedelta(microseconds=us)


def microseconds(at: datetime) -> int:
    """Gives the microseconds since the epoch of an aware moment."""
    since = at - _EPOCH
    return since.days * DAY_US + since.seconds * 1_000_000 + since.microseconds


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


def make_slot(name: str, kind: str, operator: str, *, bit: int, capacity: int = 0, keep_days: int = 0) -> Slot:
    """Makes the slot of a field. The operator must be one of `allowed_operators(kind)`."""
    if operator == "capped" and not capacity:
        capacity = CAPPED_DEFAULT
    place = _Place(name, kind, bit, capacity, keep_days * DAY_US)
    if operator in {"latest", "oldest"}:
        return _timed(place, newest=operator == "latest")
    if operator == "count":
        return _total(place, count=True)
    if is_map(kind):
        if operator == "sum":
            return _keyed_total(place)
        if operator in {"mapmin", "min", "mapmax", "max"}:
            return _keyed_extreme(place, greatest=operator.endswith("max"))
        return _keyed(place, newest=operator != "oldestmap")
    if operator == "sum":
        return _total(place, count=False)
    if operator in {"min", "max"}:
        return _extreme(place, greatest=operator == "max")
    return _moments(place) if kind in MOMENTS else _set(place)


# --- what the families share


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    kind: str
    bit: int
    capacity: int
    keep_us: int

    def key(self, family: str, kind: str | None = None) -> str:
        of = self.kind if kind is None else kind
        return f"{self.name}:{family}{_CODES.get(Kind(of), of)}"

    @property
    def bounded(self) -> bool:
        return bool(self.capacity or self.keep_us)


def _canonical(value: State) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _wins(stored: State, us: int, event_id: str, old: list[State], *, newest: bool) -> bool:
    """Says whether a contribution replaces the timed state `old`."""
    if us != old[1]:
        return bool((us > old[1]) == newest)
    old_id = old[2] if len(old) > 2 else ""
    if event_id != old_id:
        return bool((event_id > old_id) == newest)
    if stored == old[0] and type(stored) is type(old[0]) and not isinstance(stored, dict | list):
        return False
    return (_canonical(stored) > _canonical(old[0])) == newest


def _timed_state(stored: State, us: int, event_id: str) -> list[State]:
    return [stored, us, event_id] if event_id else [stored, us]


def _later(one: list[State], other: list[State], *, newest: bool) -> list[State]:
    return other if _wins(other[0], other[1], other[2] if len(other) > 2 else "", one, newest=newest) else one


def _encoder(kind: str) -> Callable[[Value], State] | None:
    """Gives the function from a typed value to what is stored of it; None where they are the same."""
    of = element(kind)
    if kind == Kind.DATE:
        return microseconds
    if of == Kind.DATE:
        if is_map(kind):
            return lambda value: {key: microseconds(each) for key, each in value.items()}
        return lambda value: [microseconds(each) for each in value]
    return None


def _decoder(kind: str) -> Callable[[State], Value] | None:
    """Gives the function back from what is stored to the typed value; None where they are the same."""
    of = element(kind)
    if kind == Kind.DATE:
        return moment
    if of == Kind.DATE:
        if is_map(kind):
            return lambda stored: {key: moment(each) for key, each in stored.items()}
        return lambda stored: [moment(each) for each in stored]
    return None


def _never(state: State) -> None:
    del state


def _kept(state: State, floor_us: int) -> bool:
    del state, floor_us
    return False


# --- one event's whole value


def _timed(place: _Place, *, newest: bool) -> Slot:
    name, bit, key = place.name, place.bit, place.key("t")
    encode, decode = _encoder(place.kind), _decoder(place.kind)
    loose = place.kind in _LOOSE

    def merge(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        old = states.get(key)
        if old is not None:
            at = old[1]
            if us == at:
                stored = value if encode is None else encode(value)
                if not _wins(stored, us, event_id, old, newest=newest):
                    return 0
            elif (us > at) is not newest:
                return 0
            # A value that stays is the usual case: only its time moves.
            if view.get(name) == value and not (loose and _canonical(old[0]) != _canonical(value)):
                if encode is None:
                    old[0] = view[name] = value
                old[1] = us
                if event_id:
                    old[2:] = (event_id,)
                elif len(old) > 2:
                    del old[2]
                return 0
        stored = value if encode is None else encode(value)
        states[key] = [stored, us, event_id] if event_id else [stored, us]
        view[name] = value
        return bit

    def render(state: State) -> Value:
        return state[0] if decode is None else decode(state[0])

    return Slot(
        name=name, key=key, kind=place.kind, bit=bit, capacity=0, keep_us=0, merge=merge,
        combine=lambda one, other: _later(one, other, newest=newest), render=render,
        expression="s[0]" if decode is None else "moment(s[0])" if decode is moment else "render(s)",
        oldest=_never, expire=_kept,
    )  # fmt: skip


# --- the least or the greatest


def _extreme(place: _Place, *, greatest: bool) -> Slot:
    name, bit, key = place.name, place.bit, place.key("x")
    encode, decode = _encoder(place.kind), _decoder(place.kind)

    def merge(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        del us, event_id
        old = view.get(name)
        if old is None and key in states:
            old = states[key] if decode is None else decode(states[key])
        if old is not None and (value <= old if greatest else value >= old):
            return 0
        states[key] = value if encode is None else encode(value)
        view[name] = value
        return bit

    return Slot(
        name=name, key=key, kind=place.kind, bit=bit, capacity=0, keep_us=0, merge=merge,
        combine=max if greatest else min, render=(lambda state: state) if decode is None else decode,
        expression="s" if decode is None else "moment(s)", oldest=_never, expire=_kept,
    )  # fmt: skip


# --- sums and counts


def _clamped(total: float) -> float:
    """Keeps a sum within what JSON and SQLite can hold: 64 bits, or the largest finite number."""
    if type(total) is int:
        return max(-_INT_MAX, min(_INT_MAX, total))
    return max(-_FLOAT_MAX, min(_FLOAT_MAX, total))


def _total(place: _Place, *, count: bool) -> Slot:
    name, bit, key = place.name, place.bit, place.key("n")

    def add(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        del us, event_id
        old = states.get(key)
        if old is not None:
            value += old
            if not -_INT_MAX < value < _INT_MAX:
                value = _clamped(value)
            if value == old:
                return 0
        states[key] = view[name] = value
        return bit

    def increment(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        del value, us, event_id
        states[key] = view[name] = states.get(key, 0) + 1
        return bit

    return Slot(
        name=name, key=key, kind=place.kind, bit=bit, capacity=0, keep_us=0, merge=increment if count else add,
        combine=lambda one, other: _clamped(one + other), render=lambda state: state, expression="s",
        oldest=_never, expire=_kept,
    )  # fmt: skip


# --- sets of text


def _set(place: _Place) -> Slot:
    name, bit, key, capacity = place.name, place.bit, place.key("s", Kind.STRING), place.capacity
    by_time = place.kind == Kind.TS_STRINGS

    def render(state: State) -> Value:
        return sorted(state, key=lambda each: (state[each], each)) if by_time else sorted(state)

    def merge(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        del event_id
        state = states.get(key)
        if state is None:
            state = states[key] = {}
        moved = name not in view
        for each in value:
            at = state.get(each)
            if at is None:
                state[each] = us
                moved = True
            elif us > at:
                state[each] = us
                moved = moved or by_time
        if not moved:
            return 0
        if capacity and len(state) > capacity:
            _drop_oldest(state, capacity)
        shown = render(state)
        if shown == view.get(name):
            return 0
        view[name] = shown
        return bit

    def combine(one: State, other: State) -> State:
        for each, us in other.items():
            if us > one.get(each, us - 1):
                one[each] = us
        if capacity and len(one) > capacity:
            _drop_oldest(one, capacity)
        return one

    def expire(state: State, floor_us: int) -> bool:
        old = [each for each, us in state.items() if us < floor_us]
        for each in old:
            del state[each]
        return bool(old)

    return Slot(
        name=name, key=key, kind=place.kind, bit=bit, capacity=capacity, keep_us=place.keep_us, merge=merge,
        combine=combine, render=render, expression="render(s)",
        oldest=lambda state: min(state.values(), default=None), expire=expire,
    )  # fmt: skip


def _drop_oldest(state: dict[str, int], capacity: int) -> None:
    for each in sorted(state, key=lambda each: (state[each], each))[:-capacity]:
        del state[each]


# --- sets of moments


def _moments(place: _Place) -> Slot:
    name, bit, key, capacity = place.name, place.bit, place.key("m", Kind.DATE), place.capacity

    def merge(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        del us, event_id
        state = states.get(key)
        if state is None:
            state = states[key] = []
        shown = view.get(name)
        if shown is None:
            shown = view[name] = [moment(each) for each in state]
        changed = 0
        for each in value:
            at = microseconds(each)
            place_at = bisect_left(state, at)
            if place_at < len(state) and state[place_at] == at:
                continue
            if capacity and len(state) >= capacity:
                if not place_at:
                    continue  # older than all that a full set keeps
                del state[0], shown[0]
                place_at -= 1
            state.insert(place_at, at)
            shown.insert(place_at, each)
            changed = bit
        return changed

    def combine(one: State, other: State) -> State:
        both = sorted({*one, *other})
        return both[-capacity:] if capacity else both

    def expire(state: State, floor_us: int) -> bool:
        count = bisect_left(state, floor_us)
        del state[:count]
        return count > 0

    return Slot(
        name=name, key=key, kind=place.kind, bit=bit, capacity=capacity, keep_us=place.keep_us, merge=merge,
        combine=combine, render=lambda state: [moment(each) for each in state],
        expression="[moment(e) for e in s]", oldest=lambda state: state[0] if state else None, expire=expire,
    )  # fmt: skip


# --- maps: the newest or oldest value per key


def _keyed(place: _Place, *, newest: bool) -> Slot:
    name, bit, capacity = place.name, place.bit, place.capacity
    of = element(place.kind) or Kind.DYNAMIC
    key = place.key("k", of)
    encode, decode = _encoder(of), _decoder(of)

    def render(state: State) -> Value:
        if decode is None:
            return {each: timed[0] for each, timed in state.items()}
        return {each: decode(timed[0]) for each, timed in state.items()}

    def merge(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        state = states.get(key)
        if state is None:
            state = states[key] = {}
        shown = view.get(name)
        if shown is None:
            shown = view[name] = render(state)
        before = shown.copy() if capacity else None
        changed = 0
        for each, item in value.items():
            stored = item if encode is None else encode(item)
            old = state.get(each)
            if old is None or _wins(stored, us, event_id, old, newest=newest):
                state[each] = _timed_state(stored, us, event_id)
                shown[each] = item
                if old is None or old[0] != stored or type(old[0]) is not type(stored):
                    changed = bit
        if capacity and len(state) > capacity:
            _drop_oldest_keys(state, capacity)
            view[name] = render(state)
            return 0 if view[name] == before and _canonical(view[name]) == _canonical(before) else bit
        return changed

    def combine(one: State, other: State) -> State:
        for each, timed in other.items():
            old = one.get(each)
            one[each] = timed if old is None else _later(old, timed, newest=newest)
        if capacity and len(one) > capacity:
            _drop_oldest_keys(one, capacity)
        return one

    return Slot(
        name=name, key=key, kind=place.kind, bit=bit, capacity=capacity, keep_us=place.keep_us, merge=merge,
        combine=combine, render=render,
        expression="{k: e[0] for k, e in s.items()}" if decode is None else "render(s)",
        oldest=_oldest_key, expire=_expire_keys,
    )  # fmt: skip


def _drop_oldest_keys(state: dict[str, list[State]], capacity: int) -> None:
    for each in sorted(state, key=lambda each: (state[each][1], each))[:-capacity]:
        del state[each]


def _oldest_key(state: Mapping[str, list[State]]) -> int | None:
    return min((each[1] for each in state.values()), default=None)


def _expire_keys(state: dict[str, list[State]], floor_us: int) -> bool:
    old = [each for each, timed in state.items() if timed[1] < floor_us]
    for each in old:
        del state[each]
    return bool(old)


# --- maps: sums per key


def _keyed_total(place: _Place) -> Slot:
    of = element(place.kind) or Kind.DYNAMIC
    slot = _keyed_fold(place, place.key("A" if place.bounded else "a", of), lambda old, new: _clamped(old + new))
    if place.bounded or of == Kind.DYNAMIC:
        return slot
    name, bit, key = slot.name, slot.bit, slot.key

    def add(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        """The same as the general merge, for numbers of one kind."""
        del us, event_id
        state = states.get(key)
        if state is None:
            states[key] = view[name] = value.copy()
            return bit
        view[name] = state
        changed = 0
        for each, number in value.items():
            old = state.get(each)
            if old is None:
                state[each] = number
                changed = bit
            elif number:
                added = old + number
                state[each] = added if -_INT_MAX < added < _INT_MAX else _clamped(added)
                changed = bit
        return changed

    return replace(slot, merge=add)


# --- maps: the least or greatest per key


def _rank(value: State) -> tuple[int, Any]:
    """Orders values of mixed kinds: numbers, then text, then the rest by canonical JSON."""
    if isinstance(value, bool):
        return 2, _canonical(value)
    if isinstance(value, int | float):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, _canonical(value))


def _keyed_extreme(place: _Place, *, greatest: bool) -> Slot:
    of = element(place.kind) or Kind.DYNAMIC
    key = place.key("E" if place.bounded else "e", of)
    pick: Callable[[State, State], State] = max if greatest else min
    if of == Kind.DYNAMIC:
        return _keyed_fold(place, key, lambda old, new: pick(old, new, key=_rank))  # type: ignore[call-arg]
    return _keyed_fold(place, key, pick)


def _keyed_fold(place: _Place, key: str, fold: Callable[[State, State], State]) -> Slot:
    """A map whose values are folded per key; without bounds the state is itself the view where kinds allow it."""
    name, bit, capacity, kind = place.name, place.bit, place.capacity, place.kind
    of = element(kind) or Kind.DYNAMIC
    encode, decode = _encoder(of), _decoder(of)

    def combine(one: State, other: State) -> State:
        for each, stored in other.items():
            old = one.get(each)
            one[each] = stored if old is None else fold(old, stored)
        return one

    def combine_bounded(one: State, other: State) -> State:
        for each, timed in other.items():
            old = one.get(each)
            one[each] = timed if old is None else [fold(old[0], timed[0]), max(old[1], timed[1])]
        if capacity and len(one) > capacity:
            _drop_oldest_keys(one, capacity)
        return one

    def render(state: State) -> Value:
        return state if decode is None else {each: decode(stored) for each, stored in state.items()}

    def render_bounded(state: State) -> Value:
        return {each: timed[0] if decode is None else decode(timed[0]) for each, timed in state.items()}

    def merge(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        del us, event_id
        state = states.get(key)
        if state is None:
            state = states[key] = {}
        if name not in view:
            view[name] = render(state)
        changed = 0
        for each, item in value.items():
            stored = item if encode is None else encode(item)
            old = state.get(each)
            if old is not None:
                stored = fold(old, stored)
                if stored is old or (stored == old and type(stored) is type(old) and type(old) is not list):
                    continue
            state[each] = stored
            if decode is not None:
                view[name][each] = decode(stored)
            changed = bit
        return changed

    def merge_bounded(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        del event_id
        state = states.get(key)
        if state is None:
            state = states[key] = {}
        changed = 0
        for each, item in value.items():
            stored = item if encode is None else encode(item)
            old = state.get(each)
            if old is None:
                state[each] = [stored, us]
                changed = bit
                continue
            stored = fold(old[0], stored)
            if stored != old[0] or type(stored) is not type(old[0]):
                changed = bit
            state[each] = [stored, max(us, old[1])]
        if capacity and len(state) > capacity:
            _drop_oldest_keys(state, capacity)
        shown = render_bounded(state)
        if not changed or shown == view.get(name):
            return 0
        view[name] = shown
        return bit

    if place.bounded:
        return Slot(
            name=name, key=key, kind=kind, bit=bit, capacity=capacity, keep_us=place.keep_us, merge=merge_bounded,
            combine=combine_bounded, render=render_bounded, expression="render(s)", oldest=_oldest_key,
            expire=_expire_keys,
        )  # fmt: skip
    return Slot(
        name=name, key=key, kind=kind, bit=bit, capacity=0, keep_us=0, merge=merge, combine=combine, render=render,
        expression="s" if decode is None else "render(s)", oldest=_never, expire=_kept,
    )  # fmt: skip
