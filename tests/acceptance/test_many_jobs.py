"""Three hundred jobs at once, and `kill -9` in the middle of what they do; and a second daemon beside the first."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import orjson
import pytest
from aiohttp import web

JOBS = 300
PEOPLE = 20


class Inbox:
    """A receiver: what came to each job's path, in order."""

    def __init__(self) -> None:
        self.came: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.count = 0
        self.grown = asyncio.Event()

    async def take(self, request: web.BaseRequest) -> web.Response:
        message = orjson.loads(await request.read())
        self.came[request.path].append(message)
        self.count += 1
        self.grown.set()
        return web.Response()

    async def until(self, holds: Any, seconds: float = 120) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                self.grown.clear()
                await self.grown.wait()

    def triggers(self, path: str) -> set[str]:
        return {each["data"]["segment_events"][0]["trigger_id"] for each in self.came[path]}


@pytest.mark.timeout(240)
async def test_300_jobs_deliver_everything_although_the_daemon_is_killed_in_the_middle(tmp_path, start_cohortd):
    inbox = Inbox()
    runner = web.ServerRunner(web.Server(inbox.take), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with start_cohortd(tmp_path, environment={"COHORTD_JOBS_BACK_OFF_S": "0.3"}) as cohortd:
            daemon = cohortd.client
            query = "SELECT uid KIND string, visits KIND int FROM default INTO user BY uid ALIAS people"
            await daemon.call("POST", "/api/query", data=query, ok=True)
            await daemon.call("POST", "/api/segment", data="FILTER visits > 0 ALIAS active", ok=True)
            jobs = []
            for number in range(JOBS):
                config = {"audiences": ["active"], "url": f"{address}/{number}", "concurrency": 1}
                reply = await daemon.post("/v2/job/webhook_triggers", {"label": str(number), "config": config}, ok=True)
                jobs.append(reply.data["id"])
            await daemon.post(f"/v2/job/{jobs[0]}/pause", {}, ok=True)
            people = [{"uid": f"p{each}", "visits": 1} for each in range(PEOPLE)]
            await daemon.post("/collect/json/default", people, ok=True)
            await inbox.until(lambda: inbox.count >= JOBS * PEOPLE // 3)
            await cohortd.kill()
            cut = inbox.count
            await cohortd.start()
            await daemon.post(f"/v2/job/{jobs[0]}/resume", {}, ok=True)
            paths = [f"/{number}" for number in range(JOBS)]
            await inbox.until(lambda: all(len(inbox.triggers(path)) == PEOPLE for path in paths))
            listed = []
            start = ""
            while True:
                page = (await daemon.get(f"/v2/job?limit=70&start={start}", ok=True)).body
                listed += page["data"]
                if "_next" not in page:
                    break
                start = page["_next"]
    finally:
        await runner.cleanup()

    assert cut < JOBS * PEOPLE, "it was killed when all was done"
    assert 1 == len({frozenset(inbox.triggers(path)) for path in paths})
    assert jobs == [each["id"] for each in listed]
    assert {("running", 0)} == {(each["state"], each["errors"]) for each in listed}
    assert (JOBS, JOBS) == (page["total"], page["states"]["running"])


async def test_a_second_daemon_on_the_same_data_is_refused_and_told_of_the_first(tmp_path, start_cohortd):
    async with start_cohortd(tmp_path) as first, start_cohortd(tmp_path, start=False) as second:
        with pytest.raises(AssertionError, match="it ended without daemon_ready"):
            await second.start()
        refused = next(line for line in second.log if line["event"] == "daemon_refused")
        status = await second.process.wait()
        alive = (await first.client.get("/ready")).status

    assert f"process {first.process.pid}" in refused["error"]
    assert (1, 200) == (status, alive)
