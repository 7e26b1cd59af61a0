"""The bus: wakes the subscriptions that a commit touches, lets runs read them, and stores how far they are.

It also forgets the triggers that nobody waits for.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, Protocol

import anyio
from structlog.typing import FilteringBoundLogger

from connectors.sdk.run import Batching
from daemon import clock, log
from daemon.bus import metrics
from daemon.bus.cursor import Cursor
from daemon.bus.feed import Dropped, Feed
from daemon.bus.messages import Builder, Definitions
from daemon.bus.parts import NO_JOURNAL, Batch, Journal
from daemon.bus.retention import Retention
from daemon.model.subscription import Outcome
from daemon.settings import Settings
from daemon.store import redeliveries, subscriptions, trigger_log
from daemon.store.database import Database, undisturbed
from daemon.store.subscriptions import SubscriptionRow

#: How long the last acknowledgements may take to be stored when stopping, in seconds.
LAST_FLUSH_S = 5.0


class Committed(Protocol):
    """A commit of triggers: the first and last id, and the audiences that moved."""

    @property
    def first(self) -> int:
        """The first trigger id of the commit."""

    @property
    def last(self) -> int:
        """The last trigger id of the commit."""

    @property
    def audiences(self) -> Collection[int]:
        """Numbers of the audiences that moved."""


class Lag(NamedTuple):
    """How far a subscription is behind: wanted triggers not yet done with, and the age of the oldest in seconds."""

    triggers: int
    seconds: float
    position: int
    backfilling: bool


class Source:
    """What a run reads its subscription by; see `connectors.sdk.run.TriggerSource`."""

    def __init__(
        self,
        bus: Bus,
        cursor: Cursor,
        logger: FilteringBoundLogger,
        on_delivered: Callable[[], None],
        dropped: Dropped | None,
        run_id: str,
    ) -> None:
        self._bus = bus
        self._cursor = cursor
        self._logger = logger
        self._on_delivered = on_delivered
        self._dropped = dropped
        self._run_id = run_id
        self._open = False

    def leases(self, batching: Batching, *, fields: Sequence[str] | None, ordered: bool) -> Feed:
        """Begins to give out batches; once in a run."""
        if self._open:
            raise RuntimeError("leases were begun already in this run")
        self._open = True
        return self._bus.feed(
            self._cursor,
            batching,
            fields=fields,
            ordered=ordered,
            logger=self._logger,
            on_delivered=self._on_delivered,
            dropped=self._dropped,
            run_id=self._run_id,
        )


class Bus:
    """The subscriptions of all jobs that are not completed. Made by `open`."""

    def __init__(
        self, state: Database, definitions: Definitions, settings: Settings, journal: Journal = NO_JOURNAL
    ) -> None:
        self._state = state
        self._definitions = definitions
        self._journal = journal
        self._settings = settings
        self._cursors: dict[str, Cursor] = {}
        self._by_audience: dict[int, list[Cursor]] = {}
        self._dirty: set[str] = set()
        self._dirty_event = asyncio.Event()
        self._retention = Retention(state, settings.retention, journal)
        self.head = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, state: Database, definitions: Definitions, settings: Settings, journal: Journal = NO_JOURNAL
    ) -> AsyncIterator[Bus]:
        """Loads the subscriptions and serves until left; `definitions` gives the current snapshot.

        On leaving, what was acknowledged is stored; the runs have ended by then.
        """
        self = cls(state, definitions, settings, journal)
        self.head, rows, asked = await state.read(
            lambda db: (trigger_log.head(db), subscriptions.live(db), redeliveries.jobs(db))
        )
        for row in rows:
            self.add(row)
            self._cursors[row.id].again = row.job_id in asked
        tasks = [
            asyncio.create_task(self._store_progress(), name="bus: progress"),
            asyncio.create_task(self._sweep(), name="bus: retention"),
        ]
        try:
            with metrics.showing_lag(self.behind):
                yield self
        finally:
            with anyio.CancelScope(shield=True):  # also when another loop has crashed
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_FLUSH_S):
                        await self.flush(every=True)

    # --- what the others call

    def notify(self, commit: Committed) -> None:
        """Takes notice of a commit that is durable. Cheap; called in the order of the commits."""
        self.head = max(self.head, commit.last)
        for number in commit.audiences:
            for cursor in self._by_audience.get(number, ()):
                cursor.touch(commit.first)

    def add(self, row: SubscriptionRow) -> None:
        """Takes up a subscription that was stored."""
        cursor = Cursor(row)
        self._cursors[row.id] = cursor
        for number in row.wanted.audiences:
            self._by_audience.setdefault(number, []).append(cursor)

    def remove(self, subscription_id: str) -> None:
        """Lets go of a subscription that is deleted; its cursor holds no trigger any more."""
        cursor = self._cursors.pop(subscription_id, None)
        if cursor is None:
            return
        self._dirty.discard(subscription_id)
        metrics.forget(cursor.job_id)
        for number in cursor.wanted.audiences:
            listeners = self._by_audience[number]
            listeners.remove(cursor)
            if not listeners:
                del self._by_audience[number]

    async def retire(self, subscription_id: str) -> None:
        """Stores how far a subscription is, for the last time, and lets go of it: its job is completed."""
        try:
            await self.flush(every=True)
        finally:
            self.remove(subscription_id)

    @asynccontextmanager
    async def attach(
        self,
        subscription_id: str,
        logger: FilteringBoundLogger,
        on_delivered: Callable[[], None],
        dropped: Dropped | None = None,
        run_id: str = "",
    ) -> AsyncIterator[Source]:
        """Lets one run read a subscription. What it leaves unsettled is read again by the next.

        Triggers of moments that are `dropped` are passed over, as omitted.

        `on_delivered` is called each time that something was delivered or omitted. A former run that did not end is
        cut off: it gets no more batches, and settling those that it has does nothing.
        """
        cursor = self._cursors[subscription_id]
        if cursor.reader is not None:
            cursor.release(self.head)
        reader = cursor.reader = object()
        try:
            yield Source(self, cursor, logger, on_delivered, dropped, run_id)
        finally:
            if cursor.reader is reader:
                cursor.release(self.head)
                self._mark(cursor)

    def feed(
        self,
        cursor: Cursor,
        batching: Batching,
        *,
        fields: Sequence[str] | None,
        ordered: bool,
        logger: FilteringBoundLogger,
        on_delivered: Callable[[], None],
        dropped: Dropped | None = None,
        run_id: str = "",
    ) -> Feed:
        """Makes the feed of a run that is attached."""

        def settled(cursor: Cursor, outcome: Outcome) -> None:
            self._mark(cursor)
            if outcome in {Outcome.DELIVERED, Outcome.OMITTED}:
                on_delivered()

        builder = Builder(self._definitions, cursor.id, fields)
        return Feed(
            cursor,
            self._state,
            builder,
            batching,
            ordered=ordered,
            on_settled=settled,
            logger=logger,
            dropped=dropped,
            journal=self._journal,
            run_id=run_id,
        )

    def ask_again(self, subscription_id: str) -> None:
        """Takes notice that messages were asked for again."""
        cursor = self._cursors.get(subscription_id)
        if cursor is not None:
            cursor.again = True
            cursor.wake()

    async def lag(self, subscription_id: str) -> Lag | None:
        """Says how far a subscription is behind; None when it is none of a job that is not completed."""
        cursor = self._cursors.get(subscription_id)
        if cursor is None:
            return None
        position, _ = cursor.places(self.head)
        done = sum(each > position for each in cursor.done_live)
        count, oldest_us = await self._state.read(lambda db: trigger_log.lag(db, cursor.filter, position))
        count = max(count - done, 0)
        seconds = 0.0 if oldest_us is None or not count else max(clock.now_us() - oldest_us, 0) / 1e6
        return Lag(count, seconds, position, cursor.backfilling)

    def row(self, subscription_id: str) -> SubscriptionRow | None:
        """Gives a subscription with its progress of this moment, which may be ahead of what is stored."""
        cursor = self._cursors.get(subscription_id)
        if cursor is None:
            return None
        progress = cursor.progress(self.head)
        return SubscriptionRow(cursor.id, cursor.job_id, cursor.wanted, cursor.created_us, progress)

    def behind(self) -> dict[str, int]:
        """Gives by job how many trigger ids its cursor is behind the end of the log; for metrics."""
        return {each.job_id: max(self.head - each.places(self.head)[0], 0) for each in self._cursors.values()}

    async def flush(self, *, every: bool = False) -> None:
        """Stores how far the subscriptions are that have moved; with `every`, also those that only stood by."""
        ids = set(self._cursors) if every else self._dirty & self._cursors.keys()
        self._dirty = set()
        moved = [
            (cursor, progress)
            for cursor in map(self._cursors.__getitem__, ids)
            if (progress := cursor.progress(self.head)) != cursor.stored or cursor.done_again
        ]
        again = {cursor: frozenset(cursor.done_again) for cursor, _ in moved if cursor.done_again}
        # What a cursor passes is written down with it. More than one step has room for goes before it.
        attempts = self._journal.take()
        while attempts.full:
            await self._write(attempts.write, attempts)
            attempts = self._journal.take()
        if not moved and not attempts:
            return
        rows = [(cursor.id, progress) for cursor, progress in moved]

        def write(db: sqlite3.Connection) -> None:
            subscriptions.move(db, rows)
            if again:
                redeliveries.done(db, sorted(frozenset().union(*again.values())))
            attempts.write(db)

        try:
            await self._write(write, attempts)
        except BaseException:
            self._dirty.update(ids)
            raise
        for cursor, progress in moved:
            cursor.stored = progress
        for cursor, done in again.items():
            cursor.done_again -= done

    async def _write(self, work: Callable[[sqlite3.Connection], None], attempts: Batch) -> None:
        """Writes what has to do with these attempts, which are given back where it fails.

        What is under way is waited for, also when cancelled: given back then, they would be written a second time.
        """
        writing = asyncio.ensure_future(self._state.write(work))
        try:
            await undisturbed(writing)
        finally:
            if writing.cancelled() or writing.exception() is not None:
                attempts.give_back()

    async def settled(self) -> int:
        """Stores all cursors, and gives the trigger id up to which every subscription is done."""
        await self._retention.give_up(list(self._cursors.values()))
        await self.flush(every=True)
        return self._floor()

    def _floor(self) -> int:
        return min((each.places(self.head)[0] for each in self._cursors.values()), default=self.head)

    async def sweep(self) -> int:
        """Stores all cursors, gives up dead ones, and deletes the triggers that nobody waits for; says how many."""
        await self.flush(every=True)
        given_up = await self._retention.give_up(list(self._cursors.values()))
        if given_up:
            await self.flush(every=True)
        return await self._retention.delete(self._floor())

    # --- what goes on beside

    def _mark(self, cursor: Cursor) -> None:
        if cursor.id in self._cursors:
            self._dirty.add(cursor.id)
            self._dirty_event.set()

    async def _store_progress(self) -> None:
        """Stores acknowledgements, those of a moment together."""
        while True:
            await self._dirty_event.wait()
            self._dirty_event.clear()
            await asyncio.sleep(self._settings.bus.store_s)
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001  (a full disk: what is not stored is delivered again)
                log.get().warning("progress_not_stored", error=str(error))
                self._dirty_event.set()
                await asyncio.sleep(1.0)

    async def _sweep(self) -> None:
        """Does what `sweep` does, again and again."""
        while True:
            await asyncio.sleep(self._settings.retention.sweep_s)
            try:
                await self.sweep()
            except Exception as error:  # noqa: BLE001  (the next round tries again)
                log.get().warning("retention_failed", what="triggers", error=str(error))
