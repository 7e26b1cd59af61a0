"""Numbers, conversions, and the aggregates of columns."""

from __future__ import annotations

import math
from datetime import datetime

import orjson

from streams.ql.coerce import first, number_of_text, text_of_date, texts, to_bool, to_date, to_int, to_number, to_text
from streams.ql.functions.registry import example, function
from streams.ql.missing import MISSING, NIL_INT, Missing, Value, is_nil


@function(
    "toint",
    returns="int",
    examples=[
        example("5", gives=5),
        example("$5,555.75", gives=5555),
        example("€ 5,555.00", gives=5555),
        example(["7", "8"], gives=7),
        example("hello", gives=MISSING),
    ],
)
def toint(x: Value) -> int | Missing:
    """Gives a whole number: text with `$ , £ €` and spaces taken out, fractions cut off.

    A list gives that of its first element, a time its epoch milliseconds.
    """
    return to_int(x)


@function(
    "tonumber",
    returns="number",
    examples=[example("5.56", gives=5.56), example("$ 5.22", gives=5.22), example("hello", gives=MISSING)],
)
def tonumber(x: Value) -> float | Missing:
    """Gives a number with a fraction: text with `$ , £ €` and spaces taken out."""
    return to_number(x)


@function(
    "tobool",
    returns="bool",
    examples=[
        example("true", gives=True),
        example("f", gives=False),
        example(1, gives=True),
        example(2, gives=MISSING),
        example("hello", gives=MISSING),
    ],
)
def tobool(x: Value) -> bool | Missing:
    """Gives a truth: of 0 and 1, and of the words 1 t T true True TRUE, 0 f F false False FALSE."""
    return to_bool(x)


@function(
    "tostring",
    returns="string",
    examples=[
        example(True, gives="true"),
        example(1, gives="1"),
        example(None, gives=""),
        example(["a", "b"], gives="a,b"),
    ],
)
def tostring(x: Value) -> str:
    """Gives text; nothing gives empty text, a list its elements with commas, a map its JSON."""
    if is_nil(x):
        return ""
    if isinstance(x, list):
        return ",".join(texts(x))
    if isinstance(x, dict):
        return orjson.dumps(x, default=_json_text, option=orjson.OPT_SORT_KEYS).decode()
    text = to_text(x)
    return text if isinstance(text, str) else ""


@function(
    "cast",
    examples=[
        example("22", "int", gives=22),
        example(22, "string", gives="22"),
        example(22, "char", gives="22"),
        example("", "int", gives=MISSING),
    ],
)
def cast(x: Value, kind: Value) -> Value:
    """Gives the value as another kind: int, number, bool, string (or char), time (or date).

    `cast(x AS int)` is the same as `cast(x, "int")`. Not ok for nothing; a kind that there is not is refused when
    the text is parsed.
    """
    if is_nil(x) or not isinstance(kind, str):
        return MISSING
    match kind.lower():
        case "int" | "integer" | "int64" | "bigint":
            return to_int(x)
        case "number" | "float" | "float64" | "double" | "decimal":
            return to_number(x)
        case "bool" | "boolean":
            return to_bool(x)
        case "string" | "char" | "text" | "varchar":
            return tostring(x)
        case "time" | "date" | "datetime" | "timestamp":
            return to_date(x)
        case "[]string" | "strings":
            return texts(x)
    return MISSING


@function(
    "unsign",
    returns="string",
    examples=[
        example(794, gives="794"),
        example(-794, gives="18446744073709550822"),
        example("-7941778727260920248", gives="10504965346448631368"),
        example("howdy", gives=MISSING),
    ],
)
def unsign(x: Value) -> str | Missing:
    """Gives a signed 64-bit number as the text of the unsigned one with the same bits."""
    if x.__class__ is int and 0 <= x < 2**64:  # also one that is unsigned already
        return str(x)
    number = to_int(x)
    return number if isinstance(number, Missing) else str(number % 2**64)


@function(
    "pow",
    returns="number",
    examples=[example(5, 2, gives=25.0), example(5, "hello", gives=MISSING), example(None, 2, gives=MISSING)],
)
def power(x: Value, exponent: Value) -> float | Missing:
    """Gives x to the power of the exponent."""
    base, to = to_number(x), to_number(exponent)
    if isinstance(base, Missing) or isinstance(to, Missing):
        return MISSING
    try:
        return _finite(math.pow(base, to))
    except (OverflowError, ValueError):
        return MISSING


@function(
    "sqrt", returns="number", examples=[example(25, gives=5.0), example(-1, gives=MISSING), example("4", gives=MISSING)]
)
def sqrt(x: Value) -> float | Missing:
    """Gives the square root of a number; text is not taken for one."""
    if isinstance(x, bool) or not isinstance(x, int | float) or is_nil(x) or x < 0:
        return MISSING
    return _finite(math.sqrt(x))


@function(
    "avg",
    returns="number",
    examples=[
        example(1, [2, 3], gives=2.0),
        example(1, "2", gives=1.5),
        example("hello", gives=MISSING),
        example(["1", "abc"], gives=MISSING),
    ],
)
def avg(x: Value, *more: Value) -> float | Missing:
    """Gives the mean of the arguments and of their lists' elements; text that is no number is passed over.

    An element of a list that is no number makes it not ok.
    """
    numbers = _addends((x, *more), strict=False)
    if isinstance(numbers, Missing) or not numbers:
        return MISSING
    return _finite(math.fsum(numbers) / len(numbers))


def total(x: Value, *more: Value) -> float | Missing:
    """Adds as `sum` does; 0 is a total like any other, as long as there was a number to add."""
    if not more:  # what nearly all events bring
        if x.__class__ is float and -math.inf < x < math.inf:
            return x
        if x.__class__ is int and NIL_INT < x < 2**63:
            return float(x)
    numbers = _addends((x, *more), strict=True)
    if isinstance(numbers, Missing) or not numbers:
        return MISSING
    return _finite(math.fsum(numbers))


@function(
    "sum",
    returns="number",
    aggregate="sum",
    in_column=total,
    examples=[
        example(1, [2, 3], gives=6.0),
        example(1, "2", None, gives=3.0),
        example("hello", gives=MISSING),
        example(0, gives=MISSING),
    ],
)
def sum_(x: Value, *more: Value) -> float | Missing:
    """Adds the arguments and their lists' elements, nothing passed over; a total of 0 is not ok.

    As a column's outermost expression it adds over events, and there 0 is 0.
    """
    added = total(x, *more)
    return MISSING if added == 0 else added


@function("count", returns="int", aggregate="sum", examples=[example(4, gives=1), example("", gives=MISSING)])
def count(x: Value) -> int | Missing:
    """Gives 1 when there is a value; as a column it counts the events that have one."""
    if x.__class__ is str:
        return 1 if x else MISSING
    return MISSING if is_nil(x) else 1


@function(
    "min",
    aggregate="min",
    examples=[example(3, 2, gives=2), example("4.5", gives=4.5), example("hello", gives=MISSING)],
)
def min_(x: Value, *more: Value) -> Value:
    """Gives the least number or the earliest time; as a column, over events."""
    if not more and x.__class__ is datetime and x.year > 1:
        return x
    found = _comparable((x, *more))
    return min(found) if found else MISSING


@function("max", aggregate="max", examples=[example(3, 2, gives=3), example(None, gives=MISSING)])
def max_(x: Value, *more: Value) -> Value:
    """Gives the greatest number or the latest time; as a column, over events."""
    if not more and x.__class__ is datetime and x.year > 1:
        return x
    found = _comparable((x, *more))
    return max(found) if found else MISSING


@function(
    "valuect",
    returns="map[string]int",
    aggregate="sum",
    examples=[
        example("blue", gives={"blue": 1}),
        example(["a", "b", "a"], gives={"a": 2, "b": 1}),
        example("", gives=MISSING),
    ],
)
def valuect(x: Value) -> dict[str, int] | Missing:
    """Gives a map with how often the value occurred; as a column it adds per value over events."""
    if x.__class__ is str:
        return {x: 1} if x else MISSING
    counts: dict[str, int] = {}
    for text in texts(x):
        if text:
            counts[text] = counts.get(text, 0) + 1
    return counts or MISSING


@function(
    "set",
    returns="[]string",
    aggregate="merge",
    examples=[example("a", gives=["a"]), example(["a", "b", "a"], gives=["a", "b"]), example("", gives=MISSING)],
)
def set_(x: Value) -> list[str] | Missing:
    """Gives the different values as a list; as a column it unites over events."""
    if x.__class__ is str:
        return [x] if x else MISSING
    found = [text for text in dict.fromkeys(texts(x)) if text]
    return found or MISSING


def _addends(values: tuple[Value, ...], *, strict: bool) -> list[float] | Missing:
    """The numbers among values and lists. `strict`: what is no number, text or list makes all not ok."""
    numbers: list[float] = []
    for value in values:
        if is_nil(value):
            continue
        if isinstance(value, list):
            for element in value:
                number = to_number(element)
                if isinstance(number, Missing):
                    return MISSING
                numbers.append(number)
        elif isinstance(value, str):
            number = number_of_text(value)
            if not isinstance(number, Missing):
                numbers.append(number)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append(float(value))
        elif strict:
            return MISSING
    return numbers


def _comparable(values: tuple[Value, ...]) -> list[Value]:
    """The numbers among values, whole ones kept whole; or the times, when the first value is one."""
    given = [value for value in values if not is_nil(value)]
    if given and isinstance(first(given), datetime):
        return [value for value in given if isinstance(value, datetime)]
    found: list[Value] = []
    for value in given:
        if isinstance(value, bool):
            continue
        number: Value = (
            value if isinstance(value, int) else to_number(value) if not isinstance(value, datetime) else MISSING
        )
        if isinstance(value, str):
            whole = to_int(value)
            number = whole if whole == number else number
        if number is not MISSING:
            found.append(number)
    return found


def _finite(number: float) -> float | Missing:
    return number if math.isfinite(number) else MISSING


def _json_text(value: object) -> str:
    return text_of_date(value) if isinstance(value, datetime) else str(value)
