"""`cohortd job …`, as it is typed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import orjson
import pytest

COHORTD = Path(sys.executable).with_name("cohortd")
CONFIG = {"audiences": ["vip"], "url": "http://127.0.0.1:9/hook"}
SHOP = "SELECT user_id, plan FROM web INTO user BY user_id ALIAS shop"
VIP = 'FILTER plan = "gold" ALIAS vip'


class Shell:
    """Types commands against a daemon; gives their output, errors too."""

    def __init__(self, data_dir):
        self.data_dir = data_dir

    async def start(self, *words):
        return await asyncio.create_subprocess_exec(
            COHORTD, *map(str, words), "--data-dir", self.data_dir, stdin=PIPE, stdout=PIPE, stderr=STDOUT
        )

    async def __call__(self, *words, status=0, stdin=None):
        process = await self.start(*words)
        output, _ = await process.communicate(stdin.encode() if stdin else None)
        assert process.returncode == status, output.decode()
        return output.decode()

    async def json(self, *words, **options):
        return orjson.loads(await self(*words, "--json", **options))

    async def create(self, label, *words, config=CONFIG, status=0):
        return await self(
            "job", "create", "webhook_triggers", "--label", label, "--config", "-", *words,
            stdin=orjson.dumps(config).decode(), status=status,
        )  # fmt: skip


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


async def define(opened):
    await opened.post("/api/query", data=SHOP, ok=True)
    await opened.post("/api/segment", data=VIP, ok=True)


async def test_a_job_is_created_found_by_its_label_and_shown_as_people_read_it(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path) as opened:
        await define(opened)

        made = await shell.create(
            "to the crm", "--description", "golden ones", "--quiet-from", "22:00", "--quiet-hours", "8", "--zone",
            "Europe/Berlin", "--expires", "2099-01-01T00:00:00Z",
        )  # fmt: skip
        shown = await shell("job", "show", "to the crm")
        whole = await shell.json("job", "show", "to the crm")

        assert made.splitlines()[1:4] == shown.splitlines()[1:4]
        lines = [line.split(maxsplit=1) for line in shown.splitlines()]
        assert ["label", "to the crm"] in lines
        assert ["description", "golden ones"] in lines
        assert ["quiet", "22:00 for 8 h Europe/Berlin"] in lines
        assert ["expires", "2099-01-01T00:00:00Z"] in lines
        assert "url: http://127.0.0.1:9/hook" in shown
        assert whole["quiet"] == {"time_of_day": "22:00", "hours": 8, "time_zone": "Europe/Berlin", "drop": False}
        assert await shell.json("job", "show", whole["id"][:6]) == await shell.json("job", "show", whole["id"])


async def test_jobs_are_listed_by_what_they_are(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        assert await shell("job", "list") == "no jobs\n"
        for label in ("a", "b", "c"):
            await shell.create(label)
        await shell("job", "pause", "b")

        listed = await shell("job", "list")
        paused = await shell.json("job", "list", "--state", "paused")
        some = await shell.json("job", "list", "--limit", "2")

        assert listed.splitlines()[0].split() == [
            "id", "label", "provider", "type", "direction", "authorization", "status", "reason", "modified"
        ]  # fmt: skip
        assert listed.splitlines()[-1] == "2 running, 1 paused"
        assert [each["label"] for each in paused] == ["b"]
        assert [each["label"] for each in some] == ["a", "b"]
        assert await shell.json("job", "list", "--text", "c", "--provider", "webhook") != []
        assert "is not one of 'running'" in await shell("job", "list", "--state", "asleep", status=2)


async def test_a_job_is_edited_copied_paused_resumed_completed_and_deleted(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await shell.create("one")

        edited = await shell.json("job", "edit", "one", "--label", "first", "--description", "of two")
        copied = await shell.json("job", "copy", "first", "--label", "second")
        states = [(await shell.json("job", word, "second"))["state"] for word in ("pause", "resume", "run", "complete")]
        deleted = await shell("job", "delete", "first")

        assert (edited["label"], edited["description"]) == ("first", "of two")
        assert (copied["label"], copied["config"]) == ("second", edited["config"])
        assert states == ["paused", "running", "running", "completed"]
        assert deleted == f"job {edited['id']} deleted\n"
        assert [each["label"] for each in await shell.json("job", "list")] == ["second"]


async def test_an_authorization_is_made_with_its_job_or_neither(tmp_path, open_daemon, shell, monkeypatch):
    monkeypatch.setenv("HOOK_TOKEN", "the-token-of-the-hook")
    given = tmp_path / "auth.yaml"
    given.write_text("method: bearer\nlabel: hook\nconfig: {token: 'env:HOOK_TOKEN'}\n")
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        refused = await shell.create("bad", "--new-auth", given, config=CONFIG | {"url": "nonsense"}, status=1)
        none_yet = (await opened.get("/v2/auth", ok=True)).data

        await shell.create("crm", "--new-auth", given)
        shown = await shell("job", "show", "crm")
        of_hook = await shell.json("job", "list", "--auth", "hook")
        both = await shell.create("x", "--new-auth", given, "--auth", "hook", status=2)

        assert "url" in refused
        assert none_yet == []
        assert ["authorization", "hook"] in [line.split() for line in shown.splitlines()]
        assert [each["label"] for each in of_hook] == ["crm"]
        assert "give one of them" in both


async def test_every_refusal_says_what_to_do(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await shell.create("twin")
        await shell.create("twin")

        unknown = await shell("job", "show", "nothing", status=1)
        twice = await shell("job", "pause", "twin", status=1)
        nothing = await shell("job", "edit", "twin", status=2)
        no_schedule = await shell.create("x", "--at", "02:30", status=2)
        half = await shell.create("x", "--quiet-from", "02:30", status=2)
        scheduled = await shell.create("x", "--frequency", "daily", status=1)
        no_mapping = await shell.create("x", config=[1], status=1)
        again = await shell("job", "redeliver", "twin", status=2)
        of_all = await shell("job", "logs", "--run", "x", status=2)

        assert unknown == "Error: there is no job 'nothing'; `cohortd job list` shows them\n"
        assert "2 have the name 'twin': " in twice
        assert "name one by its id" in twice
        assert "give --label, --description or --auth" in nothing
        assert "a schedule needs --frequency" in no_schedule
        assert "need both --quiet-from and --quiet-hours" in half
        assert "webhook_triggers runs all the time; leave the schedule out" in scheduled
        assert "give a mapping from names to values" in no_mapping
        assert "--failed, --omitted, --delivery ID, or --first-trigger ID" in again
        assert "--run goes with a job" in of_all


async def test_watching_shows_the_same_again_until_ctrl_c(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await shell.create("one")

        watching = await shell.start("job", "list", "--watch", "0.1")
        for _ in range(3):
            await watching.stdout.readuntil(b" one ")
        await shell("job", "pause", "one")
        await watching.stdout.readuntil(b"paused")
        watching.send_signal(signal.SIGINT)

        assert await watching.wait() == 0


async def test_tab_offers_what_a_running_daemon_has(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        for label in ("crm", "crm2", "two words", "twin", "twin"):
            await shell.create(label)
        ids = {each["label"]: each["id"] for each in await shell.json("job", "list")}

        of_jobs = await complete(tmp_path, "job", "pause", "cr")
        every_job = await complete(tmp_path, "job", "show", "")
        others = [
            await complete(tmp_path, *words)
            for words in (
                ("audience", "show", "v"),
                ("query", "show", ""),
                ("job", "create", "webhook_t"),
                ("job", "list", "--provider", "webh"),
            )
        ]

        assert of_jobs == ["crm", "crm2"]
        assert ids["two words"] in every_job
        assert "twin" not in every_job
        assert len(every_job) == 5
        assert others == [["vip"], ["shop"], ["webhook_triggers"], ["webhook"]]


async def complete(data_dir, *words):
    """What bash is given when Tab is pressed after these words."""
    environment = {
        **os.environ,
        "COHORTD_DATA_DIR": str(data_dir),
        "COMP_WORDS": " ".join(["cohortd", *words]),
        "COMP_CWORD": str(len(words)),
        "_COHORTD_COMPLETE": "bash_complete",
    }
    process = await asyncio.create_subprocess_exec(COHORTD, stdout=PIPE, stderr=STDOUT, env=environment)
    output, _ = await process.communicate()
    return [line.removeprefix("plain,") for line in output.decode().splitlines()]


async def test_what_a_job_did_is_shown_and_done_again(tmp_path, open_daemon, shell, open_receiver):
    async with open_daemon(tmp_path) as opened, open_receiver() as receiver:
        await define(opened)
        await shell.create("crm", config={"audiences": ["vip"], "url": receiver.address})
        receiver.status = 404
        await opened.post("/collect/json/web", [{"user_id": "ann", "plan": "gold"}], ok=True)
        await receiver.until(lambda seen: len(seen.requests) >= 1)
        receiver.status = 200
        await opened.post("/collect/json/web", [{"user_id": "bob", "plan": "gold"}], ok=True)
        await receiver.until(lambda seen: len(seen.messages) >= 1)
        await opened.daemon.services.bus.flush(every=True)

        every = await shell.json("job", "deliveries", "crm")
        omitted = await shell("job", "deliveries", "crm", "--outcome", "omitted")
        counted = await shell("job", "redeliver", "crm", "--omitted", "--dry-run")
        again = await shell("job", "redeliver", "crm", "--omitted")
        await receiver.until(lambda seen: len(seen.messages) >= 2)
        runs = await shell("job", "runs", "crm")
        metrics = await shell("job", "metrics", "crm", "--by", "day")
        logs = await shell("job", "logs", "crm")
        errors = await shell("job", "logs", "--level", "error")
        as_json = await shell.json("job", "logs", "crm", "--limit", "2")

        assert [each["outcome"] for each in every] == ["delivered", "omitted"]
        assert omitted.splitlines()[0].split() == [
            "id", "at", "outcome", "status", "attempt", "messages", "bytes", "to", "answer"
        ]  # fmt: skip
        assert len(omitted.splitlines()) == 2
        assert " 404 " in omitted
        assert counted.startswith("would be: 1 messages are sent again")
        assert again.startswith("1 messages are sent again")
        assert runs.splitlines()[0].split()[:4] == ["run", "began", "ended", "outcome"]
        assert "activity" not in metrics
        assert metrics.splitlines()[-1].split()[1:] == ["2", "0", "1", "0"]
        assert len(logs.splitlines()) >= 2
        assert errors == "no log lines\n"
        assert as_json[0]["id"] < as_json[1]["id"]

        following = await shell.start("job", "logs", "crm", "--watch", "0.1", "--json")
        await following.stdout.readline()
        await shell("job", "pause", "crm")
        while b"pause" not in (await following.stdout.readline()).lower():
            pass
        following.send_signal(signal.SIGINT)
        assert await following.wait() == 0


async def test_a_narrow_terminal_shows_a_job_in_one_line_and_enough_of_its_id(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await shell.create("crm")
        (job,) = await shell.json("job", "list")
        ours, terminal = os.openpty()
        process = await asyncio.create_subprocess_exec(
            COHORTD, "job", "list", "--data-dir", tmp_path, stdout=terminal, env={**os.environ, "COLUMNS": "80"}
        )
        await process.wait()
        os.close(terminal)
        lines = os.read(ours, 4096).decode().splitlines()
        os.close(ours)

        assert len(lines) == 2
        assert lines[1].split() == [job["id"][:8], "crm", "webhook_triggers", "-", "running"]
        assert (await shell.json("job", "show", job["id"][:8]))["id"] == job["id"]


async def test_a_dry_run_shows_the_message_and_with_send_sends_that_one(tmp_path, open_daemon, shell, open_receiver):
    async with open_daemon(tmp_path) as opened, open_receiver() as receiver:
        await define(opened)
        config = orjson.dumps({"audiences": ["vip"], "url": receiver.address}).decode()
        words = ("job", "dryrun", "webhook_triggers", "--config", "-")
        nobody = await shell(*words, stdin=config)
        await opened.post("/collect/json/web", [{"user_id": "ann", "plan": "gold"}], ok=True)
        await opened.daemon.services.pipeline.drain()

        shown = await shell(*words, stdin=config)
        untouched = len(receiver.requests)
        sent = await shell(*words, "--send", stdin=config)
        receiver.status = 404
        refused = await shell(*words, "--send", stdin=config, status=1)

        assert "nobody is in these audiences" in nobody
        assert "1 in vip" in shown
        assert '"user_id": "ann"' in shown
        assert untouched == 0
        assert receiver.events == [("vip", "enter")]
        assert ["outcome", "delivered"] in [line.split() for line in sent.splitlines()]
        assert ["status", "404"] in [line.split() for line in refused.splitlines()]
        assert await shell.json("job", "list") == []


async def test_a_run_is_waited_for_and_its_failure_is_the_commands(tmp_path, open_daemon, shell):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "people.csv").write_text("user_id,plan\nann,gold\n")
    config = orjson.dumps({"stream": "web", "folder": str(tmp_path / "in"), "prefix": "people"}).decode()
    words = ("job", "create", "files_import", "--label", "in", "--config", "-", "--frequency", "daily", "--at", "02:30")
    async with open_daemon(tmp_path / "data") as opened:
        shell.data_dir = tmp_path / "data"
        await define(opened)
        made = await shell.json(*words, "--every", 2, "--zone", "Europe/Berlin", stdin=config)
        await until_at_rest(opened, made["id"])

        waited = await shell.json("job", "run", "in", "--wait")
        runs = await shell.json("job", "runs", "in")
        shown = await shell("job", "show", "in")
        (tmp_path / "in" / "people.csv").unlink()
        (tmp_path / "in").rmdir()
        (tmp_path / "in").write_text("no folder any more")
        failed = await shell.json("job", "run", "in", "--wait", status=1)

        assert (waited["state"], waited["sleep_cause"]) == ("sleeping", "schedule")
        assert len(runs) == 2
        assert "every 2 days at 02:30 Europe/Berlin" in shown
        assert "sleeping until " in shown
        assert failed["state"] == "failed" or failed["sleep_cause"] == "error"


async def until_at_rest(opened, job_id):
    async with asyncio.timeout(20):
        while (await opened.get(f"/v2/job/{job_id}", ok=True)).data["state"] == "running":
            await asyncio.sleep(0)  # (each turn asks the daemon, which is what is waited for)
