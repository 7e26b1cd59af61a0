"""Walking a tree without knowing every node, and without recursion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from streams.ql.nodes import (
    Array,
    Between,
    Binary,
    Call,
    Conditional,
    Exists,
    Filter,
    Group,
    GroupOp,
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


def rebuilt(node: Node, change: Callable[[Node], Node]) -> Node:
    """Gives the node with every part replaced by what `change` makes of it."""
    match node:
        case Group(items=items) | Array(items=items):
            return replace(node, items=tuple(map(change, items)))
        case Call(args=args):
            return replace(node, args=tuple(map(change, args)))
        case Binary(left=left, right=right):
            return replace(node, left=change(left), right=change(right))
        case Unary(operand=operand):
            return replace(node, operand=change(operand))
        case Between(value=value, low=low, high=high):
            return replace(node, value=change(value), low=change(low), high=change(high))
        case IsNull(value=value) | Exists(value=value):
            return replace(node, value=change(value))
        case Conditional(value=value, condition=condition, otherwise=otherwise):
            last = None if otherwise is None else change(otherwise)
            return replace(node, value=change(value), condition=change(condition), otherwise=last)
        case _:
            return node


def group(op: GroupOp, items: Sequence[Node], at: int) -> Node:
    """Makes AND or OR of conditions: one is itself, and a nested group of the same operator is folded in."""
    flat: list[Node] = []
    for item in items:
        if isinstance(item, Group) and item.op == op:
            flat.extend(item.items)
        else:
            flat.append(item)
    return flat[0] if len(flat) == 1 else Group(op, tuple(flat), at)


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
