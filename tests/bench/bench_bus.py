"""How quickly a trigger reaches a webhook: 500 commits a second, and 2,000 beside a destination that hangs.

`python tests/bench/bench_bus.py`: the bus and jobs over a real state.db, a receiver in a process of its own. Latency is
from the moment at which the commit was durable to the arrival of the request, on one clock.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import aiohttp
import orjson

from daemon.bus.bus import Bus
from daemon.jobs.jobs import Jobs
from daemon.jobs.journal import Journal
from daemon.jobs.parts import Parts
from daemon.settings import Settings
from daemon.store.database import Database
from daemon.store.migrate import migrate
from streams import profile as profiles
from streams.audience import AudienceSet
from streams.ql.parser import parse_query
from streams.schema import build_schema

RECEIVER = Path(__file__).parents[1] / "peers" / "receiver.py"
SCHEMA = build_schema([parse_query("SELECT uid FROM default INTO user BY uid ALIAS q")])
DEFINITIONS = SimpleNamespace(
    schema=SCHEMA, audiences={1: SimpleNamespace(id="1" * 32, slug="a1")}, audience_set=AudienceSet({}, SCHEMA)
)


class Commit(NamedTuple):
    first: int
    last: int
    audiences: frozenset[int]


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(sys.executable, str(RECEIVER), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        await process.wait()


async def run(triggers: int, per_second: float, *, hanging: bool) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        state = await stack.enter_async_context(
            Database.open(folder / "state.db", prepare=partial(migrate, database="state"))
        )
        await state.write(
            lambda db: (
                db.execute(
                    "INSERT INTO audience (number, id, slug, name, text, version, created_us, updated_us)"
                    " VALUES (1, 'x', 'a1', '', '', 1, 0, 0)"
                ).rowcount
            )
        )
        await state.write(
            lambda db: (
                db.executemany(
                    "INSERT INTO profile (id, body) VALUES (?, ?)",
                    [(number, profiles.new(number, 0).dump()) for number in range(1, 1001)],
                ).rowcount
            )
        )
        _, address = await stack.enter_async_context(receiver())
        stuck, stuck_address = await stack.enter_async_context(receiver())
        journal = await stack.enter_async_context(Journal.open(state, Settings()))
        bus = await stack.enter_async_context(Bus.open(state, lambda: DEFINITIONS, Settings(), journal))
        parts = Parts(bus, journal=journal)
        jobs = await stack.enter_async_context(Jobs.open(state, parts, Settings(data_dir=folder)))
        await jobs.create("webhook_triggers", {"audiences": ["a1"], "url": f"{address}/ok"})
        if hanging:
            stuck.send_signal(signal.SIGSTOP)
            await jobs.create("webhook_triggers", {"audiences": ["a1"], "url": f"{stuck_address}/ok"})
        durable: dict[str, float] = {}
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(1, triggers + 1):

            def write(db: object, number: int = number) -> Commit:
                db.execute(  # type: ignore[attr-defined]
                    "INSERT INTO trigger (id, commit_id, profile_id, audience, kind, sequence, at_us, entered_us,"
                    " cause) VALUES (?, ?, ?, 1, 'enter', 1, 0, 0, 'event')",
                    (number, number, number % 1000 + 1),
                )
                return Commit(number, number, frozenset({1}))

            bus.notify(await state.write(write))
            durable[str(number)] = time.time()
            await asyncio.sleep(max(began + number / per_second - loop.time(), 0))
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{address}/seen", params={"path": "/ok"}) as response:
                    seen = await response.json()
                if len(seen) >= triggers:
                    break
                await asyncio.sleep(0.1)
        took = loop.time() - began
    arrivals = [(each["at"], orjson.loads(base64.b64decode(each["body"]))["id"]) for each in seen]
    waits = sorted((at - durable[trigger]) * 1000 for at, trigger in arrivals)
    print(
        f"{triggers} triggers at {per_second:.0f}/s{', one of two destinations hanging' if hanging else ''}:"
        f" p50 {waits[len(waits) // 2]:.1f} ms, p99 {waits[int(len(waits) * 0.99)]:.1f} ms,"
        f" max {waits[-1]:.1f} ms, all after {took:.1f} s"
    )


async def main() -> None:
    await run(5000, 500, hanging=False)
    await run(5000, 500, hanging=True)
    await run(2000, 1e9, hanging=False)
    await run(2000, 1e9, hanging=True)


if __name__ == "__main__":
    import uvloop

    sys.setswitchinterval(0.001)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
