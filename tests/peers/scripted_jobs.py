"""A connector whose runs end as a test says, and stand-ins for what jobs use."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.sdk.catalog import assemble
from connectors.sdk.declare import Provider, TriggerExport, TriggerJob
from daemon.jobs.jobs import Jobs
from daemon.model.job import JobState
from daemon.store.database import Database
from daemon.store.migrate import migrate

#: A configuration that the scripted job type accepts.
CONFIG = {"audiences": ["vip"]}


class Script:
    """A connector whose runs end as the test says; `await runs.get()` waits for one to begin."""

    def __init__(self) -> None:
        self.runs: asyncio.Queue[asyncio.Future] = asyncio.Queue()
        self.deaf = False
        self.offered = []

    async def run(self, run) -> None:
        self.offered.append(run)
        end = asyncio.get_running_loop().create_future()
        self.runs.put_nowait(end)
        while True:
            try:
                await (asyncio.shield(end) if self.deaf else end)
            except asyncio.CancelledError:
                if not self.deaf:
                    raise
            else:
                return

    def catalog(self):
        kind = TriggerJob(
            slug="test_job", label="Test", description="", direction="export", config=TriggerExport, run=self.run
        )
        return assemble([Provider("test", "Test", "", (kind,))])


class Listeners:
    """Stands for the bus."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.delivered = {}

    def add(self, row) -> None:
        self.ids.add(row.id)

    def remove(self, subscription_id) -> None:
        self.ids.discard(subscription_id)

    async def retire(self, subscription_id) -> None:
        self.remove(subscription_id)

    @asynccontextmanager
    async def attach(self, subscription_id, _logger, on_delivered, _dropped=None, _run_id="") -> AsyncIterator[None]:
        self.delivered[subscription_id] = on_delivered
        yield None


@asynccontextmanager
async def opened_state(tmp_path):
    def prepare(db: sqlite3.Connection) -> None:
        migrate(db, database="state")
        db.execute(
            "INSERT OR IGNORE INTO audience (number, id, slug, name, text, version, created_us, updated_us)"
            " VALUES (1, 'x', 'vip', '', '', 1, 0, 0)"
        )

    async with Database.open(tmp_path / "state.db", prepare=prepare) as state:
        yield state


async def until(jobs: Jobs, job_id: str, state: JobState):
    async with asyncio.timeout(10):
        while (row := await jobs.get(job_id)).state is not state:
            await asyncio.sleep(0.005)
    return row
