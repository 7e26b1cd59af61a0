"""What the grammar alone does not say: functions and their arguments, kinds, merge operators, names.

Calls are checked while a text is parsed (`call_problems`); the rest is asked for by whoever stores a statement.
Whether a merge operator suits a kind depends on all queries together, and is said by `streams.schema`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Final
from typing import Literal as L  # noqa: N817 (the node is called Literal)

from streams.ql.coerce import to_date
from streams.ql.datemath import anchor
from streams.ql.errors import Diagnostic, Remains, diagnostic
from streams.ql.functions import FUNCTIONS, Function
from streams.ql.functions.registry import Constant
from streams.ql.kinds import Kind, kind_named
from streams.ql.limits import MAX_DIAGNOSTICS
from streams.ql.nodes import (
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
    Query,
    Unary,
)
from streams.ql.tree import children, statement_expressions, walk

MERGE_OPERATORS: Final = frozenset(
    {
        "latest",
        "oldest",
        "min",
        "max",
        "sum",
        "count",
        "merge",
        "capped",
        "mapmax",
        "mapmin",
        "latestmap",
        "oldestmap",
    }
)

#: Of a text that was read without an error.
WHOLE: Final = Remains()

# Functions of the form `SELECT … FROM user.changes`, which names an internal subscription.
CHANGE_FUNCTIONS: Final = frozenset({"entered", "exited"})

_ORDERED: Final = frozenset({">", ">=", "<", "<="})
_CONDITIONS: Final = (Group, IsNull, Between, Exists, Include, MatchAll)
_COMPARISONS: Final = frozenset({"=", "!=", ">", ">=", "<", "<=", "like", "contains", "in", "intersects"})


# --- calls


def call_problems(call: Call) -> list[tuple[int, str, str]]:
    """Gives what is wrong with one call by itself: place, message, hint. Arguments are not descended into."""
    function = FUNCTIONS.get(call.name)
    if function is None:
        return [(call.at, f"there is no function {call.name}", nearest(call.name, FUNCTIONS))]
    if problem := function.arity_error(len(call.args)):
        return [(call.at, problem, f"written as {function.signature}")]
    # count(*) counts events; elsewhere a condition that always holds is a slip.
    stars = [arg for arg in call.args if isinstance(arg, MatchAll)] if function.name != "count" else []
    problems = [(arg.at, "* cannot be an argument", "") for arg in stars]
    if function.name == "cast":
        problems += _cast_problems(call)
    elif function.name == "ifcase":
        problems += _ifcase_problems(call)
    return problems + _constant_problems(call, function)


def _cast_problems(call: Call) -> list[tuple[int, str, str]]:
    kind = call.args[1]
    if isinstance(kind, Literal) and isinstance(kind.value, str) and kind.value.lower() in CAST_TYPES:
        return []
    return [(kind.at, "cast needs a type", "one of " + ", ".join(sorted(CAST_TYPES)))]


CAST_TYPES: Final = frozenset(
    {
        "int",
        "integer",
        "int64",
        "bigint",
        "number",
        "float",
        "float64",
        "double",
        "decimal",
        "bool",
        "boolean",
        "string",
        "char",
        "text",
        "varchar",
        "time",
        "date",
        "datetime",
        "timestamp",
        "[]string",
        "strings",
    }
)


def _ifcase_problems(call: Call) -> list[tuple[int, str, str]]:
    *branches, last = call.args
    hint = "ifcase(v IF c, w IF d, otherwise)"
    if not branches and not _is_branch(last):
        return [(call.at, "ifcase has no branch", hint)]
    return [(each.at, "each argument but the last needs an IF", hint) for each in branches if not _is_branch(each)]


def _is_branch(node: Node) -> bool:
    return isinstance(node, Conditional) and node.otherwise is None


def _constant_problems(call: Call, function: Function) -> list[tuple[int, str, str]]:
    constants: list[Constant] = []
    problems: list[tuple[int, str, str]] = []
    for place, arg in enumerate(call.args):
        value = constant(arg)
        constants.append(value)
        if place in function.literal_args and value is None:
            hint = f'text is written in double quotes: "{arg.name}"' if isinstance(arg, Ident) else ""
            problems.append((arg.at, f"argument {place + 1} of {function.name}() must be a constant", hint))
    if not problems and function.check is not None and (message := function.check(constants)):
        at = next((call.args[place].at for place in sorted(function.literal_args) if place < len(call.args)), call.at)
        problems.append((at, message, f"written as {function.signature}"))
    return problems


def constant(node: Node) -> Constant:
    """Gives the value of a constant, None of everything else."""
    return node.value if isinstance(node, Literal) else None


# --- statements


def check_filter(
    statement: Filter,
    source: str,
    *,
    kinds: Mapping[str, str] | None,
    audiences: Collection[str] | None,
    remains: Remains = WHOLE,
) -> list[Diagnostic]:
    """Gives what is wrong or doubtful in a filter, in the order of the text.

    `kinds` are the fields that exist, None where they are not known; a name that is none of them, and a comparison
    that can never hold for its kind, are warnings: events may come before the query. `audiences` are the names, slugs
    and ids that INCLUDE can mean, in any case; one that is none of them is an error. `source` is the parsed text,
    `remains` says what is not whole in a statement of a refused one.
    """
    found = _Findings(source)
    extra = CHANGE_FUNCTIONS if statement.columns else frozenset()
    known = _Names(kinds) if kinds is not None else None
    names = {each.lower(): each for each in audiences} if audiences is not None else None
    for root in statement_expressions(statement):
        for node in walk(root):
            if found.full():
                break
            if isinstance(node, Call) and node.name not in extra and node.at not in remains.calls:
                found.errors(call_problems(node))
            elif isinstance(node, Include) and names is not None and node.name.lower() not in names:
                found.error(node.at, f"there is no audience {node.name}", nearest(node.name, names.values()))
            elif isinstance(node, Ident) and known is not None and not known.has(node):
                found.warning(node.at, f"no query feeds the field {node.name}", nearest(node.name, known.all))
            elif isinstance(node, Binary | Between) and known is not None:
                _check_comparison(node, known, found)
    if not _can_be_a_condition(statement.where):
        found.warning(statement.where.at, "this is no condition, so nobody will match", "compare it with a value")
    return found.sorted()


def check_query(query: Query, source: str, *, remains: Remains = WHOLE) -> list[Diagnostic]:
    """Gives what is wrong or doubtful in a query by itself, in the order of the text.

    `remains` says what is not whole in a statement of a refused text. Whether queries agree with each other, and
    operators with kinds, is for `streams.schema.build_schema`.
    """
    found = _Findings(source)
    for root in statement_expressions(query):
        for node in walk(root):
            if found.full():
                break
            if isinstance(node, Call) and node.at not in remains.calls:
                found.errors(call_problems(node))
            elif isinstance(node, Include):
                found.error(node.at, "INCLUDE is for filters: an event has no memberships")
    for column in query.columns:
        _check_column(column, found)
    if query.where is not None:
        _refuse_aggregates(walk(query.where), found)
    names = {column.name for column in query.columns}
    seen: set[str] = set()
    for place, name in enumerate(query.by):
        at = query.by_at[place] if place < len(query.by_at) else 0
        if name not in names and not remains.columns:
            found.error(at, f"BY names {name}, which is none of the columns", nearest(name, names))
        elif name in seen:
            found.error(at, f"BY names {name} twice")
        seen.add(name)
    return found.sorted()


def _check_column(column: Column, found: _Findings) -> None:
    name = column.name
    if column.kind is not None and kind_named(column.kind) is None:
        kinds = [each.value for each in Kind]
        found.error(column.at, f"{name} has the unknown kind {column.kind}", nearest(column.kind, kinds, every=True))
    operator = column.merge_op
    if operator is not None and operator not in MERGE_OPERATORS:
        hint = nearest(operator, MERGE_OPERATORS, every=True)
        found.error(column.at, f"{name} has the unknown merge operator {operator}", hint)
        operator = None
    outermost = column.expr
    function = FUNCTIONS.get(outermost.name) if isinstance(outermost, Call) else None
    if function is not None and function.aggregate is not None:
        by_itself = {function.aggregate} | ({"count", "sum"} if function.name == "count" else set())
        if operator is not None and operator not in by_itself:
            found.error(
                column.at,
                f"{function.name}() merges by {function.aggregate}, so {name} cannot have MERGEOP {operator}",
                "leave MERGEOP out, or the function",
            )
        _refuse_aggregates((each for child in children(outermost) for each in walk(child)), found)
    else:
        _refuse_aggregates(walk(outermost), found)
    if column.guard is not None:
        _refuse_aggregates(walk(column.guard), found)
    for word, value in (("CAPACITY", column.capacity), ("KEEP_DAYS", column.keep_days)):
        if value is not None and value >= 2**31:
            found.error(column.at, f"{word} {value} of {name} is too large", "0 is unlimited")


def _refuse_aggregates(nodes: Iterable[Node], found: _Findings) -> None:
    for node in nodes:
        if isinstance(node, Call) and (function := FUNCTIONS.get(node.name)) is not None and function.aggregate:
            found.error(
                node.at,
                f"{node.name}() stands only around a whole column",
                f"{node.name}(…) AS name, and nothing outside",
            )


def _check_comparison(node: Binary | Between, known: _Names, found: _Findings) -> None:
    if isinstance(node, Between):
        pairs = [(node.value, node.low), (node.value, node.high)]
        ordered = True
    elif node.op in _COMPARISONS and isinstance(node.left, Ident | Literal):
        pairs = [(node.left, node.right) if isinstance(node.left, Ident) else (node.right, node.left)]
        ordered = node.op in _ORDERED
    else:
        return
    for field, value in pairs:
        if not isinstance(field, Ident) or not isinstance(value, Literal) or not isinstance(value.value, str):
            continue
        text, kind = value.value, known.kind_of(field)
        if text[:3].lower() == "now" and anchor(text) is None and kind in {None, Kind.DATE, Kind.TIMES}:
            hint = "now, or now-3d: a whole number and one of y M w d h m s"
            found.warning(value.at, f"{text!r} is no moment", hint)
        elif kind == Kind.DATE and anchor(text) is None and not isinstance(to_date(text), datetime) and _compares(node):
            found.warning(value.at, f"{field.name} is a date, and {text!r} is none", '2026-01-31, or "now-3d"')
        elif ordered and kind == Kind.STRING and _number(text) is None:
            found.warning(value.at, f"{field.name} is text, and text has no order: this never holds")


def _compares(node: Binary | Between) -> bool:
    """Tells whether a node compares values as they are (not as text)."""
    return isinstance(node, Between) or node.op in _ORDERED or node.op in {"=", "!="}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _can_be_a_condition(node: Node) -> bool:
    match node:
        case Literal(value=value):
            return isinstance(value, bool)
        case Unary(op=op):
            return op == "not"
        case Binary(op=op):
            return op in _COMPARISONS
        case Call(name=name) if name in FUNCTIONS:
            return FUNCTIONS[name].returns in {None, "bool"}
        case Ident() | Call() | Conditional():
            return True
        case _:
            return isinstance(node, _CONDITIONS)


# --- names


def nearest(name: str, names: Iterable[str], *, every: bool = False) -> str:
    """Gives a hint with the name that was probably meant; with `every`, else all that there are."""
    by_lower = {each.lower(): each for each in names}
    close = get_close_matches(name.lower()[:100], by_lower, n=1, cutoff=0.6)
    if close:
        return f"did you mean {by_lower[close[0]]}?"
    return "one of " + ", ".join(sorted(by_lower.values())) if every and by_lower else ""


class _Names:
    """The fields that exist, found as evaluation finds them: exactly, without regard to case, or as part of a path."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.all = kinds
        self._lower = {name.lower(): kind for name, kind in kinds.items()}

    def has(self, ident: Ident) -> bool:
        name = ident.name.lower()
        # Meta fields begin with an underscore; every profile has them.
        if name in self._lower or name.startswith("_") or ident.path[0].lower() in self._lower:
            return True
        return any(name[:place] in self._lower for place, char in enumerate(name) if char == ".")

    def kind_of(self, ident: Ident) -> str | None:
        return self.all.get(ident.name, self._lower.get(ident.name.lower()))


class _Findings:
    """What was found, each at most once a place."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[tuple[int, str], Diagnostic] = {}

    def full(self) -> bool:
        """Tells that enough was found: looking for hints costs time."""
        return len(self._found) >= MAX_DIAGNOSTICS

    def error(self, at: int, message: str, hint: str = "") -> None:
        self._add(at, message, hint, "error")

    def warning(self, at: int, message: str, hint: str = "") -> None:
        self._add(at, message, hint, "warning")

    def errors(self, problems: Sequence[tuple[int, str, str]]) -> None:
        for at, message, hint in problems:
            self.error(at, message, hint)

    def sorted(self) -> list[Diagnostic]:
        return [self._found[key] for key in sorted(self._found)]

    def _add(self, at: int, message: str, hint: str, severity: L["error", "warning"]) -> None:
        if not self.full():
            self._found.setdefault((at, message), diagnostic(self._source, at, message, hint=hint, severity=severity))
