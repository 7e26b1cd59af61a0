"""What a profile's fields are: kinds, merge operators, identities with their ranks, made from the queries.

A field is what queries say about it together. What one states (KIND, MERGEOP, an aggregate, CAPACITY) holds for all;
where two state different things the schema is refused, with both aliases named. Unstated kinds follow from the
expression, else `string`; unstated operators from the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Final, TypeAlias

from streams.merge import Merge, Slot, State, Value, allowed_operators, default_operator, make_slot
from streams.ql.errors import Diagnostic, QueryError, diagnostic
from streams.ql.functions import FUNCTIONS
from streams.ql.kinds import Kind, kind_named
from streams.ql.nodes import (
    Between,
    Binary,
    Call,
    Column,
    Conditional,
    Exists,
    Group,
    Include,
    IsNull,
    Literal,
    MatchAll,
    Node,
    Query,
    Unary,
)

#: Kinds that an identity may have; those of one value, and those of several.
SINGLE_IDENTITIES: Final = frozenset({Kind.STRING, Kind.INT, Kind.NUMBER})
MANY_IDENTITIES: Final = frozenset({Kind.STRINGS, Kind.TS_STRINGS})
_AGREE: Final = "a field has one kind and one merge operator in all queries: change them together, in one request"
_NO_GENERATIONS: Final[Mapping[str, tuple[int, int]]] = {}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of profiles.

    `identity`: profiles are found by it. `single`: an identity of which a profile has one value at most. `rank`: 0 is
    the strongest identity; None for other fields. `capacity` (elements) and `keep_days`: 0 is unlimited. `generation`
    is the rebuilding that made its states, 0 for none; `shadow` the one that is making them anew, see `rebuilding`.
    """

    name: str
    kind: str
    merge_op: str
    identity: bool = False
    single: bool = False
    rank: int | None = None
    capacity: int = 0
    keep_days: int = 0
    shortdesc: str = ""
    longdesc: str = ""
    queries: tuple[str, ...] = ()
    generation: int = 0
    shadow: int = 0


@dataclass(frozen=True, eq=False)
class Schema:
    """All fields, in the order of their first mention, and what is worked out from them once.

    Compared by identity: profiles and mappers in memory belong to the schema that they were made with.
    """

    fields: Mapping[str, Field]
    identities: tuple[Field, ...]
    kinds: Mapping[str, str]
    slots: dict[str, Slot]
    merges: dict[str, Merge]
    by_key: dict[str, Slot]
    singles: frozenset[str]
    """Identities of one value: a profile shows the attached key."""
    single_slots: tuple[Slot, ...]
    single_bits: int
    limited: tuple[Slot, ...]
    """Identities of several values with a capacity."""
    expiring: tuple[Slot, ...]
    """Fields with keep_days."""
    shadows: Mapping[str, Slot]
    """By field, where states that a rebuilding makes grow unseen; see `rebuilding`."""
    states: Mapping[str, Slot]
    """By the key of a state, seen or unseen: how two of them are combined."""
    generations: Mapping[str, tuple[int, int]]
    """By each name that was ever rebuilt: the generation of its states, and that which is being made (else 0)."""
    shows: dict[tuple[str, ...], Callable[[dict[str, State]], dict[str, Value]]] = field(default_factory=dict)
    """By the keys of a profile's states: what makes its typed values (`streams.profile`)."""
    _names: dict[int, frozenset[str]] = field(default_factory=dict)

    def names_of(self, mask: int) -> frozenset[str]:
        """Gives the names of the fields whose bits are set, as `Profile.apply` returns them."""
        names = self._names.get(mask)
        if names is None:
            if len(self._names) > 4096:
                self._names.clear()
            names = frozenset(slot.name for slot in self.slots.values() if slot.bit & mask)
            self._names[mask] = names
        return names

    def mask_of(self, names: Iterable[str]) -> int:
        """Gives the bits of the fields with these names; unknown names have none."""
        mask = 0
        for name in names:
            slot = self.slots.get(name)
            if slot is not None:
                mask |= slot.bit
        return mask


#: Where something is said: the alias of a query, and the place in its text.
_Said: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Problem:
    """Something that cannot be; it can be told at any of the places, the last is the newest."""

    message: str
    said: tuple[_Said, ...] = ()
    hint: str = ""


@dataclass(slots=True)
class _Draft:
    """A field while the queries are read; `…_by` is where it was stated first."""

    name: str
    kind: str | None = None
    kind_by: _Said = ("", 0)
    guesses: dict[str, _Said] = field(default_factory=dict)  # the kinds of expressions, where nobody states one
    operator: str | None = None
    operator_by: _Said = ("", 0)
    capacity: int | None = None
    keep_days: int | None = None
    shortdesc: str = ""
    longdesc: str = ""
    queries: list[str] = field(default_factory=list)


def build_schema(
    queries: Sequence[Query], *, ranks: Sequence[str] = (), changed: Mapping[str, str] | None = None
) -> Schema:
    """Makes the schema of all queries together; they must be in a lasting order (that of their creation).

    Identities are ranked as first named in BY, query after query; names in `ranks` come before all others.
    `changed` has the texts, by alias, of queries that are about to be stored: errors are told at their place in
    them, and where one of these makes a field's kind by its expression, another may not make another kind unstated.

    Raises:
        QueryError: queries disagree about a field, an operator does not suit its kind, a BY name is no column or of
            a kind that cannot identify, or the queries feed different tables.
    """
    texts = changed or {}
    problems: list[_Problem] = []
    drafts: dict[str, _Draft] = {}
    by: dict[str, str] = {}
    tables: dict[str, _Said] = {}
    for query in queries:
        tables.setdefault(query.table.lower(), (query.alias, 0))
        for column in query.columns:
            draft = drafts.setdefault(column.name, _Draft(column.name))
            _state(draft, column, query.alias, problems)
        names = {column.name for column in query.columns}
        for name, at in zip_longest(query.by, query.by_at, fillvalue=0):
            if name in names:
                by.setdefault(str(name), query.alias)
            else:
                told = f"{query.alias}: BY names {name}, which is none of the columns"
                problems.append(_Problem(told, ((query.alias, int(at)),)))
    if len(tables) > 1:
        told = ", ".join(f"{alias} feeds {table}" for table, (alias, _) in tables.items())
        problems.append(_Problem(f"queries must feed one table: {told}", tuple(tables.values())))
    order = [*(name for name in ranks if name in by), *(name for name in by if name not in ranks)]
    fields = {
        name: _finish(draft, order.index(name) if name in by else None, problems) for name, draft in drafts.items()
    }
    problems += [each for draft in drafts.values() if (each := _unstated(draft, texts)) is not None]
    if problems:
        raise QueryError([_placed(each, texts) for each in problems])
    return schema_of(fields.values())


def _placed(problem: _Problem, texts: Mapping[str, str]) -> Diagnostic:
    """Tells a problem at its place in a text that is about to be stored, if it has one."""
    for alias, at in reversed(problem.said):
        if alias in texts:
            return diagnostic(texts[alias], at, problem.message, hint=problem.hint)
    return Diagnostic(problem.message, 1, 1, hint=problem.hint)


def schema_of(fields: Iterable[Field], generations: Mapping[str, tuple[int, int]] = _NO_GENERATIONS) -> Schema:
    """Makes a schema of ready fields, which must be consistent (see `build_schema`).

    `generations`: of fields that were rebuilt, or are, see `Schema.generations`.
    """
    known = {each.name: each for each in fields}
    for name in generations.keys() & known.keys():
        generation, shadow = generations[name]
        known[name] = replace(known[name], generation=generation, shadow=shadow)
    slots = {each.name: _slot(each, place, each.generation) for place, each in enumerate(known.values())}
    shadows = {each.name: _slot(each, place, each.shadow) for place, each in enumerate(known.values()) if each.shadow}
    identities = sorted((each for each in known.values() if each.rank is not None), key=lambda each: each.rank or 0)
    singles = tuple(slots[each.name] for each in identities if each.single)
    return Schema(
        fields=known,
        identities=tuple(identities),
        kinds={each.name: each.kind for each in known.values()},
        slots=slots,
        merges={name: _merge(slot, shadows.get(name)) for name, slot in slots.items()},
        by_key={slot.key: slot for slot in slots.values()},
        singles=frozenset(slot.name for slot in singles),
        single_slots=singles,
        single_bits=sum(slot.bit for slot in singles),
        limited=tuple(slots[each.name] for each in identities if not each.single and each.capacity),
        expiring=tuple(slot for slot in slots.values() if slot.keep_us),
        shadows=shadows,
        states={slot.key: slot for slot in (*slots.values(), *shadows.values())},
        generations=generations,
    )


def _slot(field: Field, place: int, generation: int) -> Slot:
    return make_slot(
        field.name, field.kind, field.merge_op, bit=1 << place, capacity=field.capacity, keep_days=field.keep_days,
        generation=generation,
    )  # fmt: skip


def _merge(slot: Slot, shadow: Slot | None) -> Merge:
    """Gives how a field merges: while it is rebuilt, what comes goes into both of its states."""
    if shadow is None:
        return slot.merge
    seen, unseen = slot.merge, shadow.merge

    def merge(states: dict[str, State], view: dict[str, Value], value: Value, us: int, event_id: str) -> int:
        unseen(states, {}, value, us, event_id)
        return seen(states, view, value, us, event_id)

    return merge


def _state(draft: _Draft, column: Column, alias: str, problems: list[_Problem]) -> None:
    """Takes up what a column says about its field."""
    said = (alias, column.at)
    if alias not in draft.queries:
        draft.queries.append(alias)
    if column.kind is not None:
        kind = kind_named(column.kind)
        if kind is None:
            problems.append(_Problem(f"{alias}: {column.name} has the unknown kind {column.kind}", (said,)))
        elif draft.kind is None:
            draft.kind, draft.kind_by = kind, said
        elif draft.kind != kind:
            told = f"{column.name} is {draft.kind} in {draft.kind_by[0]}, but {kind} in {alias}"
            problems.append(_Problem(told, (draft.kind_by, said), _AGREE))
    operator = stated_operator(column)
    if operator is not None:
        if draft.operator is None:
            draft.operator, draft.operator_by = operator, said
        elif draft.operator != operator:
            told = f"{column.name} merges by {draft.operator} in {draft.operator_by[0]}, but by {operator} in {alias}"
            problems.append(_Problem(told, (draft.operator_by, said), _AGREE))
    guess = expression_kind(column.expr)
    if guess is not None:
        draft.guesses.setdefault(guess, said)
    draft.capacity = draft.capacity if column.capacity is None else max(column.capacity, draft.capacity or 0)
    draft.keep_days = draft.keep_days if column.keep_days is None else max(column.keep_days, draft.keep_days or 0)
    draft.shortdesc = draft.shortdesc or column.shortdesc or ""
    draft.longdesc = draft.longdesc or column.longdesc or ""


def _unstated(draft: _Draft, texts: Mapping[str, str]) -> _Problem | None:
    """Gives what is wrong with the kinds that expressions make of a field for which no query states one."""
    if draft.kind is not None or draft.operator == "count" or len(draft.guesses) < 2:
        return None
    (first, first_by), (second, second_by) = list(draft.guesses.items())[:2]
    if not {first_by[0], second_by[0]} & texts.keys():
        return None  # what is stored already stays as it is: the first counts
    told = f"{draft.name} is {first} by its expression in {first_by[0]}, but {second} in {second_by[0]}"
    return _Problem(told, (first_by, second_by), f"state one for all: {draft.name} … KIND {first}, or KIND {second}")


def _finish(draft: _Draft, rank: int | None, problems: list[_Problem]) -> Field:
    """Settles kind and operator of a field."""
    name = draft.name
    guess = next(iter(draft.guesses), None)
    kind = draft.kind or guess or (_OPERATOR_KINDS.get(draft.operator or "") or Kind.STRING)
    operator = draft.operator
    if operator == "count" and draft.kind is None:
        kind = Kind.INT
    if operator in {"mapmin", "mapmax", "latestmap", "oldestmap"} and not draft.kind and not guess:
        kind = Kind.MAP_VALUE
    if operator is None:
        operator = default_operator(kind)
    elif operator not in allowed_operators(kind):
        accepted = ", ".join(sorted(allowed_operators(kind)))
        told = f"{name} is {kind}, which cannot merge by {operator}; it can by: {accepted}"
        problems.append(_Problem(told, (draft.kind_by, draft.operator_by)))
    single = rank is not None and kind in SINGLE_IDENTITIES
    if rank is not None:
        if not single and kind not in MANY_IDENTITIES:
            told = f"{name} stands in BY, so it must be string, int or []string, not {kind}"
            problems.append(_Problem(told, (*draft.guesses.values(), draft.kind_by)))
        elif operator not in {"latest", "oldest", "merge", "capped"}:
            told = f"{name} stands in BY, so it cannot merge by {operator}"
            problems.append(_Problem(told, (draft.operator_by,)))
    return Field(
        name=name,
        kind=kind,
        merge_op=operator,
        identity=rank is not None,
        single=single,
        rank=rank,
        capacity=draft.capacity or 0,
        keep_days=draft.keep_days or 0,
        shortdesc=draft.shortdesc,
        longdesc=draft.longdesc,
        queries=tuple(draft.queries),
    )


# --- what an expression tells

_OPERATOR_KINDS: Final[dict[str, Kind]] = {"count": Kind.INT, "sum": Kind.NUMBER}
_COMPARISONS: Final = frozenset({"=", "!=", ">", ">=", "<", "<=", "like", "contains", "in", "intersects"})


def stated_operator(column: Column) -> str | None:
    """Gives the merge operator that a column states: by its outermost aggregate, or by MERGEOP."""
    if isinstance(column.expr, Call):
        function = FUNCTIONS.get(column.expr.name)
        if function is not None and function.aggregate is not None:
            return "count" if function.name == "count" else function.aggregate
    return column.merge_op.lower() if column.merge_op is not None else None


def expression_kind(node: Node) -> str | None:
    """Gives the kind of an expression's values where its form tells, else None."""
    match node:
        case Literal(value=value):
            return _LITERAL_KINDS.get(type(value))
        case Group() | IsNull() | Exists() | Include() | MatchAll() | Between() | Unary(op="not"):
            return Kind.BOOL
        case Unary(operand=operand):
            return expression_kind(operand) or Kind.NUMBER
        case Binary(op=op) if op in _COMPARISONS:
            return Kind.BOOL
        case Binary(op=op, left=left, right=right):
            both = {expression_kind(left), expression_kind(right)}
            return Kind.INT if both == {Kind.INT} or op == "%" else Kind.NUMBER
        case Conditional(value=value, otherwise=otherwise):
            return expression_kind(value) or (expression_kind(otherwise) if otherwise is not None else None)
        case Call():
            return _call_kind(node)
        case _:
            return None


_LITERAL_KINDS: Final[Mapping[type, str]] = {str: Kind.STRING, bool: Kind.BOOL, int: Kind.INT, float: Kind.NUMBER}


def _call_kind(call: Call) -> str | None:
    function = FUNCTIONS.get(call.name)
    name = function.name if function is not None else call.name
    if name == "cast" and len(call.args) == 2 and isinstance(call.args[1], Literal):
        return kind_named(str(call.args[1].value))
    if name in {"ifcase", "oneof", "if"}:
        values = call.args[1:] if name == "if" else call.args
        return next((kind for kind in map(expression_kind, values) if kind is not None), None)
    if name in _SHAPING:
        return expression_kind(call.args[0]) if call.args else None
    if name == "match":
        return Kind.MAP_VALUE
    if name == "geodistance":
        return Kind.NUMBER if len(call.args) == 2 else Kind.BOOL
    if name in {"min", "max"}:
        return (expression_kind(call.args[0]) if call.args else None) or Kind.NUMBER
    if name == "map" and len(call.args) == 2:
        of = expression_kind(call.args[1])
        return _MAPS_OF.get(of or "", Kind.MAP_STRING if of is None else Kind.MAP_VALUE)
    return kind_named(function.returns) if function is not None and function.returns else None


#: Functions that give what they take: some elements of a list, some entries of a map.
_SHAPING: Final = frozenset({"filter", "filtermatch", "strip", "array.slice"})
_MAPS_OF: Final[Mapping[str, str]] = {
    Kind.INT: Kind.MAP_INT,
    Kind.NUMBER: Kind.MAP_NUMBER,
    Kind.STRING: Kind.MAP_STRING,
    Kind.DATE: Kind.MAP_TIME,
    Kind.BOOL: Kind.MAP_BOOL,
}
