"""The two statement heads, FilterQL and LQL, over the one expression parser; the entry to the language."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from streams.ql.checker import CHANGE_FUNCTIONS
from streams.ql.errors import Diagnostic, QueryError, Remains, diagnostic
from streams.ql.limits import MAX_BYTES, MAX_DEPTH, MAX_NODES
from streams.ql.nodes import Column, Filter, Literal, MatchAll, Node, OptionValue, Query
from streams.ql.parser_cursor import Refused
from streams.ql.parser_expression import ExpressionParser
from streams.ql.printer import print_node
from streams.ql.tokens import CLAUSE_WORDS, PROPERTY_WORDS, TokenKind
from streams.ql.tree import children, default_name

_S = TypeVar("_S", Filter, Query)
_FILTER_CLAUSES = ("from", "limit", "with", "alias")


def parse_filter(text: str) -> Filter:
    """Reads one FilterQL statement. Raises QueryError with all that is wrong with it."""
    return _only(text, parse_filters(text), "a filter, which begins with FILTER")


def parse_filters(text: str) -> list[Filter]:
    """Reads FilterQL statements separated by `;`. Raises QueryError with all that is wrong with them."""
    parser = _open(text, in_filter=True)
    return _parse(parser, lambda: _statements(parser, parser.filter_statement))


def parse_query(text: str) -> Query:
    """Reads one LQL statement. Raises QueryError with all that is wrong with it."""
    return _only(text, parse_queries(text), "a query, which begins with SELECT")


def parse_queries(text: str) -> list[Query]:
    """Reads LQL statements separated by `;`. Raises QueryError with all that is wrong with them."""
    parser = _open(text, in_filter=False)
    return _parse(parser, lambda: _statements(parser, parser.query_statement))


def parse_expression(text: str) -> Node:
    """Reads one expression, as it stands in an LQL column or a routing rule. Raises QueryError."""
    parser = _open(text, in_filter=False)

    def whole() -> Node:
        node = parser.expression()
        if parser.token.kind is not TokenKind.END:
            parser.unexpected("an operator or the end")
        parser.limit(node)
        return node

    return _parse(parser, whole)


_R = TypeVar("_R")


def _open(text: str, *, in_filter: bool) -> _StatementParser:
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise QueryError([Diagnostic(f"the text is longer than {MAX_BYTES} bytes", 1, 1)])
    return _StatementParser(text, in_filter=in_filter)


def _parse(parser: _StatementParser, read: Callable[[], _R]) -> _R:
    result: _R | None = None
    try:
        result = read()
    except Refused as refused:
        parser.note(refused.at, refused.message, refused.hint)
    except RecursionError:
        # The parser counts its frames, but cannot know how deep its caller already was.
        parser.note(parser.token.at, "nested too deeply")
    if parser.diagnostics:
        remains = Remains(
            tuple(result) if isinstance(result, list) else (), frozenset(parser.broken_calls), parser.lost_columns
        )
        raise QueryError(sorted(parser.diagnostics, key=lambda each: (each.line, each.column)), remains)
    return cast("_R", result)


def _statements(parser: _StatementParser, read: Callable[[], _S]) -> list[_S]:
    found: list[_S] = []
    while True:
        while parser.accept(";"):
            pass
        if parser.token.kind is TokenKind.END:
            return found
        try:
            found.append(read())
            if not parser.at_end():
                parser.unexpected_clause()
        except Refused as refused:
            parser.note(refused.at, refused.message, refused.hint)
            parser.skip_statement()


def _only(text: str, statements: list[_S], what: str) -> _S:
    if len(statements) == 1:
        return statements[0]
    problem = (
        f"expected {what}, found nothing" if not statements else f"expected one statement, found {len(statements)}"
    )
    raise QueryError([diagnostic(text, 0, problem)])


class _StatementParser(ExpressionParser):
    # --- FilterQL ---

    def filter_statement(self) -> Filter:
        description = self._description()
        if self.token.key == "select":
            return self._filter_select(description)
        if not self.accept("filter"):
            self.unexpected("FILTER or SELECT", "a filter is written as FILTER <condition>")
        where = self._condition("FILTER")
        return self._filter_clauses(Filter(where, description=description), _FILTER_CLAUSES)

    def _filter_select(self, description: str) -> Filter:
        self.advance()
        columns = self._columns()
        self.expect("from", "behind the columns")
        table = self.name("the name of a table")
        if table.lower().endswith(".changes"):
            # The form of an internal subscription: who entered or left an audience.
            self.extra_functions = CHANGE_FUNCTIONS
        if self.token.key not in {"where", "filter"}:
            self.unexpected("WHERE or FILTER and a condition")
        word = self.advance().key
        where = self._condition(word.upper())
        self.extra_functions = frozenset()
        statement = Filter(where, table, description=description, columns=columns)
        return self._filter_clauses(statement, _FILTER_CLAUSES[1:])

    def _condition(self, word: str) -> Node:
        if self.at_end():
            self.unexpected(f"a condition behind {word}", "* matches everybody")
        node = self.expression()
        self.limit(node)
        return node

    def _filter_clauses(self, statement: Filter, clauses: tuple[str, ...]) -> Filter:
        left = list(clauses)
        while self.token.key in _FILTER_CLAUSES:
            token = self.token
            if token.key not in left:
                order = " … ".join(clause.upper() for clause in _FILTER_CLAUSES)
                raise Refused(token.at, f"{token.key.upper()} cannot stand here", f"the order is {order}, each once")
            del left[: left.index(token.key) + 1]
            self.advance()
            if token.key == "from":
                statement = replace(statement, table=self.name("the name of a table"))
            elif token.key == "limit":
                statement = replace(statement, limit=self._count("LIMIT"))
            elif token.key == "with":
                statement = replace(statement, options=self._options())
            else:
                statement = replace(statement, alias=self.name("a name behind ALIAS").lower())
        return statement

    # --- LQL ---

    def query_statement(self) -> Query:
        description = self._description()
        start = self.token.at
        if not self.accept("select"):
            self.unexpected("SELECT", "a query is written as SELECT … FROM … INTO … BY … ALIAS …")
        columns = self._columns()
        clauses: dict[str, int] = {}
        stream = table = alias = ""
        where: Node | None = None
        by: list[str] = []
        by_at: list[int] = []
        options: tuple[tuple[str, OptionValue], ...] = ()
        while self.token.key in {"from", "into", "by", "where", "with", "alias"}:
            token = self.advance()
            if token.key in clauses:
                self.note(token.at, f"{token.key.upper()} stands here a second time")
            clauses[token.key] = token.at
            if token.key == "from":
                stream = self.name("the name of a stream")
            elif token.key == "into":
                table = self.name("the name of a table")
            elif token.key == "alias":
                alias = self.name("a name behind ALIAS")
            elif token.key == "where":
                where = self._condition("WHERE")
            elif token.key == "with":
                options = self._options()
            else:
                while True:
                    by_at.append(self.token.at)
                    by.append(self.name("the name of an identity column"))
                    if self.token.key == ",":
                        self.unexpected("OR between identity columns", "write BY a OR b")
                    if not self.accept("or"):
                        break
        if not self.at_end():
            self.unexpected_clause()
        missing = [clause.upper() for clause in ("from", "into", "by", "alias") if clause not in clauses]
        if missing and (clauses or not self.diagnostics):
            at = self.token.at if self.token.kind is not TokenKind.END else start
            self.note(
                at, f"the query lacks {' and '.join(missing)}", "SELECT … FROM stream INTO user BY field ALIAS name"
            )
        return Query(columns, stream, table, tuple(by), alias, where, options, description, tuple(by_at))

    # --- columns ---

    def _columns(self) -> tuple[Column, ...]:
        columns: list[Column] = []
        while True:
            if columns and self._is_clause_here() and not (self.token.key == "filter" and self.peek().key == "("):
                break  # a trailing comma; the function filter() is a column, as no FILTER follows columns at once
            try:
                columns.append(self._column())
                if self.accept(","):
                    continue
                if self.token.key == "from" or self.at_end():
                    break
                if self._is_clause_here():
                    self.unexpected("a comma or FROM")
                self.unexpected("a comma or FROM", "columns are separated by commas" if self.token.fresh else "")
            except Refused as refused:
                self.note(refused.at, refused.message, refused.hint)
                self.lost_columns = True
                self._frames, self._listing = 0, False
                if not self._skip_column():
                    break
        return tuple(columns)

    def _skip_column(self) -> bool:
        """Goes on at the next column; tells whether there is one."""
        depth = 0
        while not self.at_end():
            key = self.token.key
            if key == "from" and self._is_clause_here():
                return False
            if key == "," and depth <= 0:
                self.advance()
                return True
            depth += (key in {"(", "["}) - (key in {")", "]"})
            self.advance()
        return False

    def _column(self) -> Column:
        at = self.token.at
        value, guard = self.conditional(self.expression(1))
        if isinstance(value, MatchAll) and not self.in_filter:
            raise Refused(at, "a query names its columns", "* is for filters")
        self.limit(value)
        name: str | None = None
        properties: dict[str, str | int] = {}
        while True:
            key, place = self.token.key, self.token.at
            if key == "as":
                self.advance()
                if name is not None:
                    raise Refused(place, "AS stands here a second time")
                name = self.name("a name behind AS")
            elif key == "if":
                if guard is not None:
                    raise Refused(place, "IF stands here a second time", "join the conditions with AND")
                self.advance()
                guard = self.expression(1)
                if self.token.key == "else":
                    self.unexpected("the end of the column", "x IF c ELSE y stands before AS")
            elif key in PROPERTY_WORDS:
                self.advance()
                if key in properties:
                    raise Refused(place, f"{key.upper()} stands here a second time")
                properties[key] = self._property(key)
            else:
                break
        if guard is not None:
            self.limit(guard)
        if name is None:
            name = default_name(value)
            if name is None:
                if not self.in_filter:
                    raise Refused(at, "this column needs a name", "write AS name behind it")
                name = print_node(value)
        return Column(
            value,
            name,
            guard,
            cast("str | None", properties.get("kind")),
            cast("str | None", properties.get("mergeop")),
            cast("str | None", properties.get("shortdesc")),
            cast("str | None", properties.get("longdesc")),
            cast("int | None", properties.get("capacity")),
            cast("int | None", properties.get("keep_days")),
            at,
        )

    def _property(self, key: str) -> str | int:
        if key in {"capacity", "keep_days"}:
            return self._count(key.upper())
        if key == "kind":
            return self.type_name("a kind behind KIND")
        if key == "mergeop":
            return self.name("a merge operator").lower()
        if self.token.kind not in {TokenKind.STRING, TokenKind.QUOTED}:
            self.unexpected(f"a text in double quotes behind {key.upper()}")
        return str(self.advance().value)

    # --- parts of both ---

    def _count(self, word: str) -> int:
        value = self.token.value
        if self.token.kind is not TokenKind.NUMBER or not isinstance(value, int):
            self.unexpected(f"a whole number behind {word}")
        self.advance()
        return value

    def _options(self) -> tuple[tuple[str, OptionValue], ...]:
        if self.token.key == "{":
            return self._json_options()
        found: list[tuple[str, OptionValue]] = []
        while True:
            name = self.name("the name of an option")
            if not self.accept("=") and not self.accept(":"):
                self.unexpected("= and a value")
            found.append((name, self._option_value()))
            if not self.accept(",") or self._is_clause_here() or self.token.kind is TokenKind.END:
                return tuple(found)

    def _option_value(self) -> OptionValue:
        token = self.token
        if token.key == "[":
            values = []
            for item in self.items("]", newlines=False):
                if not isinstance(item, Literal) or item.value is None:
                    raise Refused(item.at, "an option is a constant or a list of constants")
                values.append(item.value)
            return tuple(values)
        if token.kind is TokenKind.WORD and token.key not in {"true", "false"}:
            return self.name("a value")
        value = self._prefix()
        if not isinstance(value, Literal) or value.value is None:
            raise Refused(token.at, "an option is a constant or a list of constants")
        return value.value

    def _json_options(self) -> tuple[tuple[str, OptionValue], ...]:
        at = self.token.at
        try:
            value, end = json.JSONDecoder(parse_constant=_no_constant).raw_decode(self.source, at)
        except json.JSONDecodeError as error:
            raise Refused(error.pos, f"this is not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise Refused(at, "this is not JSON that can be read") from error
        self.resume_at(end)
        found: list[tuple[str, OptionValue]] = []
        pending: list[tuple[str, object]] = list(value.items())
        while pending:
            name, each = pending.pop(0)
            if isinstance(each, dict):
                pending[:0] = [(f"{name}.{key}", inner) for key, inner in each.items()]
            elif isinstance(each, list):
                if not all(isinstance(item, str | int | float) for item in each):
                    raise Refused(at, f"the option {name} is a list of something else than constants")
                found.append((name, tuple(each)))
            elif isinstance(each, str | int | float):
                found.append((name, each))
        return tuple(found)

    def _description(self) -> str:
        """Gives the text of the comments before the statement at the cursor."""
        end = self.token.at
        start = self.tokens[self.index - 1].end if self.index else 0
        text = "".join(self.source[a:b] for a, b in self.skipped if start <= a and b <= end)
        return "\n".join(line for each in _COMMENT.finditer(text) for line in _comment_lines(each.group()))

    def unexpected_clause(self) -> None:
        """Refuses what stands behind a whole statement."""
        if self.token.key in CLAUSE_WORDS:
            self.unexpected("the end of the statement", "statements are separated by ;")
        self.unexpected("an operator, a clause or the end", "join conditions with AND, or write them as AND ( a, b )")

    def skip_statement(self) -> None:
        """Goes on at the next `;` or the end."""
        self._frames, self._listing = 0, False
        while not self.at_end():
            self.advance()

    def limit(self, root: Node) -> None:
        """Refuses a tree that is too deep or too large for what comes after the parser."""
        count = 0
        level, depth = [root], 0
        while level:
            depth += 1
            count += len(level)
            if depth > MAX_DEPTH:
                raise Refused(level[0].at, "nested too deeply", f"at most {MAX_DEPTH} levels")
            if count > MAX_NODES:
                raise Refused(root.at, f"more than {MAX_NODES} parts in one expression")
            level = [child for node in level for child in children(node)]


_COMMENT = re.compile(r"--[^\n]*|//[^\n]*|\#[^\n]*|/\*.*?\*/", re.DOTALL)


def _comment_lines(comment: str) -> list[str]:
    if comment.startswith("/*"):
        lines = [line.strip().removeprefix("*").strip() for line in comment[2:-2].splitlines()]
    else:
        lines = [comment.lstrip("-/#").strip()]
    return [line for line in lines if line]


def _no_constant(name: str) -> None:
    raise ValueError(name)
