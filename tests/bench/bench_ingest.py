"""Whole ingest, and a new audience, each beside its floor in the same run.

    python tests/bench/bench_ingest.py [--times 5] [ingest | audience] [--profile]

Ingest: 200,000 events over 20,000 profiles that exist already, through the whole pipeline (map, resolve, merge, 20
audiences, commit), against bare inserts of the same events, 1,000 a transaction. Audience: a new one over 500,000
profiles, against `SELECT` and `orjson.loads` of the same rows.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import sqlite3
import sys
import tempfile
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import state as states
import workload
from figures import Figure

from daemon import clock
from daemon.ingest.pipeline import Pipeline
from daemon.settings import Settings
from daemon.store.database import Database
from daemon.store.migrate import migrate

EVENTS, PROFILES, MEMBERS = 200_000, 20_000, 500_000


@asynccontextmanager
async def pipeline(folder: Path) -> Any:
    prepare = partial(migrate, database="events")
    prepare_state = partial(migrate, database="state")
    async with (
        Database.open(folder / "events.db", prepare=prepare) as events,
        Database.open(folder / "state.db", prepare=prepare_state) as state,
        Pipeline.open(events, state, Settings().ingest, lambda _: None) as opened,
    ):
        running = asyncio.create_task(opened.run())
        try:
            yield opened
        finally:
            running.cancel()
            await asyncio.wait([running])


def migrated(folder: Path) -> None:
    for name in ("events", "state"):
        with closing(sqlite3.connect(folder / f"{name}.db", isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            migrate(db, name)


def bare_inserts(folder: Path, lines: list[bytes]) -> float:
    """Events a second of the floor: one executemany a transaction of 1,000."""
    path = folder / "floor.db"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = FULL")
        db.execute(
            "CREATE TABLE event (position INTEGER PRIMARY KEY, received_us INTEGER, stream TEXT, event_us INTEGER,"
            " event_id TEXT, body TEXT)"
        )
        now_us = clock.now_us()
        began = perf_counter()
        for at in range(0, len(lines), 1000):
            rows = [(now_us, "orders", now_us, None, line.decode()) for line in lines[at : at + 1000]]
            db.execute("BEGIN")
            db.executemany(
                "INSERT INTO event (received_us, stream, event_us, event_id, body) VALUES (?, ?, ?, ?, ?)", rows
            )
            db.execute("COMMIT")
        return len(lines) / (perf_counter() - began)


def bare_reads(folder: Path) -> float:
    """Profiles a second of the floor: a SELECT and orjson.loads."""
    with closing(sqlite3.connect(folder / "state.db")) as db:
        began = perf_counter()
        count = 0
        for _, body in db.execute("SELECT id, body FROM profile"):
            orjson.loads(body)
            count += 1
        return count / (perf_counter() - began)


async def ingest(times: int, profile: cProfile.Profile | None) -> Figure:
    figure = Figure("whole ingest", "events/s", "least", 0.15)
    warm = workload.lines(PROFILES * 2, PROFILES, seed=2)
    lines = workload.lines(EVENTS, PROFILES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        migrated(folder)
        states.log(folder / "events.db", warm)
        async with pipeline(folder) as opened:
            await opened.put_query(workload.QUERY)
            for text in workload.AUDIENCES:
                await opened.put_audience(text)
            await opened.drain()
            for _ in range(times):
                figure.floor.append(bare_inserts(folder, lines))
                states.log(folder / "events.db", lines)
                if profile is not None:
                    profile.enable()
                began = perf_counter()
                opened.wake()
                await opened.drain()
                figure.ours.append(EVENTS / (perf_counter() - began))
                if profile is not None:
                    profile.disable()
    return figure


async def audience(times: int, profile: cProfile.Profile | None) -> Figure:
    figure = Figure("new audience", "profiles/s", "least", 0.3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        migrated(folder)
        states.fill(folder, count=MEMBERS)
        with closing(sqlite3.connect(folder / "state.db")) as db:
            # A third of them match.
            db.execute("UPDATE profile SET body = json_replace(body, '$.f.\"spent:nn\"', 500.5) WHERE id % 3 = 0")
            db.commit()
        async with pipeline(folder) as opened:
            await opened.put_query(workload.QUERY)
            await opened.drain()
            for turn in range(times):
                figure.floor.append(bare_reads(folder))
                if profile is not None:
                    profile.enable()
                began = perf_counter()
                await opened.put_audience(f'FILTER AND ( spent >= {400 + turn}, country != "XX" ) ALIAS fresh_{turn}')
                await opened.drain()
                figure.ours.append(MEMBERS / (perf_counter() - began))
                if profile is not None:
                    profile.disable()
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["ingest", "audience"])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    sys.setswitchinterval(0.001)
    gc.set_threshold(50_000, 20, 1000)
    met = True
    for name, run in {"ingest": ingest, "audience": audience}.items():
        if options.what in (None, name):
            profile = cProfile.Profile() if options.profile else None
            try:
                import uvloop  # noqa: PLC0415

                figure = uvloop.run(run(options.times, profile))
            except ImportError:
                figure = asyncio.run(run(options.times, profile))
            print(figure.show())
            met = met and figure.met
            if profile is not None:
                pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
