"""Moments in the names of files: read, to know in which order they belong, and written."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import re2  # type: ignore[import-untyped]  # the wheel carries no types

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

#: Digits since the epoch, by how many there are: seconds, and the thousandths of them, as microseconds.
_COUNTS: Final = {10: 1_000_000.0, 13: 1_000.0, 16: 1.0, 19: 0.001}
_WRITTEN: Final = re.compile(
    r"(\d{4})[-_.]?(\d{2})[-_.]?(\d{2})"
    r"(?:[T_ .-]?(\d{2})[-_:.h]?(\d{2})?(?:[-_:.m]?(\d{2})(?:[.,_-]?(\d{1,6}))?)?s?)?"
    r"(Z|[+-]\d{2}:?\d{2})?"
)
_TAIL: Final = re.compile(r"[0-9][0-9TZhms_:.,+ -]*$")
#: What a file's name ends in, packings included.
_ENDING: Final = re.compile(r"(?:\.[A-Za-z][A-Za-z0-9]{0,7}){0,3}$")

#: Pieces of the formats in which a moment is written; all else stands as it is.
_PIECES: Final = re.compile(r"YYYY|YY|MM|DD|HH|mm|ss|SSS|unix_ms|unix")


def moment_of(text: str) -> int | None:
    """Reads a moment (microseconds since the epoch, UTC unless it says otherwise); None when it is none.

    Digits alone are a date, with a time (YYYYMMDD, …HHMM, …HHMMSS), or counted since 1970 (10, 13, 16 or 19 of them:
    seconds, and the thousandths of them).
    """
    if text.isdecimal() and text.isascii() and len(text) in _COUNTS and not (len(text) == 10 and text[0] == "2"):
        return int(int(text) * _COUNTS[len(text)]) if len(text) < 19 else int(text) // 1000
    found = _WRITTEN.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, part, zone = found.groups()
    try:
        when = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC)
    except ValueError:
        return None
    if part:
        when += timedelta(microseconds=int(part.ljust(6, "0")))
    if zone and zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        when -= timedelta(hours=hours, minutes=minutes) * (1 if zone[0] == "+" else -1)
    return (when - _EPOCH) // _MICROSECOND


def reader(prefix: str, *, regex: bool) -> Callable[[str], int | None]:
    """Makes what reads the moment of a file's name: the prefix, the moment, and an ending such as `.csv.gz`.

    It gives None for a name that is not so. Where several readings fit, the longest moment counts. Raises ValueError
    for a regular expression that is none.
    """
    fits: Callable[[str], bool]
    if regex:
        options = re2.Options()
        options.log_errors = False
        try:
            pattern = re2.compile(prefix, options)
        except re2.error as error:
            raise ValueError(f"{prefix!r} is no regular expression: {error}") from None

        def fits(start: str) -> bool:
            return pattern.fullmatch(start) is not None
    else:

        def fits(start: str) -> bool:
            return start == prefix

    def read(name: str) -> int | None:
        stem = name[: _ending(name)]
        tail = _TAIL.search(stem)
        if tail is None:
            return None
        for at in range(tail.start(), len(stem)):
            if stem[at].isdigit() and fits(stem[:at]) and (moment := moment_of(stem[at:])) is not None:
                return moment
        return None

    return read


def prefix_of(name: str) -> str | None:
    """Gives what stands before the moment in a file's name; None when there is no moment in it."""
    stem = name[: _ending(name)]
    tail = _TAIL.search(stem)
    if tail is None:
        return None
    return next((stem[:at] for at in range(tail.start(), len(stem)) if moment_of(stem[at:]) is not None), None)


def _ending(name: str) -> int:
    found = _ENDING.search(name)
    return found.start() if found else len(name)


@lru_cache(maxsize=64)
def check_format(text: str) -> str:
    """Gives a format back when names can be made of it. Raises ValueError."""
    rest = _PIECES.sub("", text)
    if not _PIECES.search(text) or not re.fullmatch(r"[TZ_.,+ -]*", rest):
        raise ValueError(
            f"{text!r}: accepted are YYYY, YY, MM (month), DD, HH, mm (minute), ss, SSS, unix and unix_ms, and between "
            "them T, Z and _ . , + - and blanks"
        )
    return text


def moment_text(at_us: int, form: str) -> str:
    """Writes a moment, in UTC."""
    when = _EPOCH + timedelta(microseconds=at_us)
    pieces = {
        "YYYY": f"{when.year:04d}",
        "YY": f"{when.year % 100:02d}",
        "MM": f"{when.month:02d}",
        "DD": f"{when.day:02d}",
        "HH": f"{when.hour:02d}",
        "mm": f"{when.minute:02d}",
        "ss": f"{when.second:02d}",
        "SSS": f"{when.microsecond // 1000:03d}",
        "unix": str(at_us // 1_000_000),
        "unix_ms": str(at_us // 1000),
    }
    return _PIECES.sub(lambda found: pieces[found[0]], form)
