"""Events of the log as blobs: a real daemon and Azurite, read by somebody else's reader, and while all goes wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import gzip
import io
import json
import os
import re
import shutil
import signal
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
from azurite import ACCOUNT
from azurite import azurite as azurite_running
from chaos import chaos
from driving import create, state, until
from gpg import gpg_home

from connectors.sdk.files.events import FORMATS

EVENTS = "azure_blob_export_events"
WRONG = base64.b64encode(b"hush, this is another key").decode()
HEAD = ["_stream", "_event_at", "_received_at"]
COUNT = 8000
#: A daemon that is quick to try again.
SETTINGS = {"jobs": {"back_off_s": 0.2, "back_off_longest_s": 0.5, "retry_s": 0.3, "retry_after_longest_s": 0.3}}


@pytest.fixture
def container(azurite) -> str:
    """A container of the test's own."""
    return str(azurite.create(f"c-{uuid.uuid4().hex[:12]}"))


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    """A file of some hundred kilobytes is of many blocks then."""
    monkeypatch.setattr("connectors.azure.output.BLOCK_BYTES", 32 * 1024)


async def let_in(client: Any, string: str, **fields: Any) -> str:
    config = {"connection_string": string} | fields
    answer = await client.post("/v2/auth/azure/azure_storage", {"label": "store", "config": config}, ok=True)
    return str(answer.data["id"])


async def export(client: Any, string: str, config: dict[str, Any], **options: Any) -> str:
    return await create(client, EVENTS, config, auth_id=await let_in(client, string), **options)


async def again(client: Any, job: str, runs: int) -> None:
    """Runs a sleeping job once more."""
    await client.post(f"/v2/job/{job}/run", ok=True)
    await until(client, job, lambda it: it["runs"] >= runs and it["state"] in {"sleeping", "completed"})


async def many(client: Any, count: int = COUNT) -> None:
    """Stores so many events of stream `a`, numbered."""
    headers = {"Content-Type": "application/x-ndjson"}
    for first in range(0, count, 10_000):
        some = range(first, min(count, first + 10_000))
        body = b"".join(b'{"n":%d,"k%d":"%s"}\n' % (n, n % 3, b"x" * 60) for n in some)
        await client.call("POST", "/collect/bulk/a", data=body, headers=headers, ok=True)


def rows(name: str, content: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            (inner,) = file.namelist()
            assert inner == name.rpartition("/")[2].removesuffix(".zip")
            content = file.read(inner)
    assert content.endswith(b"\n")
    return list(csv.DictReader(io.StringIO(content.decode(), newline=""), delimiter=delimiter, strict=True))


def numbers(azurite: Any, container: str) -> list[int]:
    """The events in all blobs that can be seen, in their order."""
    return [int(row["n"]) for name in azurite.names(container) for row in rows(name, azurite.read(container, name))]


def encrypting() -> list[int]:
    """The processes of ours that work with PGP."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = (each / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == os.getpid() and b"pgp_process" in (each / "cmdline").read_bytes():
                    found.append(int(each.name))
    return found


async def staged(proxy: Any, blocks: int) -> None:
    """Waits until so many blocks went by."""
    async with asyncio.timeout(30):
        while sum("comp=block&" in line for line in proxy.requests) < blocks:
            await asyncio.sleep(0.002)


# --- what is written


@pytest.mark.parametrize(("compression", "ending"), [("none", ""), ("gzip", ".gz"), ("zip", ".zip")])
async def test_events_come_out_as_they_went_in_with_stable_columns(
    azurite, container, tmp_path, open_daemon, compression, ending
):
    async with open_daemon(tmp_path) as opened:
        await opened.post("/collect/json/a", [{"b": 1, "deep": {"x": [1, 2]}}, {"c": 'say "x",\ny'}], ok=True)
        await opened.post("/collect/json/other", {"z": 1}, ok=True)
        config = {
            "container": container,
            "streams": ["a"],
            "filename": "/my folder/ev-{TIMESTAMP}",
            "timestamp_format": "unix_ms",
            "compression": compression,
        }
        job = await export(opened, azurite.connection_string, config, schedule={"frequency": "monthly"})
        await until(opened, job, state("sleeping"))
        await opened.post("/collect/json/a", {"a": True, "c": None}, ok=True)
        await again(opened, job, 2)
        await again(opened, job, 3)
        metrics = (await opened.get(f"/v2/job/{job}/metrics", ok=True)).data

    first, second = azurite.names(container)
    assert all(re.fullmatch(r"my folder/ev-\d{13}\.csv" + re.escape(ending), name) for name in (first, second))
    (one, two), (three,) = (rows(name, azurite.read(container, name)) for name in (first, second))
    assert [*HEAD, "b", "c", "deep.x"] == list(one)
    assert [*HEAD, "b", "c", "deep.x", "a"] == list(three)
    assert ("1", "[1,2]", 'say "x",\ny') == (one["b"], one["deep.x"], two["c"])
    assert ("a", "true", "") == (three["_stream"], three["a"], three["c"])
    assert 3 == metrics["added"]


async def test_all_streams_are_exported_when_none_is_selected_and_several_can_be(
    azurite, container, tmp_path, open_daemon
):
    async with open_daemon(tmp_path) as opened:
        for stream in ("a", "b", "c"):
            await opened.post(f"/collect/json/{stream}", {"n": 1}, ok=True)
        for name, streams in (("every", []), ("two", ["a", "c"])):
            config = {"container": container, "streams": streams, "filename": name}
            await until(opened, await export(opened, azurite.connection_string, config), state("completed"))

    every, two = (
        {row["_stream"] for row in rows(name, azurite.read(container, name))} for name in azurite.names(container)
    )
    assert {"a", "b", "c"} <= every
    assert {"a", "c"} == two


async def test_the_header_is_left_out_and_the_delimiter_is_another_when_that_is_wanted(
    azurite, container, tmp_path, open_daemon
):
    async with open_daemon(tmp_path) as opened:
        await opened.post("/collect/json/a", {"n": 1, "text": "a\tb"}, ok=True)
        config = {"container": container, "streams": ["a"], "header": False, "delimiter": "t", "filename": "x.csv"}
        await until(opened, await export(opened, azurite.connection_string, config), state("completed"))

    assert ["x.csv"] == azurite.names(container)
    (line,) = azurite.read(container, "x.csv").decode().splitlines()
    assert ["1", '"a\tb"'] == line.split("\t", 4)[3:]


async def test_events_between_two_days_the_first_included_the_last_not(
    azurite, container, tmp_path, open_daemon, frozen_clock
):
    day = 86_400_000_000
    async with open_daemon(tmp_path) as opened:
        for number in range(4):  # the clock begins at 2026-01-01T00:00:00Z
            await opened.post("/collect/json/a", {"n": number}, ok=True)
            frozen_clock.us += day
        config = {"container": container, "streams": ["a"], "start": "2026-01-02", "end": "2026-01-04"}
        config |= {"timestamp_format": "MM-DD-YYYY"}
        job = await export(opened, azurite.connection_string, config, schedule={"frequency": "daily"})
        await until(opened, job, state("completed"))  # nothing that comes is wanted, whatever the schedule

    assert ["events-01-05-2026.csv"] == azurite.names(container)
    assert [1, 2] == numbers(azurite, container)


async def test_each_run_of_a_schedule_brings_what_came_since_under_a_name_of_its_own(
    azurite, container, tmp_path, open_daemon, frozen_clock
):
    async with open_daemon(tmp_path) as opened:
        config = {"container": container, "streams": ["a"], "timestamp_format": "YYYY-MM-DD"}
        schedule = {"time_of_day": "06:00", "time_zone": "Europe/Berlin"}  # daily, when nobody says
        await opened.post("/collect/json/a", {"n": 1}, ok=True)
        job = await export(opened, azurite.connection_string, config, schedule=schedule)
        asleep = await until(opened, job, state("sleeping"))
        for number in (2, 3):  # on the same day
            await opened.post("/collect/json/a", {"n": number}, ok=True)
            await again(opened, job, number)
        frozen_clock.us += 86_400_000_000
        await opened.post("/collect/json/a", {"n": 4}, ok=True)
        await again(opened, job, 4)

    assert "daily" == asleep["schedule"]["frequency"]
    assert asleep["sleep_until"].startswith("2026-01-01T05:00:00")
    names = ["events-2026-01-01.csv", "events-2026-01-01~2.csv", "events-2026-01-01~3.csv", "events-2026-01-02.csv"]
    assert names == azurite.names(container)
    assert [1, 2, 3, 4] == numbers(azurite, container)


async def test_with_a_key_in_the_authorization_it_is_compressed_and_then_encrypted(
    azurite, container, tmp_path, open_daemon
):
    if shutil.which("gpg") is None:
        pytest.skip("needs gpg")
    with gpg_home() as gpg:
        gpg.make("ann")
        async with open_daemon(tmp_path, **SETTINGS) as opened:
            await many(opened)
            string = azurite.connection_string
            auth = await let_in(opened, string, pgp_public_key=gpg.public("ann"))
            config = {"container": container, "streams": ["a"], "filename": "f/x", "compression": "gzip"}
            job = await create(opened, EVENTS, config, auth_id=auth)
            await until(opened, job, state("completed"))
            status = (await opened.post(f"/v2/auth/{auth}/check", ok=True)).data["status"]
        message = azurite.read(container, "f/x.csv.gz.pgp")
        found = rows("x.csv.gz", gpg.decrypt(message))

    assert "healthy" == status
    assert ["f/x.csv.gz.pgp"] == azurite.names(container)
    assert list(range(COUNT)) == [int(row["n"]) for row in found]


async def test_a_key_that_expires_fails_the_job_and_says_so(azurite, container, tmp_path, open_daemon, frozen_clock):
    pysequoia = pytest.importorskip("pysequoia")
    key = str(pysequoia.Tsk.generate("A", validity_seconds=86_400).extract_certificate())
    async with open_daemon(tmp_path, **SETTINGS) as opened:
        await opened.post("/collect/json/a", {"n": 1}, ok=True)
        config = {"container": container, "streams": ["a"]}
        auth = await let_in(opened, azurite.connection_string, pgp_public_key=key)
        frozen_clock.us += 86_400_000_000 * 3000
        failed = await until(opened, await create(opened, EVENTS, config, auth_id=auth), state("failed"))

    assert "expired on" in failed["reason"]
    assert [] == azurite.names(container)


@pytest.mark.parametrize("name", ["", "/", "a/../b", "../a", "a/", "a\\b", "a.", "a./b", "a//b", "a/.b", "a\nb"])
async def test_a_file_name_that_is_no_name_of_a_blob_is_refused(tmp_path, open_daemon, name):
    async with open_daemon(tmp_path) as opened:
        answer = await opened.post(
            f"/v2/job/{EVENTS}", {"label": "x", "config": {"container": "abc", "filename": name}}
        )

    assert 422 == answer.status
    assert "filename" in answer.content.decode()


async def test_the_formats_on_offer_stand_in_the_catalogue_and_each_can_be_used(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        provider = (await opened.get("/v2/provider/azure", ok=True)).data
        answers = [
            await opened.post(
                f"/v2/job/{EVENTS}/dryrun",
                {"config": {"container": "abc", "timestamp_format": each}, "auth_id": "none"},
            )
            for each in ("YYYY-MM-DDTHH:mm", "hours", *FORMATS)
        ]

    (job_type,) = (each for each in provider["job_types"] if each["slug"] == EVENTS)
    field = job_type["schema"]["properties"]["timestamp_format"]
    assert list(FORMATS) == field["examples"]
    assert "MM is the month, mm the minute" in field["description"]
    refused = ["timestamp_format" in answer.content.decode() for answer in answers]
    assert [True, True] + [False] * len(FORMATS) == refused


# --- while all goes wrong


async def test_killed_in_the_middle_it_writes_each_event_once(azurite, container, tmp_path, start_cohortd):
    count = 40_000
    async with chaos(azurite.port) as proxy, start_cohortd(tmp_path) as cohortd:
        await many(cohortd.client, count)
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        proxy.delay_s = 0.005
        config = {"container": container, "streams": ["a"]}
        job = await export(cohortd.client, string, config, schedule={"frequency": "monthly"})
        for kills in range(2):
            await staged(proxy, 2 + kills)
            await cohortd.kill()
            assert [] == azurite.names(container)
            proxy.requests.clear()
            await cohortd.start()
        proxy.delay_s = 0
        await until(cohortd.client, job, state("sleeping"))
        await many(cohortd.client, 10)
        await cohortd.client.post(f"/v2/job/{job}/run", ok=True)
        await until(cohortd.client, job, lambda it: len(azurite.names(container)) == 2 and it["state"] == "sleeping")

    assert [*range(count), *range(10)] == numbers(azurite, container)


@pytest.mark.usefixtures("small_blocks")
async def test_no_half_file_is_ever_seen(azurite, container, tmp_path, open_daemon):
    async with chaos(azurite.port) as proxy, open_daemon(tmp_path, **SETTINGS) as opened:
        await many(opened)
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        proxy.answer(503, times=10_000, matching="comp=blocklist")
        job = await export(opened, string, {"container": container, "streams": ["a"], "filename": "x"})
        async with asyncio.timeout(30):
            await proxy.struck.wait()
        before, blocks = azurite.names(container), azurite.uncommitted(container, "x.csv")
        proxy.clear()
        await until(opened, job, state("completed"))

    assert [] == before
    assert blocks > 10, "they are put while events are read"
    assert list(range(COUNT)) == numbers(azurite, container)


FAULTS = {
    "connections are reset in the middle of a block": lambda proxy: (proxy.cut(after=20_000, times=6), proxy.drop()),
    "the store is throttled": lambda proxy: proxy.answer(
        503, times=5, headers="x-ms-error-code: ServerBusy\r\nRetry-After: 1\r\n"
    ),
    "the commit is lost": lambda proxy: proxy.answer(500, times=6, matching="comp=blocklist"),
    "it is slow": lambda proxy: setattr(proxy, "delay_s", 0.01),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("small_blocks")
async def test_whatever_the_network_does_each_event_is_written_once(azurite, container, tmp_path, open_daemon, fault):
    async with chaos(azurite.port) as proxy, open_daemon(tmp_path, **SETTINGS) as opened:
        await many(opened)
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        proxy.delay_s = 0.002
        job = await export(opened, string, {"container": container, "streams": ["a"]})
        await staged(proxy, 2)
        FAULTS[fault](proxy)
        await until(opened, job, state("completed"))
        struck = proxy.struck.is_set() or proxy.delay_s == 0.01

    assert struck
    assert 1 == len(azurite.names(container))
    assert list(range(COUNT)) == numbers(azurite, container)


@pytest.mark.usefixtures("small_blocks")
async def test_a_store_that_stands_still_or_is_gone_stops_neither_a_pause_nor_the_daemon(tmp_path, open_daemon):
    with azurite_running(tmp_path / "store") as store:
        container = store.create("out")
        async with chaos(store.port) as proxy:
            string = store.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
            proxy.delay_s = 0.005
            async with open_daemon(tmp_path / "data", **SETTINGS) as opened:
                await many(opened)
                job = await export(opened, string, {"container": container, "streams": ["a"]})
                await staged(proxy, 2)
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
            store.stop(signal.SIGTERM)
            async with open_daemon(tmp_path / "data", **SETTINGS) as opened:
                asleep = await until(opened, job, state("sleeping"))
                store.start()
                await until(opened, job, state("completed"))

        assert took < 5
        assert asleep["reason"]
        assert list(range(COUNT)) == numbers(store, container)


async def test_an_encrypting_process_that_stands_still_stops_neither_a_pause_nor_the_daemon(
    azurite, container, tmp_path, open_daemon
):
    count = 60_000  # the library gives 4 MB at a time
    pysequoia = pytest.importorskip("pysequoia")
    key = pysequoia.Tsk.generate("A", profile=pysequoia.Profile.RFC4880)
    async with chaos(azurite.port) as proxy:
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        proxy.delay_s = 0.005
        async with open_daemon(tmp_path, **SETTINGS) as opened:
            await many(opened, count)
            auth = await let_in(opened, string, pgp_public_key=str(key.extract_certificate()))
            config = {"container": container, "streams": ["a"], "filename": "x"}
            job = await create(opened, EVENTS, config, auth_id=auth)
            await staged(proxy, 2)
            (process,) = encrypting()
            os.kill(process, signal.SIGSTOP)
            async with asyncio.timeout(5):
                await opened.post(f"/v2/job/{job}/pause", ok=True)
                await until(opened, job, state("paused"))
            assert encrypting() == []
            proxy.requests.clear()
            await opened.post(f"/v2/job/{job}/resume", ok=True)
            await staged(proxy, 2)
            (process,) = encrypting()
            os.kill(process, signal.SIGSTOP)
            leaving = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - leaving
        left = encrypting()
        proxy.delay_s = 0
        async with open_daemon(tmp_path, **SETTINGS) as opened:
            await until(opened, job, state("completed"))

    assert took < 5
    assert left == []
    found = pysequoia.decrypt(azurite.read(container, "x.csv.pgp"), decryptor=key.decryptor()).bytes
    assert list(range(count)) == [int(row["n"]) for row in rows("x.csv", found)]


@pytest.mark.usefixtures("small_blocks")
async def test_a_key_that_is_refused_in_the_middle_makes_the_authorization_unhealthy_and_then_it_goes_on(
    azurite, container, tmp_path, open_daemon
):
    secret = tmp_path / "secret"
    async with chaos(azurite.port) as proxy, open_daemon(tmp_path / "data", **SETTINGS) as opened:
        address = f"http://127.0.0.1:{proxy.port}/{ACCOUNT}"
        secret.write_text(azurite.let_in(address))
        await many(opened)
        proxy.delay_s = 0.005
        job = await export(opened, f"file:{secret}", {"container": container, "streams": ["a"]})
        await staged(proxy, 2)
        await opened.post(f"/v2/job/{job}/pause", ok=True)
        secret.write_text(azurite.let_in(address, WRONG))
        await opened.post(f"/v2/job/{job}/resume", ok=True)
        asleep = await until(opened, job, state("sleeping"))
        (auth,) = (await opened.get("/v2/auth", ok=True)).data
        log = (await opened.get(f"/v2/job/{job}/logs", ok=True)).content.decode()
        secret.write_text(azurite.let_in(address))
        await until(opened, job, state("completed"))

    assert "the AccountKey is refused" in asleep["reason"]
    assert "unhealthy" == auth["status"]
    assert WRONG not in log + json.dumps(asleep) + json.dumps(auth)
    assert list(range(COUNT)) == numbers(azurite, container)


@pytest.mark.usefixtures("small_blocks")
async def test_a_container_that_is_deleted_in_the_middle_fails_the_job_and_made_again_gets_everything(
    azurite, container, tmp_path, open_daemon
):
    async with chaos(azurite.port) as proxy, open_daemon(tmp_path, **SETTINGS) as opened:
        await many(opened)
        proxy.delay_s = 0.005
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        job = await export(opened, string, {"container": container, "streams": ["a"]})
        await staged(proxy, 2)
        azurite.delete_container(container)
        other = azurite.create(f"{container}-other")  # the most similar ones are named first
        failed = await until(opened, job, state("failed"))
        azurite.create(container)
        proxy.delay_s = 0
        await opened.post(f"/v2/job/{job}/resume", ok=True)
        await until(opened, job, state("completed"))

    assert f"there is no container {container!r}" in failed["reason"]
    assert other in failed["reason"]
    assert list(range(COUNT)) == numbers(azurite, container)


@pytest.mark.usefixtures("small_blocks")
async def test_paused_and_resumed_it_writes_each_event_once(azurite, container, tmp_path, open_daemon):
    async with chaos(azurite.port) as proxy, open_daemon(tmp_path, **SETTINGS) as opened:
        await many(opened)
        proxy.delay_s = 0.005
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        job = await export(opened, string, {"container": container, "streams": ["a"]})
        for _ in range(3):
            proxy.requests.clear()
            await staged(proxy, 3)
            await opened.post(f"/v2/job/{job}/pause", ok=True)
            await until(opened, job, state("paused"))
            await opened.post(f"/v2/job/{job}/resume", ok=True)
        proxy.delay_s = 0
        await until(opened, job, state("completed"))

    assert list(range(COUNT)) == numbers(azurite, container)
