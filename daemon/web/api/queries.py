"""`/api/query`: LQL definitions, and trying them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio.to_thread
from aiohttp import web

from daemon import clock
from daemon.ingest.definitions import StoredQuery, reads_any
from daemon.ingest.query_commands import QueryChange, disagreements
from daemon.web import body
from daemon.web.api import proposals
from daemon.web.api.named import query_named
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, endpoint
from daemon.web.services import SERVICES
from streams.ql.errors import Diagnostic
from streams.ql.reading import read_queries
from streams.query_rows import query_row
from streams.schema import Schema

TEXT = {"text/plain": {"type": "string"}}
VERDICT = {
    "type": "object",
    "properties": {"valid": {"type": "boolean"}, "diagnostics": {"type": "array", "items": {"type": "object"}}},
}

#: Sample events of one `_test` at most.
TEST_EVENTS = 1000


def routes() -> list[web.RouteDef]:
    """Gives the routes of queries."""
    return [
        web.post("/api/query", put_query),
        web.get("/api/query", list_queries),
        web.post("/api/query/_validate", validate_query),
        web.post("/api/query/_test", test_query),
        web.get("/api/query/{alias}", get_query),
        web.delete("/api/query/{alias}", delete_query),
    ]


@endpoint(
    "admin",
    tag="definitions",
    body=proposals.accepted({**proposals.CHANGE, "description": {"type": "string"}}),
    query={"description": "what the change is for; kept with the version of the schema that it makes"},
)
async def put_query(request: web.Request) -> object:
    """Makes a query, or replaces the one with its ALIAS; it applies to events from now on.

    The body is LQL; several statements are separated by `;`, and then the data is a list. Or it is a JSON object:
    `query`, or `queries` (a list of texts) and `delete` (a list of aliases), and `description`. All is done together
    or not at all, as one version of the schema: what only goes together, such as another kind of a field in two
    queries, is sent in one request.
    """
    pipeline = request.app[SERVICES].pipeline
    asked = await proposals.read(request, {*proposals.CHANGE, "description"})
    change = asked.change
    if not (change.put or change.delete):
        raise ApiError(422, "the body has no LQL statement; expected SELECT … FROM … INTO … BY … ALIAS …")
    described = change.description or request.query.get("description", "")
    rows = await pipeline.change_queries(replace(change, description=described))
    definitions = pipeline.definitions
    made = [query_object(definitions.queries[row.alias], definitions.schema) for row in rows]
    return made[0] if len(made) == 1 and not (change.delete or asked.listed) else made


@endpoint("read", tag="definitions")
async def list_queries(request: web.Request) -> object:
    """Lists the queries."""
    definitions = request.app[SERVICES].pipeline.definitions
    rows = [query_object(each, definitions.schema) for each in definitions.queries.values()]
    return Reply(rows, total=len(rows))


@endpoint("read", tag="definitions")
async def get_query(request: web.Request) -> object:
    """Gives a query by its alias."""
    definitions = request.app[SERVICES].pipeline.definitions
    return query_object(_find(request), definitions.schema)


@endpoint("admin", tag="definitions", query={"description": "what for; kept with the version of the schema"})
async def delete_query(request: web.Request) -> object:
    """Deletes a query; what it has mapped stays in profiles, though fields that no query names are not shown."""
    found = _find(request)
    change = QueryChange(delete=[found.row.alias], description=request.query.get("description", ""))
    await request.app[SERVICES].pipeline.change_queries(change)
    return Reply(None, message="deleted")


@endpoint(
    "read",
    tag="definitions",
    body=TEXT,
    reply=VERDICT,
    query={"segments": "true: also say which audiences read its fields"},
)
async def validate_query(request: web.Request) -> object:
    """Gives all diagnostics of LQL, by itself and together with the stored queries, and changes nothing."""
    text = await body.text(request)
    statements, diagnostics = read_queries(text)
    audiences: dict[str, list[str]] = {}
    if not any(each.severity == "error" for each in diagnostics):
        definitions = request.app[SERVICES].pipeline.definitions
        diagnostics += await anyio.to_thread.run_sync(disagreements, definitions, statements, text)
    if request.query.get("segments") == "true":
        names = {column.name for each in statements for column in each.columns}
        for audience in request.app[SERVICES].pipeline.definitions.audiences.values():
            reads = audience.compiled.fields if audience.compiled is not None else frozenset()
            read = sorted(name for name in names if reads_any(reads, [name]))
            if read:
                audiences[audience.slug] = read
    found = verdict(diagnostics)
    return {**found, "segments": audiences} if request.query.get("segments") == "true" else found


@endpoint(
    "read",
    tag="definitions",
    body={
        **TEXT,
        "application/json": {
            "type": "object",
            "properties": {"query": {"type": "string"}, "events": {"type": "array"}},
        },
    },
)
async def test_query(request: web.Request) -> object:
    """Maps sample events through LQL and gives the profiles that come of them; stores nothing.

    The body is `{"query": LQL, "events": [{…}, …]}`, or LQL alone with one event as query parameters.
    """
    if request.content_type == "application/json":
        row = await body.json_object(request)
        unknown = set(row) - {"query", "events", "now"}
        if unknown:
            raise ApiError(400, f"unknown key {min(unknown)!r}; accepted are query, events, now")
    else:
        row = {"query": await body.text(request), "events": [dict(request.query)]}
    events = row.get("events")
    if not isinstance(row.get("query"), str) or not isinstance(events, list):
        raise ApiError(400, "query must be LQL text and events a list of objects")
    if len(events) > TEST_EVENTS:
        raise ApiError(413, f"{len(events)} sample events; at most {TEST_EVENTS} are accepted")
    row.setdefault("now", clock.now().isoformat())
    found = await anyio.to_thread.run_sync(query_row, row)
    if found.get("error"):
        raise ApiError(422, str(found["error"]), errors=[{"loc": ["query"], "msg": str(found["error"])}])
    return found["profiles"]


def verdict(diagnostics: list[Diagnostic]) -> dict[str, Any]:
    """Gives the reply of a validation: whether it would be accepted, and each finding with its place."""
    return {
        "valid": not any(each.severity == "error" for each in diagnostics),
        "diagnostics": [
            {
                "severity": each.severity,
                "line": each.line,
                "column": each.column,
                "message": each.message,
                "hint": each.hint,
                "text": str(each),
            }
            for each in diagnostics
        ],
    }


def query_object(stored: StoredQuery, schema: Schema) -> dict[str, Any]:
    """Gives a query as clients see it."""
    row, tree = stored.row, stored.query
    shown: dict[str, Any] = {
        "id": row.alias,
        "alias": row.alias,
        "text": row.text,
        "version": row.version,
        "created": clock.from_us(row.created_us),
        "updated": clock.from_us(row.updated_us),
        "disabled": tree is None,
        "invalid_reason": stored.invalid,
    }
    if tree is None:
        return shown
    by = {name.lower() for name in tree.by}
    fields = []
    for column in tree.columns:
        known = schema.fields.get(column.name)
        fields.append(
            {
                "as": column.name,
                "is_by": column.name.lower() in by,
                "type": known.kind if known is not None else column.kind,
                "mergeop": known.merge_op if known is not None else column.merge_op,
                "shortdesc": column.shortdesc or "",
                "longdesc": column.longdesc or "",
            }
        )
    return {
        **shown,
        "table": tree.table,
        "from": tree.stream,
        "into": tree.table,
        "by_fields": list(tree.by),
        "fields": fields,
    }


def _find(request: web.Request) -> StoredQuery:
    return query_named(request.app[SERVICES].pipeline.definitions, request.match_info["alias"])
