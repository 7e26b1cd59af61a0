"""A disk that is full, for real: a small tmpfs. And writes that fail by injection."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from contextlib import closing, contextmanager

import pytest

CHUNK = b"x" * 20_000


@contextmanager
def small_disk(path, size="24m"):
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here (needs root)")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


async def test_on_a_full_disk_503_nothing_acknowledged_is_lost_and_it_goes_on_by_itself(tmp_path, start_cohortd):
    with small_disk(tmp_path / "disk") as disk:
        async with start_cohortd(disk) as cohortd:
            acknowledged = []
            statuses = set()
            number = 0
            async with asyncio.timeout(60):
                while 503 not in statuses:
                    body = {"_id": str(number), "text": CHUNK.decode()}
                    reply = await cohortd.client.post("/collect/json/web", body)
                    statuses.add(reply.status)
                    if reply.status == 200:
                        acknowledged.append(str(number))
                    number += 1
            retry_after = int(reply.headers["Retry-After"])
            alive = await cohortd.client.get("/health")
            reading = await cohortd.client.get("/v2/stream")
            grow = await asyncio.create_subprocess_exec("mount", "-o", "remount,size=200m", str(disk))
            assert await grow.wait() == 0
            async with asyncio.timeout(20):
                while (await cohortd.client.post("/collect/json/web", {"_id": "after"})).status != 200:
                    await asyncio.sleep(0.1)
            recovered = [line for line in cohortd.log if line.get("event") == "log_recovered"]
            failed = [line for line in cohortd.log if line.get("event") == "log_failed"]
            status = await cohortd.stop()
        with closing(sqlite3.connect(disk / "events.db")) as db:
            stored = [event_id for (event_id,) in db.execute("SELECT event_id FROM event_realtime")]
            sound = db.execute("PRAGMA integrity_check").fetchone()

    assert statuses <= {200, 503}
    assert retry_after > 0
    assert alive.status == 200
    assert reading.status in (200, 503)
    assert failed[0]["full"] is True
    assert recovered
    assert status == 0
    assert sound == ("ok",)
    assert len(stored) == len(set(stored))
    assert {*acknowledged, "after"} <= set(stored)


async def test_a_bulk_upload_that_fills_the_disk_is_told_how_much_of_it_is_stored(tmp_path, start_cohortd):
    line = b'{"text":"' + CHUNK + b'"}\n'

    async def lines():
        for _ in range(2000):
            yield line

    with small_disk(tmp_path / "disk") as disk:
        async with start_cohortd(disk) as cohortd:
            reply = await cohortd.client.post(
                "/collect/bulk/web", data=lines(), headers={"Content-Type": "application/x-ndjson"}
            )
            await cohortd.stop()
        with closing(sqlite3.connect(disk / "events.db")) as db:
            (stored,) = db.execute("SELECT count(*) FROM event_bulk").fetchone()

    assert reply.status == 503
    assert reply.data["message_count"] == stored
    assert 0 < stored < 2000


@pytest.mark.skipif(shutil.which("fiu-ctrl") is None, reason="fiu-utils is not installed")
async def test_with_writes_that_fail_at_random_nothing_acknowledged_is_lost(tmp_path, start_cohortd):
    fifo = tmp_path / "fiu"
    library = "/usr/lib/fiu/fiu_run_preload.so /usr/lib/fiu/fiu_posix_preload.so"
    environment = {"LD_PRELOAD": library, "FIU_CTRL_FIFO": str(fifo)}
    data_dir = tmp_path / "data"
    async with start_cohortd(data_dir, environment=environment) as cohortd:
        fault = "enable_random name=posix/io/rw/pwrite,probability=0.05,failinfo=28"
        control = await asyncio.create_subprocess_exec("fiu-ctrl", "-f", fifo, "-c", fault, str(cohortd.process.pid))
        assert await control.wait() == 0
        acknowledged = []
        refused = 0
        async with asyncio.timeout(60):
            while len(acknowledged) < 300 or not refused:
                event_id = str(len(acknowledged) + refused)
                reply = await cohortd.client.post("/collect/json/web", {"_id": event_id})
                assert reply.status in (200, 503)
                if reply.status == 200:
                    acknowledged.append(event_id)
                else:
                    refused += 1
                    await asyncio.sleep(0.05)
        await cohortd.kill()
    with closing(sqlite3.connect(data_dir / "events.db")) as db:
        stored = [event_id for (event_id,) in db.execute("SELECT event_id FROM event_realtime")]
        sound = db.execute("PRAGMA integrity_check").fetchone()

    assert sound == ("ok",)
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
