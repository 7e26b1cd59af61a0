"""`/v1/*`: the Segment HTTP tracking API, for its SDKs unchanged but for the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from aiohttp import hdrs, web

from daemon import clock
from daemon.store.tokens import Token
from daemon.web import auth
from daemon.web.body import ApiError
from daemon.web.collecting import Tally, body_of, collector_of, content_type_of, take
from daemon.web.envelope import describe, request_id_of
from daemon.web.pixel import cross_origin, preflight
from daemon.web.services import SERVICES
from streams.event import Event, Refusal, RefusedError, Rules, sample
from streams.segment import CALLS, read_call

DEFAULT_STREAM = "segment"

#: Largest batch, and largest single request, in bytes.
BATCH_BYTES = 500 * 1024

_CONTENT = frozenset({"", "application/json", "text/json", "text/plain", "application/octet-stream"})
_SUCCESS = orjson.dumps({"success": True})


def routes() -> list[web.RouteDef]:
    """Gives the routes of this module."""
    return [
        route
        for call in (*CALLS, "batch")
        for route in (web.post(f"/v1/{call}", tracking), web.options(f"/v1/{call}", preflight))
    ]


@describe(
    "data",
    tag="collection",
    body={"application/json": {"type": "object"}},
    reply={"type": "object", "properties": {"success": {"type": "boolean"}}},
)
@cross_origin
async def tracking(request: web.Request) -> web.StreamResponse:
    """Takes Segment calls: Basic with the write key as user name, a bearer, or `writeKey` in the body.

    `messageId` is the event id. More than 32 KB an event or 500 KB a request is 400, and nothing of it is stored. As
    with Segment, a call that is refused for anything else does not make the reply an error: it is among the rejects of
    the stream.
    """
    text = auth.token_of(request) or request.query.get("writeKey", "")
    token = await _token(request, text) if text else None
    collector_of(request).admit("realtime")
    content_type_of(request, _CONTENT)
    content = await _content(request)
    if token is None:
        key = content.get("writeKey")
        if not isinstance(key, str) or not key:
            raise ApiError(401, "a write key is needed: as user name of Basic, as bearer, or as writeKey")
        token = await _token(request, key)
    call = request.path.rpartition("/")[2]
    found = list(_calls(request, call, content))
    await take(request, "realtime", token.stream or DEFAULT_STREAM, iter(found), _Lenient())
    return web.Response(
        body=_SUCCESS, headers={hdrs.CONTENT_TYPE: "application/json", "X-Request-Id": request_id_of(request)}
    )


class _Lenient(Tally):
    """Refuses nothing towards the sender."""

    def refuse(self, refusals: object) -> None:
        del refusals


async def _token(request: web.Request, text: str) -> Token:
    tokens = request.app[SERVICES].tokens
    token = tokens.check(text) or await tokens.find(text)
    if token is None:
        raise ApiError(401, "the write key is unknown or revoked")
    if not token.allows("data"):
        raise ApiError(403, f"the token has scope {token.scope}; this needs data")
    return token


async def _content(request: web.Request) -> dict[str, Any]:
    try:
        async with body_of(request, request.app[SERVICES].settings, BATCH_BYTES) as body:
            content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    except ApiError as error:
        if error.status == web.HTTPRequestEntityTooLarge.status_code:
            raise ApiError(400, error.message) from error
        raise
    if not isinstance(content, dict):
        raise ApiError(400, "the body is JSON, but not an object")
    return content


def _calls(request: web.Request, call: str, content: dict[str, Any]) -> Iterator[Event | Refusal | None]:
    settings = request.app[SERVICES].settings.collect
    # What the batch adds to a call may be as large as the batch; a call itself is held to its own bound below.
    rules = Rules(event_bytes=2 * BATCH_BYTES, depth=settings.event_depth, keys=settings.event_keys)
    items: object = content.get("batch") if call == "batch" else [content]
    if not isinstance(items, list):
        raise ApiError(400, "batch: an array of calls is accepted")
    shared = content if call == "batch" else {}
    received_us = clock.now_us()
    for index, item in enumerate(items):
        text = orjson.dumps(item)
        if len(text) > settings.event_bytes:
            raise ApiError(400, f"call {index} has {len(text)} bytes; at most {settings.event_bytes} are accepted")
        try:
            yield read_call(None if call == "batch" else call, item, shared, received_us, rules)
        except RefusedError as error:
            yield Refusal(index, str(error), sample(text))
        yield None
