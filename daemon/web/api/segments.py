"""`/api/segment`: audiences in FilterQL, their members, and what a change would do."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from daemon import clock
from daemon.ingest import preview
from daemon.ingest.definitions import Audience, accepted_filter
from daemon.ingest.proposal import WantedFilter, propose
from daemon.ingest.query_commands import QueryChange
from daemon.store import definitions as stored
from daemon.store import memberships, profiles
from daemon.store.definitions import AudienceStatus
from daemon.web import body
from daemon.web.api.named import audience_named
from daemon.web.api.queries import TEXT, VERDICT, verdict
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, cursor, endpoint, limit_of, start_of
from daemon.web.services import SERVICES, Services
from streams.profile import load
from streams.profile_view import output
from streams.ql.errors import QueryError
from streams.ql.parser import parse_filter
from streams.ql.reading import read_filters


def routes() -> list[web.RouteDef]:
    """Gives the routes of audiences."""
    return [
        web.post("/api/segment", put_audience),
        web.get("/api/segment", list_audiences),
        web.post("/api/segment/validate", validate_audience),
        web.post("/api/segment/size", size_of_filter),
        web.get("/api/segment/{slug}", get_audience),
        web.delete("/api/segment/{slug}", delete_audience),
        web.get("/api/segment/{slug}/scan", scan_audience),
    ]


@endpoint("admin", tag="definitions", body=TEXT)
async def put_audience(request: web.Request) -> object:
    """Makes an audience, or replaces the one with its ALIAS.

    Existing profiles are evaluated in the background while live events go on; what is found are enters and exits like
    any others.
    """
    pipeline = request.app[SERVICES].pipeline
    row = await pipeline.put_audience(await body.text(request))
    return await _object(request.app[SERVICES], pipeline.definitions.audiences[row.number])


@endpoint("read", tag="definitions")
async def list_audiences(request: web.Request) -> object:
    """Lists the audiences with their sizes now."""
    services = request.app[SERVICES]
    found = await services.state.read(stored.statuses)
    rows = [audience_object(each, found.get(each.number)) for each in services.pipeline.definitions.audiences.values()]
    return Reply(rows, total=len(rows))


@endpoint("read", tag="definitions")
async def get_audience(request: web.Request) -> object:
    """Gives an audience by slug, id or name."""
    return await _object(request.app[SERVICES], _find(request))


@endpoint("admin", tag="definitions")
async def delete_audience(request: web.Request) -> object:
    """Deletes an audience; 409 while another audience includes it or a job that is not completed uses it."""
    await request.app[SERVICES].pipeline.delete_audience(_find(request).slug)
    return Reply(None, message="deleted")


@endpoint("read", tag="definitions", body=TEXT, reply=VERDICT)
async def validate_audience(request: web.Request) -> object:
    """Gives all diagnostics of FilterQL, and changes nothing; fields that no query makes are warnings."""
    definitions = request.app[SERVICES].pipeline.definitions
    text = await body.text(request)
    statements, diagnostics = read_filters(text, kinds=definitions.schema.kinds, audiences=set(definitions.by_name))
    if len(statements) != 1 and all(each.severity == "warning" for each in diagnostics):
        try:
            parse_filter(text)
        except QueryError as error:
            diagnostics += error.diagnostics
    return verdict(diagnostics)


@endpoint("read", tag="definitions", body=TEXT)
async def size_of_filter(request: web.Request) -> object:
    """Counts the profiles that a filter matches now; nothing is saved."""
    services = request.app[SERVICES]
    definitions = services.pipeline.definitions
    text = await body.text(request)
    accepted_filter(text, definitions)
    # Under a slug that no audience has: a filter that is tried out needs no name.
    made = await propose(definitions, QueryChange(), [WantedFilter(text, slug="")], clock.now_us())
    found = await preview.preview(services.state, made.after, made.filters, (), clock.now())
    (moves,) = found.audiences.values()
    return {"size": moves.size, "profiles": found.profiles}


@endpoint(
    "read",
    tag="definitions",
    query={"start": "what the last reply gave as _next", "limit": "members a page, at most 1,000"},
)
async def scan_audience(request: web.Request) -> object:
    """Gives the members of an audience, a page at a time, in the order of their profiles' ids."""
    services = request.app[SERVICES]
    audience = _find(request)
    after, limit = start_of(request), limit_of(request)
    if after is not None and not isinstance(after, int):
        raise ApiError(400, "start is not what a reply gave as _next")

    def page(db: Any) -> tuple[list[int], dict[int, str], int]:
        ids = memberships.members(db, audience.number, after or 0, limit)
        bodies = {profile_id: text for profile_id in ids if (text := profiles.read(db, profile_id)) is not None}
        return ids, bodies, memberships.sizes(db).get(audience.number, 0)

    ids, bodies, size = await services.state.read(page)
    schema = services.pipeline.definitions.schema
    rows = [output(load(schema, each, text), schema) for each, text in bodies.items()]
    return Reply(rows, total=size, next_cursor=cursor(ids[-1]) if len(ids) == limit else None)


def audience_object(audience: Audience, status: AudienceStatus | None) -> dict[str, Any]:
    """Gives an audience as clients see it; `state` is evaluating while its background pass runs."""
    row = audience.row
    evaluating = status is not None and status.evaluated_to is not None
    return {
        "id": row.id,
        "slug": row.slug,
        "slug_name": row.slug,
        "name": row.name,
        "description": row.description,
        "segment_ql": row.text,
        "table": audience.filter.table if audience.filter is not None else "user",
        "kind": "segment",
        "size": status.size if status is not None else 0,
        "state": "evaluating" if evaluating else "ready",
        "version": row.version,
        "invalid": audience.compiled is None,
        "invalid_reason": audience.invalid,
        "datemath_calc": audience.compiled is not None and audience.compiled.time_dependent,
        "created": clock.from_us(row.created_us),
        "updated": clock.from_us(row.updated_us),
    }


async def _object(services: Services, audience: Audience) -> dict[str, Any]:
    found = await services.state.read(stored.statuses)
    return audience_object(audience, found.get(audience.number))


def _find(request: web.Request) -> Audience:
    return audience_named(request.app[SERVICES].pipeline.definitions, request.match_info["slug"])
