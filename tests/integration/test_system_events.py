"""What happens to jobs and authorizations is a stream, an alert, and an entry of who did it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

from daemon.jobs.system import STREAM
from daemon.store.collector import NotAcceptedError

QUERY = "SELECT uid, visits AS visits KIND int FROM default INTO user BY uid ALIAS q"


async def webhook(daemon, url: str, **more) -> str:
    body = {"config": {"audiences": ["active"], "url": url}} | more
    return (await daemon.post("/v2/job/webhook_triggers", body, ok=True)).data["id"]


async def define(daemon) -> None:
    await daemon.call("POST", "/api/query", data=QUERY, ok=True)
    await daemon.call("POST", "/api/segment", data="FILTER visits > 0 ALIAS active", ok=True)


async def streamed(daemon, count: int) -> list[dict[str, Any]]:
    """Waits until the stream has so many events that are no heartbeat; the newest first."""
    async with asyncio.timeout(20):
        while True:
            answer = await daemon.get(f"/v2/stream/{STREAM}/events?limit=100")
            found = [each for each in (answer.data or []) if _verb(each) != "heartbeat"] if answer.status == 200 else []
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


def _verb(each: dict[str, Any]) -> str:
    return each.get("data", each.get("body", each))["verb"]


async def test_system_events_are_a_stream_that_queries_can_map(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, journal={"store_s": 0.05}) as daemon, open_receiver() as receiver:
        await define(daemon)
        text = f"SELECT subject_id, count(verb) AS happened FROM {STREAM} INTO user BY subject_id ALIAS system"
        await daemon.call("POST", "/api/query", data=text, ok=True)
        job = await webhook(daemon, receiver.address)
        await daemon.post(f"/v2/job/{job}/pause", ok=True)
        await streamed(daemon, 3)
        async with asyncio.timeout(20):
            while (profile := await daemon.get(f"/api/entity/user/subject_id/{job}")).status != 200:
                await asyncio.sleep(0.02)
        told = (await daemon.get(f"/api/event?id={job}", ok=True)).data
        paused = (await daemon.get(f"/api/event?id={job}&verb=paused", ok=True)).data

    assert job == profile.data["subject_id"]
    assert ["paused", "started", "created"] == [each["verb"] for each in told]
    assert ["job_paused"] == [each["event"] for each in paused]


async def test_a_system_event_is_in_the_stream_once_whatever_happens(tmp_path, start_cohortd, open_receiver):
    environment = {"COHORTD_JOURNAL_STORE_S": "0.05"}
    async with open_receiver() as receiver, start_cohortd(tmp_path, environment=environment) as cohortd:
        await define(cohortd.client)
        job = await webhook(cohortd.client, receiver.address)
        await streamed(cohortd.client, 2)
        await cohortd.kill()
        with closing(sqlite3.connect(tmp_path / "state.db")) as db:
            db.execute("UPDATE system_event SET forwarded = 0")  # as if the kill had come before the note
            db.commit()
        await cohortd.start()
        await cohortd.client.post(f"/v2/job/{job}/complete", ok=True)
        found = await streamed(cohortd.client, 4)

    verbs = sorted(_verb(each) for each in found)
    assert ["completed", "created", "started", "started"] == verbs


async def test_while_the_log_takes_nothing_system_events_wait(tmp_path, open_daemon, open_receiver, monkeypatch):
    monkeypatch.setattr("daemon.jobs.system.AGAIN_S", 0.05)
    refused = asyncio.Event()
    async with open_daemon(tmp_path, journal={"store_s": 0.0}) as daemon, open_receiver() as receiver:
        await define(daemon)
        collector = daemon.daemon.services.collector
        append = collector.append

        def full(*_: object) -> Any:
            refused.set()
            raise NotAcceptedError("the log cannot be written now", behind=False, retry_after_s=1)

        collector.append = full
        await webhook(daemon, receiver.address)
        await refused.wait()
        collector.append = append
        found = await streamed(daemon, 2)

    assert ["created", "started"] == sorted(_verb(each) for each in found)


async def test_the_heart_beats(tmp_path, open_daemon):
    async with open_daemon(tmp_path, journal={"heartbeat_s": 0.05, "store_s": 0.0}) as daemon:
        async with asyncio.timeout(20):
            while len(beats := (await daemon.get("/api/event?verb=heartbeat", ok=True)).data) < 2:
                await asyncio.sleep(0.02)

    assert {"uptime_s", "waiting_events"} <= beats[0].keys()


async def test_who_changed_what_is_written_down(tmp_path, open_daemon, open_receiver, make_token):
    async with open_daemon(tmp_path) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address, label="crm")
        await daemon.post(f"/v2/job/{job}/pause", ok=True)
        await daemon.get(f"/v2/job/{job}", ok=True)
        await daemon.call("PATCH", f"/v2/job/{job}", json={"label": "crm 2"}, ok=True)
        await daemon.post(f"/v2/job/{job}/teleport")
        await daemon.delete("/api/query/nothing")
        entries = (await daemon.get("/v2/audit", ok=True)).data
        of_job = (await daemon.get(f"/v2/audit?subject=/v2/job/{job}", ok=True)).data
        reading = await daemon.call("GET", "/v2/audit", token=make_token(tmp_path, "read"))

    actions = [each["action"] for each in entries]
    assert ["change_job", "pause_job", "create_job", "put_audience"] == actions[:4]
    assert "create_token" in actions, "made beside the daemon, by a command"
    assert 1 == len({each["actor"] for each in entries[:4]})
    assert ("crm", job) == (entries[2]["facts"]["label"], entries[2]["facts"]["id"])
    assert [each["id"] for each in entries[:3]] == [each["id"] for each in of_job]
    assert 403 == reading.status
