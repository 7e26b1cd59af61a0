"""The loop that makes profiles, memberships and triggers of the log: every change of a profile goes through it.

What is ready is taken in this order: commands (definitions, erasures), the real-time lane, timers that are due, the
bulk lane, the background passes of new audiences. Each step is one transaction. What has waited long is taken before
what is stronger, so that nothing starves. While the database writes a step the next is computed, upon what the first
will have made true; if the writing fails, both are forgotten and taken again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import anyio
from anyio.abc import TaskStatus

from daemon import clock, log
from daemon.ingest import audience_pass, rebuild, timers
from daemon.ingest.asked import Asked, Closed, Command, Drain
from daemon.ingest.audience_pass import Group, PageReader
from daemon.ingest.batch import Batch
from daemon.ingest.cache import Cache
from daemon.ingest.definitions import Definitions, build
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.lanes import Lanes, LaneSettings
from daemon.ingest.rebuild import STEP_EVENTS, Past, PastMapper
from daemon.ingest.refusals import Refusals
from daemon.ingest.timeline import Timeline
from daemon.ingest.unit import LANES, Commit, Head, Lane, Unit
from daemon.model.refusal import Conflict
from daemon.store import bundle, erasures, history, rebuilds
from daemon.store import definitions as definitions_store
from daemon.store import events as event_log
from daemon.store import guards as guards_store
from daemon.store.bundle import CursorMoved
from daemon.store.database import Database
from daemon.store.definitions import AudienceRow, Pass, QueryRow, RuleRow
from daemon.store.guards import GuardRow
from daemon.store.rebuilds import RebuildRow
from streams.guards import Limits
from streams.tombstones import Tombstones

T = TypeVar("T")

#: Pages that are taken at a time.
STEP_PAGES: Final = 8
#: A bulk batch is not cut short for something stronger before it has this many events.
LEAST_EVENTS: Final = 2048
#: How far a batch may take the cache beyond its bytes before it ends: what it has changed cannot be dropped yet.
OVERSHOOT: Final = 0.25
#: What is ready and has waited this long is taken before what is stronger.
PATIENCE_S: Final = 0.25
#: Longest sleep while timers are pending: the wall clock may be set.
CLOCK_CHECK_S: Final = 1.0
#: After a failed write: first and longest pause before it is taken again.
BACK_OFF_S: Final = 0.1
LONGEST_BACK_OFF_S: Final = 5.0


class IngestSettings(LaneSettings, Protocol):
    """What the loop needs of the settings' section `ingest`."""

    @property
    def cached_profiles(self) -> int:
        """Profiles kept in memory at most."""

    @property
    def cache_bytes(self) -> int:
        """What they may take."""

    @property
    def batch_bytes(self) -> int:
        """Stored bytes of events of one bulk batch: it ends once it has these."""


class Pipeline(Asked):
    """The loop and its commands. Use `open`, then run `run` in a task; everything here belongs to that loop."""

    def __init__(
        self,
        events: Database,
        state: Database,
        settings: IngestSettings,
        on_commit: Callable[[Commit], None],
        limits: Limits,
    ) -> None:
        super().__init__(events, state)
        self._settings = settings
        self._on_commit = on_commit
        self._limits = limits
        self._cache = Cache(settings.cached_profiles, settings.cache_bytes)
        self._reader = PageReader(state)
        self._refusals = Refusals()
        self._head: Head
        self._evaluator: Evaluator
        self._lanes = Lanes(events, settings)
        self._waiting_since: dict[str, float] = {}
        self._in_flight: asyncio.Future[None] | None = None
        self._in_flight_scanned = False
        self._unit = 0
        self._committed_unit = 0
        self._committed: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._told_trigger = 0
        self._failures = 0
        #: Of the batch under way: its lane, how many events it has so far, the last one's position.
        self._taking: tuple[Lane, int, int] | None = None
        self._poison: tuple[Lane, int] | None = None
        self._tombstones = Tombstones(b"")
        #: Set when there may be something in the log that is to be scrubbed.
        self.to_scrub = asyncio.Event()
        self._asked: PastMapper | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        events: Database,
        state: Database,
        settings: IngestSettings,
        on_commit: Callable[[Commit], None],
        *,
        limits: Limits | None = None,
    ) -> AsyncIterator[Pipeline]:
        """Reads where the state stands and the definitions; nothing moves before `run`."""
        self = cls(events, state, settings, on_commit, limits or Limits())
        self.definitions = await _built(await state.read(_stored))
        self._limits = _since(self._limits, await state.read(_last_limits))
        await self._stand()
        self._told_trigger = self._head.last_trigger
        try:
            yield self
        finally:
            self._closed = True
            self._refuse_commands()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Works until cancelled. A step that is being written then is finished first."""
        task_status.started()
        try:
            self._commands.appendleft(self._limits_command())
            while True:
                try:
                    await self._turn()
                except (sqlite3.Error, CursorMoved, OSError) as error:
                    await self._recover(error, defect=False)
                except Exception as error:  # noqa: BLE001  (a defect met by one event must not stop all others)
                    await self._recover(error, defect=True)
        finally:
            with anyio.CancelScope(shield=True):
                await self._settle(quietly=True)
                await self._drop_reads()
            self._closed = True
            self._refuse_commands()

    # --- what others ask

    def wake(self, lane: Lane | None = None) -> None:
        """Says that events were appended to a lane, or to whichever; or that the clock was set."""
        for each in LANES if lane is None else (lane,):
            self._lanes.fresh[each] = True
        self._wake.set()

    def lag(self) -> dict[str, int]:
        """Gives the events of each lane that are in the log and not yet in the profiles, as last seen."""
        return self._lanes.lag(self._committed)

    def committed(self) -> Mapping[Lane, int]:
        """Gives the position up to which each lane is in the profiles, durably; stays current."""
        return self._committed

    async def drain(self) -> None:
        """Returns when all that was accepted before the call has been processed: lanes, passes, due timers."""
        heads = await self._events.read(event_log.heads)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drains.append(Drain(heads, clock.now_us(), done))
        self.wake()
        await done

    # --- one turn of the loop

    async def _turn(self) -> None:
        if self._drains and self._in_flight is None:
            self._release(idle=False)
        if self._commands:
            await self._settle()
            await self._run_command(self._commands.popleft())
            return
        self._wake.clear()
        kind = await self._choose()
        if kind is None:
            if self._in_flight is not None:
                await self._settle()
                return
            if not (self._commands or self._wake.is_set()):
                self._release(idle=True)
                await self._sleep()
            return
        self._waiting_since.pop(kind, None)
        match kind:
            case "realtime" | "bulk":
                await self._take_events("realtime" if kind == "realtime" else "bulk")
            case "timers":
                await self._fire_timers()
            case "past":
                await self._take_past()
            case _:
                await self._take_page()
        self._failures = 0

    async def _choose(self) -> str | None:
        """Gives what is to be done next: the strongest that is ready, or what has waited too long."""
        ready = []
        cursors = self._head.cursors
        if await self._lanes.has("realtime", cursors["realtime"]):
            ready.append("realtime")
        if self._head.next_due_us is not None and self._head.next_due_us <= clock.now_us():
            ready.append("timers")
        if await self._lanes.has_bulk(cursors["bulk"], hurry=bool(ready)):
            ready.append("bulk")
        if self._head.passes:
            ready.append("pass")
        if self._head.past is not None:
            ready.append("past")
        if len(ready) < 2:
            return ready[0] if ready else None
        now = asyncio.get_running_loop().time()
        for kind in ready:
            self._waiting_since.setdefault(kind, now)
        patient = min(ready[1:], key=lambda kind: self._waiting_since[kind])
        return patient if now - self._waiting_since[patient] > PATIENCE_S else ready[0]

    async def _take_events(self, lane: Lane) -> None:
        lanes = self._lanes
        pages = lanes.pages[lane]
        if self._in_flight_scanned:
            await self._settle()
        if lane == "bulk":
            lanes.read_ahead()
        unit = self._next_unit()
        if self._poison == (lane, pages[0].last):
            log.get().error("event_passed_over", lane=lane, position=pages[0].last)
            unit.take_batch(lane, pages[0].last)
            lanes.pages[lane] = pages[1:]
            self._poison = None
            await self._commit(unit)
            return
        batch = Batch(unit, self.definitions, self._evaluator, self._cache, self._state, self._limits, self._tombstones)
        while True:
            some, lanes.pages[lane] = pages[:STEP_PAGES], pages[STEP_PAGES:]
            self._taking = (lane, batch.events + sum(page.events for page in some), some[-1].last)
            await batch.take(lane, some)
            pages = lanes.pages[lane]
            if not pages:
                if lane != "bulk" or self._full(batch) or not await lanes.has(lane, batch.last):
                    break
                pages = lanes.pages[lane]
                lanes.read_ahead()
            elif lane == "bulk" and self._full(batch):
                break
        await batch.finish(lane)
        self._taking = None
        await self._commit(unit)
        if batch.refused or batch.compacted:
            self._refusals.told(lane, batch.refused, batch.compacted)
        if lanes.most_events is not None:  # after a defect: back to full batches, doubling
            lanes.most_events = None if lanes.most_events > 1024 else lanes.most_events * 2

    def _full(self, batch: Batch) -> bool:
        """Says whether a bulk batch has to end: it is large, memory is short, or something stronger waits."""
        if self._lanes.most_events is not None or batch.events >= self._settings.batch_events:
            return True
        if batch.bytes >= self._settings.batch_bytes:
            return True
        if self._cache.beyond(OVERSHOOT):
            return True
        return batch.events >= LEAST_EVENTS and bool(self._lanes.fresh["realtime"] or self._commands)

    async def _fire_timers(self) -> None:
        await self._settle()
        await self._reader.drop()
        unit = self._next_unit()
        await timers.fire(unit, self._evaluator, self._cache, self._state)
        await self._commit(unit)

    async def _take_page(self) -> None:
        group = Group.of(self._head)
        page = await self._reader.read(group, self._committed_unit)
        unit = self._next_unit()
        await audience_pass.evaluate_page(unit, group, page, self.definitions, self._evaluator, self._cache)
        await self._commit(unit)
        for number, evaluated_to in unit.bundle.passes.items():
            audience = self.definitions.audiences.get(number)
            if evaluated_to is None and audience is not None:
                log.get().info("audience_evaluated", audience=audience.slug)

    async def _take_past(self) -> None:
        """Takes a step of the past, or shows what was made of it."""
        row = self._head.past
        lane = None if row is None else row.lane
        if row is None or lane is None:
            self._commands.append(self._unasked(self._rebuilt))
            return
        if self._asked is None or self._asked.definitions is not self.definitions:
            timeline = await self._state.read(partial(Timeline.read, rebuilds=self.definitions.rebuilds))
            self._asked = PastMapper(self.definitions, row, timeline)
        unit = self._next_unit()
        past = Past(
            unit, self.definitions, self._evaluator, self._cache, self._state, self._limits, self._tombstones,
            row=row, asked=self._asked,
        )  # fmt: skip
        while True:
            await past.take_past(lane, *await self._events.read(past.reading(lane, STEP_EVENTS)))
            if past.last >= row.to(lane) or past.looked_at >= self._settings.batch_events or self._hurried(past):
                break
        await past.finish(lane)
        await self._commit(unit)
        if past.refused:
            self._refusals.told(lane, past.refused, 0)

    def _hurried(self, past: Past) -> bool:
        """Says whether a step of the past has to end: memory is short, or anything else waits."""
        if past.bytes >= self._settings.batch_bytes or self._cache.beyond(OVERSHOOT):
            return True
        due_us = self._head.next_due_us
        due = due_us is not None and due_us <= clock.now_us()
        return due or bool(self._commands or self._head.passes or any(self._lanes.fresh.values()))

    async def _rebuilt(self, unit: Unit) -> tuple[None, Definitions]:
        row, definitions = await rebuild.end(unit, self.definitions, cancelled=False)
        log.get().info("query_replayed", query=row.alias, fields=list(row.fields), events=row.events)
        return None, definitions

    async def _run_command(self, command: Command[Any]) -> None:
        if command.done.cancelled():
            return
        await self._reader.drop()
        unit = self._next_unit()
        unit.scanned = True
        try:
            result, definitions = await command.run(unit)
        except (sqlite3.Error, OSError) as error:
            command.done.set_exception(error)
            raise
        except Exception as error:  # noqa: BLE001  (refused: the caller is told, nothing was changed)
            if not command.done.done():
                command.done.set_exception(error)
            return
        try:
            if not unit.bundle.empty:
                await self._commit(unit)
                await self._settle()
        except BaseException as error:
            if not command.done.done():
                stopping = isinstance(error, asyncio.CancelledError)
                command.done.set_exception(Closed("the daemon is stopping") if stopping else error)
            if isinstance(error, Conflict):  # something came to depend on it; nothing was written
                await self._stand()
                return
            raise
        if definitions is not None:
            await self._adopt(definitions)
        if not command.done.done():
            command.done.set_result(result)

    async def _adopt(self, definitions: Definitions) -> None:
        """Makes a new snapshot hold."""
        self.definitions = definitions
        self._evaluator = Evaluator(definitions)
        self._head.passes, self._head.past = await self._state.read(_under_way)

    # --- committing

    def _next_unit(self) -> Unit:
        self._unit += 1
        return Unit(self._unit, self._head, clock.now_us())

    async def _commit(self, unit: Unit) -> None:
        """Hands a step to the database once the one before it is durable, and goes on without waiting for it."""
        await self._settle()
        self._in_flight_scanned = unit.scanned
        self._in_flight = asyncio.ensure_future(self._write(unit))
        seen = self._committed_unit
        if self._reader.seen_unit is not None:
            seen = min(seen, self._reader.seen_unit)
        while self._cache.evict(seen, 128):  # noqa: ASYNC110  (work in slices, nothing is waited for)
            await asyncio.sleep(0)

    async def _write(self, unit: Unit) -> None:
        await self._state.write(partial(bundle.write, bundle=unit.bundle))
        self._committed_unit = unit.number
        if unit.bundle.cursor is not None:
            lane, _, to = unit.bundle.cursor
            self._committed["realtime" if lane == "realtime" else "bulk"] = to
        if unit.to_scrub:
            self.to_scrub.set()
        if unit.commit is not None:
            self._told_trigger = unit.commit.last
            self._on_commit(unit.commit)

    async def _settle(self, *, quietly: bool = False) -> None:
        """Waits until the step in flight is durable; raises what its writing raised."""
        flight = self._in_flight
        if flight is None:
            return
        await asyncio.wait([flight])
        self._in_flight = None
        self._in_flight_scanned = False
        error = flight.exception()
        if error is not None and not quietly:
            raise error

    def _unasked(self, run: Callable[[Unit], Awaitable[tuple[T, Definitions | None]]]) -> Command[T]:
        """Makes a command that nobody waits for."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda each: each.cancelled() or each.exception())
        return Command(run, done)

    def _limits_command(self) -> Command[None]:
        """Records the limits of identity, when they are not those of before."""

        async def note(unit: Unit) -> tuple[None, None]:
            if await self._state.read(_last_limits) != self._limits:
                unit.decide("identity", asdict(self._limits))
            return None, None

        def again(noted: asyncio.Future[None]) -> None:
            if not noted.cancelled() and noted.exception() is not None and not self._closed:
                self._commands.appendleft(self._limits_command())

        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(again)
        return Command(note, done)

    # --- failing and standing still

    async def _recover(self, error: Exception, *, defect: bool) -> None:
        """Forgets all that is not durable, waits, and stands where the database stands."""
        facts = log.get(error=f"{type(error).__name__}: {error}", failures=self._failures + 1)
        if defect:
            facts.exception("ingest_defect_met")
            self._isolate()
        else:
            facts.warning("ingest_write_failed")
        self._failures += 1
        pause = min(LONGEST_BACK_OFF_S, BACK_OFF_S * 2 ** min(self._failures - 1, 10))
        while True:
            try:
                await self._settle(quietly=True)
                await self._drop_reads()
                await self._empty_cache()
                self.definitions = await _built(await self._state.read(_stored), self.definitions)
                await self._stand()
            except (sqlite3.Error, OSError) as again:
                log.get().warning("ingest_write_failed", error=f"{type(again).__name__}: {again}")
            else:
                break
            await asyncio.sleep(pause)
        await asyncio.sleep(pause)
        self._wake.set()

    def _isolate(self) -> None:
        """After a defect within a batch: smaller batches, until the event that meets it stands alone, for skipping."""
        taking, self._taking = self._taking, None
        if taking is None:
            return
        lane, events, last = taking
        if events == 1:
            self._poison = (lane, last)
        else:
            self._lanes.most_events = max(1, events // 2)

    async def _stand(self) -> None:
        """Stands where the database stands."""
        position, under_way = await self._state.read(lambda db: (bundle.position(db), _under_way(db)))
        salt, buried = await self._state.read(lambda db: (erasures.salt(db), erasures.tombstones(db)))
        self._tombstones = Tombstones(salt)
        for mark, bounds in buried:
            self._tombstones.put([mark], bounds)
        self._head = Head.at(position, *under_way)
        self._evaluator = Evaluator(self.definitions)
        self._committed = dict(self._head.cursors)
        self._committed_unit = self._unit
        self._lanes.forget()
        if self._told_trigger < position.last_trigger and self._failures:
            # A commit that was reported as failed and is there all the same.
            audiences = frozenset(self.definitions.audiences)
            self._on_commit(Commit(self._told_trigger + 1, position.last_trigger, audiences))
        self._told_trigger = position.last_trigger

    async def _drop_reads(self) -> None:
        """Ends the reads under way; what they bring is not wanted."""
        await self._reader.drop()
        await self._lanes.drop()

    async def _empty_cache(self) -> None:
        while self._cache.empty(64):  # noqa: ASYNC110  (work in slices, nothing is waited for)
            await asyncio.sleep(0)

    def _release(self, *, idle: bool) -> None:
        """Lets those go on who wait for what is done now."""
        due_us = self._head.next_due_us
        for drain in self._drains:
            done = all(self._committed[lane] >= drain.heads[lane] for lane in LANES)
            done = done and not (self._head.passes or self._head.past) and (due_us is None or due_us > drain.at_us)
            if (idle or done) and not drain.done.done():
                drain.done.set_result(None)
        self._drains = [drain for drain in self._drains if not drain.done.done()]

    async def _sleep(self) -> None:
        """Sleeps until the next timer is due, or something comes."""
        due_us = self._head.next_due_us
        timeout = None if due_us is None else min(CLOCK_CHECK_S, max(0.0, (due_us - clock.now_us()) / 1e6))
        with anyio.move_on_after(timeout):
            await self._wake.wait()


_Stored: TypeAlias = tuple[list[QueryRow], list[AudienceRow], list[RuleRow], list[GuardRow], list[RebuildRow]]


def _stored(db: sqlite3.Connection) -> _Stored:
    return (
        definitions_store.queries(db), definitions_store.audiences(db), definitions_store.rules(db),
        guards_store.guards(db), rebuilds.every(db),
    )  # fmt: skip


async def _built(rows: _Stored, previous: Definitions | None = None) -> Definitions:
    queries, audiences, rules, guards, past = rows
    return await build(queries, audiences, rules, previous, guards=guards, rebuilds=past)


def _last_limits(db: sqlite3.Connection) -> Limits | None:
    """Gives the limits of identity that held last."""
    body = history.last_of_kind(db, "identity")
    return None if body is None else Limits(**body)


def _since(limits: Limits, before: Limits | None) -> Limits:
    """Gives limits with the moment at which their compaction began: that of before where it is the same."""
    if not limits.compacting:
        return limits
    same = before is not None and (before.compact_keys, before.compact_us) == (limits.compact_keys, limits.compact_us)
    return replace(limits, since_us=before.since_us if before is not None and same else clock.now_us())


def _under_way(db: sqlite3.Connection) -> tuple[tuple[Pass, ...], RebuildRow | None]:
    running = (each for each in rebuilds.every(db) if each.running)
    return tuple(definitions_store.passes(db)), next(running, None)
