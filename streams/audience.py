"""All audiences together: which of them a change can touch, who is a member, and when time alone would change that.

Audiences are known by number. An event costs the audiences that read a field that it changed, not all there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from streams.merge import Value, microseconds, moment
from streams.profile import Profile
from streams.profile_view import META_NAMES, fields_read
from streams.ql.compiler import MATCH, CompiledFilter, fuse
from streams.schema import Schema

_SECOND: Final = timedelta(seconds=1)
#: Different changes that are remembered; beyond, all are forgotten and found again.
_REMEMBERED: Final = 4096
#: Each so many uses of a combination of audiences, a piece of so many of them is made one function: a few milliseconds
#: of work each time. Beyond so many pieces the rest is asked one by one.
_FUSED_AFTER: Final = 32
_FUSED: Final = 16
_MOST_PIECES: Final = 256


class AudienceSet:
    """The audiences of one moment, for the profiles of one schema. Immutable in effect."""

    def __init__(self, audiences: Mapping[int, CompiledFilter], schema: Schema) -> None:
        self.audiences = dict(audiences)
        self._schema = schema
        expiring = {slot.name for slot in schema.expiring}
        read = {number: fields_read(schema, each.fields) for number, each in self.audiences.items()}
        meta = {number for number, names in read.items() if not names.isdisjoint(META_NAMES)}
        self.reads_meta: bool = bool(meta)
        self._always = frozenset(meta)  # every event moves meta fields
        self._masks = {number: schema.mask_of(names) for number, names in read.items()}
        self._evaluate = {number: each.evaluate for number, each in self.audiences.items()}
        self._boundary = {number: each.boundary for number, each in self.audiences.items() if each.time_dependent}
        self._expiring = frozenset(number for number, names in read.items() if not names.isdisjoint(expiring))
        self.timed: tuple[int, ...] = tuple(sorted(self._boundary.keys() | self._expiring))
        """The audiences whose membership time alone can change."""
        self._touched: dict[int, tuple[int, ...]] = {}
        self._terms: dict[tuple[int, ...], tuple[tuple[tuple[str, list[timedelta]], ...], tuple[int, ...]]] = {}
        self._uses: dict[tuple[int, ...], int] = {}
        self._pieces = 0
        self._fused: dict[tuple[int, ...], tuple[Callable[[Mapping[str, Value], datetime], int], ...]] = {}

    def touched(self, changed: int) -> tuple[int, ...]:
        """Gives the audiences that an event can touch which changed these fields (bits), ascending."""
        known = self._touched.get(changed)
        if known is None:
            if len(self._touched) >= _REMEMBERED:
                self._touched.clear()
            known = tuple(
                number for number, mask in sorted(self._masks.items()) if mask & changed or number in self._always
            )
            self._touched[changed] = known
        return known

    def evaluate(self, numbers: Iterable[int], profile: Profile, now: datetime) -> list[bool]:
        """Says for each of the audiences whether the profile is a member; what cannot be evaluated is none.

        The caller has let expired elements go first (`Profile.expire`) where the schema has any.
        """
        if self.reads_meta:
            profile.refresh_meta(self._schema)
        values = profile.values
        evaluate = self._evaluate
        result = []
        for number in numbers:
            match, ok = evaluate[number](values, now)
            result.append(match and ok)
        return result

    def matched(self, numbers: tuple[int, ...], profile: Profile, now: datetime) -> int:
        """Gives the bit `1 << number` for each of the audiences that the profile is a member of.

        What `evaluate` gives, at a fraction of its cost for the same `numbers` again and again.
        """
        if self.reads_meta:
            profile.refresh_meta(self._schema)
        values = profile.values
        fused = self._fused.get(numbers, ())
        found = 0
        for members in fused:
            found |= members(values, now)
        rest = numbers[len(fused) * _FUSED :]
        if rest:
            for number in rest:
                if self._evaluate[number](values, now) == MATCH:
                    found |= 1 << number
            self._used(numbers, rest)
        return found

    def _used(self, numbers: tuple[int, ...], rest: tuple[int, ...]) -> None:
        """Counts a use of a combination; from time to time another piece of it becomes a function of its own."""
        uses = self._uses.get(numbers, 0) + 1
        if len(self._uses) >= _REMEMBERED:
            self._uses.clear()
        self._uses[numbers] = uses
        if uses % _FUSED_AFTER == 0 and len(numbers) > 1 and self._pieces < _MOST_PIECES:
            self._pieces += 1
            piece = fuse({number: self.audiences[number] for number in rest[:_FUSED]})
            self._fused[numbers] = (*self._fused.get(numbers, ()), piece)

    def boundary(self, numbers: Iterable[int], profile: Profile, now: datetime) -> int | None:
        """Gives the first moment (µs) after `now` at which time alone will change one of these memberships.

        Audiences that time cannot change are skipped. When a timer fires, ask for `timed`.
        """
        if self.reads_meta:
            profile.refresh_meta(self._schema)
        first: datetime | None = None
        values: Mapping[str, Value] = profile.values
        boundary = self._boundary
        expires = False
        for number in numbers:
            of = boundary.get(number)
            if of is not None:
                at = of(values, now)
                if at is not None and (first is None or at < first):
                    first = at
            expires = expires or number in self._expiring
        due = None if first is None else microseconds(first)
        return _earlier(due, self._expiry(profile)) if expires else due

    def earliest(self, numbers: tuple[int, ...], profile: Profile, now: datetime) -> int | None:
        """Gives a moment (µs) after `now` that is not later than `boundary`, at a fraction of its cost.

        At that moment a condition changes, which may or may not decide its audience. After an event it is enough to
        ask for the touched audiences and to take the earlier of this and the profile's pending timer.
        """
        plan = self._terms.get(numbers)
        if plan is None:
            if len(self._terms) >= _REMEMBERED:
                self._terms.clear()
            plan = self._terms[numbers] = self._plan_terms(numbers)
        fields, others = plan
        values = profile.values
        first: datetime | None = None
        for name, distances in fields:
            value = values.get(name)
            if value is None:
                continue
            if value.microsecond:
                value = value.replace(microsecond=0)
            place = bisect_right(distances, now - value)
            if place < len(distances):
                try:
                    at = value + distances[place]
                except OverflowError:
                    continue
                if first is None or at < first:
                    first = at
        due = None if first is None else microseconds(first)
        return _earlier(due, self.boundary(others, profile, now)) if others else due

    def _plan_terms(self, numbers: tuple[int, ...]) -> tuple[tuple[tuple[str, list[timedelta]], ...], tuple[int, ...]]:
        """Gives the distances from each date field, ascending, and the audiences that must be asked themselves."""
        fields: dict[str, set[timedelta]] = {}
        others: list[int] = []
        for number in numbers:
            terms = self.audiences[number].date_terms
            if number in self._expiring or (number in self._boundary and terms is None):
                others.append(number)
            else:
                for name, distance in terms or ():
                    fields.setdefault(name, set()).add(distance)
        return tuple((name, sorted(distances)) for name, distances in fields.items()), tuple(others)

    def _expiry(self, profile: Profile) -> int | None:
        """Gives the first whole second at which keep_days will have let something go."""
        expiry = profile.next_expiry(self._schema)
        if expiry is None:
            return None
        at = moment(expiry)
        whole = at.replace(microsecond=0)
        return microseconds(whole if whole == at else whole + _SECOND)


def _earlier(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
