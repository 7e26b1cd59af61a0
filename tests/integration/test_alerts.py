"""Alerts: jobs that tell of what happens to other jobs; and the dry run of a job that sends."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

QUERY = "SELECT uid, email, visits AS visits KIND int FROM default INTO user BY uid ALIAS q"
SOON = {"store_s": 0.02}


async def define(daemon) -> None:
    await daemon.call("POST", "/api/query", data=QUERY, ok=True)
    await daemon.call("POST", "/api/segment", data="FILTER visits > 0 ALIAS active", ok=True)


async def job(daemon, job_type: str, **config) -> str:
    return (await daemon.post(f"/v2/job/{job_type}", {"config": config}, ok=True)).data["id"]


class Pager:
    """Takes alerts; `status` is its answer."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.status = 200
        self.grown = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        content = orjson.loads(await request.read())
        if self.status < 300:
            self.alerts.append(content)
        self.grown.set()
        return web.Response(status=self.status)

    async def until(self, *verbs: str) -> list[str]:
        async with asyncio.timeout(20):
            while len(self.alerts) < len(verbs):
                self.grown.clear()
                await self.grown.wait()
        return [each["verb"] for each in self.alerts]

    async def __aenter__(self):
        self.runner = web.ServerRunner(web.Server(self.answer), shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{self.runner.addresses[0][1]}/alerts"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


async def test_an_alert_tells_of_the_events_that_were_chosen_and_never_of_itself(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path, journal=SOON) as daemon, open_receiver() as receiver, Pager() as pager:
        await define(daemon)
        alerts = await job(daemon, "webhook_system_events", url=pager.address, verbs=["paused", "deleted"])
        other = await job(daemon, "webhook_triggers", audiences=["active"], url=receiver.address)
        async with asyncio.timeout(20):
            while (await daemon.get(f"/v2/job/{alerts}/runs", ok=True)).data == []:
                await asyncio.sleep(0.01)
        await daemon.post(f"/v2/job/{other}/pause", ok=True)
        await pager.until("paused")
        await daemon.post(f"/v2/job/{alerts}/pause", ok=True)
        await daemon.delete(f"/v2/job/{other}", ok=True)
        await daemon.post(f"/v2/job/{alerts}/resume", ok=True)
        verbs = await pager.until("paused", "deleted")
        async with asyncio.timeout(20):
            while len(told := (await daemon.get(f"/v2/job/{alerts}/deliveries", ok=True)).data) < 2:
                await asyncio.sleep(0.01)

    assert ["paused", "deleted"] == verbs, "what happened while it was paused comes when it is resumed"
    assert [other, other] == [each["subject_id"] for each in pager.alerts]
    assert ("job_paused", "JOB-PAUSED-005") == (pager.alerts[0]["event"], pager.alerts[0]["code"])
    assert [200, 200] == [each["status"] for each in told]


async def test_alerts_go_on_after_a_kill_and_miss_nothing(tmp_path, start_cohortd, open_receiver):
    environment = {"COHORTD_JOURNAL_STORE_S": "0.02", "COHORTD_JOBS_BACK_OFF_S": "0.2", "COHORTD_JOBS_RETRY_S": "0.1"}
    async with (
        open_receiver() as receiver,
        Pager() as pager,
        start_cohortd(tmp_path, environment=environment) as cohortd,
    ):
        await define(cohortd.client)
        await job(cohortd.client, "webhook_system_events", url=pager.address, verbs=["paused", "resumed"])
        other = await job(cohortd.client, "webhook_triggers", audiences=["active"], url=receiver.address)
        await cohortd.logged("run_started", job_type="webhook_system_events")
        await cohortd.client.post(f"/v2/job/{other}/pause", ok=True)
        await pager.until("paused")
        pager.status = 500
        await cohortd.client.post(f"/v2/job/{other}/resume", ok=True)
        await cohortd.logged("run_failed", job_type="webhook_system_events")
        await cohortd.kill()
        pager.status = 200
        await cohortd.start()
        await cohortd.client.post(f"/v2/job/{other}/pause", ok=True)
        async with asyncio.timeout(20):
            while [each["verb"] for each in pager.alerts][-1:] != ["paused"] or len(pager.alerts) < 3:
                pager.grown.clear()
                await pager.grown.wait()

    assert {"paused", "resumed"} == {each["verb"] for each in pager.alerts}
    assert 3 == len({each["id"] for each in pager.alerts})


async def test_alerts_in_the_log(tmp_path, start_cohortd, open_receiver):
    async with open_receiver() as receiver, start_cohortd(tmp_path) as cohortd:
        await define(cohortd.client)
        await job(cohortd.client, "log_system_events", verbs=["paused"])
        other = await job(cohortd.client, "webhook_triggers", audiences=["active"], url=receiver.address)
        await cohortd.logged("run_started", job_type="log_system_events")
        await cohortd.client.post(f"/v2/job/{other}/pause", ok=True)
        line = await cohortd.logged("alert_told", verb="paused")

    assert other == line["subject_id"]


async def test_an_unknown_verb_is_refused_with_those_that_there_are(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as daemon:
        answer = await daemon.post("/v2/job/log_system_events", {"config": {"verbs": ["exploded"]}})

    assert 422 == answer.status
    assert "unhealthy" in answer.body["message"]


async def test_a_dry_run_shows_a_real_message_and_sends_one_only_when_told(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path) as daemon, open_receiver() as receiver:
        await define(daemon)
        body = {"config": {"audiences": ["active"], "url": receiver.address, "existing_users": True}}
        empty = (await daemon.post("/v2/job/webhook_triggers/dryrun", body, ok=True)).data
        nobody = await daemon.post("/v2/job/webhook_triggers/dryrun?send=1", body)
        await daemon.post("/collect/json/default", [{"uid": "ann", "visits": 1, "email": "a@example.com"}], ok=True)
        async with asyncio.timeout(20):
            while not (await daemon.get("/api/segment/active", ok=True)).data["size"]:
                await asyncio.sleep(0.01)
        shown = (await daemon.post("/v2/job/webhook_triggers/dryrun", body, ok=True)).data
        before = len(receiver.requests)
        sent = (await daemon.post("/v2/job/webhook_triggers/dryrun?send=1", body, ok=True)).data
        receiver.status = 400
        refused = (await daemon.post("/v2/job/webhook_triggers/dryrun?send=1", body, ok=True)).data
        jobs = (await daemon.get("/v2/job", ok=True)).data
        wrong = await daemon.post("/v2/job/webhook_triggers/dryrun", {"config": {"audiences": ["nope"], "url": "x"}})
        to_file = {"config": {"audiences": ["active"], "folder": "sample"}}
        filed = (await daemon.post("/v2/job/files_export_triggers/dryrun?send=1", to_file, ok=True)).data

    assert (None, 409) == (empty["message"], nobody.status)
    assert ("ann", 1, 1) == (shown["message"]["data"]["uid"], shown["would_send_now"], shown["members"]["active"])
    assert 0 == before
    assert ("delivered", 200) == (sent["sent"]["outcome"], sent["sent"]["status"])
    assert receiver.messages[0]["data"]["segment_events"] == shown["message"]["data"]["segment_events"]
    assert ("omitted", 400) == (refused["sent"]["outcome"], refused["sent"]["status"])
    assert [] == jobs
    assert 422 == wrong.status
    assert "delivered" == filed["sent"]["outcome"]
    assert 1 == len(list((tmp_path / "exports" / "sample").glob("*.ndjson")))
