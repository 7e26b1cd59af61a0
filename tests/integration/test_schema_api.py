"""`/v2/schema` as clients see it: the document, its versions, differences and reverts."""

from __future__ import annotations

SHOP = "SELECT user_id, sum(amount) AS spent KIND number, plan FROM web INTO user BY user_id ALIAS shop"
BIG = "FILTER spent >= 100 ALIAS big"
VIP = 'FILTER AND ( INCLUDE big, plan = "gold" ) ALIAS vip'


async def set_up(opened):
    await opened.post("/api/query", data=SHOP, params={"description": "first"}, ok=True)
    await opened.post("/api/segment", data=BIG, ok=True)
    await opened.post("/api/segment", data=VIP, ok=True)
    config = {"audiences": ["vip"], "url": "http://127.0.0.1:9/hook"}
    made = await opened.post("/v2/job/webhook_triggers", {"label": "crm", "config": config}, ok=True)
    return made.data["id"]


def fields(told):
    return {each["name"]: each for each in told["fields"]}


def slugs(field):
    return [(each["slug"], each["via"]) for each in field["audiences"]]


async def test_the_schema_is_a_document_with_a_version(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        empty = (await opened.get("/v2/schema/user", ok=True)).data
        await set_up(opened)

        shown = (await opened.get("/v2/schema/user", ok=True)).data

        assert (empty["version"], empty["fields"]) == (0, [])
        assert (shown["version"], shown["cause"], shown["description"]) == (1, "query", "first")
        spent = fields(shown)["spent"]
        assert (spent["kind"], spent["merge_op"], spent["queries"]) == ("number", "sum", ["shop"])
        assert spent["mappings"] == [
            {
                "query": "shop",
                "stream": "web",
                "expr": "sum(amount)",
                "guard_expr": None,
                "by": False,
                "kind": "number",
                "merge_op": "sum",
                "capacity": None,
                "keep_days": None,
            }
        ]
        assert shown["identities"] == [{"field": "user_id", "rank": 0, "single": True}]
        assert (await opened.get("/v2/schema/nothing")).status == 404


async def test_versions_are_listed_shown_compared_and_gone_back_to(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        job = await set_up(opened)
        await opened.post("/api/query", data=SHOP.replace("number", "int").replace(", plan", ", tier"), ok=True)
        await opened.delete("/api/query/shop", params={"description": "moved away"}, ok=True)

        listed = await opened.get("/v2/schema/user/version", params={"limit": "2"}, ok=True)
        rest = await opened.get("/v2/schema/user/version", params={"start": listed.body["_next"]}, ok=True)
        second = (await opened.get("/v2/schema/user/version/2", ok=True)).data
        diff = (await opened.get("/v2/schema/user/diff", params={"from": "1", "to": "2"}, ok=True)).data

        assert [(each["version"], each["cause"]) for each in listed.data] == [(3, "query_deleted"), (2, "query")]
        assert listed.data[0]["description"] == "moved away"
        assert (listed.body["total"], [each["version"] for each in rest.data], "_next" in rest.body) == (3, [1], False)
        assert fields(second)["spent"]["kind"] == "int"
        assert second["query_texts"][0]["text"].startswith("SELECT user_id, sum(amount) AS spent KIND int")
        assert {name: each["status"] for name, each in fields(diff).items()} == {
            "spent": "modified",
            "tier": "new",
            "plan": "deleted",
        }
        assert diff["summary"] == {"new": 1, "modified": 1, "deleted": 1, "unmodified": 1}
        spent = fields(diff)["spent"]
        assert spent["changes"] == [{"property": "kind", "before": "number", "after": "int"}]
        assert (spent["before"]["kind"], spent["after"]["kind"], spent["values"]) == ("number", "int", "begun_anew")
        assert slugs(spent) == [("big", []), ("vip", ["big"])]
        assert [(each["id"], each["audiences"]) for each in spent["jobs"]] == [(job, ["vip"])]
        assert slugs(fields(diff)["plan"]) == [("vip", [])]
        assert [(each["alias"], each["status"]) for each in diff["queries"]] == [("shop", "modified")]

        back = await opened.post("/v2/schema/user/version/1/revert", {"description": "undo"}, ok=True)
        again = await opened.post("/v2/schema/user/version/1/revert", ok=True)

        assert (back.data["version"], back.data["cause"], back.data["reverted_to"]) == (4, "revert", 1)
        assert (back.data["changed"], back.data["description"]) == (True, "undo")
        assert (again.data["version"], again.data["changed"]) == (4, False)
        same = (await opened.get("/v2/schema/user/diff", params={"from": "1"}, ok=True)).data
        assert (same["to"], same["fields"], same["queries"]) == (4, [], [])
        assert (await opened.get("/api/query/shop", ok=True)).data["text"] == SHOP


async def test_what_is_no_version_is_refused_with_words(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        for path, status in (
            ("/v2/schema/user/version/2", 404),
            ("/v2/schema/user/version/x", 400),
            ("/v2/schema/user/version/-1", 400),
            ("/v2/schema/user/diff?from=7", 404),
            ("/v2/schema/user/diff?to=1.5", 400),
        ):
            answer = await opened.get(path)
            assert answer.status == status, path
            assert "/v2/schema/user/version lists them" in answer.message
        assert (await opened.post("/v2/schema/user/version/9/revert")).status == 404
        assert (await opened.post("/v2/schema/user/version/1/revert", {"why": "x"})).status == 400


async def test_a_reader_may_compare_but_not_go_back(tmp_path, open_daemon, make_token):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        token = make_token(tmp_path, "read")

        assert (await opened.post("/v2/schema/user/diff", {"delete": ["shop"]}, token=token)).status == 200
        assert (await opened.post("/v2/schema/user/version/0/revert", token=token)).status == 403


async def test_a_proposed_query_is_compared_before_it_is_saved(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        job = await set_up(opened)
        text = SHOP.replace("KIND number", "KIND int") + "; SELECT user_id, ip FROM app INTO user BY user_id ALIAS app"

        told = (await opened.post("/v2/schema/user/diff", data=text, ok=True)).data

        assert (told["from"], told["to"]) == (1, None)
        assert {name: each["status"] for name, each in fields(told).items()} == {
            "user_id": "modified",  # a second query feeds it
            "spent": "modified",
            "ip": "new",
        }
        assert slugs(fields(told)["spent"]) == [("big", []), ("vip", ["big"])]
        assert [each["id"] for each in told["jobs"]] == [job]
        assert (await opened.get("/v2/schema/user", ok=True)).data["version"] == 1


async def test_a_proposed_deletion_and_filter_are_compared(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        job = await set_up(opened)

        gone = (await opened.post("/v2/schema/user/diff", {"delete": ["shop"]}, ok=True)).data
        also = (await opened.post("/v2/schema/user/diff?delete=shop", ok=True)).data
        filters = ['FILTER AND ( plan = "gold", nothing > 3 ) ALIAS big', "FILTER INCLUDE vip ALIAS more"]
        told = (await opened.post("/v2/schema/user/diff", {"filters": filters}, ok=True)).data

        assert {name: (each["status"], each["values"]) for name, each in fields(gone).items()} == dict.fromkeys(
            ("user_id", "spent", "plan"), ("deleted", "hidden")
        )
        assert also["fields"] == gone["fields"]
        assert told["fields"] == []
        big, more = told["filters"]
        assert (big["slug"], big["status"], big["included_by"]) == ("big", "modified", ["vip", "more"])
        assert [each["id"] for each in big["jobs"]] == [job]
        assert {each["property"]: (each["before"], each["after"]) for each in big["changes"]} == {
            "text": ("FILTER spent >= 100 ALIAS big", 'FILTER AND ( plan = "gold", nothing > 3 ) ALIAS big'),
            "fields": (["spent"], ["plan"]),
        }
        assert big["unknown_fields"] == ["nothing"]
        assert (more["slug"], more["status"], more["after"]["includes"]) == ("more", "new", ["vip"])


async def test_a_proposal_is_refused_as_saving_it_would_be(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        other = "SELECT user_id, spent KIND date FROM app INTO user BY user_id ALIAS app"
        for body, status, words in (
            (other, 422, "spent is number in shop, but date in app"),
            ({"delete": ["nothing"]}, 404, "there is no query 'nothing'"),
            ({"filters": ["FILTER INCLUDE nothing ALIAS x"]}, 422, "nothing"),
            ({"filters": ["FILTER INCLUDE vip ALIAS big"]}, 422, "cannot include itself"),
            ({"filter": "FILTER * ALIAS x"}, 400, "unknown key 'filter'"),
            ({"queries": "SELECT"}, 400, "queries must be a list of texts"),
            ("{", 400, "neither LQL nor JSON"),
            ("", 422, "nothing is proposed"),
        ):
            sent = {"json": body} if isinstance(body, dict) else {"data": body}
            answer = await opened.call("POST", "/v2/schema/user/diff", **sent)
            assert (answer.status, words in answer.message) == (status, True), (body, answer.message)


async def test_queries_that_only_go_together_are_stored_together(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await set_up(opened)
        app = "SELECT user_id, sum(price) AS spent KIND int FROM app INTO user BY user_id ALIAS app"
        shop = SHOP.replace("number", "int")

        alone = await opened.post("/api/query", data=app)
        validated = (await opened.post("/api/query/_validate", data=f"\n{app}", ok=True)).data
        both = await opened.post("/api/query", {"queries": [shop, app], "description": "cents"}, ok=True)
        swap = await opened.post("/api/query", {"query": SHOP, "delete": ["app"]}, ok=True)

        assert (alone.status, alone.errors[0]["loc"]) == (422, [1, 17])
        assert "spent is number in shop, but int in app" in alone.message
        assert (validated["valid"], validated["diagnostics"][0]["line"]) == (False, 2)
        assert [each["alias"] for each in both.data] == ["shop", "app"]
        assert [each["alias"] for each in swap.data] == ["shop"]
        found = (await opened.get("/v2/schema/user/version", ok=True)).data
        assert [(each["version"], each["stored"], each["deleted"]) for each in found] == [
            (3, ["shop"], ["app"]),
            (2, ["shop", "app"], []),
            (1, ["shop"], []),
        ]
        assert found[1]["description"] == "cents"
