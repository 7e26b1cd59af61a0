"""What the definitions would be: queries stored or deleted and filters changed, without doing it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from daemon.ingest.definitions import (
    Definitions,
    StoredQuery,
    accepted_filter,
    build,
    refuse_cycle,
    slug_of,
    touched_audiences,
)
from daemon.ingest.query_commands import QueryChange, draft
from daemon.ingest.slices import Slices
from daemon.store.definitions import AudienceRow, QueryRow
from streams.ql.errors import Diagnostic, QueryError
from streams.ql.nodes import Query
from streams.ql.parser import parse_filter, parse_query
from streams.schema import Schema, build_schema
from streams.schema_diff import Document, document, query_item


@dataclass(frozen=True, slots=True)
class WantedFilter:
    """A filter as it would be saved: under the slug given, else under its ALIAS. The slug "": it is only tried out."""

    text: str
    slug: str | None = None


@dataclass(frozen=True, slots=True)
class Proposed:
    """The definitions before and after, and the audiences whose members may differ (numbers, ascending)."""

    before: Definitions
    after: Definitions
    touched: tuple[int, ...]
    #: The audiences whose own filter is in question, new ones too.
    filters: tuple[int, ...]


async def propose(
    definitions: Definitions, queries: QueryChange, filters: Sequence[WantedFilter], now_us: int
) -> Proposed:
    """Works out a proposal. A filter may include one that is proposed with it, whatever their order.

    Raises what storing it would: QueryError, NotFound, Conflict.
    """
    made = await asyncio.to_thread(draft, definitions, queries, now_us)
    audiences = [each.row for each in definitions.audiences.values()]
    after = definitions
    if not made.empty:
        after = await build(made.rows, audiences, definitions.rules, definitions, mapping=False)
    numbers: list[int] = []
    if filters:
        rows = {row.number: row for row in audiences}
        for wanted in filters:
            row = _row(definitions, rows, wanted, now_us)
            rows[row.number] = row
            numbers.append(row.number)
        after = await build(made.rows, sorted(rows.values()), definitions.rules, after, mapping=False)
        for number in numbers:
            row, tree = rows[number], after.audiences[number].filter
            accepted_filter(row.text, after, row.slug)
            if tree is not None:
                refuse_cycle(tree, row.text, row.slug, after)
    return Proposed(definitions, after, tuple(sorted(touched_audiences(definitions, after))), tuple(numbers))


def _row(definitions: Definitions, rows: dict[int, AudienceRow], wanted: WantedFilter, now_us: int) -> AudienceRow:
    """Gives the row that a filter would be stored as."""
    tree = parse_filter(wanted.text)
    slug = slug_of(tree.alias or "") if wanted.slug is None else wanted.slug
    if not slug and wanted.slug is None:
        raise QueryError([Diagnostic("an audience needs a name: end the statement with ALIAS name", 1, 1)])
    old = next((row for row in rows.values() if row.slug == slug), None)
    if old is not None:
        return old if old.text == wanted.text else old._replace(text=wanted.text, version=old.version + 1)
    number = max([*definitions.audiences, *rows], default=0) + 1
    name = tree.alias or slug
    return AudienceRow(number, uuid.uuid4().hex, slug, name, tree.description, wanted.text, 1, now_us, now_us)


async def document_of(definitions: Definitions) -> Document:
    """Gives the schema of a snapshot as a document."""
    trees = [each.query for each in definitions.queries.values() if each.query]
    return await _document(trees, definitions.schema)


async def document_of_rows(rows: Sequence[QueryRow], definitions: Definitions) -> tuple[Document, list[StoredQuery]]:
    """Gives the schema of stored queries, such as those of an earlier version, and what became of each text.

    Texts that the snapshot has as well are not parsed again; one that is not accepted any more is left out.
    """
    slices = Slices()
    queries = []
    for row in rows:
        queries.append(_read(row, definitions))
        if slices.over:
            await slices.turn()
    trees = [each.query for each in queries if each.query is not None]
    return await _document(trees, build_schema(trees)), queries


async def _document(queries: Sequence[Query], schema: Schema) -> Document:
    # A schema may have thousands of expressions to print.
    slices = Slices()
    items = {}
    for query in queries:
        items[query.alias] = query_item(query)
        if slices.over:
            await slices.turn()
    return document(items, schema)


def _read(row: QueryRow, definitions: Definitions) -> StoredQuery:
    known = definitions.queries.get(row.alias)
    if known is not None and known.row.text == row.text:
        return replace(known, row=row)
    try:
        return StoredQuery(row, parse_query(row.text))
    except QueryError as error:
        return StoredQuery(row, None, str(error))
