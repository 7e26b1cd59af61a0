"""The values of the languages, how JSON becomes them, and how they become JSON again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from streams.ql.coerce import INT_MAX, INT_MIN, text_of_date, to_bool, to_date, to_int, to_number, to_text
from streams.ql.kinds import Kind, element, is_list, is_map, kind_named
from streams.ql.missing import MISSING, Missing, Value, is_nil

__all__ = ["MISSING", "Missing", "Value", "is_nil", "kind_of", "plain", "typed"]


def typed(value: Any, kind: str) -> Value:
    """Makes a language value of `kind` out of a JSON value; MISSING when it cannot be one.

    A single value becomes a list of one where the kind is a list; elements that do not fit are left out.
    Null is MISSING. Kinds without a rule of their own (`dynamic`, `geolocation`, unknown names) keep the
    value as it is.
    """
    if value is None or value is MISSING:
        return MISSING
    read = _SCALARS.get(kind)
    if read is not None:
        return read(value)
    known = kind_named(kind)
    if known is None:
        return value
    if known in _SCALARS:
        return _SCALARS[known](value)
    inner = element(known)
    if inner is None or not (is_list(known) or is_map(known)):
        return value
    if is_map(known):
        if not isinstance(value, dict):
            return MISSING
        entries = ((str(key), typed(each, inner)) for key, each in value.items())
        return {key: each for key, each in entries if each is not MISSING}
    elements = (typed(each, inner) for each in (value if isinstance(value, list) else [value]))
    return [each for each in elements if each is not MISSING]


def plain(value: Value) -> Any:
    """Makes a JSON value: times as RFC 3339 text in UTC; MISSING, NaN and the infinities as null."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None or value is MISSING:
        return None if value is MISSING else value
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return text_of_date(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def kind_of(value: Value) -> str:
    """Gives the kind of a value by its name; `nil` for None and MISSING.

    A list or map whose members are not all of one of the listed kinds is `[]value` or `map[string]value`. An integer
    beyond 64 bits is a number.
    """
    if type(value) is int and not INT_MIN <= value <= INT_MAX:
        return Kind.NUMBER.value
    simple = _KINDS.get(type(value))
    if simple is not None:
        return simple
    if isinstance(value, datetime):
        return Kind.DATE.value
    if isinstance(value, Mapping):
        members = {kind_of(each) for each in value.values()}
        member = members.pop() if len(members) == 1 else ""
        named = {"date": "time"}.get(member, member)
        name = f"map[string]{named}"
        return name if named and kind_named(name) is not None else Kind.MAP_VALUE.value
    if isinstance(value, list | tuple):
        members = {kind_of(each) for each in value}
        return {"string": "[]string", "date": "[]time"}.get(members.pop() if len(members) == 1 else "", "[]value")
    return "nil"


def _number(value: Any) -> Value:
    return value if type(value) is float and not math.isnan(value) else to_number(value)


def _text(value: Any) -> Value:
    return value if type(value) is str else to_text(value)


_SCALARS: Final[dict[str, Callable[[Any], Value]]] = {
    Kind.INT: to_int,
    Kind.NUMBER: _number,
    Kind.BOOL: to_bool,
    Kind.DATE: to_date,
    Kind.STRING: _text,
}
_KINDS: Final[dict[type, str]] = {
    str: Kind.STRING.value,
    bool: Kind.BOOL.value,
    int: Kind.INT.value,
    float: Kind.NUMBER.value,
    type(None): "nil",
    Missing: "nil",
}
