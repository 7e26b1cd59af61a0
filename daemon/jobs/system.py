"""System events on their way: into the log as stream `cohortd_system`, and to the jobs that alert somebody.

They come from the journal, which stores them beside what jobs tell of themselves; nobody on the way of events or
triggers waits for them. A delivery makes none, and a job of alerts gets none about itself: nothing feeds itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import orjson

from daemon import clock, log
from daemon.jobs.journal import Journal
from daemon.store import jobs as stored_jobs
from daemon.store import system_events as stored
from daemon.store.database import Database
from streams.event import Event

STREAM: Final = "cohortd_system"
#: System events that are taken in one step.
PAGE: Final = 200
#: A pause before the log is tried again when it takes nothing now, in seconds.
AGAIN_S: Final = 5.0
#: How often events are looked for where nobody says that there are new ones, in seconds.
LOOK_S: Final = 30.0


class SystemEvent(NamedTuple):
    """Something that happened; `content` is what is told of it."""

    number: int  # growing: a job of alerts goes on behind it
    id: str  # the same in repeats
    at_us: int
    subject: str
    subject_id: str
    verb: str
    content: dict[str, Any]


class Log(Protocol):
    """What is needed of collection."""

    def append(self, lane: Any, stream: str, events: Sequence[Event], received_us: int) -> asyncio.Future[int]:
        """Appends events; the future is done when they are on disk."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be taken now."""

    def lag(self, lane: Any) -> int:
        """How many events ingest has still to take."""


def content_of(event: stored.SystemEvent) -> dict[str, Any]:
    """Gives a system event as it is told: what happened to what, and the facts."""
    facts = orjson.loads(event.body)
    told = {
        "event": f"{event.subject}_{event.verb}",
        "subject": event.subject,
        "subject_id": event.subject_id,
        "verb": event.verb,
        "at": clock.from_us(event.at_us).isoformat().replace("+00:00", "Z"),
    }
    return {**facts, **told}


class SystemEvents:
    """Forwards system events, gives them to alerts, and makes the heartbeat."""

    def __init__(self, state: Database, journal: Journal, log_: Log, heartbeat_s: float) -> None:
        self._state = state
        self._journal = journal
        self._log = log_
        self._heartbeat_s = heartbeat_s
        self._began = time.monotonic()
        self._new: set[asyncio.Event] = set()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forward(), name="system events")
            if self._heartbeat_s:
                tasks.create_task(self._beat(), name="heartbeat")

    # --- for alerts

    async def head(self) -> int:
        """Gives the number of the last system event."""
        await self._journal.settle()
        return await self._state.read(stored.last_id)

    async def events(self, after: int) -> AsyncIterator[Sequence[SystemEvent]]:
        """Gives pages of system events behind `after`, and waits for more."""
        new = asyncio.Event()
        self._new.add(new)
        try:
            while True:
                new.clear()
                rows = await self._state.read(lambda db: stored.after(db, after, PAGE))  # noqa: B023
                if rows:
                    after = rows[-1].id
                    yield [SystemEvent(*each[:6], content_of(each)) for each in rows]
                    continue
                await new.wait()
        finally:
            self._new.discard(new)

    # --- into the log

    async def forward(self) -> bool:
        """Appends what waits to the log; says whether there may be more. An event is in the log once (its id)."""
        rows = await self._state.read(lambda db: stored.waiting(db, PAGE))
        if not rows:
            return False
        events = []
        for each in rows:
            content = content_of(each)
            events.append(Event(each.at_us, each.uid, orjson.dumps(content).decode(), content))
        await self._log.append("realtime", STREAM, events, clock.now_us())
        ids = [each.id for each in rows]
        await self._state.write(lambda db: stored.forwarded(db, ids))
        return len(rows) == PAGE

    async def _forward(self) -> None:
        failing = False
        while True:
            self._journal.stored.clear()
            for each in self._new:
                each.set()
            try:
                while await self.forward():
                    pass
            except (sqlite3.Error, RuntimeError) as error:  # the log takes nothing now
                if not failing:
                    log.get().warning("system_events_held_back", error=str(error))
                failing = True
                await asyncio.sleep(AGAIN_S)
                continue
            failing = False
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._journal.stored.wait()
            except TimeoutError:
                continue

    # --- the heartbeat

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            try:
                facts = await self._pulse()
            except sqlite3.Error as error:
                facts = {"trouble": str(error)}
            log.get().info("heartbeat_sent", **facts)
            self._journal.system_event("daemon", "", "heartbeat", **facts)

    async def _pulse(self) -> dict[str, object]:
        states = await self._state.read(stored_jobs.states)
        return {
            "uptime_s": round(time.monotonic() - self._began),
            "waiting_events": self._log.lag("realtime") + self._log.lag("bulk"),
            "trouble": self._log.trouble,
            **{f"jobs_{state}": count for state, count in states.items()},
        }
