"""The one expression parser of both languages: a cursor over tokens, and operator precedence over it.

A mistake inside a list (of a group, an array, the arguments of a call) is noted and the list goes on behind the
next comma or line, so that one reading finds more than the first mistake.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import NoReturn, cast

from streams.ql import checker
from streams.ql.limits import MAX_DEPTH, MAX_DIAGNOSTICS, MAX_LIST_VALUES, MAX_NAME_PARTS
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
from streams.ql.parser_cursor import BRACKET_NAME, Cursor, Refused, TooDeep, Unclosed
from streams.ql.tokens import INFIX_WORDS, NEGATABLE, OPERAND_WORDS, RESERVED, Token, TokenKind
from streams.ql.tree import group

# A tree of MAX_DEPTH levels, printed canonically, needs at most four frames of Python a level.
_MAX_FRAMES = 440

_OR, _AND, _NOT, _COMPARE, _ADD, _MULTIPLY, _TIGHT = 10, 20, 30, 40, 50, 60, 70
_COMPARISONS = frozenset({"=", "!=", ">", ">=", "<", "<=", "like", "contains", "in", "intersects", "between", "is"})
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
#: The least whole number of 64 bits, without its minus.
_LEAST_INT = "9223372036854775808"
_CONSTANTS = {"null": None, "nil": None, "true": True, "false": False}


class ExpressionParser(Cursor):
    """Reads expressions at the cursor."""

    def expression(self, power: int = 0) -> Node:
        """Reads an expression whose operators all bind tighter than `power`; 0 includes `x IF c ELSE y`."""
        self._frames += 2
        if self._frames > _MAX_FRAMES:
            raise TooDeep(self.token.at, "nested too deeply", f"at most {MAX_DEPTH} levels")
        left = self._prefix()
        self._frames -= 1
        while True:
            token = self.token
            key = token.key
            binding = _POWER.get(key, 0)
            if binding <= power or self._begins_item():
                break
            if binding == _COMPARE:
                if key == "not" and self.peek().key not in NEGATABLE:
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
        self._frames -= 1
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
            if self._begins_path():
                return self.identifier()
            return self._array("]")
        if key == "-":
            self.advance()
            if self.token.kind is TokenKind.NUMBER:
                token = self.advance()
                number = token.value
                assert not isinstance(number, str)  # noqa: S101 (the lexer's promise)
                if self.source[token.at : token.end] == _LEAST_INT:  # its digits alone are beyond 64 bits
                    number = int(_LEAST_INT)
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
        if sum(not isinstance(item, Literal) for item in items) > MAX_LIST_VALUES:
            raise Refused(at, f"a list of more than {MAX_LIST_VALUES:,} values that are no constants")
        return Array(tuple(items), at)

    def _call(self) -> Node:
        token = self.advance()
        if token.key == "cast":
            return self._cast(token.at)
        before = len(self.diagnostics)
        arguments = self.items(")", newlines=False)
        call = Call(token.key, tuple(arguments), token.at)
        full = len(self.diagnostics) >= MAX_DIAGNOSTICS
        if len(self.diagnostics) > before or full:
            self.broken_calls.add(token.at)
        elif token.key not in self.extra_functions:
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
            if token.key == "[" and (found := BRACKET_NAME.match(self.source, token.at)):
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
        if sum(each.count(".") + 1 for each in parts) > MAX_NAME_PARTS:
            raise Refused(at, f"a name of more than {MAX_NAME_PARTS} parts")
        return Ident(tuple(parts), at)

    def _begins_path(self) -> bool:
        """Tells whether the bracket here is that of a name, as in `[user name].x`, and not of a list.

        The bracket that closes it must be one, not a character of some quoted name within a list.
        """
        found = BRACKET_NAME.match(self.source, self.token.at)
        if found is None or self.source[found.end() : found.end() + 1] != ".":
            return False
        place = bisect_left(self.tokens, found.end() - 1, lo=self.index, key=lambda token: token.at)
        return place < len(self.tokens) and self.tokens[place].at == found.end() - 1

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
            if self.at_end():
                self._unclosed(opening, closing)
            try:
                found.append(self.expression())
                if self.token.key != closing and not self.accept(","):
                    if self.at_end() or self._is_clause_here():
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
                if self.token.key in {")", "]"} and self.token.key != closing:
                    raise Unclosed(opening.at, f"this {opening.key} is never closed", f"add {closing}") from refused
        self.advance()
        self._frames, self._listing = frames - 2, listing
        return found

    def _unclosed(self, opening: Token, closing: str) -> NoReturn:
        if self.at_end() or self._is_clause_here():
            raise Unclosed(opening.at, f"this {opening.key} is never closed", f"add {closing}")
        self.unexpected(closing)

    def _skip_item(self, *, newlines: bool) -> None:
        """Goes on behind the next comma (or at the next line) of the list, or at its end."""
        depth = 0
        start = self.index
        while not self.at_end():
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


def parse_ident(text: str) -> Ident | None:
    """Reads a whole text as a field, or gives None when it is something else."""
    parser = ExpressionParser(text, in_filter=True)
    try:
        node = parser.expression()
    except Refused:
        return None
    return node if parser.token.kind is TokenKind.END and isinstance(node, Ident) else None


def _continues(token: Token) -> bool:
    return token.key in INFIX_WORDS and token.key not in {"and", "or", "not"}


def _operand_hint(key: str) -> str:
    return f"a field named {key} is written in backticks: `{key}`" if key in RESERVED else ""
