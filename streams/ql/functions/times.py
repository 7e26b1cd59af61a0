"""Dates and times. `now` is the event's time in a query, the evaluation's in a filter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from streams.ql.coerce import first, to_date, to_int, to_number, to_text
from streams.ql.datemath import anchor, date_maths
from streams.ql.functions.registry import EXAMPLE_NOW, Constant, example, function
from streams.ql.golayout import parse_layout
from streams.ql.missing import MISSING, Missing, Value, is_nil

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MICROSECOND = timedelta(microseconds=1)
#: The directives of strftime that give the same everywhere; others stand as written. Field widths are not
#: passed on: the C library would make text of any length from them.
_DIRECTIVE = re.compile(r"%(?:[aAwdbBmyYHIpMSfzZjUWcxXGuV%]|(.?))", re.DOTALL)
_CLOCK = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", re.ASCII)
_BUCKETS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_APRIL = datetime(2014, 4, 7, 16, 58, 55, tzinfo=UTC)


@function("now", returns="date", examples=[example(gives=EXAMPLE_NOW)])
def now_(now: datetime) -> datetime:
    """Gives the event's time; in a filter, the moment of evaluation."""
    return now


@function(
    "todate",
    returns="date",
    examples=[
        example("Apr 7, 2014 4:58:55 PM", gives=_APRIL),
        example("4/7/14", gives=_APRIL.replace(hour=0, minute=0, second=0)),
        example("02/01/2006", "07/04/2014", gives=_APRIL.replace(hour=0, minute=0, second=0)),
        example("1396889935", gives=_APRIL),
        example("now-3d", gives=EXAMPLE_NOW - timedelta(days=3)),
        example("hello", gives=MISSING),
    ],
)
def todate(now: datetime, x: Value, value: Value = MISSING) -> datetime | Missing:
    """Gives a date: of date maths ("now-3d"), an epoch in s, ms, µs or ns, or text in one of many layouts.

    With two arguments the first is a layout as Go writes it ("02/01/2006"), the second the text. `a/b/c` is month
    first where both are possible; text without a year is no date.
    """
    if value is not MISSING:
        layout, text = to_text(x), to_text(value)
        if isinstance(layout, Missing) or isinstance(text, Missing):
            return MISSING
        return parse_layout(layout, text)
    return _moment(now, x)


def _check_zone(arguments: Sequence[Constant]) -> str | None:
    zone = arguments[1]
    if not isinstance(zone, str) or _zone(zone) is None:
        return f'{zone!r} is no time zone; write a name like "Europe/Berlin"'
    text = arguments[0]
    if isinstance(text, str) and text[:3].lower() == "now" and anchor(text) is None:
        return f'{text!r} is no date maths; write it like "now-3d"'
    return None


@function(
    "todatein",
    returns="date",
    literal_args=[1],
    check=_check_zone,
    examples=[
        example(
            "May 8, 2009 5:57:51 PM",
            "America/Los_Angeles",
            gives=datetime(2009, 5, 9, 0, 57, 51, tzinfo=UTC),
        ),
        example("now-3d", "America/Los_Angeles", gives=EXAMPLE_NOW - timedelta(days=3)),
        example("hello", "America/Los_Angeles", gives=MISSING),
    ],
)
def todatein(now: datetime, x: Value, zone: Value) -> datetime | Missing:
    """Gives a date whose text, where it names no zone, is in the given one ("America/Los_Angeles")."""
    found = _zone(zone) if isinstance(zone, str) else None
    if found is None:
        return MISSING
    if isinstance(x, str) and x[:3].lower() == "now":
        return date_maths(x, now)
    return to_date(x, found)


@function("totimestamp", returns="int", examples=[example("Apr 7, 2014 4:58:55 PM", gives=1396889935)])
def totimestamp(now: datetime, x: Value) -> int | Missing:
    """Gives a date as whole seconds since 1970."""
    moment = _moment(now, x)
    return moment if isinstance(moment, Missing) else _seconds(moment)


@function(
    "epochms",
    returns="int",
    examples=[example(gives=1768480200000), example("2014-04-07", gives=1396828800000)],
)
def epochms(now: datetime, x: Value = MISSING) -> int | Missing:
    """Gives the event's time, or a date, as milliseconds since 1970."""
    moment = _part_of(now, x)
    return moment if isinstance(moment, Missing) else (moment - _EPOCH) // _MILLISECOND


@function(
    "yy",
    returns="int",
    examples=[example(gives=26), example("10/13/2014", gives=14), example("01/02/1956", gives=56)],
)
def yy(now: datetime, x: Value = MISSING) -> int | Missing:
    """Gives the year of the event, or of a date, in two digits."""
    moment = _part_of(now, x)
    if isinstance(moment, Missing):
        return MISSING
    year = moment.year
    return year - 2000 if year >= 2000 else year - 1900 if year >= 1900 else year


@function("mm", "monthofyear", returns="int", examples=[example(gives=1), example("10/13/2014", gives=10)])
def mm(now: datetime, x: Value = MISSING) -> int | Missing:
    """Gives the month of the event, or of a date: 1 to 12."""
    moment = _part_of(now, x)
    return moment if isinstance(moment, Missing) else moment.month


@function("yymm", returns="string", examples=[example(gives="2601"), example("10/13/2014", gives="1410")])
def yymm(now: datetime, x: Value = MISSING) -> str | Missing:
    """Gives year and month of the event, or of a date, as four digits."""
    moment = _part_of(now, x)
    return moment if isinstance(moment, Missing) else f"{moment.year % 100:02}{moment.month:02}"


@function(
    "dayofweek", returns="int", examples=[example(gives=4), example("2014-04-06", gives=0), example("x", gives=MISSING)]
)
def dayofweek(now: datetime, x: Value = MISSING) -> int | Missing:
    """Gives the day of the week of the event, or of a date: 0 is Sunday."""
    moment = _part_of(now, x)
    return moment if isinstance(moment, Missing) else moment.isoweekday() % 7


@function("hourofday", returns="int", examples=[example(gives=12), example("Apr 7, 2014 4:58:55 PM", gives=16)])
def hourofday(now: datetime, x: Value = MISSING) -> int | Missing:
    """Gives the hour of the day of the event, or of a date: 0 to 23, in UTC."""
    moment = _part_of(now, x)
    return moment if isinstance(moment, Missing) else moment.hour


@function("hourofweek", returns="int", examples=[example(gives=108), example("Apr 7, 2014 4:58:55 PM", gives=40)])
def hourofweek(now: datetime, x: Value = MISSING) -> int | Missing:
    """Gives the hour of the week of the event, or of a date: 0 (Sunday, midnight) to 167, in UTC."""
    moment = _part_of(now, x)
    return moment if isinstance(moment, Missing) else moment.isoweekday() % 7 * 24 + moment.hour


@function(
    "seconds",
    returns="number",
    examples=[
        example("M10:30", gives=630.0),
        example("M30", gives=30.0),
        example("00:30", gives=30.0),
        example("30.6", gives=30.6),
        example(30, gives=30.0),
        example("2015/07/04", gives=1435968000.0),
        example("hello", gives=MISSING),
    ],
)
def seconds(x: Value) -> float | Missing:
    """Gives seconds: of "mm:ss" (also with an M before it), of a number as it is, of a date since 1970."""
    if isinstance(x, datetime):
        return float(_seconds(x))
    if isinstance(x, int | float) and not isinstance(x, bool):
        return to_number(x)
    if not isinstance(x, str):
        return MISSING
    moment = to_date(x)
    if isinstance(moment, datetime):
        return float(_seconds(moment))
    text = x.removeprefix("M")
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        spent = 60 * float(clock[1]) + float(clock[2])
        return spent if spent > 0 else MISSING
    return to_number(text)


@function(
    "strftime",
    "extract",
    returns="string",
    examples=[
        example("10/13/2014", "%B", gives="October"),
        example("1257894000", "%B - %d", gives="November - 10"),
        example("hello", "%B", gives=MISSING),
    ],
)
def strftime(now: datetime, x: Value, pattern: Value) -> str | Missing:
    """Gives a date as text by a pattern with the directives of Python's strftime, in UTC."""
    moment, form = _moment(now, x), to_text(pattern)
    if isinstance(moment, Missing) or isinstance(form, Missing) or len(form) > 1000:
        return MISSING
    safe = _DIRECTIVE.sub(lambda found: "%%" + found[1] if found[1] is not None else found[0], form)
    try:
        return moment.strftime(safe)
    except (ValueError, UnicodeError):
        return MISSING


@function(
    "unixtrunc",
    returns="string",
    examples=[
        example("1438445529707", gives="1438445529"),
        example("1438445529707", "s", gives="1438445529.707"),
        example("1438445529", "ms", gives="1438445529000"),
        example("1438445529707123456", "sm", gives="1438445529.707123"),
        example("1950-05-08 19:00:00.998", "seconds", gives="-620110799.002"),
        example("2014-04-07", "weeks", gives=MISSING),
    ],
)
def unixtrunc(now: datetime, x: Value, precision: Value = MISSING) -> str | Missing:
    """Gives a date as the text of its seconds since 1970.

    Whole seconds by default; `s` or `seconds` with 3 decimals, `sm` or `secondsmicro` with 6; `ms` or
    `milliseconds` gives whole milliseconds.
    """
    moment = _moment(now, x)
    if isinstance(moment, Missing):
        return MISSING
    if precision is MISSING:
        return str(_seconds(moment))
    match str(to_text(precision)).lower():
        case "s" | "seconds":
            return _decimal((moment - _EPOCH) // _MILLISECOND, 3)
        case "ms" | "milliseconds":
            return str((moment - _EPOCH) // _MILLISECOND)
        case "sm" | "secondsmicro":
            return _decimal((moment - _EPOCH) // _MICROSECOND, 6)
    return MISSING


@function(
    "totimeset",
    returns="[]time",
    aggregate="merge",
    examples=[
        example(gives=[EXAMPLE_NOW]),
        example("2014-04-07 16:58:55", gives=[_APRIL]),
        example("hello", gives=MISSING),
    ],
)
def totimeset(now: datetime, x: Value = MISSING) -> list[datetime] | Missing:
    """Gives the event's time, or dates, as a list; as a column it unites over events."""
    return _moments(now, x)


@function(
    "timebucket",
    returns="[]timebucket",
    examples=[
        example(gives=[EXAMPLE_NOW]),
        example("2014-04-07 16:58:55.25", gives=[_APRIL]),
        example("2014-04-07 16:58:55", "day", gives=[_APRIL.replace(hour=0, minute=0, second=0)]),
        example("2014-04-07 16:58:55", "hour", gives=[_APRIL.replace(minute=0, second=0)]),
        example("hello", gives=MISSING),
    ],
)
def timebucket(now: datetime, x: Value = MISSING, width: Value = "second") -> list[datetime] | Missing:
    """Gives the second of the event's time, or of dates, as a list; or the "minute", "hour" or "day" that it is in.

    A field of buckets keeps each once: by seconds `timewindow` counts how often something was, by days on how many.
    """
    moments, length = _moments(now, x), _BUCKETS.get(str(width).lower())
    if isinstance(moments, Missing) or length is None:
        return MISSING
    begun = (_EPOCH + timedelta(seconds=_seconds(each) // length * length) for each in moments)
    return list(dict.fromkeys(begun))


@function(
    "timewindow",
    returns="bool",
    examples=[
        example([EXAMPLE_NOW, EXAMPLE_NOW - timedelta(days=2)], 2, 7, gives=True),
        example([EXAMPLE_NOW, EXAMPLE_NOW - timedelta(days=9)], 2, 7, gives=False),
        example(None, 2, 7, gives=False),
        example("hello", 2, 7, gives=MISSING),
        example([EXAMPLE_NOW], "many", 7, gives=MISSING),
    ],
)
def timewindow(now: datetime, x: Value, count: Value, days: Value) -> bool | Missing:
    """Says whether at least `count` of the field's times lie in the last `days` days before now.

    A field that is missing or empty has no times, so that NOT finds those who never did it too.
    """
    moments, least, span = [] if is_nil(x) else _moments(now, x), to_int(count), to_number(days)
    if isinstance(moments, Missing) or isinstance(least, Missing) or isinstance(span, Missing):
        return MISSING
    try:
        begin = now - timedelta(days=span)
    except OverflowError:
        begin = datetime.min.replace(tzinfo=UTC)
    return sum(begin < each <= now for each in moments) >= least


def _moment(now: datetime, x: Value) -> datetime | Missing:
    if x.__class__ is str and len(x) < 40 and "0" <= x[:1] <= "9":
        return _date_of_text(x)
    value = first(x)
    if isinstance(value, str) and value[:3].lower() == "now":
        return date_maths(value, now)
    return to_date(value)


@lru_cache(maxsize=4096)
def _date_of_text(text: str) -> datetime | Missing:
    """Reads a date that does not depend on now. Queries read the same text of an event again and again."""
    return to_date(text)


def _part_of(now: datetime, x: Value) -> datetime | Missing:
    return now if x is MISSING else _moment(now, x)


def _moments(now: datetime, x: Value) -> list[datetime] | Missing:
    if x is MISSING:
        return [now]
    elements = x if isinstance(x, list) else list(x.values()) if isinstance(x, dict) else [x]
    found = [moment for each in elements if isinstance(moment := _moment(now, each), datetime)]
    return list(dict.fromkeys(found)) or MISSING


def _seconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1)


def _decimal(units: int, digits: int) -> str:
    whole, part = divmod(abs(units), 10**digits)
    return f"{'-' if units < 0 else ''}{whole}.{part:0{digits}}"


@lru_cache(maxsize=1024)
def _zone(name: str) -> Any:
    """The zone of an IANA name, or None."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
