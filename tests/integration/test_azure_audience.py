"""Members of audiences, and who comes and goes, as blobs: a real daemon and Azurite, read by somebody else's reader."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import re
import shutil
import uuid
from typing import Any
from urllib.parse import parse_qs

import pytest
from driving import create, define, put, state, until
from gpg import gpg_home

JSON, CSV = "azure_blob_export_audience_json", "azure_blob_export_audience_csv"


@pytest.fixture
def container(azurite) -> str:
    """A container of the test's own."""
    return str(azurite.create(f"c-{uuid.uuid4().hex[:12]}"))


async def let_in(client: Any, string: str, **fields: Any) -> str:
    config = {"connection_string": string} | fields
    answer = await client.post("/v2/auth/azure/azure_storage", {"label": "store", "config": config}, ok=True)
    return str(answer.data["id"])


async def export(client: Any, azurite: Any, kind: str, config: dict[str, Any], **options: Any) -> str:
    auth = await let_in(client, azurite.connection_string)
    return await create(client, kind, {"audiences": ["big"]} | config, auth_id=auth, **options)


def rows(name: str, content: bytes, delimiter: str = ",") -> list[dict[str, Any]]:
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    text = content.decode()
    if ".csv" in name:
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    return [json.loads(line) for line in text.splitlines()]


def files(azurite: Any, container: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of every blob that can be seen."""
    return {name: rows(name, azurite.read(container, name)) for name in azurite.names(container)}


async def appeared(azurite: Any, container: str, count: int) -> dict[str, list[dict[str, Any]]]:
    async with asyncio.timeout(30):
        while len(azurite.names(container)) < count:
            await asyncio.sleep(0.05)
    return files(azurite, container)


async def test_the_members_of_now_are_written_once_as_json(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10, bob=9, cid=12)
        config = {"container": container, "prefix": "exports/vip", "one_time": True, "user_fields": ["email", "n"]}
        job = await export(opened, azurite, JSON, config)
        await until(opened, job, state("completed"))
        metrics = (await opened.get(f"/v2/job/{job}/metrics", ok=True)).data

    ((name, found),) = files(azurite, container).items()
    assert re.fullmatch(rf"exports/vip-{job}-\d{{8}}T\d{{9}}-0001\.ndjson", name)
    assert [{"email": "ann@example.org", "n": 10.0}, {"email": "cid@example.org", "n": 12.0}] == found
    assert 2 == metrics["added"]


async def test_the_members_of_now_are_written_once_as_csv(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10, bob=9, cid=12)
        fields = ["email", "tags", "numbers", "n"]
        config = {"container": container, "one_time": True, "user_fields": fields, "delimiter": ";;", "join": "+"}
        await until(opened, await export(opened, azurite, CSV, config), state("completed"))
        bare = {"container": container, "one_time": True, "user_fields": fields, "delimiter": "t", "header": False}
        await until(opened, await export(opened, azurite, CSV, bare | {"prefix": "bare"}), state("completed"))

    names = azurite.names(container)
    first = azurite.read(container, names[0])
    second = azurite.read(container, names[1]).decode()
    assert ["audience", "bare"] == [name.partition("-")[0] for name in names]
    assert all(name.endswith(".csv") for name in names)
    assert b"email;tags;numbers;n\n" == first.splitlines(keepends=True)[0]
    found = rows(names[0], first, ";")
    assert [(row["email"], row["n"], set(row["tags"].split("+"))) for row in found] == [
        ("ann@example.org", "10", {"x", "t10"}),
        ("cid@example.org", "12", {"x", "t12"}),
    ]
    assert {"x": ["10"]} == parse_qs(found[0]["numbers"])
    assert ["ann@example.org", "cid@example.org"] == [line.split("\t")[0] for line in second.splitlines()]
    assert all(set(line.split("\t")[1].split("|")) >= {"x"} for line in second.splitlines())


async def test_all_fields_are_written_when_none_are_chosen(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10)
        await until(
            opened, await export(opened, azurite, JSON, {"container": container, "one_time": True}), state("completed")
        )
        profile = (await opened.get("/api/entity/user/email/ann@example.org?meta=1", ok=True)).data

    ((_, (found,)),) = files(azurite, container).items()
    assert {"email", "n", "tags", "numbers", "_id", "_created"} <= set(found)
    assert profile["email"] == found["email"]


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_file_goes_on_in_the_next_before_it_is_too_large(
    azurite, container, tmp_path, open_daemon, compression
):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, **{f"p{n}": 100 + n for n in range(300)})
        for kind in (JSON, CSV):
            config = {"container": container, "one_time": True, "user_fields": ["email"], "max_file_bytes": 1000}
            config |= {"prefix": kind[-4:].strip("_"), "compression": compression}
            await until(opened, await export(opened, azurite, kind, config), state("completed"))

    found = files(azurite, container)
    for prefix in ("json", "csv"):
        emails = [row["email"] for name, each in found.items() for row in each if name.startswith(prefix)]
        assert sorted(f"p{n}@example.org" for n in range(300)) == sorted(emails)
    assert len(found) > 10
    assert max(len(azurite.read(container, name)) for name in found) <= 1000


async def test_after_the_members_come_those_who_enter_and_leave_by_age(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10, bob=9)
        config = {"container": container, "user_fields": ["email"], "flush_seconds": 1, "compression": "gzip"}
        job = await export(opened, azurite, CSV, config)
        await until(opened, job, state("sleeping"))
        await put(opened, bob=11, cid=12)
        await put(opened, ann=1)
        found = await appeared(azurite, container, 2)
        await until(opened, job, lambda it: it["runs"] >= 3 and it["state"] == "sleeping")

    first, *later = found.values()
    assert all(name.endswith(".csv.gz") for name in found)
    assert [{"email": "ann@example.org"}] == first
    changes = [row for each in later for row in each]
    assert [["_event", "_audience", "_at", "email"]] * len(changes) == [list(row) for row in changes]
    assert [(row["email"][:3], row["_event"], row["_audience"]) for row in changes] == [
        ("bob", "enter", "big"),
        ("cid", "enter", "big"),
        ("ann", "exit", "big"),
    ]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", row["_at"]) for row in changes)


async def test_enough_changes_are_written_before_their_time_and_few_wait(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, old=10)
        config = {"container": container, "user_fields": ["email"], "flush_seconds": 3600, "flush_bytes": 1000}
        job = await export(opened, azurite, JSON, config)
        await until(opened, job, state("sleeping"))
        await opened.post(f"/v2/job/{job}/run", ok=True)
        idle = await until(opened, job, lambda it: it["runs"] == 2 and it["state"] == "sleeping")
        await put(opened, ann=11)
        await opened.post(f"/v2/job/{job}/run", ok=True)
        waiting = await until(opened, job, lambda it: it["runs"] == 3 and it["state"] == "sleeping")
        before = azurite.names(container)
        await put(opened, **{f"p{n}": 20 + n for n in range(20)})
        await opened.post(f"/v2/job/{job}/run", ok=True)
        _, found = (await appeared(azurite, container, 2)).values()
        await until(opened, job, lambda it: it["runs"] == 4 and it["state"] == "sleeping")

    assert 1 == len(before)
    assert "bytes of changes wait" not in idle["reason"]
    assert re.search(
        r"\d+ bytes of changes wait; they are written in 3[56]\d\d s, or as 1,000 bytes", waiting["reason"]
    )
    assert 21 == len(found)
    assert "ann@example.org" == found[0]["email"]
    assert {"enter"} == {row["_event"] for row in found}


async def test_without_the_existing_members_only_those_who_come_are_written(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10)
        config = {"container": container, "existing_users": False, "user_fields": ["email"], "flush_seconds": 1}
        job = await export(opened, azurite, JSON, config | {"events": "enters"})
        await until(opened, job, state("sleeping"))
        await put(opened, bob=11)
        await put(opened, ann=1)
        found = await appeared(azurite, container, 1)

    assert [[{"email": "bob@example.org"}]] == list(found.values())


async def test_with_a_schedule_each_run_writes_what_changed(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10)
        config = {"container": container, "user_fields": ["email"]}
        job = await export(opened, azurite, JSON, config, schedule={"frequency": "daily"})
        await until(opened, job, state("sleeping"))
        await put(opened, bob=11)
        await opened.post(f"/v2/job/{job}/run", ok=True)
        await until(opened, job, lambda it: it["runs"] == 2 and it["state"] == "sleeping")

    first, second = files(azurite, container).values()
    assert [{"email": "ann@example.org"}] == first
    assert [("bob@example.org", "enter")] == [(row["email"], row["_event"]) for row in second]


async def test_several_audiences_go_into_one_file_each_member_once(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await opened.call("POST", "/api/segment", data="FILTER n >= 12 ALIAS bigger", ok=True)
        await put(opened, ann=10, cid=12)
        config = {"audiences": ["big", "bigger"], "container": container, "one_time": True, "user_fields": ["email"]}
        await until(opened, await export(opened, azurite, JSON, config), state("completed"))

    (found,) = files(azurite, container).values()
    assert ["ann@example.org", "cid@example.org"] == [row["email"] for row in found]


@pytest.mark.parametrize("prefix", ["/a", "a//b", "a/../b", "../a", "a/", "a\\b", "a.", "", ".hidden", "a\nb", "ä"])
async def test_a_prefix_that_is_no_beginning_of_a_name_is_refused(tmp_path, open_daemon, prefix):
    async with open_daemon(tmp_path) as opened:
        config = {"audiences": ["big"], "container": "abc", "prefix": prefix}
        answer = await opened.post(f"/v2/job/{JSON}", {"label": "x", "config": config})

    assert 422 == answer.status
    assert "prefix" in answer.content.decode()


async def test_a_container_that_is_not_there_fails_the_job_at_once(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        for existing in (True, False):  # with nobody in the audience too
            config = {"container": f"{container}-2", "existing_users": existing}
            failed = await until(opened, await export(opened, azurite, JSON, config), state("failed"))

            assert f"there is no container '{container}-2' in cohortd; there are: {container}" in failed["reason"]


async def test_containers_are_given_as_choices(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        auth = await let_in(opened, azurite.connection_string)
        wanted = {"job_type": JSON, "auth_id": auth, "config": {}, "limit": 1000}
        every = (await opened.post("/v2/provider/azure/containers", wanted, ok=True)).data
        few = (await opened.post("/v2/provider/azure/containers", wanted | {"search": container[3:]}, ok=True)).data

    assert container in [each["value"] for each in every]
    assert [container] == [each["value"] for each in few]


async def test_a_dry_run_shows_members_and_writes_nothing(azurite, container, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10, bob=9)
        auth = await let_in(opened, azurite.connection_string)
        config = {"audiences": ["big"], "container": container, "user_fields": ["email"]}
        found = (await opened.post(f"/v2/job/{JSON}/dryrun", {"config": config, "auth_id": auth}, ok=True)).data

    assert [{"email": "ann@example.org"}] == found["rows"]
    assert [] == azurite.names(container)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="needs gpg")
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_what_is_written_is_encrypted_and_gpg_decrypts_it(azurite, container, tmp_path, open_daemon, compression):
    with gpg_home() as gpg:
        gpg.make("ann")
        async with open_daemon(tmp_path) as opened:
            await define(opened)
            await put(opened, **{f"p{n}": 100 + n for n in range(300)})
            auth = await let_in(opened, azurite.connection_string, pgp_public_key=gpg.public("ann"))
            config = {"audiences": ["big"], "container": container, "user_fields": ["email"], "one_time": True}
            config |= {"compression": compression, "max_file_bytes": 12_000}
            await until(opened, await create(opened, JSON, config, auth_id=auth), state("completed"))
        names = azurite.names(container)
        contents = [azurite.read(container, name) for name in names]
        ending = ".ndjson.gz.pgp" if compression == "gzip" else ".ndjson.pgp"
        clear = [gpg.decrypt(content) for content in contents]

    assert all(name.endswith(ending) for name in names)
    assert max(map(len, contents)) <= 12_000
    assert not [content for content in contents if b"example.org" in content]
    found = [row for name, text in zip(names, clear, strict=True) for row in rows(name.removesuffix(".pgp"), text)]
    assert sorted(f"p{n}@example.org" for n in range(300)) == sorted(row["email"] for row in found)
