"""The tree as Python source: one expression a node, its constants and names bound, never written into the text.

Generated text consists of this module's own words and of numbered names (`c0`, `t1` …); whatever stood in the
query reaches it through the namespace. A truth is True, False or MISSING (`M`); a `Truth` that is `total` is
never MISSING, so that `and`, `or` and `not` can be Python's own.

Two forms are made of each tree. The fast form takes kinds for granted where they are known and calls functions
without a guard; should it raise, the careful form is asked, which takes nothing for granted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from streams.ql import compiler_runtime, compiler_special, rules
from streams.ql.coerce import to_date
from streams.ql.compiler_fields import Entry, Fields, Known, Unknown
from streams.ql.compiler_special import Moment, Truth
from streams.ql.datemath import LATEST, SECOND, Anchor, anchor
from streams.ql.functions import FUNCTIONS
from streams.ql.lookup import Names, follow, reach
from streams.ql.missing import MISSING
from streams.ql.nodes import (
    Array,
    Between,
    Binary,
    Call,
    Conditional,
    Exists,
    Group,
    Ident,
    Include,
    IsNull,
    Literal,
    MatchAll,
    Node,
    Unary,
)

#: Nodes below one another in one Python function; what is deeper becomes a function of its own. Python's parser
#: takes 200 parentheses, and a node makes up to four.
_DEEPEST: Final = 24
#: Branches of one ifcase written as one expression.
_MOST_CASES: Final = 30
_OPERATORS: Final = {operator: f"o{place}" for place, operator in enumerate(rules.OPERATORS)}


class Unit:
    """One piece of generated source with its namespace, over one resolver of fields.

    `event` data has any keys and is read by a plan per set of keys; a profile's known fields are read directly. With
    `not_reads`, as in LQL, NOT takes what the function `not()` takes for a truth; in a filter it takes truths only.
    """

    def __init__(self, fields: Fields, *, fast: bool, event: bool = False, not_reads: bool = False) -> None:
        self.fields = fields
        self.fast = fast
        self.event = event
        self.not_reads = not_reads or event
        self.namespace: dict[str, Any] = {
            "M": MISSING,
            "follow": follow,
            "reach": reach,
            "minus": rules.minus,
            "between": rules.between,
            "is_null": rules.is_null,
            "negation": rules.negation,
            "dated": compiler_runtime.dated,
            "present": compiler_runtime.present,
            "call": compiler_runtime.call,
            "keep": compiler_runtime.keep,
        }
        self.namespace.update({name: rules.binary(operator) for operator, name in _OPERATORS.items()})
        self._texts: list[str] = []
        self._count = 0
        self._constants: dict[tuple[type, Any], str] = {}
        self._anchors: dict[Anchor, int] = {}
        self._names: dict[tuple[str, ...], int] = {}
        self.names_read: set[str] = set()
        self.included: dict[str, str] = {}  # include by key -> name of its function
        self.shared: set[str] = set()  # includes met more than once, worked out once per evaluation

    def fresh(self, prefix: str) -> str:
        """Gives a name that nothing else has."""
        self._count += 1
        return f"{prefix}{self._count}"

    def bind(self, value: Any) -> str:
        """Gives the name of a constant; equal scalars of one type share it."""
        key = (type(value), value) if isinstance(value, str | int | float | bool | None) else (object, id(value))
        name = self._constants.get(key)
        if name is None:
            name = self._constants[key] = self.fresh("c")
            self.namespace[name] = value
        return name

    def add(self, name: str, lines: list[str]) -> None:
        """Adds a function `name(data, now, memo)`, with what its text uses made ready at its begin."""
        self._texts.append("\n".join([f"def {name}(data, now, memo):", *_made_ready(lines), *_indented(lines)]))

    def add_entry(self, name: str, lines: list[str], otherwise: str) -> None:
        """Adds the function `name(data, now)` that others call; `otherwise` is returned if the lines raise."""
        before = ["    memo = {}"] if self.shared else ["    memo = None"]
        body = _indented(
            ["try:", *_made_ready(lines), *_indented(lines), "except Exception:", f"    return {otherwise}"]
        )
        self._texts.append("\n".join([f"def {name}(data, now):", *before, *body]))

    def anchored(self, found: Anchor) -> Moment:
        """Gives the operand of a moment relative to now."""
        place = self._anchors.setdefault(found, len(self._anchors))
        return Moment(f"instants[{2 * place}]", f"instants[{2 * place + 1}]")

    def way(self, path: tuple[str, ...]) -> str:
        """Gives the code of a name's place in the plan of an event's keys."""
        place = self._names.setdefault(path, len(self._names))
        return f"plan[{place}]"

    def make(self) -> tuple[dict[str, Any], str]:
        """Compiles everything added; gives the namespace with the functions, and the source."""
        source = "\n\n".join(self._texts) + "\n"
        self.namespace["tick"] = compiler_runtime.clock(tuple(self._anchors))
        self.namespace["plan_of"] = Names(tuple(self._names)).plan
        exec(compile(source, "<compiled query>", "exec"), self.namespace)  # noqa: S102  (our own words only)
        return self.namespace, source


class Writer:
    """Writes the nodes of a tree as expressions of a unit."""

    def __init__(self, unit: Unit, include: Callable[[str], str | None] = lambda _name: None) -> None:
        self.unit = unit
        self._include = include
        self._depth = 0
        self.held: dict[tuple[str, ...], str] = {}  # names already read into local variables

    # ---- values ---------------------------------------------------------------------------------------

    def value(self, node: Node) -> str:
        """The code of a node's value; `M` when there is none."""
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                return self._outlined(lambda inner: inner.value(node))
            match node:
                case Literal(value=value):
                    return self.unit.bind(value)
                case Ident():
                    return self.read(node)
                case Array(items=items):
                    return self._array(items)
                case Binary(op=op, left=left, right=right) if op in rules.ARITHMETIC:
                    return f"{_OPERATORS[op]}({self.value(left)}, {self.value(right)})"
                case Unary(op="-", operand=operand):
                    return f"minus({self.value(operand)})"
                case Conditional():
                    return self._conditional(node)
                case Call(name=name, args=args):
                    return self._call(name, args)
                case _:
                    return self._truth(node).code
        finally:
            self._depth -= 1

    def argument(self, node: Node) -> str:
        """The code of a node's value as functions take it: None when there is none."""
        match node:
            case Literal():
                return self.value(node)
            case Ident() if node.path not in self.held:
                return self.read(node, absent="None")
            case Array():
                return self.value(node)
            case _:
                name = self.unit.fresh("t")
                return f"(None if ({name} := {self.value(node)}) is M else {name})"

    def read(self, ident: Ident, absent: str = "M") -> str:
        """The code that reads a field."""
        self.unit.names_read.update(self.unit.fields.names(ident))
        held = self.held.get(ident.path)
        if held is not None:
            return held
        default = "" if absent == "None" else ", M"
        match self.unit.fields.resolve(ident):
            case Known(name=name):
                return f"get({self.unit.bind(name)}{default})"
            case Entry(name=name, rest=rest):
                code = f"reach(get({self.unit.bind(name)}), {self.unit.bind(rest)})"
            case Unknown(path=path) if self.unit.event:
                way = self.unit.way(path)
                if len(path) == 1 and "." not in path[0]:
                    return f"get({way}{default})"
                code = f"(follow(data, {way}) if {way} else M)"
            case Unknown(path=path):
                find = self.unit.bind(compiler_runtime.Finder(path))
                code = f"{find}.find(data)"
        if absent == "M":
            return code
        name = self.unit.fresh("t")
        return f"(None if ({name} := {code}) is M else {name})"

    def _array(self, items: tuple[Node, ...]) -> str:
        if all(isinstance(item, Literal) for item in items):
            return self.unit.bind([item.value for item in items if isinstance(item, Literal)])
        return f"present(({''.join(self.value(item) + ', ' for item in items)}))"

    def _conditional(self, node: Conditional) -> str:
        otherwise = "M" if node.otherwise is None else self.value(node.otherwise)
        return f"({self.value(node.value)} if {self.condition(node.condition)} else {otherwise})"

    def _call(self, name: str, args: tuple[Node, ...]) -> str:
        if name == "ifcase":
            return self._cases(args)
        function = FUNCTIONS.get(name)
        if function is None or function.arity_error(len(args)):
            return "M"
        return self.calling(function.impl, function.takes_now, function.takes_event, args)

    def calling(self, impl: Callable[..., Any], now: bool, event: bool, args: tuple[Node, ...]) -> str:  # noqa: FBT001
        """The code of a call of a function's implementation."""
        given = ["now"] * now + ["data"] * event + [self.argument(each) for each in args]
        target = self.unit.bind(impl)
        if self.unit.fast:
            return f"{target}({', '.join(given)})"
        return f"call({', '.join([target, *given])})"

    def _cases(self, args: tuple[Node, ...]) -> str:
        code: list[str] = []
        for place, each in enumerate(args):
            if place == _MOST_CASES:
                rest = Call("ifcase", args[place:])
                return f"({''.join(code)}{self._outlined(lambda inner: inner.value(rest))})"  # noqa: B023  (called at once)
            if isinstance(each, Conditional):
                code.append(f"{self.value(each.value)} if {self.condition(each.condition)} else ")
                if each.otherwise is not None:
                    return f"({''.join(code)}{self.value(each.otherwise)})"
            else:
                return f"({''.join(code)}{self.value(each)})"
        return f"({''.join(code)}M)"

    # ---- truths ---------------------------------------------------------------------------------------

    def condition(self, node: Node) -> str:
        """The code of "this is true": a Python bool."""
        truth = self.truth(node)
        return truth.code if truth.total else f"({truth.code} is True)"

    def truth(self, node: Node) -> Truth:
        """The code of a node as a condition. A value that is no truth value is not evaluable to who asks."""
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                return Truth(self._outlined(lambda inner: inner.truth(node).code), total=False)
            return self._truth(node)
        finally:
            self._depth -= 1

    def _truth(self, node: Node) -> Truth:
        match node:
            case MatchAll():
                return Truth("True", total=True)
            case Group(op="and", items=items):
                return self._all_of([self.truth(item) for item in items])
            case Group(items=items):
                return Truth(f"({' or '.join(self.condition(item) for item in items)})", total=True)
            case Unary(op="not", operand=Include(name=name)):
                # Of a segment that cannot be evaluated, NOT INCLUDE is true.
                return Truth(f"({self._included(name)} is not True)", total=True)
            case Unary(op="not", operand=operand):
                return self._negated(self.truth(operand))
            case Include(name=name):
                return Truth(self._included(name), total=False)
            case Exists(value=value):
                return Truth(f"({self.argument(value)} is not None)", total=True)
            case IsNull(value=value):
                return Truth(f"is_null({self.value(value)})", total=True)
            case Between():
                return self._between(node)
            case Binary() if node.op not in rules.ARITHMETIC:
                return self._binary(node)
            case _:
                return Truth(self.value(node), total=False)

    def _all_of(self, truths: list[Truth]) -> Truth:
        if all(truth.total for truth in truths):
            return Truth(f"({' and '.join(truth.code for truth in truths)})", total=True)
        name = self.unit.fresh("t")
        passed = " and ".join(f"({name} := {truth.code}) is True" for truth in truths)
        return Truth(f"(True if {passed} else False if {name} is False else M)", total=False)

    def _negated(self, truth: Truth) -> Truth:
        if truth.total:
            return Truth(f"(not {truth.code})", total=True)
        name = self.unit.fresh("t")
        other = f"negation({name})" if self.unit.not_reads else "M"
        code = f"(False if ({name} := {truth.code}) is True else True if {name} is False else {other})"
        return Truth(code, total=False)

    def _included(self, name: str) -> str:
        key = self._include(name)
        if key is None:
            return "M"
        call = f"{self.unit.included[key]}(data, now, memo)"
        if key not in self.unit.shared:
            return call
        bound = self.unit.bind(key)
        return f"(memo[{bound}] if {bound} in memo else keep(memo, {bound}, {call}))"

    def _binary(self, node: Binary) -> Truth:
        if self.unit.fast:
            special = compiler_special.comparison(self, node)
            if special is not None:
                return special
        operator = _OPERATORS[node.op]
        if node.op in rules.COMPARISONS:
            for literal, other, swapped in ((node.right, node.left, False), (node.left, node.right, True)):
                moment = self.moment(literal)
                if moment is not None:
                    name = self.unit.fresh("t")
                    dated = f"dated({name}, {self.value(literal)}, {moment.code})"
                    if swapped:
                        return Truth(f"{operator}(({name} := {self.value(other)}, {dated})[1], {name})", total=False)
                    return Truth(f"{operator}(({name} := {self.value(other)}), {dated})", total=False)
        return Truth(f"{operator}({self.value(node.left)}, {self.value(node.right)})", total=False)

    def _between(self, node: Between) -> Truth:
        if self.unit.fast:
            special = compiler_special.between(self, node)
            if special is not None:
                return special
        name = self.unit.fresh("t")
        bounds = []
        for bound in (node.low, node.high):
            moment = self.moment(bound)
            code = self.value(bound)
            bounds.append(code if moment is None else f"dated({name}, {code}, {moment.code})")
        return Truth(f"between(({name} := {self.value(node.value)}), {', '.join(bounds)})", total=False)

    def moment(self, node: Node) -> Moment | None:
        """Gives the moment that a constant text can stand for: date maths, or a date."""
        if not isinstance(node, Literal) or not isinstance(node.value, str):
            return None
        found = anchor(node.value)
        if found is not None:
            return self.unit.anchored(found)
        date = to_date(node.value)
        return None if not isinstance(date, datetime) else self.fixed(date)

    def fixed(self, date: datetime) -> Moment:
        """Gives the operand of a constant date."""
        date = min(rules.seconds(date), LATEST)
        return Moment(self.unit.bind(date), self.unit.bind(date + SECOND))

    def _outlined(self, write: Callable[[Writer], str]) -> str:
        name = self.unit.fresh("f")
        inner = Writer(self.unit, self._include)
        self.unit.add(name, [f"return {write(inner)}"])
        return f"{name}(data, now, memo)"


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _made_ready(lines: list[str]) -> list[str]:
    """The lines that make ready what the lines use."""
    text = "\n".join(lines)
    ready = []
    if "get(" in text:
        ready.append("    get = data.get")
    if "instants[" in text:
        ready.append("    instants = tick(now)")
    if "plan[" in text:
        ready.append("    plan = plan_of(data)")
    return ready
