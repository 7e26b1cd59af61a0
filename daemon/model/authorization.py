"""What is known of an authorization's health, the hours, days and weeks that are counted, and when checks are due."""

from __future__ import annotations

from enum import StrEnum

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
#: The epoch was a Thursday; weeks begin on Monday.
_FIRST_MONDAY_US = 4 * DAY_US


class Health(StrEnum):
    """Whether an authorization works, as last found out."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Unit(StrEnum):
    """What API requests are counted by."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"


#: How many of each are kept.
KEPT = {Unit.HOUR: 7 * 24, Unit.DAY: 92, Unit.WEEK: 105}
LENGTH_US = {Unit.HOUR: HOUR_US, Unit.DAY: DAY_US, Unit.WEEK: WEEK_US}


def start_of(unit: Unit, moment_us: int) -> int:
    """Gives when the hour, day or week (from Monday, UTC) began that holds the moment."""
    first_us = _FIRST_MONDAY_US if unit is Unit.WEEK else 0
    return moment_us - (moment_us - first_us) % LENGTH_US[unit]


def next_check(now_us: int, every_s: float, jitter: float, chance: float) -> int:
    """Gives when a check is due after one at `now_us`; `chance` from 0 to 1 moves it by `jitter` of the time."""
    return now_us + round(every_s * 1_000_000 * (1 + jitter * (2 * chance - 1)))
