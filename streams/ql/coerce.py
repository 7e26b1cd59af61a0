"""Values into dates, numbers, text and truth, as leniently as the public code takes them (FACTS 2.3).

Nothing here raises for bad data, and nothing reads the wall clock.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final

from streams.ql.golayout import parse_layout
from streams.ql.lenientdate import parse_date
from streams.ql.missing import MISSING, Missing, Value, is_nil

__all__ = ["epoch_date", "first", "parse_layout", "to_bool", "to_date", "to_int", "to_number", "to_text"]

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONEY: Final = str.maketrans("", "", "$,£€ ")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def first(value: Value) -> Value:
    """Gives the first element of a list (MISSING for an empty one), any other value as it is."""
    if isinstance(value, list):
        return value[0] if value else MISSING
    return value


def to_date(value: Value, zone: tzinfo = UTC) -> datetime | Missing:
    """Reads a moment: RFC 3339, an epoch by its number of digits, or one of the usual layouts.

    Text without a year is no date. `a/b/c` is month first where both readings are possible. `zone` is for
    text that names none. The result is in UTC. Date maths ("now-3d") is not read here: it needs a clock.
    """
    if type(value) is str:
        # The form that nearly all events bring, without any other test.
        if len(value) >= 10 and value[4] == "-" and (len(value) == 10 or value[10] in "Tt "):
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                return parse_date(value, zone)
            if moment.tzinfo is UTC:
                return moment
            return in_utc(moment, zone)
        return parse_date(value, zone)
    if isinstance(value, datetime):
        return in_utc(value, zone)
    if isinstance(value, bool):
        return MISSING
    if isinstance(value, int):
        return parse_date(str(value), zone) if -INT_MAX <= value <= INT_MAX else MISSING
    if isinstance(value, float):
        if not math.isfinite(value) or abs(value) > INT_MAX:
            return MISSING
        return parse_date(str(int(value)) if value.is_integer() else f"{value:.6f}", zone)
    if isinstance(value, list):
        return to_date(value[0], zone) if value and not isinstance(value[0], list) else MISSING
    return MISSING


def in_utc(moment: datetime, zone: tzinfo = UTC) -> datetime | Missing:
    """Gives the same moment in UTC; a moment without a zone is taken to be in `zone`."""
    if moment.tzinfo is None:
        if zone is UTC:
            return moment.replace(tzinfo=UTC)
        moment = moment.replace(tzinfo=zone)
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError):  # the years 1 and 9999 have no neighbours
        return MISSING


def epoch_date(milliseconds: float) -> datetime | Missing:
    """Gives the moment of an epoch in milliseconds."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except (OverflowError, ValueError):
        return MISSING


def to_int(value: Value) -> int | Missing:
    """Gives a whole number (64 bits): text may be money, "$5,555.75" is 5555; a list gives its first element.

    A time gives epoch milliseconds. Fractions are cut off. What does not fit into 64 bits gives nothing.
    """
    if isinstance(value, bool):
        return MISSING
    if isinstance(value, int):
        return value if INT_MIN <= value <= INT_MAX else MISSING
    if isinstance(value, float):
        return _whole(value)
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(milliseconds=1)
    if isinstance(value, str):
        return _int_of_text(value)
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return to_int(value[0])
    return MISSING


def to_number(value: Value) -> float | Missing:
    """Gives a float: of text as `to_int` reads it, of a bool 1 or 0, of a time epoch milliseconds."""
    if isinstance(value, float):
        return MISSING if math.isnan(value) else value
    if isinstance(value, int):
        return float(value)
    if isinstance(value, datetime):
        return float((value - _EPOCH) // timedelta(milliseconds=1))
    if isinstance(value, str):
        return number_of_text(value)
    return MISSING


def number_of_text(text: str) -> float | Missing:
    """Reads a float, with money signs, thousands separators and spaces taken out."""
    if not _NUMBER.fullmatch(text):
        text = text.translate(_MONEY)
        if not _NUMBER.fullmatch(text):
            return MISSING
    number = float(text)
    return number if math.isfinite(number) else MISSING


def to_bool(value: Value) -> bool | Missing:
    """Gives the truth of a bool, of 0 and 1, and of 1 t T true True TRUE 0 f F false False FALSE as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value == 1 if value in {0, 1} else MISSING
    if isinstance(value, str):
        return True if value in _TRUE else False if value in _FALSE else MISSING
    return MISSING


def to_text(value: Value) -> str | Missing:
    """Gives the text of a scalar: floats as short as possible, times in RFC 3339.

    A list gives the text of its first element. A map has no text; nor has None.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _text_of_float(value)
    if isinstance(value, datetime):
        return text_of_date(value)
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return to_text(value[0])
    return MISSING


def text_of_date(moment: datetime) -> str:
    """Writes a moment as RFC 3339 in UTC, with microseconds only where there are any."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds" if moment.microsecond else "seconds")
    return text[:-6] + "Z"


def texts(value: Value) -> list[str]:
    """Gives the texts of a list's elements, or of one value; elements without text are left out."""
    if is_nil(value):
        return []
    elements = value if isinstance(value, list) else [value]
    return [text for text in map(to_text, elements) if isinstance(text, str)]


def _whole(number: float) -> int | Missing:
    if not math.isfinite(number) or not INT_MIN <= number <= INT_MAX:
        return MISSING
    return int(number)


def _int_of_text(text: str) -> int | Missing:
    for attempt in (text, text.translate(_MONEY)):
        if _INTEGER.fullmatch(attempt):
            number = int(attempt)
            return number if INT_MIN <= number <= INT_MAX else MISSING
        if "." in attempt and _NUMBER.fullmatch(attempt):
            return _whole(float(attempt))
    return MISSING


def _text_of_float(number: float) -> str | Missing:
    if math.isnan(number):
        return MISSING
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    text = repr(number)
    if "e" in text:  # written out, as the public code does
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")
