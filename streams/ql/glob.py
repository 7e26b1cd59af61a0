"""LIKE: a pattern against a whole text.

`*` and `%` stand for any run, `?` for one character, `[a-z]` for one of a class; a backslash takes the next
character as it is.

Never a backtracking search: what stands between the stars is looked for from left to right, so that the time grows
with the lengths of text and pattern, not with the number of stars.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_LONGEST: Final = 4096


def matches(pattern: str, text: str) -> bool:
    """Says whether the whole text fits the pattern. A malformed pattern fits nothing."""
    return matcher(pattern)(text)


def well_formed(pattern: str) -> bool:
    """Says whether a pattern can fit anything: its classes end, and no backslash stands at its end."""
    return matcher(pattern) is not _never


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
    """The runs between stars are of fixed length, so that the first place of each, from left to right, decides."""
    runs = _runs(pattern)
    if runs is None:
        return _never
    (head, head_length), *middle = runs
    if not middle:
        return lambda text: len(text) == head_length and head.match(text) is not None
    tail, tail_length = middle.pop()
    parts = [part for part in middle if part[1]]

    def test(text: str) -> bool:
        at, end = head_length, len(text) - tail_length
        if at > end or head.match(text) is None or tail.match(text, end) is None:
            return False
        for part, length in parts:
            found = part.search(text, at, end)
            if found is None:
                return False
            at = found.start() + length
        return True

    return test


def _runs(pattern: str) -> list[tuple[re.Pattern[str], int]] | None:
    """The runs between stars, each with the number of characters that it stands for.

    A run is a sequence of single characters, without any repetition: for such an expression `re` does not backtrack.
    None where a class has no end or a range runs backwards, or a backslash ends the pattern.
    """
    runs: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign in "*%":
            runs.append([])
        elif sign == "?":
            runs[-1].append(".")
        elif sign == "\\":
            if at == len(pattern):
                return None
            runs[-1].append(re.escape(pattern[at]))
            at += 1
        elif sign == "[":
            end = pattern.find("]", at + 2 if pattern[at : at + 1] == "^" else at + 1)
            if end < 0:
                return None
            runs[-1].append(_class(pattern[at:end]))
            at = end + 1
        else:
            runs[-1].append(re.escape(sign))
    try:
        return [(re.compile("".join(run), re.DOTALL), len(run)) for run in runs]
    except re.error:
        return None


def _class(inner: str) -> str:
    """The expression of what stands between square brackets."""
    rest = inner.removeprefix("^")
    out = ["[^" if inner != rest else "["]
    at = 0
    while at < len(rest):
        out.append(re.escape(rest[at]))
        if rest[at + 1 : at + 2] == "-" and at + 2 < len(rest):
            out.append("-" + re.escape(rest[at + 2]))
            at += 2
        at += 1
    return "".join([*out, "]"])
