"""Times by a layout as Go writes them: the reference moment, Mon Jan 2 15:04:05 -0700 2006, as an example.

`parse_layout("02/01/2006", "07/04/2014")` is 7 April 2014. Layouts become regular expressions once.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

from streams.ql.missing import MISSING, Missing

MONTHS: Final = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_DAYS: Final = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_OFFSET: Final = r"(?P<sign>[+-])(?P<zh>\d\d){colon}(?P<zm>\d\d)"

#: The elements of a layout, the longest first where one begins with another, and what each reads.
_ELEMENTS: Final = (
    ("January", rf"(?P<month_name>{'|'.join(MONTHS)})"),
    ("Jan", rf"(?P<month_name>{'|'.join(month[:3] for month in MONTHS)})"),
    ("Monday", rf"(?:{_DAYS})"),
    ("Mon", rf"(?:{'|'.join(day[:3] for day in _DAYS.split('|'))})"),
    ("MST", r"(?:[A-Z]{3,4}T?|[+-]\d\d)"),
    ("2006", r"(?P<year>\d{4})"),
    ("Z07:00", rf"(?:Z|{_OFFSET.format(colon=':')})"),
    ("Z0700", rf"(?:Z|{_OFFSET.format(colon='')})"),
    ("-07:00", _OFFSET.format(colon=":")),
    ("-0700", _OFFSET.format(colon="")),
    ("-07", r"(?P<sign>[+-])(?P<zh>\d\d)"),
    ("01", r"(?P<month>\d\d)"),
    ("02", r"(?P<day>\d\d)"),
    ("03", r"(?P<hour12>\d\d)"),
    ("04", r"(?P<minute>\d\d)"),
    ("05", r"(?P<second>\d\d)"),
    ("06", r"(?P<year2>\d\d)"),
    ("002", r"(?P<yearday>\d{3})"),
    ("15", r"(?P<hour>\d\d?)"),
    ("_2", r" ?(?P<day>\d\d?)"),
    ("1", r"(?P<month>\d\d?)"),
    ("2", r"(?P<day>\d\d?)"),
    ("3", r"(?P<hour12>\d\d?)"),
    ("4", r"(?P<minute>\d\d?)"),
    ("5", r"(?P<second>\d\d?)"),
    ("PM", r"(?P<half>[AP]M)"),
    ("pm", r"(?P<half>[ap]m)"),
)
_FRACTION: Final = re.compile(r"[.,](0+|9+)(?!\d)")
_SECONDS: Final = ("05", "5")
#: Go's pivot: two digits from 69 on are of the last century.
PIVOT: Final = 69


@lru_cache(maxsize=256)
def layout_pattern(layout: str) -> re.Pattern[str] | None:
    """Makes the expression that reads a layout; None when it repeats an element or is overlong."""
    if len(layout) > 100:
        return None
    out: list[str] = []
    at = 0
    while at < len(layout):
        fraction = _FRACTION.match(layout, at)
        if fraction:
            digits = fraction.group(1)
            count = str(len(digits))
            part = r"[.,](?P<fraction>\d{" + count + r"})" if digits[0] == "0" else r"(?:[.,](?P<fraction>\d+))?"
            out.append(part)
            at = fraction.end()
            continue
        # Three digits stand before two: "002" is the day of the year, not "0" and "02".
        three = layout.startswith("002", at)
        for text, pattern in _ELEMENTS:
            if layout.startswith(text, at) and not (three and text != "002"):
                out.append(pattern)
                at += len(text)
                # Go reads a fraction after the seconds even where the layout has none.
                if text in _SECONDS and not _FRACTION.match(layout, at):
                    out.append(r"(?:[.,](?P<fraction>\d+))?")
                break
        else:
            out.append(re.escape(layout[at]))
            at += 1
    try:
        return re.compile("".join(out), re.IGNORECASE | re.ASCII)
    except re.error:  # an element twice
        return None


def parse_layout(layout: str, text: str) -> datetime | Missing:
    """Reads `text` by Go's `layout`, which must have a year; what it leaves out is as early as possible."""
    pattern = layout_pattern(layout)
    if pattern is None or len(text) > 200:
        return MISSING
    found = pattern.fullmatch(text)
    if found is None:
        return MISSING
    parts = found.groupdict()
    try:
        year = int(parts.get("year") or two_digit_year(parts.get("year2")))
        moment = datetime(year, _month(parts), int(parts.get("day") or 1), tzinfo=_offset(parts))
        if parts.get("yearday"):
            moment += timedelta(days=int(parts["yearday"]) - 1)
        moment = moment.replace(
            hour=hour_of(parts.get("hour") or parts.get("hour12"), parts.get("half")),
            minute=int(parts.get("minute") or 0),
            second=int(parts.get("second") or 0),
            microsecond=int(((parts.get("fraction") or "") + "000000")[:6]),
        )
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return MISSING


def two_digit_year(digits: str | None) -> int:
    """Gives the year of two digits: 69 to 99 are 1969 to 1999, the others 2000 to 2068."""
    if digits is None:
        raise ValueError("no year")
    year = int(digits)
    return year + (1900 if year >= PIVOT else 2000)


def hour_of(digits: str | None, half: str | None) -> int:
    """Gives the hour of day; with am or pm, 12 is the first hour of its half."""
    hour = int(digits or 0)
    if not half:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError("an hour outside 1 to 12 has no half")
    return hour % 12 + (12 if half[0] in "pP" else 0)


def month_number(name: str) -> int:
    """Gives the number of a month by its name or its first three letters, in any case; raises ValueError."""
    lowered = name.lower()
    for number, month in enumerate(MONTHS, 1):
        if lowered in {month, month[:3]}:
            return number
    if lowered == "sept":
        return 9
    raise ValueError(name)


def offset(sign: str, hours: str, minutes: str | None) -> timezone:
    """Gives the zone of "+", "05", "30"; raises ValueError outside a day."""
    delta = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return timezone(-delta if sign == "-" else delta)


def _month(parts: dict[str, str | None]) -> int:
    name = parts.get("month_name")
    return month_number(name) if name else int(parts.get("month") or 1)


def _offset(parts: dict[str, str | None]) -> timezone:
    sign, hours = parts.get("sign"), parts.get("zh")
    return offset(sign, hours, parts.get("zm")) if sign and hours else UTC
