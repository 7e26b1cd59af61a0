"""What `cohortd filter test` and `cohortd expr test` do with a line (API.md). Pure: a JSON object in, one out.

A row never raises: what is refused is the row's `error`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streams.ql.coerce import text_of_date
from streams.ql.compiler import compile_expression, compile_filter
from streams.ql.errors import QueryError
from streams.ql.kinds import Kind, kind_named
from streams.ql.lookup import parts_of
from streams.ql.missing import MISSING, Value
from streams.ql.nodes import Node
from streams.ql.parser import parse_expression, parse_filter
from streams.ql.values import kind_of, plain, typed

_LONGEST_ERROR = 2000


class RowError(ValueError):
    """A line that is not of the form that API.md gives: answered with its error."""


def filter_row(row: Any, now: datetime | None = None) -> dict[str, Any]:
    """Evaluates `{filter, profile, kinds, includes, now}` to `{match, ok, boundary, error}`.

    `now` is for lines without one of their own.
    """
    answer: dict[str, Any] = {"match": False, "ok": False, "boundary": None, "error": None}
    try:
        at = _moment(row, now)
        where = parse_filter(_text(row, "filter")).where
        profile, kinds = _typed_data(row, "profile")
        trees = _included(row)
        compiled = compile_filter(where, kinds=kinds, includes=lambda name: trees.get(name.lower()))
        answer["match"], answer["ok"] = compiled.evaluate(profile, at)
        boundary = compiled.boundary(profile, at)
    except (QueryError, RowError) as error:
        return answer | {"match": False, "ok": False, "error": str(error)[:_LONGEST_ERROR]}
    return answer | {"boundary": None if boundary is None else text_of_date(boundary)}


def expr_row(row: Any, now: datetime | None = None) -> dict[str, Any]:
    """Evaluates `{expr, data, kinds, now}` to `{value, kind, ok, error}`.

    The kind of what has no value is `nil`. `now` is for lines without one of their own.
    """
    answer: dict[str, Any] = {"value": None, "kind": "nil", "ok": False, "error": None}
    try:
        at = _moment(row, now)
        node = parse_expression(_text(row, "expr"))
        data, kinds = _typed_data(row, "data")
        value = compile_expression(node, kinds=kinds).evaluate(data, at)
    except (QueryError, RowError) as error:
        return answer | {"error": str(error)[:_LONGEST_ERROR]}
    if value is None or value is MISSING or (isinstance(value, float) and not math.isfinite(value)):
        return answer
    return answer | {"value": plain(value), "kind": kind_of(value), "ok": True}


def _text(row: Mapping[str, Any], name: str) -> str:
    text = row.get(name)
    if not isinstance(text, str):
        raise RowError(f"{name} must be text, not {_shown(text)}")
    return text


def _moment(row: Any, otherwise: datetime | None) -> datetime:
    if not isinstance(row, Mapping):
        raise RowError(f"a line must be a JSON object, not {_shown(row)}")
    given = row.get("now")
    if given is None and otherwise is not None:
        return otherwise
    moment = typed(given, Kind.DATE) if isinstance(given, str) else MISSING
    if not isinstance(moment, datetime):
        raise RowError(f"now must be RFC 3339 text like 2026-01-15T12:30:00Z, not {_shown(given)}")
    return moment


def _object(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    given = row.get(name)
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise RowError(f"{name} must be an object, not {_shown(given)}")
    return given


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{str(value)[:100]!r}"


def _included(row: Mapping[str, Any]) -> dict[str, Node]:
    """The includes' conditions by lower-cased name."""
    trees: dict[str, Node] = {}
    for name, text in _object(row, "includes").items():
        if not isinstance(text, str):
            raise RowError(f"the include {name} must be text, not {_shown(text)}")
        trees[name.lower()] = parse_filter(text).where
    return trees


def _typed_data(row: Mapping[str, Any], name: str) -> tuple[dict[str, Value], dict[str, str]]:
    """Gives the data with the values of its kinds, and the kinds of the fields that it has under those names.

    A field is found for a kind as names are found everywhere: exactly, reached into, whatever its case. A
    value that cannot be of its kind is left out.
    """
    data: dict[str, Value] = dict(_object(row, name))
    known: dict[str, str] = {}
    for field, kind in _object(row, "kinds").items():
        if not isinstance(kind, str) or kind_named(kind) is None:
            raise RowError(f"{_shown(kind)} is no kind; one of {', '.join(each.value for each in Kind)}")
        named = str(kind_named(kind))
        key = field if field in data else next((each for each in data if each.lower() == field.lower()), None)
        if key is None:
            _type_nested(data, parts_of((field,)), named)
            continue
        value = typed(data[key], named)
        if value is MISSING:
            del data[key]
        else:
            data[key] = value
            known[key] = named
    return data, known


def _type_nested(data: dict[str, Value], parts: tuple[str, ...], kind: str) -> None:
    """Makes the value that the dotted name reaches one of its kind, in copies of the maps on the way."""
    head, *rest = parts
    key = head if head in data else next((each for each in data if each.lower() == head.lower()), None)
    if key is None:
        return
    if not rest:
        value = typed(data[key], kind)
        data[key] = value
        if value is MISSING:
            del data[key]
    elif isinstance(data[key], dict):
        data[key] = dict(data[key])
        _type_nested(data[key], tuple(rest), kind)
