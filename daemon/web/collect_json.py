"""`/collect/json` and `/collect/form`: events in real time, durable before the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import parse_qsl

import orjson
from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from daemon import clock
from daemon.settings import Settings
from daemon.store.collector import NotAcceptedError
from daemon.web import auth
from daemon.web.body import ApiError
from daemon.web.collecting import (
    PARAMETERS,
    REPLY,
    STREAM,
    Tally,
    body_of,
    collecting,
    collector_of,
    content_type_of,
    flag,
    not_accepted,
    rules_of,
    stream_of,
    take,
)
from daemon.web.envelope import describe, refusal
from daemon.web.ready import Ready
from daemon.web.services import SERVICES, Services
from streams.body import is_lines, read_body
from streams.event import Event, Refusal, RefusedError, Rules, accepted, read_event, sample

LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
_URLENCODED = "application/x-www-form-urlencoded"
# With a form's type too: it is what `curl -d` says of a body when nobody tells it otherwise.
JSON = LINES | {"", "application/json", "text/json", "text/plain", "application/octet-stream", _URLENCODED}
FORM = frozenset({_URLENCODED, "multipart/form-data"})

# The replies to a lone event, by the number of duplicates in it.
_REPLIES = [
    b'{"status":200,"message":"success","request_id":"%%s","data":{"message_count":%d,"rejected_count":0,'
    b'"duplicate_count":%d,"dryrun":false,"filename":null,"errors":[]}}' % (1 - duplicates, duplicates)
    for duplicates in (0, 1)
]

#: Where `quick` leaves the body of a request that it did not take.
BODY = web.RequestKey("BODY", bytes)

#: The path of requests that `quick` is for, up to the stream.
PATH = "/collect/json/"

_OBJECT = {"type": "object"}
_EVENTS = {"oneOf": [_OBJECT, {"type": "array", "items": _OBJECT}]}


def routes() -> list[web.RouteDef]:
    """Gives the routes of this module."""
    return [web.post("/collect/json/{stream}", collect_json), web.post("/collect/form/{stream}", collect_form)]


@describe(
    "data",
    tag="collection",
    query=PARAMETERS,
    body={"application/json": _EVENTS, "application/x-ndjson": _OBJECT},
    reply=REPLY,
    enveloped=True,
)
@collecting
async def collect_json(request: web.Request) -> web.StreamResponse:
    """Takes one event, an array of events, or one a line.

    What is not accepted is reported by index (or line) and kept among the stream's rejects; the rest is stored. 400
    when the body is no JSON at all, or nothing of it was accepted. Up to 2,000 events are stored all or none.
    """
    return await _collect_json(request, request.get(BODY))


async def quick(request: web.Request, services: Services) -> web.StreamResponse | None:
    """Takes a single plain event to `/collect/json/{stream}`, before the router: most requests are such.

    None when it is anything else, or is not accepted: the way of all other requests has the words for it. What has been
    read of the body then stands in the request under `BODY`.
    """
    try:
        if (content := request.content).is_eof() and _is_plain(request):
            # It came together with its head, as single events do.
            body = content.read_nowait(-1)
            request[BODY] = body
            done = _append_lone(request, body, services)
            if done is not None:
                return Ready(_REPLIES[await done], request)
    except NotAcceptedError as error:
        return refusal(request, not_accepted(error))
    except (RefusedError, web.RequestPayloadError, HttpProcessingError):
        pass
    return None


def _is_plain(request: web.Request) -> bool:
    headers = request.headers
    return (
        headers.get(hdrs.CONTENT_TYPE) == "application/json"
        and hdrs.CONTENT_ENCODING not in headers
        and hdrs.EXPECT not in headers
        and "X-Request-Id" not in headers
        and request.keep_alive
    )


def _append_lone(request: web.Request, body: bytes, services: Services) -> asyncio.Future[int] | None:
    """Appends a body that is one event in a small text; None when it is anything else, or the token is not known."""
    collect = services.settings.collect
    stream = request.raw_path[len(PATH) :]
    if body[:1] != b"{" or len(body) > collect.event_bytes or b"\n" in body or not STREAM.fullmatch(stream):
        return None
    header = request.headers.get(hdrs.AUTHORIZATION, "")
    kind, _, rest = header.partition(" ")
    token = services.tokens.check(rest if rest and kind.lower() == "bearer" else header)
    if token is None or not token.allows("data"):
        return None
    collector = services.collector
    collector.admit("realtime")
    received_us = clock.now_us()
    rules = Rules(collect.event_bytes, collect.event_depth, collect.event_keys)
    return collector.append("realtime", stream, (read_event(body, received_us, rules),), received_us)


async def _collect_json(request: web.Request, body: bytes | None) -> web.StreamResponse:
    await auth.require(request, "data", in_query=True)
    collector_of(request).admit("realtime")
    settings = request.app[SERVICES].settings
    stream = stream_of(request)
    kind = content_type_of(request, JSON)
    rules = rules_of(request, settings)
    tally = _tally(request)
    async with body_of(request, settings, settings.collect.request_bytes, body) as content:
        lines = kind in LINES or is_lines(content)
        if lines:
            tally.place = "line"
        return await take(request, "realtime", stream, read_body(content, clock.now_us(), rules, lines=lines), tally)


@describe(
    "data",
    tag="collection",
    query=PARAMETERS,
    body=dict.fromkeys(sorted(FORM), _OBJECT),
    reply=REPLY,
    enveloped=True,
)
@collecting
async def collect_form(request: web.Request) -> web.StreamResponse:
    """Takes the fields of a form as one event; values are text, a field given more than once a list of them."""
    await auth.require(request, "data", in_query=True)
    collector_of(request).admit("realtime")
    settings = request.app[SERVICES].settings
    stream = stream_of(request)
    kind = content_type_of(request, FORM)
    fields = await form_fields(request, kind, settings)
    rules = rules_of(request, settings)
    return await take(request, "realtime", stream, one_event(fields, clock.now_us(), rules), _tally(request))


def one_event(fields: list[tuple[str, str]], received_us: int, rules: Rules) -> Iterator[Event | Refusal]:
    """Makes an event of named texts."""
    data: dict[str, str | list[str]] = {}
    for name, value in fields:
        before = data.get(name)
        if before is None:
            data[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            data[name] = [before, value]
    try:
        if not data:
            raise RefusedError("there are no fields")  # noqa: TRY301  (told as every other refusal)
        yield accepted(data, orjson.dumps(data), received_us, rules)
    except (RefusedError, orjson.JSONEncodeError) as error:
        reason = str(error) if isinstance(error, RefusedError) else "a field is not valid UTF-8"
        yield Refusal(0, reason, sample(repr(fields)))


async def form_fields(request: web.Request, kind: str, settings: Settings) -> list[tuple[str, str]]:
    """Reads the fields of a form body, within the bounds of one event."""
    most = 4 * settings.collect.event_bytes
    if kind == "multipart/form-data":
        return await _parts(request, most, settings.collect.event_keys)
    try:
        async with body_of(request, settings, most) as content:
            text = content.decode()
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=settings.collect.event_keys)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the form is not UTF-8: byte {error.start}") from error
    except ValueError as error:
        raise ApiError(400, f"the form cannot be read: {error}") from error


async def _parts(request: web.Request, most: int, most_fields: int) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.filename is not None:
                raise ApiError(400, "the form has a file or a form within; fields of text are accepted")
            if len(fields) >= most_fields:
                raise ApiError(400, f"the form has more than {most_fields} fields")
            value = bytearray()
            while chunk := await part.read_chunk(8192):
                value += chunk
                most -= len(chunk)
                if most < 0:
                    raise ApiError(413, "the form has more than one event may have")
            fields.append((part.name or "", bytes(value).decode()))
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the form is not UTF-8: byte {error.start}") from error
    except ValueError as error:
        raise ApiError(400, f"the form cannot be read: {error}") from error
    return fields


def _tally(request: web.Request) -> Tally:
    if not request.query_string:
        return Tally()
    return Tally(dryrun=flag(request, "dryrun"), filename=request.query.get("filename"))
