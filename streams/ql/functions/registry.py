"""What a function of the languages is, and the table of all of them.

A function is declared once, by `@function` on the Python function that does it: the signature gives the
arity, the docstring the documentation, and the examples are both documentation and test.

A registered function takes evaluated values (missing ones as None), returns a value or MISSING (not ok), and
never raises for bad data.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

#: A literal argument as the parser sees it; None where the argument is an expression.
Constant: TypeAlias = str | int | float | bool | None
#: Looks at the literal arguments when a text is parsed; returns what is wrong, or None.
Check: TypeAlias = Callable[[Sequence[Constant]], str | None]

#: The clock of all examples.
EXAMPLE_NOW = datetime(2026, 1, 15, 12, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Example:
    """A call and what it gives; `event` is the event that the call sees."""

    args: tuple[Any, ...]
    gives: Any
    event: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the languages.

    `max_args` None means any number. `literal_args` are positions (from 0) that must be literals in the text.
    With `takes_now` / `takes_event` the implementation's first arguments are `now: datetime` and
    `event: Mapping`, in this order, before the values. `aggregate` is the merge operator that the function
    sets as a column's outermost expression; such functions are refused anywhere else. `in_column` stands in for
    `impl` there, where it differs (a sum of 0 is 0 in a column, and nothing elsewhere).
    """

    name: str
    aliases: tuple[str, ...]
    min_args: int
    max_args: int | None
    impl: Callable[..., Any]
    returns: str | None
    literal_args: frozenset[int]
    check: Check | None
    takes_now: bool
    takes_event: bool
    aggregate: str | None
    doc: str
    signature: str
    examples: tuple[Example, ...]
    in_column: Callable[..., Any] | None = None

    def call(self, args: Sequence[Any], *, now: datetime, event: Mapping[str, Any]) -> Any:
        """Calls the implementation. For tools and tests; compiled code calls `impl` itself."""
        first: list[Any] = []
        if self.takes_now:
            first.append(now)
        if self.takes_event:
            first.append(event)
        return self.impl(*first, *args)

    def arity_error(self, count: int) -> str | None:
        """Says what is wrong with `count` arguments, or None."""
        if count >= self.min_args and (self.max_args is None or count <= self.max_args):
            return None
        if self.max_args is None:
            wanted = f"at least {self.min_args}"
        elif self.min_args == self.max_args:
            wanted = str(self.min_args)
        else:
            wanted = f"{self.min_args} to {self.max_args}"
        noun = "argument" if wanted in {"1", "at least 1"} else "arguments"
        return f"{self.name}() takes {wanted} {noun}, not {count}"


#: Every function by its name and by each alias, in lower case.
FUNCTIONS: dict[str, Function] = {}


def function(
    name: str,
    *aliases: str,
    examples: Sequence[Example],
    returns: str | None = None,
    literal_args: Sequence[int] = (),
    check: Check | None = None,
    aggregate: str | None = None,
    in_column: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function; its arity, `now` and `event` arguments come from the Python signature."""

    def register(impl: Callable[..., Any]) -> Callable[..., Any]:
        parameters = list(inspect.signature(impl).parameters.values())
        takes_now = bool(parameters) and parameters[0].name == "now"
        parameters = parameters[takes_now:]
        takes_event = bool(parameters) and parameters[0].name == "event"
        parameters = parameters[takes_event:]
        many = any(each.kind is each.VAR_POSITIONAL for each in parameters)
        plain = [each for each in parameters if each.kind is not each.VAR_POSITIONAL]
        required = [each for each in plain if each.default is each.empty]
        shown = [each.name if each in required else f"[{each.name}]" for each in plain]
        made = Function(
            name=name,
            aliases=aliases,
            min_args=len(required),
            max_args=None if many else len(plain),
            impl=impl,
            returns=returns,
            literal_args=frozenset(literal_args),
            check=check,
            takes_now=takes_now,
            takes_event=takes_event,
            aggregate=aggregate,
            doc=inspect.cleandoc(impl.__doc__ or ""),
            signature=f"{name}({', '.join([*shown, '…'] if many else shown)})",
            examples=tuple(examples),
            in_column=in_column,
        )
        for each in (name, *aliases):
            if each in FUNCTIONS:
                raise ValueError(f"the function {each} is declared twice")
            FUNCTIONS[each] = made
        return impl

    return register


def example(*args: Any, gives: Any, event: Mapping[str, Any] | None = None) -> Example:
    """An example of the function that it stands at."""
    return Example(args, gives, event or {})
