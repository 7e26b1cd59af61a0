"""A cursor over the tokens of one text: stepping, names, and what is said when something does not fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NoReturn

from streams.ql.errors import Diagnostic, diagnostic
from streams.ql.lexer import tokenize
from streams.ql.limits import MAX_DIAGNOSTICS
from streams.ql.tokens import CLAUSE_WORDS, INFIX_WORDS, NEGATABLE, OPERAND_WORDS, RESERVED, Token, TokenKind

BRACKET_NAME: Final = re.compile(r"\[([^\[\]\n]+)\]")
_BARE_NAME: Final = re.compile(r"(?:\w|@)(?:[\w.@]|-(?=[\w.@]))*+")
_TYPE: Final = re.compile(r"(?:\w*\s*\[\s*\w*\s*\]\s*)?\w+")


class Refused(Exception):  # noqa: N818 (it never leaves the parser: the list or statement that recovers notes it)
    """The text at `at` does not fit."""

    def __init__(self, at: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.at, self.message, self.hint = at, message, hint


class TooDeep(Refused):
    """Nesting beyond the limit: said once, not at every level on the way out."""


class Unclosed(Refused):
    """A bracket that is never closed: whatever follows was read inside it, so nothing more is worth saying."""


class Cursor:
    """A cursor over the tokens of one text. `in_filter` tells FilterQL from LQL where they differ."""

    def __init__(self, source: str, *, in_filter: bool) -> None:
        self.source = source
        self.tokens, self.skipped = tokenize(source)
        self.in_filter = in_filter
        self.extra_functions: frozenset[str] = frozenset()
        self.diagnostics: list[Diagnostic] = []
        self.broken_calls: set[int] = set()  # where arguments were left out
        self.lost_columns = False
        self.index = 0
        self.token = self.tokens[0]
        self._frames = 0
        self._listing = False  # directly inside a group: a new line may begin a new item
        self._lists = _parentheses_with_lists(self.tokens)

    # --- the cursor ---

    def advance(self) -> Token:
        """Steps over the current token and gives it."""
        token = self.token
        if token.kind is not TokenKind.END:
            self.index += 1
            self.token = self.tokens[self.index]
        return token

    def peek(self) -> Token:
        """Gives the token behind the current one."""
        return self.tokens[min(self.index + 1, len(self.tokens) - 1)]

    def at_end(self) -> bool:
        """Tells whether the statement ends here."""
        return self.token.kind is TokenKind.END or self.token.key == ";"

    def accept(self, key: str) -> bool:
        """Steps over the current token if it is `key`."""
        if self.token.key != key:
            return False
        self.advance()
        return True

    def expect(self, key: str, purpose: str) -> Token:
        """Steps over `key`, or refuses what stands in its place."""
        if self.token.key != key:
            self.unexpected(f"{_shown(key)} {purpose}")
        return self.advance()

    def unexpected(self, expected: str, hint: str = "") -> NoReturn:
        """Refuses the current token."""
        if self.token.kind is TokenKind.BAD:
            raise Refused(self.token.at, str(self.token.value), f"expected: {expected}")
        raise Refused(self.token.at, f"expected {expected}, found {self.found()}", hint)

    def found(self) -> str:
        """Names the current token for a message."""
        if self.token.kind is TokenKind.END:
            return "the end of the text"
        text = self.source[self.token.at : self.token.end]
        return text if len(text) <= 40 else text[:37] + "…"

    def note(self, at: int, message: str, hint: str = "") -> None:
        """Keeps an error and goes on."""
        if len(self.diagnostics) < MAX_DIAGNOSTICS:
            self.diagnostics.append(diagnostic(self.source, at, message, hint=hint))

    # --- names ---

    def name(self, what: str) -> str:
        """Reads a name: bare, in backticks, single or double quotes, or in [ ]."""
        token = self.token
        if token.kind in {TokenKind.QUOTED, TokenKind.STRING}:
            self.advance()
            if not token.value:
                raise Refused(token.at, f"{what} is empty")
            return str(token.value)
        if token.key == "[" and (found := BRACKET_NAME.match(self.source, token.at)):
            self.resume_at(found.end())
            return found.group(1).strip()
        if token.kind not in {TokenKind.WORD, TokenKind.NUMBER} or self._is_keyword_here():
            hint = "a name that is also a keyword is written in backticks" if token.key in RESERVED else ""
            self.unexpected(what, hint)
        # Read from the text: a hex id may look like a number, and `2024-spring` like a subtraction.
        found = _BARE_NAME.match(self.source, token.at)
        assert found is not None  # noqa: S101 (words and numbers begin like a name)
        self.resume_at(found.end())
        return found.group()

    def type_name(self, what: str) -> str:
        """Reads a kind: `int`, `[]string`, `map[string]int`, bare or in quotes; lower-cased, without spaces."""
        token = self.token
        if token.kind in {TokenKind.STRING, TokenKind.QUOTED}:
            self.advance()
            text = str(token.value)
        elif not self._is_clause_here() and (found := _TYPE.match(self.source, token.at)):
            self.resume_at(found.end())
            text = found.group()
        else:
            self.unexpected(what)
        return re.sub(r"\s+", "", text).lower()

    def resume_at(self, at: int) -> None:
        """Goes on with the first token at or behind the offset `at`; refuses one that straddles it."""
        while self.token.at < at and self.token.kind is not TokenKind.END:
            if self.token.end > at:
                self.unexpected("a plain name", "unusual names are written in backticks")
            self.advance()

    def _is_keyword_here(self) -> bool:
        # A word of the grammar is a plain name where nothing that the grammar wants could follow it.
        key = self.token.key
        if key not in CLAUSE_WORDS and key not in INFIX_WORDS and key not in OPERAND_WORDS:
            return False
        if key in CLAUSE_WORDS:
            return self._is_clause_here()
        return True

    def _is_clause_here(self) -> bool:
        if self.token.key not in CLAUSE_WORDS:
            return False
        following = self.peek()
        if following.kind is TokenKind.SYMBOL:
            return following.key in {"[", "(", "*", "{"}
        return following.kind is not TokenKind.END and following.key not in INFIX_WORDS


def _parentheses_with_lists(tokens: Sequence[Token]) -> dict[int, bool]:
    """Tells for each opening parenthesis (by token index) whether it holds a list: a comma, or several lines of items.

    Known before parsing, so that `a AND (b OR c)` and `AND (b, c)` inside a group are told apart without trying both.
    """
    lists: dict[int, bool] = {}
    stack: list[int] = []
    previous = tokens[0]
    for index, token in enumerate(tokens):
        key = token.key
        if stack:
            parent = tokens[stack[-1]]
            if parent.key == "(" and (
                key == "," or (token.fresh and _ends_operand(previous) and _begins_operand(token, tokens, index))
            ):
                lists[stack[-1]] = True
        if key in {"(", "["}:
            stack.append(index)
        elif key in {")", "]"} and stack:
            stack.pop()
        previous = token
    return lists


def _ends_operand(token: Token) -> bool:
    if token.kind is TokenKind.WORD:
        return token.key not in INFIX_WORDS and token.key not in {"exists", "include"}
    return token.kind is not TokenKind.SYMBOL or token.key in {")", "]"}


def _begins_operand(token: Token, tokens: Sequence[Token], index: int) -> bool:
    if token.kind is TokenKind.WORD:
        following = tokens[min(index + 1, len(tokens) - 1)]
        if token.key == "not":
            return following.key not in NEGATABLE
        return token.key not in INFIX_WORDS
    return token.kind not in {TokenKind.SYMBOL, TokenKind.END}


def _shown(key: str) -> str:
    return key.upper() if key.isalpha() else key
