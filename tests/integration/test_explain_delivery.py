"""Why was this person not sent? Every answer that there is, from a real daemon, and in words with a way out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

QUERY = "SELECT uid, visits AS visits KIND int FROM default INTO user BY uid ALIAS q"
QUICK = {"retry_s": 0.1, "back_off_s": 30.0, "request_timeout_s": 2.0}


async def define(daemon) -> None:
    await daemon.call("POST", "/api/query", data=QUERY, ok=True)
    await daemon.call("POST", "/api/segment", data="FILTER visits > 0 ALIAS active", ok=True)


async def webhook(daemon, url: str, **config) -> str:
    body = {"config": {"audiences": ["active"], "url": url} | config}
    return (await daemon.post("/v2/job/webhook_triggers", body, ok=True)).data["id"]


async def visit(daemon, uid: str, visits: int = 1) -> None:
    await daemon.post("/collect/json/default", {"uid": uid, "visits": visits}, ok=True)


async def told(daemon, job: str, uid: str, verdict: str):
    """Waits until that is the answer."""
    async with asyncio.timeout(20):
        while True:
            answer = await daemon.get(f"/v2/job/{job}/explain/uid/{uid}")
            if answer.status == 200 and answer.data["audiences"][0]["verdict"] == verdict:
                return answer.data["audiences"][0]
            await asyncio.sleep(0.02)


async def test_each_reason_is_told_with_what_to_do(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        await visit(daemon, "old")
        await visit(daemon, "never", 0)
        async with asyncio.timeout(20):
            while not (await daemon.get("/api/segment/active", ok=True)).data["size"]:
                await asyncio.sleep(0.01)
        job = await webhook(daemon, receiver.address)
        enters = await webhook(daemon, receiver.address, events="enters")
        await visit(daemon, "ann")
        delivered = await told(daemon, job, "ann", "delivered")
        old = await told(daemon, job, "old", "before_the_job")
        never = await told(daemon, job, "never", "never_a_member")
        await visit(daemon, "ann", 0)
        unwanted = await told(daemon, enters, "ann", "not_wanted")
        receiver.status = 400
        await visit(daemon, "bob")
        omitted = await told(daemon, job, "bob", "omitted")
        await daemon.post(f"/v2/job/{job}/pause", ok=True)
        await visit(daemon, "cid")
        paused = await told(daemon, job, "cid", "paused")
        receiver.status = 500
        await daemon.post(f"/v2/job/{job}/resume", ok=True)
        error = await told(daemon, job, "cid", "error")
        receiver.status = 200
        await daemon.post(f"/v2/job/{job}/run", ok=True)
        await told(daemon, job, "cid", "delivered")
        nobody = await daemon.get(f"/v2/job/{job}/explain/uid/nobody")
        other = await daemon.get(f"/v2/job/{job}/explain/uid/ann?audience=nope")

    assert "answered 200" in delivered["because"]
    assert "existing_users: true" in old["do"]
    assert "cohortd explain active uid never" in never["do"]
    assert "enters only" in unwanted["because"]
    assert "400" in omitted["because"]
    assert "redeliver" in omitted["do"]
    assert "resume" in paused["do"]
    assert "500" in error["because"]
    assert "sleeps" in error["because"]
    assert (404, 404) == (nobody.status, other.status)
    assert "active" in other.body["message"]


async def test_what_retention_gave_up_and_what_is_not_kept_are_told_apart(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann")
        await told(daemon, job, "ann", "delivered")
        state = daemon.daemon.services.state
        await state.write(lambda db: db.execute("DELETE FROM delivery_message").rowcount)
        done = await told(daemon, job, "ann", "done")
        cursor = next(iter(daemon.daemon.services.bus._cursors.values()))
        cursor.skipped = 3
        given_up = await told(daemon, job, "ann", "given_up")

    assert "not kept any more" in done["because"]
    assert "dead_cursor_days" in given_up["because"]
    assert "redeliver" in given_up["do"]


async def test_the_command_line_tells_it_in_words(tmp_path, start_cohortd, open_receiver):
    async with open_receiver() as receiver, start_cohortd(tmp_path) as cohortd:
        await define(cohortd.client)
        job = await webhook(cohortd.client, receiver.address)
        await visit(cohortd.client, "ann")
        await told(cohortd.client, job, "ann", "delivered")
        command = [str(Path(sys.executable).parent / "cohortd"), "explain", "delivery", job, "uid", "ann", "active"]
        done = await asyncio.to_thread(
            subprocess.run, [*command, "--data-dir", str(tmp_path)], capture_output=True, text=True, check=False
        )

    assert 0 == done.returncode, done.stderr
    assert "active: delivered" in done.stdout
    assert "what to do:" in done.stdout
