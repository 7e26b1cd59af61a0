"""Files in and out of a real daemon, killed in the middle; what comes out is read by somebody else's reader."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import os
import sqlite3
import time
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from driving import create, define, put, state, until

from connectors.sdk.files.output import ENDINGS


def old(path: Path) -> Path:
    at = time.time() - 100
    os.utime(path, (at, at))
    return path


def written(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file() and not each.name.startswith("."))


def rows_of(path: Path) -> list[dict[str, str]]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as file:
            (name,) = file.namelist()
            assert name == path.stem
            content = file.read(name)
    text = content.decode()
    if ".csv" in path.name:
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    return [json.loads(line) for line in text.splitlines()]


def logged(folder: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder / "events.db")) as db:
        return [json.loads(body) for (body,) in db.execute("SELECT body FROM event_bulk ORDER BY position")]


# --- import


@pytest.mark.parametrize(("compression", "diff"), [("plain", False), ("gzip", True)])
async def test_an_import_killed_again_and_again_brings_each_row_once(tmp_path, start_cohortd, compression, diff):
    count = 30_000
    sink = io.StringIO()
    writer = csv.DictWriter(sink, ("email", "n", "note"))
    writer.writeheader()
    expected = [
        {"email": f"p{n}@example.org", "n": str(n), "note": 'a "quote",\nand a line' if n % 50 == 0 else ""}
        for n in range(count)
    ]
    writer.writerows(expected)
    content = sink.getvalue().encode()
    data = tmp_path / "data"
    (data / "imports").mkdir(parents=True)
    path = data / "imports" / "people.csv"
    path.write_bytes(gzip.compress(content) if compression == "gzip" else content)
    old(path)
    kills = 0
    async with start_cohortd(data) as cohortd:
        config = {"stream": "people", "folder": ".", "file": "people.csv", "diff": diff}
        job = await create(cohortd.client, "files_import", config)
        while kills < 5:
            before = len(logged(data))
            async with asyncio.timeout(30):
                while len(logged(data)) == before:
                    await asyncio.sleep(0.005)
            if (await cohortd.client.get(f"/v2/job/{job}")).data["state"] == "completed":
                break
            await cohortd.kill()
            kills += 1
            await cohortd.start()
        await until(cohortd.client, job, state("completed"))
        stats = (await cohortd.client.get("/v2/stream/people/stats", ok=True)).data
        await cohortd.kill()

    assert kills >= 2
    assert logged(data) == expected
    assert stats


async def test_files_are_taken_as_they_come_and_the_job_says_what_it_waits_for(tmp_path, open_daemon):
    folder = tmp_path / "imports" / "daily"
    folder.mkdir(parents=True)
    async with open_daemon(tmp_path) as opened:
        config = {
            "stream": "people",
            "folder": "daily",
            "prefix": "p-",
            "continuous": True,
            "poll_seconds": 1,
            "settle_seconds": 0,
            "timestamp_field": "at",
            "fields": ["email"],
        }
        job = await create(opened, "files_import", config)
        waiting = await until(opened, job, state("sleeping"))
        (folder / "p-20260101.ndjson").write_text('{"email":"a@b.c","at":"2026-01-01","x":1}\n{"email":7,"at":"no"}\n')
        await until(opened, job, lambda it: "p-20260101" in it["reason"])
        (folder / "p-20260102.csv").write_text("email,at\nb@b.c,2026-01-02\n")
        found = await until(opened, job, lambda it: "p-20260102" in it["reason"])

        assert "waits for a file p-…" in waiting["reason"]
        assert found["state"] == "sleeping"
        assert found["errors"] == 0
    assert logged(tmp_path) == [{"email": "a@b.c"}, {"email": "b@b.c"}]


async def test_a_dry_run_shows_the_first_rows_and_keeps_nothing(tmp_path, open_daemon):
    folder = tmp_path / "imports" / "daily"
    folder.mkdir(parents=True)
    (folder / "p.csv").write_text("email,at,x\n" + "".join(f"{n}@b.c,2026-01-0{n % 9 + 1},1\n" for n in range(30)))
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10, bob=9)
        config = {"stream": "people", "folder": "daily", "file": "p.csv", "fields": ["email"], "settle_seconds": 0}
        rows = (await opened.post("/v2/job/files_import/dryrun", {"config": config}, ok=True)).data
        absent = {"config": config | {"file": "q.csv"}}
        missing = (await opened.post("/v2/job/files_import/dryrun", absent, ok=True)).data
        export = {"config": {"audiences": ["big"], "folder": "out", "format": "csv", "user_fields": ["email"]}}
        members = (await opened.post("/v2/job/files_export_audience/dryrun", export, ok=True)).data
        unknown = {"config": export["config"] | {"audiences": ["nobody"]}}
        refused = await opened.post("/v2/job/files_export_audience/dryrun", unknown)
        never = await opened.post("/v2/job/files_export_audience", unknown)
        events = (await opened.post("/v2/job/files_export_events/dryrun", {"config": {"folder": "out"}}, ok=True)).data
        sending = await opened.post("/v2/job/files_import/dryrun?send=1", {"config": config})
        jobs = (await opened.get("/v2/job", ok=True)).data

    assert [{"email": f"{n}@b.c"} for n in range(10)] == rows["rows"]
    assert (None, []) == (rows["error"], missing["rows"])
    assert "q.csv" in missing["error"]
    assert [{"email": "ann@example.org"}] == members["rows"]
    assert (422, 422, 422) == (refused.status, never.status, sending.status)
    assert "nobody" in never.message
    assert 2 == len(events["rows"])
    assert ([], [], False) == (jobs, logged(tmp_path), (tmp_path / "exports").exists())


async def test_choices_of_folders_and_files_are_given_by_the_api(tmp_path, open_daemon):
    folder = tmp_path / "imports" / "daily"
    folder.mkdir(parents=True)
    (folder / "p-20260101.csv").write_text("email,at\nb@b.c,2026-01-02\n")
    async with open_daemon(tmp_path) as opened:
        schema = (await opened.get("/v2/provider/files", ok=True)).data
        answers = [
            await opened.post(f"/v2/provider/files/{name}", {"job_type": "files_import", "config": config})
            for name, config in [
                ("folders", {}),
                ("files", {"folder": "daily"}),
                ("columns", {"folder": "daily", "file": "p-20260101.csv"}),
            ]
        ]

    assert "x-choices" in json.dumps(schema)
    assert [[each["value"] for each in answer.data] for answer in answers if answer.status == 200] == [
        [".", "daily"],
        ["p-20260101.csv"],
        ["email", "at"],
    ]


# --- audience


async def test_the_members_of_now_are_written_once_as_csv(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10, bob=9, cid=12)
        config = {
            "audiences": ["big"],
            "folder": "out",
            "format": "csv",
            "delimiter": ";;",
            "join": "+",
            "user_fields": ["email", "tags", "numbers", "n"],
            "one_time": True,
        }
        job = await create(opened, "files_export_audience", config)
        await until(opened, job, state("completed"))
        metrics = (await opened.get(f"/v2/job/{job}/metrics", ok=True)).data

    (path,) = written(tmp_path / "exports" / "out")
    text = path.read_text()
    assert (2, 2) == (metrics["added"], sum(each["added"] for each in metrics["activity"]))
    assert text.splitlines()[0] == "email;tags;numbers;n"
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=";", strict=True))
    assert [(row["email"], row["n"], set(row["tags"].split("+"))) for row in rows] == [
        ("ann@example.org", "10", {"x", "t10"}),
        ("cid@example.org", "12", {"x", "t12"}),
    ]
    assert parse_qs(rows[0]["numbers"]) == {"x": ["10"]}


async def test_files_go_on_in_the_next_before_they_are_too_large_and_nobody_is_lost(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, **{f"p{n}": 100 + n for n in range(300)})
        for form in ("json", "csv"):
            config = {
                "audiences": ["big"],
                "folder": form,
                "format": form,
                "user_fields": ["email"],
                "one_time": True,
                "max_file_bytes": 1000,
            }
            await until(opened, await create(opened, "files_export_audience", config), state("completed"))

    for form in ("json", "csv"):
        files = written(tmp_path / "exports" / form)
        found = [row["email"] for path in files for row in rows_of(path)]
        assert sorted(found) == sorted(f"p{n}@example.org" for n in range(300))
        assert len(files) > 5
        assert max(path.stat().st_size for path in files) <= 1000


async def test_after_the_members_come_those_who_enter_and_leave_and_nobody_twice(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10, bob=9)
        config = {
            "audiences": ["big"],
            "folder": "out",
            "events": "both",
            "user_fields": ["email"],
            "every_seconds": 3600,
            "compression": "gzip",
        }
        job = await create(opened, "files_export_audience", config)
        await until(opened, job, state("sleeping"))
        await put(opened, bob=11, cid=12)
        await put(opened, ann=1)
        await opened.post(f"/v2/job/{job}/run", ok=True)
        async with asyncio.timeout(20):
            while len(written(tmp_path / "exports" / "out")) < 2:
                await asyncio.sleep(0.02)
        await until(opened, job, state("sleeping"))
        await opened.post(f"/v2/job/{job}/run", ok=True)
        await until(opened, job, lambda it: it["runs"] == 3 and it["state"] == "sleeping")

    first, second = (rows_of(path) for path in written(tmp_path / "exports" / "out"))
    assert first == [{"email": "ann@example.org"}]
    assert [(row["email"][:3], row["_event"], row["_audience"]) for row in second] == [
        ("bob", "enter", "big"),
        ("cid", "enter", "big"),
        ("ann", "exit", "big"),
    ]


async def test_without_the_existing_members_only_those_who_come_are_written(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10)
        config = {"audiences": ["big"], "folder": "out", "existing_users": False, "user_fields": ["email"]}
        job = await create(opened, "files_export_audience", config)
        await until(opened, job, state("sleeping"))
        await put(opened, bob=11)
        await opened.post(f"/v2/job/{job}/run", ok=True)
        await until(opened, job, lambda it: it["runs"] == 2 and it["state"] == "sleeping")

    (path,) = written(tmp_path / "exports" / "out")
    assert rows_of(path) == [{"email": "bob@example.org"}]


async def test_an_export_of_members_killed_in_the_middle_has_everybody_once(tmp_path, start_cohortd):
    data = tmp_path / "data"
    count = 5000
    kills = 0
    async with start_cohortd(data) as cohortd:
        await define(cohortd.client)
        body = b"".join(b'{"email":"p%d@example.org","n":%d,"tag":"x"}\n' % (n, 10 + n) for n in range(count))
        headers = {"Content-Type": "application/x-ndjson"}
        await cohortd.client.call("POST", "/collect/bulk/people", data=body, headers=headers, ok=True)
        async with asyncio.timeout(60):
            while (await cohortd.client.get("/api/segment/big")).data["size"] < count:
                await asyncio.sleep(0.1)
        config = {"audiences": ["big"], "folder": "out", "user_fields": ["email", "n"], "format": "csv"}
        config |= {"one_time": True, "max_file_bytes": 20_000}
        job = await create(cohortd.client, "files_export_audience", config)
        folder = data / "exports" / "out"
        while True:
            before = len(written(folder)) if folder.exists() else 0
            async with asyncio.timeout(30):
                while True:
                    done = (await cohortd.client.get(f"/v2/job/{job}")).data["state"] == "completed"
                    if done or (folder.exists() and len(written(folder)) > before):
                        break
            if done or kills == 4:
                break
            await cohortd.kill()
            kills += 1
            await cohortd.start()
        await until(cohortd.client, job, state("completed"))

    files = written(folder)
    assert sorted(int(row["n"]) for path in files for row in rows_of(path)) == list(range(10, 10 + count))
    assert kills >= 1
    assert not [each for each in folder.iterdir() if each.name.startswith(".")]


async def test_where_the_log_forgot_what_changed_all_members_are_written_again(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await put(opened, ann=10)
        job = await create(
            opened, "files_export_audience", {"audiences": ["big"], "folder": "out", "user_fields": ["email"]}
        )
        await until(opened, job, state("sleeping"))
        await put(opened, bob=10)
        await put(opened, cid=10)
        await opened.daemon.services.state.write(
            lambda db: db.execute("DELETE FROM trigger WHERE id < (SELECT max(id) FROM trigger)")
        )
        await opened.post(f"/v2/job/{job}/run", ok=True)
        await until(opened, job, lambda it: it["runs"] == 2 and it["state"] == "sleeping")

    files = [[row["email"][:3] for row in rows_of(path)] for path in written(tmp_path / "exports" / "out")]
    assert files == [["ann"], ["ann", "bob", "cid"]]


# --- events


@pytest.mark.parametrize("compression", ["none", "gzip", "zip"])
async def test_events_come_out_as_they_went_in_with_stable_columns(tmp_path, open_daemon, compression):
    ending = ENDINGS[compression]
    async with open_daemon(tmp_path) as opened:
        await opened.post("/collect/json/a", [{"b": 1, "deep": {"x": [1, 2]}}, {"c": 'say "x",\ny'}], ok=True)
        await opened.post("/collect/json/other", {"z": 1}, ok=True)
        config = {
            "streams": ["a"],
            "folder": "out",
            "filename": "/sub/ev-{TIMESTAMP}",
            "timestamp_format": "unix_ms",
            "compression": compression,
        }
        job = await create(opened, "files_export_events", config, schedule={"frequency": "monthly"})
        await until(opened, job, state("sleeping"))
        await opened.post("/collect/json/a", {"a": True, "c": None}, ok=True)
        for runs in (2, 3):
            await opened.post(f"/v2/job/{job}/run", ok=True)
            await until(opened, job, lambda it, runs=runs: it["runs"] == runs and it["state"] == "sleeping")

    first, second = written(tmp_path / "exports" / "out" / "sub")
    assert first.name.endswith(f".csv{ending}")
    (one, two), (three,) = rows_of(first), rows_of(second)
    head = ["_stream", "_event_at", "_received_at"]
    assert list(one) == [*head, "b", "c", "deep.x"]
    assert list(three) == [*head, "b", "c", "deep.x", "a"]
    assert (one["b"], one["deep.x"], two["c"], three["a"], three["c"]) == ("1", "[1,2]", 'say "x",\ny', "true", "")
    assert one["_stream"] == "a"


async def test_events_between_two_days_the_first_included_the_last_not(tmp_path, open_daemon, frozen_clock):
    day = 86_400_000_000
    async with open_daemon(tmp_path) as opened:
        for number in range(4):  # the clock begins at 2026-01-01T00:00:00Z
            await opened.post("/collect/json/a", {"n": number}, ok=True)
            frozen_clock.us += day
        config = {"folder": "out", "start": "2026-01-02", "end": "2026-01-04", "header": False, "delimiter": "t"}
        await until(opened, await create(opened, "files_export_events", config), state("completed"))

    (path,) = written(tmp_path / "exports" / "out")
    assert path.name == "events-2026-01-05T00-00-00.csv"
    assert [line.split("\t")[-1] for line in path.read_text().splitlines()] == ["1", "2"]


async def test_an_export_until_a_day_is_completed_when_that_has_come_whatever_its_schedule(
    tmp_path, open_daemon, frozen_clock
):
    async with open_daemon(tmp_path) as opened:
        await opened.post("/collect/json/a", {"n": 1}, ok=True)
        config = {"folder": "out", "end": "2026-01-02"}
        job = await create(opened, "files_export_events", config, schedule={"frequency": "daily"})
        await until(opened, job, state("sleeping"))
        frozen_clock.us += 86_400_000_000
        await opened.post(f"/v2/job/{job}/run", {}, ok=True)
        await until(opened, job, state("completed"))


async def test_a_scheduled_export_of_events_killed_in_the_middle_has_each_once(tmp_path, start_cohortd):
    data = tmp_path / "data"
    count = 20_000
    async with start_cohortd(data) as cohortd:
        body = b"".join(b'{"n":%d,"k%d":1}\n' % (n, n % 7) for n in range(count))
        headers = {"Content-Type": "application/x-ndjson"}
        await cohortd.client.call("POST", "/collect/bulk/a", data=body, headers=headers, ok=True)
        job = await create(cohortd.client, "files_export_events", {"folder": "out"}, schedule={"frequency": "monthly"})
        folder = data / "exports" / "out"
        async with asyncio.timeout(30):
            while not folder.exists() or not list(folder.glob(".*.part")):
                if (await cohortd.client.get(f"/v2/job/{job}")).data["state"] != "running":
                    break
        await cohortd.kill()
        await cohortd.start()
        await until(cohortd.client, job, state("sleeping"))
        await cohortd.client.post(f"/v2/job/{job}/run", ok=True)
        await until(cohortd.client, job, lambda it: it["runs"] >= 2 and it["state"] == "sleeping")

    found = [int(row["n"]) for path in written(folder) for row in rows_of(path)]
    assert found == list(range(count))
