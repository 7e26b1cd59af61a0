"""Comparison, truth and choice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from streams.ql.coerce import to_bool, to_date, to_int, to_number, to_text
from streams.ql.functions.registry import example, function
from streams.ql.missing import MISSING, Missing, Value, is_nil


@function(
    "eq",
    returns="bool",
    examples=[
        example(5, 5, gives=True),
        example("5", 5, gives=True),
        example(5.5, 6, gives=False),
        example(None, 5, gives=False),
        example(None, None, gives=True),
        example({"a": 1}, True, gives=MISSING),
    ],
)
def eq(left: Value, right: Value) -> bool | Missing:
    """Says whether both are equal, the right one taken as the kind of the left.

    Text is compared with the right side's text, a number with its number. Nothing equals nothing. A map on the
    left cannot be compared.
    """
    return _equal(left, right)


@function(
    "ne",
    returns="bool",
    examples=[example(5, 6, gives=True), example("hello", None, gives=True), example(5, "5", gives=False)],
)
def ne(left: Value, right: Value) -> bool | Missing:
    """Says whether both differ; the opposite of `eq`."""
    equal = _equal(left, right)
    return equal if isinstance(equal, Missing) else not equal


@function(
    "gt",
    returns="bool",
    examples=[
        example(5, "3", gives=True),
        example(5, 5, gives=False),
        example(5, None, gives=MISSING),
        example("a", 1, gives=MISSING),
    ],
)
def gt(left: Value, right: Value) -> bool | Missing:
    """Says whether the left number is greater; not ok when one side is no number."""
    return _ordered(left, right, float.__gt__)


@function("ge", returns="bool", examples=[example(5.5, 3, gives=True), example(5, 6, gives=False)])
def ge(left: Value, right: Value) -> bool | Missing:
    """Says whether the left number is greater or equal; not ok when one side is no number."""
    return _ordered(left, right, float.__ge__)


@function("lt", returns="bool", examples=[example(5, 6, gives=True), example(5, "3", gives=False)])
def lt(left: Value, right: Value) -> bool | Missing:
    """Says whether the left number is less; not ok when one side is no number."""
    return _ordered(left, right, float.__lt__)


@function("le", returns="bool", examples=[example(5, 5, gives=True), example(5, 3, gives=False)])
def le(left: Value, right: Value) -> bool | Missing:
    """Says whether the left number is less or equal; not ok when one side is no number."""
    return _ordered(left, right, float.__le__)


@function(
    "not",
    returns="bool",
    examples=[
        example(True, gives=False),
        example("false", gives=True),
        example(0, gives=True),
        example("hello", gives=MISSING),
        example(None, gives=MISSING),
    ],
)
def negate(x: Value) -> bool | Missing:
    """Turns a truth around; not ok when the value is none (see `tobool`)."""
    truth = to_bool(x)
    return truth if isinstance(truth, Missing) else not truth


@function(
    "exists",
    returns="bool",
    examples=[
        example("", gives=True),
        example(0, gives=True),
        example(None, gives=False),
        example({"a": 1}, gives=True),
        example({"a": "b"}, gives=False),
    ],
)
def exists(x: Value) -> bool:
    """Says whether there is a value: any scalar, even empty text and 0, any list, and maps of int.

    Other maps give false; the operator `EXISTS` is true for them.
    """
    if x is None or x is MISSING:
        return False
    if isinstance(x, dict):
        values = x.values()
        whole = all(isinstance(each, int) and not isinstance(each, bool) for each in values)
        return whole or any(isinstance(each, dict | list) for each in values)
    return True


@function(
    "any",
    returns="bool",
    examples=[example(None, "", 0, gives=True), example(None, "", gives=False)],
)
def any_(x: Value, *more: Value) -> bool:
    """Says whether some argument has a value; empty text, lists and maps have none."""
    return not all(is_nil(each) for each in (x, *more))


@function(
    "all",
    returns="bool",
    examples=[
        example("Apple", True, gives=True),
        example("Linux", False, gives=False),
        example("Linux", "", gives=False),
        example(-1, gives=False),
        example(0, gives=True),
    ],
)
def all_(x: Value, *more: Value) -> bool:
    """Says whether every argument has a value and none is false.

    As in the public code, a number other than 0 makes it false.
    """
    for each in (x, *more):
        if is_nil(each) or each is False:
            return False
        if isinstance(each, int | float) and not isinstance(each, bool) and each != 0:
            return False
    return True


@function(
    "oneof",
    examples=[
        example("apples", "oranges", gives="apples"),
        example(None, "", "b", gives="b"),
        example("", "", gives=MISSING),
    ],
)
def oneof(a: Value, b: Value, *more: Value) -> Value:
    """Gives the first argument that has a value; not ok when none has."""
    return next((each for each in (a, b, *more) if not is_nil(each)), MISSING)


@function(
    "if",
    examples=[
        example(True, "yes", "no", gives="yes"),
        example(False, "yes", "no", gives="no"),
        example(False, "yes", gives=MISSING),
    ],
)
def if_(condition: Value, value: Value, otherwise: Value = None) -> Value:
    """Gives `value` when the condition holds, else `otherwise`; a condition that is no truth does not hold."""
    chosen = value if to_bool(condition) is True else otherwise
    return MISSING if chosen is None else chosen


@function("ifcase", examples=[example(None, "b", "c", gives="b"), example(None, None, gives=MISSING)])
def ifcase(value: Value, *more: Value) -> Value:
    """Gives the value of the first case that holds: `ifcase("big" IF x > 9, "small" IF x > 0, "none")`.

    A case whose condition does not hold has no value; an argument without IF is the default.
    """
    return next((each for each in (value, *more) if each is not None), MISSING)


def _equal(left: Value, right: Value) -> bool | Missing:
    if right is None or left is None:
        return left is right
    match left:
        case str():
            return left == to_text(right)
        case bool():
            return left is to_bool(right)
        case int() if to_int(left) is not MISSING:
            return left == to_int(right)
        case int() | float():
            return left == to_number(right)
        case datetime():
            return left == to_date(right)
        case list():
            return (
                isinstance(right, list)
                and len(left) == len(right)
                and all(_equal(a, b) is True for a, b in zip(left, right, strict=True))
            )
    return MISSING


def _ordered(left: Value, right: Value, compare: Callable[[float, float], bool]) -> bool | Missing:
    a, b = to_number(left), to_number(right)
    if isinstance(a, Missing) or isinstance(b, Missing):
        return MISSING
    return compare(a, b)
