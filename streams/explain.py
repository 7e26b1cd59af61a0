"""Why a profile matches a filter, or does not: each condition with its verdict, the values that it read, the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from streams.ql.compiler import compile_filter
from streams.ql.nodes import Group, Include, Node, Unary
from streams.ql.printer import print_node
from streams.ql.values import Value
from streams.reasons import Reasons, Verdict, said

#: Includes nested deeper than this are shown, but not opened.
INCLUDE_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Condition:
    """One node of a filter. `text` is its canonical print, for a group or a negation only the word.

    `values` has the fields that a leaf reads and the profile has; a field that is absent there is missing. `reason`
    says in words why the verdict is what it is; that of a group names the item that decides it.
    """

    depth: int
    text: str
    match: bool
    ok: bool
    values: Mapping[str, Value]
    reason: str
    leaf: bool


def conditions(
    where: Node,
    values: Mapping[str, Value],
    now: datetime,
    *,
    kinds: Mapping[str, str],
    includes: Callable[[str], Node | None],
) -> list[Condition]:
    """Gives the conditions of a filter in the order of its text, parents first.

    Each is compiled for itself: a few milliseconds for ten conditions, so call it beside the event loop.
    """
    return _Walk(values, now, kinds, includes).tell(where, 0, ())


def flips(before: Sequence[Condition], after: Sequence[Condition]) -> list[Condition]:
    """Gives the conditions of a filter's text that have another verdict `after` than `before`, as they are after."""
    return [
        late
        for early, late in zip(before, after, strict=True)
        if late.leaf and (early.match, early.ok) != (late.match, late.ok)
    ]


class _Walk:
    def __init__(
        self,
        values: Mapping[str, Value],
        now: datetime,
        kinds: Mapping[str, str],
        includes: Callable[[str], Node | None],
    ) -> None:
        self._values = values
        self._now = now
        self._kinds = kinds
        self._includes = includes
        self._reasons = Reasons(values, now, kinds)

    def tell(self, node: Node, depth: int, opened: tuple[str, ...]) -> list[Condition]:
        """Gives a node's condition and those below it. `opened`: the audiences on the way here, in lower case."""
        compiled = compile_filter(node, kinds=self._kinds, includes=self._includes)
        verdict = compiled.evaluate(self._values, self._now)
        children: tuple[Node, ...] = ()
        match node:
            case Group():
                text, children = node.op.upper(), node.items
            case Unary(op="not", operand=Group() | Include()):
                text, children = "NOT", (node.operand,)
            case Include():
                text = print_node(node)
                found = self._found(node, opened)
                children = () if found is None else (found,)
                opened = (*opened, node.name.lower())
            case _:
                text = print_node(node)
        below = [self.tell(child, depth + 1, opened) for child in children]
        reason = self._reason(node, verdict, [each[0] for each in below], opened)
        read = {} if children else {name: self._values[name] for name in sorted(compiled.fields & self._values.keys())}
        head = Condition(depth, text, *verdict, values=read, reason=reason, leaf=not children)
        return [head, *(each for part in below for each in part)]

    def _found(self, node: Include, opened: tuple[str, ...]) -> Node | None:
        if len(opened) >= INCLUDE_DEPTH or node.name.lower() in opened:
            return None
        return self._includes(node.name)

    def _reason(self, node: Node, verdict: Verdict, items: Sequence[Condition], opened: tuple[str, ...]) -> str:
        match node:
            case Group(op="and"):
                return _of_all(verdict, items)
            case Group():
                return _of_any(verdict, items)
            case Unary(op="not", operand=Group() | Include()):
                item = items[0]
                which = f"INCLUDE {node.operand.name}" if isinstance(node.operand, Include) else item.text
                return f"{which} is {said((item.match, item.ok))}, so NOT of it is {said(verdict)}"
            case Include(name=name):
                if items:
                    return f"audience {name} is {said(verdict)}: {items[0].reason}"
                if name.lower() in opened[:-1]:
                    return f"not evaluable: audience {name} includes itself"
                if self._includes(name) is None:
                    return f"not evaluable: there is no audience {name}"
                return self._reasons.of(node, verdict)
            case _:
                return self._reasons.of(node, verdict)


def _of_all(verdict: Verdict, items: Sequence[Condition]) -> str:
    count = len(items)
    for place, item in enumerate(items, 1):
        if not (item.match and item.ok):
            return f"condition {place} of {count} is {said(verdict)}: {item.reason}"
    return f"all {count} conditions hold"


def _of_any(verdict: Verdict, items: Sequence[Condition]) -> str:
    count = len(items)
    if verdict[0]:
        place, item = next((place, item) for place, item in enumerate(items, 1) if item.match and item.ok)
        return f"condition {place} of {count} holds: {item.reason}"
    unknown = sum(not item.ok for item in items)
    return f"none of {count} conditions holds" + (f"; {unknown} not evaluable" if unknown else "")
