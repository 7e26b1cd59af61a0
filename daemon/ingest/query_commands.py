"""Changes of queries, which are changes of the schema: some at once, or back to what an earlier version had.

Each is one decision of the history, one version of the schema, and one step of the loop. Audiences that the change of
a field can move are evaluated again in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from daemon.ingest import audience_pass
from daemon.ingest.definitions import Definitions, build
from daemon.ingest.rebuild import refuse_meanwhile
from daemon.ingest.unit import Unit
from daemon.model.refusal import Conflict, NotFound
from daemon.store import definitions as store
from daemon.store import schema_versions
from daemon.store.database import Database
from daemon.store.definitions import QueryRow
from streams.ql.errors import Diagnostic, QueryError
from streams.ql.nodes import Query
from streams.ql.reading import accepted_query
from streams.schema import build_schema


@dataclass(frozen=True, slots=True)
class QueryChange:
    """What is to become of the queries: texts to store by their ALIAS, and aliases to delete."""

    put: Sequence[str] = ()
    delete: Sequence[str] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """The queries after a change: all of them in order, those asked for as they stand then, and what has moved."""

    rows: list[QueryRow]
    asked: list[QueryRow]
    stored: list[QueryRow]
    deleted: list[str]

    @property
    def empty(self) -> bool:
        """Says that nothing changes."""
        return not (self.stored or self.deleted)


def draft(definitions: Definitions, change: QueryChange, now_us: int) -> Draft:
    """Works out a change without making it.

    A later text with the same ALIAS replaces the earlier; a text that is stored already changes nothing. Raises
    QueryError with everything against the texts, alone and together with the queries that stay, NotFound for an
    alias to delete that there is none of, and Conflict for one that is to be stored too.
    """
    texts: dict[str, str] = {}
    trees: dict[str, Query] = {alias: each.query for alias, each in definitions.queries.items() if each.query}
    for text in change.put:
        query = accepted_query(text)
        texts[query.alias] = text
        trees[query.alias] = query
    rows = {alias: each.row for alias, each in definitions.queries.items()}
    for alias in change.delete:
        if alias not in rows:
            raise NotFound(f"there is no query {alias[:200]!r}")
        if alias in texts:
            raise Conflict(f"the query {alias!r} is to be both stored and deleted")
    deleted = list(dict.fromkeys(change.delete))
    stored = []
    for place, (alias, text) in enumerate(texts.items()):
        old = rows.get(alias)
        if old is not None and old.text == text:
            continue
        # New ones stand in the order in which they were given: it ranks their identities.
        created_us = now_us + place if old is None else old.created_us
        stored.append(QueryRow(alias, text, 1 if old is None else old.version + 1, created_us, now_us))
    rows.update((row.alias, row) for row in stored)
    for alias in deleted:
        del rows[alias]
    ordered = schema_versions.in_order(rows)
    build_schema([trees[row.alias] for row in ordered if row.alias in trees], changed=texts)
    return Draft(ordered, [rows[alias] for alias in texts], stored, deleted)


def disagreements(definitions: Definitions, queries: Sequence[Query], text: str) -> list[Diagnostic]:
    """Gives what is wrong with queries of one text together with those that are stored, at its place in the text."""
    trees = {alias: each.query for alias, each in definitions.queries.items() if each.query}
    trees.update((query.alias, query) for query in queries)
    try:
        build_schema(list(trees.values()), changed=dict.fromkeys((query.alias for query in queries), text))
    except QueryError as error:
        return list(error.diagnostics)
    return []


async def change(
    unit: Unit, definitions: Definitions, wanted: QueryChange
) -> tuple[list[QueryRow], Definitions | None]:
    """Stores and deletes queries, all or none; gives those that were to be stored. Raises as `draft` does."""
    made = await asyncio.to_thread(draft, definitions, wanted, unit.now_us)
    if made.empty:
        return made.asked, None
    after = await build(made.rows, _audiences(definitions), definitions.rules, definitions)
    refuse_meanwhile(definitions, after)
    described = {"description": wanted.description} if wanted.description else {}
    match made.stored, made.deleted:
        case [row], []:
            unit.decide("query", row._asdict() | described)
        case [], [alias]:
            unit.decide("query_deleted", {"alias": alias} | described)
        case stored, deleted:
            queries = [row._asdict() for row in stored]
            unit.decide("query", {"queries": queries, "deleted": deleted} | described)
    _store(unit, made.stored, made.deleted)
    audience_pass.begin(unit, definitions, after)
    return made.asked, after


async def revert(
    unit: Unit, definitions: Definitions, state: Database, number: int, description: str
) -> tuple[bool, Definitions | None]:
    """Makes the queries those of a version again; False when they are already.

    Queries keep the order of their making, so identities rank as they did. Raises NotFound, and QueryError when a
    text of that version is not accepted (any more).
    """
    wanted = await state.read(partial(schema_versions.queries_of, number=number))
    if wanted is None:
        raise NotFound(f"there is no version {number} of the schema")
    rows: list[QueryRow] = []
    moved: list[QueryRow] = []
    for row in wanted:
        found = definitions.queries.get(row.alias)
        if found is not None and (found.row.text, found.row.created_us) == (row.text, row.created_us):
            rows.append(found.row)
            continue
        version = max(row.version, found.row.version if found is not None else 0) + 1
        rows.append(row._replace(version=version, updated_us=unit.now_us))
        moved.append(rows[-1])
    deleted = sorted(definitions.queries.keys() - {row.alias for row in rows})
    if not (moved or deleted):
        return False, None
    _accept(moved)
    after = await build(rows, _audiences(definitions), definitions.rules, definitions)
    refuse_meanwhile(definitions, after)
    described = {"description": description} if description else {}
    unit.decide("revert", {"to": number, "queries": [row._asdict() for row in rows]} | described)
    _store(unit, moved, deleted)
    audience_pass.begin(unit, definitions, after)
    return True, after


def _accept(rows: Sequence[QueryRow]) -> None:
    problems: list[Diagnostic] = []
    for row in rows:
        try:
            accepted_query(row.text)
        except QueryError as error:
            problems += error.diagnostics
    if problems:
        raise QueryError(problems)


def _store(unit: Unit, stored: Sequence[QueryRow], deleted: Sequence[str]) -> None:
    # Deleted first: a query that comes back with another time of its making is a new row.
    for alias in (*deleted, *(row.alias for row in stored)):
        unit.bundle.work.append(partial(store.delete_query, alias=alias))
    for row in stored:
        unit.bundle.work.append(partial(store.save_query, row=row))


def _audiences(definitions: Definitions) -> list[store.AudienceRow]:
    return [each.row for each in definitions.audiences.values()]
