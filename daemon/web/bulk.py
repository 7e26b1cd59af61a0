"""`/collect/bulk`: CSV and NDJSON of any length, read as it comes, on the bulk lane.

One batch is on its way to the disk while the next is read. Where ingest is behind the upload waits, and its sender
with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import orjson
from aiohttp import web

from daemon import clock
from daemon.store.collector import Collector, NotAcceptedError
from daemon.web import auth, body
from daemon.web.body import ApiError
from daemon.web.collect_json import LINES
from daemon.web.collecting import (
    PARAMETERS,
    REPLY,
    Tally,
    answered,
    collecting,
    collector_of,
    content_type_of,
    flag,
    not_accepted,
    rules_of,
    stream_of,
)
from daemon.web.envelope import describe, request_id_of
from daemon.web.services import SERVICES
from streams.delimited import Delimited, HeaderError, delimiter_of
from streams.event import Event, Refusal, Rules, read_lines
from streams.lines import Lines, slice_end

CSV = frozenset({"text/csv", "application/csv", "text/tab-separated-values"})

# What these hold is told by the first byte.
_UNSAID = frozenset({"", "application/octet-stream", "application/gzip", "application/x-gzip"})
_KNOWN = CSV | LINES | _UNSAID | {"application/json"}

#: Events of one append: little enough that single events do not wait long for the writer.
BATCH_EVENTS = 256
BATCH_BYTES = 1024 * 1024

#: Appends of one upload that wait for the disk.
UNDER_WAY = 4

#: Lines, and about as many bytes, that are read in one turn of the event loop; of these a part while single events
#: come, each of which needs several turns.
_SLICE_LINES = 256
_SLICE_BYTES = 64 * 1024
_HURRIED_PART = 8


class _Reader(Protocol):
    def read(self, lines: list[bytes], first: int, received_us: int) -> tuple[list[Event], list[Refusal]]: ...

    def end(self, next_line: int, received_us: int) -> tuple[list[Event], list[Refusal]]: ...


class _JsonLines:
    def __init__(self, rules: Rules, *, stop: bool) -> None:
        self._rules = rules
        self._stop = stop

    def read(self, lines: list[bytes], first: int, received_us: int) -> tuple[list[Event], list[Refusal]]:
        return read_lines(lines, first, received_us, self._rules, stop=self._stop)

    def end(self, next_line: int, received_us: int) -> tuple[list[Event], list[Refusal]]:
        del next_line, received_us
        return [], []


def routes() -> list[web.RouteDef]:
    """Gives the routes of this module."""
    return [web.post("/collect/bulk/{stream}", collect_bulk)]


@describe(
    "data",
    tag="collection",
    query=PARAMETERS
    | {
        "headers": "CSV: names of the columns, comma-separated, where the file has no header line",
        "delimiter": "CSV: one character, or comma, tab, semicolon, pipe, space",
        "append": "JSON object merged into each event; wins over a column of the same name",
        "droperrors": "true: refuse malformed lines and go on; else the first one ends the upload",
    },
    body={"text/csv": {"type": "string"}, "application/x-ndjson": {"type": "object"}},
    reply=REPLY,
    enveloped=True,
)
@collecting
async def collect_bulk(request: web.Request) -> web.StreamResponse:
    """Takes a file of events, CSV or an object a line, streamed.

    429 or 503 at the door: nothing of it was stored. An upload that has begun is slowed, not refused; if the log fails
    in its middle, the 503 says in `data.message_count` how many events from the start are stored. Without `droperrors`
    the first malformed line ends the upload: 400 with its line; what stands before it is stored and counted.
    """
    await auth.require(request, "data", in_query=True)
    collector = collector_of(request)
    collector.admit("bulk")
    settings = request.app[SERVICES].settings
    stream = stream_of(request)
    kind = content_type_of(request, _KNOWN)
    rules = rules_of(request, settings, bulk=True)
    most = settings.collect.upload_bytes
    tally = Tally(place="line", dryrun=flag(request, "dryrun"), filename=request.query.get("filename"))
    drop = flag(request, "droperrors")
    upload = _Upload(request, collector, stream, rules, tally, drop=drop)
    try:
        upload.choose(kind)
        async for chunk in body.pieces(request, most=most, silence_s=settings.server.body_timeout_s, files=True):
            if not await upload.feed(chunk):
                break
        else:
            await upload.finish()
        await upload.settle()
    except NotAcceptedError as error:
        await upload.give_up()
        told = f"{error}; stored are {tally.stored} events from the start"
        raise not_accepted(_plainly(error, told), tally.data()) from error
    except HeaderError as error:
        raise ApiError(400, str(error), data=tally.data()) from error
    except ApiError as error:  # the body broke off, or is too large: what came before is stored
        try:
            await upload.settle()
        except NotAcceptedError:
            await upload.give_up()
        error.data = tally.data()
        raise
    if tally.rejected and not drop:
        first = tally.errors[0]
        stored = f"{tally.stored + tally.duplicates} events before it are kept"
        raise ApiError(400, f"line {first['line']}: {first['msg']}; {stored}", data=tally.data())
    return answered(request, 200, "success", tally.data())


class _Upload:
    """One upload under way."""

    def __init__(
        self, request: web.Request, collector: Collector, stream: str, rules: Rules, tally: Tally, *, drop: bool
    ) -> None:
        self._request = request
        self._collector = collector
        self._stream = stream
        self._rules = rules
        self._tally = tally
        self._drop = drop
        self._lines = Lines(rules.event_bytes)
        self._reader: _Reader | None = None
        self._events: list[Event] = []
        self._size = 0
        self._received_us = clock.now_us()
        self._under_way: deque[tuple[asyncio.Future[int], int]] = deque()

    def choose(self, kind: str) -> None:
        """Chooses the reader by the content type; without one it is chosen by the first byte that comes."""
        append = self._append()
        if kind in CSV:
            self._reader = self._delimited(append, "tab" if kind == "text/tab-separated-values" else "comma")
        elif kind not in _UNSAID:
            self._reader = _JsonLines(self._rules, stop=not self._drop)
        self._added = append if isinstance(self._reader, _JsonLines) else {}

    async def feed(self, chunk: bytes) -> bool:
        """Reads what came; False when the upload is over because of a malformed line."""
        if self._reader is None:
            start = chunk.removeprefix(b"\xef\xbb\xbf").lstrip()
            if not start:
                return True
            self.choose("application/x-ndjson" if start[:1] == b"{" else "text/csv")
        first = self._lines.number
        return await self._read(self._lines.feed(chunk), first)

    async def finish(self) -> None:
        """Reads what still waits, and sends off the last events."""
        first = self._lines.number
        if self._reader is not None and await self._read(self._lines.end(), first):
            await self._took(*self._reader.end(self._lines.number, self._received_us))
        await self._send()

    async def settle(self) -> None:
        """Sends off the events read so far, and waits until they are on disk. Raises NotAcceptedError."""
        await self._send()
        while self._under_way:
            await self._arrived()

    async def give_up(self) -> None:
        """Waits for what is on its way, and counts what of it was stored: all up to the first that was not."""
        try:
            while self._under_way:
                await self._arrived()
        except NotAcceptedError:
            self._under_way.clear()

    async def _read(self, lines: list[bytes], first: int) -> bool:
        assert self._reader is not None  # noqa: S101  (chosen before the first line)
        at = 0
        self._received_us = clock.now_us()
        while at < len(lines):
            part = _HURRIED_PART if self._collector.hurried else 1
            end = slice_end(lines, at, _SLICE_LINES // part, _SLICE_BYTES // part)
            events, refusals = self._reader.read(lines[at:end], first + at, self._received_us)
            if not await self._took(events, refusals):
                return False
            at = end
            await asyncio.sleep(0)
        return True

    async def _took(self, events: list[Event], refusals: list[Refusal]) -> bool:
        if self._added:
            events = [self._with_added(each) for each in events]
        self._events += events
        if refusals:
            refusals = refusals if self._drop else refusals[:1]
            self._tally.refuse(refusals)
            if not self._tally.dryrun:
                self._collector.refuse(self._stream, "line", refusals, request_id_of(self._request))
            if not self._drop:
                await self._send()
                return False
        self._size += sum(len(each.body) for each in events)
        if len(self._events) >= BATCH_EVENTS or self._size >= BATCH_BYTES:
            await self._send()
        return True

    async def _send(self) -> None:
        events, self._events, self._size = self._events, [], 0
        if self._tally.dryrun:
            self._tally.stored += len(events)
            return
        for start in range(0, len(events), BATCH_EVENTS):
            batch = events[start : start + BATCH_EVENTS]
            while len(self._under_way) >= UNDER_WAY:
                await self._arrived()
            await self._collector.room("bulk")
            done = self._collector.append("bulk", self._stream, batch, self._received_us)
            self._under_way.append((done, len(batch)))

    async def _arrived(self) -> None:
        done, count = self._under_way.popleft()
        duplicates = await done
        self._tally.duplicates += duplicates
        self._tally.stored += count - duplicates

    def _append(self) -> dict[str, object]:
        text = self._request.query.get("append")
        if not text:
            return {}
        try:
            append = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ApiError(400, f"append: not JSON: {error}") from error
        if not isinstance(append, dict):
            raise ApiError(400, "append: a JSON object is accepted")
        return append

    def _delimited(self, append: dict[str, object], delimiter: str) -> Delimited:
        query = self._request.query
        separator = delimiter_of(query.get("delimiter") or delimiter)
        names = query.get("headers")
        headers = None if names is None else names.split(",")
        return Delimited(self._rules, delimiter=separator, headers=headers, append=append, stop=not self._drop)

    def _with_added(self, event: Event) -> Event:
        data = event.data | self._added
        return event._replace(data=data, body=orjson.dumps(data).decode())


def _plainly(error: NotAcceptedError, message: str) -> NotAcceptedError:
    return NotAcceptedError(message, behind=error.behind, retry_after_s=error.retry_after_s)
