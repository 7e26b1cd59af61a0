"""Which events made a field's value: contributions merged once more, each with what became of it (P8).

What a contribution did follows from the merge operator: of one event's whole value one won and all others lost; sums
and counts were added to; of sets and maps each element has the event that it stands by.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from streams.merge import Slot, State, Value, microseconds

#: Elements of sets and maps whose events are remembered; a state without a capacity has no more.
_MOST_ELEMENTS: Final = 10_000


class Contribution(NamedTuple):
    """What one event gave to a field by one query."""

    event_us: int
    received_us: int
    lane: str
    position: int
    stream: str
    event_id: str | None
    query: str
    version: int
    value: Value


@dataclass(frozen=True, slots=True)
class Effect:
    """What became of a contribution: `won`, `lost` or `added`.

    `elements`: those of a set (moments in microseconds) or keys of a map that stand by this event. `dropped` says that
    none of its elements is in the value any more.
    """

    of: Contribution
    outcome: str
    elements: tuple[str | int, ...] = ()
    dropped: bool = False


class Provenance:
    """Merges contributions in any order. Keeps the newest `limit` of them, and all that stand in the value."""

    def __init__(self, slot: Slot, limit: int) -> None:
        self.slot = slot
        self._limit = limit
        self._family = family(slot)
        self._states: dict[str, State] = {}
        self._newest: list[tuple[int, int, str, int, Contribution]] = []
        self._winners: dict[Any, Contribution] = {}
        self.count = 0

    def add(self, each: Contribution) -> None:
        """Takes a contribution in."""
        self.count += 1
        elements = list(self._elements(each.value))
        before = [self._stands(element) for element in elements]
        self.slot.merge(self._states, {}, each.value, each.event_us, each.event_id or "")
        for element, stood in zip(elements, before, strict=True):
            if self._stands(element) != stood and (element in self._winners or len(self._winners) < _MOST_ELEMENTS):
                self._winners[element] = each
        item = (each.event_us, each.received_us, each.lane, each.position, each)
        if len(self._newest) < self._limit:
            heapq.heappush(self._newest, item)
        elif self._limit:
            heapq.heappushpop(self._newest, item)

    def expire(self, now_us: int) -> None:
        """Drops the elements that keep_days does not keep any more."""
        state = self._states.get(self.slot.key)
        if state is not None and self.slot.keep_us:
            self.slot.expire(state, now_us - self.slot.keep_us)

    @property
    def value(self) -> Value:
        """What the contributions make together; None when there are none."""
        state = self._states.get(self.slot.key)
        return None if state is None or state in ({}, []) else self.slot.render(state)

    def effects(self) -> list[Effect]:
        """Gives what became of the kept contributions, the newest first."""
        kept = {(each.lane, each.position, each.query): each for *_, each in self._newest}
        standing = self._standing()
        for each in list(standing.values())[: self._limit]:
            kept.setdefault((each.lane, each.position, each.query), each)
        ordered = sorted(kept.values(), key=lambda each: (each.event_us, each.received_us, each.position), reverse=True)
        return [self._effect(each, standing) for each in ordered]

    def _effect(self, each: Contribution, standing: Mapping[Any, Contribution]) -> Effect:
        if self._family == "total":
            return Effect(each, "added")
        if self._family in {"timed", "extreme"}:
            return Effect(each, "won" if standing.get(None) is each else "lost")
        elements = tuple(self._elements(each.value))
        state = self._states.get(self.slot.key, {})
        if self._family == "keyed total":
            return Effect(each, "added", elements, dropped=not any(element in state for element in elements))
        mine = tuple(element for element in elements if standing.get(element) is each)
        gone = not any(element in state for element in elements)
        return Effect(each, "won" if mine else "lost", mine, dropped=gone)

    def _standing(self) -> dict[Any, Contribution]:
        """The winners of what is in the value: a capacity may have let others go."""
        if self._family in {"timed", "extreme", "total"}:
            return self._winners
        state = self._states.get(self.slot.key, {})
        return {element: each for element, each in self._winners.items() if element in state}

    def _stands(self, element: Any) -> Any:
        """Gives what an element's event is known by: when it changes, another event has won."""
        state = self._states.get(self.slot.key)
        if state is None:
            return None
        match self._family:
            case "timed":
                return [*state]
            case "moments":
                return element in state
            case "keyed extreme":
                stands = state.get(element)
                return stands[0] if isinstance(stands, list) and self.slot.capacity else stands
            case "set" | "keyed":
                return state.get(element)
            case _:
                return state

    def _elements(self, value: Value) -> Iterator[Any]:
        if self._family in {"timed", "extreme"}:
            yield None
        elif self._family == "moments":
            yield from map(microseconds, value)
        elif self._family != "total":
            yield from value


def family(slot: Slot) -> str:
    """Gives the family of a slot's states, see the table in `merge`."""
    letter = slot.key.rpartition(":")[2][0]
    return _FAMILIES[letter]


_FAMILIES: Final[Mapping[str, str]] = {
    "t": "timed",
    "x": "extreme",
    "n": "total",
    "s": "set",
    "m": "moments",
    "k": "keyed",
    "a": "keyed total",
    "A": "keyed total",
    "e": "keyed extreme",
    "E": "keyed extreme",
}


def same_shape(one: Slot, other: Slot) -> bool:
    """Says whether states of these slots can be merged: the same field, family and kind, of any generation."""
    return one.key.partition("@")[0] == other.key.partition("@")[0]
