"""Erasing and exporting a person through the running daemon: API, command line, destinations, kill in the middle."""

from __future__ import annotations

import asyncio
import io
import sqlite3
import sys
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path

import orjson

from daemon.ingest.replay import replay

QUERY = "SELECT user_id, email(email) AS email, plan FROM web INTO user BY user_id OR email ALIAS web"
AUDIENCE = "FILTER EXISTS plan FROM user ALIAS planned"
ANN = "ann.very.distinct@example.com"


def in_files(folder, *texts):
    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes().lower() if path.is_file() and not path.is_socket() else b""
        found += [(path.name, text) for text in texts if text.lower().encode() in content]
    return found


async def until_done(client, number="1"):
    while True:
        found = (await client.get(f"/v2/erasure/{number}", ok=True)).data
        if found["state"] == "done":
            return found
        await asyncio.sleep(0.02)


async def settled(client):
    while any((await client.get("/v2/status", ok=True)).data["lag"].values()):
        await asyncio.sleep(0.02)


async def define(client):
    await client.post("/api/query", data=QUERY, ok=True)
    await client.post("/api/segment", data=AUDIENCE, ok=True)


async def cohortd(*arguments, data_dir):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from daemon.cli import main; main()", *arguments, "--data-dir", str(data_dir),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def same(folder):
    with tempfile.TemporaryDirectory() as name:
        report = await replay(folder / "events.db", folder / "state.db", Path(name) / "again.db")
    assert report.differences == []
    assert report.same


async def test_an_erased_person_leaves_destinations_profile_log_and_files(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path) as opened, open_receiver() as receiver:
        await define(opened)
        config = {"audiences": ["planned"], "url": receiver.address}
        await opened.post("/v2/job/webhook_triggers", {"label": "x", "config": config}, ok=True)
        events = [{"user_id": "a", "email": ANN, "plan": "x", "_id": f"order {ANN}"}, {"user_id": "b", "_id": "b"}]
        await opened.post("/collect/json/web", events, ok=True)
        refused = await opened.post("/collect/json/web", [{"email": ANN, "_ts": "nonsense"}])
        assert refused.data["rejected_count"] == 1
        await receiver.until(lambda it: len(it.events) == 1)
        receiver.status = 500

        accepted = await opened.delete(f"/api/entity/user/email/{ANN.upper()}", ok=True)
        while (await opened.get("/v2/erasure/1", ok=True)).data["state"] != "delivering":
            await asyncio.sleep(0.02)
        receiver.status = 200
        await receiver.until(lambda it: it.events == [("planned", "enter"), ("planned", "exit")])
        done = await until_done(opened)

        assert (accepted.message, accepted.data["id"], accepted.data["state"]) == ("deleted", "1", "scrubbing")
        assert (done["scrubbed"], done["rejects"], done["snapshots"], done["searched"]) == (1, 1, 1, 1.0)
        assert receiver.messages[-1]["data"]["email"] == ANN
        assert in_files(tmp_path, ANN) == []
        listed = (await opened.get("/v2/erasure", ok=True)).body
        assert ([each["id"] for each in listed["data"]], listed["total"], listed["turned_away"]) == (["1"], 1, 0)
        assert (await opened.get("/v2/erasure/2")).status == 404
        assert (await opened.delete(f"/api/entity/user/email/{ANN}")).status == 404
        assert (await opened.delete("/api/entity/user/user_id/b?allow_return=maybe")).status == 400
        await opened.post("/collect/json/web", {"email": ANN, "plan": "back"}, ok=True)
        await settled(opened)
        for path in (f"/api/entity/user/email/{ANN}", f"/v2/entity/user/email/{ANN.upper()}/explain/planned"):
            nobody = await opened.get(path)
            assert nobody.status == 404
            assert "(erasure 1), and is kept out until `cohortd profile admit` lets them in" in nobody.message
        assert "erased" not in (await opened.get("/api/entity/user/email/nobody@example.com")).message
        assert (await opened.get("/v2/erasure", ok=True)).body["turned_away"] == 1
        assert (await opened.post(f"/v2/entity/user/email/{ANN}/admit", ok=True)).data == {"erasures": ["1"]}
        assert (await opened.post(f"/v2/entity/user/email/{ANN}/admit")).status == 404
        await opened.post("/collect/json/web", {"email": ANN, "plan": "again"}, ok=True)
        await settled(opened)
        assert (await opened.get(f"/api/entity/user/email/{ANN}", ok=True)).data["plan"] == "again"
    await same(tmp_path)


async def test_what_destinations_said_of_the_person_is_taken_from_everything_told_of_jobs(tmp_path, open_daemon):
    said = f"the destination says: {ANN} is unknown"
    line = "INSERT INTO job_log (job_id, at_us, level, code, message) VALUES ('j', 1, 'warning', 'X', ?)"
    event = """INSERT INTO system_event (uid, at_us, subject, subject_id, verb, body, forwarded)
        VALUES ('u', 1, 'job', 'j', 'failed', json_object('reason', ?), 1)"""

    def write(db):
        db.execute(line, (said,))
        db.execute(line, ("somebody else is unknown",))
        db.execute(
            "INSERT INTO job_run (job_id, run_id, began_us, ended_us, reason) VALUES ('j', 'r', 1, 2, ?)", (said,)
        )
        db.execute("UPDATE job SET reason = ?", (said,))
        db.execute(event, (said,))

    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await opened.post("/collect/json/web", {"user_id": "a", "email": ANN, "plan": "x"}, ok=True)
        await settled(opened)
        config = {"audiences": ["planned"], "folder": "out"}
        job = (await opened.post("/v2/job/files_export_triggers", {"config": config}, ok=True)).data["id"]
        await opened.post(f"/v2/job/{job}/pause", {}, ok=True)
        state = opened.daemon.services.state
        await state.write(write)
        await opened.delete(f"/api/entity/user/email/{ANN}", ok=True)
        while (await opened.get("/v2/erasure/1", ok=True)).data["state"] != "delivering":
            await asyncio.sleep(0.02)
        reason = (await opened.get(f"/v2/job/{job}", ok=True)).data["reason"]
        await opened.delete(f"/v2/job/{job}", ok=True)  # it is paused, and its exits wait for it
        await until_done(opened)
        kept = await state.read(lambda db: [row[0] for row in db.execute("SELECT message FROM job_log").fetchall()])

    assert in_files(tmp_path, ANN) == []
    assert "somebody else is unknown" in kept
    assert "(erased)" in kept
    assert reason == "(erased)"


async def test_only_an_admin_erases_and_exports(tmp_path, open_daemon, make_token):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await opened.post("/collect/json/web", {"user_id": "a"}, ok=True)
        await settled(opened)
        reader = make_token(tmp_path, "read")

        assert (await opened.get("/v2/entity/user/user_id/a/export", token=reader)).status == 403
        assert (await opened.delete("/api/entity/user/user_id/a", token=reader)).status == 403
        assert (await opened.post("/v2/entity/user/user_id/a/admit", token=reader)).status == 403
        assert (await opened.get("/v2/entity/user/user_id/zzz/export")).status == 404
        assert (await opened.get("/v2/erasure", token=reader)).status == 200


async def test_an_archive_has_all_that_is_held_of_a_person(tmp_path, open_daemon, open_receiver):
    async with open_daemon(tmp_path) as opened, open_receiver() as receiver:
        await define(opened)
        config = {"audiences": ["planned"], "url": receiver.address}
        await opened.post("/v2/job/webhook_triggers", {"label": "news", "config": config}, ok=True)
        sent = [{"user_id": "a", "plan": "x", "_ts": "2026-01-02T03:04:05Z"}, {"email": ANN, "plan": "y"}]
        for each in sent:
            await opened.post("/collect/json/web", each, ok=True)
            await settled(opened)
        await opened.post("/collect/json/web", {"user_id": "a", "email": ANN}, ok=True)
        await opened.post("/collect/json/web", {"user_id": "b", "email": "b@example.com", "plan": "z"}, ok=True)
        await opened.post("/collect/json/web", {"user_id": "a", "email": "b@example.com"}, ok=True)
        await opened.post("/collect/json/other", {"who": ANN}, ok=True)
        await settled(opened)
        await receiver.until(lambda it: len(it.events) == 4)

        answer = await opened.get(f"/v2/entity/user/email/{ANN}/export", ok=True)

        assert answer.headers["Content-Type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            content = {name: archive.read(name) for name in archive.namelist()}
        assert list(content) == [
            "README.txt", "profile.json", "splits.json", "memberships.json", "triggers.ndjson", "deliveries.ndjson",
            "events.ndjson",
        ]  # fmt: skip
        assert orjson.loads(content["splits.json"]) == []
        for name in list(content)[1:]:
            assert name in content["README.txt"].decode()
        profile = orjson.loads(content["profile.json"])
        assert {each["name"]: each["value"] for each in profile["fields"]} == {
            "user_id": "a",
            "email": ANN,
            "plan": "y",
        }
        assert profile["keys"] == {"user_id": ["a"], "email": [ANN]}
        assert len(profile["links"]) == 1
        assert [each["reason"] for each in profile["refused_stitches"]] == ["conflict"]
        events = [orjson.loads(line) for line in content["events.ndjson"].splitlines()]
        assert [each["body"].get("plan") for each in events] == ["x", "y", None, None, None]
        assert [each["found_by"] for each in events] == ["query"] * 4 + ["text"]
        assert events[0]["time"] == "2026-01-02T03:04:05Z"
        (membership,) = orjson.loads(content["memberships.json"])
        assert (membership["audience"], membership["member"]) == ("planned", True)
        triggers = [orjson.loads(line) for line in content["triggers.ndjson"].splitlines()]
        assert [(each["event"], each["cause"]) for each in triggers] == [
            ("enter", "event"), ("enter", "event"), ("exit", "merge"),
        ]  # fmt: skip
        deliveries = [orjson.loads(line) for line in content["deliveries.ndjson"].splitlines()]
        assert [each["label"] for each in deliveries] == ["news"] * 3
        assert {each["state"] for each in deliveries} <= {"done", "waiting"}


async def test_an_archive_has_what_a_split_has_kept_of_the_person(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        for each in ({"email": ANN, "plan": "x"}, {"user_id": "a", "plan": "y"}, {"user_id": "a", "email": ANN}):
            await opened.post("/collect/json/web", each, ok=True)
            await settled(opened)
        await opened.post("/v2/entity/user/user_id/a/split", {"keys": [["email", ANN]]}, ok=True)
        await opened.post("/collect/json/web", {"email": ANN, "plan": "later"}, ok=True)
        await settled(opened)

        answer = await opened.get(f"/v2/entity/user/email/{ANN}/export", ok=True)

        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            (half,) = orjson.loads(archive.read("splits.json"))
            assert b"user_id" not in archive.read("splits.json")
        assert (half["keys"], half["fields"]) == ({"email": [ANN]}, {"email": ANN, "plan": "x"})


async def test_the_commands_erase_show_admit_and_export(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await opened.post("/collect/json/web", [{"user_id": "a", "email": ANN}, {"user_id": "b"}], ok=True)
        await settled(opened)
        file = tmp_path / "a.zip"

        exported = await cohortd("profile", "export", "user_id", "a", "--output", str(file), data_dir=tmp_path)
        nobody = await cohortd("profile", "export", "user_id", "zzz", "--output", str(file) + "2", data_dir=tmp_path)
        erased = await cohortd("profile", "erase", "email", ANN, "--yes", "--wait", "--json", data_dir=tmp_path)
        listed = await cohortd("profile", "erasures", data_dir=tmp_path)
        one = await cohortd("profile", "erasures", "1", "--json", data_dir=tmp_path)
        again = await cohortd("profile", "erase", "email", ANN, "--yes", data_dir=tmp_path)
        admitted = await cohortd("profile", "admit", "user_id", "a", data_dir=tmp_path)

        assert exported[0] == 0, exported[1]
        assert zipfile.ZipFile(file).testzip() is None
        assert file.stat().st_mode & 0o777 == 0o600
        assert (nobody[0], "there is no profile" in nobody[1]) == (1, True)
        assert [path.name for path in tmp_path.glob("*a.zip*")] == ["a.zip"]
        assert (erased[0], orjson.loads(erased[1])["state"]) == (0, "done"), erased[1]
        assert "done" in listed[1]
        assert orjson.loads(one[1])["scrubbed"] == 1
        assert again[0] == 1
        assert (admitted[0], admitted[1]) == (0, "admitted (erasure 1)\n")


async def test_a_kill_in_the_middle_of_scrubbing_is_gone_on_from(tmp_path, start_cohortd):
    folder = tmp_path / "data"
    async with start_cohortd(folder) as process:
        await define(process.client)
        others = [{"user_id": f"u{each % 50}", "email": f"u{each % 50}@example.com"} for each in range(20_000)]
        lines = [
            orjson.dumps({"user_id": "a", "email": ANN} if not each % 11 else others.pop()) for each in range(22_000)
        ]
        headers = {"Content-Type": "application/x-ndjson"}
        for at in range(0, 22_000, 5_500):
            body = b"\n".join(lines[at : at + 5_500])
            await process.client.post("/collect/bulk/web", data=body, headers=headers, ok=True)
        await settled(process.client)
        await process.client.delete("/api/entity/user/user_id/a", ok=True)
        seen = 0
        for _ in range(4):
            while True:
                found = (await process.client.get("/v2/erasure/1", ok=True)).data
                if found["events_looked"] > seen or found["state"] == "done":
                    break
                await asyncio.sleep(0.005)
            seen = found["events_looked"]
            await process.kill()
            await process.start()
        done = await until_done(process.client)
        assert (done["scrubbed"], done["events_looked"]) == (2_000, 22_000)
        assert await process.stop() == 0

    assert seen < 22_000
    assert in_files(folder, ANN) == []
    with closing(sqlite3.connect(folder / "events.db")) as db:
        assert db.execute("SELECT count(*) FROM event_bulk WHERE body = '{\"_erased\":true}'").fetchone() == (2_000,)
    await same(folder)
