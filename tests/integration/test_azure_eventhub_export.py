"""`azure_eventhub_export` against the peer: the messages, their order, and all that can go wrong on the way."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections import defaultdict
from typing import Any

import pytest
from chaos import chaos
from eventhub.started import WRONG, foreign, running
from structlog.testing import capture_logs

from connectors.azure import hub_export

QUERY = "SELECT uid, visits AS visits KIND int, name AS name, story AS story FROM default INTO user BY uid ALIAS q"
AUDIENCES = ("FILTER visits > 0 ALIAS active", "FILTER visits > 10 ALIAS eager")
#: Short, so that a test sees a job sleep and wake.
QUICK = {"retry_s": 0.3, "back_off_s": 0.3, "request_timeout_s": 2.0, "stop_s": 3.0}
BUSY = {
    "on": "send",
    "kind": "reject",
    "condition": "com.microsoft:server-busy",
    "description": "The request was terminated because the entity is being throttled. Please wait 1 seconds.",
}
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


async def define(client: Any) -> None:
    await client.call("POST", "/api/query", data=QUERY, ok=True)
    for text in AUDIENCES:
        await client.call("POST", "/api/segment", data=text, ok=True)


async def put(client: Any, events: list[dict[str, Any]]) -> None:
    await client.post("/collect/json/default", events, ok=True)


async def authorize(client: Any, connection: str, **fields: Any) -> str:
    config = {"connection_string": connection} | fields
    answer = await client.post("/v2/auth/azure/azure_eventhub", {"label": "hub", "config": config}, ok=True)
    return str(answer.data["id"])


async def export(client: Any, auth: str, **config: Any) -> str:
    body = {"label": "to the hub", "auth_id": auth, "config": {"audiences": ["active"], "flush_seconds": 0.05} | config}
    return str((await client.post("/v2/job/azure_eventhub_export", body, ok=True)).data["id"])


async def until(client: Any, job: str, holds: Any) -> dict[str, Any]:
    try:
        async with asyncio.timeout(40):
            while not holds(found := (await client.get(f"/v2/job/{job}", ok=True)).data):
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"waited in vain: {found}")
    return dict(found)


def by_person(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for each in events:
        found[each["json"]["data"]["uid"]].append(each)
    return found


def assert_in_order(events: list[dict[str, Any]]) -> None:
    """Each person's events are in one partition, and, repeats left out, in the order of their trigger ids."""
    for mine in by_person(events).values():
        ids = list(dict.fromkeys(int(each["json"]["id"]) for each in mine))
        assert sorted(ids) == ids
        assert len({each["partition"] for each in mine}) == 1
        assert {each["json"]["data"]["_id"] for each in mine} == {each["key"] for each in mine}


# --- the messages


async def test_enters_and_exits_arrive_as_the_document_shows_them(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        auth = await authorize(opened, eventhub.connection(hub))
        await export(opened, auth, audiences=["active", "eager"])
        await put(opened, [{"uid": "ann", "visits": 20, "name": "Ann"}, {"uid": "bob", "visits": 5}])
        await eventhub.wait(2, hub)
        await put(opened, [{"uid": "ann", "visits": 5}])
        await eventhub.wait(3, hub)
        await put(opened, [{"uid": "ann", "visits": 30}, {"uid": "bob", "visits": 0}])
        await eventhub.wait(5, hub)
        segments = {each["slug"]: each["id"] for each in (await opened.get("/api/segment", ok=True)).data}
        subscription = (await opened.get("/v2/subscription", ok=True)).data[0]["id"]
        events = await eventhub.events(hub)
    people = by_person(events)
    first = people["ann"][0]

    assert {"id", "data", "meta"} == set(first["json"])
    assert {"_id", "_created", "_modified", "uid", "visits", "name", "segment_events"} <= set(first["json"]["data"])
    assert {"object": "user", "subscription_id": subscription} == {
        name: first["json"]["meta"][name] for name in ("object", "subscription_id")
    }
    assert RFC_3339.fullmatch(first["json"]["meta"]["timestamp"])
    assert [("active", "enter"), ("eager", "enter")] == [
        (each["slug"], each["event"]) for each in first["json"]["data"]["segment_events"]
    ]
    for each in first["json"]["data"]["segment_events"]:
        assert segments[each["slug"]] == each["id"]
        assert each["exit"] == "2099-12-31T23:59:59Z"
        assert RFC_3339.fullmatch(each["enter"])
        assert each["trigger_id"].isdecimal()
    assert [("enter", "active,eager"), ("exit", "eager"), ("enter", "eager")] == [
        (each["properties"]["event"], each["properties"]["audience"]) for each in people["ann"]
    ]
    assert [("enter", "active"), ("exit", "active")] == [
        (each["properties"]["event"], each["properties"]["audience"]) for each in people["bob"]
    ]
    for each in events:
        assert each["json"]["id"] == each["properties"]["id"] == each["message_id"]
        assert each["json"]["id"] == each["json"]["data"]["segment_events"][0]["trigger_id"]
        assert each["content_type"] == "application/json"
    assert_in_order(events)


async def test_a_foreign_client_reads_what_was_sent(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        await export(opened, await authorize(opened, eventhub.connection(hub)), user_fields=["name"])
        await put(opened, [{"uid": f"p{n}", "visits": 1, "name": f"Ünal {n}"} for n in range(30)])
        await eventhub.wait(30, hub)
        found = (await foreign(connection=eventhub.connection(hub), receive=30))["events"]

    assert {f"Ünal {n}" for n in range(30)} == {each["body"]["data"]["name"] for each in found}
    assert {"name", "segment_events"} == set(found[0]["body"]["data"])
    assert len({each["key"] for each in found}) == 30  # the profile, also where its fields are not sent
    assert {("enter", "active")} == {(each["properties"]["event"], each["properties"]["audience"]) for each in found}


async def test_existing_members_are_sent_first_and_nobody_is_missing_or_doubled(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        await put(opened, [{"uid": f"p{n}", "visits": 1} for n in range(400)])
        async with asyncio.timeout(20):
            while (await opened.get("/api/segment/active", ok=True)).data["size"] < 400:
                await asyncio.sleep(0.05)
        auth = await authorize(opened, eventhub.connection(hub))
        await export(opened, auth, existing_users=True)
        await put(opened, [{"uid": f"p{n}", "visits": 0} for n in range(0, 400, 2)])
        await put(opened, [{"uid": f"q{n}", "visits": 1} for n in range(100)])
        async with asyncio.timeout(30):
            while True:
                events = await eventhub.events(hub)
                last = {uid: mine[-1]["properties"]["event"] for uid, mine in by_person(events).items()}
                wanted = {f"p{n}": "enter" if n % 2 else "exit" for n in range(400)}
                if last == wanted | {f"q{n}": "enter" for n in range(100)}:
                    break
                await asyncio.sleep(0.05)
    ids = [each["properties"]["id"] for each in events]

    assert len(ids) == len(set(ids))
    assert_in_order(events)


async def test_only_enters_or_exits_are_sent_where_asked_for(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        auth = await authorize(opened, eventhub.connection(None), hub=hub)
        await export(opened, auth, events="exits")
        await put(opened, [{"uid": "ann", "visits": 1}, {"uid": "bob", "visits": 1}])
        await put(opened, [{"uid": "ann", "visits": 0}])
        await eventhub.wait(1, hub)
        await put(opened, [{"uid": "bob", "visits": 0}])
        await eventhub.wait(2, hub)
        events = await eventhub.events(hub)

    assert [("exit", "ann"), ("exit", "bob")] == sorted(
        (each["properties"]["event"], each["json"]["data"]["uid"]) for each in events
    )


# --- batches, and what is too large


async def test_batches_fill_up_to_their_limit_and_never_beyond(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub(1)
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        await put(opened, [{"uid": f"p{n}", "visits": 1, "story": "x" * 900} for n in range(500)])
        auth = await authorize(opened, eventhub.connection(hub))
        await export(opened, auth, existing_users=True, max_batch_bytes=65_536, flush_seconds=1)
        await eventhub.wait(500, hub)
        stats = (await eventhub.ask("stats"))["hubs"][hub]

    assert max(stats["sizes"]) <= 65_536
    assert max(stats["batches"]) > 10
    assert len(stats["batches"]) < 60


async def test_a_profile_that_is_too_large_loses_its_largest_fields_and_that_is_said(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    async with open_daemon(tmp_path, jobs=QUICK) as client:
        await define(client)
        auth = await authorize(client, eventhub.connection(hub))
        await client.call("POST", "/collect/bulk/default", data=_csv("big", "s" * 90_000, "n" * 2000), ok=True)
        await client.call("POST", "/collect/bulk/default", data=_csv("fits", "s" * 50_000, "n" * 2000), ok=True)
        with capture_logs() as logged:
            job = await export(client, auth, max_batch_bytes=65_536, existing_users=True)
            await eventhub.wait(2, hub)
        line = next(each for each in logged if each["event"] == "message_reduced")
        people = by_person(await eventhub.events(hub))
        async with asyncio.timeout(10):
            while not (sent := (await client.get(f"/v2/job/{job}/deliveries", ok=True)).data):
                await asyncio.sleep(0.05)
    big, fits = people["big"][0], people["fits"][0]

    assert {"_id", "_created", "_modified", "uid", "visits", "name", "segment_events"} <= set(big["json"]["data"])
    assert "story" not in big["json"]["data"]
    assert big["properties"]["omitted_fields"] == "story"
    assert big["json"]["data"]["name"] == "n" * 2000
    assert fits["json"]["data"]["story"] == "s" * 50_000
    assert "omitted_fields" not in fits["properties"]
    assert (line["omitted"], line["profile"]) == (["story"], big["key"])
    assert line["bytes"] > 90_000 > line["sent"]
    assert any("lost fields" in (each["answer"] or "") for each in sent)


def _csv(uid: str, story: str, name: str) -> bytes:
    return f"uid,visits,story,name\n{uid},1,{story},{name}\n".encode()


async def test_a_hub_that_takes_less_than_it_says_gets_less(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub(1)
    too_large = {"on": "send", "kind": "reject", "condition": "amqp:link:message-size-exceeded"}
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        auth = await authorize(opened, eventhub.connection(hub))
        await eventhub.ask("fault", **too_large, times=2)  # the SDK tries a second time by itself
        with capture_logs() as logged:
            await export(opened, auth)
            await put(opened, [{"uid": "ann", "visits": 1}])
            await eventhub.wait(1, hub)
    line = next(each for each in logged if each["event"] == "batches_halved")

    assert line["bytes"] == 524_288


# --- what goes wrong on the way


async def test_killed_again_and_again_everything_arrives_in_order(tmp_path, eventhub, start_cohortd):
    hub = await eventhub.new_hub()
    people, rounds = 200, 4
    async with start_cohortd(tmp_path) as cohortd:
        await define(cohortd.client)
        auth = await authorize(cohortd.client, eventhub.connection(hub))
        await export(cohortd.client, auth)
        kills = 0
        for turn in range(rounds):
            before = len(await eventhub.events(hub))
            await put(cohortd.client, [{"uid": f"p{n}", "visits": 1 - turn % 2} for n in range(people)])
            if turn == 1:
                await eventhub.wait(before + 1, hub)
                await cohortd.kill()
                kills += 1
                await cohortd.start()
        async with asyncio.timeout(40):
            while True:
                events = await eventhub.events(hub)
                if len({each["properties"]["id"] for each in events}) == people * rounds:
                    break
                await asyncio.sleep(0.1)

    assert kills == 1
    assert_in_order(events)
    for mine in by_person(events).values():
        told = dict.fromkeys((each["properties"]["id"], each["properties"]["event"]) for each in mine)
        assert ["enter", "exit"] * (rounds // 2) == [event for _, event in told]


async def test_broken_connections_lose_nothing_and_repeats_have_the_same_id(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub(1)
    kinds = {"drop": 3, "store-then-drop": 3, "silent": 1}
    arrived = {}
    async with open_daemon(tmp_path, jobs=QUICK | {"retry_s": 5.0, "request_timeout_s": 4.0}) as opened:
        await define(opened)
        await export(opened, await authorize(opened, eventhub.connection(hub)))
        before = 0
        seen: set[str] = set()
        for kind, times in kinds.items():
            await eventhub.ask("fault", on="send", kind=kind, times=times)
            try:
                await put(opened, [{"uid": f"{kind} {n}", "visits": 1} for n in range(20)])
                async with asyncio.timeout(40):
                    await eventhub.ask("wait_hits", on="send", count=times)
                    while (
                        len(ids := {each["properties"]["id"] for each in await eventhub.events(hub)}) < len(seen) + 20
                    ):
                        await asyncio.sleep(0.05)
            finally:
                await eventhub.ask("clear")
            events = await eventhub.events(hub)
            seen = ids
            arrived[kind] = len(events) - before
            before = len(events)

    assert len(seen) == 20 * len(kinds)
    assert arrived.pop("store-then-drop") > 20
    assert min(arrived.values()) >= 20  # a repeat of the kind before may come among them
    assert_in_order(events)


async def test_a_hub_that_went_away_and_came_back_gets_the_rest(tmp_path, open_daemon):
    with running(tmp_path / "peer") as peer:
        async with open_daemon(tmp_path / "data", jobs=QUICK) as opened:
            await define(opened)
            job = await export(opened, await authorize(opened, peer.connection()))
            await put(opened, [{"uid": f"p{n}", "visits": 1} for n in range(50)])
            await peer.wait(50)
            peer.end(signal.SIGKILL)
            await put(opened, [{"uid": f"p{n}", "visits": 0} for n in range(50)])
            await until(opened, job, lambda each: each["state"] == "sleeping")
            peer.start()
            async with asyncio.timeout(20):
                while len({each["properties"]["id"] for each in await peer.events()}) < 100:
                    await asyncio.sleep(0.05)
            events = await peer.events()

    assert_in_order(events)
    assert {"exit"} == {mine[-1]["properties"]["event"] for mine in by_person(events).values()}


async def test_a_slow_network_only_takes_longer(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    async with chaos(eventhub.ports["amqp"]) as proxy, open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        auth = await authorize(opened, eventhub.connection(hub, port=proxy.port))
        await export(opened, auth)
        await put(opened, [{"uid": "warm", "visits": 1}])
        await eventhub.wait(1, hub)
        proxy.delay_s = 0.05
        await put(opened, [{"uid": f"p{n}", "visits": 1} for n in range(200)])
        await eventhub.wait(201, hub)
        proxy.delay_s = 0
        proxy.drop()
        await put(opened, [{"uid": f"q{n}", "visits": 1} for n in range(200)])
        await eventhub.wait(401, hub)
        events = await eventhub.events(hub)

    assert len({each["properties"]["id"] for each in events}) == 401
    assert_in_order(events)


async def test_a_busy_hub_is_waited_for_as_it_asks_and_that_is_no_error(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub(1)
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        auth = await authorize(opened, eventhub.connection(hub))
        await eventhub.ask("fault", **BUSY, times=4)  # two rounds: the SDK tries a second time by itself
        with capture_logs() as logged:
            job = await export(opened, auth)
            await put(opened, [{"uid": "ann", "visits": 1}])
            began = time.monotonic()
            shown = await until(opened, job, lambda each: "busy" in (each.get("reason") or ""))
            await eventhub.wait(1, hub)
        took = time.monotonic() - began
        after = await until(opened, job, lambda each: not each.get("reason"))
        events = await eventhub.events(hub)
    waits = [each["wait_s"] for each in logged if each["event"] == "hub_throttled"]

    assert shown["state"] == after["state"] == "running"
    assert len(waits) == 2
    assert 1 <= waits[0] <= 1.3
    assert 2 <= waits[1] <= 2.5
    assert took > 2.5
    assert len(events) == 1


async def test_what_the_hub_has_already_is_not_sent_again_while_it_is_busy(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub(2)
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        await put(opened, [{"uid": f"p{n}", "visits": 1} for n in range(60)])
        auth = await authorize(opened, eventhub.connection(hub))
        await eventhub.ask("fault", **BUSY, times=2, skip=1)  # one partition takes its batch, the other does not
        await export(opened, auth, existing_users=True, flush_seconds=1)
        await eventhub.wait(60, hub)
        events = await eventhub.events(hub)

    assert len(events) == 60
    assert {0, 1} == {each["partition"] for each in events}


async def test_a_connection_that_was_idle_for_long_is_opened_anew(tmp_path, eventhub, open_daemon, monkeypatch):
    monkeypatch.setattr(hub_export, "IDLE_S", 0.0)
    hub = await eventhub.new_hub(1)
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        await export(opened, await authorize(opened, eventhub.connection(hub)))
        await put(opened, [{"uid": "ann", "visits": 1}])
        await eventhub.wait(1, hub)
        before = (await eventhub.ask("stats"))["opened"]
        await put(opened, [{"uid": "ann", "visits": 0}])
        await eventhub.wait(2, hub)
        after = (await eventhub.ask("stats"))["opened"]

    assert after > before


async def test_a_key_that_is_changed_makes_the_authorization_unhealthy_until_it_fits(tmp_path, open_daemon):
    with running(tmp_path / "peer") as peer:
        async with open_daemon(tmp_path / "data", jobs=QUICK) as opened:
            await define(opened)
            auth = await authorize(opened, peer.connection())
            job = await export(opened, auth)
            await put(opened, [{"uid": "ann", "visits": 1}])
            await peer.wait(1)
            await peer.ask("keys", keys={"send": WRONG})
            await peer.ask("drop")
            await put(opened, [{"uid": "bob", "visits": 1}])
            asleep = await until(opened, job, lambda each: each["state"] == "sleeping")
            blamed = (await opened.get(f"/v2/auth/{auth}", ok=True)).data
            await peer.ask("keys", keys={"send": peer.key})
            await peer.wait(2)
            healed = await opened.post(f"/v2/auth/{auth}/check", ok=True)
            logs = (await opened.get(f"/v2/job/{job}/logs", ok=True)).content.decode()

    assert blamed["status"] == "unhealthy"
    assert "SharedAccessKey is refused" in asleep["reason"]
    assert healed.data["status"] == "healthy"
    assert peer.key not in logs + str(blamed) + str(asleep)


async def test_a_hub_that_is_deleted_fails_the_job_and_resuming_it_goes_on(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        job = await export(opened, await authorize(opened, eventhub.connection(hub)))
        await put(opened, [{"uid": "ann", "visits": 1}])
        await eventhub.wait(1, hub)
        await eventhub.ask("delete", hub=hub)
        await put(opened, [{"uid": "ann", "visits": 0}, {"uid": "bob", "visits": 1}])
        failed = await until(opened, job, lambda each: each["state"] == "failed")
        await eventhub.ask("create", hub=hub, partitions=4)
        await opened.post(f"/v2/job/{job}/resume", ok=True)
        await eventhub.wait(2, hub)
        events = await eventhub.events(hub)

    assert f"there is no hub '{hub}'" in failed["reason"]
    assert [("ann", "exit"), ("bob", "enter")] == sorted(
        (each["json"]["data"]["uid"], each["properties"]["event"]) for each in events
    )


async def test_a_paused_job_sends_nothing_and_goes_on_where_it_was(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        job = await export(opened, await authorize(opened, eventhub.connection(hub)))
        await put(opened, [{"uid": "ann", "visits": 1}])
        await eventhub.wait(1, hub)
        await opened.post(f"/v2/job/{job}/pause", ok=True)
        await until(opened, job, lambda each: each["state"] == "paused")
        await put(opened, [{"uid": "ann", "visits": 0}])
        await put(opened, [{"uid": "ann", "visits": 1}])
        before = await eventhub.events(hub)
        await opened.post(f"/v2/job/{job}/resume", ok=True)
        await eventhub.wait(3, hub)
        events = await eventhub.events(hub)

    assert len(before) == 1
    assert ["enter", "exit", "enter"] == [each["properties"]["event"] for each in events]


async def test_a_hub_that_is_stopped_holds_up_neither_pausing_nor_the_end(tmp_path, start_cohortd):
    with running(tmp_path / "peer") as peer:
        async with start_cohortd(tmp_path / "data") as cohortd:
            client = cohortd.client
            await define(client)
            job = await export(client, await authorize(client, peer.connection()))
            await put(client, [{"uid": "ann", "visits": 1}])
            await peer.wait(1)
            peer.send_signal(signal.SIGSTOP)
            await put(client, [{"uid": f"p{n}", "visits": 1} for n in range(100)])
            await until(client, job, lambda each: each["state"] == "running")
            began = time.monotonic()
            await client.post(f"/v2/job/{job}/pause", ok=True)
            await until(client, job, lambda each: each["state"] == "paused")
            paused_s = time.monotonic() - began
            await client.post(f"/v2/job/{job}/resume", ok=True)
            await until(client, job, lambda each: each["state"] == "running")
            began = time.monotonic()
            status = await cohortd.stop()
            stopped_s = time.monotonic() - began
            left_alone = [each for each in cohortd.log if each["event"] == "run_abandoned"]
            peer.send_signal(signal.SIGCONT)
            await cohortd.start()
            await peer.wait(101)
            events = await peer.events()

    assert status == 0
    assert left_alone == []
    assert paused_s < 5
    assert stopped_s < 10
    assert len({each["properties"]["id"] for each in events}) == 101


# --- the way there


async def test_a_job_goes_over_websockets_where_that_is_set(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    fields = {"endpoint": f"localhost:{eventhub.ports['wss']}", "ca_certificates": eventhub.ca.read_text()}
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        auth = await authorize(opened, eventhub.cloud(hub), transport="websocket", **fields)
        await export(opened, auth)
        other = await authorize(opened, eventhub.cloud(hub), **fields)  # unknown: nobody answers AMQP there
        await export(opened, other, transport="websocket", audiences=["eager"])
        await put(opened, [{"uid": f"p{n}", "visits": 20} for n in range(100)])
        await eventhub.wait(200, hub)
        events = await eventhub.events(hub)

    assert {"active": 100, "eager": 100} == {
        slug: sum(each["properties"]["audience"] == slug for each in events) for slug in ("active", "eager")
    }


async def test_a_sample_of_a_dry_run_reaches_the_hub(tmp_path, eventhub, open_daemon):
    hub = await eventhub.new_hub()
    async with open_daemon(tmp_path, jobs=QUICK) as opened:
        await define(opened)
        await put(opened, [{"uid": "ann", "visits": 1}])
        async with asyncio.timeout(20):
            while (await opened.get("/api/segment/active", ok=True)).data["size"] < 1:
                await asyncio.sleep(0.05)
        auth = await authorize(opened, eventhub.connection(hub))
        body = {"auth_id": auth, "config": {"audiences": ["active"]}}
        await opened.post("/v2/job/azure_eventhub_export/dryrun?send=1", body, ok=True)
        await eventhub.wait(1, hub)
        (event,) = await eventhub.events(hub)

    assert event["properties"]["audience"] == "active"
    assert event["key"] == event["json"]["data"]["_id"]
