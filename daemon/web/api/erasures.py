"""`/v2/erasure`: people who were erased, and how far that is; letting one in again; and all that is held of one."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Any

from aiohttp import web

from daemon import clock
from daemon.model.refusal import NotFound
from daemon.store import erasures
from daemon.store.erasures import Erasure
from daemon.web.api.entities import found_profile, identity_of
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, cursor, endpoint, limit_of, request_id_of, start_of
from daemon.web.person_archive import Archive
from daemon.web.services import SERVICES

_BEYOND = (1 << 63) - 1

OBJECT = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "state": {
            "enum": ["scrubbing", "delivering", "cleaning", "done"],
            "description": "scrubbing: the log is searched; delivering: destinations still have to take the exits; "
            "cleaning: what was overwritten is removed from the files; done: nothing is left.",
        },
        "accepted": {"type": "string", "format": "date-time"},
        "finished": {"type": ["string", "null"], "format": "date-time"},
        "admitted": {"type": ["string", "null"], "format": "date-time", "description": "when they were let in again"},
        "allow_return": {"type": "boolean"},
        "searched": {"type": "number", "description": "how much of the log is searched, 0 to 1"},
        "events_looked": {"type": "integer"},
        "scrubbed": {"type": "integer", "description": "events that are empty now"},
        "cut": {"type": "integer", "description": "events that other people have a part in, without the person's"},
        "kept": {"type": "integer", "description": "of those: still name them, since others' fields are made of it"},
        "rejects": {"type": "integer", "description": "refused requests deleted"},
        "snapshots": {"type": "integer", "description": "exits whose fields are forgotten"},
    },
}  # fmt: skip


def routes() -> list[web.RouteDef]:
    """Gives the routes of erasures."""
    return [
        web.delete("/api/entity/{table}/{field}/{value}", erase),
        web.get("/v2/erasure", list_erasures),
        web.get("/v2/erasure/{id}", get_erasure),
        web.post("/v2/entity/{table}/{field}/{value}/admit", admit),
        web.get("/v2/entity/{table}/{field}/{value}/export", export),
    ]


@endpoint(
    "admin",
    tag="profiles",
    query={"allow_return": "true: events that come from now on make a new profile; else they are not taken in"},
    reply=OBJECT,
)
async def erase(request: web.Request) -> object:
    """Erases a person everywhere; 404 when there is no such profile.

    Profile, keys and memberships are gone with the reply, and the destinations of the audiences get exits. The log is
    searched in the background; `GET /v2/erasure/{id}` says how far that is.
    """
    field, value = identity_of(request, request.match_info["field"]), request.match_info["value"]
    asked = request.query.get("allow_return", "false").lower()
    if asked not in ("true", "false"):
        raise ApiError(400, f"allow_return: {asked[:100]!r} is neither true nor false")
    found = await found_profile(request, [(field, value)])
    key = next(text for text in found.profile.keys[field] if text.lower() == value.lower())
    erasure = await request.app[SERVICES].pipeline.erase(field, key, allow_return=asked == "true")
    return Reply(shown(erasure), message="deleted")


@endpoint(
    "read",
    tag="profiles",
    query={"start": "`_next` of the page before", "limit": "at most so many (100)"},
    reply={"type": "array", "items": OBJECT},
)
async def list_erasures(request: web.Request) -> object:
    """Lists who was erased, by number only, the newest first; `turned_away` counts events that were not taken in."""
    below = start_of(request) or _BEYOND
    if not isinstance(below, int):
        raise ApiError(400, "start: this is not what a reply gave as _next")
    limit = limit_of(request)
    state = request.app[SERVICES].state
    rows, total = await state.read(partial(erasures.page, below=below, limit=limit))
    turned_away = await state.read(erasures.turned_away)
    more = cursor(rows[-1].id) if len(rows) == limit else None
    return Reply([shown(row) for row in rows], total=total, next_cursor=more, extra={"turned_away": turned_away})


@endpoint("read", tag="profiles", reply=OBJECT)
async def get_erasure(request: web.Request) -> object:
    """Says how far an erasure is."""
    text = request.match_info["id"]
    number = int(text) if text.isdecimal() and text.isascii() and len(text) < 19 else 0
    row = await request.app[SERVICES].state.read(partial(erasures.one, erasure_id=number))
    if row is None:
        raise NotFound(f"there is no erasure {text[:100]!r}; GET /v2/erasure lists them")
    return shown(row)


@endpoint("admin", tag="profiles")
async def admit(request: web.Request) -> object:
    """Lets a person come back who was erased: events from now on make a profile again.

    FIELD and VALUE are any key that the person was known by.
    """
    field, value = request.match_info["field"], request.match_info["value"]
    keys = list(dict.fromkeys([(field, value), (field, value.lower())]))
    ids = await request.app[SERVICES].pipeline.admit(keys)
    return Reply({"erasures": [str(each) for each in ids]}, message="admitted")


@endpoint("admin", tag="profiles")
async def export(request: web.Request) -> object:
    """Gives all that is held about a person as one ZIP archive, written while it is read.

    It holds README.txt, which says what the rest is: profile.json, events.ndjson, memberships.json, triggers.ndjson,
    deliveries.ndjson. The whole log is searched for the person's events.
    """
    services = request.app[SERVICES]
    field, value = identity_of(request, request.match_info["field"]), request.match_info["value"]
    found = await found_profile(request, [(field, value)])
    archive = Archive(
        services.events, services.state, services.pipeline.definitions, found.profile, f"{field} = {value}",
        services.settings.retention.events_days,
    )  # fmt: skip
    response = web.StreamResponse()
    response.content_type = "application/zip"
    response.headers["Content-Disposition"] = f'attachment; filename="person-{found.profile.id}.zip"'
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Request-Id"] = request_id_of(request)
    await response.prepare(request)
    async with aclosing(archive.chunks()) as chunks:
        async for chunk in chunks:
            await response.write(chunk)
    await response.write_eof()
    return response


def shown(row: Erasure) -> dict[str, Any]:
    """Gives an erasure as the API shows it."""
    head = sum(row.head.values())
    looked = sum(min(row.looked[lane], row.head[lane]) for lane in row.head)
    return {
        "id": str(row.id),
        "state": row.state,
        "accepted": clock.from_us(row.accepted_us),
        "finished": None if row.finished_us is None else clock.from_us(row.finished_us),
        "admitted": None if row.admitted_us is None else clock.from_us(row.admitted_us),
        "allow_return": row.allow_return,
        "searched": 1.0 if row.state != "scrubbing" or not head else round(looked / head, 4),
        "events_looked": row.events_looked,
        "scrubbed": row.scrubbed,
        "cut": row.cut,
        "kept": row.kept,
        "rejects": row.rejects,
        "snapshots": row.snapshots,
    }
