"""Dates out of text that nobody promised a format for.

First digits alone (an epoch, or a compact date), then a date and a time picked out by the layouts that are
met in practice, python-dateutil as the last resort. A text without a year is never a date, and the wall clock
is never read.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from dateutil import parser as dateutil_parser

from streams.ql.golayout import MONTHS, hour_of, month_number, offset, two_digit_year
from streams.ql.missing import MISSING, Missing

LONGEST: Final = 80
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_MONTH: Final = rf"(?P<name>(?:{'|'.join((*MONTHS, 'sept', *(month[:3] for month in MONTHS)))})\.?)"
_WEEKDAY: Final = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?[.,]*\s+)?"
_ORDINAL: Final = r"(?:st|nd|rd|th)?"
_YEAR: Final = r"(?P<year>\d{4}|'?\d\d)"

#: Where the date stands: at the start, what follows is time and zone.
_DATES: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        r"(?P<year>\d{4})(?P<sep>[-/.:])(?P<month>\d{1,2})(?:(?P=sep)(?P<day>\d{1,2}))?(?!\d)",
        r"(?P<year>\d{4})\s*年\s*(?P<month>\d{1,2})\s*月\s*(?P<day>\d{1,2})\s*日",
        r"(?P<a>\d{1,2})(?P<sep>[-/.])(?P<b>\d{1,2})(?P=sep)(?P<year>\d{4}|\d\d)(?!\d)",
        rf"(?P<year>\d{{4}})[-/ ]{_MONTH}[-/ ](?P<day>\d{{1,2}})(?!\d)",
        rf"{_WEEKDAY}(?P<day>\d{{1,2}}){_ORDINAL}[-/ ]\s*{_MONTH}[-/ ,]+{_YEAR}(?!\d)",
        rf"{_WEEKDAY}{_MONTH}\s+(?P<day>\d{{1,2}}){_ORDINAL}(?:,\s*|\s+){_YEAR}(?![\d:])",
        rf"{_MONTH}[\s,]+(?P<year>\d{{4}})(?!\d)",
        r"(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)(?=\s+\d{1,2}:)",
        r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)(?=[T ]\d)",
    )
)
#: Dates whose year comes last: "Mon Jan  2 15:04:05 MST 2006".
_YEAR_LAST: Final = re.compile(
    rf"{_WEEKDAY}{_MONTH}\s+(?P<day>\d{{1,2}})\s+(?P<rest>\d{{1,2}}:.*?)\s+(?P<year>\d{{4}})$",
    re.IGNORECASE | re.ASCII,
)
_TIME: Final = re.compile(
    r"""[\s,T:]*(?:at\s+)?
    (?P<hour>\d{1,2})
    (?::(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})(?:[.,:](?P<fraction>\d{1,9}))?)?|(?=\s*[ap]\.?m))
    (?:\s*(?P<half>[ap])\.?m\.?(?![a-z]))?
    |[\s,T](?P<compact>\d{6}|\d{4})(?!\d)""",
    re.IGNORECASE | re.ASCII | re.VERBOSE,
)
#: A zone's name is passed over, as in the public code; only an offset counts. UTC+0100 is an offset.
_ZONE: Final = re.compile(
    r"""\s*(?:(?P<zulu>Z|UTC|GMT)(?![a-z+-])|(?:[A-Z]{1,5})?\s*(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?(?!\d)
    |[A-Z]{2,5}(?![a-z]))?
    (?:\s+(?:[A-Z]{2,5}|[+-]\d\d(?::?\d\d)?))?
    (?:\s+m=[+-][\d.]+)?(?:\s*\([^()]*\))?\s*""",
    re.IGNORECASE | re.ASCII | re.VERBOSE,
)
_DIGITS: Final = re.compile(r"(-?)(\d{4,19})(?:\.(\d+))?", re.ASCII)
_EXPONENT: Final = re.compile(r"\d(?:\.\d+)?[eE]\+?\d{1,2}", re.ASCII)
_HAS_YEAR: Final = re.compile(r"(?<!\d)[12]\d{3}(?!\d)", re.ASCII)
_HAS_WORD: Final = re.compile(r"[a-z]{3}", re.IGNORECASE | re.ASCII)
#: dateutil fills what a text lacks from here, instead of from today.
_DEFAULT: Final = datetime(1, 1, 1)  # noqa: DTZ001  (the zone comes from the text, or from the caller)


def parse_date(text: str, zone: tzinfo = UTC) -> datetime | Missing:
    """Reads a moment out of text, in UTC; `zone` is for text that names none. MISSING when it is no date."""
    text = text.strip()
    if not 4 <= len(text) <= LONGEST:
        return MISSING
    try:
        digits = _DIGITS.fullmatch(text)
        if digits is not None:
            return _of_digits(digits[1], digits[2], digits[3], zone)
        if _EXPONENT.fullmatch(text):
            return _of_digits("", str(int(float(text))), None, zone)
        found = _of_layouts(text, zone)
        return found if found is not None else _of_dateutil(text, zone)
    except (ValueError, OverflowError):
        return MISSING


def _of_digits(sign: str, digits: str, fraction: str | None, zone: tzinfo) -> datetime | Missing:
    """An epoch in s, ms, µs or ns by its digits (9-10, 11-13, 15-16, 17-19), or yyyy, yyyymmdd[hhmmss]."""
    count = len(digits)
    if count in {4, 8, 14}:
        if sign:
            return MISSING
        if fraction:  # yyyy.mm
            if count != 4 or len(fraction) > 2:
                return MISSING
            return _utc(datetime(int(digits), int(fraction), 1), zone)  # noqa: DTZ001  (zone follows)
        padded = digits + "00000101000000"[count:]
        if count == 4:
            padded = digits + "0101000000"
        return _utc(datetime.strptime(padded, "%Y%m%d%H%M%S"), zone)  # noqa: DTZ007  (zone follows)
    if count < 9:
        return MISSING
    if count <= 10:
        micros = int(digits) * 1_000_000 + int(((fraction or "") + "000000")[:6])
    elif count <= 13:
        micros = int(digits) * 1_000 + int(((fraction or "") + "000")[:3])
    elif count <= 16:
        micros = int(digits)
    else:
        micros = int(digits) // 1_000
    return _EPOCH + timedelta(microseconds=-micros if sign else micros)


def _of_layouts(text: str, zone: tzinfo) -> datetime | Missing | None:
    """Tries the layouts; None when none fits, MISSING when one fits and names no day that there is."""
    last = _YEAR_LAST.match(text)
    if last is not None:
        return _assemble(last.groupdict(), last["rest"], zone)
    for pattern in _DATES:
        found = pattern.match(text)
        if found is not None:
            moment = _assemble(found.groupdict(), text[found.end() :], zone)
            if moment is not None:
                return moment
    return None


def _assemble(date: dict[str, str | None], rest: str, zone: tzinfo) -> datetime | Missing | None:
    digits = (date["year"] or "").lstrip("'")
    year = int(digits) if len(digits) == 4 else two_digit_year(digits)
    if date.get("name"):
        month, day = month_number((date["name"] or "").rstrip(".")), int(date.get("day") or 1)
    elif date.get("a"):
        month, day = int(date["a"] or 0), int(date["b"] or 0)
        if month > 12 >= day:  # only one reading is possible
            month, day = day, month
    else:
        month, day = int(date["month"] or 0), int(date.get("day") or 1)

    hour = minute = second = micro = 0
    at = 0
    time = _TIME.match(rest)
    if time is not None:
        at = time.end()
        if time["compact"]:
            hour, minute = int(time["compact"][:2]), int(time["compact"][2:4])
            second = int(time["compact"][4:] or 0)
        else:
            hour = hour_of(time["hour"], time["half"])
            minute, second = int(time["minute"] or 0), int(time["second"] or 0)
            micro = int(((time["fraction"] or "") + "000000")[:6])
    after = _ZONE.match(rest, at)
    if after is None or after.end() != len(rest):
        return None
    if time is None and rest.strip() and not (after["zulu"] or after["sign"]):
        return None  # a zone's name without a time is any word
    own: tzinfo = zone
    if after["zulu"]:
        own = UTC
    elif after["sign"]:
        own = offset(after["sign"], after["hours"], after["minutes"])
    return _utc(datetime(year, month, day, hour, minute, second, micro), own)  # noqa: DTZ001  (zone follows)


def _of_dateutil(text: str, zone: tzinfo) -> datetime | Missing:
    if not _HAS_YEAR.search(text) or not _HAS_WORD.search(text):
        return MISSING
    try:
        moment = dateutil_parser.parse(text, default=_DEFAULT, tzinfos=_named_zone)
    except (ValueError, OverflowError, TypeError, AttributeError, IndexError, ArithmeticError):
        return MISSING
    if moment.year < 1000:
        return MISSING
    return _utc(moment.replace(tzinfo=None), moment.tzinfo or zone)


def _named_zone(_name: str | None, seconds: int | None) -> tzinfo:
    return timezone(timedelta(seconds=seconds)) if seconds else UTC


def _utc(moment: datetime, zone: tzinfo) -> datetime:
    return moment.replace(tzinfo=zone).astimezone(UTC)
