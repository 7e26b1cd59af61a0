"""Stopping under load: what was accepted is there, what was not gets a 503, and it is quick."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import aiohttp


def stored(data_dir):
    with closing(sqlite3.connect(data_dir / "events.db")) as db:
        lanes = [db.execute(f"SELECT event_id FROM event_{lane}").fetchall() for lane in ("realtime", "bulk")]
    return [event_id for rows in lanes for (event_id,) in rows]


async def test_every_event_answered_with_200_is_there_after_a_stop_under_load(tmp_path, start_cohortd):
    answered, refused = [], set()

    async def send(cohortd, sender):
        number = 0
        while True:
            event_id = f"{sender}-{number}"
            number += 1
            try:
                answer = await cohortd.client.post("/collect/json/shop", {"_id": event_id, "user_id": sender})
            except aiohttp.ClientError:
                return
            if answer.status != 200:
                refused.add(answer.status)
                return
            answered.append(event_id)

    async with start_cohortd(tmp_path) as cohortd, asyncio.TaskGroup() as tasks:
        for sender in range(1, 17):
            tasks.create_task(send(cohortd, sender))
        while len(answered) < 500:
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            status = await cohortd.stop()

    there = stored(tmp_path)
    assert status == 0
    assert set(answered) <= set(there)
    assert len(there) == len(set(there))
    assert refused <= {503}


async def test_a_stop_in_the_middle_of_an_upload_says_how_much_is_stored(tmp_path, start_cohortd):
    sent = asyncio.Event()

    async def lines():
        for number in range(10**9):
            yield b'{"_id":"e%d","user_id":%d}\n' % (number, number)
            if number == 20_000:
                sent.set()
            if number > 20_000:
                await asyncio.sleep(0.001)

    async with start_cohortd(tmp_path) as cohortd:
        uploading = asyncio.ensure_future(
            cohortd.client.call(
                "POST", "/collect/bulk/shop", data=lines(), headers={"Content-Type": "application/x-ndjson"}
            )
        )
        await sent.wait()
        async with asyncio.timeout(10):
            status = await cohortd.stop()
        answer = (await asyncio.gather(uploading, return_exceptions=True))[0]

    there = stored(tmp_path)
    assert status == 0
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert answer.data["message_count"] == len(there)
    assert there == [f"e{number}" for number in range(len(there))]


async def test_a_stop_does_not_wait_for_a_destination_that_hangs(tmp_path, start_cohortd):
    hanging, over = asyncio.Event(), asyncio.Event()

    async def hang(reader, writer):
        await reader.read(1)
        hanging.set()
        await over.wait()
        writer.close()

    query = "SELECT user_id AS user_id, firstname AS firstname FROM shop INTO user BY user_id ALIAS shop"
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        async with start_cohortd(tmp_path) as cohortd:
            await cohortd.client.call("POST", "/api/query", data=query, ok=True)
            await cohortd.client.call("POST", "/api/segment", data="FILTER EXISTS firstname ALIAS named", ok=True)
            config = {"audiences": ["named"], "url": url}
            await cohortd.client.post("/v2/job/webhook_triggers", {"config": config}, ok=True)
            await cohortd.client.post("/collect/json/shop", {"user_id": 7, "firstname": "Ann"}, ok=True)
            await hanging.wait()
            async with asyncio.timeout(10):
                status = await cohortd.stop()
    finally:
        over.set()
        server.close()
        await server.wait_closed()

    assert status == 0
    assert [line for line in cohortd.log if line["event"] in {"daemon_stop_forced", "daemon_failed"}] == []
