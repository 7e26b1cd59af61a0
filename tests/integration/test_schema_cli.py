"""`cohortd schema`, `query diff`, `query preview`, `audience preview`, `plan` and `apply`, as they are typed."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import orjson
import pytest

SHOP = "SELECT user_id, sum(amount) AS spent KIND number, plan FROM web INTO user BY user_id ALIAS shop"
APP = "SELECT user_id, sum(price) AS spent KIND number FROM app INTO user BY user_id ALIAS app"
BIG = "FILTER spent >= 100 ALIAS big"
VIP = 'FILTER AND ( INCLUDE big, plan = "gold" ) ALIAS vip'
COHORTD = Path(sys.executable).with_name("cohortd")


class Shell:
    """Types commands against a daemon; gives their output, errors too."""

    def __init__(self, data_dir):
        self.data_dir = data_dir

    async def __call__(self, *words, status=0, stdin=None):
        process = await asyncio.create_subprocess_exec(
            COHORTD, *map(str, words), "--data-dir", self.data_dir, stdin=PIPE, stdout=PIPE, stderr=STDOUT
        )
        output, _ = await process.communicate(stdin.encode() if stdin else None)
        assert process.returncode == status, output.decode()
        return output.decode()

    async def json(self, *words, **options):
        return orjson.loads(await self(*words, "--json", **options))


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def write(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")

    def write(name, text):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    write.folder = folder
    return write


async def set_up(opened):
    await opened.post("/api/query", data=SHOP, ok=True)
    await opened.post("/api/segment", data=BIG, ok=True)
    await opened.post("/api/segment", data=VIP, ok=True)
    config = {"audiences": ["vip"], "url": "http://127.0.0.1:9/hook"}
    made = await opened.post("/v2/job/webhook_triggers", {"label": "crm", "config": config}, ok=True)
    await opened.post(f"/v2/job/{made.data['id']}/pause", ok=True)
    events = [{"user_id": f"u{each}", "amount": each * 10, "plan": "gold"} for each in range(20)]
    await opened.post("/collect/json/web", events, ok=True)
    await opened.daemon.services.pipeline.drain()


async def test_the_schema_alone_is_the_one_that_holds(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path) as opened:
        empty = await shell("schema")
        await set_up(opened)

        shown = await shell("schema")

        assert empty == "version 0: no query was made\nno fields\n"
        assert shown.startswith("version 1, stored shop at 20")
        assert ["spent", "number", "sum", "no"] in [line.split()[:4] for line in shown.splitlines()]
        for words in (["user"], ["show"]):
            assert await shell("schema", *words) == shown
        assert await shell("schema", "show", 1) == f"{shown}\nshop:\n{SHOP}\n"
        assert (await shell.json("schema"))["version"] == 1
        assert "is not the number of a version" in await shell("schema", "nothing", status=2)


async def test_versions_are_listed_compared_and_gone_back_to(tmp_path, open_daemon, shell, write):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        changed = write("shop.lql", SHOP.replace("KIND number, plan", "KIND int, tolower(plan) AS tier"))
        await shell("query", "put", changed, "--description", "whole euros")
        await shell("query", "delete", "shop", "--description", "by mistake")

        listed = await shell("schema", "versions")
        last = await shell("schema", "diff")
        between = await shell("schema", "diff", 1, 2)
        back = await shell("schema", "revert", 2, "--description", "undone")

        rows = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
        assert [(row[0], row[2].split("  ")) for row in rows] == [
            ("3", ["deleted shop", "by mistake"]),
            ("2", ["stored shop", " whole euros"]),
            ("1", ["stored shop"]),
        ]
        assert last.startswith("version 2 -> version 3\nfields: 0 new, 0 modified, 3 deleted, 0 unmodified\n")
        assert between.splitlines() == [
            "version 1 -> version 2",
            "fields: 1 new, 1 modified, 1 deleted, 1 unmodified",
            "~ spent",
            "    kind: number -> int",
            "    shop: kind: number -> int",
            "    existing values are kept but not shown: the field begins anew with the next event",
            "    read by: big, vip (through big)",
            "    sent by: crm (paused)",
            "+ tier  string, latest",
            "    fed by shop from web: tolower(plan)",
            "- plan  string, latest",
            "    not fed any more by shop from web: plan",
            "    existing values are kept but hidden, until the field comes back",
            "    read by: vip",
            "    sent by: crm (paused)",
            "~ query shop",
        ]
        assert back == "version 4 has the queries of version 2; it holds from now on\n"
        assert await shell("schema", "revert", 2) == "the queries are those of version 2 already\n"
        assert "no field and no query differs" in await shell("schema", "diff", 2)
        assert "no version 9" in await shell("schema", "revert", 9, status=1)
        assert (await shell.json("schema", "versions", "--limit", 1))[0]["reverted_to"] == 2


async def test_files_are_compared_before_they_are_saved(tmp_path, open_daemon, shell, write):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        app, big = write("app.lql", APP), write("big.fql", "FILTER spents >= 200 ALIAS big")

        one = await shell("query", "diff", app)
        typed = await shell("query", "diff", "-", stdin=APP)
        same = await shell("schema", "diff", "--query", app)
        both = await shell.json("schema", "diff", "--query", app, "--delete", "shop", "--filter", big)
        told = await shell("schema", "diff", "--filter", big)

        assert one == typed == same
        assert one.splitlines()[:6] == [
            "version 1 -> as proposed",
            "fields: 0 new, 2 modified, 0 deleted, 1 unmodified",
            "~ user_id",
            "    fed by app from app: user_id",
            "~ spent",
            "    fed by app from app: sum(price)",
        ]
        assert {each["name"]: each["status"] for each in both["fields"]} == {
            "user_id": "modified",
            "spent": "modified",
            "plan": "deleted",
        }
        assert told.splitlines()[2:] == [
            "no field and no query differs",
            "~ audience big",
            "    text: FILTER spent >= 100 ALIAS big -> FILTER spents >= 200 ALIAS big",
            '    fields: ["spent"] -> []',
            "    no query makes: spents",
            "    included by: vip",
            "    sent by: crm (paused)",
        ]
        assert "not both" in await shell("schema", "diff", 1, "--query", app, status=2)
        assert "give a file" in await shell("query", "diff", status=2)
        refused = await shell("query", "diff", write("x.lql", APP.replace("number", "date")), status=1)
        assert refused.count("spent is number in shop, but date in app") == 1


async def test_previews_tell_who_moves_and_who_sends_it(tmp_path, open_daemon, shell, write):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        changed = write("shop.lql", SHOP.replace(", plan", ""))

        audience = await shell("audience", "preview", "big", write("big.fql", "FILTER spent >= 180"))
        query = await shell("query", "preview", changed, "--events", 2, "--audience", "big")
        now = await shell.json("audience", "preview", "big")

        assert audience.splitlines() == [
            "big: 0 would enter, 8 would exit, 2 members then (now 10)",
            *(f"    - user_id = u{each}" for each in range(10, 18)),
            "vip: 0 would enter, 8 would exit, 2 members then (now 10)",
            *(f"    - user_id = u{each}" for each in range(10, 18)),
            "job crm (webhook_triggers, paused) would send 0 enters and 8 exits when resumed",
            "20 profiles looked at; nothing was saved",
        ]
        lines = query.splitlines()
        assert "big: 0 would enter, 0 would exit, 10 members then (now 10)" in lines
        assert "vip: 0 would enter, 10 would exit, 0 members then (now 10)" in lines
        at = lines.index("query shop on the last 2 events of web: 2 differ; 2 give something now, 2 would")
        assert lines[at + 1 : at + 4] == ["    plan: 2 deleted", '        "gold" -> -', '        "gold" -> -']
        assert (now["enters"], now["exits"], now["members"]) == (0, 0, 10)


async def test_a_plan_shows_what_its_queries_and_audiences_do_together(tmp_path, open_daemon, shell, write):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        write("queries/shop.lql", SHOP.replace("KIND number", "KIND int"))
        write("audiences/big.fql", "FILTER spent >= 150 ALIAS big")
        write("audiences/huge.fql", "FILTER AND ( INCLUDE big, spent > 170 ) ALIAS huge")

        told = await shell("plan", write.folder)
        rows = await shell.json("plan", write.folder)

        lines = told.splitlines()
        at = lines.index("    ~ spent")
        assert lines[at + 1 : at + 6] == [
            "        kind: number -> int",
            "        shop: kind: number -> int",
            "        existing values are kept but not shown: the field begins anew with the next event",
            "        read by: big, vip (through big), huge",
            "        sent by: crm (paused)",
        ]
        at = lines.index("  audience vip moves with it")
        assert lines[at + 1] == "    0 would enter, 10 would exit; sent by crm"
        found = {(row["kind"], row["name"]): row for row in rows}
        assert found["audience", "big"]["effect"]["exits"] == 10
        assert found["audience", "huge"]["effect"] == {"enters": 0, "exits": 0, "size": 0, "jobs": []}
        assert found["audience", "vip"]["effect"]["jobs"][0]["label"] == "crm"
        assert [each["name"] for each in found["query", "shop"]["fields"]] == ["spent"]


async def test_a_folder_whose_queries_only_go_together_is_applied_at_once(tmp_path, open_daemon, shell, write):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        await opened.post("/api/query", data=APP, ok=True)
        write("queries/shop.lql", SHOP.replace("KIND number", "KIND int"))
        app = write("queries/app.lql", APP)

        refused = await shell("plan", write.folder, status=1)
        failed = await shell("apply", write.folder, status=1)
        app.write_text(APP.replace("KIND number", "KIND int"), encoding="utf-8")
        planned = await shell("plan", write.folder)
        applied = await shell("apply", write.folder)

        assert "spent is int in shop, but number in app" in refused
        assert "spent is int in shop, but number in app" in failed
        assert planned.splitlines()[-1] == "2 to change, 0 as they are"
        assert applied == "~ query app\n~ query shop\n"
        assert await shell("apply", write.folder) == "nothing to change\n"
        assert (await shell.json("schema"))["version"] == 3
