"""A plain walk over a tree of the languages: nothing worked out beforehand, no closures, no source.

The compiler's tests hold compiled trees to it, and the benchmarks measure them against it.
"""

from __future__ import annotations

from datetime import datetime

from streams.ql import rules
from streams.ql.coerce import to_date
from streams.ql.datemath import anchor
from streams.ql.functions import FUNCTIONS
from streams.ql.lookup import lookup
from streams.ql.missing import MISSING
from streams.ql.nodes import (
    Array,
    Between,
    Binary,
    Call,
    Conditional,
    Exists,
    Group,
    Ident,
    Include,
    IsNull,
    Literal,
    MatchAll,
    Unary,
)


class Walker:
    """Evaluates a tree node by node, with nothing worked out beforehand."""

    def __init__(self, data, now, includes, *, not_reads=True):
        self.data, self.now, self.includes, self.not_reads = data, now, includes, not_reads

    def value(self, node):
        match node:
            case Literal(value=value):
                return value
            case Ident(path=path):
                return lookup(self.data, path)
            case Array(items=items):
                return [value for item in items if (value := self.value(item)) is not MISSING]
            case MatchAll():
                return True
            case Unary(op="-", operand=operand):
                return rules.minus(self.value(operand))
            case Unary(operand=Include() as included):
                return self.value(included) is not True
            case Unary(operand=operand):
                value = self.value(operand)
                return rules.negation(value) if self.not_reads or value.__class__ is bool else MISSING
            case Group(op="and", items=items):
                for item in items:
                    value = self.value(item)
                    if value is not True:
                        return False if value is False else MISSING
                return True
            case Group(items=items):
                return any(self.value(item) is True for item in items)
            case Include(name=name):
                tree = self.includes.get(name.lower())
                value = MISSING if tree is None else self.value(tree)
                return value if isinstance(value, bool) else MISSING
            case Exists(value=value):
                return rules.exists(self.value(value))
            case IsNull(value=value):
                return rules.is_null(self.value(value))
            case Binary(op=op, left=left, right=right):
                first, second = self.value(left), self.value(right)
                if op in rules.COMPARISONS:
                    first, second = self.dated(left, first, second), self.dated(right, second, first)
                return rules.binary(op)(first, second)
            case Between(value=value, low=low, high=high):
                first = self.value(value)
                return rules.between(first, *(self.dated(each, self.value(each), first) for each in (low, high)))
            case Conditional(value=value, condition=condition, otherwise=otherwise):
                if self.value(condition) is True:
                    return self.value(value)
                return MISSING if otherwise is None else self.value(otherwise)
            case Call(name="ifcase", args=args):
                for each in args:
                    if not isinstance(each, Conditional):
                        return self.value(each)
                    if self.value(each.condition) is True:
                        return self.value(each.value)
                return MISSING
            case Call(name=name, args=args):
                values = [self.value(each) for each in args]
                try:
                    return FUNCTIONS[name].call(
                        [None if value is MISSING else value for value in values], now=self.now, event=self.data
                    )
                except Exception:  # noqa: BLE001  (the rule under test)
                    return MISSING
        raise AssertionError(node)

    def dated(self, node, value, other):
        """A constant text is a date beside a date, and only there date maths."""
        if not isinstance(node, Literal) or not isinstance(value, str):
            return value
        if not isinstance(other, datetime) and not (
            isinstance(other, list) and other and isinstance(other[0], datetime)
        ):
            return value
        found = anchor(value)
        if found is not None:
            return found.at(self.now)
        date = to_date(value)
        return value if date is MISSING else date
