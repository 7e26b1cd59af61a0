"""Exports to blobs while all goes wrong: killed, cut off, throttled, not let in, paused, without their container."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import uuid
from typing import Any

import pytest
from azurite import ACCOUNT
from azurite import azurite as azurite_running
from chaos import chaos
from driving import create, define, state, until

JSON = "azure_blob_export_audience_json"
WRONG = base64.b64encode(b"hush, this is another key").decode()
COUNT = 1500
#: A daemon that is quick to try again.
SETTINGS = {"jobs": {"back_off_s": 0.2, "back_off_longest_s": 0.5, "retry_s": 0.3, "retry_after_longest_s": 0.3}}


@pytest.fixture
def container(azurite) -> str:
    return str(azurite.create(f"c-{uuid.uuid4().hex[:12]}"))


async def people(client: Any, count: int = COUNT) -> None:
    """Makes so many members of `big`."""
    await define(client)
    body = b"".join(b'{"email":"p%d@example.org","n":%d,"tag":"x"}\n' % (n, 10 + n) for n in range(count))
    headers = {"Content-Type": "application/x-ndjson"}
    await client.call("POST", "/collect/bulk/people", data=body, headers=headers, ok=True)
    async with asyncio.timeout(60):
        while (await client.get("/api/segment/big")).data["size"] < count:
            await asyncio.sleep(0.05)


async def export(client: Any, string: str, container: str, **config: Any) -> str:
    body = {"label": "store", "config": {"connection_string": string}}
    auth = (await client.post("/v2/auth/azure/azure_storage", body, ok=True)).data["id"]
    wanted = {"audiences": ["big"], "container": container, "user_fields": ["email", "n"], "one_time": True}
    return await create(client, JSON, wanted | {"max_file_bytes": 8_000} | config, auth_id=auth)


def numbers(azurite: Any, container: str) -> list[int]:
    """The members in all blobs that can be seen, in order; each line must be whole."""
    found = []
    for name in azurite.names(container):
        content = azurite.read(container, name)
        assert content.endswith(b"}\n")
        found += [int(json.loads(line)["n"]) for line in content.splitlines()]
    return sorted(found)


async def grown(azurite: Any, container: str, beyond: int) -> None:
    async with asyncio.timeout(30):
        while len(azurite.names(container)) <= beyond:
            await asyncio.sleep(0.005)


EVERYBODY = list(range(10, 10 + COUNT))


async def test_killed_again_and_again_it_writes_everybody_once(azurite, container, tmp_path, start_cohortd):
    async with start_cohortd(tmp_path) as cohortd:
        await people(cohortd.client)
        job = await export(cohortd.client, azurite.connection_string, container)
        kills = 0
        while kills < 3:
            await grown(azurite, container, len(azurite.names(container)))
            if (await cohortd.client.get(f"/v2/job/{job}")).data["state"] == "completed":
                break
            await cohortd.kill()
            kills += 1
            await cohortd.start()
        await until(cohortd.client, job, state("completed"))

    assert kills >= 1
    assert numbers(azurite, container) == EVERYBODY


async def test_no_half_file_is_ever_seen(azurite, container, tmp_path, open_daemon):
    async with chaos(azurite.port) as proxy, open_daemon(tmp_path, **SETTINGS) as opened:
        await people(opened)
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        proxy.answer(503, times=10_000, matching="comp=blocklist")
        job = await export(opened, string, container, max_file_bytes=10_000_000)
        async with asyncio.timeout(30):
            await proxy.struck.wait()
        before = azurite.names(container)
        (path,) = {line.split("?")[0].split("/", 3)[3] for line in proxy.requests if "comp=blocklist" in line}
        staged = azurite.uncommitted(container, path)
        proxy.clear()
        await until(opened, job, state("completed"))

    assert [] == before
    assert staged >= 1
    assert numbers(azurite, container) == EVERYBODY


FAULTS = {
    "connections are reset in the middle of a request": lambda proxy: (proxy.cut(after=3000, times=6), proxy.drop()),
    "answers are reset in the middle": lambda proxy: setattr(proxy, "cut_back_after", 100),
    "the store is throttled": lambda proxy: proxy.answer(
        503, times=5, headers="x-ms-error-code: ServerBusy\r\nRetry-After: 1\r\n"
    ),
    "there are too many requests": lambda proxy: proxy.answer(429, times=5, headers="Retry-After: 1\r\n"),
    "it has an internal error": lambda proxy: proxy.answer(500, times=6),
    "the commit is lost": lambda proxy: proxy.answer(500, times=6, matching="comp=blocklist"),
    "it is slow": lambda proxy: setattr(proxy, "delay_s", 0.02),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_the_network_does_everybody_is_written_once(azurite, container, tmp_path, open_daemon, fault):
    async with chaos(azurite.port) as proxy, open_daemon(tmp_path, **SETTINGS) as opened:
        await people(opened)
        job = await export(opened, azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}"), container)
        await grown(azurite, container, 0)
        FAULTS[fault](proxy)
        await until(opened, job, state("completed"))
        struck = proxy.struck.is_set() or proxy.delay_s

    assert struck
    assert numbers(azurite, container) == EVERYBODY


async def test_a_store_that_is_stopped_and_started_again_is_gone_on_with(tmp_path, open_daemon):
    with azurite_running(tmp_path / "store") as store:
        container = store.create("out")
        async with open_daemon(tmp_path / "data", **SETTINGS) as opened:
            await people(opened)
            job = await export(opened, store.connection_string, container)
            await grown(store, container, 0)
            store.stop(signal.SIGTERM)
            asleep = await until(opened, job, state("sleeping"))
            store.start()
            await until(opened, job, state("completed"))

        assert "cannot be reached" in asleep["reason"]
        assert numbers(store, container) == EVERYBODY


async def test_a_store_that_stands_still_stops_neither_a_pause_nor_the_daemon(tmp_path, open_daemon):
    with azurite_running(tmp_path / "store") as store:
        container = store.create("out")
        async with open_daemon(tmp_path / "data", **SETTINGS) as opened:
            await people(opened)
            job = await export(opened, store.connection_string, container)
            await grown(store, container, 0)
            store.freeze()
            try:
                async with asyncio.timeout(5):
                    await opened.post(f"/v2/job/{job}/pause", ok=True)
                    await until(opened, job, state("paused"))
                    await opened.post(f"/v2/job/{job}/resume", ok=True)
                    await until(opened, job, state("running"))
                    leaving = asyncio.get_running_loop().time()
            except BaseException:
                store.thaw()
                raise
        took = asyncio.get_running_loop().time() - leaving
        store.thaw()
        async with open_daemon(tmp_path / "data", **SETTINGS) as opened:
            await until(opened, job, state("completed"))

        assert took < 5
        assert numbers(store, container) == EVERYBODY


async def test_a_key_that_is_refused_in_the_middle_makes_the_authorization_unhealthy_and_then_it_goes_on(
    azurite, container, tmp_path, open_daemon
):
    secret = tmp_path / "secret"
    secret.write_text(azurite.connection_string)
    async with open_daemon(tmp_path / "data", **SETTINGS) as opened:
        await people(opened)
        job = await export(opened, f"file:{secret}", container)
        await grown(azurite, container, 0)
        await opened.post(f"/v2/job/{job}/pause", ok=True)
        secret.write_text(azurite.let_in(azurite.address, WRONG))
        await opened.post(f"/v2/job/{job}/resume", ok=True)
        asleep = await until(opened, job, state("sleeping"))
        (auth,) = (await opened.get("/v2/auth", ok=True)).data
        log = (await opened.get(f"/v2/job/{job}/logs", ok=True)).content.decode()
        secret.write_text(azurite.connection_string)
        await until(opened, job, state("completed"))
        (healthy,) = (await opened.get("/v2/auth", ok=True)).data

    assert "the AccountKey is refused" in asleep["reason"]
    assert "unhealthy" == auth["status"]
    assert "healthy" == healthy["status"]
    assert WRONG not in log + json.dumps(asleep) + json.dumps(auth)
    assert numbers(azurite, container) == EVERYBODY


async def test_a_container_that_is_deleted_in_the_middle_fails_the_job_with_what_there_is(
    azurite, container, tmp_path, open_daemon
):
    async with open_daemon(tmp_path, **SETTINGS) as opened:
        await people(opened)
        job = await export(opened, azurite.connection_string, container)
        await grown(azurite, container, 0)
        await opened.post(f"/v2/job/{job}/pause", ok=True)
        before = numbers(azurite, container)
        azurite.delete_container(container)
        other = azurite.create(f"{container}-2")
        await opened.post(f"/v2/job/{job}/resume", ok=True)
        failed = await until(opened, job, state("failed"))
        azurite.create(container)
        await opened.post(f"/v2/job/{job}/resume", ok=True)
        await until(opened, job, state("completed"))

    assert f"there is no container {container!r}" in failed["reason"]
    assert other in failed["reason"]
    assert sorted(before + numbers(azurite, container)) == EVERYBODY


async def test_paused_and_resumed_it_goes_on_where_it_was(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path, **SETTINGS) as opened:
        await people(opened)
        job = await export(opened, azurite.connection_string, container)
        for _ in range(3):
            before = len(azurite.names(container))
            await grown(azurite, container, before)
            await opened.post(f"/v2/job/{job}/pause")
            await until(opened, job, state("paused", "completed"))
            await opened.post(f"/v2/job/{job}/resume")
        await until(opened, job, state("completed"))

    assert numbers(azurite, container) == EVERYBODY


@pytest.mark.timeout(240)
async def test_200_jobs_at_once_on_one_account_write_everybody_each(azurite, container, tmp_path, open_daemon):
    people_each = 30
    async with chaos(azurite.port) as proxy, open_daemon(tmp_path, **SETTINGS) as opened:
        await people(opened, people_each)
        body = {
            "label": "store",
            "config": {"connection_string": azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")},
        }
        auth = (await opened.post("/v2/auth/azure/azure_storage", body, ok=True)).data["id"]
        config = {"audiences": ["big"], "container": container, "user_fields": ["n"], "one_time": True}
        jobs = [await create(opened, JSON, config | {"prefix": f"j{n:03d}"}, auth_id=auth) for n in range(200)]
        proxy.drop()
        proxy.answer(503, times=20, headers="x-ms-error-code: ServerBusy\r\nRetry-After: 1\r\n")
        async with asyncio.timeout(200):
            for job in jobs:
                await until(opened, job, state("completed"))

    names = azurite.names(container)
    assert [f"j{n:03d}" for n in range(200)] == [name.partition("-")[0] for name in names]
    for name in names:
        found = [int(json.loads(line)["n"]) for line in azurite.read(container, name).splitlines()]
        assert list(range(10, 10 + people_each)) == sorted(found), name
