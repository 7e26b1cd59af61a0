"""Trees into functions: filters over a profile's values, queries over an event, single expressions.

What is compiled is untrusted: no exception leaves `evaluate` or `run`; what cannot be evaluated is not ok.
Compiled things hold no state but caches of bounded size, and belong to one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from streams.ql.boundary import Clockwork, boundary_of, date_terms
from streams.ql.compiler_fields import Fields
from streams.ql.compiler_includes import Includes
from streams.ql.compiler_source import Unit, Writer
from streams.ql.functions import FUNCTIONS
from streams.ql.missing import MISSING, NIL_INT, Value, is_nil
from streams.ql.nodes import Call, Column, Ident, Node, Query
from streams.ql.tree import statement_expressions, walk

Data = Mapping[str, Value]
Verdict = tuple[bool, bool]

MATCH: Final[Verdict] = (True, True)
NO_MATCH: Final[Verdict] = (False, True)
NOT_OK: Final[Verdict] = (False, False)
_NO_KINDS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class CompiledFilter:
    """A filter that can be asked.

    `fields` are the names that it reads, its includes' too; of a name that no kind is known for, every field
    that it could mean. `includes` are the names of all audiences that it reaches.

    `evaluate(values, now)` gives (match, ok); NOT_OK is (False, False). It depends on `now` by whole seconds.
    Passing the same `now` object for many profiles is faster than equal ones.

    `boundary(values, now)` gives the first whole second after `now` at which `evaluate` gives another
    result for the same values, None when it never does. `date_terms` see `boundary.date_terms`: a bound for it that
    costs less.
    """

    fields: frozenset[str]
    includes: frozenset[str]
    time_dependent: bool
    evaluate: Callable[[Data, datetime], Verdict]
    boundary: Callable[[Data, datetime], datetime | None]
    source: str = field(default="", repr=False)
    where: Node | None = field(default=None, repr=False)
    kinds: Mapping[str, str] = field(default_factory=dict, repr=False)
    date_terms: tuple[tuple[str, timedelta], ...] | None = None


@dataclass(frozen=True, slots=True)
class CompiledExpression:
    """An expression that can be asked: `evaluate(data, now)` gives its value, or MISSING."""

    names: frozenset[str]
    evaluate: Callable[[Data, datetime], Value]
    source: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class CompiledQuery:
    """A query that maps events.

    `run(event, now)` takes the event's JSON object, nested or flat, and the event's time. It gives (index of
    the column, value) for each column that has a value, in the order of the columns; None when WHERE is not
    true. Values are as the column's expression makes them: to make them of the column's kind is the merge's part.
    """

    names: frozenset[str]
    run: Callable[[Data, datetime], list[tuple[int, Value]] | None]
    source: str = field(default="", repr=False)


def compile_filter(
    where: Node,
    *,
    kinds: Mapping[str, str] = _NO_KINDS,
    includes: Callable[[str], Node | None] = lambda _name: None,
) -> CompiledFilter:
    """Compiles the condition of a filter.

    With `kinds` (by field), profiles passed must hold values of these kinds under these names, or nothing.
    An include that is unknown, on a cycle, or over 100 deep is not evaluable.
    """
    found = Includes(where, includes)
    fields = Fields(kinds)

    def build(*, fast: bool) -> tuple[Callable[[Data, datetime], Verdict], Unit, str]:
        unit = Unit(fields, fast=fast)
        unit.shared = found.shared & found.usable
        writer = Writer(unit, lambda name: key if (key := name.lower()) in found.usable else None)
        for key in found.in_order():
            unit.included[key] = unit.fresh("i")
            code = writer.truth(found.trees[key]).code
            unit.add(unit.included[key], [f"t = {code}", "return t if t is True or t is False else M"])
        truth = writer.truth(where)
        unit.namespace.update(YES=MATCH, NO=NO_MATCH, UNKNOWN=NOT_OK)
        if truth.total:
            lines = [f"return YES if {truth.code} else NO"]
        else:
            lines = [f"t = {truth.code}", "return YES if t is True else NO if t is False else UNKNOWN"]
        unit.add_entry("evaluate", lines, otherwise="careful(data, now)" if fast else "UNKNOWN")
        if fast:
            unit.namespace["careful"] = _later(lambda: build(fast=False)[0])
        namespace, source = unit.make()
        return namespace["evaluate"], unit, source

    evaluate, unit, source = build(fast=True)
    trees = [where, *(found.trees[key] for key in found.usable)]
    clockwork = Clockwork(trees, fields)
    return CompiledFilter(
        fields=frozenset(unit.names_read),
        includes=frozenset(found.names),
        time_dependent=clockwork.ticks,
        evaluate=evaluate,
        boundary=boundary_of(clockwork, fields, evaluate),
        source=source,
        where=where,
        kinds=kinds,
        date_terms=date_terms(clockwork, fields),
    )


def fuse(filters: Mapping[int, CompiledFilter]) -> Callable[[Data, datetime], int]:
    """Makes one function of many filters: its result has the bit `1 << number` for each of them that matches.

    It costs a fraction of asking one after the other, and gives the same. A filter with includes is asked as it is.
    """
    kinds = next((each.kinds for each in filters.values()), _NO_KINDS)
    unit = Unit(Fields(kinds), fast=True)
    unit.namespace["YES"] = MATCH
    writer = Writer(unit)
    lines = ["found = 0"]
    for number, each in filters.items():
        taken = f"found |= {1 << number}"
        asked = f"if {unit.bind(each.evaluate)}(data, now) is YES: {taken}"
        if each.where is None or each.includes or each.kinds != kinds:
            lines.append(asked)
        else:
            lines += _guarded([f"if {writer.condition(each.where)}: {taken}"], [asked])
    unit.add_entry("members", [*lines, "return found"], otherwise="0")
    members: Callable[[Data, datetime], int] = unit.make()[0]["members"]
    return members


def compile_expression(node: Node, *, kinds: Mapping[str, str] = _NO_KINDS) -> CompiledExpression:
    """Compiles a value expression over data with any keys."""
    fields = Fields(kinds)

    def build(*, fast: bool) -> tuple[Callable[[Data, datetime], Value], Unit, str]:
        unit = Unit(fields, fast=fast, not_reads=True)
        code = Writer(unit).value(node)
        unit.add_entry("evaluate", [f"return {code}"], otherwise="careful(data, now)" if fast else "M")
        if fast:
            unit.namespace["careful"] = _later(lambda: build(fast=False)[0])
        namespace, source = unit.make()
        return namespace["evaluate"], unit, source

    evaluate, unit, source = build(fast=True)
    return CompiledExpression(frozenset(unit.names_read), evaluate, source)


@dataclass(frozen=True, slots=True)
class Sink:
    """What becomes of the values of a query's columns, as Python source.

    `before` and `after` enclose all columns, `after` returns. `columns` has the lines of each, which find its value
    in `v`; M is MISSING, `nil(v)` says whether there is a value, NIL_INT is the int that is none. They may use what
    is in `names`, and must not raise.
    """

    before: Sequence[str]
    columns: Sequence[Sequence[str]]
    after: Sequence[str]
    names: Mapping[str, Any]


def compile_query(query: Query) -> CompiledQuery:
    """Compiles the columns and the condition of a query."""
    run, source = compile_into(query, _pairs(query))
    names = {each.name for tree in statement_expressions(query) for each in walk(tree) if isinstance(each, Ident)}
    return CompiledQuery(frozenset(names), run, source)


def compile_into(query: Query, sink: Sink) -> tuple[Callable[[Data, datetime], Any], str]:
    """Compiles a query whose values go into `sink`; gives the function, and its source.

    The function returns what `sink.after` returns, None when WHERE is not true.
    """
    unit = Unit(Fields({}), fast=True, event=True)
    unit.namespace.update(nil=is_nil, NIL_INT=NIL_INT, **sink.names)
    writer = Writer(unit)
    lines: list[str] = []
    if query.where is not None:
        lines += _guarded(
            [f"if not {writer.condition(query.where)}:", "    return None"],
            ["if careful_where(data, now) is not True:", "    return None"],
        )
        unit.namespace["careful_where"] = _careful(query.where)
    lines += _held(writer, query)
    lines += sink.before
    for column, taken in zip(query.columns, sink.columns, strict=True):
        lines += [*_column(writer, column), *taken]
    lines += sink.after
    unit.add_entry("run", lines, otherwise="None")
    namespace, source = unit.make()
    return namespace["run"], source


def _pairs(query: Query) -> Sink:
    """A list of (index of the column, value)."""
    return Sink(
        before=["out = []", "add = out.append"],
        columns=[
            [
                "if v.__class__ is str:",
                f"    if v: add(({index}, v))",
                "elif v.__class__ is int:",
                f"    if v != NIL_INT: add(({index}, v))",
                f"elif v is not None and v is not M and not nil(v): add(({index}, v))",
            ]
            for index in range(len(query.columns))
        ],
        after=["return out"],
        names={},
    )


def _held(writer: Writer, query: Query) -> list[str]:
    """Reads the names that are used more than once into local variables."""
    seen: dict[tuple[str, ...], int] = {}
    for tree in [each for column in query.columns for each in (column.expr, column.guard) if each is not None]:
        for node in walk(tree):
            if isinstance(node, Ident):
                seen[node.path] = seen.get(node.path, 0) + 1
    lines = []
    for path, count in seen.items():
        if count > 1:
            name = writer.unit.fresh("n")
            lines.append(f"{name} = {writer.read(Ident(path))}")
            writer.held[path] = name
    return lines


def _column(writer: Writer, column: Column) -> list[str]:
    """The lines that put a column's value, or M, into `v`."""
    expression, careful = _in_column(writer, column)
    value = f"v = {expression}"
    if column.guard is not None:
        value = f"v = ({expression}) if {writer.condition(column.guard)} else M"
    elif isinstance(column.expr, Ident):
        return [value]
    name = writer.unit.fresh("careful")
    writer.unit.namespace[name] = _careful_column(column, careful)
    return _guarded([value], [f"v = {name}(data, now)"])


def _in_column(writer: Writer, column: Column) -> tuple[str, Callable[[Writer], str]]:
    """The code of a column's expression. Some aggregates do as outermost what they do not elsewhere."""
    node = column.expr
    function = FUNCTIONS.get(node.name) if isinstance(node, Call) else None
    impl = getattr(function, "in_column", None)
    if isinstance(node, Call) and function is not None and impl is not None:
        args = node.args

        def write(inner: Writer) -> str:
            return inner.calling(impl, function.takes_now, function.takes_event, args)

    else:

        def write(inner: Writer) -> str:
            return inner.value(node)

    return write(writer), write


def _guarded(lines: list[str], otherwise: list[str]) -> list[str]:
    return ["try:", *(f"    {line}" for line in lines), "except Exception:", *(f"    {line}" for line in otherwise)]


def _careful(node: Node) -> Callable[[Data, datetime], Value]:
    return _later(lambda: _careful_function(lambda writer: writer.value(node)))


def _careful_column(column: Column, write: Callable[[Writer], str]) -> Callable[[Data, datetime], Value]:
    def whole(writer: Writer) -> str:
        code = write(writer)
        return code if column.guard is None else f"({code} if {writer.condition(column.guard)} else M)"

    return _later(lambda: _careful_function(whole))


def _careful_function(write: Callable[[Writer], str]) -> Callable[[Data, datetime], Value]:
    unit = Unit(Fields({}), fast=False, event=True)
    unit.add_entry("evaluate", [f"return {write(Writer(unit))}"], otherwise="M")
    function: Callable[[Data, datetime], Value] = unit.make()[0]["evaluate"]
    return function


def _later(build: Callable[[], Callable[[Data, datetime], Any]]) -> Callable[[Data, datetime], Any]:
    """A function that is compiled when it is first called."""
    made: list[Callable[[Data, datetime], Any]] = []

    def ask(data: Data, now: datetime) -> Any:
        if not made:
            made.append(build())
        return made[0](data, now)

    return ask


__all__ = [
    "MATCH",
    "MISSING",
    "NOT_OK",
    "NO_MATCH",
    "CompiledExpression",
    "CompiledFilter",
    "CompiledQuery",
    "Sink",
    "compile_expression",
    "compile_filter",
    "compile_into",
    "compile_query",
    "fuse",
]
