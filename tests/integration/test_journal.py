"""What a job did is written down: each attempt with its messages, activity, runs; and can be done again (P8)."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

import orjson
import pytest

from daemon import clock
from daemon.jobs import journal as journals
from daemon.store import deliveries
from daemon.store import journal as stored

QUERY = "SELECT uid, email, visits AS visits KIND int FROM default INTO user BY uid ALIAS q"
QUICK = {"retry_s": 0.2, "back_off_s": 0.2, "request_timeout_s": 2.0}


async def define(daemon) -> None:
    await daemon.call("POST", "/api/query", data=QUERY, ok=True)
    await daemon.call("POST", "/api/segment", data="FILTER visits > 0 ALIAS active", ok=True)
    await daemon.call("POST", "/api/segment", data="FILTER visits > 10 ALIAS eager", ok=True)


async def webhook(daemon, url: str, **config) -> str:
    body = {"config": {"audiences": ["active"], "url": url} | config}
    return (await daemon.post("/v2/job/webhook_triggers", body, ok=True)).data["id"]


async def visit(daemon, *uids: str, visits: int = 1) -> None:
    rows = [{"uid": uid, "visits": visits, "email": f"{uid}@example.com"} for uid in uids]
    await daemon.post("/collect/json/default", rows, ok=True)


async def delivered(daemon, job: str, count: int = 1, **query: str) -> list[dict[str, Any]]:
    """Waits until so many attempts are written down."""
    parameters = "&".join(f"{name}={value}" for name, value in query.items())
    async with asyncio.timeout(20):
        while len(found := (await daemon.get(f"/v2/job/{job}/deliveries?{parameters}", ok=True)).data) < count:
            await asyncio.sleep(0.01)
    return found


async def test_a_delivery_says_when_to_whom_how_large_and_what_was_answered(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann")
        (found,) = await delivered(daemon, job)

    (message,) = receiver.messages
    assert ("delivered", 1, "127.0.0.1", 200, 1) == (
        found["outcome"], found["attempt"], found["to"], found["status"], found["message_count"],
    )  # fmt: skip
    assert [message["id"]] == [each["id"] for each in found["messages"]]
    assert int(receiver.requests[0].headers["Content-Length"]) == found["bytes"]
    assert found["sample"] is None


async def test_failed_attempts_are_counted_up_until_one_succeeds(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK | {"retry_s": 10.0}) as daemon, open_receiver() as receiver:
        await define(daemon)
        receiver.status = 500
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann")
        await receiver.until(lambda it: len(it.requests) == 2)
        receiver.status = 200
        found = await delivered(daemon, job, 3)

    outcomes = [(each["outcome"], each["attempt"], each["status"]) for each in reversed(found)]
    assert [("failed", 1, 500), ("failed", 2, 500), ("delivered", 3, 200)] == outcomes
    assert "500" in found[-1]["answer"]


async def test_what_is_omitted_says_why(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        receiver.status = 400
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann")
        (found,) = await delivered(daemon, job, outcome="omitted")
        nothing = await daemon.get(f"/v2/job/{job}/deliveries?outcome=delivered", ok=True)

    assert ("omitted", 400) == (found["outcome"], found["status"])
    assert found["answer"].startswith("400")
    assert [] == nothing.data


async def test_activity_is_counted_per_hour_day_and_week(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann", "bob")
        await delivered(daemon, job, 2)
        told = {
            by: (await daemon.get(f"/v2/job/{job}/metrics?by={by}", ok=True)).data for by in ("hour", "day", "week")
        }

    assert [2, 2, 2] == [sum(each["added"] for each in data["activity"]) for data in told.values()]
    assert (2, 0) == (told["hour"]["added"], told["hour"]["failed"])
    assert clock.from_us(stored.start_of(clock.now_us(), "week")).weekday() == 0


async def test_pages_follow_each_other_without_gap_or_repeat(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address)
        await visit(daemon, *(f"p{number}" for number in range(7)))
        whole = await delivered(daemon, job, 7)
        ids, start = [], ""
        while True:
            page = await daemon.get(f"/v2/job/{job}/deliveries?limit=3&start={start}", ok=True)
            ids += [each["id"] for each in page.data]
            start = page.body.get("_next", "")
            if not start:
                break

    assert [each["id"] for each in whole] == ids


async def test_after_a_kill_what_the_cursor_passed_has_its_delivery(tmp_path, start_cohortd, open_receiver):
    async with open_receiver() as receiver, start_cohortd(tmp_path) as cohortd:
        await define(cohortd.client)
        job = await webhook(cohortd.client, receiver.address)
        for number in range(40):
            await visit(cohortd.client, f"p{number}")
        await receiver.until(lambda it: len(it.messages) >= 20)
        await cohortd.kill()
        with closing(sqlite3.connect(tmp_path / "state.db")) as db:
            (position,) = db.execute("SELECT position FROM subscription").fetchone()
            sent = {row[0] for row in db.execute("SELECT first_id FROM delivery_message")}
            passed = {row[0] for row in db.execute("SELECT id FROM trigger WHERE id <= ?", (position,))}

        await cohortd.start()
        found = await delivered(cohortd.client, job, 40)

    assert passed <= sent
    assert len({each["messages"][0]["id"] for each in found}) == 40


async def test_a_sample_is_kept_only_where_wanted_and_shows_no_value(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK, journal={"samples": True}) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann")
        (found,) = await delivered(daemon, job)

    assert "<text of 15>" == found["sample"]["data"]["email"]
    assert receiver.messages[0]["data"]["segment_events"] == found["sample"]["data"]["segment_events"]
    assert "ann" not in orjson.dumps(found["sample"]).decode()


# --- again


async def test_what_was_omitted_is_sent_again_as_the_profile_is_now(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        receiver.status = 400
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann")
        (omitted,) = await delivered(daemon, job, outcome="omitted")
        await visit(daemon, "ann", visits=5)
        receiver.status = 200
        asked = await daemon.post(f"/v2/job/{job}/redeliver", {"outcomes": ["omitted"]}, ok=True)
        await receiver.until(lambda it: len(it.messages) == 1)
        await delivered(daemon, job, 2)
        again = await daemon.post(f"/v2/job/{job}/redeliver", {"outcomes": ["omitted"]}, ok=True)

    assert (1, 0) == (asked.data["queued"], asked.data["superseded"])
    assert "present configuration" in asked.data["statement"]
    (message,) = receiver.messages
    assert (omitted["messages"][0]["id"], 5) == (message["id"], message["data"]["visits"])
    assert 0 == again.data["queued"], "what was delivered later is not omitted any more"


async def test_nothing_stale_is_sent_again_after_something_newer(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        receiver.status = 400
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann")
        await delivered(daemon, job, outcome="omitted")
        receiver.status = 200
        await visit(daemon, "ann", visits=0)  # she leaves
        await receiver.until(lambda it: it.events == [("active", "exit")])
        await delivered(daemon, job, 2)
        asked = await daemon.post(f"/v2/job/{job}/redeliver", {"outcomes": ["omitted"]}, ok=True)
        everything = await daemon.post(f"/v2/job/{job}/redeliver", {"first_trigger": 1}, ok=True)
        await receiver.until(lambda it: len(it.messages) == 2)

    assert (0, 1) == (asked.data["queued"], asked.data["superseded"])
    assert (1, 1) == (everything.data["queued"], everything.data["superseded"])
    assert [("active", "exit"), ("active", "exit")] == receiver.events


async def test_one_delivery_is_sent_again_after_a_pause_and_a_restart(tmp_path, start_cohortd, open_receiver):
    async with open_receiver() as receiver, start_cohortd(tmp_path) as cohortd:
        await define(cohortd.client)
        job = await webhook(cohortd.client, receiver.address)
        await visit(cohortd.client, "ann", "bob")
        found = await delivered(cohortd.client, job, 2)
        await cohortd.client.post(f"/v2/job/{job}/pause", ok=True)
        one = {"deliveries": [found[0]["id"]]}
        asked = await cohortd.client.post(f"/v2/job/{job}/redeliver", one, ok=True)
        repeated = await cohortd.client.post(f"/v2/job/{job}/redeliver", one, ok=True)
        await cohortd.kill()
        await cohortd.start()
        await cohortd.client.post(f"/v2/job/{job}/resume", ok=True)
        await receiver.until(lambda it: len(it.messages) == 3)
        newest = (await delivered(cohortd.client, job, 3))[0]
        left = (await cohortd.client.post(f"/v2/job/{job}/redeliver", one | {"dryrun": True}, ok=True)).data

    assert (1, 0, 0, 1) == (
        asked.data["queued"], asked.data["repeated"], repeated.data["queued"], repeated.data["repeated"],
    )  # fmt: skip
    assert "resumed" in asked.data["statement"]
    assert receiver.messages[-1]["id"] == found[0]["messages"][0]["id"]
    assert 1 == newest["again"]
    assert 1 == left["queued"], "it was sent, so it can be asked for anew"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"deliveries": [1], "outcomes": ["failed"]},
        {"last_trigger": 3},
        {"outcomes": ["lost"]},
        {"first_trigger": 0},
    ],
)
async def test_a_request_that_names_nothing_or_two_things_is_refused(tmp_path, open_daemon, open_receiver, body):
    async with open_daemon(tmp_path) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address)
        answer = await daemon.post(f"/v2/job/{job}/redeliver", body)

    assert 422 == answer.status


async def test_while_the_disk_is_full_deliveries_go_on_and_what_waits_is_bounded(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address)
        journal = daemon.daemon.services.journal
        before, stored.add_lines = stored.add_lines, _full
        try:
            for number in range(journals.MOST_WAITING + 5):
                journal.job_event(job, None, "info", "JOB-NOTE-040", f"line {number}")
            await visit(daemon, "ann")
            await receiver.until(lambda it: len(it.messages) == 1)
            await delivered(daemon, job)
            waiting = len(journal._lines)
        finally:
            stored.add_lines = before
        logs = (await daemon.get(f"/v2/job/{job}/logs?limit=5", ok=True)).data

    assert waiting <= journals.MOST_WAITING
    assert f"line {journals.MOST_WAITING + 4}" in [each["message"] for each in logs]


def _full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_what_is_too_old_or_too_much_goes_in_pages(tmp_path, open_daemon, open_receiver, monkeypatch):
    monkeypatch.setattr(journals, "CHUNK", 3)
    kept = {"deliveries": 1000, "logs": 1000}
    async with open_daemon(tmp_path, jobs=QUICK, journal=kept) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address)
        await visit(daemon, *(f"p{number}" for number in range(10)))
        await delivered(daemon, job, 10)
        services = daemon.daemon.services
        old_us = clock.now_us() - 15 * 86_400_000_000
        await services.state.write(
            lambda db: db.execute("UPDATE delivery SET at_us = ? WHERE id <= 4", (old_us,)).rowcount
        )
        deleted = await services.journal.sweep()
        left = await services.state.read(
            lambda db: (
                db.execute("SELECT count(*), min(id) FROM delivery").fetchone(),
                db.execute("SELECT count(*), min(delivery) FROM delivery_message").fetchone(),
            )
        )
        many = await services.state.read(lambda db: deliveries.too_old(db, 0, 2))

    assert ((6, 5), (6, 5)) == left
    assert 8 == deleted
    assert 8 == many


async def logged(daemon, job: str, code: str) -> dict[str, Any]:
    """Waits for a line of the job's log with that code."""
    async with asyncio.timeout(20):
        while True:
            for line in (await daemon.get(f"/v2/job/{job}/logs", ok=True)).data:
                if line["code"] == code:
                    return line
            await asyncio.sleep(0.02)


async def test_the_log_tells_a_jobs_life_with_codes(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        receiver.status = 401
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann")
        refused = await logged(daemon, job, "UNAUTHORIZED-017")
        fault = await logged(daemon, job, "JOB-FAULT-020")
        receiver.status = 200
        await logged(daemon, job, "JOB-RECOVERED-024")
        await daemon.post(f"/v2/job/{job}/pause", ok=True)
        await daemon.post(f"/v2/job/{job}/resume", ok=True)
        await daemon.post(f"/v2/job/{job}/complete", ok=True)
        lines = (await daemon.get(f"/v2/job/{job}/logs", ok=True)).data
        grave = (await daemon.get(f"/v2/job/{job}/logs?level=warning", ok=True)).data
        runs = (await daemon.get(f"/v2/job/{job}/runs", ok=True)).data

    told = [each["code"] for each in lines]
    assert told[-2:] == ["JOB-STARTED-002", "JOB-CREATED-001"]
    assert "JOB-COMPLETED-004" in told[:2]
    assert {"JOB-PAUSED-005", "JOB-RESUMED-006"} <= set(told)
    assert ("error", "warning") == (refused["level"], fault["level"])
    assert "sleeps until" in fault["message"]
    assert {"error", "warning"} >= {each["level"] for each in grave}
    assert "error" in {each["outcome"] for each in runs}
    assert 1 == sum(each["added"] for each in runs)
    assert all(each["ended"] for each in runs)


async def test_a_run_that_a_kill_cut_off_is_shown_as_interrupted(tmp_path, start_cohortd, open_receiver):
    async with open_receiver() as receiver, start_cohortd(tmp_path) as cohortd:
        await define(cohortd.client)
        job = await webhook(cohortd.client, receiver.address)
        await logged(cohortd.client, job, "JOB-STARTED-002")
        await cohortd.kill()
        await cohortd.start()
        async with asyncio.timeout(20):
            while len(runs := (await cohortd.client.get(f"/v2/job/{job}/runs", ok=True)).data) < 2:
                await asyncio.sleep(0.02)

    assert [None, "interrupted"] == [each["outcome"] for each in runs]


async def test_metrics_tell_of_jobs_runs_deliveries_and_authorizations(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, jobs=QUICK) as daemon, open_receiver() as receiver:
        await define(daemon)
        job = await webhook(daemon, receiver.address)
        await visit(daemon, "ann")
        await delivered(daemon, job)
        await daemon.post(f"/v2/job/{job}/pause", ok=True)
        lines = (await daemon.get("/metrics", ok=True)).content.decode().splitlines()

    assert 'cohortd_jobs{state="paused"} 1.0' in lines
    assert 'cohortd_authorizations{status="unhealthy"} 0.0' in lines
    names = {each.split(" ")[0] for each in lines}
    assert {'cohortd_deliveries_total{outcome="delivered"}', "cohortd_api_requests_total"} <= names
    assert 'cohortd_job_runs_total{outcome="cancelled"}' in names
    assert not [each for each in lines if "ann@" in each]
