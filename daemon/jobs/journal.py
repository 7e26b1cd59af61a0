"""The journal: what jobs do, written down for their owners. Nobody waits for it.

Every call returns at once and never fails; a task writes what has come in the meantime in one transaction.
Deliveries are the exception: the bus takes them along in the transaction that moves the cursors (`take`), so that what
a cursor has passed has its row, whatever happens. What waits in memory is bounded: when the disk has been full for
long, the oldest is dropped, counted, and the log says so.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import anyio
import orjson

from connectors.sdk.run import Attempt
from daemon import clock, log
from daemon.jobs import metrics
from daemon.model import codes
from daemon.model.subscription import Outcome
from daemon.settings import Settings
from daemon.store import deliveries, system_events
from daemon.store import journal as stored
from daemon.store.database import Database
from daemon.store.journal import HOUR_US

#: Lines, changes of runs and system events that may wait for the disk, each.
MOST_WAITING: Final = 10_000
#: Messages of deliveries that may wait for the disk.
MOST_MESSAGES: Final = 50_000
#: Messages of deliveries that are written in one transaction.
WRITTEN_AT_ONCE: Final = 10_000
#: Rows deleted in one transaction.
CHUNK: Final = 2000
LONGEST_TEXT: Final = 2000
#: Hours are shown for the last days alone; days for `journal.activity_days`.
HOURS_DAYS: Final = 35
DAY_US: Final = 86_400_000_000
#: How long the last write may take when stopping, in seconds.
LAST_FLUSH_S: Final = 2.0

Counts: TypeAlias = dict[tuple[str, str, int], list[int]]


class Batch:
    """Deliveries that go into one transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.rows: list[list[object]] = []
        self.messages: list[tuple[int, int, int, int]] = []
        self.counts: Counts = {}

    def __bool__(self) -> bool:
        return bool(self.rows or self.counts)

    @property
    def full(self) -> bool:
        """Whether there may be more than it took."""
        return len(self.messages) + len(self.rows) >= WRITTEN_AT_ONCE

    def write(self, db: sqlite3.Connection) -> None:
        """Writes them; called in the writer's thread."""
        if self.rows:
            deliveries.add(db, self.rows, self.messages)
        if self.counts:
            stored.count(db, self.counts)

    def give_back(self) -> None:
        """Puts back what could not be written."""
        self._journal.give_back(self)


class Journal:
    """Made by `open`, which ends the runs that a crash cut off and writes until left."""

    def __init__(self, state: Database, settings: Settings, last_delivery: int) -> None:
        self._state = state
        self._settings = settings
        #: Whether messages are given as samples.
        self.samples = settings.journal.samples
        self._last_delivery = last_delivery
        self._deliveries: deque[tuple[list[object], list[tuple[int, int, int, int]]]] = deque()
        self._messages = 0
        self._delivery_counts: Counts = {}
        self._alerts: deque[list[object]] = deque()
        self._lines: deque[tuple[object, ...]] = deque()
        self._runs: deque[Callable[[sqlite3.Connection], None]] = deque()
        self._counts: Counts = {}
        self._sums: dict[tuple[str, str], tuple[int, ...]] = {}
        self._events: deque[system_events.SystemEvent] = deque()
        self._dropped = 0
        self._waiting = asyncio.Event()
        #: Set when system events were stored, for those who forward them.
        self.stored = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, state: Database, settings: Settings) -> AsyncIterator[Journal]:
        """Writes until left; then what was noted is on disk."""
        last = await state.read(deliveries.last_id)
        self = cls(state, settings, last)
        cut = await state.write(lambda db: stored.cut_off(db, clock.now_us()))
        if cut:
            log.get().info("runs_cut_off", runs=cut)
        tasks = [
            asyncio.create_task(self._write(), name="journal"),
            asyncio.create_task(self._sweep(), name="journal: retention"),
        ]
        try:
            yield self
        finally:
            with anyio.CancelScope(shield=True):
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                with suppress(TimeoutError, sqlite3.Error):
                    async with asyncio.timeout(LAST_FLUSH_S):
                        await self.flush(every=True)

    # --- what jobs tell

    def job_event(self, job_id: str, run_id: str | None, level: str, code: str, message: str, **facts: object) -> None:
        """Notes a line of the job's own log; a code with a verb becomes a system event as well."""
        now_us = clock.now_us()
        shown = {name: value for name, value in facts.items() if value not in (None, "")}
        text = orjson.dumps(shown, default=str).decode()
        if len(text) > LONGEST_TEXT:
            text = "{}"
        self._keep(self._lines, (job_id, run_id, now_us, level, code, message[:LONGEST_TEXT], text))
        known = codes.CODES.get(code)
        if known is not None and known.verb is not None:
            self.system_event("job", job_id, known.verb, message=message, code=code, run=run_id, **shown)

    def run_began(self, job_id: str, run_id: str, began_us: int) -> None:
        """Notes that a run began."""
        self._keep(self._runs, lambda db: stored.begin_run(db, job_id, run_id, began_us))
        self.job_event(job_id, run_id, "info", codes.STARTED, "a run began")

    def run_ended(self, job_id: str, run_id: str, ended_us: int, outcome: str, reason: str) -> None:
        """Notes how a run ended, and why."""
        reason = reason[:LONGEST_TEXT]
        self._keep(self._runs, lambda db: stored.end_run(db, job_id, run_id, ended_us, outcome, reason))
        metrics.RUNS.labels(outcome).inc()
        sums = self._sums.pop((job_id, run_id), (0, 0, 0, 0))
        if outcome == "done":
            facts = dict(zip(("added", "removed", "omitted", "failed"), sums, strict=True))
            words = ", ".join(f"{count} {name}" for name, count in facts.items() if count) or "nothing to do"
            self.job_event(job_id, run_id, "info", codes.SYNCED, f"the run is done: {words}", **facts)

    def counted(self, job_id: str, run_id: str, *, added: int, removed: int, omitted: int, failed: int) -> None:
        """Adds to the job's activity."""
        numbers = (added, removed, omitted, failed)
        _add(self._counts, job_id, run_id, numbers)
        held = self._sums.get((job_id, run_id), (0, 0, 0, 0))
        self._sums[job_id, run_id] = tuple(one + other for one, other in zip(held, numbers, strict=True))
        self._waiting.set()

    def system_event(self, subject: str, subject_id: str, verb: str, **facts: object) -> None:
        """Notes what happened, for the stream `cohortd_system` and for alerts. No secret may be among the facts."""
        body = {name: value for name, value in facts.items() if value not in (None, "")}
        text = orjson.dumps(body, default=str).decode()
        event = system_events.SystemEvent(0, secrets.token_hex(12), clock.now_us(), subject, subject_id, verb, text)
        self._keep(self._events, event)

    # --- what the bus tells

    def delivered(
        self,
        job_id: str,
        run_id: str,
        outcome: Outcome,
        attempt: Attempt,
        *,
        messages: Sequence[tuple[int, int, int]],
        many: int,
        again: int,
        counts: tuple[int, int, int, int],
        sample: bytes | None,
        alert: bool = False,
    ) -> None:
        """Notes an attempt at sending `many` messages; written by who calls `take`.

        `messages` lists them, unless they are too many: profile, first and last trigger id. `alert`: it has no cursor,
        and is written with all else.

        `counts` is what it adds to the activity: added, removed, omitted, failed. `sample` is a message, not redacted.
        """
        metrics.DELIVERIES.labels(outcome.value).inc()
        self._last_delivery += 1
        shown = None if sample is None or not self.samples else redacted(sample)
        row: list[object] = [
            self._last_delivery, job_id, run_id, clock.now_us(), outcome.value, attempt.number,
            attempt.to[:LONGEST_TEXT], attempt.bytes, attempt.status, attempt.answer[:LONGEST_TEXT], many, again, shown,
        ]  # fmt: skip
        if alert:
            self._keep(self._alerts, row)
            _add(self._counts, job_id, run_id, counts)
            return
        self._deliveries.append((row, [(self._last_delivery, *each) for each in messages]))
        self._messages += len(messages) + 1
        _add(self._delivery_counts, job_id, run_id, counts)
        while self._messages > MOST_MESSAGES and len(self._deliveries) > 1:
            self._messages -= len(self._deliveries.popleft()[1]) + 1
            self._drop()

    def take(self) -> Batch:
        """Takes what is to be written next; empty when nothing is. What could not be written is given back."""
        batch = Batch(self)
        taken = 0
        while self._deliveries and taken < WRITTEN_AT_ONCE:
            row, messages = self._deliveries.popleft()
            batch.rows.append(row)
            batch.messages += messages
            taken += len(messages) + 1
        self._messages -= taken
        batch.counts, self._delivery_counts = self._delivery_counts, {}
        return batch

    def give_back(self, batch: Batch) -> None:
        """Puts back what could not be written."""
        of: dict[object, list[tuple[int, int, int, int]]] = {}
        for each in batch.messages:
            of.setdefault(each[0], []).append(each)
        for row in reversed(batch.rows):
            messages = of.get(row[0], [])
            self._deliveries.appendleft((row, messages))
            self._messages += len(messages) + 1
        for (job_id, run_id, hour_us), numbers in batch.counts.items():
            _add(self._delivery_counts, job_id, run_id, numbers, hour_us)

    # --- writing

    async def settle(self) -> None:
        """Writes what was noted, as far as the disk allows, so that it can be read."""
        with suppress(sqlite3.Error):
            await self.flush()

    async def flush(self, *, every: bool = False) -> None:
        """Writes what was noted; with `every`, deliveries too. Raises sqlite3.Error; what was not written is kept."""
        self._waiting.clear()
        while (
            self._lines
            or self._runs
            or self._counts
            or self._events
            or self._alerts
            or (every and (self._deliveries or self._delivery_counts))
        ):
            lines = _some(self._lines)
            runs = _some(self._runs)
            events = _some(self._events)
            alerts = _some(self._alerts)
            counts, self._counts = self._counts, {}
            batch = self.take() if every else Batch(self)

            def write(db: sqlite3.Connection) -> None:
                for each in runs:  # noqa: B023  (called before the next round)
                    each(db)
                if lines:  # noqa: B023
                    stored.add_lines(db, lines)  # noqa: B023
                if counts:  # noqa: B023
                    stored.count(db, counts)  # noqa: B023
                if events:  # noqa: B023
                    system_events.add(db, events)  # noqa: B023
                if alerts:  # noqa: B023
                    deliveries.add(db, alerts, [])  # noqa: B023
                batch.write(db)  # noqa: B023

            try:
                await self._state.write(write)
            except BaseException:
                self._lines.extendleft(reversed(lines))
                self._runs.extendleft(reversed(runs))
                self._events.extendleft(reversed(events))
                self._alerts.extendleft(reversed(alerts))
                for (job_id, run_id, hour_us), numbers in counts.items():
                    _add(self._counts, job_id, run_id, numbers, hour_us)
                self.give_back(batch)
                raise
            if events:
                self.stored.set()

    async def _write(self) -> None:
        failing = False
        while True:
            await self._waiting.wait()
            await asyncio.sleep(self._settings.journal.store_s)
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001  (a full disk: it waits, up to its bound)
                if not failing:
                    log.get().warning("journal_not_written", error=str(error))
                failing = True
                self._waiting.set()
                await asyncio.sleep(1.0)
                continue
            failing = False
            if self._dropped:
                log.get().error("journal_lines_dropped", lines=self._dropped)
                self._dropped = 0

    def _keep(self, queue: deque[Any], item: object) -> None:
        queue.append(item)
        if len(queue) > MOST_WAITING:
            queue.popleft()
            self._drop()
        self._waiting.set()

    def _drop(self) -> None:
        self._dropped += 1

    # --- retention

    async def sweep(self) -> int:
        """Deletes what is too old or too much, page by page; says how many rows."""
        kept = self._settings.journal
        now_us = clock.now_us()

        def before(days: float) -> int:
            return now_us - round(days * DAY_US)

        upto = await self._state.read(lambda db: deliveries.too_old(db, before(kept.deliveries_days), kept.deliveries))
        return (
            await self._forget(lambda db: deliveries.forget(db, upto, CHUNK))
            + await self._forget(lambda db: stored.forget(db, "job_log", before(kept.logs_days), kept.logs, CHUNK))
            + await self._forget(lambda db: stored.forget_runs(db, before(kept.runs_days), kept.runs, CHUNK))
            + await self._forget(
                lambda db: stored.forget_activity(db, before(HOURS_DAYS), before(kept.activity_days), CHUNK)
            )
            + await self._forget(
                lambda db: stored.forget(db, "system_event", before(kept.events_days), kept.events, CHUNK)
            )
            + await self._forget(lambda db: stored.forget(db, "audit", before(kept.audit_days), kept.audit, CHUNK))
        )

    async def _forget(self, work: Callable[[sqlite3.Connection], int]) -> int:
        deleted = 0
        while count := await self._state.write(work):
            deleted += count
            await asyncio.sleep(0.05)  # the writer's other work comes in between
        return deleted

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._settings.retention.sweep_s)
            try:
                deleted = await self.sweep()
            except Exception as error:  # noqa: BLE001  (the next round tries again)
                log.get().warning("retention_failed", what="journal", error=str(error))
            else:
                if deleted:
                    log.get().info("journal_trimmed", rows=deleted)


def redacted(body: bytes) -> str | None:
    """Gives a message with the profile's values replaced by their kind; None where it is too large to be a sample."""
    content = orjson.loads(body)
    data = content.get("data", {})
    content["data"] = {
        name: value if name in ("segment_events", "segments_all") else _kind(value) for name, value in data.items()
    }
    text = orjson.dumps(content).decode()
    return text if len(text) <= 2 * LONGEST_TEXT else None


def _kind(value: object) -> object:
    match value:
        case bool():
            return "<true or false>"
        case int() | float():
            return "<number>"
        case str():
            return f"<text of {len(value)}>"
        case list():
            return f"<list of {len(value)}>"
        case dict():
            return f"<map of {len(value)}>"
    return None


def _add(counts: Counts, job_id: str, run_id: str, numbers: Sequence[int], hour_us: int | None = None) -> None:
    hour = clock.now_us() // HOUR_US * HOUR_US if hour_us is None else hour_us
    held = counts.get((job_id, run_id, hour))
    if held is None:
        counts[job_id, run_id, hour] = list(numbers)
    else:
        held[:] = [one + other for one, other in zip(held, numbers, strict=True)]


def _some(queue: deque[Any]) -> list[Any]:
    return [queue.popleft() for _ in range(min(len(queue), 1000))]
