"""The log and the history give the same profiles and memberships again (P10)."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon import clock
from daemon.cli import main
from daemon.ingest.query_commands import QueryChange
from daemon.ingest.replay import replay
from daemon.model.refusal import NotFound

_FIELDS = " sum(amount) AS spent KIND number, count(amount) AS orders KIND int, plan, set(tag) AS tags KIND []string"
QUERIES = (
    f"SELECT user_id, email(email) AS email, {_FIELDS} FROM web INTO user BY user_id OR email ALIAS web",
    f"SELECT email(email) AS email, user_id, {_FIELDS} KEEP_DAYS 1 FROM web INTO user BY email OR user_id ALIAS web",
    "SELECT user_id, sum(amount) AS spent, max(todate(at)) AS seen KIND date FROM web INTO user BY user_id ALIAS web",
    "SELECT device, user_id, set(tag) AS tags KIND []string FROM app INTO user BY user_id OR device ALIAS app",
)
AUDIENCES = (
    "FILTER spent >= 10 ALIAS big",
    "FILTER spent >= 20 ALIAS big",
    "FILTER AND ( EXISTS plan, NOT INCLUDE big ) ALIAS small",
    'FILTER seen > "now-1d" ALIAS recent',
    'FILTER tags INTERSECTS ("a", "b") ALIAS tagged',
    "FILTER _num_events > 2 ALIAS busy",
)
NAMES = st.sampled_from(["x", "y", "z", "v", "w"])
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": NAMES, "email": NAMES.map("{}@example.com".format), "device": NAMES, "plan": NAMES, "tag": NAMES,
        "amount": st.integers(-20, 40), "at": st.sampled_from(["2025-12-31T12:00:00Z", "2026-01-02", "2026-01-05"]),
        "_ts": st.integers(0, 9),
    },
)  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("events"), st.sampled_from(["realtime", "bulk"]), st.lists(EVENTS, min_size=1, max_size=12)),
    st.tuples(st.just("query"), st.integers(0, len(QUERIES) - 1)),
    st.tuples(st.just("queries"), st.sets(st.integers(0, len(QUERIES) - 1)), st.booleans()),
    st.tuples(st.just("revert"), st.integers(0, 6)),
    st.tuples(st.just("audience"), st.integers(0, len(AUDIENCES) - 1)),
    st.tuples(st.just("erase"), NAMES),
    st.tuples(st.just("clock"), st.integers(1, 40)),
    st.tuples(st.just("drain")),
    st.tuples(st.just("restart")),
)


async def _live(open_ingest, folder, frozen_clock, steps):
    frozen_clock.us = 1_767_225_600_000_000
    stack = [("drain",), *steps]
    while stack:
        async with open_ingest(folder, cached_profiles=3) as ingest:
            await ingest.pipeline.put_query(QUERIES[0])
            while stack:
                step, *rest = stack.pop(0)
                if step == "restart":
                    break
                await _take(ingest, frozen_clock, step, rest)
            else:
                await ingest.drain()
                await ingest.assert_sound()


async def _take(ingest, frozen_clock, step, rest):
    if step == "events":
        lane, events = rest
        for each in events:
            stream = "app" if "device" in each else "web"
            body = {name: value for name, value in each.items() if name != "_ts"}
            if "_ts" in each:
                body["_ts"] = frozen_clock.us - each["_ts"] * 3_600_000_000
            await ingest.append(body, lane=lane, stream=stream)
    elif step == "query":
        await ingest.pipeline.put_query(QUERIES[rest[0]])
    elif step == "queries":
        numbers, without_app = rest
        change = QueryChange([QUERIES[each] for each in sorted(numbers - {3})], ["app"] if without_app else [])
        with suppress(NotFound):
            await ingest.pipeline.change_queries(change)
    elif step == "revert":
        with suppress(NotFound):
            await ingest.pipeline.revert_schema(rest[0])
    elif step == "audience":
        text = AUDIENCES[rest[0]]
        if "INCLUDE" not in text or ingest.pipeline.definitions.audience("big"):
            await ingest.pipeline.put_audience(text)
    elif step == "erase":
        with suppress(NotFound):
            await ingest.pipeline.erase("user_id", rest[0])
    elif step == "clock":
        frozen_clock.us += rest[0] * 3_600_000_000
        ingest.pipeline.wake()
    else:
        await ingest.drain()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_a_replay_gives_the_same_state_and_the_state_is_sound(steps, open_ingest, frozen_clock):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        async def run():
            await _live(open_ingest, folder, frozen_clock, steps)
            return await replay(folder / "events.db", folder / "state.db", folder / "again.db")

        report = asyncio.run(run())

        assert report.differences == []
        assert report.same


async def test_a_replay_beside_the_running_loop_is_of_one_moment(tmp_path, open_ingest):
    async with open_ingest(tmp_path, batch_events=50) as ingest:
        await ingest.pipeline.put_query(QUERIES[0])
        await ingest.pipeline.put_audience(AUDIENCES[0])
        for _ in range(20):
            await ingest.append(*({"user_id": f"u{each}", "amount": 1} for each in range(100)), lane="bulk")

        report = await replay(tmp_path / "events.db", tmp_path / "state.db", tmp_path / "again.db")

        assert report.same, report.differences
        await ingest.drain()


async def test_overdue_timers_are_no_difference(tmp_path, open_ingest, frozen_clock):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERIES[2])
        await ingest.pipeline.put_audience(AUDIENCES[3])
        await ingest.take({"user_id": "a", "at": "2026-01-01T00:00:00Z"})
        assert await ingest.members("recent") == [1]
    frozen_clock.us += 7 * 86_400_000_000

    report = await replay(tmp_path / "events.db", tmp_path / "state.db", tmp_path / "again.db")

    assert report.same, report.differences
    assert report.memberships == 1


async def test_what_differs_is_named(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERIES[0])
        await ingest.pipeline.put_audience(AUDIENCES[0])
        await ingest.take({"user_id": "a", "amount": 100}, {"user_id": "b", "amount": 1})
        await ingest.state.write(lambda db: db.execute("UPDATE membership SET sequence = 2, member = 0"))
        await ingest.state.write(
            lambda db: db.execute("UPDATE profile SET body = replace(body, '\"b\"', '\"c\"') WHERE id = 2")
        )

    report = await replay(tmp_path / "events.db", tmp_path / "state.db", tmp_path / "again.db")

    assert report.differing == 2
    assert report.differences[0] == "profile 1: not in big, the replay says in"
    assert report.differences[1].startswith("profile 2: ")
    assert not report.same


def test_the_command_says_whether_the_state_came_out_again(tmp_path, open_ingest):
    async def live(spoil):
        async with open_ingest(tmp_path) as ingest:
            await ingest.pipeline.put_query(QUERIES[0])
            await ingest.take({"user_id": "a", "amount": 100})
            if spoil:
                await ingest.state.write(lambda db: db.execute("DELETE FROM identity"))

    asyncio.run(live(spoil=False))
    good = CliRunner().invoke(main, ["replay", "--data-dir", str(tmp_path), "--json"])
    asyncio.run(live(spoil=True))
    kept = tmp_path / "kept.db"
    bad = CliRunner().invoke(main, ["replay", "--data-dir", str(tmp_path), "--json", "--into", str(kept)])

    assert good.exit_code == 0, good.output
    assert bad.exit_code == 1
    assert kept.exists()


async def test_a_log_that_lost_its_beginning_is_no_whole_replay(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERIES[0])
        await ingest.take({"user_id": "a", "amount": 100}, {"user_id": "b", "amount": 1})
        await ingest.events.write(lambda db: db.execute("DELETE FROM event_realtime WHERE position = 1"))

    report = await replay(tmp_path / "events.db", tmp_path / "state.db", tmp_path / "again.db")

    assert not report.complete
    assert not report.same
    assert clock.now_us()
