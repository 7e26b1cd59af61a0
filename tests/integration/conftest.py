"""An ingest loop over real files, without the daemon around it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from daemon import clock
from daemon.ingest.pipeline import Pipeline
from daemon.ingest.unit import Commit
from daemon.settings import Ingest as IngestSettings
from daemon.store import events as event_log
from daemon.store.database import Database
from daemon.store.migrate import migrate
from streams.guards import Limits
from streams.profile import load


@dataclass
class Ingest:
    """A running loop; `commits` are what the bus would be told."""

    folder: Path
    events: Database
    state: Database
    pipeline: Pipeline
    commits: list[Commit] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    async def append(self, *bodies: dict[str, Any], lane: Any = "realtime", stream: str = "web") -> None:
        """Appends events as collection does; `_ts` (µs) is their time, else the clock."""
        now_us = clock.now_us()
        flat: list[object] = []
        for body in bodies:
            flat += (now_us, stream, body.get("_ts", now_us), body.get("_id"), orjson.dumps(body).decode())
        await self.events.write(lambda db: event_log.append(db, lane, [event_log.Batch(flat)], 0))
        self.pipeline.wake(lane)

    async def take(self, *bodies: dict[str, Any], lane: Any = "realtime", stream: str = "web") -> None:
        """Appends events and waits until they are in the profiles."""
        await self.append(*bodies, lane=lane, stream=stream)
        await self.drain()

    async def drain(self) -> None:
        assert self.task is not None
        draining = asyncio.ensure_future(self.pipeline.drain())
        await asyncio.wait([draining, self.task], return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            self.task.result()
        await draining

    async def rows(self, sql: str, *parameters: object) -> list[Any]:
        return await self.state.read(lambda db: db.execute(sql, parameters).fetchall())

    async def one(self, sql: str, *parameters: object) -> Any:
        ((value,),) = await self.rows(sql, *parameters)
        return value

    async def members(self, slug: str) -> list[int]:
        rows = await self.rows(
            "SELECT profile_id FROM membership WHERE member = 1 AND audience ="
            " (SELECT number FROM audience WHERE slug = ?) ORDER BY 1", slug,
        )  # fmt: skip
        return [row[0] for row in rows]

    async def triggers(self) -> list[tuple[str, int, str, int, str]]:
        """Gives (slug, profile, kind, sequence, cause) of all triggers in their order."""
        return await self.rows(
            "SELECT a.slug, t.profile_id, t.kind, t.sequence, t.cause FROM trigger t"
            " JOIN audience a ON a.number = t.audience ORDER BY t.id"
        )

    async def assert_sound(self) -> None:
        """Holds P3 and the tables to each other: alternation, no gap, sizes, keys, and who matches now."""
        definitions = self.pipeline.definitions
        known = [*definitions.audiences]
        transitions: dict[tuple[int, int], list[tuple[int, str]]] = {}
        for profile, audience, sequence, kind in await self.rows(
            "SELECT profile_id, audience, sequence, kind FROM trigger ORDER BY id"
        ):
            transitions.setdefault((profile, audience), []).append((sequence, kind))
        for each, rows in transitions.items():
            expected = [(number, "enter" if number % 2 else "exit") for number in range(1, len(rows) + 1)]
            assert expected == rows, each
        memberships = await self.rows("SELECT profile_id, audience, sequence, trigger_id FROM membership")
        for profile, audience, sequence, _ in memberships:
            assert len(transitions[profile, audience]) == sequence
        stored = {(profile, audience) for profile, audience, *_ in memberships}
        for (profile, audience), rows in transitions.items():
            assert (profile, audience) in stored or audience not in known or rows[-1][1] == "exit"
        sizes = await self.rows("SELECT number, size FROM audience WHERE deleted_us IS NULL")
        members = {number: set() for number, _ in sizes}
        for profile, audience, sequence, _ in memberships:
            if sequence % 2:
                members[audience].add(profile)
        assert {number: len(each) for number, each in members.items()} == dict(sizes)
        now = clock.now()
        keys = set()
        for profile_id, body in await self.rows("SELECT id, body FROM profile"):
            profile = load(definitions.schema, profile_id, body)
            profile.expire(definitions.schema, clock.to_us(now))
            keys |= {(*key, profile_id) for key in profile.all_keys()}
            verdicts = definitions.audience_set.evaluate(known, profile, now)
            assert verdicts == [profile_id in members[number] for number in known], (profile_id, body)
        assert keys == set(await self.rows("SELECT field, value, profile_id FROM identity"))


@asynccontextmanager
async def _open_ingest(
    folder: Path, *, run: bool = True, limits: Limits | None = None, prepare: Any = None, **settings: int
) -> AsyncIterator[Ingest]:
    commits: list[Commit] = []

    def ready(db: sqlite3.Connection) -> None:
        migrate(db, "state")
        if prepare is not None:
            prepare(db)

    async with (
        Database.open(folder / "events.db", prepare=partial(migrate, database="events")) as events,
        Database.open(folder / "state.db", prepare=ready) as state,
        Pipeline.open(events, state, IngestSettings(**settings), commits.append, limits=limits) as pipeline,
    ):
        opened = Ingest(folder, events, state, pipeline, commits)
        opened.task = asyncio.create_task(pipeline.run() if run else asyncio.sleep(0))
        try:
            yield opened
        finally:
            opened.task.cancel()
            await asyncio.wait([opened.task])
            if not opened.task.cancelled():
                opened.task.result()


@pytest.fixture
def open_ingest() -> Any:
    """`async with open_ingest(tmp_path, cached_profiles=…) as ingest`: a loop over the files in a folder."""
    return _open_ingest
