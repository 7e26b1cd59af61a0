"""Expressions as JSON, in the form of FilterQL's public implementation, and back.

Operators are `{"op": "and", "args": […]}`; leaves are `{"ident": name}`, `{"val": constant}` and, below `include`,
`{"seg": name}`; a list is `{"args": […]}` without `op`. Calls are `{"op": "expr", "args": [{"ident": function}, …]}`.
An `ident` is spelled as in text, with backticks where needed; other text is taken as the name itself. Ours are
`is null` and `if` (with two or three arguments), which the public form lacks, and that constants keep their type.
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast

from streams.ql.checker import call_problems
from streams.ql.errors import Diagnostic, QueryError
from streams.ql.limits import MAX_DEPTH, MAX_NODES
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
from streams.ql.parser_expression import parse_ident
from streams.ql.printer import print_node
from streams.ql.tree import children, group

JsonForm: TypeAlias = dict[str, Any]

_BINARY = frozenset({"=", "!=", ">", ">=", "<", "<=", "like", "contains", "in", "intersects", "+", "-", "*", "/", "%"})
_SPELLINGS = {"==": "=", "<>": "!=", "&&": "and", "||": "or", "!": "not"}


def to_json(node: Node) -> JsonForm:
    """Gives the JSON form of an expression; `from_json` gives an equal tree."""
    match node:
        case Literal(value=value):
            return {"val": value}
        case Ident():
            return {"ident": print_node(node)}
        case MatchAll():
            return {"ident": "*"}
        case Include(name=name):
            return {"op": "include", "args": [{"seg": name}]}
        case Array():
            return {"args": _all(node)}
        case Call(name=name):
            return {"op": "expr", "args": [{"ident": name}, *_all(node)]}
        case Between():
            return {"op": "between", "args": _all(node)}
        case IsNull():
            return {"op": "is null", "args": _all(node)}
        case Exists():
            return {"op": "exists", "args": _all(node)}
        case Conditional():
            return {"op": "if", "args": _all(node)}
        case _:
            return {"op": node.op, "args": _all(node)}


def from_json(form: object) -> Node:
    """Reads the JSON form. Raises QueryError, which names the place by its path, for what is none."""
    return _Reader().read(form, "$", 1)


def _all(node: Node) -> list[JsonForm]:
    return [to_json(child) for child in children(node)]


def _refused(path: str, message: str, hint: str = "") -> QueryError:
    return QueryError([Diagnostic(f"{path}: {message}", 1, 1, hint=hint)])


class _Reader:
    def __init__(self) -> None:
        self._count = 0

    def read(self, form: object, path: str, depth: int) -> Node:
        self._count += 1
        if depth > MAX_DEPTH:
            raise _refused(path, "nested too deeply", f"at most {MAX_DEPTH} levels")
        if self._count > MAX_NODES:
            raise _refused(path, f"more than {MAX_NODES} parts")
        if not isinstance(form, dict):
            raise _refused(path, f"expected an object, found {type(form).__name__}")
        args = form.get("args", [])
        if not isinstance(args, list):
            raise _refused(path, "args is no list")
        op = form.get("op") or ""
        if not isinstance(op, str):
            raise _refused(path, "op is no text")
        op = op.lower()
        op = _SPELLINGS.get(op, op)
        if op == "expr":
            return self._call(args, path, depth)
        if op == "include":
            return self._include(args, path)
        if op == "*" and not args:
            return MatchAll()
        if op:
            return self._operator(
                op, [self.read(arg, f"{path}.args[{i}]", depth + 1) for i, arg in enumerate(args)], path
            )
        if "ident" in form:
            return _ident(form["ident"], path)
        if "seg" in form:
            return Include(_text(form["seg"], f"{path}.seg"))
        if "val" in form:
            return _constant(form["val"], path)
        if "args" in form:
            return Array(tuple(self.read(arg, f"{path}.args[{i}]", depth + 1) for i, arg in enumerate(args)))
        raise _refused(path, "none of op, ident, val, seg and args is there")

    def _operator(self, op: str, args: list[Node], path: str) -> Node:
        if op in {"and", "or"}:
            if not args:
                raise _refused(path, f"{op} has no arguments")
            return group(cast("GroupOp", op), args, 0)
        if op in _BINARY and len(args) == 2:
            if op in {"in", "intersects"} and not _is_list_like(args[1], in_text=op == "in"):
                raise _refused(path, f"{op} needs a list on the right")
            return Binary(cast("BinaryOp", op), args[0], args[1])
        if op in {"not", "-"} and len(args) == 1:
            return Unary("not" if op == "not" else "-", args[0])
        if op == "exists" and len(args) == 1:
            return Exists(args[0])
        if op == "is null" and len(args) == 1:
            return IsNull(args[0])
        if op == "between" and len(args) == 3:
            return Between(args[0], args[1], args[2])
        if op == "if" and len(args) in {2, 3}:
            return Conditional(args[0], args[1], args[2] if len(args) == 3 else None)
        if op in {*_BINARY, "not", "exists", "is null", "between", "if"}:
            raise _refused(path, f"{op} cannot have {len(args)} arguments")
        raise _refused(
            path, f"unknown op {op!r}", "and or not exists in intersects include like contains between = != …"
        )

    def _call(self, args: list[object], path: str, depth: int) -> Call:
        head = args[0] if args else None
        if not isinstance(head, dict) or "ident" not in head:
            raise _refused(path, "expr needs the function's name as its first argument")
        name = _text(head["ident"], f"{path}.args[0].ident").lower()
        rest = [self.read(arg, f"{path}.args[{i}]", depth + 1) for i, arg in enumerate(args[1:], 1)]
        call = Call(name, tuple(rest))
        for _, message, hint in call_problems(call):
            raise _refused(path, message, hint)
        return call

    def _include(self, args: list[object], path: str) -> Include:
        if len(args) == 1 and isinstance(args[0], dict):
            for key in ("seg", "ident", "val"):
                if key in args[0]:
                    return Include(_text(args[0][key], f"{path}.args[0].{key}"))
        raise _refused(path, "include needs the name of one audience")


def _text(value: object, path: str) -> str:
    if not isinstance(value, str) or not value:
        raise _refused(path, "expected a text that is not empty")
    return value


def _ident(value: object, path: str) -> Node:
    text = _text(value, f"{path}.ident")
    if text == "*" or text.lower() == "match_all":
        return MatchAll()
    return parse_ident(text) or Ident((text,))


def _constant(value: object, path: str) -> Literal:
    if value is None or isinstance(value, str | bool):
        return Literal(value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return Literal(value)
    if isinstance(value, float) and abs(value) < float("inf"):
        return Literal(value)
    raise _refused(f"{path}.val", "expected a constant within 64 bits")


def _is_list_like(node: Node, *, in_text: bool) -> bool:
    if isinstance(node, Literal):
        return in_text and isinstance(node.value, str)
    return isinstance(node, Array | Ident | Call)
