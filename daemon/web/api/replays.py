"""`/v2/query/{alias}/replay`: a changed query applied to the past."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from daemon import clock
from daemon.ingest.rebuild import Plan
from daemon.store import rebuilds
from daemon.store.rebuilds import RebuildRow
from daemon.web.api.named import query_named
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, endpoint
from daemon.web.services import SERVICES

STATUS = {
    "type": "object",
    "properties": {
        "state": {"type": "string", "enum": ["running", "done", "cancelled"]},
        "fields": {"type": "array", "items": {"type": "string"}},
        "events_looked_at": {"type": "integer"},
        "events_of": {"type": "integer"},
        "events_taken": {"type": "integer"},
        "events_lost": {"type": "integer"},
    },
}


def routes() -> list[web.RouteDef]:
    """Gives the routes of replays."""
    return [
        web.post("/v2/query/{alias}/replay", begin),
        web.get("/v2/query/{alias}/replay", get_status),
        web.delete("/v2/query/{alias}/replay", cancel),
    ]


@endpoint(
    "admin",
    tag="definitions",
    reply=STATUS,
    query={
        "dryrun": "true: say what would be done, and do nothing",
        "incomplete": "true: begin also when the log has lost a part of the past, whose values would then be gone",
    },
)
async def begin(request: web.Request) -> object:
    """Begins to apply a query to the past: its fields are made again from the log, by all queries that feed them.

    It goes on in the background and over restarts. Until it is done the fields show what they show now; then all
    profiles change at once, and only what differs for an audience becomes triggers. 409 while another is under way,
    and when the log has lost a part of the past.
    """
    pipeline = request.app[SERVICES].pipeline
    alias = _alias(request)
    if _flag(request, "dryrun"):
        return _planned(await pipeline.plan_rebuild(alias))
    row = await pipeline.rebuild(alias, incomplete=_flag(request, "incomplete"))
    return Reply(_status(row), status=202, message="begun")


@endpoint("read", tag="definitions", reply=STATUS)
async def get_status(request: web.Request) -> object:
    """Says how far applying a query to the past has come, or how the last time ended; 404 when it never was."""
    services = request.app[SERVICES]
    alias = _alias(request)
    rows = [each for each in await services.state.read(rebuilds.every) if each.alias == alias]
    if not rows:
        raise ApiError(404, f"the query {alias} was never applied to the past; POST here begins it")
    return _status(rows[-1])


@endpoint("admin", tag="definitions", reply=STATUS)
async def cancel(request: web.Request) -> object:
    """Gives up applying a query to the past: its fields stay as they are; keys that were found by then stay too."""
    pipeline = request.app[SERVICES].pipeline
    alias = _alias(request)
    running = pipeline.rebuilding()
    if running is None or running.alias != alias:
        raise ApiError(404, f"the query {alias} is not being applied to the past")
    return _status(await pipeline.cancel_rebuild())


def _alias(request: web.Request) -> str:
    return query_named(request.app[SERVICES].pipeline.definitions, request.match_info["alias"]).row.alias


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("true", "1", "t", "yes")


def _planned(plan: Plan) -> dict[str, Any]:
    return {
        "query": plan.alias,
        "version": plan.version,
        "fields": list(plan.fields),
        "by_queries": dict(plan.queries),
        "streams": list(plan.streams),
        "events_of": plan.events,
        "events_lost": plan.lost,
        "first_received": None if plan.first_us is None else clock.from_us(plan.first_us),
        "audiences": list(plan.audiences),
        "dryrun": True,
    }


def _status(row: RebuildRow) -> dict[str, Any]:
    return {
        "query": row.alias,
        "version": row.version,
        "state": row.state,
        "fields": list(row.fields),
        "events_looked_at": max(0, row.realtime_at + row.bulk_at - row.lost),
        "events_of": row.realtime_to + row.bulk_to - row.lost,
        "events_taken": row.events,
        "events_lost": row.lost,
        "begun": clock.from_us(row.begun_us),
        "ended": None if row.ended_us is None else clock.from_us(row.ended_us),
    }
