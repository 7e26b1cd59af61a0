"""A part that fails: the process says so, ends with status 1, and nothing of what it held stays behind."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest
import structlog

from daemon import app, lock, settings
from daemon.store.log_health import LogHealth
from daemon.store.migrate import migrations


@pytest.fixture
def load(tmp_path):
    return settings.load(flags={"data_dir": tmp_path, "server": {"listen": "127.0.0.1:0"}})


async def test_a_loop_that_crashes_ends_the_daemon_with_status_1_and_its_cause(tmp_path, load, monkeypatch):
    async def crash(_self):
        await asyncio.sleep(0.01)
        raise LookupError("a defect")

    monkeypatch.setattr(LogHealth, "watch", crash)
    with structlog.testing.capture_logs() as lines:
        status = await app.run(load)

    names = [line["event"] for line in lines]
    failed = next(line for line in lines if line["event"] == "daemon_failed")
    assert status == 1
    assert names[-1] == "daemon_stopped"
    assert "a defect" in str(failed["exc_info"])
    assert lock.holder(tmp_path) is None
    assert not (tmp_path / "control.sock").exists()


async def test_a_file_of_a_newer_program_is_refused_in_a_line(tmp_path, load):
    tmp_path.mkdir(exist_ok=True)
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        db.execute(f"PRAGMA user_version = {len(migrations('state')) + 1}")
    with structlog.testing.capture_logs() as lines:
        status = await app.run(load)

    refused = [line for line in lines if line["event"] == "daemon_refused"]
    assert status == 1
    assert "run the newer program" in refused[0]["error"]
    assert [line for line in lines if line["event"] == "daemon_failed"] == []
