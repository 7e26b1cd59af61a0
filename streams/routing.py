"""Routing rules: an event may be moved to another stream as it arrives.

Of the active rules on the event's stream the one with the highest priority whose expression holds decides, the newest
first among equals. The output is final: it is not routed again. An expression that cannot be evaluated does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from streams.ql.compiler import compile_expression
from streams.ql.errors import QueryError
from streams.ql.parser import parse_expression

#: An input that stands for every stream.
ANY = "*"

Condition = Callable[[Mapping[str, Any], datetime], bool]


class Rule(Protocol):
    """What is needed of a rule; among equal priorities the greater `id` is the newer."""

    @property
    def id(self) -> int: ...  # noqa: D102
    @property
    def priority(self) -> int: ...  # noqa: D102
    @property
    def input(self) -> str: ...  # noqa: D102
    @property
    def output(self) -> str: ...  # noqa: D102
    @property
    def expression(self) -> str: ...  # noqa: D102
    @property
    def active(self) -> int: ...  # noqa: D102


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


def build_routes(rules: Iterable[Rule], refused: Callable[[Rule, QueryError], None] | None = None) -> Routes:
    """Orders and compiles the active rules.

    An expression that is not accepted raises QueryError, or is told to `refused` and its rule left out.
    """
    compiled: list[tuple[str, tuple[Condition, str]]] = []
    for rule in sorted((each for each in rules if each.active), key=lambda each: (-each.priority, -each.id)):
        try:
            compiled.append((rule.input, (condition(rule.expression), rule.output)))
        except QueryError as error:
            if refused is None:
                raise
            refused(rule, error)
    inputs = {given for given, _ in compiled}
    return Routes({name: tuple(each for given, each in compiled if given in {name, ANY}) for name in inputs})


def _always(data: Mapping[str, Any], now: datetime) -> bool:  # noqa: ARG001  (the form of every condition)
    return True
