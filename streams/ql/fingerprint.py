"""An id that statements share when they differ only in their constants."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from streams.ql.nodes import Call, Column, Filter, Literal, Node
from streams.ql.printer import print_filter
from streams.ql.tree import rebuilt

_ANY = Literal("?")


def fingerprint(statement: Filter) -> str:
    """Gives 16 hex digits that are equal for filters equal up to constants, as `visit_ct > 74` and `visit_ct > 101`.

    Names, the alias among them, and the lengths of lists count; LIMIT's number and the values of options do not.
    """
    shape = replace(
        statement,
        where=_without_constants(statement.where),
        columns=tuple(_column(column) for column in statement.columns),
        limit=None if statement.limit is None else 0,
        options=tuple((name, "?") for name, _ in statement.options),
    )
    return sha256(print_filter(shape).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _column(column: Column) -> Column:
    guard = None if column.guard is None else _without_constants(column.guard)
    return replace(column, expr=_without_constants(column.expr), guard=guard)


def _without_constants(node: Node) -> Node:
    if isinstance(node, Literal):
        return _ANY
    if isinstance(node, Call) and node.name == "cast" and len(node.args) == 2:
        # The type of a cast is no constant of the user's.
        return replace(node, args=(_without_constants(node.args[0]), node.args[1]))
    return rebuilt(node, _without_constants)
