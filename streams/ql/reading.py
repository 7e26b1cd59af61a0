"""Texts as they come from users: all that is wrong with them at once, whether the parser finds it or the checker."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from streams.ql.checker import check_filter, check_query
from streams.ql.errors import Diagnostic, QueryError, Remains
from streams.ql.limits import MAX_DIAGNOSTICS
from streams.ql.nodes import Filter, Query
from streams.ql.parser import parse_filter, parse_filters, parse_queries, parse_query


def read_queries(text: str) -> tuple[list[Query], list[Diagnostic]]:
    """Reads LQL statements separated by `;`: gives them, and what is wrong or doubtful in the order of the text.

    Where there are errors, the statements are what could be read of them. Never raises.
    """
    found: list[Diagnostic] = []
    remains = Remains()
    try:
        statements = parse_queries(text)
    except QueryError as error:
        found, remains = list(error.diagnostics), error.remains
        statements = list(remains.statements)
    for each in statements:
        found += check_query(each, text, remains=remains)
    return statements, _ordered(found)


def read_filters(
    text: str, *, kinds: Mapping[str, str] | None, audiences: Collection[str] | None
) -> tuple[list[Filter], list[Diagnostic]]:
    """Reads FilterQL statements separated by `;`, as `read_queries`; `kinds` and `audiences` see `check_filter`."""
    found: list[Diagnostic] = []
    remains = Remains()
    try:
        statements = parse_filters(text)
    except QueryError as error:
        found, remains = list(error.diagnostics), error.remains
        statements = list(remains.statements)
    for each in statements:
        found += check_filter(each, text, kinds=kinds, audiences=audiences, remains=remains)
    return statements, _ordered(found)


def accepted_query(text: str) -> Query:
    """Gives the tree of one query; raises QueryError with everything against it by itself."""
    statements, found = read_queries(text)
    _raise(found)
    return statements[0] if len(statements) == 1 else parse_query(text)


def accepted_filter(text: str, *, kinds: Mapping[str, str] | None, audiences: Collection[str] | None) -> Filter:
    """Gives the tree of one filter; raises QueryError with everything against it."""
    statements, found = read_filters(text, kinds=kinds, audiences=audiences)
    _raise(found)
    return statements[0] if len(statements) == 1 else parse_filter(text)


def _raise(found: Sequence[Diagnostic]) -> None:
    errors = [each for each in found if each.severity == "error"]
    if errors:
        raise QueryError(errors)


def _ordered(found: Sequence[Diagnostic]) -> list[Diagnostic]:
    """In the order of the text, each once: parser and checker both look at calls."""
    unique = {(each.line, each.column, each.message): each for each in found}
    return [unique[key] for key in sorted(unique)][:MAX_DIAGNOSTICS]
