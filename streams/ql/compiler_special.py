"""Comparisons written out where the field's kind is known and the other side is a constant.

Each form does what the row of `rules.TABLE` does for these kinds; what has no form here goes to the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from streams.ql import rules
from streams.ql.coerce import epoch_date
from streams.ql.compiler_fields import Entry, Known
from streams.ql.glob import matcher
from streams.ql.kinds import Kind, is_map
from streams.ql.nodes import Array, Between, Binary, Ident, Literal, Node

if TYPE_CHECKING:
    from streams.ql.compiler_source import Writer

_PYTHON: Final = {"=": "==", "!=": "!=", ">": ">", ">=": ">=", "<": "<", "<=": "<="}
_NUMERIC: Final = frozenset({Kind.INT, Kind.NUMBER})
_DATE_LISTS: Final = frozenset({Kind.TIMES, Kind.TIMEBUCKETS})
_TEXT_LISTS: Final = frozenset({Kind.STRINGS, Kind.TS_STRINGS, Kind.MEMBERSHIP})


@dataclass(frozen=True, slots=True)
class Truth:
    """The code of a condition; `total` when it can only give True or False."""

    code: str
    total: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """A constant operand that can stand for a date: code of the moment, and of one second after it."""

    code: str
    second_after: str


def comparison(writer: Writer, node: Binary) -> Truth | None:
    """Gives the written-out form of a comparison, or None when it has none."""
    if isinstance(node.left, Ident) and isinstance(node.right, Literal | Array):
        return _with_constant(writer, node.op, node.left, node.right)
    if isinstance(node.left, Literal) and isinstance(node.right, Ident) and node.op in rules.MIRRORED:
        if _kind(writer, node.right) in _DATE_LISTS:
            return None
        return _with_constant(writer, rules.MIRRORED[node.op], node.right, node.left)
    return None


def between(writer: Writer, node: Between) -> Truth | None:
    """Gives the written-out form of BETWEEN, or None when it has none."""
    if not isinstance(node.value, Ident):
        return None
    kind = _kind(writer, node.value)
    if kind in _NUMERIC:
        low, high = _number(node.low), _number(node.high)
        if low is None or high is None:
            return None
        return _bounded(writer, node.value, f"{writer.unit.bind(low)} <", f"< {writer.unit.bind(high)}")
    if kind == Kind.DATE:
        first, last = _moment(writer, node.low), _moment(writer, node.high)
        if first is None or last is None:
            return None
        return _bounded(writer, node.value, f"{first.second_after} <=", f"< {last.code}")
    return None


def _bounded(writer: Writer, ident: Ident, low: str, high: str) -> Truth:
    name = writer.unit.fresh("t")
    code = f"(({low} {name} {high}) if ({name} := {writer.read(ident, absent='None')}) is not None else M)"
    return Truth(code, total=False)


def _with_constant(writer: Writer, op: str, ident: Ident, constant: Literal | Array) -> Truth | None:
    kind = _kind(writer, ident)
    if kind is None:
        return None
    field = writer.read(ident, absent="None")
    if isinstance(constant, Array):
        return _with_list(writer, op, kind, field, constant)
    value = constant.value
    if kind in _NUMERIC and op in rules.COMPARISONS:
        number = _number(constant)
        return None if number is None else _compared(writer, op, field, writer.unit.bind(number))
    if kind == Kind.DATE and op in rules.COMPARISONS:
        moment = _moment(writer, constant)
        return None if moment is None else _date(writer, op, field, moment)
    if kind in _DATE_LISTS and op in rules.ORDER:
        moment = _moment(writer, constant)
        return None if moment is None else _any_date(writer, op, field, moment)
    if kind == Kind.BOOL and isinstance(value, bool) and op in rules.EQUALITY:
        return Truth(f"({field} is {'' if op == '=' else 'not '}{value is True})", total=True)
    if kind == Kind.STRING and isinstance(value, str):
        return _text(writer, op, field, value)
    return None


def _text(writer: Writer, op: str, field: str, value: str) -> Truth | None:
    bound = writer.unit.bind(value)
    name = writer.unit.fresh("t")
    if op in rules.EQUALITY or op in rules.MEMBERSHIP:
        return Truth(f"({field} {'!=' if op == '!=' else '=='} {bound})", total=True)
    if op == "contains":
        return Truth(f"(({name} := {field}) is not None and {bound} in {name})", total=True)
    if op == "like":
        test = writer.unit.bind(matcher(value))
        return Truth(f"(({name} := {field}) is not None and {test}({name}))", total=True)
    return None


def _with_list(writer: Writer, op: str, kind: str, field: str, array: Array) -> Truth | None:
    if op not in rules.MEMBERSHIP:
        return None
    values = [each.value for each in array.items if isinstance(each, Literal)]
    if len(values) != len(array.items) or not all(isinstance(value, str) for value in values):
        return None
    bound = writer.unit.bind(frozenset(values))
    name = writer.unit.fresh("t")
    if kind == Kind.STRING:
        return Truth(f"({field} in {bound})", total=True)
    if kind in _TEXT_LISTS or is_map(kind):
        return Truth(f"(({name} := {field}) is not None and not {bound}.isdisjoint({name}))", total=True)
    return None


def _compared(writer: Writer, op: str, field: str, bound: str) -> Truth:
    if op in rules.EQUALITY:
        return Truth(f"({field} {_PYTHON[op]} {bound})", total=True)
    name = writer.unit.fresh("t")
    return Truth(f"(({name} := {field}) is not None and {name} {_PYTHON[op]} {bound})", total=True)


def _date(writer: Writer, op: str, field: str, moment: Moment) -> Truth:
    """Whole seconds: the field's second is after m when the field is at or after m + 1 s, and so on."""
    name = writer.unit.fresh("t")
    at, after = moment.code, moment.second_after
    test = {
        "=": f"{at} <= {name} < {after}",
        "!=": f"not {at} <= {name} < {after}",
        ">": f"{name} >= {after}",
        ">=": f"{name} >= {at}",
        "<": f"{name} < {at}",
        "<=": f"{name} < {after}",
    }[op]
    if op == "!=":
        return Truth(f"(({name} := {field}) is None or {test})", total=True)
    return Truth(f"(({name} := {field}) is not None and {test})", total=True)


def _any_date(writer: Writer, op: str, field: str, moment: Moment) -> Truth:
    """Any of the dates satisfies an order when the latest (or earliest) of them does."""
    name = writer.unit.fresh("t")
    test = {
        ">": f"max({name}) >= {moment.second_after}",
        ">=": f"max({name}) >= {moment.code}",
        "<": f"min({name}) < {moment.code}",
        "<=": f"min({name}) < {moment.second_after}",
    }[op]
    return Truth(f"(({name} := {field}) is not None and len({name}) > 0 and {test})", total=True)


def _kind(writer: Writer, ident: Ident) -> str | None:
    if ident.path in writer.held:
        return None
    match writer.unit.fields.resolve(ident):
        case Known(kind=kind) | Entry(kind=kind):
            return kind
        case _:
            return None


def _number(node: Node) -> float | None:
    """The constant as a number, text as the number that it is; None when it is none."""
    if not isinstance(node, Literal):
        return None
    value: Any = node.value
    if isinstance(value, bool) or value is None:
        return None
    number: float = rules.number_of(value) if isinstance(value, str) else value
    return None if math.isnan(number) else number


def _moment(writer: Writer, node: Node) -> Moment | None:
    if not isinstance(node, Literal):
        return None
    if isinstance(node.value, int | float) and not isinstance(node.value, bool):
        date = epoch_date(node.value) if math.isfinite(node.value) else None
        return writer.fixed(date) if isinstance(date, datetime) else None
    return writer.moment(node)
