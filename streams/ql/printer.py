"""Trees to canonical text: one spelling for each tree, and reading it again gives the same tree."""

from __future__ import annotations

import re
from typing import assert_never

from streams.ql.lexer import escape
from streams.ql.nodes import (
    Array,
    Between,
    Binary,
    Call,
    Column,
    Conditional,
    Exists,
    Filter,
    Group,
    Ident,
    Include,
    IsNull,
    Literal,
    MatchAll,
    Node,
    OptionValue,
    Query,
    Unary,
)
from streams.ql.tokens import RESERVED
from streams.ql.tree import default_name

_BARE = re.compile(r"(?=[\W\d]*[^\W\d])(?:[^\W\d]|@)(?:[\w.@]|-(?=[\w.@]))*")
_BARE_TYPE = re.compile(r"(?:\w*\[\w*\])?\w+")

# How tightly what is printed holds together; an operand that holds less tightly is put in parentheses.
_CONDITIONAL, _GROUP, _COMPARE, _ADD, _MULTIPLY, _PRIMARY = range(6)
_POWER = {"+": _ADD, "-": _ADD, "*": _MULTIPLY, "/": _MULTIPLY, "%": _MULTIPLY}


def print_filter(statement: Filter) -> str:
    """Writes a FilterQL statement on one line. The description is not part of it."""
    table = print_name(statement.table)
    if statement.columns:
        columns = ", ".join(_column(column) for column in statement.columns)
        parts = [f"SELECT {columns} FROM {table} FILTER {print_node(statement.where)}"]  # noqa: S608 (FilterQL, not SQL)
    else:
        parts = [f"FILTER {print_node(statement.where)}"]
        if statement.table != "user":
            parts.append(f"FROM {table}")
    if statement.limit is not None:
        parts.append(f"LIMIT {statement.limit}")
    if statement.options:
        parts.append(_options(statement.options))
    if statement.alias is not None:
        parts.append(f"ALIAS {print_name(statement.alias)}")
    return " ".join(parts)


def print_query(query: Query) -> str:
    """Writes an LQL statement, a column a line. The description is not part of it."""
    lines = ["SELECT", ",\n".join(f"    {_column(column)}" for column in query.columns)]
    lines.append(f"FROM {print_name(query.stream)}")
    lines.append(f"INTO {print_name(query.table)}")
    lines.append("BY " + " OR ".join(print_name(name) for name in query.by))
    if query.where is not None:
        lines.append(f"WHERE {print_node(query.where)}")
    if query.options:
        lines.append(_options(query.options))
    lines.append(f"ALIAS {print_name(query.alias)}")
    return "\n".join(lines)


def print_node(node: Node) -> str:
    """Writes an expression."""
    return _print(node)[0]


def print_name(name: str) -> str:
    """Writes one name, in backticks where it could be read as something else."""
    if _BARE.fullmatch(name) and not name.endswith(".") and name.lower() not in RESERVED:
        return name
    return "`" + name.replace("`", "``") + "`"


def print_literal(value: str | float | bool | None) -> str:  # noqa: FBT001 (any constant)
    """Writes a constant."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{escape(value)}"'
        case _:
            return repr(value)


def _print(node: Node) -> tuple[str, int]:
    match node:
        case Literal(value=value):
            return print_literal(value), _PRIMARY
        case Ident(path=path):
            return _path(path), _PRIMARY
        case MatchAll():
            return "*", _PRIMARY
        case Include(name=name):
            return f"INCLUDE {print_name(name)}", _COMPARE
        case Array(items=items):
            return "[" + ", ".join(map(print_node, items)) + "]", _PRIMARY
        case Group(op=op, items=items):
            return f"{op.upper()} ( {', '.join(map(print_node, items))} )", _PRIMARY
        case Call(name="cast", args=(value, Literal(value=str(kind)))) if _BARE_TYPE.fullmatch(kind):
            return f"cast({print_node(value)} AS {kind})", _PRIMARY
        case Call(name=name, args=args):
            return f"{name}({', '.join(map(print_node, args))})", _PRIMARY
        case Unary(op="not", operand=operand):
            if isinstance(operand, Group | Include | Exists):
                return f"NOT {print_node(operand)}", _GROUP
            return f"NOT ({print_node(operand)})", _GROUP
        case Unary(operand=operand):
            # Behind a minus a bare number would be read as one constant with it.
            bare = isinstance(operand, Ident | Call)
            return ("-" + print_node(operand) if bare else f"-({print_node(operand)})"), _PRIMARY
        case Exists(value=value):
            return f"EXISTS {_operand(value, _PRIMARY)}", _PRIMARY
        case IsNull(value=value):
            return f"{_operand(value, _ADD)} IS NULL", _COMPARE
        case Between(value=value, low=low, high=high):
            return f"{_operand(value, _ADD)} BETWEEN {_operand(low, _ADD)} AND {_operand(high, _ADD)}", _COMPARE
        case Binary(op="in" | "intersects" as op, left=left, right=right):
            return f"{_operand(left, _ADD)} {op.upper()} {_list(right)}", _COMPARE
        case Binary(op=op, left=left, right=right):
            power = _POWER.get(op, _COMPARE)
            tighter = power + 1
            left_text = _operand(left, tighter if power == _COMPARE else power)
            return f"{left_text} {op.upper()} {_operand(right, tighter)}", power
        case Conditional(value=value, condition=condition, otherwise=otherwise):
            text = f"{_operand(value, _GROUP)} IF {_operand(condition, _GROUP)}"
            if otherwise is None:
                return text, _CONDITIONAL
            # Only a chain that ends with ELSE can be read again without parentheses.
            chain = isinstance(otherwise, Conditional) and _ends_with_else(otherwise)
            return f"{text} ELSE {print_node(otherwise) if chain else _operand(otherwise, _GROUP)}", _CONDITIONAL
        case _:
            assert_never(node)


def _operand(node: Node, at_least: int) -> str:
    text, power = _print(node)
    return text if power >= at_least else f"({text})"


def _ends_with_else(node: Node | None) -> bool:
    while isinstance(node, Conditional):
        node = node.otherwise
    return node is not None


def _list(node: Node) -> str:
    if isinstance(node, Array):
        return "(" + ", ".join(map(print_node, node.items)) + ")"
    return _operand(node, _PRIMARY)


def _path(path: tuple[str, ...]) -> str:
    if len(path) == 1:
        return print_name(path[0])
    return ".".join("`" + part.replace("`", "``") + "`" for part in path)


def _column(column: Column) -> str:
    text = _operand(column.expr, _CONDITIONAL)
    if isinstance(column.expr, Conditional) and not _ends_with_else(column.expr):
        text = f"({text})"
    if column.name != default_name(column.expr):
        text += f" AS {print_name(column.name)}"
    if column.guard is not None:
        text += f" IF {_operand(column.guard, _GROUP)}"
    if column.shortdesc is not None:
        text += f" SHORTDESC {print_literal(column.shortdesc)}"
    if column.longdesc is not None:
        text += f" LONGDESC {print_literal(column.longdesc)}"
    if column.kind is not None:
        text += f" KIND {column.kind if _BARE_TYPE.fullmatch(column.kind) else print_literal(column.kind)}"
    if column.merge_op is not None:
        text += f" MERGEOP {print_name(column.merge_op)}"
    if column.capacity is not None:
        text += f" CAPACITY {column.capacity}"
    if column.keep_days is not None:
        text += f" KEEP_DAYS {column.keep_days}"
    return text


def _options(options: tuple[tuple[str, OptionValue], ...]) -> str:
    return "WITH " + ", ".join(f"{print_name(name)} = {_option(value)}" for name, value in options)


def _option(value: OptionValue) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(print_literal, value)) + "]"
    return print_literal(value)
