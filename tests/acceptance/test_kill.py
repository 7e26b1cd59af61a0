"""P1 to P4 under `kill -9`: the real process is killed again and again in the middle of mixed load."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

KILLS = 50
SENDERS = 6
CUSTOMERS = 40
QUERY = """
SELECT
    customer                 KIND string,
    device                   KIND string,
    sum(amount)   AS spent   KIND int,
    count(amount) AS orders  KIND int,
    active                   KIND int,
    valuect(kind) AS kinds   KIND map[string]int
FROM kills INTO user BY customer OR device ALIAS kills
"""
AUDIENCES = (
    "FILTER active = 1 FROM user ALIAS active",
    "FILTER orders >= 5 FROM user ALIAS often",
    "FILTER AND ( NOT INCLUDE active, kinds.bulk >= 2 ) FROM user ALIAS quiet",
)


class Sender:
    """Sends events one way, each until it is acknowledged; the same event id makes a repeat harmless."""

    def __init__(self, number: int, way: str, seed: int) -> None:
        self.number = number
        self.way = way
        self.chance = random.Random(seed)
        self.acknowledged: list[str] = []
        self.sequence = itertools.count()

    def event(self) -> dict[str, Any]:
        sequence = next(self.sequence)
        customer = self.chance.randrange(CUSTOMERS)
        # Whole seconds of its own for each event: equal times would be decided by the order of ids, also fine.
        event = {
            "_id": f"{self.number}-{sequence}",
            "_ts": 1_767_225_600_000 + (sequence * SENDERS + self.number) * 1000,
            "amount": self.chance.randrange(1, 100),
            "active": self.chance.randrange(2),
            "kind": self.way,
        }
        names = self.chance.choice((("customer",), ("device",), ("customer", "device")))
        return event | {name: f"{name[0]}{customer}" for name in names}

    async def run(self, session: aiohttp.ClientSession, address: str, token: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            events = [self.event() for _ in range({"single": 1, "array": 7, "bulk": 40}[self.way])]
            path, body = "/collect/json/kills", orjson.dumps(events[0])
            if self.way == "array":
                body = orjson.dumps(events)
            elif self.way == "bulk":
                path, body = "/collect/bulk/kills", b"\n".join(map(orjson.dumps, events))
            while not await self._sent(session, address + path, body, token, len(events)):
                await asyncio.sleep(0.02)  # it is being restarted: as a real sender would, try again
            self.acknowledged += [event["_id"] for event in events]

    @staticmethod
    async def _sent(session: aiohttp.ClientSession, url: str, body: bytes, token: str, count: int) -> bool:
        headers = {
            "Authorization": token,
            "Content-Type": "application/x-ndjson" if "/bulk/" in url else "application/json",
        }
        try:
            async with session.post(url, data=body, headers=headers) as response:
                content = await response.read()
                if response.status != 200:
                    assert response.status in (429, 503), content
                    return False
                data = orjson.loads(content)["data"]
        except (aiohttp.ClientError, ConnectionError):
            return False
        assert data["rejected_count"] == 0, content
        assert data["message_count"] + data["duplicate_count"] == count, content
        return True


class Receiver:
    """Keeps the trigger ids that came, in the order of their coming for each profile."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.latest: dict[str, int] = defaultdict(int)
        self.stale: list[tuple[str, int]] = []
        self.came = asyncio.Event()

    async def hook(self, request: web.Request) -> web.Response:
        message = orjson.loads(await request.read())
        profile = message["data"]["_id"]
        for each in message["data"]["segment_events"]:
            trigger = int(each["trigger_id"])
            if trigger not in self.ids and trigger < self.latest[profile]:
                self.stale.append((profile, trigger))
            self.latest[profile] = max(self.latest[profile], trigger)
            self.ids.add(trigger)
        self.came.set()
        return web.Response()


async def define(client: Any) -> None:
    await client.post("/api/query", data=QUERY, ok=True)
    for text in AUDIENCES:
        await client.post("/api/segment", data=text, ok=True)


async def settled(client: Any) -> None:
    """Waits until the log is taken in and the subscription has come to its end."""
    while True:
        lag = (await client.get("/v2/status", ok=True)).data["lag"]
        subscriptions = (await client.get("/v2/subscription", ok=True)).data
        if not any(lag.values()) and all(each["lag_triggers"] == 0 for each in subscriptions):
            return
        await asyncio.sleep(0.05)


def rows(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()


@pytest.mark.timeout(600)
async def test_fifty_kills_lose_nothing_double_nothing_and_skip_no_transition(
    tmp_path: Path, start_cohortd: Any
) -> None:
    chance = random.Random(20261121)
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.hook)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    senders = [
        Sender(number, way, number)
        for number, way in enumerate(("single", "single", "single", "array", "array", "bulk"))
    ]
    stop = asyncio.Event()
    data = tmp_path / "data"
    try:
        async with start_cohortd(data) as cohortd, aiohttp.ClientSession() as session:
            client = cohortd.client
            await define(client)
            config = {"audiences": ["active", "often", "quiet"], "url": hook, "batch_size": 1}
            await client.post("/v2/job/webhook_triggers", {"label": "kills", "config": config}, ok=True)
            async with asyncio.TaskGroup() as group:
                for sender in senders:
                    group.create_task(sender.run(session, cohortd.address, cohortd.token, stop))
                for _ in range(KILLS):
                    before = len(receiver.ids)
                    await asyncio.sleep(chance.uniform(0.02, 0.5))  # the random moment, not a wait for anything
                    await cohortd.kill()
                    await cohortd.start()
                    assert len(receiver.ids) >= before
                stop.set()
            await settled(cohortd.client)
            assert await cohortd.stop() == 0
    finally:
        await runner.cleanup()

    logged = [
        row[0]
        for row in rows(
            data / "events.db", "SELECT event_id FROM event_realtime UNION ALL SELECT event_id FROM event_bulk"
        )
    ]
    acknowledged = [each for sender in senders for each in sender.acknowledged]
    assert len(acknowledged) > 1000
    assert len(logged) == len(set(logged))
    assert set(acknowledged) <= set(logged)

    transitions: dict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
    for profile, audience, sequence, kind in rows(
        data / "state.db", "SELECT profile_id, audience, sequence, kind FROM trigger ORDER BY id"
    ):
        transitions[profile, audience].append((sequence, kind))
    assert len(transitions) > 20
    for found in transitions.values():
        assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
        assert [kind for _, kind in found] == [("enter", "exit")[n % 2] for n in range(len(found))]
    assert {row[0] for row in rows(data / "state.db", "SELECT id FROM trigger")} == receiver.ids
    assert not receiver.stale

    assert await profiles_of(tmp_path / "undisturbed", data, start_cohortd) == stored_profiles(data)


async def profiles_of(folder: Path, data: Path, start_cohortd: Any) -> list[Any]:
    """Runs the same events, lane by lane in the order of the log, through a daemon that nobody disturbs."""
    async with start_cohortd(folder) as cohortd:
        client = cohortd.client
        await define(client)
        history = rows(data / "state.db", "SELECT body FROM history WHERE kind = 'batch' ORDER BY sequence")
        done = {"realtime": 0, "bulk": 0}
        for (text,) in history:
            batch = orjson.loads(text)
            lane, upto = batch["lane"], batch["upto"]
            bodies = rows(
                data / "events.db",
                f"SELECT body FROM event_{lane} WHERE position > {done[lane]} AND position <= {upto} ORDER BY position",
            )
            done[lane] = upto
            path = "/collect/bulk/kills" if lane == "bulk" else "/collect/json/kills"
            content_type = {"Content-Type": "application/x-ndjson"}
            for start in range(0, len(bodies), 5000):
                body = "\n".join(row[0] for row in bodies[start : start + 5000])
                await client.post(path, data=body, headers=content_type, ok=True)
            await settled(client)
        assert await cohortd.stop() == 0
    return stored_profiles(folder)


def stored_profiles(data: Path) -> list[Any]:
    """Gives fields and keys of every profile, times of arrival left out, in an order of their own."""
    found = []
    for (text,) in rows(data / "state.db", "SELECT body FROM profile"):
        body = orjson.loads(text)
        found.append((sorted((name, sorted(values)) for name, values in body["k"].items()), body["f"]))
    return sorted(found, key=orjson.dumps)
