"""Why a person is, or is not, in an audience, asked of a daemon (P8)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from click.testing import CliRunner

from daemon.cli import main

QUERY = (
    "SELECT user_id, count(amount) AS orders KIND int, sum(amount) AS spent KIND number,"
    " max(todate(at)) AS last KIND date, set(tag) AS tags KIND []string KEEP_DAYS 30"
    " FROM web INTO user BY user_id ALIAS web"
)


async def _prepared(opened, *audiences, events=()):
    await opened.post("/api/query", data=QUERY)
    for text in audiences:
        await opened.post("/api/segment", data=text)
    for event in events:
        await opened.post("/collect/json/web", json=event)
    await opened.daemon.services.pipeline.drain()


async def _explained(opened, slug, value="anna"):
    return (await opened.get(f"/v2/entity/user/user_id/{value}/explain/{slug}")).data


async def test_each_condition_has_its_value_verdict_and_reason_and_the_flip_its_cause(tmp_path, open_daemon):
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    async with open_daemon(tmp_path) as opened:
        await _prepared(
            opened,
            "FILTER spent > 10 ALIAS big",
            'FILTER AND ( orders >= 1, last > "now-10d", NOT INCLUDE big ) ALIAS recent',
            events=[{"user_id": "anna", "amount": 5, "at": at.isoformat()}],
        )

        told = await _explained(opened, "recent")
        out = await _explained(opened, "big")

        assert told["member"] is True
        assert "all 3 conditions hold" == told["reason"]
        assert ["AND", "orders >= 1", 'last > "now-10d"', "NOT", "INCLUDE big", "spent > 10"] == [
            each["text"] for each in told["conditions"]
        ]
        assert "orders is 1; 1 >= 1 is true" == told["conditions"][1]["reason"]
        assert (at + timedelta(days=10)).isoformat() == told["next_flip"].replace("Z", "+00:00")
        assert [('last > "now-10d"', False)] == [(each["text"], each["match"]) for each in told["next_flip_by"]]
        assert (False, "spent is 5; 5 > 10 is false", None) == (out["member"], out["reason"], out["next_flip"])


async def test_what_keep_days_lets_go_is_a_next_flip_too(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, 'FILTER tags IN ("a") ALIAS tagged', events=[{"user_id": "anna", "tag": "a"}])

        told = await _explained(opened, "tagged")

        days = datetime.fromisoformat(told["next_flip"]) - datetime.now(UTC)
        assert timedelta(days=29, hours=23) < days < timedelta(days=30, seconds=1)
        assert ["the profile has no `tags`; IN of what is missing is false"] == [
            each["reason"] for each in told["next_flip_by"]
        ]


async def test_a_name_that_there_is_none_of_is_answered_with_the_one_probably_meant(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        query = "SELECT user_id, sum(amount) AS spent FROM orders INTO user BY user_id ALIAS shop"
        await opened.post("/api/query", data=query, ok=True)
        await opened.post("/api/segment", data="FILTER spent > 1 ALIAS good_customers", ok=True)
        await opened.post("/collect/json/orders", {"user_id": "a", "amount": 5}, ok=True)
        while (await opened.get("/api/entity/user/user_id/a")).status == 404:
            await asyncio.sleep(0.01)

        for path, told in {
            "/api/segment/god_customers": "did you mean good_customers? GET /api/segment lists them",
            "/v2/segment/good_custmers/preview": "did you mean good_customers? ",
            "/v2/entity/user/user_id/a/explain/goodcustomers": "did you mean good_customers? ",
            "/v2/entity/user/user_id/a/explain-field/spend": "did you mean spent? GET /v2/schema/user lists them",
            "/api/query/shp": "did you mean shop? GET /api/query lists them",
            "/api/query/xxxxx": "there is no query 'xxxxx'; GET /api/query lists them",
        }.items():
            answer = await opened.get(path)
            assert (answer.status, told in answer.message) == (404, True), answer.message


async def test_a_large_filter_is_explained_beside_the_loop(tmp_path, open_daemon):
    many = ", ".join(f"orders > {each}" for each in range(400))
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, f"FILTER OR ( {many} ) ALIAS many", events=[{"user_id": "anna", "amount": 5}])

        explaining = asyncio.create_task(_explained(opened, "many"))
        asked = 0
        while not explaining.done():
            assert (await opened.get("/health")).status == 200
            asked += 1

        assert 401 == len((await explaining)["conditions"])
        assert asked > 5


async def test_the_history_says_what_changed_a_membership_and_who_was_told(tmp_path, open_daemon, open_receiver):
    async with open_receiver() as receiver, open_daemon(tmp_path) as opened:
        await _prepared(opened, "FILTER spent > 10 ALIAS big")
        config = {"audiences": ["big"], "url": receiver.address}
        await opened.post("/v2/job/webhook_triggers", json={"label": "hook", "config": config})
        await _prepared(
            opened, events=[{"user_id": "bob", "amount": 50}, {"user_id": "anna", "amount": 20, "_id": "e1"}]
        )
        await receiver.until(lambda it: len(it.messages) == 2)
        await opened.post("/api/segment", data="FILTER spent > 30 ALIAS big")
        await opened.daemon.services.pipeline.drain()
        await receiver.until(lambda it: len(it.messages) == 3)
        await opened.post("/api/query", data=QUERY.replace("sum(amount)", "sum(price)"))
        await _prepared_only(opened, {"user_id": "anna", "price": 90})
        await receiver.until(lambda it: len(it.messages) == 4)
        receiver.status = 500
        await _prepared_only(opened, {"user_id": "anna", "price": -100})

        told = await _explained(opened, "big")
        while (
            told["history"][1]["deliveries"][0]["state"] != "done"
        ):  # the answer is there, the acknowledgement follows
            told = await _explained(opened, "big")
        first = (await opened.get("/v2/entity/user/user_id/anna/explain/big?history=1")).data
        rest = (
            await opened.get(f"/v2/entity/user/user_id/anna/explain/big?before={first['history_before']}&history=9")
        ).data
        refused = await opened.get("/v2/entity/user/user_id/anna/explain/big?history=many")

        history = told["history"]
        assert ["exit", "enter", "exit", "enter"] == [each["event"] for each in history]
        assert ["event", "event", "definition", "event"] == [each["cause"] for each in history]
        assert "version 2 of audience big was stored" == history[2]["because"]
        assert [("web", "e1", 2)] == [(each["stream"], each["id"], each["position"]) for each in history[3]["events"]]
        assert [4] == [each["position"] for each in history[0]["events"]]
        assert ["waiting", "done", "done", "done"] == [each["deliveries"][0]["state"] for each in history]
        assert (True, False) == (told["history_complete"], told["history_lost"])
        assert history == [*first["history"], *rest["history"]]
        assert (False, True) == (first["history_complete"], rest["history_complete"])
        assert 400 == refused.status


async def _prepared_only(opened, event):
    await opened.post("/collect/json/web", json=event)
    await opened.daemon.services.pipeline.drain()


async def test_a_stitch_and_a_replayed_query_are_named_in_the_history(tmp_path, open_daemon):
    query = "SELECT user_id, email, sum(amount) AS spent KIND number FROM web INTO user BY user_id OR email ALIAS web"
    async with open_daemon(tmp_path) as opened:
        await opened.post("/api/query", data=query)
        await opened.post("/api/segment", data="FILTER spent > 10 ALIAS big")
        for event in (
            {"user_id": "anna", "amount": 2}, {"email": "a@b", "amount": 20, "price": 1},
            {"user_id": "anna", "email": "a@b", "price": 50},
        ):  # fmt: skip
            await _prepared_only(opened, event)
        joined = await _explained(opened, "big")
        await opened.post("/api/query", data=query.replace("sum(amount)", "sum(price) IF price < 9"))
        await opened.post("/v2/query/web/replay")
        await opened.daemon.services.pipeline.drain()
        replayed = await _explained(opened, "big")

        assert [("enter", "merge", None), ("exit", "merge", "2")] == [
            (each["event"], each["cause"], each["of"]) for each in joined["history"]
        ]
        assert ["1"] == [each["merged_into"] for each in joined["history"] if each["merged_into"]]
        assert [3] == [each["position"] for each in joined["history"][0]["events"]]
        assert ("exit", "replay") == (replayed["history"][0]["event"], replayed["history"][0]["cause"])
        assert "version 2 of query web was applied to the past" == replayed["history"][0]["because"]


async def test_transitions_that_retention_took_are_said_to_be_lost(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, "FILTER spent > 10 ALIAS big")
        for amount in (20, -20, 20):
            await _prepared_only(opened, {"user_id": "anna", "amount": amount})
        await opened.daemon.services.state.write(lambda db: db.execute("DELETE FROM trigger WHERE id < 3"))

        told = await _explained(opened, "big")

        assert [3] == [each["transition"] for each in told["history"]]
        assert (False, True, None) == (told["history_complete"], told["history_lost"], told["history_before"])


async def _field(opened, name, value="anna", field="user_id", **params):
    query = "&".join(f"{key}={each}" for key, each in params.items())
    return await opened.get(f"/v2/entity/user/{field}/{value}/explain-field/{name}?{query}")


async def test_a_field_names_the_events_and_the_query_versions_that_made_it(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(
            opened,
            events=[
                {"user_id": "anna", "amount": 5, "tag": "a", "_id": "e1"},
                {"user_id": "bob", "amount": 7, "tag": "b"},
                {"user_id": "anna", "amount": 2, "tag": "b"},
            ],
        )
        await opened.post("/api/query", data=QUERY.replace("sum(amount)", "sum(price)"))
        await _prepared_only(opened, {"user_id": "anna", "price": 30, "amount": 1, "tag": "b"})

        spent = (await _field(opened, "spent")).data
        tags = (await _field(opened, "tags")).data
        few = (await _field(opened, "SPENT", limit=1)).data
        named = (await _field(opened, "user_id")).data
        unknown = await _field(opened, "nothing")
        fields = (await opened.get("/api/entity/user/user_id/anna?explain=true")).body["explain"]["fields"]
        meta = await _field(opened, "_num_events")

        assert (37, True, 3, []) == (spent["value"], spent["agrees"], spent["contributions"], spent["notes"])
        assert [(4, "added", 30, 2), (3, "added", 2, 1), (1, "added", 5, 1)] == [
            (each["position"], each["outcome"], each["value"], each["version"]) for each in spent["effects"]
        ]
        assert ("e1", "web", "web") == tuple(spent["effects"][-1][name] for name in ("id", "query", "stream"))
        assert [(4, ["b"]), (3, None), (1, ["a"])] == [
            (each["position"], each.get("stands")) for each in tags["effects"]
        ]
        assert ([4], 3) == ([each["position"] for each in few["effects"]], few["contributions"])
        assert (True, "anna") == (named["agrees"], named["value"])
        assert (404, 404) == (unknown.status, meta.status)
        assert {"web": 2} == fields["spent"]["queries"]
        assert spent == (await opened.get(fields["spent"]["events"])).data


async def test_a_replayed_query_made_the_field_and_lost_events_are_told(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, events=[{"user_id": "anna", "amount": each, "price": 10 * each} for each in (1, 2, 3)])
        await opened.post("/api/query", data=QUERY.replace("sum(amount)", "sum(price)"))
        await opened.post("/v2/query/web/replay")
        await opened.daemon.services.pipeline.drain()
        await _prepared_only(opened, {"user_id": "anna", "price": 5})

        made = (await _field(opened, "spent")).data
        await opened.daemon.services.events.write(
            lambda db: db.execute("DELETE FROM event_realtime WHERE position < 3")
        )
        lost = (await _field(opened, "spent")).data

        assert (65, True) == (made["value"], made["agrees"])
        assert [5, 30, 20, 10] == [each["value"] for each in made["effects"]]
        assert {2} == {each["version"] for each in made["effects"]}
        assert ["made again from the past by replaying version 2 of query web"] == made["notes"]
        assert (65, False, 35, True) == (lost["value"], lost["agrees"], lost["made"], lost["lost"])
        assert "does not go back" in lost["notes"][0]


async def test_the_command_explains_memberships_and_fields(tmp_path, open_daemon):
    def run(*arguments):
        return CliRunner().invoke(main, ["explain", *arguments, "--data-dir", str(tmp_path)])

    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, "FILTER spent > 10 ALIAS big", events=[{"user_id": "anna", "amount": 20, "_id": "e1"}])

        why = await asyncio.to_thread(run, "big", "user_id", "anna")
        field = await asyncio.to_thread(run, "user_id", "anna", "--field", "spent")
        wrong = await asyncio.to_thread(run, "user_id", "anna")
        also_wrong = await asyncio.to_thread(run, "big", "user_id", "anna", "--field", "spent")

        assert "because spent is 20; 20 > 10 is true" in why.output
        assert "enter  by events of this person: event 1 of the realtime lane, on stream web" in why.output
        assert "spent (number, sum) is 20.0\nmade by 1 contributions of 1 events" in field.output
        assert (0, 0, 2, 2) == tuple(each.exit_code for each in (why, field, wrong, also_wrong))
