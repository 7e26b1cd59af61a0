"""What merging is made of: states, slots, and the rules that all families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
#: Capacity of `MERGEOP capped` where none is given.
CAPPED_DEFAULT: Final = 100
#: What a set or map holds without a capacity: nobody's profile may outgrow what can be written with each event.
MOST_ELEMENTS: Final = 10_000

SETS: Final = frozenset({Kind.STRINGS, Kind.TS_STRINGS, Kind.MEMBERSHIP})
MOMENTS: Final = frozenset({Kind.TIMES, Kind.TIMEBUCKETS})
ADDABLE: Final = frozenset({Kind.INT, Kind.NUMBER, Kind.MAP_INT, Kind.MAP_NUMBER, Kind.MAP_INTSUM, Kind.MAP_VALUE})

#: Kinds in which values that are equal to Python may be different: 1, 1.0 and true.
LOOSE: Final = frozenset({Kind.DYNAMIC, Kind.MAP_VALUE, Kind.FLOWS})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_from_timestamp = datetime.fromtimestamp
#: Seconds as a float are exact to the microsecond within so many microseconds of the epoch (until 2106).
_EXACT_US: Final = 1 << 52
INT_MAX = (1 << 63) - 1
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
    of kind or operator a state is never read as something that it is not; the field then begins anew. A state that was
    made again from the log has the number of its rebuilding behind an `@`.
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


@dataclass(frozen=True, slots=True)
class Place:
    """A field, as far as its slot needs to know it."""

    name: str
    kind: str
    bit: int
    capacity: int
    keep_us: int
    generation: int = 0

    def key(self, family: str, kind: str | None = None) -> str:
        """Gives the name of the field's state: the field, the family, and the kind of what is in it."""
        of = self.kind if kind is None else kind
        return f"{self.name}:{family}{_CODES.get(Kind(of), of)}" + (f"@{self.generation}" if self.generation else "")

    @property
    def bounded(self) -> bool:
        """Whether elements can be dropped."""
        return bool(self.capacity or self.keep_us)


def canonical(value: State) -> bytes:
    """Gives the text by which equal times are decided in the end."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def wins(stored: State, us: int, event_id: str, old: list[State], *, newest: bool) -> bool:
    """Says whether a contribution replaces the timed state `old`."""
    if us != old[1]:
        return bool((us > old[1]) == newest)
    old_id = old[2] if len(old) > 2 else ""
    if event_id != old_id:
        return bool((event_id > old_id) == newest)
    if stored == old[0] and type(stored) is type(old[0]) and not isinstance(stored, dict | list):
        return False
    return (canonical(stored) > canonical(old[0])) == newest


def timed_state(stored: State, us: int, event_id: str) -> list[State]:
    """Makes a timed state."""
    return [stored, us, event_id] if event_id else [stored, us]


def later(one: list[State], other: list[State], *, newest: bool) -> list[State]:
    """Gives that of two timed states which wins."""
    return other if wins(other[0], other[1], other[2] if len(other) > 2 else "", one, newest=newest) else one


def encoder(kind: str) -> Callable[[Value], State] | None:
    """Gives the function from a typed value to what is stored of it; None where they are the same."""
    of = element(kind)
    if kind == Kind.DATE:
        return microseconds
    if of == Kind.DATE:
        if is_map(kind):
            return lambda value: {key: microseconds(each) for key, each in value.items()}
        return lambda value: [microseconds(each) for each in value]
    return None


def decoder(kind: str) -> Callable[[State], Value] | None:
    """Gives the function back from what is stored to the typed value; None where they are the same."""
    of = element(kind)
    if kind == Kind.DATE:
        return moment
    if of == Kind.DATE:
        if is_map(kind):
            return lambda stored: {key: moment(each) for key, each in stored.items()}
        return lambda stored: [moment(each) for each in stored]
    return None


def never(state: State) -> None:
    """The `oldest` of states without elements."""
    del state


def kept(state: State, floor_us: int) -> bool:
    """The `expire` of states without elements."""
    del state, floor_us
    return False


def clamped(total: float) -> float:
    """Keeps a sum within what JSON and SQLite can hold: 64 bits, or the largest finite number."""
    if type(total) is int:
        return max(-INT_MAX, min(INT_MAX, total))
    return max(-_FLOAT_MAX, min(_FLOAT_MAX, total))
