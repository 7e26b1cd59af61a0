"""Text: searching, cutting, changing case, patterns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]  # the wheel carries no types

from streams.ql.coerce import to_int, to_text
from streams.ql.functions.registry import Constant, example, function
from streams.ql.missing import MISSING, Missing, Value, is_nil

_BLANK = " \n\t\r"
#: The longest text that a replacement or a join may make: a few characters must not become gigabytes.
_LONGEST = 1_000_000


@function(
    "contains",
    "string.contains",
    returns="bool",
    examples=[
        example("5item", "item", gives=True),
        example("5tem", 5, gives=True),
        example(None, "nope", gives=False),
        example("tags", "", gives=MISSING),
    ],
)
def contains(x: Value, part: Value) -> bool | Missing:
    """Says whether the text has the part in it: false when one of them is missing, not ok when one is empty."""
    whole, sought = to_text(x), to_text(part)
    if isinstance(whole, Missing) or isinstance(sought, Missing):
        return False
    if not whole or not sought:
        return MISSING
    return sought in whole


@function(
    "hasprefix",
    "string.hasprefix",
    returns="bool",
    examples=[
        example("apples", "ap", gives=True),
        example(None, "5y", gives=False),
        example("hello", "", gives=MISSING),
    ],
)
def hasprefix(x: Value, prefix: Value) -> bool | Missing:
    """Says whether the text begins with the prefix; not ok with an empty prefix."""
    sought = to_text(prefix)
    if isinstance(sought, Missing) or not sought:
        return MISSING
    return _text(x).startswith(sought)


@function(
    "hassuffix",
    "string.hassuffix",
    returns="bool",
    examples=[
        example("apples", "es", gives=True),
        example("", "5y", gives=False),
        example("hello", "", gives=MISSING),
    ],
)
def hassuffix(x: Value, suffix: Value) -> bool | Missing:
    """Says whether the text ends with the suffix; not ok with an empty suffix."""
    sought = to_text(suffix)
    if isinstance(sought, Missing) or not sought:
        return MISSING
    return _text(x).endswith(sought)


@function(
    "tolower",
    "string.lowercase",
    returns="string",
    examples=[example("Apple", gives="apple"), example(None, gives=MISSING)],
)
def tolower(x: Value) -> str | Missing:
    """Gives the text in lower case."""
    text = to_text(x)
    return text if isinstance(text, Missing) else text.lower()


@function(
    "string.uppercase",
    "toupper",
    returns="string",
    examples=[example("Apple Lemmings", gives="APPLE LEMMINGS"), example(None, gives=MISSING)],
)
def uppercase(x: Value) -> str | Missing:
    """Gives the text in upper case."""
    text = to_text(x)
    return text if isinstance(text, Missing) else text.upper()


@function(
    "string.titlecase",
    returns="string",
    examples=[example("android nexus", gives="Android Nexus"), example("it's iOS", gives="It's IOS")],
)
def titlecase(x: Value) -> str | Missing:
    """Gives the text with the first letter of every word as a capital, the others as they are."""
    text = to_text(x)
    if isinstance(text, Missing):
        return MISSING
    out: list[str] = []
    inside = False
    for character in text:
        out.append(character if inside else character.title())
        inside = character.isalnum() or character in "_'"
    return "".join(out)


@function(
    "string.index",
    returns="int",
    examples=[example("apple", "p", gives=1), example("apple", "z", gives=MISSING), example(None, "z", gives=MISSING)],
)
def index(x: Value, part: Value) -> int | Missing:
    """Gives the place of the part in the text, in bytes from 0; not ok when it is not there."""
    text, sought = to_text(x), to_text(part)
    if isinstance(text, Missing) or not text or isinstance(sought, Missing):
        return MISSING
    at = _bytes(text).find(_bytes(sought))
    return at if at >= 0 else MISSING


@function(
    "string.substr",
    returns="string",
    examples=[
        example("android", 0, 3, gives="and"),
        example("android", 2, gives="droid"),
        example("android", 0, 20, gives=MISSING),
        example("android", -1, -2, gives=MISSING),
    ],
)
def substr(x: Value, start: Value, end: Value = MISSING) -> str | Missing:
    """Gives the bytes from `start` (counted from 0) up to but without `end`; not ok outside the text."""
    text, low = to_text(x), to_int(start)
    if isinstance(text, Missing) or not text or isinstance(low, Missing):
        return MISSING
    content = _bytes(text)
    high = len(content) if end is MISSING else to_int(end)
    if isinstance(high, Missing) or not 0 <= low <= high <= len(content):
        return MISSING
    return content[low:high].decode("utf-8", "replace")


@function(
    "strip",
    "string.strip",
    examples=[
        example("apples ", gives="apples"),
        example([" apples", "oranges "], gives=["apples", "oranges"]),
        example(5, gives=MISSING),
    ],
)
def strip(x: Value) -> str | list[Value] | Missing:
    """Gives the text, or each text of a list, without blanks and line ends around it."""
    if isinstance(x, str):
        return x.strip(_BLANK)
    if isinstance(x, list):
        return [each.strip(_BLANK) if isinstance(each, str) else each for each in x]
    return MISSING


@function(
    "replace",
    "string.replace",
    returns="string",
    examples=[
        example("M20:30", "M", gives="20:30"),
        example("M20:30", "M", "Hour ", gives="Hour 20:30"),
        example(None, "M", gives=MISSING),
    ],
)
def replace(x: Value, old: Value, new: Value = "") -> str | Missing:
    """Gives the text with every `old` replaced by `new`, or taken out."""
    text, sought = to_text(x), to_text(old)
    if isinstance(text, Missing) or isinstance(sought, Missing):
        return MISSING
    by = _text(new)
    if not sought:
        return text
    if len(text) + text.count(sought) * len(by) > _LONGEST:
        return MISSING
    return text.replace(sought, by)


@function(
    "split",
    "string.split",
    returns="[]string",
    examples=[
        example("apples,oranges", ",", gives=["apples", "oranges"]),
        example("", ",", gives=MISSING),
        example("hello", "", gives=MISSING),
    ],
)
def split(x: Value, separator: Value) -> list[str] | Missing:
    """Gives the parts of the text between separators; not ok when one of them is empty."""
    text, by = to_text(x), to_text(separator)
    if isinstance(text, Missing) or isinstance(by, Missing) or not text or not by:
        return MISSING
    return text.split(by)


@function(
    "join",
    "string.join",
    returns="string",
    examples=[
        example("apple", "", "peach", ",", gives="apple,peach"),
        example(["apple", "peach"], "--", gives="apple--peach"),
        example("hello", None, gives=MISSING),
    ],
)
def join(x: Value, separator: Value, *more: Value) -> str | Missing:
    """Gives the arguments, and their lists' elements, as one text; the last argument stands between them.

    Empty text and what is missing is passed over; not ok when nothing is left.
    """
    *values, last = (x, separator, *more)
    between = to_text(last)
    if isinstance(between, Missing):
        return MISSING
    parts: list[str] = []
    for value in values:
        if is_nil(value) or isinstance(value, dict):
            continue
        elements = value if isinstance(value, list) else [value]
        parts += [text for text in map(to_text, elements) if isinstance(text, str) and text]
    if sum(map(len, parts)) + len(parts) * len(between) > _LONGEST:
        return MISSING
    return between.join(parts) if parts else MISSING


def pattern_error(pattern: Constant) -> str | None:
    """Says what is wrong with a pattern, or None."""
    if not isinstance(pattern, str) or not pattern:
        return "a pattern is text in RE2 syntax, and not empty"
    try:
        compiled(pattern)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        return (
            f"{pattern!r} is not RE2 syntax: {reason.decode(errors='replace') if isinstance(reason, bytes) else reason}"
        )
    return None


def _check_pattern(arguments: Sequence[Constant]) -> str | None:
    return pattern_error(arguments[1])


@function(
    "regex.match",
    returns="bool",
    literal_args=[1],
    check=_check_pattern,
    examples=[
        example("order-1234", "[0-9]+$", gives=True),
        example("order", "[0-9]+", gives=False),
        example(None, "a", gives=MISSING),
    ],
)
def regex_match(x: Value, pattern: Value) -> bool | Missing:
    """Says whether the pattern (RE2 syntax) is found anywhere in the text."""
    text = to_text(x)
    if isinstance(text, Missing) or not isinstance(pattern, str):
        return MISSING
    return found(pattern, text)


def found(pattern: str, text: str) -> bool:
    """Says whether `pattern` is found anywhere in `text`; false for a pattern that is none."""
    try:
        return compiled(pattern).search(text) is not None
    except (re2.error, UnicodeError):
        return False


@lru_cache(maxsize=512)
def compiled(pattern: str) -> Any:
    """Gives the compiled pattern; raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    return re2.compile(pattern, options)


def _text(x: Value) -> str:
    """The text of a value, or none."""
    text = to_text(x)
    return text if isinstance(text, str) else ""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
