"""From the log to profiles, memberships and triggers."""

from __future__ import annotations

import orjson
import pytest

from daemon import clock
from daemon.ingest import pipeline
from daemon.model.refusal import Conflict, NotFound
from streams.ql.errors import QueryError

QUERY = """
SELECT user_id, email(email) AS email, sum(amount) AS spent KIND number, count(amount) AS orders KIND int,
       max(todate(at)) AS last_order KIND date, plan
FROM web INTO user BY user_id OR email ALIAS web
"""
BIG = "FILTER spent >= 100 ALIAS big"
DAY_US = 86_400_000_000
SECOND_US = 1_000_000


async def test_an_event_makes_a_profile_and_its_enters(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)

        await ingest.take({"user_id": "a", "amount": 60}, {"user_id": "b", "amount": 10})
        await ingest.take({"user_id": "a", "amount": 60})

        assert await ingest.members("big") == [1]
        assert await ingest.triggers() == [("big", 1, "enter", 1, "event")]
        assert await ingest.one("SELECT size FROM audience") == 1
        assert [(each.first, each.last, each.audiences) for each in ingest.commits] == [(1, 1, frozenset({1}))]


@pytest.mark.parametrize("stream", ["shop", "shop.eu-1", 'the "shop"', "läden"])
async def test_events_of_streams_that_no_query_reads_are_counted_and_change_nothing(tmp_path, open_ingest, stream):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY.replace("FROM web", f"FROM `{stream}`"))
        for each in ("other", "web"):
            await ingest.append(*({"user_id": f"u{n}", "amount": 200} for n in range(40)), stream=each)
        await ingest.append({"user_id": "a", "amount": 1}, stream=stream)
        await ingest.append({"user_id": "b", "amount": 1}, stream="other")
        await ingest.drain()
        await ingest.take({"user_id": stream, "amount": 1}, stream="other")
        profiles = await ingest.one("SELECT count(*) FROM profile")
        cursor = await ingest.one("SELECT position FROM lane_cursor WHERE lane = 'realtime'")

    assert (1, 83) == (profiles, cursor)


async def test_only_the_net_change_of_a_commit_is_told(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)

        await ingest.take({"user_id": "a", "amount": 200}, {"user_id": "a", "amount": -200})

        assert await ingest.triggers() == []


async def test_triggers_of_a_profile_alternate(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        for amount in (200, -150, 100, -100):
            await ingest.take({"user_id": "a", "amount": amount})

        assert await ingest.triggers() == [
            ("big", 1, "enter", 1, "event"),
            ("big", 1, "exit", 2, "event"),
            ("big", 1, "enter", 3, "event"),
            ("big", 1, "exit", 4, "event"),
        ]
        assert await ingest.one("SELECT size FROM audience") == 0


async def test_triggers_of_one_profile_stand_together(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        for number in range(3):
            await ingest.pipeline.put_audience(f"FILTER spent >= {number + 1} ALIAS more_{number}")
        await ingest.take(*({"user_id": f"u{each % 5}", "amount": 1} for each in range(20)))

        rows = await ingest.rows("SELECT profile_id, commit_id FROM trigger ORDER BY id")
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        assert {row[1] for row in rows} == {1}


async def test_both_lanes_are_taken_and_the_order_is_kept_in_the_history(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "a", "amount": 1}, lane="bulk")
        await ingest.take({"user_id": "b", "amount": 1}, lane="bulk")
        await ingest.take({"user_id": "c", "amount": 1})

        decisions = await ingest.rows("SELECT kind, body FROM history ORDER BY sequence")
        assert [kind for kind, _ in decisions] == ["identity", "query", "batch", "batch"]
        assert [body for kind, body in decisions if kind == "batch"] == [
            '{"lane":"bulk","upto":2}',
            '{"lane":"realtime","upto":1}',
        ]
        assert ingest.pipeline.lag() == {"realtime": 0, "bulk": 0}


async def test_a_stitch_gives_exits_to_the_absorbed_and_no_second_enter_to_the_survivor(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        await ingest.take({"user_id": "a", "amount": 200}, {"email": "a@example.com", "amount": 300})
        await ingest.take({"user_id": "a", "email": "a@example.com"})

        assert (await ingest.triggers())[2:] == [("big", 2, "exit", 2, "merge")]
        ((merged_into, body),) = await ingest.rows("SELECT merged_into, profile_body FROM trigger WHERE id = 3")
        assert merged_into == 1
        assert "a@example.com" in body
        assert await ingest.members("big") == [1]
        assert await ingest.one("SELECT size FROM audience") == 1
        assert await ingest.rows("SELECT field, value, profile_id FROM identity ORDER BY field") == [
            ("email", "a@example.com", 1),
            ("user_id", "a", 1),
        ]
        assert await ingest.rows("SELECT id FROM profile") == [(1,)]
        assert await ingest.rows("SELECT profile_id FROM membership") == [(1,)]


async def test_a_stitch_evaluates_the_merged_profile(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        await ingest.take({"user_id": "a", "amount": 60}, {"email": "a@example.com", "amount": 60})
        await ingest.take({"user_id": "a", "email": "a@example.com"})

        assert await ingest.triggers() == [("big", 1, "enter", 1, "merge")]


async def test_profiles_made_and_stitched_in_one_batch_leave_nothing_behind(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "a"}, {"email": "a@example.com"}, {"user_id": "a", "email": "a@example.com"})

        assert await ingest.rows("SELECT id FROM profile") == [(1,)]
        assert {row[0] for row in await ingest.rows("SELECT profile_id FROM identity")} == {1}


async def test_what_the_cache_cannot_hold_is_read_again(tmp_path, open_ingest):
    async with open_ingest(tmp_path, cached_profiles=3, batch_events=7, realtime_events=5) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience("FILTER spent >= 10 ALIAS ten")
        for _ in range(10):
            await ingest.append(*({"user_id": f"u{each}", "amount": 1} for each in range(20)))
            await ingest.append(*({"user_id": f"u{each}", "amount": 0.5} for each in range(20)), lane="bulk")
        await ingest.drain()

        assert len(await ingest.members("ten")) == 20
        assert len(await ingest.triggers()) == 20
        assert await ingest.one("SELECT count(*) FROM profile") == 20


async def test_a_restart_goes_on_where_the_last_commit_was(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        await ingest.take({"user_id": "a", "amount": 60})
    async with open_ingest(tmp_path) as ingest:
        await ingest.take({"user_id": "a", "amount": 60}, {"user_id": "b", "amount": 1})

        assert await ingest.triggers() == [("big", 1, "enter", 1, "event")]
        assert await ingest.one("SELECT count(*) FROM profile") == 2
        assert [row[0] for row in await ingest.rows("SELECT kind FROM history ORDER BY sequence")] == [
            "identity", "query", "audience", "batch",
        ]  # fmt: skip


async def test_an_event_that_meets_a_defect_is_passed_over_alone(tmp_path, open_ingest, monkeypatch):
    monkeypatch.setattr(pipeline, "BACK_OFF_S", 0.0)
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        honest_mapper = ingest.pipeline.definitions.mapper
        honest = honest_mapper.map

        class Broken:
            lost = honest_mapper.lost
            streams = honest_mapper.streams

            @staticmethod
            def map(stream, body, *rest):
                if body.get("poison"):
                    raise ZeroDivisionError
                return honest(stream, body, *rest)

        object.__setattr__(ingest.pipeline.definitions, "mapper", Broken())
        monkeypatch.setattr(pipeline, "build", _kept(ingest.pipeline.definitions))
        await ingest.take(*({"user_id": f"u{each}", "amount": 1, "poison": each == 7} for each in range(20)))

        assert await ingest.one("SELECT count(*) FROM profile") == 19
        assert await ingest.one("SELECT position FROM lane_cursor WHERE lane = 'realtime'") == 20


def _kept(definitions):
    async def build(*_, **__):
        return definitions

    return build


# --- time


async def test_a_membership_ends_by_time_alone(tmp_path, open_ingest, frozen_clock):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience('FILTER last_order > "now-7d" ALIAS recent')
        await ingest.take({"user_id": "a", "at": "2025-12-31T00:00:00Z"}, {"user_id": "b", "at": "2026-01-01"})
        due_us = frozen_clock.us + 6 * DAY_US
        assert await ingest.rows("SELECT until_us FROM trigger WHERE profile_id = 1") == [(due_us,)]

        frozen_clock.us = due_us - 1
        await ingest.drain()
        assert await ingest.members("recent") == [1, 2]
        frozen_clock.us = due_us
        await ingest.drain()

        assert await ingest.members("recent") == [2]
        assert (await ingest.triggers())[2:] == [("recent", 1, "exit", 2, "time")]
        assert await ingest.rows("SELECT profile_id, due_us FROM timer") == [(2, due_us + DAY_US)]


async def test_a_later_boundary_is_found_when_the_timer_fires(tmp_path, open_ingest, frozen_clock):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience('FILTER last_order > "now-7d" ALIAS recent')
        await ingest.take({"user_id": "a", "at": "2025-12-31T00:00:00Z"})
        first_us = await ingest.one("SELECT due_us FROM timer")
        await ingest.take({"user_id": "a", "at": "2026-01-01T00:00:00Z"})
        assert await ingest.one("SELECT due_us FROM timer") == first_us

        frozen_clock.us = first_us
        await ingest.drain()

        assert await ingest.members("recent") == [1]
        assert await ingest.one("SELECT due_us FROM timer") == first_us + DAY_US


async def test_timers_that_fell_due_while_the_daemon_was_down_fire_at_the_start(tmp_path, open_ingest, frozen_clock):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience('FILTER last_order > "now-7d" ALIAS recent')
        await ingest.pipeline.put_audience('FILTER last_order < "now-3d" ALIAS quiet')
        await ingest.take(*({"user_id": f"u{each}", "at": "2026-01-01"} for each in range(5000)))
    frozen_clock.us += 30 * DAY_US
    async with open_ingest(tmp_path) as ingest:
        await ingest.drain()

        assert await ingest.members("recent") == []
        assert len(await ingest.members("quiet")) == 5000
        assert await ingest.one("SELECT count(*) FROM timer") == 0


async def test_a_timer_wakes_the_loop_by_itself(tmp_path, open_ingest):
    """The only one with the real clock: nothing but the moment itself wakes the loop."""
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience('FILTER last_order > "now-2s" ALIAS just_now')
        await ingest.take({"user_id": "a", "at": clock.now().isoformat()})
        due_us = await ingest.one("SELECT due_us FROM timer")
        while len(ingest.commits) < 2:
            await ingest.rows("SELECT 1")

        assert clock.now_us() - due_us < SECOND_US
        assert (await ingest.triggers())[1:] == [("just_now", 1, "exit", 2, "time")]


# --- definitions


async def test_a_new_audience_takes_in_the_profiles_that_exist(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take(*({"user_id": f"u{each}", "amount": each} for each in range(200)))
        await ingest.pipeline.put_audience(BIG)
        await ingest.drain()

        assert len(await ingest.members("big")) == 100
        assert {row[4] for row in await ingest.triggers()} == {"definition"}
        assert await ingest.rows("SELECT size, evaluated_to FROM audience") == [(100, None)]


async def test_a_changed_audience_lets_those_go_who_match_no_more(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        await ingest.take(*({"user_id": f"u{each}", "amount": each} for each in range(200)))
        await ingest.pipeline.put_audience("FILTER spent < 110 ALIAS big")
        await ingest.drain()

        assert await ingest.members("big") == [*range(1, 111)]
        rows = await ingest.rows("SELECT profile_id, group_concat(kind) FROM trigger GROUP BY 1 HAVING count(*) > 1")
        assert [row[0] for row in rows] == [*range(111, 201)]
        assert {row[1] for row in rows} == {"enter,exit"}
        assert await ingest.one("SELECT size FROM audience") == 110


async def test_an_audience_stored_again_unchanged_starts_nothing(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        first = await ingest.pipeline.put_audience(BIG)
        again = await ingest.pipeline.put_audience(BIG)

        assert again == first
        assert await ingest.one("SELECT count(*) FROM history WHERE kind = 'audience'") == 1


async def test_audiences_that_include_a_changed_one_follow(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        await ingest.pipeline.put_audience("FILTER NOT INCLUDE big ALIAS small")
        await ingest.take(*({"user_id": f"u{each}", "amount": each} for each in range(200)))
        assert len(await ingest.members("small")) == 100
        await ingest.pipeline.put_audience("FILTER spent >= 150 ALIAS big")
        await ingest.drain()

        assert len(await ingest.members("big")) == 50
        assert len(await ingest.members("small")) == 150


async def test_a_query_that_changes_a_kind_has_its_audiences_evaluated_again(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query("SELECT user_id, plan KIND int FROM web INTO user BY user_id ALIAS web")
        await ingest.pipeline.put_audience("FILTER plan >= 5 ALIAS high")
        await ingest.take({"user_id": "a", "plan": "10"})
        assert await ingest.members("high") == [1]
        await ingest.pipeline.put_query("SELECT user_id, plan KIND string FROM web INTO user BY user_id ALIAS web")
        await ingest.drain()

        assert await ingest.members("high") == []


async def test_definitions_that_cannot_hold_are_refused_and_change_nothing(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        for text in (
            "FILTER spent >",
            "FILTER spent > 1",
            "FILTER INCLUDE no ALIAS x",
            "FILTER INCLUDE big ALIAS big",
        ):
            with pytest.raises(QueryError):
                await ingest.pipeline.put_audience(text)
        with pytest.raises(QueryError):
            await ingest.pipeline.put_query("SELECT user_id, spent KIND string FROM app INTO user BY user_id ALIAS app")
        with pytest.raises(NotFound):
            await ingest.pipeline.delete_query("nothing")

        assert await ingest.one("SELECT count(*) FROM history") == 3
        await ingest.take({"user_id": "a", "amount": 100})
        assert await ingest.members("big") == [1]


async def test_an_audience_in_use_is_not_deleted(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        await ingest.pipeline.put_audience("FILTER NOT INCLUDE big ALIAS small")
        await ingest.state.write(_listen_to_small)

        with pytest.raises(Conflict, match="small"):
            await ingest.pipeline.delete_audience("big")
        with pytest.raises(Conflict, match="job1"):
            await ingest.pipeline.delete_audience("small")
        with pytest.raises(NotFound):
            await ingest.pipeline.delete_audience("nothing")
        await ingest.take({"user_id": "a", "amount": 1})
        assert await ingest.members("small") == [1]


def _listen_to_small(db):
    db.execute(
        "INSERT INTO job (id, job_type, config, state, created_us, updated_us)"
        " VALUES ('job1', 't', '{}', 'paused', 0, 0)"
    )
    db.execute(
        "INSERT INTO subscription (id, job_id, audiences, events, position, created_us)"
        " VALUES ('s', 'job1', '[2]', 'both', 0, 0)"
    )


async def test_a_deleted_audience_leaves_nothing_and_its_name_is_free_at_once(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        await ingest.take(*({"user_id": f"u{each}", "amount": 200} for each in range(10)))
        await ingest.pipeline.delete_audience("big")
        await ingest.pipeline.put_audience("FILTER spent >= 1000 ALIAS big")
        await ingest.drain()

        assert await ingest.rows("SELECT number, slug, size FROM audience") == [(2, "big", 0)]
        assert await ingest.rows("SELECT * FROM membership") == []
        await ingest.take({"user_id": "u1", "amount": 5000})
        assert await ingest.members("big") == [2]


async def test_an_erased_person_leaves_exits_and_a_decision_only(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(BIG)
        await ingest.pipeline.put_audience('FILTER last_order > "now-7d" ALIAS recent')
        await ingest.take({"user_id": "a", "email": "a@example.com", "amount": 200, "at": "2099-01-01"})
        await ingest.take({"user_id": "b", "amount": 200})
        assert (await ingest.pipeline.erase("email", "a@example.com", allow_return=True)).profiles == (1,)

        assert (await ingest.triggers())[-2:] == [("big", 1, "exit", 2, "erase"), ("recent", 1, "exit", 2, "erase")]
        for table in ("profile", "membership", "identity", "timer"):
            column = "id" if table == "profile" else "profile_id"
            assert 1 not in [row[0] for row in await ingest.rows(f"SELECT {column} FROM {table}")]
        assert await ingest.rows("SELECT slug, size FROM audience ORDER BY 1") == [("big", 1), ("recent", 0)]
        decision = orjson.loads(await ingest.one("SELECT body FROM history WHERE kind = 'erase'"))
        assert (decision["profile"], len(decision["hashes"]), decision["scrubbed"]) == (1, 2, False)
        with pytest.raises(NotFound):
            await ingest.pipeline.erase("email", "a@example.com")
        await ingest.take({"user_id": "a", "amount": 200})
        assert await ingest.members("big") == [2, 3]


async def test_routing_rules_are_kept_in_their_order(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        rule = {"priority": 1, "input": "web", "output": "app", "expression": "true", "active": True}
        one = await ingest.pipeline.put_rule(name="one", **rule)
        two = await ingest.pipeline.put_rule(name="two", **rule)
        assert [each.id for each in ingest.pipeline.definitions.rules] == [two.id, one.id]
        await ingest.pipeline.put_rule(rule_id=one.id, name="one", **(rule | {"priority": 5}))
        assert [each.id for each in ingest.pipeline.definitions.rules] == [one.id, two.id]
        await ingest.pipeline.delete_rule(two.id)
        with pytest.raises(NotFound):
            await ingest.pipeline.delete_rule(two.id)

        assert [each.name for each in ingest.pipeline.definitions.rules] == ["one"]
