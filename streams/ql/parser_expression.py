"""The one expression parser of both languages: a cursor over tokens, and operator precedence over it.

A mistake inside a list (of a group, an array, the arguments of a call) is noted and the list goes on behind the
next comma or line, so that one reading finds more than the first mistake.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn, cast

from streams.ql import checker
from streams.ql.errors import Diagnostic, diagnostic
from streams.ql.lexer import tokenize
from streams.ql.limits import MAX_DEPTH, MAX_DIAGNOSTICS
from streams.ql.nodes import (
    Array,
    Between,
    Binary,
    BinaryOp,
    Call,
    Conditional,
    Exists,
    GroupOp,
    Ident,
    Include,
    IsNull,
    Literal,
    MatchAll,
    Node,
    Unary,
)
from streams.ql.tokens import CLAUSE_WORDS, INFIX_WORDS, OPERAND_WORDS, RESERVED, Token, TokenKind
from streams.ql.tree import group

# A tree of MAX_DEPTH levels, printed canonically, needs at most four frames of Python a level.
_MAX_FRAMES = 440

_OR, _AND, _NOT, _COMPARE, _ADD, _MULTIPLY, _TIGHT = 10, 20, 30, 40, 50, 60, 70
_COMPARISONS = frozenset({"=", "!=", ">", ">=", "<", "<=", "like", "contains", "in", "intersects", "between", "is"})
_NEGATABLE = frozenset({"in", "like", "contains", "intersects", "between"})
_POWER = {
    "or": _OR,
    "and": _AND,
    "not": _COMPARE,
    **dict.fromkeys(_COMPARISONS, _COMPARE),
    "+": _ADD,
    "-": _ADD,
    "*": _MULTIPLY,
    "/": _MULTIPLY,
    "%": _MULTIPLY,
}
_CONSTANTS = {"null": None, "nil": None, "true": True, "false": False}

_BARE_NAME = re.compile(r"(?:\w|@)(?:[\w.@]|-(?=[\w.@-]*[\w@]))*")
_BRACKET_NAME = re.compile(r"\[([^\[\]\n]+)\]")
_TYPE = re.compile(r"(?:\w*\s*\[\s*\w*\s*\]\s*)?\w+")


class Refused(Exception):  # noqa: N818 (it never leaves the parser: the list or statement that recovers notes it)
    """The text at `at` does not fit."""

    def __init__(self, at: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.at, self.message, self.hint = at, message, hint


class ExpressionParser:
    """A cursor over the tokens of one text. `in_filter` tells FilterQL from LQL where they differ."""

    def __init__(self, source: str, *, in_filter: bool) -> None:
        self.source = source
        self.tokens, self.skipped = tokenize(source)
        self.in_filter = in_filter
        self.extra_functions: frozenset[str] = frozenset()
        self.diagnostics: list[Diagnostic] = []
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
        if token.key == "[" and (found := _BRACKET_NAME.match(self.source, token.at)):
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
        elif found := _TYPE.match(self.source, token.at):
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

    # --- expressions ---

    def expression(self, power: int = 0) -> Node:
        """Reads an expression whose operators all bind tighter than `power`; 0 includes `x IF c ELSE y`."""
        self._frames += 2
        if self._frames > _MAX_FRAMES:
            raise TooDeep(self.token.at, "nested too deeply", f"at most {MAX_DEPTH} levels")
        left = self._prefix()
        while True:
            token = self.token
            key = token.key
            binding = _POWER.get(key, 0)
            if binding <= power or self._begins_item():
                break
            if binding == _COMPARE:
                if key == "not" and self.peek().key not in _NEGATABLE:
                    break
                left = self._comparison(left)
                if self.token.key in _COMPARISONS and not self._begins_item():
                    raise Refused(
                        self.token.at,
                        "a comparison cannot be compared again",
                        "join comparisons with AND, or put one in parentheses",
                    )
            elif binding <= _AND:
                items = [left]
                while self.token.key == key and not self._begins_item():
                    self.advance()
                    items.append(self.expression(binding))
                left = group(cast("GroupOp", key), items, left.at)
            else:
                self.advance()
                left = Binary(cast("BinaryOp", key), left, self.expression(binding), left.at)
        if power == 0 and self.token.key == "if":
            left, guard = self.conditional(left)
            if guard is not None:
                left = Conditional(left, guard, None, left.at)
        self._frames -= 2
        return left

    def conditional(self, value: Node) -> tuple[Node, Node | None]:
        """Reads the tails `IF c ELSE y` of a value; a last `IF c` without ELSE comes as the second part."""
        branches: list[tuple[Node, Node]] = []
        guard: Node | None = None
        while self.accept("if"):
            condition = self.expression(1)
            if not self.accept("else"):
                guard = condition
                break
            branches.append((value, condition))
            value = self.expression(1)
        for then, condition in reversed(branches):
            value = Conditional(then, condition, value, then.at)
        return value, guard

    def _begins_item(self) -> bool:
        """Tells whether the operator at the cursor rather begins the next item of the group around it."""
        if not self._listing:
            return False
        key = self.token.key
        if key in {"and", "or"}:
            return self.peek().key == "(" and (self.token.fresh or self._lists.get(self.index + 1, False))
        if key == "*" and self.token.fresh:
            following = self.peek()
            return following.fresh or following.key in {",", ")"}
        return False

    def _comparison(self, left: Node) -> Node:
        self._frames += 1
        negated = self.accept("not")
        key, at = self.advance().key, left.at
        result: Node
        if key == "is":
            negated = self.accept("not")
            if self.token.key not in {"null", "nil"}:
                self.unexpected(
                    "NULL behind IS" if not negated else "NULL behind IS NOT", "values are compared with = and !="
                )
            self.advance()
            result = IsNull(left, at)
        elif key == "between":
            low = self.expression(_COMPARE)
            self.expect("and", "between the two bounds of BETWEEN")
            result = Between(left, low, self.expression(_COMPARE), at)
        elif key in {"in", "intersects"}:
            result = Binary(cast("BinaryOp", key), left, self._right_of_in(key), at)
        elif self.token.key == "(" and self._lists.get(self.index):
            if key not in {"like", "contains"}:
                raise Refused(self.token.at, f"{key} compares with one value, not with a list", "use IN for a list")
            result = Binary(cast("BinaryOp", key), left, self._array(")"), at)
        else:
            result = Binary(cast("BinaryOp", key), left, self.expression(_COMPARE), at)
        self._frames -= 1
        return Unary("not", result, at) if negated else result

    def _right_of_in(self, key: str) -> Node:
        token = self.token
        if token.key in {"(", "["}:
            return self._array(")" if token.key == "(" else "]")
        right = self.expression(_COMPARE)
        if isinstance(right, Ident | Call) or (
            key == "in" and isinstance(right, Literal) and isinstance(right.value, str)
        ):
            return right
        raise Refused(
            token.at,
            f"expected a list behind {key.upper()}",
            f'write {key.upper()} ("a", "b"), or the name of a list field, or a function that gives a list',
        )

    def _prefix(self) -> Node:
        token = self.token
        kind, key, at = token.kind, token.key, token.at
        # NOT, EXISTS and parentheses are read here, not in functions of their own: they nest, and frames are few.
        if key == "not":
            self.advance()
            return Unary("not", self.expression(_NOT), at)
        if key == "exists" and (self.in_filter or self.peek().key != "("):
            self.advance()
            return Exists(self.expression(_TIGHT), at)
        if kind is TokenKind.WORD:
            if self.peek().key == "(" and not self.peek().fresh and key not in {"and", "or", "include"}:
                return self._call()
            if key in OPERAND_WORDS:
                return self._operand_word()
            if key in INFIX_WORDS or self._is_keyword_here():
                self.unexpected("a value", _operand_hint(key))
            return self.identifier()
        if kind is TokenKind.STRING or kind is TokenKind.NUMBER:
            self.advance()
            return Literal(token.value, at)
        if kind is TokenKind.QUOTED:
            return self.identifier()
        if key == "(":
            listing, self._listing = self._listing, False
            self._open_parenthesis()
            inner = self.expression()
            self._close_parenthesis(token)
            self._listing = listing
            return inner
        if key == "[":
            if (found := _BRACKET_NAME.match(self.source, at)) and self.source[found.end() : found.end() + 1] == ".":
                return self.identifier()
            return self._array("]")
        if key == "-":
            self.advance()
            if self.token.kind is TokenKind.NUMBER:
                number = self.advance().value
                assert not isinstance(number, str)  # noqa: S101 (the lexer's promise)
                return Literal(-number, at)
            return Unary("-", self.expression(_TIGHT), at)
        if key == "*":
            self.advance()
            return MatchAll(at)
        return self.unexpected("a value")

    def _operand_word(self) -> Node:
        token = self.advance()
        key, at = token.key, token.at
        if key in _CONSTANTS:
            return Literal(_CONSTANTS[key], at)
        if key == "match_all":
            return MatchAll(at)
        if key == "include":
            return Include(self.name("the name of an audience behind INCLUDE"), at)
        if self.token.key != "(":
            self.unexpected(f"( behind {key.upper()}", f"{key.upper()} ( a, b ), or a {key.upper()} b")
        before = len(self.diagnostics)
        items = self.items(")", newlines=True)
        if not items:
            if len(self.diagnostics) == before:
                self.note(at, f"an empty {key.upper()} group", "give at least one condition")
            return MatchAll(at)
        return group(cast("GroupOp", key), items, at)

    def _open_parenthesis(self) -> None:
        opening = self.token
        if self._lists.get(self.index):
            raise Refused(
                opening.at,
                "a list cannot stand here",
                "a list of conditions begins with AND ( or OR (; a list of values is written [ ] or stands behind IN",
            )
        self.advance()

    def _close_parenthesis(self, opening: Token) -> None:
        if self.token.key != ")":
            self._unclosed(opening, ")")
        self.advance()

    def _array(self, closing: str) -> Array:
        at = self.token.at
        items = self.items(closing, newlines=False, commas=False)
        for item in items:
            if isinstance(item, MatchAll):
                self.note(item.at, "* is a condition and cannot stand in a list of values")
        return Array(tuple(items), at)

    def _call(self) -> Node:
        token = self.advance()
        if token.key == "cast":
            return self._cast(token.at)
        before = len(self.diagnostics)
        arguments = self.items(")", newlines=False)
        call = Call(token.key, tuple(arguments), token.at)
        if len(self.diagnostics) == before and token.key not in self.extra_functions:
            for problem in checker.call_problems(call):
                self.note(*problem)
        return call

    def _cast(self, at: int) -> Call:
        opening = self.token
        self.advance()
        listing, self._listing = self._listing, False
        value = self.expression()
        self._listing = listing
        if not self.accept("as") and not self.accept(","):
            self.unexpected("AS and a type, as in cast(x AS int)")
        type_at = self.token.at
        call = Call("cast", (value, Literal(self.type_name("a type"), type_at)), at)
        self._close_parenthesis(opening)
        for problem in checker.call_problems(call):
            self.note(*problem)
        return call

    def identifier(self) -> Ident:
        """Reads a field: a bare name, or parts joined by dots of which some are in backticks, quotes or [ ]."""
        at = self.token.at
        parts: list[str] = []
        while True:
            token = self.token
            if token.key == "[" and (found := _BRACKET_NAME.match(self.source, token.at)):
                self.resume_at(found.end())
                part, end = found.group(1).strip(), found.end()
            else:
                self.advance()
                part, end = self.source[token.at : token.end], token.end
                if token.kind is TokenKind.QUOTED:
                    part = str(token.value)
            joined = self.token.at == end
            if token.kind is TokenKind.WORD and part.endswith("."):
                if not joined or (self.token.kind is not TokenKind.QUOTED and self.token.key != "["):
                    raise Refused(token.at, f"the name {part} ends with a dot")
                parts.append(part.rstrip("."))
                continue
            parts.append(part)
            if not joined or self.token.key != "." or self.peek().at != end + 1:
                break
            self.advance()
            if self.token.kind not in {TokenKind.WORD, TokenKind.QUOTED, TokenKind.NUMBER} and self.token.key != "[":
                self.unexpected("a name behind the dot")
        if len(parts) == 1 and token.kind is TokenKind.WORD and not re.search(r"[^\W\d]", part):
            raise Refused(at, f"{part} is neither a number nor a name", "text is written in double quotes")
        return Ident(tuple(parts), at)

    # --- lists ---

    def items(self, closing: str, *, newlines: bool, commas: bool = True) -> list[Node]:
        """Reads what stands between the bracket at the cursor and `closing`, separated by commas.

        With `newlines` a new line separates too; without `commas` nothing needs to. A trailing comma is allowed.
        """
        opening = self.advance()
        listing, self._listing = self._listing, newlines
        frames = self._frames = self._frames + 2
        found: list[Node] = []
        while self.token.key != closing:
            if self.token.kind is TokenKind.END or self.token.key == ";":
                self._unclosed(opening, closing)
            try:
                found.append(self.expression())
                if self.token.key != closing and not self.accept(","):
                    if self.token.kind is TokenKind.END or self.token.key == ";" or self._is_clause_here():
                        self._unclosed(opening, closing)
                    if commas and not (newlines and (self.token.fresh or self._begins_item())):
                        self.unexpected(
                            f"a comma or {closing}" if not newlines else f"a comma, a new line or {closing}"
                        )
            except Refused as refused:
                if isinstance(refused, Unclosed | TooDeep):
                    raise
                self.note(refused.at, refused.message, refused.hint)
                self._frames, self._listing = frames, newlines
                self._skip_item(newlines=newlines)
        self.advance()
        self._frames, self._listing = frames - 2, listing
        return found

    def _unclosed(self, opening: Token, closing: str) -> NoReturn:
        if self.token.kind is TokenKind.END or self.token.key == ";" or self._is_clause_here():
            raise Unclosed(opening.at, f"this {opening.key} is never closed", f"add {closing}")
        self.unexpected(closing)

    def _skip_item(self, *, newlines: bool) -> None:
        """Goes on behind the next comma (or at the next line) of the list, or at its end."""
        depth = 0
        start = self.index
        while self.token.kind is not TokenKind.END and self.token.key != ";":
            key = self.token.key
            if depth == 0:
                if key in {")", "]"}:
                    return
                if newlines and self.token.fresh and self.index > start and not _continues(self.token):
                    return
                if key == ",":
                    self.advance()
                    return
            depth += (key in {"(", "["}) - (key in {")", "]"})
            self.advance()


class TooDeep(Refused):
    """Nesting beyond the limit: said once, not at every level on the way out."""


class Unclosed(Refused):
    """A bracket that is never closed: whatever follows was read inside it, so nothing more is worth saying."""


def parse_ident(text: str) -> Ident | None:
    """Reads a whole text as a field, or gives None when it is something else."""
    parser = ExpressionParser(text, in_filter=True)
    try:
        node = parser.expression()
    except Refused:
        return None
    return node if parser.token.kind is TokenKind.END and isinstance(node, Ident) else None


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
            return following.key not in _NEGATABLE
        return token.key not in INFIX_WORDS
    return token.kind not in {TokenKind.SYMBOL, TokenKind.END}


def _continues(token: Token) -> bool:
    return token.key in INFIX_WORDS and token.key not in {"and", "or", "not"}


def _shown(key: str) -> str:
    return key.upper() if key.isalpha() else key


def _operand_hint(key: str) -> str:
    return f"a field named {key} is written in backticks: `{key}`" if key in RESERVED else ""
