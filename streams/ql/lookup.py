"""How a name finds its value: exactly, then reached into by its dots, then without regard to case.

Data is a mapping with text keys, an event as it came or a profile's values. Where a name leads depends on the
keys alone, so that it is worked out once per set of keys (`Names.plan`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from streams.ql.missing import MISSING, Value

#: A top-level key, and the parts still to be reached into (none: the key's value itself).
Way: TypeAlias = tuple[str, tuple[str, ...]]

#: Plans kept; data whose keys differ every time must not fill the memory.
_MOST_PLANS: Final = 256
_MOST_KEYS: Final = 512
#: Splits of a dotted name multiply; beyond this many parts only the whole name and single steps are tried.
_MOST_PARTS: Final = 6
#: Maps larger than this are not searched without regard to case.
_MOST_SEARCHED: Final = 512


class _Absent:
    """A key that no data has."""

    __slots__ = ()


ABSENT: Final = _Absent()


def parts_of(path: Sequence[str]) -> tuple[str, ...]:
    """Gives the parts of a name: those written one by one (`` `a`.`b.c` ``), else the text split at its dots."""
    if len(path) > 1:
        return tuple(path)
    return tuple(path[0].split("."))


def lookup(data: Mapping[str, Value], path: Sequence[str]) -> Value:
    """Finds one name's value, or MISSING. For a name used often, `Names` remembers the way."""
    return follow(data, ways(data, parts_of(path)))


def ways(data: Mapping[str, Value], parts: tuple[str, ...]) -> tuple[Way, ...]:
    """Gives every way to the name that the keys of `data` leave open, the one to be tried first first."""
    return tuple(_ways(data, _lowered(data), parts))


def follow(data: Mapping[str, Value], open_ways: tuple[Way, ...]) -> Value:
    """Goes the first way that leads to a value."""
    for key, rest in open_ways:
        value = data[key]
        if not rest:
            return value
        value = reach(value, rest)
        if value is not MISSING:
            return value
    return MISSING


def reach(value: Value, parts: tuple[str, ...]) -> Value:
    """Reaches into maps by the parts of a name; MISSING where there is no such entry, or no map."""
    if value.__class__ is not dict:
        return MISSING
    if len(parts) == 1:
        part = parts[0]
        found = value.get(part, MISSING)
        return found if found is not MISSING else _without_case(value, part)
    return follow(value, ways(value, parts))


class Names:
    """The ways of a fixed list of names into data with any keys."""

    def __init__(self, paths: Sequence[Sequence[str]]) -> None:
        self._parts = tuple(parts_of(path) for path in paths)
        self._plans: dict[tuple[str, ...], tuple[Any, ...]] = {}

    def plan(self, data: Mapping[str, Value]) -> tuple[Any, ...]:
        """Gives, for each name, a key of `data` or ABSENT (names without dots), or its ways (dotted names)."""
        keys = tuple(data)
        known = self._plans.get(keys)
        return known if known is not None else self._make(keys, data)

    def _make(self, keys: tuple[str, ...], data: Mapping[str, Value]) -> tuple[Any, ...]:
        lowered = _lowered(data)
        made: list[Any] = []
        for parts in self._parts:
            open_ways = tuple(_ways(data, lowered, parts))
            if len(parts) > 1:
                made.append(open_ways)
            else:
                made.append(open_ways[0][0] if open_ways else ABSENT)
        plan = tuple(made)
        if len(keys) <= _MOST_KEYS:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[keys] = plan
        return plan


def _lowered(data: Mapping[str, Value]) -> dict[str, str]:
    """The first key of each spelling without regard to case."""
    lowered: dict[str, str] = {}
    for key in data:
        lowered.setdefault(key.lower(), key)
    return lowered


def _ways(data: Mapping[str, Value], lowered: Mapping[str, str], parts: tuple[str, ...]) -> Iterator[Way]:
    whole = ".".join(parts)
    exact = whole in data
    if exact:
        yield whole, ()
        return
    count = len(parts)
    splits = range(count - 1, 0, -1) if count <= _MOST_PARTS else (1,)
    heads = [(".".join(parts[:split]), parts[split:]) for split in splits] if count > 1 else []
    for head, rest in heads:
        if head in data:
            yield head, rest
    key = lowered.get(whole.lower())
    if key is not None:
        yield key, ()
        return
    for head, rest in heads:
        key = lowered.get(head.lower())
        if key is not None and key != head:
            yield key, rest


def _without_case(value: dict[str, Value], part: str) -> Value:
    lowered = part.lower()
    found = value.get(lowered, MISSING)
    if found is not MISSING or len(value) > _MOST_SEARCHED:
        return found
    for key, each in value.items():
        if key.lower() == lowered:
            return each
    return MISSING
