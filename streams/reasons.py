"""Why a condition of a filter holds, fails or cannot be evaluated, in a sentence for people.

The verdict itself is the compiled filter's; what is said here is read from the same values, so that a sentence shows
what was compared: "orders is 3; 3 >= 5 is false".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from streams.ql import rules
from streams.ql.coerce import text_of_date
from streams.ql.compiler import compile_expression
from streams.ql.datemath import anchor
from streams.ql.missing import MISSING, Value
from streams.ql.nodes import (
    Between,
    Binary,
    Call,
    Exists,
    Ident,
    Include,
    IsNull,
    Literal,
    MatchAll,
    Node,
    Unary,
)
from streams.ql.printer import print_node
from streams.ql.tree import walk
from streams.ql.values import plain

Verdict = tuple[bool, bool]

#: Characters of one value, elements of one list, fields of one expression that are told.
_MOST_CHARACTERS: Final = 80
_MOST_ELEMENTS: Final = 5
_MOST_FIELDS: Final = 6
#: Floats below this are told without a fraction where they have none.
_WHOLE: Final = 1e15

_WORDS: Final[Mapping[type, str]] = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    datetime: "a time",
    list: "a list",
    dict: "a map",
    type(None): "null",
}


def said(verdict: Verdict) -> str:
    """Gives a verdict in a word or two."""
    match, ok = verdict
    return ("true" if match else "false") if ok else "not evaluable"


class Reasons:
    """Tells the reasons for the values of one profile at one moment."""

    def __init__(self, values: Mapping[str, Value], now: datetime, kinds: Mapping[str, str]) -> None:
        self._values = values
        self._now = now
        self._kinds = kinds

    def of(self, node: Node, verdict: Verdict) -> str:
        """Gives the reason for the verdict on a condition that is no group."""
        match node:
            case MatchAll():
                return "everybody matches"
            case Unary(op="not", operand=operand):
                return self._negated(operand, verdict)
            case Binary(op=op) if op not in rules.ARITHMETIC:
                return self._compared(node, verdict)
            case Between():
                return self._between(node, verdict)
            case Exists(value=value) | IsNull(value=value):
                return "; ".join(self._facts(value)) or f"{print_node(value)} is a constant"
            case Include(name=name):
                return f"audience {name} is {said(verdict)}"
            case _:
                return self._truth(node, verdict)

    # --- conditions

    def _compared(self, node: Binary, verdict: Verdict) -> str:
        left, right = self._value(node.left), self._value(node.right)
        facts = [*self._facts(node.left), *self._facts(node.right)]
        left_told, right_told = self._moments(node.left, right, facts), self._moments(node.right, left, facts)
        op = node.op.upper()
        if left is MISSING or right is MISSING:
            both = left is MISSING and right is MISSING
            return "; ".join([*facts, f"{op} of what is missing{' on both sides' if both else ''} is {said(verdict)}"])
        told = f"{left_told or shown(left)} {op} {right_told or shown(right)}"
        if not verdict[1]:
            return "; ".join([*facts, f"{told} is not evaluable: {_obstacle(node.op, left, right)}"])
        return "; ".join([*facts, f"{told} is {said(verdict)}"])

    def _between(self, node: Between, verdict: Verdict) -> str:
        value = self._value(node.value)
        facts = self._facts(node.value)
        told = []
        for bound in (node.low, node.high):
            facts += self._facts(bound)
            told.append(self._moments(bound, value, facts) or shown(self._value(bound)))
        if value is MISSING:
            return "; ".join([*facts, "BETWEEN of what is missing is not evaluable"])
        between = f"{shown(value)} BETWEEN {told[0]} AND {told[1]}"
        if not verdict[1]:
            return "; ".join([*facts, f"{between} is not evaluable: it takes numbers and times only"])
        return "; ".join([*facts, f"{between} (both ends excluded) is {said(verdict)}"])

    def _negated(self, operand: Node, verdict: Verdict) -> str:
        if verdict[1]:
            return f"{self.of(operand, (not verdict[0], True))}, so NOT of it is {said(verdict)}"
        return f"{self.of(operand, verdict)}, and so is NOT of it"

    def _truth(self, node: Node, verdict: Verdict) -> str:
        """Of a field or a call that is itself the condition."""
        facts = self._facts(node)
        if verdict[1]:
            return "; ".join(facts)
        value = self._value(node)
        if value is MISSING:
            return "; ".join([*facts, "what is missing is not evaluable"])
        return "; ".join([*facts, f"{shown(value)} is no truth value, so it is not evaluable"])

    # --- what is told of operands

    def _facts(self, node: Node) -> list[str]:
        """Says what an operand is: a field's value, or an expression's with the fields that it reads."""
        if isinstance(node, Ident):
            return [self._field(node)]
        names = list(dict.fromkeys(each for each in walk(node) if isinstance(each, Ident)))
        facts = [self._field(each) for each in names[:_MOST_FIELDS]]
        if isinstance(node, Call | Binary | Unary) or names:
            value = self._value(node)
            told = "has no value" if value is MISSING else f"is {shown(value)}"
            facts.append(f"{print_node(node)} {told}")
        return facts

    def _field(self, ident: Ident) -> str:
        name = print_node(ident)
        value = self._value(ident)
        if value is MISSING or value is None:
            return f"the profile has no `{name.strip('`')}`"
        if value in ("", [], {}):
            return f"{name} is empty"
        return f"{name} is {shown(value)}"

    def _moments(self, node: Node, other: Value, facts: list[str]) -> str | None:
        """Of date maths beside a time: the moment that it means, which is also told by itself; else None."""
        if not isinstance(node, Literal) or not isinstance(node.value, str):
            return None
        found = anchor(node.value)
        if found is None or not _is_time(other):
            return None
        moment = text_of_date(found.at(self._now))
        facts.append(f"{node.value} is {moment}")
        return moment

    def _value(self, node: Node) -> Value:
        if isinstance(node, Literal):
            return node.value
        return compile_expression(node, kinds=self._kinds).evaluate(self._values, self._now)


def shown(value: Value) -> str:
    """Gives a value as people read it, cut to a line."""
    if value is MISSING or value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return text_of_date(value)
    if isinstance(value, str):
        return f'"{_cut(value)}"'
    if isinstance(value, list):
        return f"[{_several(map(shown, value), len(value))}]"
    if isinstance(value, dict):
        return "{" + _several((f"{_cut(str(key))}: {shown(each)}" for key, each in value.items()), len(value)) + "}"
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        return str(int(value))
    return str(plain(value))


def _several(texts: Iterator[str], count: int) -> str:
    told = [text for _, text in zip(range(_MOST_ELEMENTS), texts, strict=False)]
    return ", ".join(told) + (f", … ({count:,} in all)" if count > _MOST_ELEMENTS else "")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _is_time(value: Value) -> bool:
    return isinstance(value, datetime) or (isinstance(value, list) and bool(value) and isinstance(value[0], datetime))


def _obstacle(op: str, left: Value, right: Value) -> str:
    """Says why two values have no verdict under an operator."""
    if isinstance(left, str) and isinstance(right, str) and op in rules.ORDER:
        return "text cannot be ordered"
    for one, other in ((left, right), (right, left)):
        if _is_time(one) and isinstance(other, str):
            return f"{shown(other)} is no time"
    if isinstance(left, list) and op in rules.COMPARISONS:
        return f"a list is not compared by {op.upper()}; IN and INTERSECTS look for an element"
    words = (_WORDS.get(type(each), "a value") for each in (left, right))
    return f"{op.upper()} has no meaning between {' and '.join(words)}"
