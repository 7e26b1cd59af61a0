"""Writes what is noted of streams, and counts once more what a process that was killed had not written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from daemon import clock
from daemon.settings import Settings
from daemon.store import streams as store
from daemon.store.database import Database
from daemon.store.events import LANES, Lane
from daemon.store.seen import Seen

#: Field names taken over from the store at the start, of all streams.
_KNOWN_FIELDS = 100_000

#: Events that one read of the recount looks at.
_RECOUNT_EVENTS = 20_000


class Notes:
    """What is seen of streams, and its way into the file. `heads`: the last position of each lane, kept current."""

    def __init__(self, database: Database, settings: Settings, heads: Mapping[Lane, int]) -> None:
        self.seen = Seen(settings.collect.stream_fields)
        self._database = database
        self._keep = settings.retention.rejects
        self._heads = heads
        self._uncounted: list[tuple[Lane, int, int]] = []
        self._flushing = asyncio.Lock()

    async def load(self) -> None:
        """Takes over what is stored: streams, fields, and up to where events are counted."""
        known = await self._database.read(lambda db: store.known(db, _KNOWN_FIELDS))
        counted = await self._database.read(store.counted)
        self._uncounted = [(lane, counted[lane], self._heads[lane]) for lane in LANES]
        for stream, fields in known.items():
            self.seen.know(stream, fields)

    async def flush(self) -> None:
        """Writes what was noted, so that it can be read; what cannot be written stays noted."""
        async with self._flushing:
            await self._recount()
            counts, fields, rejects = self.seen.take(clock.now_us())
            if not (counts or fields or rejects):
                return
            heads = dict(self._heads)
            try:
                await self._database.write(
                    lambda db: store.note(db, counts, fields, rejects, heads=heads, keep=self._keep)
                )
            except BaseException:
                self.seen.put_back(counts, fields, rejects)
                raise

    async def _recount(self) -> None:
        while self._uncounted:
            lane, after, head = self._uncounted[-1]
            upto = min(head, after + _RECOUNT_EVENTS)
            if upto > after:
                for stream, events, last_us in await self._counted(lane, after, upto):
                    self.seen.count(stream, last_us, events=events)
            self._uncounted[-1] = (lane, upto, head)
            if upto == head:
                self._uncounted.pop()

    async def _counted(self, lane: Lane, after: int, upto: int) -> list[tuple[str, int, int]]:
        return await self._database.read(lambda db: store.recount(db, lane, after, upto))
