"""What was accepted goes into the log: group commit in two lanes, durable before anybody is told.

Each lane has one transaction under way; what arrives meanwhile waits and goes into the next one together, so the disk's
delay is paid once for all of them. The bulk lane never has more than a small batch in the writer's way.

When the log cannot be written everybody who waits is told so, and new requests are refused at once until it can be
written again (`log_health`).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio
from prometheus_client import Counter

from daemon import clock, log
from daemon.metrics import REGISTRY
from daemon.settings import Settings
from daemon.store import events as event_log
from daemon.store import retention
from daemon.store.budget import Budget
from daemon.store.database import Database
from daemon.store.events import LANES, Appended, Batch, Lane
from daemon.store.import_checkpoints import Checkpoint
from daemon.store.log_health import LogHealth
from daemon.store.notes import Notes
from daemon.store.reserve import Reserve
from streams.event import Event, Refusal
from streams.ql.errors import QueryError
from streams.routing import Routes, Rule, build_routes

#: Events of one transaction; one request's events stay together however many they are. Of the bulk lane only a few
#: while single events come, so that they do not wait long for the writer.
GROUP_EVENTS = 1024
HURRIED_EVENTS = 256

#: How long after the last single event others are expected, in seconds.
HURRIED_S = 0.05

#: Pages of the write-ahead log after which it is copied into the file.
CHECKPOINT_PAGES = 250

#: How long a sender waits before it tries again, in seconds.
BEHIND_RETRY_S = 5
FAILED_RETRY_S = 5

#: How often a slowed upload looks whether it may go on, in seconds.
_SLOW_S = 0.05

_DAY_US = 86_400_000_000

_EVENTS = Counter("cohortd_events", "Events accepted and on disk.", ["lane"], registry=REGISTRY)
_DUPLICATES = Counter("cohortd_events_duplicate", "Events whose id was seen before.", ["lane"], registry=REGISTRY)
_REJECTED = Counter("cohortd_events_rejected", "Events refused.", registry=REGISTRY)
_COMMITS = Counter("cohortd_event_commits", "Transactions of the log.", ["lane"], registry=REGISTRY)


class NotAcceptedError(RuntimeError):
    """Events that are not taken now; nothing of them is stored.

    `behind`: the backlog is at its bound (429), else the log cannot be written or the daemon stops (503).
    """

    def __init__(self, message: str, *, behind: bool, retry_after_s: int) -> None:
        super().__init__(message)
        self.behind = behind
        self.retry_after_s = retry_after_s


class _Waiting(Batch):
    """Events that wait for their transaction, where they go, and who waits for them."""

    __slots__ = ("done", "events", "size", "stream", "streams")

    def __init__(self, stream: str, done: asyncio.Future[int]) -> None:
        super().__init__()
        self.stream = stream
        #: Events by stream, where rules have moved some.
        self.streams: dict[str, int] | None = None
        self.events = 0
        self.size = 0
        self.done = done


class _LaneState:
    def __init__(self, name: Lane, head: int, bound: int) -> None:
        self.name: Lane = name
        self.head = head
        self.bound = bound
        self.waiting: deque[_Waiting] = deque()
        self.size = 0
        self.last_s = 0.0
        #: Set while nothing is on its way to the disk.
        self.idle = asyncio.Event()
        self.idle.set()
        self.stored = _EVENTS.labels(name)
        self.repeated = _DUPLICATES.labels(name)
        self.commits = _COMMITS.labels(name)


class Collector:
    """Takes events into the log. `append` returns a future that is done when they are on disk."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        heads: Mapping[Lane, int],
        *,
        rules: Callable[[], Sequence[Rule]],
        cursors: Callable[[], Mapping[Lane, int]],
        wake: Callable[[Lane], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._settings = settings
        self._rules = rules
        self._cursors = cursors
        self._wake = wake
        bounds = {"realtime": settings.collect.backlog_events, "bulk": settings.collect.bulk_backlog_events}
        self._lanes = {lane: _LaneState(lane, heads[lane], bounds[lane]) for lane in LANES}
        self._heads = dict(heads)
        self._notes = Notes(database, settings, self._heads)
        self._seen = self._notes.seen
        self._reserve = Reserve(settings.data_dir, settings.store.reserve_bytes)
        self._compiled: Sequence[Rule] = ()
        self._routes = Routes()
        #: What bodies of requests may take in memory, as much as events that wait for the disk.
        self.budget = Budget(settings.collect.waiting_bytes)
        self._health = LogHealth(
            database,
            self._reserve,
            look=self.flush,
            retain=self._retain,
            retain_s=settings.retention.sweep_s,
            failing=self._tell_waiting,
        )
        self._stopping = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        database: Database,
        settings: Settings,
        *,
        rules: Callable[[], Sequence[Rule]],
        cursors: Callable[[], Mapping[Lane, int]],
        wake: Callable[[Lane], None],
    ) -> AsyncIterator[Collector]:
        """Serves until left; then what was taken is committed, and what comes is refused.

        rules: those that hold now. cursors: the position up to which ingest is done with each lane, durably.
        wake: called with the lane after each commit of events.
        """
        heads = await database.read(event_log.heads)
        self = cls(database, settings, heads, rules=rules, cursors=cursors, wake=wake)
        await self._notes.load()
        await database.write(_checkpoint_often)
        await anyio.to_thread.run_sync(self._reserve.take)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._health.watch, name="log watch")
            try:
                yield self
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close()
                tasks.cancel_scope.cancel()

    @property
    def hurried(self) -> bool:
        """Whether single events come, for which bulk work keeps itself short."""
        return self._loop.time() - self._lanes["realtime"].last_s < HURRIED_S

    @property
    def trouble(self) -> str | None:
        """Why nothing can be taken now; None while all is well."""
        return self._health.failed

    def lag(self, lane: Lane) -> int:
        """Gives how many of the lane's events ingest has still to take."""
        return max(0, self._lanes[lane].head - self._cursors()[lane])

    def admit(self, lane: Lane) -> None:
        """Raises NotAcceptedError when the lane takes nothing now; asked before a body is read."""
        if self._health.failed is not None or self._stopping:
            raise self._refusal()
        state = self._lanes[lane]
        if state.head - self._cursors()[lane] >= state.bound:
            raise NotAcceptedError(
                f"{state.bound} events of the {lane} lane wait to be processed; send it again later",
                behind=True,
                retry_after_s=BEHIND_RETRY_S,
            )

    def append(
        self,
        lane: Lane,
        stream: str,
        events: Sequence[Event],
        received_us: int,
        checkpoint: Checkpoint | None = None,
    ) -> asyncio.Future[int]:
        """Appends events, routed by the rules, all or none of them, and with them the checkpoint of their import.

        The future gives the number of duplicates once the rest is on disk, or raises NotAcceptedError. So does the call
        itself when nothing can be taken.
        """
        state = self._lanes[lane]
        if self._health.failed is not None or self._stopping:
            raise self._refusal()
        if state.size > self._settings.collect.waiting_bytes:
            raise NotAcceptedError("too much waits for the disk; send it again later", behind=True, retry_after_s=1)
        routes = self._current_routes()
        waiting = _Waiting(stream, self._loop.create_future())
        state.last_s = self._loop.time()
        if routes and routes.touches(stream):
            self._routed(waiting, routes, events, received_us)
        else:
            if stream not in self._seen:
                self._new_stream(stream)
            flat, size = waiting.flat, 0
            keys: tuple[str, ...] = ()
            for event_us, event_id, body, data in events:
                flat += (received_us, stream, event_us, event_id, body)
                if event_id is not None:
                    waiting.keyed = True
                size += len(body)
                if keys != (keys := tuple(data)):
                    self._seen.shape(stream, data)
            waiting.size = size
        if checkpoint is not None:
            waiting.checkpoint, waiting.keyed = checkpoint, True
        waiting.events = len(events)
        state.size += waiting.size
        state.waiting.append(waiting)
        if state.idle.is_set():
            state.idle.clear()
            self._commit(state)
        return waiting.done

    def refuse(self, stream: str, place: str, refusals: Sequence[Refusal], request_id: str) -> None:
        """Keeps refusals to be read; `place` says what their numbers count: "index", "line", or "" for a whole body."""
        try:
            self._new_stream(stream)
        except NotAcceptedError:
            return
        _REJECTED.inc(len(refusals))
        self._seen.refuse(stream, place, refusals, request_id, clock.now_us())

    async def room(self, lane: Lane) -> None:
        """Waits while the lane's backlog, or what waits for the disk, is at its bound.

        Raises NotAcceptedError when the log fails or the daemon stops meanwhile.
        """
        state = self._lanes[lane]
        most = self._settings.collect.waiting_bytes
        while state.head - self._cursors()[lane] >= state.bound or state.size > most:
            if self._health.failed is not None or self._stopping:
                raise self._refusal()
            await asyncio.sleep(_SLOW_S)

    async def flush(self) -> None:
        """Writes counts, fields and refusals now, so that they can be read."""
        await self._notes.flush()

    async def disk(self) -> dict[str, int]:
        """Gives the bytes that the log takes, within it what can be used again, and what the disk has free."""
        path = self._database.path
        size = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
        reusable = await self._database.read(event_log.free_bytes)
        return {"events_bytes": size, "reusable_bytes": reusable, "disk_free_bytes": self._reserve.room_bytes()}

    def _routed(self, waiting: _Waiting, routes: Routes, events: Sequence[Event], received_us: int) -> None:
        waiting.streams = {}
        for event_us, event_id, body, data in events:
            stream = routes.route(waiting.stream, data, clock.from_us(event_us))
            if stream not in self._seen:
                self._new_stream(stream)
            waiting.flat += (received_us, stream, event_us, event_id, body)
            waiting.keyed = waiting.keyed or event_id is not None
            waiting.size += len(body)
            waiting.streams[stream] = waiting.streams.get(stream, 0) + 1
            self._seen.shape(stream, data)

    def _current_routes(self) -> Routes:
        rules = self._rules()
        if rules is not self._compiled:
            self._compiled = rules
            self._routes = build_routes(rules, _rule_refused)
        return self._routes

    def _new_stream(self, stream: str) -> None:
        if stream not in self._seen:
            if len(self._seen) >= self._settings.collect.streams:
                raise NotAcceptedError(
                    f"{stream!r} would be a new stream, and there are {len(self._seen)}, as many as collect.streams "
                    "allows",
                    behind=True,
                    retry_after_s=3600,
                )
            self._seen.know(stream)

    def _refusal(self) -> NotAcceptedError:
        if self._stopping:
            return NotAcceptedError("the daemon is stopping", behind=False, retry_after_s=FAILED_RETRY_S)
        return NotAcceptedError(
            f"the log cannot be written now ({self._health.failed}); send it again later",
            behind=False,
            retry_after_s=FAILED_RETRY_S,
        )

    def _commit(self, lane: _LaneState) -> None:
        """Has what waits written. What comes until the writer is free goes with it."""
        group: list[_Waiting] = []
        forgotten_us = clock.now_us() - int(self._settings.collect.dedup_days * _DAY_US)
        try:
            self._database.submit(
                lambda db: event_log.append_alone(db, lane.name, group, forgotten_us),
                partial(self._committed, lane, group),
                partial(self._gather, lane, group),
                own=True,
            )
        except sqlite3.Error as error:
            self._health.fail(error)
            lane.idle.set()

    def _gather(self, lane: _LaneState, group: list[_Waiting]) -> bool:
        count = 0
        most = HURRIED_EVENTS if lane.name == "bulk" and self.hurried else GROUP_EVENTS
        while lane.waiting and count < most:
            group.append(lane.waiting.popleft())
            count += group[-1].events
        if not group:
            lane.idle.set()
        return bool(group)

    def _committed(
        self, lane: _LaneState, group: list[_Waiting], appended: Appended | None, error: BaseException | None
    ) -> None:
        lane.size -= sum(each.size for each in group)
        if appended is None:
            # Whatever it was: they are not stored, and are told so.
            self._health.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            self._settle(group, self._refusal())
        else:
            self._stored(lane, group, appended)
        if lane.waiting:
            self._commit(lane)
        else:
            lane.idle.set()

    def _stored(self, lane: _LaneState, group: list[_Waiting], appended: Appended) -> None:
        if appended.last:
            lane.head = self._heads[lane.name] = appended.last
        now_us = clock.now_us()
        stored = repeated = 0
        counts: dict[str, int] = {}
        for each, duplicates in zip(group, appended.duplicates, strict=True):
            stored += each.events - duplicates
            if duplicates:
                repeated += duplicates
                self._seen.count(each.stream, now_us, duplicates=duplicates)
            if each.streams is None:
                counts[each.stream] = counts.get(each.stream, 0) + each.events - duplicates
            else:
                for stream, number in each.streams.items():
                    counts[stream] = counts.get(stream, 0) + number
            if not each.done.done():
                each.done.set_result(duplicates)
        for stream, number in counts.items():
            self._seen.count(stream, now_us, events=number)
        lane.commits.inc()
        lane.stored.inc(stored)
        if repeated:
            lane.repeated.inc(repeated)
        if stored:
            self._wake(lane.name)

    @staticmethod
    def _settle(group: list[_Waiting], error: NotAcceptedError) -> None:
        for each in group:
            if not each.done.done():
                each.done.set_exception(error)
                each.done.exception()  # who does not wait any more must not be missed by asyncio

    def _tell_waiting(self) -> None:
        for lane in self._lanes.values():
            waiting, lane.waiting = list(lane.waiting), deque()
            lane.size -= sum(each.size for each in waiting)
            self._settle(waiting, self._refusal())

    async def _retain(self) -> None:
        await retention.retain(self._database, self._settings, self._cursors())

    async def _close(self) -> None:
        self._stopping = True
        for lane in self._lanes.values():
            await lane.idle.wait()
        with contextlib.suppress(sqlite3.Error):
            await self.flush()


def _checkpoint_often(db: sqlite3.Connection) -> None:
    # A checkpoint stands in the way of the events that wait: many short ones instead of few long ones (measured: at
    # most 3 ms instead of 10, for the same number of events a second).
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES:d}").fetchall()


def _rule_refused(rule: Rule, error: QueryError) -> None:
    log.get().error("definition_refused", rule=rule.id, error=str(error))
