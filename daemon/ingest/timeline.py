"""Which queries held at a position of the log: the versions that mapped an event when it came, or have since (P8, P10).

A version holds for what the loop took after the decision for it. Queries that were applied to the past have mapped
that as well.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from daemon.store import history, schema_versions
from daemon.store.definitions import QueryRow
from daemon.store.events import Lane
from daemon.store.rebuilds import RebuildRow
from streams.mapping import Key, Mapper
from streams.ql.errors import QueryError
from streams.ql.nodes import Query
from streams.ql.parser import parse_query
from streams.rebuilding import feeding, identifying
from streams.schema import Schema, build_schema, schema_of

#: Versions of all queries together that are kept compiled.
_COMPILED: Final = 64
_NOTHING: Final = schema_of([])


@dataclass(frozen=True, slots=True)
class Held:
    """The queries that held from a decision on."""

    sequence: int
    at_us: int
    realtime: int
    bulk: int
    rows: tuple[QueryRow, ...]

    def after(self, lane: Lane) -> int:
        """Gives the position behind which they held."""
        return self.realtime if lane == "realtime" else self.bulk


class Compiled(NamedTuple):
    """Queries of one moment, as far as they are still accepted."""

    schema: Schema
    queries: tuple[Query, ...]
    identities: Mapper


class Timeline:
    """The versions of all queries over the log. Made of what is stored at one moment, by `read`."""

    def __init__(self, held: Sequence[Held], rebuilds: Sequence[RebuildRow]) -> None:
        self._held = held
        self._places: dict[Lane, list[int]] = {
            "realtime": [each.realtime for each in held],
            "bulk": [each.bulk for each in held],
        }
        self.rebuilds = rebuilds
        #: Mappers by the decision from which they held, kept while this is: they are asked for each event.
        self._then: dict[int, Mapper] = {}

    @classmethod
    def read(cls, db: sqlite3.Connection, rebuilds: Sequence[RebuildRow]) -> Timeline:
        """Reads the history; costs a look at each decision that there ever was."""
        held: list[Held] = []
        queries: dict[str, QueryRow] = {}
        for each in history.query_decisions(db):
            schema_versions.decided(queries, each.kind, each.body)
            rows = tuple(schema_versions.in_order(queries))
            held.append(Held(each.sequence, each.at_us, each.realtime, each.bulk, rows))
        return cls(held, rebuilds)

    def at(self, lane: Lane, position: int) -> Held | None:
        """Gives the queries that mapped an event when it came; None before the first."""
        place = bisect_left(self._places[lane], position)
        return self._held[place - 1] if place else None

    def as_of(self, sequence: int) -> Held | None:
        """Gives the queries that held at a decision."""
        place = bisect_left([each.sequence for each in self._held], sequence)
        return self._held[place - 1] if place else None

    def fed_by(self, alias: str) -> frozenset[str]:
        """Gives the names of the fields that any version of a query has fed."""
        rows = {row for each in self._held for row in each.rows if row.alias == alias}
        return frozenset(column.name for query in _trees(rows) for column in query.columns)

    def keys(
        self, lane: Lane, position: int, stream: str, body: dict[str, Any], event_us: int, before: int
    ) -> frozenset[Key] | None:
        """Gives the keys that queries have found in an event before the decision `before`; None: none had a key."""
        held = self.at(lane, position)
        mappers = [] if held is None else [self._mapper(held)]
        mappers += [
            _fed(held.rows, each.fields)
            for each in self.rebuilds
            if each.id < before and position <= each.at(lane) and (held := self.as_of(each.id)) is not None
        ]
        found = [mapped for mapper in mappers for mapped in mapper.map(stream, body, event_us)]
        return frozenset(key for mapped in found for key in mapped.keys) if found else None

    def _mapper(self, held: Held) -> Mapper:
        mapper = self._then.get(held.sequence)
        if mapper is None:
            if len(self._then) >= _COMPILED:
                self._then.clear()
            mapper = self._then[held.sequence] = compiled(held.rows).identities
        return mapper


@lru_cache(maxsize=_COMPILED)
def compiled(rows: tuple[QueryRow, ...]) -> Compiled:
    """Compiles queries that held together; those that are not accepted any more are left out."""
    trees = _trees(rows)
    try:
        schema = build_schema(trees)
    except QueryError:
        trees, schema = [], _NOTHING
    return Compiled(schema, tuple(trees), Mapper(schema, identifying(trees)))


@lru_cache(maxsize=_COMPILED)
def _fed(rows: tuple[QueryRow, ...], fields: tuple[str, ...]) -> Mapper:
    """The identities of the queries that fed some fields."""
    whole = compiled(rows)
    return Mapper(whole.schema, identifying(feeding(whole.queries, fields)))


def _trees(rows: Iterable[QueryRow]) -> list[Query]:
    trees = []
    for row in rows:
        try:
            trees.append(parse_query(row.text))
        except QueryError:
            continue
    return trees
