"""`/v2/stream`: what arrives."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from daemon import clock
from daemon.store import streams as store
from daemon.store.streams import Stream
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, cursor, endpoint, limit_of, start_of
from daemon.web.services import SERVICES, Services

_LIST = {"limit": "how many at most", "start": "`_next` of the page before"}


def routes() -> list[web.RouteDef]:
    """Gives the routes of streams."""
    return [
        web.get("/v2/stream", list_streams),
        web.get("/v2/stream/{name}", get_stream),
        web.get("/v2/stream/{name}/fields", fields),
        web.get("/v2/stream/{name}/stats", stats),
        web.get("/v2/stream/{name}/events", events),
        web.get("/v2/stream/{name}/rejects", rejects),
    ]


@endpoint("read", tag="streams")
async def list_streams(request: web.Request) -> object:
    """Lists the streams on which anything ever came, with their counts."""
    services = await _current(request)
    found = await services.events.read(store.streams)
    return Reply([_object(each) for each in found], total=len(found))


@endpoint("read", tag="streams")
async def get_stream(request: web.Request) -> object:
    """Gives a stream: counts, fields, and the last ten events."""
    services = await _current(request)
    stream = await _find(services, request)
    found = await services.events.read(lambda db: (store.fields(db, stream.name), store.recent(db, stream.name, 10)))
    return _object(stream) | {
        "fields": [_field(each) for each in found[0]],
        "recent_events": [_event(each) for each in found[1]],
    }


@endpoint("read", tag="streams")
async def fields(request: web.Request) -> object:
    """Lists the fields seen on a stream; nested ones have dotted names."""
    services = await _current(request)
    stream = await _find(services, request)
    found = await services.events.read(lambda db: store.fields(db, stream.name))
    return Reply([_field(each) for each in found], total=len(found))


@endpoint("read", tag="streams")
async def stats(request: web.Request) -> object:
    """Gives a stream's counts, what waits for ingest, and what the log takes on disk."""
    services = await _current(request)
    stream = await _find(services, request)
    collector = services.collector
    lag = {"realtime": collector.lag("realtime"), "bulk": collector.lag("bulk")}
    return _object(stream) | {"lag": lag, "disk": await collector.disk()}


@endpoint("read", tag="streams", query={"limit": "how many at most (100)"})
async def events(request: web.Request) -> object:
    """Gives the newest events of a stream, as they were accepted."""
    services = await _current(request)
    stream = await _find(services, request)
    limit = limit_of(request)
    found = await services.events.read(lambda db: store.recent(db, stream.name, limit))
    return Reply([_event(each) for each in found], total=len(found))


@endpoint("read", tag="streams", query=_LIST)
async def rejects(request: web.Request) -> object:
    """Lists what was refused on a stream, the newest first: when, where it stood, why, and how it began."""
    services = await _current(request)
    stream = await _find(services, request)
    limit = limit_of(request)
    start = start_of(request)
    if start is not None and type(start) is not int:
        raise ApiError(400, "start is not what a reply gave as _next")
    before = (1 << 62) if start is None else start
    found = await services.events.read(lambda db: store.rejects(db, stream.name, before, limit + 1))
    page = found[:limit]
    return Reply(
        [
            {
                "id": each.id,
                "at": clock.from_us(each.at_us),
                "place": each.place,
                "message": each.message,
                "sample": each.sample,
                "request_id": each.request_id,
            }
            for each in page
        ],
        total=stream.rejects,
        next_cursor=cursor(page[-1].id) if len(found) > limit else None,
    )


async def _current(request: web.Request) -> Services:
    services = request.app[SERVICES]
    await services.collector.flush()
    return services


async def _find(services: Services, request: web.Request) -> Stream:
    name = request.match_info["name"]
    found = await services.events.read(lambda db: store.stream(db, name))
    if found is None:
        raise ApiError(404, f"nothing ever came on stream {name[:100]!r}; GET /v2/stream lists those that there are")
    return found


def _object(stream: Stream) -> dict[str, Any]:
    return {
        "stream": stream.name,
        "events": stream.events,
        "duplicates": stream.duplicates,
        "rejects": stream.rejects,
        "first": clock.from_us(stream.first_us),
        "last": clock.from_us(stream.last_us),
    }


def _field(field: store.StreamField) -> dict[str, Any]:
    return {
        "field": field.field,
        "kind": field.kind,
        "first": clock.from_us(field.first_us),
        "last": clock.from_us(field.last_us),
    }


def _event(event: store.RecentEvent) -> dict[str, Any]:
    return {
        "lane": event.lane,
        "position": event.position,
        "received": clock.from_us(event.received_us),
        "time": clock.from_us(event.event_us),
        "id": event.event_id,
        "data": event.body,
    }
