"""`cohortd plan`, `apply` and `export` of authorizations and jobs against a daemon, as they are typed."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import orjson
import pytest
from pydantic import Field, SecretStr

from connectors.sdk.catalog import assemble
from connectors.sdk.declare import AuthMethod, EventsExport, EventsJob, Provider, TriggerExport, TriggerJob
from connectors.sdk.run import Credentials

COHORTD = Path(sys.executable).with_name("cohortd")
FILES = {
    "identity/guards.yaml": "refuse:\n- {value: 'nobody*', field: user_id, glob: true, note: test accounts}\n- none\n"
    "limits:\n- {field: user_id, stitches: 20, window_s: 3600}\n",
    "queries/shop.lql": "SELECT user_id, plan FROM web INTO user BY user_id ALIAS shop\n",
    "audiences/vip.fql": 'FILTER plan = "gold" ALIAS vip\n',
    "authorizations/store.yaml": "provider: test\nmethod: password\nlabel: The store\n"
    "config: {host: '${STORE_HOST}', password: 'env:STORE_PASSWORD', headers: {X-Key: 'env:STORE_KEY'}}\n",
    "jobs/live.yaml": "job_type: test_live\nauthorization: The store\nquiet: {time_of_day: 22:00, hours: 8}\n"
    "config: {audiences: [vip]}\n",
    "jobs/nightly.yaml": "job_type: test_batch\nlabel: every night\nauthorization: The store\n"
    "schedule: {frequency: daily, time_of_day: 12:30, time_zone: Europe/Berlin}\nexpires_at: 2099-01-01T00:00:00Z\n"
    "config: {streams: [web]}\n",
}


class Login(Credentials):
    host: str
    port: int = 22
    password: SecretStr
    headers: dict[str, SecretStr] = Field(default_factory=dict)


async def rest(_run) -> None:
    await asyncio.Event().wait()


def known():
    login = AuthMethod("password", "Password", Login)
    kinds = {
        "label": "",
        "description": "",
        "direction": "export",
        "run": rest,
        "auths": (login,),
        "auth_required": True,
    }
    live = TriggerJob(slug="test_live", config=TriggerExport, **kinds)
    batch = EventsJob(slug="test_batch", config=EventsExport, schedule="optional", **kinds)
    return assemble([Provider("test", "Test", "", (live, batch), (login,))])


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setattr("daemon.app.catalog", known)
    monkeypatch.setenv("STORE_HOST", "files.example")
    monkeypatch.setenv("STORE_PASSWORD", "hunter2-hunter2")
    monkeypatch.setenv("STORE_KEY", "key-of-the-store")

    async def shell(*words, status=0):
        process = await asyncio.create_subprocess_exec(
            COHORTD, *map(str, words), "--data-dir", tmp_path / "data", stdout=PIPE, stderr=STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode == status, output.decode()
        return output.decode()

    return shell


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


async def test_a_folder_is_applied_once_whole_and_then_changes_nothing(tmp_path, open_daemon, shell):
    folder = write(tmp_path / "folder", FILES)
    async with open_daemon(tmp_path / "data") as opened:
        planned = await shell("plan", folder)
        applied = await shell("apply", folder)
        again = await shell("apply", folder)
        empty = await shell("plan", folder)
        jobs = {each["label"]: each for each in (await opened.get("/v2/job", ok=True)).data}
        (auth,) = (await opened.get("/v2/auth", ok=True)).data

        made = [line for line in planned.splitlines() if line.startswith("+")]
        assert sorted(applied.splitlines()) == sorted(made)
        assert len(made) == 8
        assert "+ authorization The store" in made
        assert "      password: env:STORE_PASSWORD" in planned
        assert "files.example" not in planned
        assert again == "nothing to change\n"
        assert empty == "nothing to change (8 as they are)\n"
        assert auth["config"] == {"host": "files.example", "port": 22}
        assert auth["secrets"] == {
            "password": {"set": True, "reference": "env:STORE_PASSWORD"},
            "headers/X-Key": {"set": True, "reference": "env:STORE_KEY"},
        }
        assert {each["auth_id"] for each in jobs.values()} == {auth["id"]}
        assert jobs["every night"]["schedule"]["time_of_day"] == "12:30"
        assert jobs["live"]["quiet"]["hours"] == 8


async def test_what_may_change_changes_and_what_may_not_is_said_before_anything_is_done(tmp_path, open_daemon, shell):
    folder = write(tmp_path / "folder", FILES)
    async with open_daemon(tmp_path / "data") as opened:
        await shell("apply", folder)
        second = FILES["authorizations/store.yaml"].replace("The store", "second")
        write(folder, {
            "authorizations/second.yaml": second + "description: newer\n",
            "jobs/live.yaml": FILES["jobs/live.yaml"].replace("The store", "second") + "description: to the second\n",
        })  # fmt: skip
        planned = await shell("plan", folder)
        await shell("apply", folder)
        write(folder, {"jobs/nightly.yaml": FILES["jobs/nightly.yaml"].replace("12:30", "13:30")})
        blocked = await shell("apply", folder, status=1)
        jobs = {each["label"]: each for each in (await opened.get("/v2/job", ok=True)).data}
        auths = {each["id"]: each["label"] for each in (await opened.get("/v2/auth", ok=True)).data}

        assert "~ job live\n    authorization: The store -> second\n    description: none -> to the second\n" in planned
        assert auths[jobs["live"]["auth_id"]] == "second"
        assert jobs["live"]["description"] == "to the second"
        assert "nothing was applied" in blocked
        assert "schedule is daily at 12:30 Europe/Berlin there, daily at 13:30 Europe/Berlin here" in blocked
        assert jobs["every night"]["schedule"]["time_of_day"] == "12:30"


async def test_an_inline_secret_is_refused_with_file_and_key_and_goes_nowhere(tmp_path, open_daemon, shell):
    inline = FILES["authorizations/store.yaml"].replace("env:STORE_PASSWORD", "hunter2-hunter2")
    folder = write(tmp_path / "folder", {"authorizations/store.yaml": inline})
    async with open_daemon(tmp_path / "data") as opened:
        for word in ("plan", "apply"):
            refused = await shell(word, folder, status=1)

            assert f"{folder}/authorizations/store.yaml: config.password: a secret is given by reference" in refused
            assert "hunter2" not in refused
        assert (await opened.get("/v2/auth", ok=True)).data == []


async def test_what_the_folder_lacks_goes_only_when_told(tmp_path, open_daemon, shell):
    folder = write(tmp_path / "folder", FILES)
    async with open_daemon(tmp_path / "data") as opened:
        await shell("apply", folder)
        for name in ("authorizations/store.yaml", "jobs/live.yaml", "jobs/nightly.yaml"):
            (folder / name).unlink()

        careful = await shell("apply", folder)
        left = len((await opened.get("/v2/job", ok=True)).data)
        pruned = await shell("apply", folder, "--prune")

        assert (careful, left) == ("nothing to change\n", 2)
        assert sorted(pruned.splitlines()) == ["- authorization The store", "- job every night", "- job live"]
        assert (await opened.get("/v2/auth", ok=True)).data == []


async def test_what_is_exported_plans_as_nothing_to_change_and_makes_the_same_elsewhere(tmp_path, open_daemon, shell):
    folder, copy, twice = write(tmp_path / "folder", FILES), tmp_path / "copy", tmp_path / "twice"
    async with open_daemon(tmp_path / "data") as opened:
        await shell("apply", folder)
        given = {"label": "given", "config": {"host": "h${x}", "password": "in-clear-in-clear"}}
        sealed = await opened.post("/v2/auth/test/password", given, ok=True)
        more = {"label": "more", "auth_id": sealed.data["id"], "config": {}}
        await opened.post("/v2/job/test_batch", more, ok=True)

        told = await shell("export", copy)
        planned = await shell("plan", copy, "--prune")
        refused = await shell("export", copy, status=1)
        await shell("export", copy, "--overwrite")

    texts = "\n".join(path.read_text() for path in copy.rglob("*.*"))
    for secret in ("hunter2", "key-of-the-store", "in-clear"):
        assert secret not in texts
    assert f"{copy}: 1 in identity/, 1 in queries/, 1 in audiences/, 2 in authorizations/, 3 in jobs/\n" == told
    assert "nothing to change (10 as they are)" in planned
    assert "authorization given: password: given in clear once, and sealed; cannot be compared" in planned
    assert "is not empty; name a new folder, or give --overwrite" in refused

    (tmp_path / "data").rename(tmp_path / "old")
    async with open_daemon(tmp_path / "data"):
        missing = await shell("apply", copy, status=1)
        assert "environment variable COHORTD_GIVEN_PASSWORD is not set" in missing
        path = copy / "authorizations" / "given.yaml"
        path.write_text(path.read_text().replace("COHORTD_GIVEN_PASSWORD", "STORE_PASSWORD"))
        await shell("apply", copy)
        await shell("export", twice)

    exported = {path.relative_to(copy): path.read_text() for path in copy.rglob("*.*")}
    assert exported == {path.relative_to(twice): path.read_text() for path in twice.rglob("*.*")}


async def test_jobs_of_one_name_are_left_out_of_an_export_and_said_so(tmp_path, open_daemon, shell):
    folder = write(tmp_path / "folder", FILES)
    async with open_daemon(tmp_path / "data") as opened:
        await shell("apply", folder)
        (job,) = (await opened.get("/v2/job?text=live", ok=True)).data
        await opened.post(f"/v2/job/{job['id']}/copy", {"label": "live"}, ok=True)

        told = await shell("export", tmp_path / "copy", "--json", status=1)

        left_out = orjson.loads(told)["left_out"]
        assert left_out == ["2 jobs are called 'live'; give them labels: cohortd job edit ID --label …"]
        assert [path.name for path in (tmp_path / "copy" / "jobs").iterdir()] == ["every-night.yaml"]
