"""What the collection endpoints share: the door, parameters, the body, and the reply."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import orjson
from aiohttp import hdrs, web

from daemon import clock
from daemon.settings import Settings
from daemon.store.budget import SMALL_BYTES
from daemon.store.collector import Collector, NotAcceptedError
from daemon.store.events import Lane
from daemon.web import body
from daemon.web.body import ApiError
from daemon.web.envelope import Handler, refusal, request_id_of
from daemon.web.services import SERVICES
from streams.event import Event, MalformedError, Refusal, RefusedError, Rules

#: Refusals that a reply lists; `rejected_count` counts all of them.
LISTED_ERRORS = 100

#: Events that go into the log in one transaction, so that a request is stored whole or not at all. More than these go
#: in pieces, and the reply says how far they came.
WHOLE_EVENTS = 2000

#: How long work may keep the event loop to itself, in seconds.
SLICE_S = 0.001

#: Names of streams.
STREAM = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_CONTENT = "application/json"

#: Query parameters that all endpoints with a body of events take.
PARAMETERS = {
    "timestamp_field": "field that has the event time; default `_ts`, else the time of arrival",
    "dryrun": "true: parse and count, store nothing",
    "filename": "a label, given back in the reply",
    "access_token": "token, where no Authorization header can be sent; also `key`",
}

REPLY = {
    "type": "object",
    "properties": {
        "message_count": {"type": "integer", "description": "events stored"},
        "rejected_count": {"type": "integer", "description": "events refused"},
        "duplicate_count": {"type": "integer", "description": "events whose `_id` was there before"},
        "dryrun": {"type": "boolean"},
        "filename": {"type": ["string", "null"]},
        "errors": {
            "type": "array",
            "description": f"why, for the first {LISTED_ERRORS}",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "line": {"type": "integer"},
                    "msg": {"type": "string"},
                },
            },
        },
    },
}


@dataclass(slots=True)
class Tally:
    """What became of a request's events so far. `place`: what the numbers of its refusals count."""

    place: str = "index"
    dryrun: bool = False
    filename: str | None = None
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    errors: list[dict[str, object]] = field(default_factory=list)

    def refuse(self, refusals: Iterable[Refusal]) -> None:
        """Counts refusals and lists the first of them."""
        for each in refusals:
            self.rejected += 1
            if len(self.errors) < LISTED_ERRORS:
                self.errors.append({self.place: each.place, "msg": each.reason})

    def data(self) -> dict[str, object]:
        """Gives the reply's data."""
        return {
            "message_count": self.stored,
            "rejected_count": self.rejected,
            "duplicate_count": self.duplicates,
            "dryrun": self.dryrun,
            "filename": self.filename,
            "errors": self.errors,
        }


def collecting(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
    """Makes what a collection handler raises its reply."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotAcceptedError as error:
            return refusal(request, not_accepted(error))
        except Exception as error:  # noqa: BLE001  (a handler's error is the client's answer)
            return refusal(request, error)

    return answer


def not_accepted(error: NotAcceptedError, data: object = None) -> ApiError:
    """Gives the reply to events that are not taken now."""
    return ApiError(429 if error.behind else 503, str(error), retry_after=error.retry_after_s, data=data)


def collector_of(request: web.Request) -> Collector:
    """Gives the collector."""
    return request.app[SERVICES].collector


def stream_of(request: web.Request, default: str | None = None) -> str:
    """Gives the stream that the address names."""
    name = request.match_info.get("stream") or default or ""
    if not STREAM.fullmatch(name):
        raise ApiError(400, f"stream {name[:100]!r}: accepted are 1 to 64 letters, digits and _ . : -")
    return name


def flag(request: web.Request, name: str) -> bool:
    """Gives a truth value of the query."""
    text = request.query.get(name, "").lower()
    if text in {"", "false", "0", "f", "no"}:
        # `?dryrun` alone says yes.
        return text == "" and name in request.query
    if text in {"true", "1", "t", "yes"}:
        return True
    raise ApiError(400, f"{name}: {text[:100]!r} is neither true nor false")


def rules_of(request: web.Request, settings: Settings, *, bulk: bool = False) -> Rules:
    """Gives what is accepted as an event of this request."""
    collect = settings.collect
    return Rules(
        event_bytes=collect.bulk_event_bytes if bulk else collect.event_bytes,
        depth=collect.event_depth,
        keys=collect.event_keys,
        timestamp_field=request.query.get("timestamp_field") or None if request.query_string else None,
    )


def content_type_of(request: web.Request, known: Sequence[str] | frozenset[str]) -> str:
    """Gives the content type; 415 for one that is not `known`, a charset that is not UTF-8, or another packing."""
    header = request.headers.get(hdrs.CONTENT_TYPE, "")
    if header == _CONTENT and _CONTENT in known and hdrs.CONTENT_ENCODING not in request.headers:
        return header
    kind = header.partition(";")[0].strip().lower()
    if kind not in known and not (kind.endswith("+json") and _CONTENT in known):
        accepted = ", ".join(sorted(each for each in known if each))
        raise ApiError(415, f"Content-Type {kind[:100]!r}: accepted are {accepted}")
    charset = (request.charset or "utf-8").lower()
    if charset not in {"utf-8", "utf8", "us-ascii", "ascii"}:
        raise ApiError(415, f"charset {charset[:100]!r}: UTF-8 is accepted")
    return kind


@asynccontextmanager
async def body_of(
    request: web.Request, settings: Settings, most: int, read: bytes | None = None
) -> AsyncIterator[bytes]:
    """Gives the whole body, unpacked: at most `most` bytes (413), and within the body time-out as a whole (408).

    What all bodies take in memory is bounded (429), and large ones are worked on one after the other: they count until
    the block is left. read: the body, where it has been read already.
    """
    if read is not None:
        if len(read) > most:
            raise ApiError(413, f"the body has {len(read)} bytes; at most {most} are accepted")
        yield read
        return
    budget = collector_of(request).budget
    limit_s = settings.server.body_timeout_s
    pieces: list[bytes] = []
    size = 0
    try:
        try:
            async with asyncio.timeout(limit_s):
                async for piece in body.pieces(request, most=most, silence_s=limit_s):
                    if not budget.take(len(piece)):
                        raise ApiError(429, "too many large requests at a time; send it again later", retry_after=1)
                    size += len(piece)
                    pieces.append(piece)
        except TimeoutError as error:
            raise ApiError(408, f"the body did not come within {limit_s:g} s") from error
        content = b"".join(pieces)
        pieces.clear()
        async with budget.large if size > SMALL_BYTES else nullcontext():
            yield content
    finally:
        budget.give_back(size)


async def take(
    request: web.Request, lane: Lane, stream: str, found: Iterator[Event | Refusal | None], tally: Tally
) -> web.StreamResponse:
    """Stores what a body holds, and replies once it is on disk.

    What is refused is told by its place; when nothing was accepted and something refused, the status is 400.
    """
    collector = collector_of(request)
    events: list[Event] = []
    refusals: list[Refusal] = []
    slice_ends = time.perf_counter() + SLICE_S
    try:
        for each in found:
            if type(each) is Event:
                events.append(each)
            elif each is not None:
                refusals.append(each)  # type: ignore[arg-type]
            elif time.perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = time.perf_counter() + SLICE_S
    except MalformedError as error:
        if not tally.dryrun:
            collector.refuse(stream, "", [Refusal(0, str(error), "")], request_id_of(request))
        raise ApiError(400, str(error)) from error
    tally.refuse(refusals)
    if tally.dryrun:
        tally.stored = len(events)
        return replied(request, tally)
    if refusals:
        collector.refuse(stream, tally.place, refusals, request_id_of(request))
    received_us = clock.now_us()
    for start in range(0, len(events), WHOLE_EVENTS):
        piece = events[start : start + WHOLE_EVENTS] if len(events) > WHOLE_EVENTS else events
        try:
            duplicates = await collector.append(lane, stream, piece, received_us)
        except NotAcceptedError as error:
            raise not_accepted(error, tally.data() if tally.stored or tally.duplicates else None) from error
        tally.duplicates += duplicates
        tally.stored += len(piece) - duplicates
    return replied(request, tally)


def replied(request: web.Request, tally: Tally) -> web.Response:
    """Replies with what became of the events."""
    if tally.rejected and not (tally.stored or tally.duplicates):
        first = tally.errors[0]
        where = f"{tally.place} {first[tally.place]}"
        raise ApiError(400, f"nothing was accepted; {where}: {first['msg']}", data=tally.data())
    return answered(request, 200, "success", tally.data())


def answered(request: web.Request, status: int, message: str, data: object) -> web.Response:
    """Makes the envelope. Written out, since it stands on the path of every event."""
    request_id = request_id_of(request)
    content = {"status": status, "message": message, "request_id": request_id, "data": data}
    return web.Response(
        body=orjson.dumps(content),
        status=status,
        headers={hdrs.CONTENT_TYPE: _CONTENT, "X-Request-Id": request_id},
    )


def refused_event(error: RefusedError, text: str) -> Refusal:
    """Gives the refusal of a request that is one event."""
    return Refusal(0, str(error), text[:2048])
