"""Merging into one value: the latest or oldest, the least or greatest, sums and counts (see `merge.py`)."""

from __future__ import annotations

from streams.merge_state import (
    INT_MAX,
    LOOSE,
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
    moment,
    never,
    wins,
)

# --- one event's whole value


def timed(place: Place, *, newest: bool) -> Slot:
    """One event's whole value, whatever its kind: that of the newest or of the oldest."""
    name, bit, key = place.name, place.bit, place.key("t")
    encode, decode = encoder(place.kind), decoder(place.kind)
    loose = place.kind in LOOSE

    def merge(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        old = states.get(key)
        if old is not None:
            at = old[1]
            if us == at:
                stored = value if encode is None else encode(value)
                if not wins(stored, us, event_id, old, newest=newest):
                    return 0
            elif (us > at) is not newest:
                return 0
            # A value that stays is the usual case: only its time moves.
            if view.get(name) == value and not (loose and canonical(old[0]) != canonical(value)):
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
        combine=lambda one, other: later(one, other, newest=newest), render=render,
        expression="s[0]" if decode is None else "moment(s[0])" if decode is moment else "render(s)",
        oldest=never, expire=kept,
    )  # fmt: skip


# --- the least or the greatest


def extreme(place: Place, *, greatest: bool) -> Slot:
    """The least or the greatest value."""
    name, bit, key = place.name, place.bit, place.key("x")
    encode, decode = encoder(place.kind), decoder(place.kind)

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
        expression="s" if decode is None else "moment(s)", oldest=never, expire=kept,
    )  # fmt: skip


# --- sums and counts


def total(place: Place, *, count: bool) -> Slot:
    """The sum of values, or the number of events that had one."""
    name, bit, key = place.name, place.bit, place.key("n")

    def add(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        del us, event_id
        old = states.get(key)
        if old is not None:
            value += old
            if not -INT_MAX < value < INT_MAX:
                value = clamped(value)
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
        combine=lambda one, other: clamped(one + other), render=lambda state: state, expression="s",
        oldest=never, expire=kept,
    )  # fmt: skip
