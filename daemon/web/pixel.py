"""`/c/{account}[/{stream}]`: what a browser tag sends, with CORS; the key in the address is the only credential."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import hdrs, web

from daemon import clock
from daemon.store.collector import NotAcceptedError
from daemon.web.body import ApiError
from daemon.web.collect_json import FORM, JSON, LINES, form_fields, one_event
from daemon.web.collecting import (
    Tally,
    body_of,
    collector_of,
    content_type_of,
    not_accepted,
    stream_of,
    take,
)
from daemon.web.envelope import Handler, describe, refusal, request_id_of
from daemon.web.services import SERVICES
from streams.body import read_body
from streams.event import Event, Refusal, Rules

DEFAULT_STREAM = "default"

_GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"  # noqa: E501

#: How long a browser may keep what OPTIONS told it, in seconds.
_PREFLIGHT_S = 86_400


def routes() -> list[web.RouteDef]:
    """Gives the routes of this module."""
    return [
        route
        for path in ("/c/{account}", "/c/{account}/{stream}")
        for route in (
            web.get(path, pixel, allow_head=False),
            web.post(path, pixel_post),
            web.options(path, preflight),
        )
    ]


def cross_origin(handler: Handler) -> Handler:
    """Adds what lets a page of any origin read the reply, also of one that is refused."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            response = await handler(request)
        except NotAcceptedError as error:
            response = refusal(request, not_accepted(error))
        except Exception as error:  # noqa: BLE001  (a handler's error is the client's answer)
            response = refusal(request, error)
        _allow(request, response)
        return response

    answer.__doc__ = handler.__doc__
    return answer


@describe("data", tag="collection", reply={"type": "string"})
@cross_origin
async def pixel(request: web.Request) -> web.StreamResponse:
    """Takes the query's parameters as one event; the reply is a one-pixel GIF."""
    await _require(request)
    return await _take(request, one_event(list(request.query.items()), clock.now_us(), _rules(request)))


@describe("data", tag="collection", reply={"type": "string"})
@cross_origin
async def pixel_post(request: web.Request) -> web.StreamResponse:
    """Takes a form's fields, with the query's parameters, as one event; or events as JSON, as `/collect/json` does."""
    await _require(request)
    settings = request.app[SERVICES].settings
    kind = content_type_of(request, FORM | JSON)
    rules = _rules(request)
    if kind in FORM:
        fields = [*request.query.items(), *await form_fields(request, kind, settings)]
        return await _take(request, one_event(fields, clock.now_us(), rules))
    async with body_of(request, settings, settings.collect.request_bytes) as content:
        return await _take(request, read_body(content, clock.now_us(), rules, lines=kind in LINES))


@describe("data", tag="collection")
async def preflight(request: web.Request) -> web.StreamResponse:
    """Tells a browser that pages of any origin may send."""
    response = web.Response(status=204)
    response.headers["X-Request-Id"] = request_id_of(request)
    _allow(request, response)
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST, OPTIONS"
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = asked or "Content-Type, Content-Encoding, Authorization"
    response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(_PREFLIGHT_S)
    return response


def _rules(request: web.Request) -> Rules:
    # The query is the event here, so it cannot name a timestamp field.
    settings = request.app[SERVICES].settings.collect
    return Rules(event_bytes=settings.event_bytes, depth=settings.event_depth, keys=settings.event_keys)


async def _require(request: web.Request) -> None:
    tokens = request.app[SERVICES].tokens
    account = request.match_info["account"]
    token = tokens.check(account) or await tokens.find(account)
    if token is None or not token.allows("data"):
        raise ApiError(401, "the account in the address is no live token of scope data")
    collector_of(request).admit("realtime")


async def _take(request: web.Request, found: Iterator[Event | Refusal | None]) -> web.StreamResponse:
    stream = stream_of(request, DEFAULT_STREAM)
    await take(request, "realtime", stream, found, Tally())
    return web.Response(
        body=_GIF,
        headers={
            hdrs.CONTENT_TYPE: "image/gif",
            hdrs.CACHE_CONTROL: "no-store, no-cache, must-revalidate, private",
            hdrs.PRAGMA: "no-cache",
            "X-Request-Id": request_id_of(request),
        },
    )


def _allow(request: web.Request, response: web.StreamResponse) -> None:
    if response.prepared:
        return
    origin = request.headers.get(hdrs.ORIGIN)
    if origin:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
        response.headers[hdrs.VARY] = hdrs.ORIGIN
    else:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
    response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "X-Request-Id, Retry-After"
