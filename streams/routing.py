"""Routing rules: an event may be moved to another stream as it arrives.

Of the active rules on the event's stream the one with the highest priority whose expression holds decides, the newest
first among equals. The output is final: it is not routed again. An expression that cannot be evaluated does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from streams.ql.compiler import compile_expression
from streams.ql.parser import parse_expression

#: An input that stands for every stream.
ANY = "*"

Condition = Callable[[Mapping[str, Any], datetime], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; among equal priorities the greater `id` is the newer."""

    id: int
    name: str
    priority: int
    input: str
    output: str
    expression: str
    active: bool = True


def condition(expression: str) -> Condition:
    """Compiles a rule's expression; `true` always holds. Raises QueryError."""
    if expression.strip().lower() == "true":
        return _always
    compiled = compile_expression(parse_expression(expression))
    evaluate = compiled.evaluate

    def holds(data: Mapping[str, Any], now: datetime) -> bool:
        return evaluate(data, now) is True

    return holds


@dataclass(frozen=True, slots=True)
class Routes:
    """Active rules, ready to be asked; made by `build_routes`."""

    by_input: Mapping[str, tuple[tuple[Condition, str], ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.by_input)

    def touches(self, stream: str) -> bool:
        """Says whether an event of `stream` could be moved at all."""
        return stream in self.by_input or ANY in self.by_input

    def route(self, stream: str, data: Mapping[str, Any], now: datetime) -> str:
        """Gives the stream that an event of `stream` goes to."""
        rules = self.by_input.get(stream)
        if rules is None:
            rules = self.by_input.get(ANY, ())
        for holds, output in rules:
            if holds(data, now):
                return output
        return stream


def build_routes(rules: Iterable[Rule]) -> Routes:
    """Orders and compiles the active rules. Raises QueryError."""
    ordered = sorted((rule for rule in rules if rule.active), key=lambda rule: (-rule.priority, -rule.id))
    compiled = [(rule.input, (condition(rule.expression), rule.output)) for rule in ordered]
    inputs = {given for given, _ in compiled}
    return Routes({name: tuple(each for given, each in compiled if given in {name, ANY}) for name in inputs})


def _always(data: Mapping[str, Any], now: datetime) -> bool:  # noqa: ARG001  (the form of every condition)
    return True
