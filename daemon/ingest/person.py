"""Finding one person's events in the log: a paged walk that maps each event as ingest mapped it.

An index of events by profile would cost every event; this costs who asks. It works in slices of the event loop and
rests as long as it works, so that neither collection nor ingest waits for it (P5).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any, Final, NamedTuple

import orjson

from daemon.ingest.slices import Slices
from daemon.store import event_reader, query_versions
from daemon.store.database import Database
from daemon.store.event_reader import Page
from daemon.store.events import LANES, Lane
from daemon.store.guards import guards_of
from daemon.store.query_versions import END, Version
from streams.mapping import Mapper
from streams.person import Eye, IsTheirs, Stand, Texts, names, share
from streams.ql.errors import QueryError
from streams.ql.nodes import Query
from streams.ql.parser import parse_query
from streams.schema import build_schema

#: Events and stored bytes of one read.
READ_EVENTS: Final = 1024
READ_BYTES: Final = 512 * 1024
#: Longest rest after a page, in seconds.
LONGEST_REST_S: Final = 0.2


class Event(NamedTuple):
    """An event of the log, as stored."""

    lane: Lane
    position: int
    received_us: int
    stream: str
    event_us: int
    event_id: str | None
    body: dict[str, Any]


class Found(NamedTuple):
    """An event that has to do with the person, and how.

    `own`: it made their profile (or would, by the queries of now); with `others`, it made other profiles as well.
    `named`: it is others', and names one of the person's keys. Neither: it made no profile, and its text names them.
    """

    event: Event
    stand: Stand
    own: bool
    others: bool
    named: bool


class Epoch(NamedTuple):
    """How to see the events after the epoch before, up to these positions."""

    eye: Eye
    upto: Mapping[Lane, int]


class PersonEvents:
    """The walk. `theirs` says whose a key is, `texts` finds them where no query says anything (None: not looked for).

    `looked_at` counts the events walked over.
    """

    def __init__(self, events: Database, epochs: Sequence[Epoch], theirs: IsTheirs, texts: Texts | None) -> None:
        self._events = events
        self._epochs = epochs
        self.theirs = theirs
        self._texts = texts
        self.looked_at = 0

    @classmethod
    async def open(
        cls, events: Database, state: Database, theirs: IsTheirs, texts: Texts | None = None
    ) -> PersonEvents:
        """Reads which queries held when."""
        return cls(events, await epochs_of(state), theirs, texts)

    async def pages(
        self, lane: Lane, after: int = 0, upto: int = END, *, rest: float | Callable[[], float] = 1.0
    ) -> AsyncIterator[tuple[list[Found], int]]:
        """Gives the person's events of a lane in order, page by page, with the position up to which all are given.

        A page may be empty. `rest`: how long to rest after each page, as a multiple of the work that it made.
        """
        while after < upto:
            epoch = next(each for each in self._epochs if each.upto[lane] > after)
            end = min(upto, epoch.upto[lane])
            pages = await self._events.read(
                partial(
                    event_reader.read, lane=lane, after=after, upto=end, max_events=READ_EVENTS, max_bytes=READ_BYTES
                )
            )
            if not pages:
                if end == upto:
                    return
                after = end  # retention took them
                continue
            for page in pages:
                began = perf_counter()
                found = await self._look(epoch.eye, lane, page.text)
                after = page.last
                yield found, after
                share = rest() if callable(rest) else rest
                await asyncio.sleep(min(LONGEST_REST_S, (perf_counter() - began) * share))

    async def _look(self, eye: Eye, lane: Lane, text: str) -> list[Found]:
        rows: list[Any] = orjson.loads(text)
        self.looked_at += len(rows)
        slices, theirs, texts = Slices(), self.theirs, self._texts
        found = []
        for at in range(0, len(rows), 8):
            for row in rows[at : at + 8]:
                event = Event(lane, *row)
                one = look(eye, event, theirs, texts)
                if one is not None:
                    found.append(one)
            if slices.over:
                await slices.turn()
        return found


def look(eye: Eye, event: Event, theirs: IsTheirs, texts: Texts | None) -> Found | None:
    """Says what an event has to do with the person; None when nothing."""
    if event.stream in eye.streams:
        stand = eye.see(event.stream, event.body, event.event_us, event.event_id, event.received_us)
        if stand.then or stand.now:
            return judge(event, stand, theirs)
    else:
        stand = Stand((), ())
    if texts is not None and texts.within(event.body):
        return Found(event, stand, own=False, others=False, named=False)
    return None


def judge(event: Event, stand: Stand, theirs: IsTheirs) -> Found | None:
    """Says what an event that queries map has to do with the person; None when nothing."""
    then, now = share(stand.then, theirs), share(stand.now, theirs)
    own, others = bool(then.own or now.own), bool(then.others or now.others)
    named = not own and names((*then.others, *now.others), theirs)
    return Found(event, stand, own, others, named) if own or named else None


def events_of(lane: Lane, pages: Iterable[Page]) -> Iterator[Event]:
    """Gives the events of pages, in order."""
    for page in pages:
        for row in orjson.loads(page.text):
            yield Event(lane, *row)


async def epochs_of(state: Database) -> list[Epoch]:
    """Gives how events were mapped, epoch by epoch, each with what has changed since."""
    versions = await state.read(query_versions.versions)
    return [_epoch(version, versions[-1]) for version in versions]


def _epoch(version: Version, last: Version) -> Epoch:
    then = _mapper(version)
    # The schema is all queries' together: a kind that one query states changes what another one maps.
    same = version is last or (
        [row.text for row in version.queries] == [row.text for row in last.queries] and version.guards == last.guards
    )
    return Epoch(Eye(then, None if same else _mapper(last)), version.upto)


def _mapper(version: Version) -> Mapper:
    trees: list[Query] = []
    for row in version.queries:
        with suppress(QueryError):  # not accepted any more, and told at the start
            trees.append(parse_query(row.text))
    return Mapper(build_schema(trees), trees, guards_of(version.guards))


async def all_pages(walk: PersonEvents, upto: Mapping[Lane, int], *, rest: float = 1.0) -> AsyncIterator[list[Found]]:
    """Gives the person's events of both lanes up to these positions, page by page, lane after lane."""
    for lane in LANES:
        async for found, _ in walk.pages(lane, 0, upto[lane], rest=rest):
            yield found
