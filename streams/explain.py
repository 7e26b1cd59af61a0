"""Why a profile matches a filter, or does not: each condition with its verdict and the values that it read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from streams.ql.compiler import compile_filter
from streams.ql.nodes import Group, Include, Node, Unary
from streams.ql.printer import print_node
from streams.ql.values import Value

#: Includes nested deeper than this are shown, but not opened.
INCLUDE_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Condition:
    """One node of a filter. `text` is its canonical print, for a group or a negation only the word.

    `values` has the fields that a leaf reads and the profile has; a field that is absent there is missing.
    """

    depth: int
    text: str
    match: bool
    ok: bool
    values: Mapping[str, Value]


def conditions(
    where: Node,
    values: Mapping[str, Value],
    now: datetime,
    *,
    kinds: Mapping[str, str],
    includes: Callable[[str], Node | None],
) -> list[Condition]:
    """Gives the conditions of a filter in the order of its text, parents first."""
    return list(_walk(where, 0, 0, values, now, kinds, includes))


def _walk(
    node: Node,
    depth: int,
    opened: int,
    values: Mapping[str, Value],
    now: datetime,
    kinds: Mapping[str, str],
    includes: Callable[[str], Node | None],
) -> Iterator[Condition]:
    compiled = compile_filter(node, kinds=kinds, includes=includes)
    matched, ok = compiled.evaluate(values, now)
    children: tuple[Node, ...] = ()
    match node:
        case Group():
            text, children = node.op.upper(), node.items
        case Unary(op="not", operand=Group() | Include()):
            text, children = "NOT", (node.operand,)
        case Include():
            text = print_node(node)
            found = includes(node.name) if opened < INCLUDE_DEPTH else None
            children = () if found is None else (found,)
            opened += 1
        case _:
            text = print_node(node)
    read = {} if children else {name: values[name] for name in sorted(compiled.fields) if name in values}
    yield Condition(depth, text, matched, ok, read)
    for child in children:
        yield from _walk(child, depth + 1, opened, values, now, kinds, includes)
