"""What is wrong with a text, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_SHOWN = 120  # characters of a line


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `line` and `column` count from 1; `hint` says what would be accepted, or the nearest name."""

    message: str
    line: int
    column: int
    severity: Literal["error", "warning"] = "error"
    hint: str = ""
    source_line: str = ""

    def __str__(self) -> str:
        """Message, place, the line with a caret, and the hint."""
        text = f"line {self.line}, column {self.column}: {self.message}"
        if self.source_line:
            # Of a very long line only the part around the place.
            start = max(0, self.column - 1 - _SHOWN // 2) if len(self.source_line) > _SHOWN else 0
            shown = self.source_line[start : start + _SHOWN].replace("\t", " ")
            text += f"\n  {shown}\n  {' ' * (self.column - 1 - start)}^"
        if self.hint:
            text += f"\n  {self.hint}"
        return text


@dataclass(frozen=True, slots=True)
class Remains:
    """What could be read of a refused text: its statements (Filter or Query), and what is not whole in them.

    `calls` are the places of those whose arguments were not all understood; `columns`: some were left out.
    """

    statements: tuple[Any, ...] = ()
    calls: frozenset[int] = frozenset()
    columns: bool = False


class QueryError(ValueError):
    """A text that is refused. `diagnostics` has all errors found, in the order of the text, at least one."""

    def __init__(self, diagnostics: Sequence[Diagnostic], remains: Remains | None = None) -> None:
        self.diagnostics = tuple(diagnostics)
        self.remains = remains or Remains()
        super().__init__("\n".join(str(each) for each in self.diagnostics))


def locate(source: str, at: int) -> tuple[int, int, str]:
    """Gives line and column (from 1) and the line's text of an offset in `source`."""
    before = source[:at]
    line = before.count("\n") + 1
    start = before.rfind("\n") + 1
    end = source.find("\n", at)
    return line, at - start + 1, source[start : end if end >= 0 else len(source)]


def diagnostic(
    source: str, at: int, message: str, *, hint: str = "", severity: Literal["error", "warning"] = "error"
) -> Diagnostic:
    """Makes a diagnostic for the place `at` in `source`."""
    line, column, text = locate(source, at)
    return Diagnostic(message, line, column, severity, hint, text)
