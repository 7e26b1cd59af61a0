"""What goes wrong under ingest leaves every event counted once, and every transition told once (P2, P3, P6)."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.ingest import audience_pass, pipeline, timers

QUERY = """
SELECT user_id, email(email) AS email, sum(amount) AS spent KIND number, max(todate(at)) AS seen KIND date
FROM web INTO user BY user_id OR email ALIAS web
"""
AUDIENCES = (
    "FILTER spent >= 50 ALIAS big",
    "FILTER AND ( spent < 80, EXISTS email ) ALIAS small",
    'FILTER seen > "now-7d" ALIAS recent',
    "FILTER NOT INCLUDE recent ALIAS gone",
)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr(pipeline, "BACK_OFF_S", 0.0)
    monkeypatch.setattr(audience_pass, "STEP_PROFILES", 3)
    monkeypatch.setattr(timers, "STEP_PROFILES", 4)


def _events(seed: int) -> list[dict]:
    chance = random.Random(seed)
    events = []
    for _ in range(60):
        event = {"user_id": f"u{chance.randrange(12)}", "amount": chance.randrange(-20, 30)}
        if chance.random() < 0.3:
            event["email"] = f"e{chance.randrange(8)}@example.com"
        if chance.random() < 0.2:
            del event["user_id"]
            event["email"] = f"e{chance.randrange(8)}@example.com"
        if chance.random() < 0.5:
            event["at"] = f"2025-12-{chance.randrange(20, 31)}T00:00:00Z"
        events.append(event)
    return events


async def _course(ingest, frozen_clock) -> None:
    """A course with everything in it. Each step is waited for, so that it is the same however often it is disturbed."""
    events = _events(1)
    await _again(ingest.pipeline.put_query, QUERY)
    await _again(ingest.pipeline.put_audience, AUDIENCES[0])
    await ingest.take(*events[:20])
    for text in AUDIENCES[1:]:
        await _again(ingest.pipeline.put_audience, text)
    await ingest.take(*events[20:40], lane="bulk")
    frozen_clock.us += 3 * 86_400_000_000
    await ingest.take(*events[40:])
    await _again(ingest.pipeline.put_audience, "FILTER spent >= 20 ALIAS big")
    frozen_clock.us += 10 * 86_400_000_000
    await ingest.drain()


async def _again(command, *arguments) -> None:
    """A command that failed is given again by whoever gave it."""
    for _ in range(5):
        try:
            await command(*arguments)
        except sqlite3.Error:
            continue
        return
    raise AssertionError("the command failed every time")


async def _outcome(ingest):
    # Retried steps may cut batches elsewhere, so that net changes differ; what holds in the end does not.
    return (
        [(number, json.loads(body)) for number, body in await ingest.rows("SELECT id, body FROM profile ORDER BY id")],
        await ingest.rows("SELECT * FROM identity ORDER BY field, value"),
        await ingest.rows("SELECT profile_id, audience, member FROM membership ORDER BY 1, 2"),
        await ingest.rows("SELECT lane, position FROM lane_cursor ORDER BY 1"),
    )


class Disturbed:
    """Makes a write of a database fail: before anything is written, within the work, or after its commit."""

    def __init__(self, database, at: int, how: str) -> None:
        self.count = 0
        self._write = database.write
        self._at = at
        self._how = how
        database.write = self.write

    async def write(self, work):
        self.count += 1
        if self.count != self._at:
            return await self._write(work)
        if self._how == "before":
            raise sqlite3.OperationalError("disk I/O error")
        if self._how == "after":
            await self._write(work)
            raise sqlite3.OperationalError("disk I/O error")

        def fail(db):
            work(db)
            raise sqlite3.OperationalError("database or disk is full")

        return await self._write(fail)


async def _undisturbed(open_ingest, frozen_clock, folder):
    began = frozen_clock.us
    async with open_ingest(folder, cached_profiles=5) as ingest:
        counted = Disturbed(ingest.state, 0, "")
        await _course(ingest, frozen_clock)
        await ingest.assert_sound()
        outcome = await _outcome(ingest)
    frozen_clock.us = began
    return outcome, counted.count


@pytest.mark.parametrize("how", ["before", "within", "after"])
async def test_a_failed_write_at_any_step_changes_nothing_in_the_end(tmp_path, open_ingest, frozen_clock, how):
    (tmp_path / "calm").mkdir()
    expected, writes = await _undisturbed(open_ingest, frozen_clock, tmp_path / "calm")
    assert writes > 20
    began = frozen_clock.us
    for at in range(2, writes + 1):
        frozen_clock.us = began
        folder = tmp_path / f"{at}"
        folder.mkdir()
        async with open_ingest(folder, cached_profiles=5) as ingest:
            Disturbed(ingest.state, at, how)
            await _course(ingest, frozen_clock)

            await ingest.assert_sound()
            assert await _outcome(ingest) == expected, at
            told = [each for commit in ingest.commits for each in range(commit.first, commit.last + 1)]
            assert set(told) >= {row[0] for row in await ingest.rows("SELECT id FROM trigger")}


async def test_a_crash_after_any_commit_changes_nothing_in_the_end(tmp_path, open_ingest, frozen_clock):
    """A step is one transaction, so a crash is a loop that ends after some commit; another takes up from there."""
    (tmp_path / "calm").mkdir()
    expected, _ = await _undisturbed(open_ingest, frozen_clock, tmp_path / "calm")
    folder = tmp_path / "crashed"
    folder.mkdir()
    events = _events(1)
    starts = 0
    async with open_ingest(folder, cached_profiles=5) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(AUDIENCES[0])
        await ingest.append(*events[:20])
    while True:
        starts += 1
        async with open_ingest(folder, cached_profiles=5, realtime_events=1, batch_events=1, run=False) as ingest:
            if await _one_commit(ingest):
                break
    async with open_ingest(folder, cached_profiles=5) as ingest:
        for text in AUDIENCES[1:]:
            await ingest.pipeline.put_audience(text)
        await ingest.append(*events[20:40], lane="bulk")
    while True:
        starts += 1
        async with open_ingest(folder, cached_profiles=5, realtime_events=1, batch_events=1, run=False) as ingest:
            if await _one_commit(ingest):
                break
    frozen_clock.us += 3 * 86_400_000_000
    async with open_ingest(folder, cached_profiles=5) as ingest:
        await ingest.take(*events[40:])
        await ingest.pipeline.put_audience("FILTER spent >= 20 ALIAS big")
    frozen_clock.us += 10 * 86_400_000_000
    while True:
        starts += 1
        async with open_ingest(folder, cached_profiles=5, run=False) as ingest:
            if await _one_commit(ingest):
                await ingest.assert_sound()
                assert await _outcome(ingest) == expected
                break
    assert starts > 20


async def _one_commit(ingest) -> bool:
    """Runs the loop until its first commit, and ends it there; says whether there was nothing left to do."""
    write = ingest.state.write
    committed = asyncio.Event()

    async def once(work):
        if committed.is_set():
            await asyncio.Event().wait()  # the process is no more
        result = await write(work)
        committed.set()
        return result

    ingest.state.write = once
    running = asyncio.create_task(ingest.pipeline.run())
    draining = asyncio.create_task(ingest.pipeline.drain())
    crash = asyncio.create_task(committed.wait())
    await asyncio.wait([draining, crash], return_when=asyncio.FIRST_COMPLETED)
    done = draining.done() and not committed.is_set()
    ingest.pipeline._in_flight = None
    ingest.state.write = write
    for task in (running, draining, crash):
        task.cancel()
    await asyncio.wait([running, draining, crash])
    if draining.done() and not draining.cancelled():
        draining.exception()
    return done


async def test_a_full_disk_is_waited_out(tmp_path, open_ingest, monkeypatch):
    warned = asyncio.Event()
    waited = pipeline.Pipeline._recover

    async def recover(self, error, *, defect):
        assert "full" in str(error)
        warned.set()
        await waited(self, error, defect=defect)

    monkeypatch.setattr(pipeline.Pipeline, "_recover", recover)
    async with open_ingest(tmp_path, prepare=_narrow) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(AUDIENCES[0])
        await ingest.append(*({"user_id": f"u{each}" * 20, "amount": 60} for each in range(5000)))
        await warned.wait()
        assert await ingest.one("SELECT count(*) FROM profile") < 5000
        with pytest.raises(sqlite3.Error):
            await _put_many(ingest)
        await ingest.state.write(_widen)

        await ingest.drain()
        assert await ingest.one("SELECT count(*) FROM profile") == 5000
        assert await ingest.one("PRAGMA integrity_check") == "ok"
        await ingest.assert_sound()


async def _put_many(ingest):
    for number in range(1000):
        await ingest.pipeline.put_audience(f"FILTER spent > {number} ALIAS a{number}  -- {'x' * 5000}")


def _narrow(db):
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages + 100}").fetchall()


def _widen(db):
    db.execute("PRAGMA max_page_count = 1000000").fetchall()


STEPS = st.one_of(
    st.tuples(st.just("events"), st.sampled_from(["realtime", "bulk"]), st.integers(0, 50), st.integers(1, 10)),
    st.tuples(st.just("audience"), st.integers(0, 5)),
    st.tuples(st.just("delete"), st.sampled_from(["big", "small", "gone"])),
    st.tuples(st.just("turns"), st.integers(1, 30)),
    st.tuples(st.just("clock"), st.integers(1, 5)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=30))
def test_background_passes_and_live_events_do_not_disturb_each_other(steps, open_ingest, frozen_clock):
    frozen_clock.us = 1_767_225_600_000_000
    texts = (*AUDIENCES, "FILTER spent >= 20 ALIAS big", 'FILTER seen > "now-9d" ALIAS recent')
    pool = _events(2)

    async def run():
        with tempfile.TemporaryDirectory() as name:
            async with open_ingest(Path(name), cached_profiles=4, batch_events=5, realtime_events=3) as ingest:
                await ingest.pipeline.put_query(QUERY)
                await ingest.take(*_events(3))
                waiting = []
                for step, *rest in steps:
                    if step == "events":
                        lane, at, count = rest
                        await ingest.append(*pool[at : at + count], lane=lane)
                    elif step == "audience":
                        text = texts[rest[0]]
                        if "INCLUDE" not in text or ingest.pipeline.definitions.audience("recent"):
                            waiting.append(asyncio.ensure_future(ingest.pipeline.put_audience(text)))
                    elif step == "delete":
                        waiting.append(asyncio.ensure_future(ingest.pipeline.delete_audience(rest[0])))
                    elif step == "clock":
                        frozen_clock.us += rest[0] * 86_400_000_000
                        ingest.pipeline.wake()
                    else:
                        for _ in range(rest[0]):
                            await asyncio.sleep(0)
                await asyncio.gather(*waiting, return_exceptions=True)
                await ingest.drain()
                await ingest.assert_sound()

    asyncio.run(run())
