"""When a filter could next give another result by time alone (FACTS 3.4).

Every now-relative term names the whole seconds at which it can change for given data. The boundary is the first
of them at which evaluating again gives another result; that calendar steps sometimes go back is in the terms
(`Anchor.flips`), that terms cancel out is settled by evaluating. Functions that read the clock in a way of their
own (`hourofday()`) have no such seconds: the coming hours, days and months are looked at instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from streams.ql import rules
from streams.ql.coerce import to_date, to_int, to_number
from streams.ql.compiler_fields import Fields, Known, Unknown
from streams.ql.compiler_source import Unit, Writer
from streams.ql.datemath import LATEST, SECOND, Anchor, Operator, anchor
from streams.ql.functions import FUNCTIONS
from streams.ql.kinds import Kind
from streams.ql.missing import MISSING, Value
from streams.ql.nodes import Between, Binary, Call, Ident, Literal, Node
from streams.ql.tree import children

Evaluate = Callable[[Mapping[str, Value], datetime], tuple[bool, bool]]
Find = Callable[[Mapping[str, Value], datetime], datetime | None]

#: Seconds looked at for one profile, and about how many nodes and elements are evaluated for it. Beyond them the last
#: one is given: to look again then is not wrong.
_MOST_POINTS: Final = 4096
_MOST_WORK: Final = 5_000_000
_FEW_POINTS: Final = 64
_HOURS: Final = 8 * 24
_DAYS: Final = 400
_MONTHS: Final = 12 * 40
_UNDATED: Final = frozenset({Kind.STRING, Kind.INT, Kind.NUMBER, Kind.BOOL, Kind.STRINGS, Kind.TS_STRINGS})


@dataclass(frozen=True, slots=True)
class Term:
    """`value OPERATOR anchor`. `reads` when text and numbers are compared as dates too."""

    value: Node
    anchor: Anchor
    operator: Operator
    reads: bool


@dataclass(frozen=True, slots=True)
class Window:
    """`timewindow(times, count, days)`."""

    times: Node
    count: Node
    days: Node


class Clockwork:
    """The now-relative parts of trees."""

    def __init__(self, trees: Iterable[Node], fields: Fields) -> None:
        self._fields = fields
        self.terms: list[Term | Window] = []
        self.other = False  # a part whose changes no term names
        self.size = 0
        pending = list(trees)
        while pending:
            self.size += 1
            pending.extend(self._take(pending.pop()))

    @property
    def ticks(self) -> bool:
        """Whether time alone can change the result."""
        return bool(self.terms) or self.other

    def _take(self, node: Node) -> Iterable[Node]:
        """Notes what the node itself is; gives the nodes below it that are still to be looked at."""
        match node:
            case Binary(op=op, left=left, right=right) if op in rules.COMPARISONS:
                if (found := self._relative(right, left)) is not None:
                    self.terms.append(Term(left, found, op, isinstance(right, Call)))
                    return [left]
                if (found := self._relative(left, right)) is not None:
                    mirrored: Operator = rules.MIRRORED[op]  # type: ignore[assignment]
                    self.terms.append(Term(right, found, mirrored, isinstance(left, Call)))
                    return [right]
            case Between(value=value, low=low, high=high):
                return self._between(value, low, high)
            case Call(name="timewindow", args=(times, count, days)):
                self.terms.append(Window(times, count, days))
            case Call(name=name, args=args):
                function = FUNCTIONS.get(name)
                if function is not None and function.takes_now and _reads_clock(name, args):
                    self.other = True
            case _:
                pass
        return children(node)

    def _between(self, value: Node, low: Node, high: Node) -> list[Node]:
        now = self._relative(value, low) if isinstance(value, Call) else None
        if now is not None:
            self.terms.append(Term(low, now, "<", reads=True))
            self.terms.append(Term(high, now, ">", reads=True))
            return [low, high]
        rest = [value]
        bounds: tuple[tuple[Node, Operator], ...] = ((low, ">"), (high, "<"))
        for bound, operator in bounds:
            found = self._relative(bound, value)
            if found is None:
                rest.append(bound)
            else:
                self.terms.append(Term(value, found, operator, reads=False))
        return rest

    def _relative(self, node: Node, other: Node) -> Anchor | None:
        """Gives the anchor that `node` is beside `other`, or None."""
        match node:
            case Literal(value=str(text)):
                return anchor(text) if self._may_be_date(other) else None
            case Call(name="now", args=()):
                return Anchor()
            case Call(name="todate", args=(Literal(value=str(text)),)):
                return anchor(text)
            case Call(name="todatein", args=(Literal(value=str(text)), _zone)):
                return anchor(text)
            case _:
                return None

    def _may_be_date(self, node: Node) -> bool:
        if not isinstance(node, Ident):
            return not isinstance(node, Literal)
        found = self._fields.resolve(node)
        return isinstance(found, Unknown) or found.kind not in _UNDATED


def boundary_of(clockwork: Clockwork, fields: Fields, evaluate: Evaluate) -> Find:
    """Makes the function that finds a filter's boundary for a profile's values at a moment."""
    if not clockwork.ticks:
        return _never
    sources = _sources(clockwork, fields)

    def find(data: Mapping[str, Value], now: datetime) -> datetime | None:
        found: list[datetime] = []
        for source in sources:
            source(data, now, found)
        if clockwork.other:
            return _searched(evaluate, data, now, found)
        if not found:
            return None
        current = evaluate(data, now)
        most = _MOST_POINTS
        if len(found) > 1:
            found = sorted(set(found))
            if len(found) > _FEW_POINTS:
                most = _most_points(clockwork, data)
                found = found[:most]
        for point in found:
            if evaluate(data, point) != current:
                return point
        return None if len(found) < most else point

    return find


def _most_points(clockwork: Clockwork, data: Mapping[str, Value]) -> int:
    """How many seconds are looked at, so that large filters over large collections take bounded time."""
    longest = max((len(value) for value in data.values() if value.__class__ is list), default=0)
    work = clockwork.size + len(clockwork.terms) * longest
    return max(_FEW_POINTS, min(_MOST_POINTS, _MOST_WORK // work))


def date_terms(clockwork: Clockwork, fields: Fields) -> tuple[tuple[str, timedelta], ...] | None:
    """Gives the date fields and distances at which alone time can change the result; None where that is not all.

    No change of the result comes before the first of the moments `value + distance` that is after now, with the
    values in whole seconds.
    """
    if clockwork.other:
        return None
    found = [_date_term(term, fields) if isinstance(term, Term) else None for term in clockwork.terms]
    fixed = tuple(each for each in found if each is not None)
    return fixed if len(fixed) == len(found) else None


def _date_term(term: Term, fields: Fields) -> tuple[str, timedelta] | None:
    """The field and the distance of `date field OPERATOR now±N`, where the distance is always the same."""
    field = fields.resolve(term.value) if isinstance(term.value, Ident) else None
    distances = term.anchor.distances(term.operator)
    if isinstance(field, Known) and field.kind == Kind.DATE and distances is not None and len(distances) == 1:
        return field.name, distances[0]
    return None


def _never(_data: Mapping[str, Value], _now: datetime) -> None:
    return None


#: Adds the candidate seconds after `now` to the list.
Source = Callable[[Mapping[str, Value], datetime, list[datetime]], None]


def _sources(clockwork: Clockwork, fields: Fields) -> list[Source]:
    """For each term the function that gives its candidate seconds."""
    unit = Unit(fields, fast=False)
    writer = Writer(unit)
    parts: list[tuple[Term | Window, list[str]]] = []
    for term in clockwork.terms:
        nodes = [term.value] if isinstance(term, Term) else [term.times, term.count, term.days]
        names = [unit.fresh("v") for _ in nodes]
        for name, node in zip(names, nodes, strict=True):
            unit.add_entry(name, [f"return {writer.value(node)}"], otherwise="M")
        parts.append((term, names))
    namespace, _source = unit.make()
    sources: list[Source] = []
    for term, names in parts:
        functions = [namespace[name] for name in names]
        if isinstance(term, Window):
            sources.append(_of_window(*functions))
            continue
        source = _of_term(term, *functions)
        fixed = _date_term(term, fields)
        sources.append(source if fixed is None else _of_date(*fixed, source))
    return sources


def _of_date(name: str, distance: timedelta, otherwise: Source) -> Source:
    """The source of a date field and a fixed distance, which is what nearly all audiences have."""

    def source(data: Mapping[str, Value], now: datetime, found: list[datetime]) -> None:
        value = data.get(name)
        if value.__class__ is not datetime:
            return otherwise(data, now, found)
        try:
            point = (value.replace(microsecond=0) if value.microsecond else value) + distance
        except OverflowError:
            return None
        if point > now:
            found.append(point)
        return None

    return source


def _of_term(term: Term, value_of: Callable[..., Value]) -> Source:
    flips, operator, reads = term.anchor.flips, term.operator, term.reads

    def source(data: Mapping[str, Value], now: datetime, found: list[datetime]) -> None:
        value = value_of(data, now)
        if value.__class__ is datetime:
            found.extend(point for point in flips(value, operator) if point > now)
        elif value.__class__ is list:
            for date in _deciding([each for each in value if each.__class__ is datetime], operator):
                found.extend(point for point in flips(date, operator) if point > now)
        elif reads and (date := rules.moment(value)) is not MISSING:
            found.extend(point for point in flips(date, operator) if point > now)

    return source


def _deciding(dates: list[datetime], operator: Operator) -> list[datetime]:
    """Any of the dates satisfies an order when the latest (or earliest) of them does."""
    if not dates or operator in rules.EQUALITY:
        return dates
    return [max(dates) if operator in {">", ">="} else min(dates)]


def _of_window(times_of: Callable[..., Value], count_of: Callable[..., Value], days_of: Callable[..., Value]) -> Source:
    """The seconds at which the number of times in the window reaches the count, or falls below it."""

    def source(data: Mapping[str, Value], now: datetime, found: list[datetime]) -> None:
        times, count, days = times_of(data, now), to_int(count_of(data, now)), to_number(days_of(data, now))
        if not isinstance(count, int) or not isinstance(days, float):
            return
        elements = times if isinstance(times, list) else times.values() if isinstance(times, dict) else [times]
        changes: dict[datetime, int] = {}
        inside = 0
        for date in {to_date(each) for each in elements}:
            if isinstance(date, datetime):
                for point, change in ((_ceiled(date), 1), (_ceiled(_after(date, days)), -1)):
                    if point > now:
                        changes[point] = changes.get(point, 0) + change
                    else:
                        inside += change
        for point in sorted(changes):
            before = inside >= count
            inside += changes[point]
            # Within the second of now the count may already be that of its end.
            if (inside >= count) is not before or point - now < SECOND:
                found.append(point)

    return source


def _after(date: datetime, days: float) -> datetime:
    try:
        return min(date + timedelta(days=days), LATEST)
    except (OverflowError, ValueError):
        return LATEST


def _searched(evaluate: Evaluate, data: Mapping[str, Value], now: datetime, points: list[datetime]) -> datetime | None:
    """Looks at the points and at the coming hours, days and months.

    Between the last equal and the first different one it halves the distance, down to the second.
    """
    current = evaluate(data, now)
    before = now.replace(microsecond=0)
    for point in sorted({*points, *_coming(before)}):
        if evaluate(data, point) != current:
            while point - before > SECOND:
                middle = before + timedelta(seconds=(point - before) // SECOND // 2)
                if evaluate(data, middle) == current:
                    before = middle
                else:
                    point = middle  # noqa: PLW2901  (the upper end of the search)
            return point
        before = point
    return None


def _coming(now: datetime) -> Iterator[datetime]:
    steps = ((timedelta(hours=1), _HOURS), (timedelta(days=1), _DAYS))
    for step, count in steps:
        begin = now.replace(minute=0, second=0) if step < timedelta(days=1) else now.replace(hour=0, minute=0, second=0)
        for place in range(1, count + 1):
            if LATEST - begin > step * place:
                yield begin + step * place
    first = Anchor(months=1)
    month = now.replace(day=1, hour=0, minute=0, second=0)
    for _ in range(_MONTHS):
        month = first.at(month)
        yield month


def _ceiled(date: datetime) -> datetime:
    return date if not date.microsecond else date.replace(microsecond=0) + SECOND


def _reads_clock(name: str, args: tuple[Node, ...]) -> bool:
    """Without a date among its arguments such a function takes the clock's; with date maths it follows it."""
    if not args or (name == "maptime" and len(args) == 1):
        return name != "uuid"
    return any(isinstance(each, Literal) and isinstance(each.value, str) and anchor(each.value) for each in args)
