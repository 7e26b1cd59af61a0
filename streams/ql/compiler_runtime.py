"""What generated source calls: the parts of an evaluation that are no expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from streams.ql import rules
from streams.ql.datemath import SECOND, Anchor
from streams.ql.lookup import Names, follow
from streams.ql.missing import MISSING, Value


class Finder:
    """Finds one unknown name in a profile: exactly at once, else by a plan per set of keys."""

    __slots__ = ("_exact", "_names", "_simple")

    def __init__(self, path: tuple[str, ...]) -> None:
        self._exact = ".".join(path)
        self._simple = "." not in self._exact
        self._names = Names((path,))

    def find(self, data: Mapping[str, Value]) -> Value:
        """Gives the value or MISSING."""
        value = data.get(self._exact, MISSING)
        if value is not MISSING:
            return value
        way = self._names.plan(data)[0]
        return data.get(way, MISSING) if self._simple else follow(data, way)


def dated(value: Value, text: Any, moment: datetime) -> Any:
    """A constant text beside `value`: the moment it means where dates are compared, else the text itself."""
    kind = value.__class__
    if kind is datetime or (kind is list and value and value[0].__class__ is datetime):
        return moment
    return text


def present(values: tuple[Value, ...]) -> list[Value]:
    """The elements of a list that have a value."""
    return [value for value in values if value is not MISSING]


def call(function: Callable[..., Any], *args: Any) -> Value:
    """Calls a function whose failures are "not evaluable"."""
    try:
        return function(*args)
    except Exception:  # noqa: BLE001  (untrusted expressions: whatever a function trips over is "not evaluable")
        return MISSING


def keep(memo: dict[str, Value], key: str, value: Value) -> Value:
    """Notes the result of an include for the rest of the evaluation."""
    memo[key] = value
    return value


def clock(anchors: tuple[Anchor, ...]) -> Callable[[datetime], tuple[datetime, ...]]:
    """Gives the moments of the anchors and the seconds after them, worked out once for each `now`.

    Two are remembered: the one asked again, and the last other one. A boundary asks about a moment of its own
    for each profile, and must not drive out the `now` of the batch.
    """
    distances = [_distances(each) for each in anchors]
    kept: tuple[Any, tuple[datetime, ...]] = (None, ())
    last: tuple[Any, tuple[datetime, ...]] = (None, ())

    def tick(now: datetime) -> tuple[datetime, ...]:
        nonlocal kept, last
        if kept[0] is now:
            return kept[1]
        if last[0] is now:
            kept, last = last, kept
            return kept[1]
        instants = _instants(anchors, distances, rules.seconds(now))
        last = (now, instants)
        return instants

    return tick


def _instants(
    anchors: tuple[Anchor, ...], distances: list[tuple[timedelta, timedelta] | None], now: datetime
) -> tuple[datetime, ...]:
    made: list[datetime] = []
    for found, near in zip(anchors, distances, strict=True):
        if near is not None:
            try:
                made += (now + near[0], now + near[1])
                continue
            except OverflowError:
                pass
        moment = found.at(now)
        made += (moment, moment + SECOND)
    return tuple(made)


def _distances(found: Anchor) -> tuple[timedelta, timedelta] | None:
    """How far from now a moment of fixed distance is, and the second after it; None for calendar steps."""
    exact = found.distances("<=")
    return None if exact is None else (-exact[0], SECOND - exact[0])
