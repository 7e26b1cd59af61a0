"""Identity as its users meet it: guards, refused keys, splits and meta fields, over the API and the command line."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from click.testing import CliRunner

from daemon.cli import main
from daemon.ingest.refusals import Refusals

QUERY = (
    "SELECT user_id, email(email) AS email, anonymous_id, sum(amount) AS spent KIND number, name"
    " FROM web INTO user BY user_id OR email OR anonymous_id ALIAS web"
)
GUARDS = "/v2/identity/guard"
HOOK = {
    "label": "hook",
    "config": {"audiences": ["big"], "events": "both", "existing_users": False, "batch_size": 1},
}


async def _prepared(opened, *events):
    await opened.post("/api/query", data=QUERY, ok=True)
    await opened.post("/api/segment", data="FILTER spent >= 10 ALIAS big", ok=True)
    await _send(opened, *events)


async def _send(opened, *events):
    for event in events:
        await opened.post("/collect/json/web", json=event, ok=True)
    await opened.daemon.services.pipeline.drain()


async def _cohortd(tmp_path, *words):
    """Runs a command beside the daemon of this loop; gives its status and output."""
    result = await asyncio.to_thread(CliRunner().invoke, main, [*words, "--data-dir", str(tmp_path)])
    return result.exit_code, result.output


async def _explained(opened, field, value):
    answer = await opened.get(f"/api/entity/user/{field}/{value}", params={"explain": "true"}, ok=True)
    return answer.body["explain"]


async def test_a_profile_says_which_keys_were_refused_why_by_which_event_and_whose_they_are(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(
            opened,
            {"user_id": "ann", "anonymous_id": "a1"},
            {"user_id": "bob", "anonymous_id": "a1", "email": "none"},
            {"user_id": "bob", "anonymous_id": "a1"},
        )

        told = await _explained(opened, "user_id", "bob")

        assert told["refusals"] == {"conflict": 2}
        assert told["conflicts"] == 2
        (refused,) = told["refused"]
        assert {name: refused[name] for name in ("key", "reason", "owner", "lane", "position", "times")} == {
            "key": ["anonymous_id", "a1"], "reason": "conflict", "owner": "1", "lane": "realtime", "position": 3,
            "times": 2,
        }  # fmt: skip
        assert "another value" in refused["why"]
        assert (await _explained(opened, "user_id", "ann"))["refused"] == []
        status, shown = await _cohortd(tmp_path, "profile", "show", "user_id", "bob", "--explain")
        assert status == 0
        assert "refused keys (conflict 2)" in shown
        metrics = (await opened.get("/metrics")).content.decode()
        assert 'cohortd_identity_refused_keys_total{field="anonymous_id",reason="conflict"} 2.0' in metrics


async def test_of_several_keys_of_an_identity_the_refused_one_is_named(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        query = (
            "SELECT user_id, set(cookie) AS cookies KIND []string FROM web INTO user BY user_id OR cookies ALIAS web"
        )
        await opened.post("/api/query", data=query, ok=True)
        await _send(opened, {"user_id": "ann", "cookie": "hers"}, {"user_id": "bob", "cookie": ["a", "hers", "z"]})

        (refused,) = (await _explained(opened, "user_id", "bob"))["refused"]

        assert (refused["key"], refused["owner"]) == (["cookies", "hers"], "1")


async def test_the_value_of_a_refused_key_is_gone_with_its_event(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, {"user_id": "ann", "anonymous_id": "a1"}, {"user_id": "bob", "anonymous_id": "a1"})
        await opened.daemon.services.events.write(lambda db: db.execute("DELETE FROM event_realtime"))

        (refused,) = (await _explained(opened, "user_id", "bob"))["refused"]

        assert (refused["key"], refused["owner"], refused["reason"]) == (["anonymous_id", None], None, "conflict")


async def test_a_split_is_seen_first_and_its_triggers_are_delivered(tmp_path, open_daemon, open_receiver):
    async with open_receiver() as receiver, open_daemon(tmp_path) as opened:
        await _prepared(opened)
        job = HOOK | {"config": HOOK["config"] | {"url": receiver.address}}
        await opened.post("/v2/job/webhook_triggers", json=job, ok=True)
        await _send(opened, {"anonymous_id": "a1", "amount": 20, "name": "who"}, {"user_id": "u", "anonymous_id": "a1"})
        await receiver.until(lambda it: len(it.messages) == 1)
        body = {"keys": [["anonymous_id", "a1"]]}

        dry = await opened.post("/v2/entity/user/user_id/u/split", json=body | {"dry_run": True}, ok=True)
        assert (await opened.get("/api/entity/user/anonymous_id/a1")).data["user_id"] == "u"
        done = await opened.post("/v2/entity/user/user_id/u/split", json=body, ok=True)

        for answer, made in ((dry, None), (done, "2")):
            assert (answer.data["kept"]["exits"], answer.data["made"]["enters"]) == (["big"], ["big"])
            assert answer.data["made"]["profile"] == made
            assert answer.data["made"]["keys"] == {"anonymous_id": ["a1"]}
            assert answer.data["made"]["data"]["spent"] == 20
            assert answer.data["kept"]["data"]["_uid"] == "u"
        await receiver.until(lambda it: len(it.messages) == 3)
        assert [(each["data"]["_id"], each["data"]["segment_events"][0]["event"]) for each in receiver.messages] == [
            ("1", "enter"), ("1", "exit"), ("2", "enter"),
        ]  # fmt: skip
        await _send(opened, {"user_id": "u", "anonymous_id": "a1"})
        assert (await _explained(opened, "user_id", "u"))["refusals"] == {"split": 1}
        await opened.delete("/v2/entity/user/user_id/u/split", ok=True)
        assert (await opened.delete("/v2/entity/user/user_id/u/split")).status == 404
        await _send(opened, {"user_id": "u", "anonymous_id": "a1"})
        assert (await opened.get("/api/entity/user/anonymous_id/a1")).data["user_id"] == "u"


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("user_id/u", {"keys": [["email", "x@y.com"]]}, 422, "email=x@y.com is no key of this profile"),
        ("user_id/u", {"keys": [["user_id", "u"], ["anonymous_id", "a"]]}, 422, "at least one key must stay"),
        ("user_id/u", {"keys": []}, 422, "keys"),
        ("user_id/u", {"keys": [["name", "x"]]}, 404, "'name' is no identity"),
        ("user_id/nobody", {"keys": [["anonymous_id", "a"]]}, 404, "there is no profile"),
    ],
)
async def test_a_split_that_cannot_be_is_refused(tmp_path, open_daemon, path, body, status, told):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, {"user_id": "u", "anonymous_id": "a"})

        answer = await opened.post(f"/v2/entity/user/{path}/split", json=body)

        assert answer.status == status
        assert told in answer.content.decode()


async def test_keys_are_named_without_regard_to_case(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, {"user_id": "u", "email": "Ann@Example.com"})

        done = await opened.post(
            "/v2/entity/user/EMAIL/ANN@example.com/split", json={"keys": [["Email", "ANN@Example.com"]]}
        )

        assert done.data["made"]["keys"] == {"email": ["ann@example.com"]}


async def test_guards_are_made_replaced_listed_and_deleted(tmp_path, open_daemon, make_token):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, {"user_id": "u", "email": "none@none.com"})
        made = await opened.post(
            GUARDS,
            json=[{"value": "None@none.com", "note": "till"}, {"field": "email", "value": "*@x.*", "glob": True}],
        )
        limit = await opened.post(
            GUARDS, json={"kind": "stitches", "field": "email", "stitches": 2, "window_s": 60}, ok=True
        )
        again = await opened.post(GUARDS, json={"value": "none@none.com"}, ok=True)

        assert [each["id"] for each in made.data] == [1, 2]
        assert made.body["owners"] == [{"field": "email", "value": "none@none.com", "profile": "1"}]
        assert (limit.data["id"], limit.data["to"], limit.data["window_s"]) == (3, None, 60)
        assert (again.data["id"], again.data["note"], again.data["created"]) == (1, "", made.data[0]["created"])
        await _send(opened, {"user_id": "v", "email": "none@none.com"}, {"user_id": "w", "email": "a@x.org"})
        assert (await opened.get("/api/entity/user/user_id/v")).data.get("email") is None
        assert (await opened.get("/api/entity/user/user_id/w")).data.get("email") is None
        await opened.delete(f"{GUARDS}/1", ok=True)
        assert (await opened.delete(f"{GUARDS}/1")).status == 404
        listed = await opened.get(GUARDS)
        assert ([each["id"] for each in listed.data], listed.body["total"]) == ([2, 3], 2)
        assert "undefined" in listed.body["builtin"]
        assert listed.body["default"] == {"stitches": 10, "window_s": 86400, "keys": 50}
        reader = make_token(tmp_path, "read")
        assert (await opened.post(GUARDS, json={"value": "x"}, token=reader)).status == 403


@pytest.mark.parametrize(
    ("guard", "told"),
    [
        ({"value": "  "}, "a text is needed"),
        ({"value": "**", "glob": True}, "would refuse every key"),
        ({"value": "[a", "glob": True}, "is no pattern"),
        ({"kind": "stitches", "field": "email"}, "`field` and `stitches` are needed"),
        ({"kind": "stitches", "field": "email", "stitches": 2}, "`window_s` is needed"),
        ({"kind": "stitches", "field": "email", "stitches": 2, "window_s": 1, "value": "x"}, "belong to the kind"),
        ({"value": "x", "stitches": 2}, "belong to the kind"),
        ({"value": "x", "valeu": 2}, "valeu"),
    ],
)
async def test_a_guard_that_says_nothing_or_too_much_is_refused(tmp_path, open_daemon, guard, told):
    async with open_daemon(tmp_path) as opened:
        answer = await opened.post(GUARDS, json=guard)

        assert answer.status == 422
        assert told in answer.content.decode()
        assert (await opened.get(GUARDS)).data == []


async def test_the_command_line_does_what_the_api_does(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, {"anonymous_id": "a1", "amount": 20}, {"user_id": "u", "anonymous_id": "a1"})

        assert await _cohortd(tmp_path, "identity", "refuse", "u", "--note", "test") == (
            0,
            (
                "guard 1, every identity: refuses u; holds from now on\n"
                "profile 1 is known by user_id = u already, and keeps it: see `cohortd profile split`\n"
            ),
        )
        assert (await _cohortd(tmp_path, "identity", "limit", "email", "--stitches", "3", "--window", "10m"))[0] == 0
        status, listed = await _cohortd(tmp_path, "identity", "list", "--json")
        assert [each["id"] for each in orjson.loads(listed)["guards"]] == [1, 2]
        assert orjson.loads(listed)["guards"][1]["window_s"] == 600
        assert (await _cohortd(tmp_path, "identity", "remove", "1"))[0] == 0
        status, shown = await _cohortd(tmp_path, "profile", "split", "user_id", "u", "anonymous_id=a1", "--dry-run")
        assert status == 0
        assert "nothing was changed" in shown
        status, shown = await _cohortd(tmp_path, "profile", "split", "user_id", "u", "anonymous_id=a1", "--json")
        assert orjson.loads(shown[shown.index("{\n") :])["kept"]["exits"] == ["big"]
        assert (await _cohortd(tmp_path, "profile", "rejoin", "user_id", "u"))[0] == 0
        assert (await _cohortd(tmp_path, "profile", "rejoin", "user_id", "u"))[0] == 1
        assert (await _cohortd(tmp_path, "profile", "split", "user_id", "u", "anonymous_id"))[0] == 2
        assert (await _cohortd(tmp_path, "profile", "split", "user_id", "u"))[0] == 2


async def test_a_folder_of_guards_is_planned_and_applied(tmp_path, open_daemon):
    folder = tmp_path / "definitions"
    (folder / "identity").mkdir(parents=True)
    file = folder / "identity" / "guards.yaml"
    file.write_text(
        "refuse:\n  - none@none\n  - {value: '*@x', glob: true, field: email}\n"
        "limits:\n  - {field: email, stitches: 3, window_s: 60}\n"
    )
    async with open_daemon(tmp_path / "data") as opened:
        await opened.post(GUARDS, json={"value": "old"}, ok=True)

        async def actions(command, *more):
            status, text = await _cohortd(tmp_path / "data", command, str(folder), "--json", *more)
            assert status == 0, text
            return [(each["action"], each["name"]) for each in orjson.loads(text)]

        named = [
            "every identity: refuse none@none",
            "email: refuse like *@x",
            "email: stitches to its own and stronger ones",
        ]
        assert await actions("plan") == [("create", name) for name in named]
        assert await actions("apply") == [("create", name) for name in named]
        assert await actions("apply") == [("keep", name) for name in named]
        file.write_text(file.read_text().replace("stitches: 3", "stitches: 4"))
        assert await actions("apply", "--prune") == [
            ("keep", named[0]), ("keep", named[1]), ("change", named[2]), ("delete", "every identity: refuse old"),
        ]  # fmt: skip
        assert [each.get("stitches") for each in (await opened.get(GUARDS)).data] == [None, None, 4]


async def test_meta_fields_are_shown_and_filtered_by(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, {"user_id": "u", "anonymous_id": "a", "amount": 30})
        for text in (
            'FILTER _uid = "u" ALIAS one',
            "FILTER _num_days = 1 ALIAS two",
            "FILTER EXISTS _split ALIAS three",
        ):
            await opened.post("/api/segment", data=text, ok=True)
        await opened.daemon.services.pipeline.drain()

        data = (await opened.get("/api/entity/user/user_id/u")).data

        assert data["_segments"] == ["big", "one", "two"]
        assert (data["_uid"], data["_num_days"], data["_num_aliases"]) == ("u", 1, 2)
        assert data["_cust_sz"] + data["_internal_sz"] == data["_total_sz"] > data["_cust_sz"] > 0
        assert "_split" not in data
        only = (await opened.get("/api/entity/user/user_id/u", params={"fields": "_total_sz,_segments"})).data
        assert only == {"_total_sz": data["_total_sz"], "_segments": data["_segments"]}
        await opened.post("/v2/entity/user/user_id/u/split", json={"keys": [["anonymous_id", "a"]]}, ok=True)
        assert (await opened.get("/api/entity/user/user_id/u")).data["_segments"] == ["big", "one", "three", "two"]


async def test_a_querys_own_uid_goes_before_the_meta_field(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await opened.post("/api/query", data="SELECT _uid, user_id FROM web INTO user BY user_id OR _uid ALIAS web")
        await opened.post("/api/segment", data='FILTER _uid = "cookie" ALIAS mine')
        await _send(opened, {"user_id": "u", "_uid": "cookie"}, {"user_id": "v"})

        assert (await opened.get("/api/entity/user/user_id/u")).data["_uid"] == "cookie"
        assert (await opened.get("/api/entity/user/user_id/u")).data["_segments"] == ["mine"]
        assert "_uid" not in (await opened.get("/api/entity/user/user_id/v")).data


def test_a_bad_client_gets_one_line_a_minute(monkeypatch):
    lines = []
    log = type(
        "Log", (), {"warning": lambda _, event, **facts: lines.append((event, facts)), "info": lambda *_, **__: 0}
    )
    monkeypatch.setattr("daemon.ingest.refusals.log.get", log)
    now = [0.0]
    monkeypatch.setattr("daemon.ingest.refusals.time.monotonic", lambda: now[0])
    refusals = Refusals()
    for each in range(1000):
        now[0] = each * 0.1
        refusals.told("realtime", {("email", "blocked"): (2, each + 1)}, 0)

    assert [facts["count"] for _, facts in lines] == [2, 1200]
