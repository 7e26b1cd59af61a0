"""Merging into sets, moments and maps (see `merge.py`)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from streams.merge_state import (
    INT_MAX,
    MOST_ELEMENTS,
    Place,
    Slot,
    State,
    Value,
    canonical,
    clamped,
    decoder,
    encoder,
    kept,
    later,
    microseconds,
    moment,
    never,
    timed_state,
    wins,
)
from streams.ql.kinds import Kind, element

# --- sets of text


def text_set(place: Place) -> Slot:
    """A set of text: an element stays as long as its newest event; `ts[]string` shows them in the order of time."""
    name, bit, key, capacity = place.name, place.bit, place.key("s", Kind.STRING), place.capacity or MOST_ELEMENTS
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
        if len(state) > capacity:
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
        if len(one) > capacity:
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


def moments(place: Place) -> Slot:
    """A set of moments in their order; a capacity keeps the newest."""
    name, bit, key, capacity = place.name, place.bit, place.key("m", Kind.DATE), place.capacity or MOST_ELEMENTS

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
            if len(state) >= capacity:
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
        return both[-capacity:]

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


def keyed(place: Place, *, newest: bool) -> Slot:
    """A map that decides per key by event time."""
    name, bit, capacity = place.name, place.bit, place.capacity or MOST_ELEMENTS
    of = element(place.kind) or Kind.DYNAMIC
    key = place.key("k", of)
    encode, decode = encoder(of), decoder(of)

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
        before = shown.copy() if len(state) + len(value) > capacity else None
        changed = 0
        for each, item in value.items():
            stored = item if encode is None else encode(item)
            old = state.get(each)
            if old is None or wins(stored, us, event_id, old, newest=newest):
                state[each] = timed_state(stored, us, event_id)
                shown[each] = item
                if old is None or old[0] != stored or type(old[0]) is not type(stored):
                    changed = bit
        if len(state) > capacity:
            _drop_oldest_keys(state, capacity)
            view[name] = render(state)
            return 0 if view[name] == before and canonical(view[name]) == canonical(before) else bit
        return changed

    def combine(one: State, other: State) -> State:
        for each, timed in other.items():
            old = one.get(each)
            one[each] = timed if old is None else later(old, timed, newest=newest)
        if len(one) > capacity:
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


def keyed_total(place: Place) -> Slot:
    """A map that adds per key. With a capacity, what a dropped key had is lost: then order can show."""
    of = element(place.kind) or Kind.DYNAMIC
    slot = _keyed_fold(place, place.key("A" if place.bounded else "a", of), lambda old, new: clamped(old + new))
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
                if len(state) < MOST_ELEMENTS:
                    state[each] = number
                    changed = bit
            elif number:
                added = old + number
                state[each] = added if -INT_MAX < added < INT_MAX else clamped(added)
                changed = bit
        return changed

    return replace(slot, merge=add)


# --- maps: the least or greatest per key


def _rank(value: State) -> tuple[int, Any]:
    """Orders values of mixed kinds: numbers, then text, then the rest by canonical JSON."""
    if isinstance(value, bool):
        return 2, canonical(value)
    if isinstance(value, int | float):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, canonical(value))


def keyed_extreme(place: Place, *, greatest: bool) -> Slot:
    """A map that keeps the least or the greatest per key."""
    of = element(place.kind) or Kind.DYNAMIC
    key = place.key("E" if place.bounded else "e", of)
    pick: Callable[[State, State], State] = max if greatest else min
    if of == Kind.DYNAMIC:
        return _keyed_fold(place, key, lambda old, new: pick(old, new, key=_rank))  # type: ignore[call-arg]
    return _keyed_fold(place, key, pick)


def _keyed_fold(place: Place, key: str, fold: Callable[[State, State], State]) -> Slot:
    """A map whose values are folded per key; without bounds the state is itself the view where kinds allow it."""
    name, bit, capacity, kind = place.name, place.bit, place.capacity or MOST_ELEMENTS, place.kind
    of = element(kind) or Kind.DYNAMIC
    encode, decode = encoder(of), decoder(of)

    def combine(one: State, other: State) -> State:
        for each, stored in other.items():
            old = one.get(each)
            if old is not None:
                one[each] = fold(old, stored)
            elif len(one) < MOST_ELEMENTS:
                one[each] = stored
        return one

    def combine_bounded(one: State, other: State) -> State:
        for each, timed in other.items():
            old = one.get(each)
            one[each] = timed if old is None else [fold(old[0], timed[0]), max(old[1], timed[1])]
        if len(one) > capacity:
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
            elif len(state) >= MOST_ELEMENTS:
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
        if len(state) > capacity:
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
        expression="s" if decode is None else "render(s)", oldest=never, expire=kept,
    )  # fmt: skip
