"""The words of both languages: kinds of tokens, and the words that mean something."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class TokenKind(Enum):
    """What a piece of text is, before any grammar."""

    WORD = auto()  # a bare name or keyword
    QUOTED = auto()  # a name in backticks or single quotes
    STRING = auto()
    NUMBER = auto()
    SYMBOL = auto()
    BAD = auto()  # something that no statement can contain; `value` says what is wrong
    END = auto()


class Token(NamedTuple):
    """One token. `key` is what the grammar compares: a word in lower case, a symbol as it is, else empty."""

    kind: TokenKind
    key: str
    value: str | int | float  # cooked: the text of a string or name, the number
    at: int
    end: int
    fresh: bool  # first on its line: separates the items of a group


# Words that stand for an operator or a constant wherever an operand may begin.
OPERAND_WORDS = frozenset({"and", "or", "not", "exists", "include", "null", "nil", "true", "false", "match_all"})

# Words that go on with an operand that came before.
INFIX_WORDS = frozenset(
    {"and", "or", "not", "in", "like", "contains", "intersects", "between", "is", "if", "else", "as"}
)

# Operators that NOT may stand before.
NEGATABLE = frozenset({"in", "like", "contains", "intersects", "between"})

# Words that begin a clause or a column's property.
CLAUSE_WORDS = frozenset({"select", "filter", "from", "where", "limit", "with", "alias", "into", "by"})
PROPERTY_WORDS = frozenset({"kind", "mergeop", "shortdesc", "longdesc", "capacity", "keep_days"})

# What the printer writes in backticks although it looks like a bare name.
RESERVED = OPERAND_WORDS | INFIX_WORDS | CLAUSE_WORDS | PROPERTY_WORDS
