"""The wall clock, and nothing else: the only module that reads it, so that a test can freeze it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _system_us() -> int:
    return time.time_ns() // 1000


_source: Callable[[], int] = _system_us


def now_us() -> int:
    """Gives the time as whole microseconds since the epoch."""
    return _source()


def now() -> datetime:
    """Gives the time in UTC."""
    return from_us(_source())


def from_us(microseconds: int) -> datetime:
    """Gives the moment, in UTC, of microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=microseconds)


def to_us(moment: datetime) -> int:
    """Gives the microseconds since the epoch of an aware moment."""
    return (moment - EPOCH) // _MICROSECOND


def freeze(source: Callable[[], int] | None) -> None:
    """Replaces the clock by `source` (microseconds since the epoch); None gives the system's back. For tests."""
    global _source  # noqa: PLW0603  (one clock a process is the point)
    _source = source or _system_us
