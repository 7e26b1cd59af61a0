"""What a change would do before it is saved is what it does when it is."""

from __future__ import annotations

import pytest

from daemon.web.api.previews import MOST_EVENTS

SHOP = (
    "SELECT user_id, email(email) AS email, sum(amount) AS spent KIND number, plan, set(tag) AS tags KIND []string"
    " FROM web INTO user BY user_id OR email ALIAS shop"
)
BIG = "FILTER spent >= 100 ALIAS big"
VIP = 'FILTER AND ( INCLUDE big, plan = "gold" ) ALIAS vip'
REST = "FILTER NOT INCLUDE vip ALIAS rest"
GOLD = 'FILTER plan = "gold" ALIAS gold'


async def set_up(opened, users=30):
    await opened.post("/api/query", data=SHOP, ok=True)
    for text in (BIG, VIP, REST, GOLD):
        await opened.post("/api/segment", data=text, ok=True)
    events = [
        {"user_id": f"u{each}", "amount": each * 10, "plan": "gold" if each % 2 else "free", "tag": f"t{each}"}
        for each in range(users)
    ]
    await opened.post("/collect/json/web", events, ok=True)
    await opened.daemon.services.pipeline.drain()


async def job(opened, label, *audiences, events="both"):
    config = {"audiences": audiences, "url": "http://127.0.0.1:9/hook", "events": events}
    return (await opened.post("/v2/job/webhook_triggers", {"label": label, "config": config}, ok=True)).data["id"]


def moves(told):
    return {each["slug"]: (each["enters"], each["exits"], each["size"]) for each in told["audiences"]}


async def sizes(opened):
    return {each["slug"]: each["size"] for each in (await opened.get("/api/segment", ok=True)).data}


async def triggers(opened, after=0):
    rows = await opened.daemon.services.state.read(
        lambda db: db.execute(
            "SELECT a.slug, t.kind, count(*) FROM trigger t JOIN audience a ON a.number = t.audience"
            " WHERE t.id > ? GROUP BY 1, 2", (after,)
        ).fetchall()
    )  # fmt: skip
    return {(slug, kind): count for slug, kind, count in rows}


async def last_trigger(opened):
    return await opened.daemon.services.state.read(
        lambda db: db.execute("SELECT coalesce(max(id), 0) FROM trigger").fetchone()[0]
    )


async def assert_comes_true(opened, told, save):
    """Saves the change, and holds what happens to what was told: every enter and exit, no other, and the sizes."""
    after = await last_trigger(opened)
    await save()
    await opened.daemon.services.pipeline.drain()
    expected = {}
    for each in told["audiences"]:
        expected |= {(each["slug"], kind): each[f"{kind}s"] for kind in ("enter", "exit") if each[f"{kind}s"]}
    assert expected == await triggers(opened, after)
    now = await sizes(opened)
    assert {each["slug"]: each["size"] for each in told["audiences"]} == {
        each["slug"]: now[each["slug"]] for each in told["audiences"]
    }


async def test_a_changed_filter_is_told_with_all_that_include_it(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        changed = "FILTER spent >= 200 ALIAS big"

        told = (await opened.post("/v2/segment/big/preview", data=changed, ok=True)).data

        assert (told["slug"], told["profiles"], told["size"], told["enters"], told["exits"]) == ("big", 30, 10, 0, 10)
        assert moves(told) == {"big": (0, 10, 10), "vip": (0, 5, 5), "rest": (5, 0, 25)}
        assert next(iter(moves(told))) == "big"
        assert await sizes(opened) == {"big": 20, "vip": 10, "rest": 20, "gold": 15}
        await assert_comes_true(opened, told, lambda: opened.post("/api/segment", data=changed, ok=True))


async def test_without_a_change_nobody_moves(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)

        told = (await opened.get("/v2/segment/vip/preview", ok=True)).data
        same = (await opened.post("/v2/segment/vip/preview", data=VIP, ok=True)).data

        assert moves(told) == moves(same) == {"vip": (0, 0, 10)}
        assert told["members"] == 10


async def test_the_jobs_that_would_send_it_are_told_with_what_they_would_send(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        both = await job(opened, "both", "big", "rest", "gold")
        enters = await job(opened, "enters", "vip", "rest", events="enters")
        exits = await job(opened, "exits", "vip", "rest", events="exits")
        await job(opened, "elsewhere", "gold")
        await opened.post(f"/v2/job/{exits}/pause", ok=True)
        done = await job(opened, "done", "big")
        await opened.post(f"/v2/job/{done}/complete", ok=True)

        told = (await opened.post("/v2/segment/big/preview", data="FILTER spent >= 200 ALIAS big", ok=True)).data

        rows = {each["id"]: each for each in told["jobs"]}
        found = {
            each: (row["label"], row["audiences"], row["enters"], row["exits"], row["sends"])
            for each, row in rows.items()
        }
        assert found == {
            both: ("both", ["big", "rest"], 5, 10, "at once"),
            enters: ("enters", ["vip", "rest"], 5, 0, "at once"),
            exits: ("exits", ["vip", "rest"], 0, 5, "when resumed"),
        }
        assert rows[exits]["state"] == "paused"


async def test_samples_name_profiles_by_their_keys_and_are_spread(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened, users=200)

        told = (await opened.post("/v2/segment/big/preview", data="FILTER spent < 100 ALIAS big", ok=True)).data
        again = (await opened.post("/v2/segment/big/preview", data="FILTER spent < 100 ALIAS big", ok=True)).data

        sample = told["sample_exits"]
        assert told["exits"] == 190
        assert len(sample) == 10
        ids = [int(each["id"]) for each in sample]
        assert ids == sorted(ids)
        assert max(ids) > 100
        assert [each["keys"] for each in sample] == [{"user_id": [f"u{each - 1}"]} for each in ids]
        assert again == told


async def test_a_query_that_hides_a_field_is_told_with_who_leaves(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        crm = await job(opened, "crm", "vip")
        changed = SHOP.replace("plan, ", "")

        told = (await opened.post("/api/query/_preview", data=changed, ok=True)).data

        (field,) = told["schema"]["fields"]
        assert (field["name"], field["status"], field["values"]) == ("plan", "deleted", "hidden")
        assert moves(told) == {"vip": (0, 10, 0), "rest": (10, 0, 30), "gold": (0, 15, 0)}
        assert [(each["id"], each["exits"]) for each in told["jobs"]] == [(crm, 10)]
        assert (await opened.get("/v2/schema/user", ok=True)).data["version"] == 1
        await assert_comes_true(opened, told, lambda: opened.post("/api/query", data=changed, ok=True))

        back = (await opened.post("/api/query/_preview", data=SHOP, ok=True)).data

        assert moves(back) == {"vip": (10, 0, 10), "rest": (0, 10, 20), "gold": (15, 0, 15)}
        await assert_comes_true(opened, back, lambda: opened.post("/api/query", data=SHOP, ok=True))


async def test_a_changed_kind_begins_anew_and_is_told_so(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        changed = SHOP.replace("KIND number", "KIND int")

        told = (await opened.post("/api/query/_preview", data=changed, ok=True)).data

        assert told["schema"]["fields"][0]["values"] == "begun_anew"
        assert moves(told) == {"big": (0, 20, 0), "vip": (0, 10, 0), "rest": (10, 0, 30)}
        await assert_comes_true(opened, told, lambda: opened.post("/api/query", data=changed, ok=True))


async def test_a_deleted_query_is_told(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)

        told = (await opened.post("/api/query/_preview?delete=shop", ok=True)).data

        assert moves(told)["big"] == (0, 20, 0)
        await assert_comes_true(opened, told, lambda: opened.delete("/api/query/shop", ok=True))


async def test_elements_that_keep_days_would_let_go_are_gone(tmp_path, open_daemon, frozen_clock):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        await opened.post("/api/segment", data='FILTER tags IN ("t3", "t4") ALIAS tagged', ok=True)
        frozen_clock.us += 5 * 86_400_000_000
        await opened.post("/collect/json/web", {"user_id": "u4", "tag": "t4"}, ok=True)
        await opened.daemon.services.pipeline.drain()
        changed = SHOP.replace("KIND []string", "KIND []string KEEP_DAYS 2")

        told = (await opened.post("/api/query/_preview", data=changed, ok=True)).data

        assert moves(told) == {"tagged": (0, 1, 1)}
        await assert_comes_true(opened, told, lambda: opened.post("/api/query", data=changed, ok=True))


async def test_queries_and_filters_are_looked_at_together_with_chosen_audiences(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        wanted = {
            "queries": [SHOP.replace("plan, ", "")],
            "filters": [
                "FILTER spent >= 150 ALIAS big",
                "FILTER AND ( INCLUDE big, INCLUDE other ) ALIAS fresh",
                "FILTER spent < 170 ALIAS other",
            ],
        }

        told = (await opened.post("/api/query/_preview", wanted, ok=True)).data
        chosen = (await opened.post("/api/query/_preview?audience=gold", data=SHOP, ok=True)).data

        assert {each["slug"]: each["status"] for each in told["schema"]["filters"]} == {
            "big": "modified",
            "fresh": "new",
            "other": "new",
        }
        assert moves(told) == {
            "big": (0, 5, 15),
            "vip": (0, 10, 0),
            "rest": (10, 0, 30),
            "gold": (0, 15, 0),
            "fresh": (2, 0, 2),
            "other": (17, 0, 17),
        }
        assert moves(chosen) == {"gold": (0, 0, 15)}


async def test_the_last_events_are_mapped_before_and_after(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        changed = SHOP.replace("plan,", "toupper(plan) AS plan, tag AS last_tag,")
        changed = changed.replace("KIND number", "KIND number IF amount >= 100")
        changed = changed.replace(" BY user_id", " WHERE amount < 280 BY user_id")

        told = (await opened.post("/api/query/_preview?events=25", data=changed, ok=True)).data

        (query,) = told["events"]
        fields = {each["name"]: each for each in query["fields"]}
        assert (query["query"], query["streams"], query["events"]) == ("shop", ["web"], 25)
        assert (query["mapped_before"], query["mapped_after"], query["differing"]) == (25, 23, 25)
        counts = {name: (each["new"], each["modified"], each["deleted"]) for name, each in fields.items()}
        assert counts == {
            "user_id": (0, 0, 2),
            "plan": (0, 23, 2),
            "spent": (0, 0, 7),
            "tags": (0, 0, 2),
            "last_tag": (23, 0, 0),
        }
        assert fields["spent"]["unmodified"] == 18
        # The newest comes first.
        first, _, third = fields["plan"]["sample"]
        assert (first["position"], first["before"], first["after"]) == (30, "gold", None)
        assert (third["position"], third["before"], third["after"]) == (28, "gold", "GOLD")


async def test_values_that_identify_nobody_give_nothing_in_a_preview_either(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened, users=3)
        await opened.post("/v2/identity/guard", {"value": "u1"}, ok=True)

        told = (await opened.post("/api/query/_preview?events=9", data=SHOP.replace("plan, ", ""), ok=True)).data

        (query,) = told["events"]
        assert (query["events"], query["mapped_before"], query["mapped_after"]) == (3, 2, 2)


async def test_a_query_that_moves_to_another_stream_is_shown_on_both(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened, users=3)
        await opened.post("/collect/json/app", [{"user_id": "x", "amount": 1}], ok=True)

        told = (
            await opened.post("/api/query/_preview?events=9", data=SHOP.replace("FROM web", "FROM app"), ok=True)
        ).data

        (query,) = told["events"]
        assert (query["streams"], query["events"]) == (["app", "web"], 4)
        assert (query["mapped_before"], query["mapped_after"]) == (3, 1)


async def test_what_cannot_be_previewed_is_refused_with_words(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened, users=1)
        for path, body, status, words in (
            ("/v2/segment/nothing/preview", BIG, 404, "there is no audience 'nothing'"),
            ("/v2/segment/big/preview", "FILTER INCLUDE vip", 422, "cannot include itself"),
            ("/v2/segment/big/preview", "FILTER spent >", 422, "line 1"),
            ("/api/query/_preview", "", 422, "nothing is proposed"),
            ("/api/query/_preview?audience=nothing", SHOP, 404, "there is no audience 'nothing'"),
            ("/api/query/_preview?events=x", SHOP, 400, f"from 0 to {MOST_EVENTS}"),
            ("/api/query/_preview?events=1001", SHOP, 400, f"from 0 to {MOST_EVENTS}"),
            ("/api/query/_preview?delete=nothing", "", 404, "there is no query 'nothing'"),
        ):
            answer = await opened.post(path, data=body)
            assert (answer.status, words in answer.message) == (status, True), (path, answer.message)


@pytest.mark.parametrize("text", ["FILTER spent >= 100", "FILTER INCLUDE big ALIAS big", "FILTER Spent >= 100 ALIAS x"])
async def test_the_size_of_a_filter_needs_no_name(tmp_path, open_daemon, text):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)

        assert (await opened.post("/api/segment/size", data=text, ok=True)).data == {"size": 20, "profiles": 30}
