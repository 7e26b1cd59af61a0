"""Walking a tree without knowing every node, and without recursion."""

from __future__ import annotations

from collections.abc import Iterator

from streams.ql.nodes import (
    Array,
    Between,
    Binary,
    Call,
    Conditional,
    Exists,
    Filter,
    Group,
    Ident,
    IsNull,
    MatchAll,
    Node,
    Query,
    Unary,
)


def children(node: Node) -> tuple[Node, ...]:
    """Gives the parts of a node in the order of the text."""
    match node:
        case Group(items=items) | Array(items=items) | Call(args=items):
            return items
        case Binary(left=left, right=right):
            return (left, right)
        case Unary(operand=operand):
            return (operand,)
        case Between(value=value, low=low, high=high):
            return (value, low, high)
        case IsNull(value=value) | Exists(value=value):
            return (value,)
        case Conditional(value=value, condition=condition, otherwise=otherwise):
            return (value, condition) if otherwise is None else (value, condition, otherwise)
        case _:
            return ()


def walk(root: Node) -> Iterator[Node]:
    """Gives a node and all below it, parents first, in the order of the text."""
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(children(node)))


def statement_expressions(statement: Filter | Query) -> list[Node]:
    """Gives the whole expressions of a statement: of its columns, their guards, and its condition."""
    found = [each for column in statement.columns for each in (column.expr, column.guard) if each is not None]
    if statement.where is not None:
        found.append(statement.where)
    return found


def default_name(expr: Node) -> str | None:
    """Gives the field that a column without AS feeds: its source, the first name that its expression reads."""
    if isinstance(expr, MatchAll):
        return "*"
    pending: list[Node] = [expr]
    while pending:
        node = pending.pop()
        if isinstance(node, Ident):
            return node.name
        pending.extend(reversed(children(node)))
    return None
