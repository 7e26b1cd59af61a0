"""Who is a member now, and when time alone would change that: of profiles in the cache, and of scanned ones.

Entries that are evaluated are left open; the caller stores or rests them.

A profile in the cache stands for what its events made of it; what keep_days lets expire since then is left out for
evaluating, but stays stored until the profile's next event. So what is stored depends on the log alone (P10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from daemon import clock, log
from daemon.ingest.cache import Entry
from daemon.ingest.definitions import Definitions
from daemon.ingest.unit import Cause, Unit
from streams.profile import Profile, load

#: An enter's end is looked for over at most this many boundaries.
_UNTIL_STEPS: Final = 8


class Evaluator:
    """The audiences of one snapshot, ready to be asked. Its answers depend on the profile and the moment alone."""

    def __init__(self, definitions: Definitions) -> None:
        self._schema = definitions.schema
        self._set = definitions.audience_set
        self._failed: set[int] = set()
        self._plans: dict[int, tuple[tuple[int, ...], int, tuple[int, ...]]] = {}
        self.timed: frozenset[int] = frozenset(self._set.timed)
        #: All audiences that can be evaluated.
        self.numbers: tuple[int, ...] = tuple(sorted(self._set.audiences))
        self.known: frozenset[int] = frozenset(self._set.audiences)

    def after_change(self, unit: Unit, entry: Entry, changed: int, cause: Cause = "event") -> None:
        """Moves the memberships that a change of fields (bits) moves, and the profile's timer."""
        plan = self._plans.get(changed)
        if plan is None:
            if len(self._plans) > 4096:
                self._plans.clear()
            numbers = self._set.touched(changed)
            plan = (numbers, _mask(numbers), self._timed_of(numbers))
            self._plans[changed] = plan
        numbers, mask, timed = plan
        if numbers:
            self._evaluate(unit, entry, numbers, mask, cause, timed)

    def whole(self, unit: Unit, entry: Entry, cause: Cause) -> None:
        """Evaluates every audience for a profile that is new or merged."""
        self._evaluate(unit, entry, self.numbers, _mask(self.numbers), cause, self._set.timed)

    def some(self, unit: Unit, entry: Entry, numbers: Sequence[int], cause: Cause) -> None:
        """Evaluates some audiences for a cached profile."""
        self._evaluate(unit, entry, tuple(numbers), _mask(numbers), cause, self._timed_of(numbers))

    def due(self, unit: Unit, entry: Entry) -> None:
        """Evaluates what time can change for a cached profile whose timer has come, and sets the next one."""
        entry.due_us = None
        numbers = self._set.timed
        self._evaluate(unit, entry, numbers, _mask(numbers), "time", numbers)
        if entry.due_us is None:
            unit.bundle.timers_done.append(entry.id)

    def _evaluate(
        self, unit: Unit, entry: Entry, numbers: tuple[int, ...], mask: int, cause: Cause, timed: tuple[int, ...]
    ) -> None:
        profile = entry.open(self._schema)
        if self._schema.expiring:
            profile = self.at(profile, unit.now_us)
        matched = self.matched(profile, numbers, unit.now)
        moved = (matched ^ entry.members) & mask
        if moved:
            moves = [
                (number, self.until(profile, number, unit) if matched >> number & 1 else None)
                for number in numbers
                if moved >> number & 1
            ]
            unit.move(entry, moves, cause)
        if timed:
            # A timer may come too early, so a bound will do; once it has come the true boundary is worth its cost.
            find = self._set.boundary if cause == "time" else self._set.earliest
            due_us = find(timed, profile, unit.now)
            if due_us is not None and (entry.due_us is None or due_us < entry.due_us):
                entry.due_us = due_us
                unit.set_timer(profile.id, due_us)

    def _timed_of(self, numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple(number for number in numbers if number in self.timed)

    def at(self, profile: Profile, now_us: int) -> Profile:
        """Gives the profile as it is to be seen at a moment: itself, or a copy without what has expired."""
        if not self._schema.expiring:
            return profile
        expiry = profile.next_expiry(self._schema)
        if expiry is None or expiry > now_us:
            return profile
        seen = load(self._schema, profile.id, profile.dump())
        seen.expire(self._schema, now_us)
        return seen

    def matched(self, profile: Profile, numbers: tuple[int, ...], now: datetime) -> int:
        """Gives a bit for each of the audiences that the profile is in at a moment."""
        try:
            return self._set.matched(numbers, profile, now)
        except Exception:  # noqa: BLE001  (a defect in one filter must not stop all: they are asked one by one)
            return sum(1 << number for number in set(numbers) if self._verdict(number, profile, now))

    def _verdict(self, number: int, profile: Profile, now: datetime) -> bool:
        try:
            return self._set.evaluate((number,), profile, now)[0]
        except Exception as error:  # noqa: BLE001  (a filter that cannot be evaluated has no members)
            if number not in self._failed:
                self._failed.add(number)
                log.get().exception("audience_failed", audience=number, error=str(error))
            return False

    def asked_alone(self, number: int) -> Callable[[Mapping[str, Any], datetime], tuple[bool, bool]]:
        """Gives the function that says of typed values whether one audience matches, and whether it could say so."""
        return self._set.audiences[number].evaluate

    def earliest(self, profile: Profile, timed: tuple[int, ...], now: datetime) -> int | None:
        """Gives a moment after `now` that is not later than the first at which time changes one of the memberships."""
        return self._set.earliest(timed, profile, now)

    def until(self, profile: Profile, number: int, unit: Unit) -> int | None:
        """Gives the moment at which a membership that begins now would end by time alone; None when never."""
        if number not in self.timed:
            return None
        if not self._schema.expiring:
            return self._set.boundary((number,), profile, unit.now)
        at_us = unit.now_us
        for _ in range(_UNTIL_STEPS):
            next_us = self._set.boundary((number,), self.at(profile, at_us), clock.from_us(at_us))
            if next_us is None:
                return None
            at_us = next_us
            if not self.matched(self.at(profile, at_us), (number,), clock.from_us(at_us)):
                return at_us
        return None


def _mask(numbers: Sequence[int]) -> int:
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask
