"""The rules of comparison and arithmetic (FACTS 3.2), as one table: operator, kind of left, kind of right.

A rule gives True or False (evaluated), another value (arithmetic), or MISSING (not evaluable). What stands in
no row of the table is not evaluable. Compiled code either calls these rules or inlines one of them where the
kinds are known; the tests hold both to the same results.

Where the public code is silent or breaks off, the rule is ours: NULL is equal to the empty values, a bare
text on the right of IN is a list of one, and results that are no finite number or no 64-bit integer are not
evaluable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from streams.ql.coerce import epoch_date, to_bool, to_date, to_text
from streams.ql.glob import matches
from streams.ql.missing import MISSING, Missing, Value

Rule = Callable[[Any, Any], Value]

TEXT, INT, FLOAT, BOOL, DATE = str, int, float, bool, datetime
LIST, MAP, NULL, ABSENT = list, dict, type(None), Missing

EQUALITY: Final = ("=", "!=")
ORDER: Final = (">", ">=", "<", "<=")
COMPARISONS: Final = (*EQUALITY, *ORDER)
ARITHMETIC: Final = ("+", "-", "*", "/", "%")
MEMBERSHIP: Final = ("in", "intersects")
#: What an operator becomes when its sides change places.
MIRRORED: Final = {"=": "=", "!=": "!=", ">": "<", ">=": "<=", "<": ">", "<=": ">="}
OPERATORS: Final = (*COMPARISONS, "like", "contains", *MEMBERSHIP, *ARITHMETIC)

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_NAN: Final = float("nan")
_SECOND: Final = timedelta(seconds=1)
#: Pairs of elements that one LIKE of a list with a list may look at.
_MOST_PAIRS: Final = 100_000


def binary(operator: str) -> Rule:
    """Gives the function of an operator over any two values. It never raises for values of the language."""
    rows = TABLE[operator]

    def apply(left: Value, right: Value) -> Value:
        rule = rows.get((left.__class__, right.__class__))
        return MISSING if rule is None else rule(left, right)

    return apply


def negation(value: Value) -> Value:
    """NOT in LQL: of a truth the opposite, also of what `tobool` takes for one; anything else is not evaluable."""
    truth = to_bool(value)
    return MISSING if truth is MISSING else not truth


def minus(value: Value) -> Value:
    """The arithmetic minus, of numbers only."""
    if value.__class__ is INT:
        return _whole(-value)
    return -value if value.__class__ is FLOAT else MISSING


def between(value: Value, low: Value, high: Value) -> Value:
    """BETWEEN, exclusive at both ends: of int, number and time only; a bound that does not fit: not evaluable."""
    kind = value.__class__
    if kind is INT or kind is FLOAT:
        bounds = [_number_or_nan(low), _number_or_nan(high)]
        if any(each != each for each in bounds):  # noqa: PLR0124  (NaN; math.isnan trips over huge integers)
            return MISSING
        return bounds[0] < value < bounds[1]
    if kind is DATE:
        first, last = moment(low), moment(high)
        if first is MISSING or last is MISSING:
            return MISSING
        return first < seconds(value) < last
    return MISSING


def is_null(value: Value) -> bool:
    """IS NULL: missing, nil, or empty, so that it can always be evaluated."""
    kind = value.__class__
    if kind is TEXT or kind is LIST or kind is MAP:
        return not value
    return value is None or value is MISSING or (kind is FLOAT and math.isnan(value))


def exists(value: Value) -> bool:
    """EXISTS: everything but missing and nil; the empty text exists."""
    return value is not None and value is not MISSING


def moment(value: Value) -> Any:
    """Gives the date that `value` is compared as, in whole seconds, or MISSING. A number is epoch milliseconds."""
    kind = value.__class__
    if kind is DATE:
        return seconds(value)
    if kind is TEXT:
        read = to_date(value)
    elif kind is INT or kind is FLOAT:
        read = MISSING if kind is FLOAT and not math.isfinite(value) else epoch_date(value)
    else:
        return MISSING
    return MISSING if read is MISSING else seconds(read)


def seconds(date: Any) -> Any:
    """Gives the date without the fraction of its second."""
    return date.replace(microsecond=0) if date.microsecond else date


def number_of(text: str) -> float:
    """Gives the number that a text is compared as: an int where it is one, else a float, else NaN.

    Money signs, thousands separators and spaces are taken out where it is no number with them.
    """
    for attempt in (text, text.translate(_MONEY)):
        if not _NUMERIC.fullmatch(attempt):
            continue
        if attempt.lstrip("+-").isdigit():
            number = int(attempt)
            return number if _INT_MIN <= number <= _INT_MAX else float(number)
        return _finite(float(attempt))
    return _NAN


_MONEY: Final = str.maketrans("", "", "$,£€ ")
_NUMERIC: Final = re.compile(r"[+-]?(?:[0-9]{1,300}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)


def _finite(number: float) -> float:
    return number if math.isfinite(number) else _NAN


def _number_or_nan(value: Value) -> float:
    kind = value.__class__
    if kind is INT or kind is FLOAT:
        return value  # type: ignore[no-any-return]
    return number_of(value) if kind is TEXT else _NAN


def _equal(left: Any, right: Any) -> bool:
    return bool(left == right)


def _unequal(left: Any, right: Any) -> bool:
    return bool(left != right)


_COMPARE: Final[dict[str, Rule]] = {
    "=": _equal,
    "!=": _unequal,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
}


# ---- arithmetic ----------------------------------------------------------------------------------------


def _is_whole(number: int) -> bool:
    return _INT_MIN <= number <= _INT_MAX


def _whole(number: int) -> Value:
    return number if _is_whole(number) else MISSING


def _calculate(operator: str, left: Any, right: Any) -> Value:
    """Arithmetic of two numbers: integers stay integers; division truncates, by zero it is not evaluable.

    Integers of data beyond 64 bits are numbers.
    """
    if left.__class__ is INT and right.__class__ is INT and _is_whole(left) and _is_whole(right):
        if operator in {"/", "%"}:
            if right == 0:
                return MISSING
            quotient = abs(left) // abs(right)
            quotient = quotient if (left < 0) == (right < 0) else -quotient
            return _whole(quotient if operator == "/" else left - quotient * right)
        return _whole(_ARITHMETIC[operator](left, right))
    if left != left or right != right:  # noqa: PLR0124  (NaN)
        return _NAN
    try:
        if operator == "%":
            return float(math.fmod(int(left), int(right)))
        result = float(_ARITHMETIC[operator](left, right))
    except (ArithmeticError, ValueError):
        return MISSING
    return result if math.isfinite(result) else MISSING


_ARITHMETIC: Final[dict[str, Rule]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
}


# ---- text, lists, maps ---------------------------------------------------------------------------------


def _text(value: Value) -> str | None:
    """The text of a list's element; None for what has none."""
    if value.__class__ is TEXT:
        return value
    text = None if value.__class__ is LIST else to_text(value)
    return text if isinstance(text, str) else None


def _texts(values: Iterable[Value]) -> list[str]:
    return [text for text in map(_text, values) if text is not None]


def _numbers_meet(number: float, elements: list[Any]) -> bool:
    """Any element equal to the number, text taken as the number that it is."""
    return any(_number_or_nan(each) == number for each in elements)


def _float_with_list(left: float, right: list[Any]) -> bool:
    return _numbers_meet(left, right)


def _text_in_list(left: str, right: list[Any]) -> bool:
    return left in right or any(each.__class__ is not TEXT and _text(each) == left for each in right)


def _date_in_list(left: datetime, right: list[Any]) -> bool:
    return any(moment(each) == seconds(left) for each in right)


def _lists_meet(left: list[Any], right: list[Any]) -> bool:
    texts = set(_texts(right))
    numbers = {number for each in right if (number := _number_or_nan(each)) == number}
    dates = {moment(each) for each in right} if any(each.__class__ is DATE for each in left) else set()
    for each in left:
        if each.__class__ is DATE:
            if seconds(each) in dates:
                return True
        elif each.__class__ is TEXT:
            if each in texts:
                return True
        elif each.__class__ is INT or each.__class__ is FLOAT:
            if each in numbers:
                return True
        elif each.__class__ is BOOL and _text(each) in texts:
            return True
    return False


def _list_with_map(left: list[Any], right: dict[str, Any]) -> bool:
    return any(text in right for text in _texts(left))


def _contains_number(left: list[Any], right: float) -> bool:
    return _numbers_meet(right, left)


def _like_any(texts: list[str], patterns: list[str]) -> Value:
    if len(texts) * len(patterns) > _MOST_PAIRS:
        return MISSING
    return any(matches(pattern, text) for pattern in patterns for text in texts)


def _list_compared(operator: str, left: list[Any], right: Any) -> Value:
    """A list on the left of a comparison: dates if any of them satisfies it; text is never equal to a value."""
    if not left:
        return False
    if left[0].__class__ is DATE:
        date = moment(right)
        if date is MISSING or any(each.__class__ is not DATE for each in left):
            return MISSING
        compare = _COMPARE[operator]
        return any(compare(seconds(each), date) for each in left)
    if operator == "=" and all(each.__class__ is TEXT for each in left):
        return False
    return MISSING


def _text_with_bool(operator: str, left: str, right: bool) -> Value:  # noqa: FBT001  (a value, not a switch)
    truth = _TRUTHS.get(left)
    if truth is None:
        return False if operator == "=" else MISSING
    return (truth == right) == (operator == "=")


_TRUTHS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


# ---- the table -----------------------------------------------------------------------------------------


def _always(value: Value) -> Rule:
    return lambda _left, _right: value


def _comparing_numbers(operator: str) -> Rule:
    compare = _COMPARE[operator]
    return lambda left, right: compare(_number_or_nan(left), _number_or_nan(right))


def _comparing_dates(operator: str) -> Rule:
    compare = _COMPARE[operator]

    def rule(left: Any, right: Any) -> Value:
        first, second = moment(left), moment(right)
        return MISSING if first is MISSING or second is MISSING else compare(first, second)

    return rule


def _calculating(operator: str) -> Rule:
    return lambda left, right: _calculate(operator, _number_or_nan(left), _number_or_nan(right))


def _comparing_lists(operator: str) -> Rule:
    return lambda left, right: _list_compared(operator, left, right)


def _with_sides_changed(operator: str) -> Rule:
    return lambda left, right: _list_compared(MIRRORED[operator], right, left)


def _with_bool(operator: str) -> Rule:
    return lambda left, right: _text_with_bool(operator, left, right)


def _rows(operator: str) -> dict[tuple[type, type], Rule]:
    """The rows of one operator, by the classes of both values."""
    kinds = (TEXT, INT, FLOAT, BOOL, DATE, LIST, MAP, NULL)
    rows: dict[tuple[type, type], Rule] = {}

    def put(lefts: Iterable[type], rights: Iterable[type], rule: Rule) -> None:
        for left in lefts:
            for right in rights:
                rows[left, right] = rule

    def row(left: type, right: type, rule: Rule) -> None:
        rows[left, right] = rule

    numbers = (INT, FLOAT)
    if operator in COMPARISONS:
        put([ABSENT], kinds, _always(operator == "!="))
        put(kinds, [ABSENT], _always(operator == "!="))
        row(ABSENT, ABSENT, _always(False))
        put(numbers, numbers, _COMPARE[operator])
        put(numbers, [TEXT], _comparing_numbers(operator))
        put([TEXT], numbers, _comparing_numbers(operator))
        put([DATE], [DATE, TEXT, *numbers], _comparing_dates(operator))
        put([TEXT, *numbers], [DATE], _comparing_dates(operator))
        put([LIST], [*kinds], _comparing_lists(operator))
        row(DATE, LIST, _with_sides_changed(operator))
    if operator in EQUALITY:
        row(TEXT, TEXT, _COMPARE[operator])
        row(BOOL, BOOL, _COMPARE[operator])
        row(TEXT, BOOL, _with_bool(operator))
        equal = operator == "="
        put([NULL], kinds, lambda _left, right: is_null(right) == equal)
        put(kinds, [NULL], lambda left, _right: is_null(left) == equal)
    if operator in {"like", "contains", *MEMBERSHIP}:
        put([ABSENT], [*kinds, ABSENT], _always(False))
        row(TEXT, BOOL, _always(False))
    if operator in {"like", *MEMBERSHIP}:
        put(kinds, [ABSENT], _always(False))
    if operator == "like":
        row(TEXT, TEXT, lambda left, right: matches(right, left))
        row(TEXT, LIST, lambda left, right: _like_any([left], _texts(right)))
        row(LIST, TEXT, lambda left, right: _like_any(_texts(left), [right]))
        row(LIST, LIST, lambda left, right: _like_any(_texts(left), _texts(right)))
    if operator == "contains":
        row(TEXT, TEXT, lambda left, right: right in left)
        row(TEXT, LIST, lambda left, right: any(each in left for each in _texts(right)))
        row(LIST, TEXT, lambda left, right: any(right in each for each in _texts(left)))
        put([LIST], numbers, _contains_number)
        put([TEXT, *numbers], numbers, lambda left, right: _number_or_nan(left) == right)
    if operator in MEMBERSHIP:
        row(TEXT, TEXT, _equal)
        row(TEXT, LIST, _text_in_list)
        row(TEXT, MAP, lambda left, right: left in right)
        row(INT, LIST, _numbers_meet)
        row(DATE, LIST, _date_in_list)
        row(LIST, LIST, _lists_meet)
        row(LIST, TEXT, lambda left, right: _text_in_list(right, left))
        row(LIST, MAP, _list_with_map)
        row(MAP, LIST, lambda left, right: _list_with_map(right, left))
        row(MAP, TEXT, lambda left, right: right in left)
    if operator in ARITHMETIC:
        put(numbers, [*numbers, TEXT], _calculating(operator))
        put([TEXT], numbers, _calculating(operator))
    # A float on the left of a list is compared with its elements, whatever the operator is.
    row(FLOAT, LIST, _float_with_list)
    return rows


TABLE: Final[dict[str, dict[tuple[type, type], Rule]]] = {operator: _rows(operator) for operator in OPERATORS}
