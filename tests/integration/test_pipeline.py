"""The main job, end to end: an event comes in over HTTP, a profile and its audiences follow, a webhook is told."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

QUERY = """
SELECT
    email(email)             AS email,
    user_id                  AS user_id,
    firstname                AS firstname,
    count(amount)            AS orders,
    sum(tonumber(amount))    AS total,
    max(now())               AS last_order KIND date
FROM shop INTO user BY email OR user_id ALIAS shop
"""
BIG = "FILTER total > 100 ALIAS big"
FRESH = 'FILTER last_order > "now-2s" ALIAS fresh'
NAMED = "FILTER EXISTS firstname ALIAS named"


async def define(client, *audiences):
    await client.call("POST", "/api/query", data=QUERY, ok=True)
    for text in audiences:
        await client.call("POST", "/api/segment", data=text, ok=True)


async def hook(client, receiver, audiences, **config):
    config = {"audiences": audiences, "url": receiver.address} | config
    answer = await client.post("/v2/job/webhook_triggers", {"label": "hook", "config": config}, ok=True)
    return answer.data["id"]


async def post(client, *events):
    answer = await client.post("/collect/json/shop", list(events), ok=True)
    assert answer.data["rejected_count"] == 0
    return answer.data


async def profile(client, field, value):
    answer = await client.get(f"/api/entity/user/{field}/{value}")
    return answer.data if answer.status == 200 else None


async def test_an_event_becomes_a_profile_a_membership_and_a_message(tmp_path, open_daemon, open_receiver):
    async with open_receiver() as receiver, open_daemon(tmp_path) as opened:
        await define(opened, BIG, NAMED)
        await hook(opened, receiver, ["big", "named"])
        stored = await post(opened, {"email": "Ann@Example.org", "user_id": 7, "amount": "150.5", "firstname": "Ann"})
        await receiver.until(lambda it: it.messages)
        found = await profile(opened, "email", "ann@example.org")
        sizes = {row["slug"]: row["size"] for row in (await opened.get("/api/segment")).data}

    (message,) = receiver.messages
    assert stored["message_count"] == 1
    assert (found["user_id"], found["orders"], found["total"]) == ("7", 1, 150.5)
    assert receiver.events == [("big", "enter"), ("named", "enter")]
    assert message["id"] == message["data"]["segment_events"][0]["trigger_id"]
    assert message["data"]["email"] == "ann@example.org"
    assert message["data"]["segment_events"][0]["exit"] == "2099-12-31T23:59:59Z"
    assert message["meta"]["object"] == "user"
    assert sizes == {"big": 1, "named": 1}
    assert receiver.requests[0].headers["Content-Type"].startswith("application/json")
    assert receiver.requests[0].headers["Content-Length"]


async def test_a_membership_ends_by_time_alone_at_its_moment(tmp_path, open_daemon, open_receiver):
    async with open_receiver() as receiver, open_daemon(tmp_path) as opened:
        await define(opened, FRESH)
        await hook(opened, receiver, ["fresh"])
        await post(opened, {"user_id": 7, "amount": 1})
        await receiver.until(lambda it: len(it.messages) == 2)

    enter, leave = (message["data"]["segment_events"][0] for message in receiver.messages)
    assert receiver.events == [("fresh", "enter"), ("fresh", "exit")]
    promised, kept = (datetime.fromisoformat(event["exit"]) for event in (enter, leave))
    assert 0 <= (kept - promised).total_seconds() < 1


async def test_a_moment_that_passed_while_the_daemon_was_down_is_made_up_for(tmp_path, start_cohortd, open_receiver):
    async with open_receiver() as receiver, start_cohortd(tmp_path) as cohortd:
        await define(cohortd.client, FRESH)
        await hook(cohortd.client, receiver, ["fresh"])
        await post(cohortd.client, {"user_id": 7, "amount": 1})
        await receiver.until(lambda it: it.messages)
        await cohortd.kill()
        until = datetime.fromisoformat(receiver.messages[0]["data"]["segment_events"][0]["exit"])
        await asyncio.sleep(max(0, (until - datetime.now(until.tzinfo)).total_seconds()))
        await cohortd.start()
        await receiver.until(lambda it: ("fresh", "exit") in it.events)

    assert receiver.events[-1] == ("fresh", "exit")


async def test_two_keys_of_one_person_meet_and_nobody_gets_a_second_enter(tmp_path, open_daemon, open_receiver):
    async with open_receiver() as receiver, open_daemon(tmp_path) as opened:
        await define(opened, BIG)
        await hook(opened, receiver, ["big"])
        await post(opened, {"email": "a@x.org", "amount": 200})
        await post(opened, {"user_id": 7, "amount": 300})
        await receiver.until(lambda it: len(it.trigger_ids) == 2)
        await post(opened, {"email": "a@x.org", "user_id": 7})
        await receiver.until(lambda it: len(it.trigger_ids) == 3)
        both = [await profile(opened, "email", "a@x.org"), await profile(opened, "user_id", "7")]
        size = (await opened.get("/api/segment/big")).data["size"]

    assert both[0] == both[1]
    assert (both[0]["total"], both[0]["orders"]) == (500, 2)
    assert receiver.events == [("big", "enter"), ("big", "enter"), ("big", "exit")]
    assert size == 1


async def test_an_event_id_counts_once_also_over_a_kill(tmp_path, start_cohortd):
    async with start_cohortd(tmp_path) as cohortd:
        await define(cohortd.client)
        first = await post(cohortd.client, {"_id": "e1", "user_id": 7, "amount": 1})
        await cohortd.kill()
        await cohortd.start()
        again = await post(cohortd.client, {"_id": "e1", "user_id": 7, "amount": 1}, {"user_id": 7, "amount": 2})
        async with asyncio.timeout(10):
            while ((await profile(cohortd.client, "user_id", "7")) or {}).get("orders") != 2:
                pass
        found = await profile(cohortd.client, "user_id", "7")

    assert (first["message_count"], first["duplicate_count"]) == (1, 0)
    assert (again["message_count"], again["duplicate_count"]) == (1, 1)
    assert found["total"] == 3


async def test_existing_members_are_sent_and_live_follows_without_a_gap(tmp_path, open_daemon, open_receiver):
    async with open_receiver() as receiver, open_daemon(tmp_path) as opened:
        await define(opened, BIG)
        await post(opened, *({"user_id": number, "amount": 200} for number in range(1, 51)))
        await opened.daemon.services.pipeline.drain()
        await hook(opened, receiver, ["big"], existing_users=True)
        await post(opened, *({"user_id": number, "amount": 200} for number in range(51, 61)))
        await receiver.until(lambda it: len(it.messages) >= 60)

    people = [message["data"]["user_id"] for message in receiver.messages]
    assert sorted(people, key=int) == [str(number) for number in range(1, 61)]


async def test_a_new_audience_finds_those_who_are_there(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await define(opened)
        await post(opened, *({"user_id": number, "amount": 200} for number in range(1, 21)))
        await opened.daemon.services.pipeline.drain()
        await opened.call("POST", "/api/segment", data=BIG, ok=True)
        await opened.daemon.services.pipeline.drain()
        sizes = (await opened.get("/api/segment/big")).data["size"]
        scanned = await opened.get("/api/segment/big/scan", params={"limit": "15"})
        rest = await opened.get("/api/segment/big/scan", params={"limit": "15", "start": scanned.body["_next"]})

    assert sizes == 20
    assert len(scanned.data) + len(rest.data) == 20


async def test_a_destination_that_fails_gets_everything_when_it_is_back_in_order(tmp_path, open_daemon, open_receiver):
    async with open_receiver() as receiver, open_daemon(tmp_path, jobs={"back_off_s": 0.1}) as opened:
        await define(opened, BIG)
        await hook(opened, receiver, ["big"])
        receiver.status = 503
        await post(opened, {"user_id": 7, "amount": 200})
        await receiver.until(lambda it: it.requests)
        await post(opened, {"user_id": 7, "amount": -150})
        receiver.status = 200
        await receiver.until(lambda it: len(it.trigger_ids) >= 2)

    assert receiver.events == [("big", "enter"), ("big", "exit")]
    assert receiver.trigger_ids == sorted(receiver.trigger_ids)


async def test_csv_goes_in_by_the_bulk_lane(tmp_path, open_daemon):
    rows = "user_id,amount\n" + "".join(f"{number % 100},{number}\n" for number in range(1000))
    async with open_daemon(tmp_path) as opened:
        await define(opened, BIG)
        answer = await opened.call(
            "POST", "/collect/bulk/shop", data=rows, headers={"Content-Type": "text/csv"}, ok=True
        )
        await opened.daemon.services.pipeline.drain()
        found = await profile(opened, "user_id", "42")

    assert answer.data["message_count"] == 1000
    assert (found["orders"], found["total"]) == (10, sum(range(42, 1000, 100)))


async def test_definitions_that_are_refused_say_where(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        query = await opened.call("POST", "/api/query", data="SELECT nothing( AS x FROM y")
        audience = await opened.call("POST", "/api/segment", data="FILTER AND ( a > ) ALIAS b")
        job = await opened.post("/v2/job/webhook_triggers", {"config": {"audiences": ["none"], "url": "x"}})
        unknown = await opened.post("/v2/job/nothing", {"config": {}})

    assert (query.status, audience.status, job.status, unknown.status) == (422, 422, 422, 404)
    for answer in (query, audience, job):
        assert {"loc", "msg"} <= set(answer.errors[0])


async def test_an_audience_that_a_job_needs_is_not_deleted(tmp_path, open_daemon, open_receiver):
    async with open_receiver() as receiver, open_daemon(tmp_path) as opened:
        await define(opened, BIG)
        job = await hook(opened, receiver, ["big"])
        needed = await opened.delete("/api/segment/big")
        await opened.delete(f"/v2/job/{job}", ok=True)
        free = await opened.delete("/api/segment/big")

    assert needed.status == 409
    assert free.status == 200


@pytest.mark.parametrize("field", ["email", "user_id"])
async def test_an_erased_person_is_gone_and_the_destination_is_told(tmp_path, open_daemon, open_receiver, field):
    async with open_receiver() as receiver, open_daemon(tmp_path) as opened:
        await define(opened, BIG)
        await hook(opened, receiver, ["big"])
        await post(opened, {"email": "a@x.org", "user_id": 7, "amount": 200})
        await receiver.until(lambda it: it.messages)
        value = {"email": "a@x.org", "user_id": "7"}[field]
        await opened.delete(f"/api/entity/user/{field}/{value}", ok=True)
        await receiver.until(lambda it: len(it.messages) == 2)
        gone = [await profile(opened, "email", "a@x.org"), await profile(opened, "user_id", "7")]

    assert receiver.events == [("big", "enter"), ("big", "exit")]
    assert gone == [None, None]


async def test_every_route_is_described(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        made = (await opened.get("/openapi.json")).body

    calls = {f"{method.upper()} {path}" for path, methods in made["paths"].items() for method in methods}
    ids = [operation["operationId"] for methods in made["paths"].values() for operation in methods.values()]
    assert {
        "POST /collect/json/{stream}",
        "POST /api/query",
        "GET /api/segment/{slug}",
        "POST /v2/job/{job_type}",
    } <= calls
    assert len(ids) == len(set(ids))
