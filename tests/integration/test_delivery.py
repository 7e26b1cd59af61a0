"""P4 and P5 through the whole daemon: events in, requests out, to receivers of every kind; and files."""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from connectors.sdk.secret import Secret
from connectors.webhook import _signature, _signers

RECEIVER = Path(__file__).parents[1] / "peers" / "receiver.py"
QUERY = "SELECT uid, visits AS visits KIND int FROM default INTO user BY uid ALIAS q"
AUDIENCES = ("FILTER visits > 0 ALIAS active", "FILTER visits > 10 ALIAS eager")
#: Short, so that a test sees a job sleep and wake.
QUICK = {"retry_s": 0.3, "back_off_s": 0.3, "request_timeout_s": 1.0, "stop_s": 2.0}


class Receiver:
    def __init__(self, process, address: str, session) -> None:
        self.process, self.address, self.session = process, address, session

    def url(self, path: str) -> str:
        return self.address + path

    async def seen(self, path: str) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.address}/seen", params={"path": path}) as response:
            return await response.json()

    async def events(self, path: str) -> list[tuple[str, str, str]]:
        """(uid, slug, event) of all that came to `path`, in order."""
        return [
            (message["data"].get("uid", ""), each["slug"], each["event"])
            for request in await self.seen(path)
            for message in messages_of(request)
            for each in message["data"]["segment_events"]
        ]

    async def until(self, path: str, count: int, seconds: float = 20) -> list[tuple[str, str, str]]:
        async with asyncio.timeout(seconds):
            while len(found := await self.events(path)) < count:
                await asyncio.sleep(0.01)
        return found


def messages_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    content = orjson.loads(base64.b64decode(request["body"]))
    return content if isinstance(content, list) else [content]


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    process = await asyncio.create_subprocess_exec(sys.executable, str(RECEIVER), stdout=asyncio.subprocess.PIPE)
    try:
        port = int(await process.stdout.readline())
        async with aiohttp.ClientSession() as session:
            yield Receiver(process, f"http://127.0.0.1:{port}", session)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        await process.wait()


async def define(daemon) -> None:
    await daemon.call("POST", "/api/query", data=QUERY, ok=True)
    for text in AUDIENCES:
        await daemon.call("POST", "/api/segment", data=text, ok=True)


async def webhook(daemon, url: str, **config) -> str:
    body = {"label": url, "config": {"audiences": ["active"], "url": url} | config}
    return (await daemon.post("/v2/job/webhook_triggers", body, ok=True)).data["id"]


async def visit(daemon, *uids: str, visits: int = 1) -> None:
    await daemon.post("/collect/json/default", [{"uid": uid, "visits": visits} for uid in uids], ok=True)


async def state(daemon, job: str, *wanted: str, seconds: float = 20) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while (found := (await daemon.get(f"/v2/job/{job}", ok=True)).data)["state"] not in wanted:
            await asyncio.sleep(0.01)
    return found


async def metrics(daemon, job: str, **wanted: int) -> dict[str, int]:
    async with asyncio.timeout(20):
        while not wanted.items() <= (found := (await daemon.get(f"/v2/job/{job}/metrics", ok=True)).data).items():
            await asyncio.sleep(0.01)
    return found


async def settled(daemon) -> None:
    """Waits until all that was accepted is taken in and delivered."""
    async with asyncio.timeout(30):
        while any((await daemon.get("/v2/status", ok=True)).data["lag"].values()):
            await asyncio.sleep(0.02)
        while any(each["lag_triggers"] for each in (await daemon.get("/v2/subscription", ok=True)).data):
            await asyncio.sleep(0.02)


async def test_a_trigger_reaches_its_receiver_as_documented(tmp_path, open_daemon, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    monkeypatch.setenv("HOOK_TOKEN", "Bearer hush")
    async with receiver() as there, open_daemon(tmp_path) as daemon:
        await define(daemon)
        job = await webhook(
            daemon,
            there.url("/ok"),
            headers={"Authorization": "env:HOOK_TOKEN", "X-Env": "test"},
            signature_secret="env:HOOK_SECRET",
        )
        await visit(daemon, "ann")
        await there.until("/ok", 1)
        [request] = await there.seen("/ok")
        subscription = (await daemon.get(f"/v2/job/{job}")).data["subscription_id"]
        audience = (await daemon.get("/api/segment/active")).data["id"]

    body, headers = base64.b64decode(request["body"]), request["headers"]
    message = orjson.loads(body)
    [event] = message["data"]["segment_events"]
    assert {"id", "data", "meta"} == message.keys()
    assert (message["data"]["uid"], message["data"]["visits"]) == ("ann", 1)
    assert {
        "id": audience,
        "slug": "active",
        "event": "enter",
        "enter": event["enter"],
        "exit": "2099-12-31T23:59:59Z",
        "trigger_id": message["id"],
    } == event
    assert {"object": "user", "subscription_id": subscription, "timestamp": message["meta"]["timestamp"]} == message[
        "meta"
    ]
    assert ("application/json", str(len(body))) == (headers["content-type"], headers["content-length"])
    assert (headers["authorization"], headers["x-env"]) == ("Bearer hush", "test")
    assert message["id"] == headers["webhook-id"]
    signed = _signature(
        _signers(Secret(os.environ["HOOK_SECRET"])), message["id"], int(headers["webhook-timestamp"]), body
    )
    assert signed["webhook-signature"] == headers["webhook-signature"]


async def test_no_secret_is_stored_shown_or_logged(tmp_path, start_cohortd):
    environment = {"HOOK_TOKEN": "hush-4711-hush", "COHORTD_JOBS_RETRY_S": "0.2", "COHORTD_LOG_LEVEL": "debug"}
    async with receiver() as there, start_cohortd(tmp_path, environment=environment) as cohortd:
        daemon = cohortd.client
        await define(daemon)
        job = await webhook(daemon, there.url("/status/500"), headers={"X-Token": "env:HOOK_TOKEN"})
        await visit(daemon, "ann")
        shown = await state(daemon, job, "sleeping")
        said = orjson.dumps(cohortd.log)
        await cohortd.stop()
    files = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())

    assert "hush" not in orjson.dumps(shown).decode()
    assert "500" in shown["reason"]
    assert "********" in shown["reason"]  # the receiver repeats the header in its answer
    assert b"hush" not in said
    assert b"hush" not in files


@pytest.mark.parametrize(("size", "counts"), [(1, [1] * 5), (3, [3, 2])])
async def test_batches_are_arrays_unless_their_size_is_one(tmp_path, open_daemon, size, counts):
    async with receiver() as there, open_daemon(tmp_path) as daemon:
        await define(daemon)
        await webhook(daemon, there.url("/ok"), batch_size=size, flush_seconds=0.2, concurrency=1)
        await visit(daemon, *"abcde")
        await there.until("/ok", 5)
        requests = await there.seen("/ok")

    contents = [orjson.loads(base64.b64decode(each["body"])) for each in requests]
    assert counts == [len(each) if isinstance(each, list) else 1 for each in contents]
    assert all(isinstance(each, list) for each in contents) == (size > 1)


async def test_metrics_say_what_was_delivered_and_how_far_a_job_is_behind(tmp_path, open_daemon):
    async with receiver() as there, open_daemon(tmp_path) as daemon:
        await define(daemon)
        job = await webhook(daemon, there.url("/ok"))
        await visit(daemon, "ann", "bob")
        await metrics(daemon, job, added=2)
        shown = (await daemon.get("/metrics")).content.decode()
        await daemon.delete(f"/v2/job/{job}")
        after = (await daemon.get("/metrics")).content.decode()

    assert f'cohortd_triggers_total{{job="{job}",outcome="delivered"}} 2.0' in shown
    assert f'cohortd_subscription_behind_triggers{{job="{job}"}} 0.0' in shown
    assert job not in after


async def test_only_the_fields_that_are_asked_for_are_sent(tmp_path, open_daemon):
    async with receiver() as there, open_daemon(tmp_path) as daemon:
        await define(daemon)
        await webhook(daemon, there.url("/ok"), user_fields=["visits"])
        await visit(daemon, "ann")
        async with asyncio.timeout(10):
            while not (found := await there.seen("/ok")):
                await asyncio.sleep(0.01)

    assert {"visits", "segment_events"} == messages_of(found[0])[0]["data"].keys()


async def test_members_who_are_there_already_are_sent_when_asked_for(tmp_path, open_daemon):
    async with receiver() as there, open_daemon(tmp_path) as daemon:
        await define(daemon)
        await visit(daemon, "ann", "bob")
        await daemon.daemon.services.pipeline.drain()
        await webhook(daemon, there.url("/ok/new"))
        await webhook(daemon, there.url("/ok/all"), existing_users=True)
        await visit(daemon, "cid")
        everybody = await there.until("/ok/all", 3)
        new = await there.until("/ok/new", 1)

    assert {("ann", "active", "enter"), ("bob", "active", "enter"), ("cid", "active", "enter")} == set(everybody)
    assert new == [("cid", "active", "enter")]


async def test_what_must_not_be_sent_again_is_omitted_and_the_rest_goes_on(tmp_path, open_daemon):
    async with receiver() as there, open_daemon(tmp_path, jobs=QUICK) as daemon:
        await define(daemon)
        jobs = {
            code: await webhook(daemon, there.url(f"/status/{code}?times=1"), concurrency=1)
            for code in (400, 404, 410, 413)
        }
        await visit(daemon, "ann", "bob", "cid")
        found = {code: await metrics(daemon, job, added=2, omitted=1) for code, job in jobs.items()}
        events = {code: await there.events(f"/status/{code}") for code in jobs}
        running = [await state(daemon, job, "running") for job in jobs.values()]

    assert all(each["failed"] == 0 for each in found.values())
    assert all(len(each) == 3 for each in events.values())
    assert all(each["errors"] == 0 for each in running)


async def test_what_failed_is_tried_again_inside_the_run_then_after_a_sleep(tmp_path, open_daemon):
    async with receiver() as there, open_daemon(tmp_path, jobs=QUICK) as daemon:
        await define(daemon)
        within = await webhook(daemon, there.url("/status/500?times=1"))
        after = await webhook(daemon, there.url("/reset?times=4"))
        await visit(daemon, "ann")
        counts = await metrics(daemon, within, added=1)
        slept = await state(daemon, after, "sleeping")
        await metrics(daemon, after, added=1)
        running = await state(daemon, after, "running")
        async with asyncio.timeout(5):
            while (await daemon.get(f"/v2/job/{after}")).data["errors"]:
                await asyncio.sleep(0.01)

    assert counts["failed"] == 1
    assert (slept["sleep_cause"], slept["errors"]) == ("error", 1)
    assert "no answer" in slept["reason"]
    assert slept["sleep_until"] is not None
    assert running["sleep_until"] is None


async def test_retry_after_is_honoured_and_no_error(tmp_path, open_daemon):
    async with receiver() as there, open_daemon(tmp_path, jobs=QUICK) as daemon:
        await define(daemon)
        soon = await webhook(daemon, there.url("/status/429?times=1&retry_after=1"))
        late = await webhook(daemon, there.url("/status/503?retry_after=86400"))
        await visit(daemon, "ann")
        sleeping = await state(daemon, late, "sleeping")
        await metrics(daemon, soon, added=1)
        first, second = await there.seen("/status/429")

    assert (sleeping["sleep_cause"], sleeping["errors"]) == ("retry_after", 0)
    assert second["at"] - first["at"] >= 0.95


async def test_a_redirect_is_not_followed_and_refused_credentials_are_an_error(tmp_path, open_daemon):
    async with receiver() as there, open_daemon(tmp_path, jobs=QUICK) as daemon:
        await define(daemon)
        redirected = await webhook(daemon, there.url("/redirect"))
        refused = await webhook(daemon, there.url("/status/401"))
        await visit(daemon, "ann")
        reasons = [(await state(daemon, job, "sleeping"))["reason"] for job in (redirected, refused)]
        followed = await there.events("/ok")

    assert "redirects are not followed" in reasons[0]
    assert "credentials" in reasons[1]
    assert followed == []


@pytest.mark.parametrize(
    ("url", "settings", "says"),
    [
        ("http://127.0.0.1:9/", {"allow_loopback": False}, "allow_loopback"),
        ("http://localhost:9/", {"allow_loopback": False}, "allow_loopback"),
        ("http://169.254.169.254/latest/meta-data", {}, "allow_private"),
        ("http://10.0.0.7/", {}, "allow_private"),
        ("http://[fd00::7]/", {}, "allow_private"),
        ("http://0.0.0.0:9/", {}, "no address of a host"),
    ],
)
async def test_addresses_that_are_not_allowed_fail_the_job_with_what_to_change(
    tmp_path, open_daemon, url, settings, says
):
    async with open_daemon(tmp_path, jobs=QUICK | settings) as daemon:
        await define(daemon)
        job = await webhook(daemon, url)
        await visit(daemon, "ann")
        failed = await state(daemon, job, "failed")

    assert says in failed["reason"]


async def test_a_missing_secret_fails_the_job_at_once_and_resume_brings_it_back(tmp_path, open_daemon, monkeypatch):
    async with receiver() as there, open_daemon(tmp_path) as daemon:
        await define(daemon)
        job = await webhook(daemon, there.url("/ok"), signature_secret="env:NOT_YET")
        failed = await state(daemon, job, "failed")
        await visit(daemon, "ann")
        monkeypatch.setenv("NOT_YET", "s3cret")
        await daemon.post(f"/v2/job/{job}/resume", ok=True)
        got = await there.until("/ok", 1)

    assert "NOT_YET" in failed["reason"]
    assert got == [("ann", "active", "enter")]


async def test_somebody_who_was_merged_into_another_leaves_with_his_last_fields(tmp_path, open_daemon):
    query = "SELECT uid, email, visits AS visits KIND int FROM default INTO user BY uid OR email ALIAS q"
    async with receiver() as there, open_daemon(tmp_path) as daemon:
        await define(daemon)
        await daemon.call("POST", "/api/query", data=query, ok=True)
        await webhook(daemon, there.url("/ok"))
        for event in ({"uid": "ann", "visits": 1}, {"email": "a@x", "visits": 2}, {"uid": "ann", "email": "a@x"}):
            await daemon.post("/collect/json/default", event, ok=True)
            await daemon.daemon.services.pipeline.drain()
        await there.until("/ok", 3)
        messages = [message for request in await there.seen("/ok") for message in messages_of(request)]

    leaving = next(each["data"] for each in messages if each["data"]["segment_events"][0]["event"] == "exit")
    staying = next(each["data"] for each in messages if each["data"].get("uid") == "ann")
    assert (leaving["email"], leaving["visits"]) == ("a@x", 2)
    assert leaving["segment_events"][0]["merged_into"] == staying["_id"]
    assert len(messages) == 3


async def test_an_audience_that_a_job_uses_cannot_be_deleted(tmp_path, open_daemon):
    async with receiver() as there, open_daemon(tmp_path) as daemon:
        await define(daemon)
        job = await webhook(daemon, there.url("/ok"))
        held = await daemon.delete("/api/segment/active")
        await daemon.post(f"/v2/job/{job}/complete", ok=True)
        free = await daemon.delete("/api/segment/active")

    assert (held.status, free.status) == (409, 200)


# --- P5


async def test_a_destination_that_hangs_fails_floods_or_dawdles_holds_nobody_up(tmp_path, open_daemon):
    people = [f"u{number}" for number in range(300)]
    async with (
        receiver() as good,
        receiver() as bad,
        receiver() as stopped,
        open_daemon(tmp_path, jobs=QUICK) as daemon,
    ):
        await define(daemon)
        ways = ("/status/500", "/reset", "/slow/5", "/big?status=500", "/trickle", "/big")
        hostile = [await webhook(daemon, bad.url(way)) for way in ways]
        hanging = await webhook(daemon, stopped.url("/ok"))
        fine = await webhook(daemon, good.url("/ok"))
        stopped.process.send_signal(signal.SIGSTOP)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        loop = asyncio.get_running_loop()
        slowest = 0.0
        for start in range(0, len(people), 20):
            began = loop.time()
            await visit(daemon, *people[start : start + 20])
            slowest = max(slowest, loop.time() - began)
        got = await good.until("/ok", len(people), seconds=20)
        asleep = [await state(daemon, job, "sleeping", "running") for job in (*hostile, hanging)]
        failing = await state(daemon, hanging, "sleeping")
        began = loop.time()
        for job in (*hostile, hanging):
            await daemon.post(f"/v2/job/{job}/pause", ok=True)
        pausing = loop.time() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        counts = (await daemon.get(f"/v2/job/{fine}/metrics")).data
        stopped.process.send_signal(signal.SIGCONT)
        await daemon.post(f"/v2/job/{hanging}/resume", ok=True)
        async with asyncio.timeout(20):  # what timed out while it was stopped comes twice
            while len(late := {each[0] for each in await stopped.events("/ok")}) < len(people):
                await asyncio.sleep(0.01)
        began = loop.time()
    closing = loop.time() - began

    assert {("active", "enter")} == {each[1:] for each in got}
    assert set(people) == {each[0] for each in got}
    assert len(people) == len(got) == counts["added"]
    assert slowest < 1
    assert len(asleep) == len(ways) + 1
    assert "took longer than 1 s" in failing["reason"]
    assert pausing < 5
    assert closing < 5
    assert grown < 60_000  # KiB
    assert set(people) == late


async def test_an_answer_of_50_mb_counts_as_delivered_once_its_status_is_there(tmp_path, open_daemon):
    async with receiver() as there, open_daemon(tmp_path, jobs=QUICK) as daemon:
        await define(daemon)
        big = await webhook(daemon, there.url("/big"), concurrency=1)
        trickle = await webhook(daemon, there.url("/trickle"), concurrency=1)
        await visit(daemon, "ann", "bob")
        counts = [await metrics(daemon, job, added=2) for job in (big, trickle)]

    assert [each["failed"] for each in counts] == [0, 0]


# --- P4, with kills


async def test_every_trigger_arrives_at_least_once_and_in_order_whatever_restarts_there_are(tmp_path, start_cohortd):
    people = [f"u{number}" for number in range(25)]
    async with receiver() as there, start_cohortd(tmp_path) as cohortd:
        await define(cohortd.client)
        await webhook(cohortd.client, there.url("/ok"), audiences=["active", "eager"])
        await webhook(
            cohortd.client, there.url("/slow/0.01"), audiences=["active", "eager"], batch_size=7, flush_seconds=0.05
        )
        for turn in range(8):
            for visits in (11, 0, 5):
                await visit(cohortd.client, *people, visits=visits)
            if turn % 2:
                await cohortd.kill()
            else:
                await cohortd.stop()
            await cohortd.start()
        await settled(cohortd.client)
        sizes = {each["slug"]: each["size"] for each in (await cohortd.client.get("/api/segment")).data}
        requests = {path: await there.seen(path) for path in ("/ok", "/slow/0.01")}

    delivered = {path: _first_deliveries(found) for path, found in requests.items()}
    assert delivered["/ok"].keys() == delivered["/slow/0.01"].keys()
    for found in delivered.values():
        seen: dict[tuple[str, str], tuple[int, str]] = {}
        for number, (uid, slug, event) in found.items():
            before = seen.get((uid, slug), (0, "exit"))
            assert (before[0] < number, before[1]) == (True, "exit" if event == "enter" else "enter")
            seen[uid, slug] = (number, event)
        for slug in ("active", "eager"):
            members = {uid for (uid, each), (_, event) in seen.items() if each == slug and event == "enter"}
            assert sizes[slug] == len(members)


def _first_deliveries(requests: list[dict[str, Any]]) -> dict[int, tuple[str, str, str]]:
    """By trigger id in the order of their first coming."""
    found: dict[int, tuple[str, str, str]] = {}
    for request in requests:
        for message in messages_of(request):
            for each in message["data"]["segment_events"]:
                found.setdefault(int(each["trigger_id"]), (message["data"]["uid"], each["slug"], each["event"]))
    return found


# --- files


def lines(folder: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for path in sorted(folder.glob("*.ndjson")) for line in path.read_bytes().splitlines()]


async def test_triggers_are_written_to_files_that_appear_whole(tmp_path, open_daemon):
    async with open_daemon(tmp_path / "data") as daemon:
        await define(daemon)
        config = {"audiences": ["active"], "folder": "hooks", "rotate_seconds": 0.2, "prefix": "vip"}
        job = (await daemon.post("/v2/job/files_export_triggers", {"config": config}, ok=True)).data["id"]
        await visit(daemon, "ann", "bob")
        counts = await metrics(daemon, job, added=2)
        folder = tmp_path / "data" / "exports" / "hooks"
        written = lines(folder)
        await visit(daemon, "cid")
        await metrics(daemon, job, added=3)
    names = sorted(each.name for each in folder.iterdir())

    assert sorted(each["data"]["uid"] for each in written) == ["ann", "bob"]
    assert counts["failed"] == 0
    assert len(lines(folder)) == 3
    assert len(names) == 2
    assert all(each.startswith(f"vip-{job}-") and each.endswith(".ndjson") for each in names)


async def test_a_file_is_complete_at_its_size_and_what_is_open_when_stopping_is_finished(tmp_path, open_daemon):
    folder = tmp_path / "out"
    async with open_daemon(tmp_path / "data") as daemon:
        await define(daemon)
        config = {"audiences": ["active"], "folder": str(folder), "rotate_bytes": 1}
        whole = {"audiences": ["active"], "folder": str(folder / "last"), "rotate_seconds": 3600}
        first = (await daemon.post("/v2/job/files_export_triggers", {"config": config}, ok=True)).data["id"]
        await daemon.post("/v2/job/files_export_triggers", {"config": whole}, ok=True)
        await visit(daemon, "ann")
        await metrics(daemon, first, added=1)
        await visit(daemon, "bob")
        await metrics(daemon, first, added=2)
        async with asyncio.timeout(10):
            while not any(path.stat().st_size > 100 or True for path in (folder / "last").glob(".*.part")):
                await asyncio.sleep(0.01)

    assert len(list(folder.glob("*.ndjson"))) == 2
    assert len(lines(folder / "last")) == 2
    assert list(folder.rglob(".*")) == []


async def test_after_a_kill_nothing_is_missing_from_the_files_and_nothing_doubled(tmp_path, start_cohortd):
    folder = tmp_path / "out"
    people = [f"u{number}" for number in range(40)]
    async with start_cohortd(tmp_path / "data") as cohortd:
        await define(cohortd.client)
        config = {"audiences": ["active"], "folder": str(folder), "rotate_seconds": 0.1}
        job = (await cohortd.client.post("/v2/job/files_export_triggers", {"config": config}, ok=True)).data["id"]
        for turn in range(5):
            await visit(cohortd.client, *people, visits=(turn + 1) % 2)
            async with asyncio.timeout(10):  # all are in, or all are out; their messages may be anywhere
                while (await cohortd.client.get("/api/segment/active")).data["size"] != 40 * ((turn + 1) % 2):
                    await asyncio.sleep(0.01)
            await cohortd.kill()
            await cohortd.start()
        await settled(cohortd.client)
        await cohortd.stop()
    ids = [each["trigger_id"] for line in lines(folder) for each in line["data"]["segment_events"]]

    assert job
    assert len(set(ids)) == 200
    assert len(ids) == len(set(ids))


async def test_a_folder_that_cannot_be_written_fails_the_job_with_its_name(tmp_path, open_daemon):
    (tmp_path / "file").write_text("")
    async with open_daemon(tmp_path / "data") as daemon:
        await define(daemon)
        config = {"audiences": ["active"], "folder": str(tmp_path / "file")}
        job = (await daemon.post("/v2/job/files_export_triggers", {"config": config}, ok=True)).data["id"]
        failed = await state(daemon, job, "failed")

    assert str(tmp_path / "file") in failed["reason"]


# --- the API


async def test_the_api_says_what_it_refuses_and_where(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as daemon:
        await define(daemon)
        none = await daemon.post("/v2/job/pigeon_post", {"config": {}})
        bad = await daemon.post(
            "/v2/job/webhook_triggers", {"config": {"audiences": ["active"], "url": "ftp://x", "batch_size": 0}}
        )
        unknown = await daemon.post(
            "/v2/job/webhook_triggers", {"config": {"audiences": ["active", "nobody"], "url": "http://x/"}}
        )
        scheduled = await daemon.post(
            "/v2/job/webhook_triggers",
            {"config": {"audiences": ["active"], "url": "http://x/"}, "schedule": {"frequency": "daily"}},
        )
        array = await daemon.post("/v2/job/webhook_triggers", ["no"])
        missing = [
            await daemon.get(path)
            for path in ("/v2/job/none", "/v2/job/none/metrics", "/v2/subscription/none", "/v2/provider/none")
        ]
        job = (
            await daemon.post(
                "/v2/job/webhook_triggers", {"config": {"audiences": ["active"], "url": "http://127.0.0.1:9/"}}, ok=True
            )
        ).data
        renamed = await daemon.call("PATCH", f"/v2/job/{job['id']}", json={"label": "new"})
        await daemon.post(f"/v2/job/{job['id']}/complete", ok=True)
        conflict = await daemon.post(f"/v2/job/{job['id']}/pause")
        provider = await daemon.get("/v2/provider/webhook")
        listed = await daemon.get("/v2/job?state=completed")
        deleted = await daemon.delete(f"/v2/job/{job['id']}")

    assert none.status == 404
    assert bad.status == 422
    assert [each["loc"] for each in bad.errors] == [["config", "url"], ["config", "batch_size"]]
    assert [each["loc"] for each in unknown.errors] == [["config", "audiences", 1]]
    assert [unknown.status, scheduled.status, array.status] == [422, 422, 400]
    assert [each.status for each in missing] == [404] * 4
    assert (renamed.data["label"], job["state"]) == ("new", "running")
    assert conflict.status == 409
    assert "completed" in conflict.message
    assert "url" in provider.data["job_types"][0]["schema"]["properties"]
    assert [job["id"]] == [each["id"] for each in listed.data]
    assert deleted.status == 200
