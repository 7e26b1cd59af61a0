"""LIKE: a pattern against a whole text.

`*` and `%` stand for any run, `?` for one character, `[a-z]` for one of a class; a backslash takes the next
character as it is.

Never a backtracking search: patterns of literals and stars are looked for from left to right, the others go
to RE2, which is linear in the text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import re2  # type: ignore[import-untyped]  # the wheel carries no types

_LONGEST: Final = 4096


def matches(pattern: str, text: str) -> bool:
    """Says whether the whole text fits the pattern. A malformed pattern fits nothing."""
    return matcher(pattern)(text)


@lru_cache(maxsize=4096)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Gives the test of a pattern; for a pattern known beforehand, so that it is read once."""
    if len(pattern) > _LONGEST:
        return _never
    if "\\" not in pattern and "?" not in pattern and "[" not in pattern:
        return _of_stars(pattern.replace("%", "*"))
    return _of_classes(pattern)


def _never(_text: str) -> bool:
    return False


def _of_stars(pattern: str) -> Callable[[str], bool]:
    if "*" not in pattern:
        return pattern.__eq__
    head, *middle, tail = pattern.split("*")
    parts = [part for part in middle if part]
    least = len(head) + len(tail)
    if not parts:
        return lambda text: len(text) >= least and text.startswith(head) and text.endswith(tail)
    if len(parts) == 1 and not least:
        part = parts[0]
        return lambda text: part in text

    def test(text: str) -> bool:
        if len(text) < least or not text.startswith(head) or not text.endswith(tail):
            return False
        at, end = len(head), len(text) - len(tail)
        for part in parts:
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return test


def _of_classes(pattern: str) -> Callable[[str], bool]:
    written = _expression(pattern)
    if written is None:
        return _never
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    try:
        compiled = re2.compile(written, options=options)
    except (re2.error, ValueError):  # a text that is not UTF-8
        return _never

    def test(text: str) -> bool:
        try:
            return compiled.fullmatch(text) is not None
        except ValueError:
            return False

    return test


def _expression(pattern: str) -> str | None:
    """The pattern as a regular expression; None where a class has no end or a backslash ends the pattern."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign in "*%":
            out.append(".*")
        elif sign == "?":
            out.append(".")
        elif sign == "\\":
            if at == len(pattern):
                return None
            out.append(re2.escape(pattern[at]))
            at += 1
        elif sign == "[":
            end = pattern.find("]", at + 2 if pattern[at : at + 1] == "^" else at + 1)
            if end < 0:
                return None
            inner = pattern[at:end]
            negated = inner.startswith("^")
            body = "".join(each if each == "-" else re2.escape(each) for each in inner.removeprefix("^"))
            out.append(f"[{'^' if negated else ''}{body}]")
            at = end + 1
        else:
            out.append(re2.escape(sign))
    return "".join(out)
