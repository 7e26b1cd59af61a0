"""The two lanes of the log as the loop reads them: some pages ahead, without reading where nothing can be."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from typing import Final, Protocol

from daemon.ingest.unit import LANES, Lane
from daemon.store import event_reader
from daemon.store import events as event_log
from daemon.store.database import Database
from daemon.store.event_reader import Page

#: Events of the bulk lane that are read at a time.
READ_EVENTS: Final = 4096


class LaneSettings(Protocol):
    """What reading needs of the settings' section `ingest`."""

    @property
    def batch_events(self) -> int:
        """Events of one bulk batch at most."""

    @property
    def read_bytes(self) -> int:
        """Stored bytes of events that are read at a time."""

    @property
    def realtime_events(self) -> int:
        """Events of one real-time batch at most."""


class Lanes:
    """Pages of both lanes. `pages[lane]` are read and not yet taken; `fresh[lane]` says that there may be more."""

    def __init__(self, events: Database, settings: LaneSettings) -> None:
        self._events = events
        self._settings = settings
        self._heads: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._reading: asyncio.Future[list[Page]] | None = None
        self.pages: dict[Lane, list[Page]] = {lane: [] for lane in LANES}
        self.fresh: dict[Lane, bool] = dict.fromkeys(LANES, True)
        #: Events that are read at a time at most, while a defect is searched for.
        self.most_events: int | None = None

    def lag(self, cursors: Mapping[Lane, int]) -> dict[str, int]:
        """Gives the events of each lane beyond `cursors`, as last seen."""
        return {lane: max(0, self._heads[lane] - cursors[lane]) for lane in LANES}

    async def has(self, lane: Lane, after: int) -> bool:
        """Says whether there are events to take after a position; reads some when it is not known."""
        if self.pages[lane]:
            return True
        if lane == "bulk" and self._reading is not None:
            reading, self._reading = self._reading, None
            self.pages["bulk"] = await reading
            if self.pages["bulk"]:
                return True
        if not self.fresh[lane]:
            return False
        self.fresh[lane] = False
        pages, heads = await self._read(lane, after)
        self.pages[lane] = pages
        self._see(heads, lane, pages)
        return bool(pages)

    async def has_bulk(self, after: int, *, hurry: bool) -> bool:
        """Says whether the bulk lane has events; in a hurry it does not wait for the log, but asks again next time."""
        if hurry and not self.pages["bulk"]:
            if self._reading is None:
                if not self.fresh["bulk"]:
                    return False
                self.fresh["bulk"] = False
                self._reading = asyncio.ensure_future(self._read_on(after))
            if not self._reading.done():
                return False
        return await self.has("bulk", after)

    def read_ahead(self) -> None:
        """Begins to read the bulk lane after the pages that are there."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_on(self.pages["bulk"][-1].last))

    def forget(self) -> None:
        """Drops what was read: the cursors are elsewhere."""
        self.pages = {lane: [] for lane in LANES}
        self.fresh = dict.fromkeys(LANES, True)

    async def drop(self) -> None:
        """Ends the read under way; what it brings is not wanted."""
        reading, self._reading = self._reading, None
        if reading is not None:
            await asyncio.wait([reading])
            reading.exception()

    async def _read(self, lane: Lane, after: int) -> tuple[list[Page], dict[Lane, int]]:
        most = self._settings.realtime_events if lane == "realtime" else min(READ_EVENTS, self._settings.batch_events)
        if self.most_events is not None:
            most = min(most, self.most_events)
        size = self._settings.read_bytes

        def read(db: sqlite3.Connection) -> tuple[list[Page], dict[Lane, int]]:
            return event_reader.read(db, lane, after, most, size), event_log.heads(db)

        return await self._events.read(read)

    async def _read_on(self, after: int) -> list[Page]:
        pages, heads = await self._read("bulk", after)
        self._see(heads, "bulk", pages)
        return pages

    def _see(self, heads: Mapping[Lane, int], lane: Lane, pages: list[Page]) -> None:
        """Notes how far the log goes; what a lane has beyond the pages just read is there to be read."""
        self._heads = {each: max(self._heads[each], heads[each]) for each in LANES}
        if pages and heads[lane] > pages[-1].last:
            self.fresh[lane] = True
