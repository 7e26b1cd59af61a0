"""Date maths: `now`, `now-3d`, `now+1M` (FACTS 3.3), and when such a moment passes a given one.

A whole number and one unit; case matters in the unit (`M` month, `m` minute). Years and months are calendar
steps that overflow as Go's AddDate does (31 January + 1M is 3 March, or 2 March in a leap year); weeks and
days are whole days, which in UTC have 24 hours. Results beyond the years 1 to 9999 stop at the ends, so that
"now-100000y" is still before everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from streams.ql.missing import MISSING, Missing

EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)
#: One second before the last one there is, so that a second can be added to any result.
LATEST: Final = datetime(9999, 12, 31, 23, 59, 58, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)

_EXPRESSION: Final = re.compile(r"[nN][oO][wW](?:([+-][0-9]{1,18})([yMwdhms]))?")
_SECONDS: Final = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_MONTHS: Final = {"y": 12, "M": 1}
#: More than the lengths of two calendar steps of equally many months can differ by.
_SLACK: Final = timedelta(days=8)
#: Seconds of 10,000 years; what is farther away is beyond every date.
_FARTHEST: Final = 10_000 * 366 * 86400

Operator = Literal["=", "!=", ">", ">=", "<", "<="]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A moment relative to now: `months` calendar months or `seconds` away; one of both is 0."""

    months: int = 0
    seconds: int = 0

    def at(self, now: datetime) -> datetime:
        """Gives the moment, in whole seconds (times compare at whole seconds)."""
        if now.microsecond:
            now = now.replace(microsecond=0)
        if self.months:
            return _add_months(now, self.months)
        return _add_seconds(now, self.seconds)

    def distances(self, operator: Operator) -> tuple[timedelta, ...] | None:
        """Gives how far from a moment (in whole seconds) its flips are; None for calendar steps, which vary."""
        if self.months or abs(self.seconds) > _FARTHEST:
            return None
        return tuple(timedelta(seconds=step - self.seconds) for step in _STEPS[operator])

    def flips(self, moment: datetime, operator: Operator) -> Iterator[datetime]:
        """Gives every whole second at which `moment OPERATOR this anchor` can change, in no order.

        The list is complete, also where calendar steps go back (now-1M on 31 March is 3 March, on 1 April
        1 March); not each of them need be a change.
        """
        moment = moment.replace(microsecond=0)
        # The anchor reaches the moment, then passes it: `>` and `<=` change at the one, the others at the other.
        steps = _STEPS[operator]
        if not self.months:
            for step in steps:
                yield from _shifted(moment, step - self.seconds)
            return
        middle = _add_months(moment, -self.months)
        month = _month_start(max(middle, EARLIEST + _SLACK) - _SLACK)
        end = min(middle, LATEST - _SLACK) + _SLACK
        while month <= end:
            yield month
            # Within one month the anchor keeps its distance from now.
            distance = _month_start(_add_months(month, self.months)) - month
            following = _add_months(month, 1)
            for step in steps:
                for reached in _shifted(moment - _bounded(distance, moment), step):
                    if month <= reached < following:
                        yield reached
            if following <= month:
                return
            month = following


def anchor(text: str) -> Anchor | None:
    """Reads date maths; None when the text is none. `now` alone is date maths."""
    found = _EXPRESSION.fullmatch(text)
    if found is None:
        return None
    count, unit = found.groups()
    if unit is None:
        return Anchor()
    if unit in _MONTHS:
        return Anchor(months=int(count) * _MONTHS[unit])
    return Anchor(seconds=int(count) * _SECONDS[unit])


def date_maths(text: str, now: datetime) -> datetime | Missing:
    """Gives the moment that the text means at `now`; MISSING when it is no date maths."""
    found = anchor(text)
    return MISSING if found is None else found.at(now)


_STEPS: Final[dict[str, tuple[int, ...]]] = {
    "=": (0, 1),
    "!=": (0, 1),
    ">": (0,),
    "<=": (0,),
    ">=": (1,),
    "<": (1,),
}


def _add_seconds(moment: datetime, seconds: int) -> datetime:
    try:
        return min(moment + timedelta(seconds=seconds), LATEST)
    except OverflowError:
        return LATEST if seconds > 0 else EARLIEST


def _add_months(moment: datetime, months: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if year < 1:
        return EARLIEST
    if year > LATEST.year:
        return LATEST
    return _add_seconds(moment.replace(year=year, month=month + 1, day=1), (moment.day - 1) * 86400)


def _month_start(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _shifted(moment: datetime, seconds: int) -> Iterator[datetime]:
    """Gives the moment so many seconds later, if there is such a moment."""
    try:
        yield moment + timedelta(seconds=seconds)
    except OverflowError:
        return


def _bounded(distance: timedelta, moment: datetime) -> timedelta:
    """Keeps `moment - distance` within the years that there are."""
    return min(max(distance, moment - LATEST), moment - EARLIEST)
