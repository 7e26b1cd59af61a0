"""`replay --query`: a changed query applied to the past, in the running loop."""

from __future__ import annotations

import asyncio
import io
import tempfile
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.cli import main
from daemon.ingest.replay import replay
from daemon.model.refusal import Conflict, NotFound
from streams.split import SplitError

BEFORE = "SELECT user_id, sum(amount) AS spent KIND number, plan FROM web INTO user BY user_id ALIAS web"
AFTER = (
    "SELECT user_id, sum(total) AS spent KIND number, plan, count(total) AS orders KIND int,"
    " set(tag) AS tags KIND []string FROM web INTO user BY user_id ALIAS web"
)
BIG = "FILTER spent >= 10 ALIAS big"
PLANNED = "FILTER EXISTS plan ALIAS planned"


async def values(ingest, key, *names, field="user_id"):
    from streams.profile import load  # noqa: PLC0415  (one use)

    rows = await ingest.rows(
        "SELECT p.id, p.body FROM profile p JOIN identity i ON i.profile_id = p.id WHERE i.field = ? AND i.value = ?",
        field, key,
    )  # fmt: skip
    if not rows:
        return None
    profile = load(ingest.pipeline.definitions.schema, *rows[0])
    return tuple(profile.values.get(name) for name in names)


async def again(folder):
    report = await replay(folder / "events.db", folder / "state.db", folder / "again.db")
    (folder / "again.db").unlink()
    assert report.differences == []
    assert report.same
    return report


async def test_a_changed_query_is_applied_to_the_past_and_nothing_is_counted_twice(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(BEFORE)
        await ingest.pipeline.put_audience(BIG)
        await ingest.take(
            {"user_id": "a", "amount": 50, "total": 5, "tag": "x"}, {"user_id": "b", "amount": 1, "total": 20},
            {"user_id": "a", "amount": 50, "total": 6, "plan": "pro"}, lane="bulk",
        )  # fmt: skip
        await ingest.pipeline.put_query(AFTER)
        await ingest.take({"user_id": "a", "amount": 100, "total": 2})

        unseen = await values(ingest, "a", "spent", "orders")
        await ingest.pipeline.rebuild("web")
        await ingest.take({"user_id": "b", "total": 1})
        await ingest.drain()

        assert (102, 1) == unseen
        assert (13, 3, "pro", ["x"]) == await values(ingest, "a", "spent", "orders", "plan", "tags")
        assert (21, 2) == await values(ingest, "b", "spent", "orders")
        # Only the net change is told: a stays in, b comes.
        assert [("big", 1, "enter", 1, "event"), ("big", 2, "enter", 1, "replay")] == await ingest.triggers()
        assert [3, 2] == [each[0] for each in await ingest.rows("SELECT body ->> '$.m[2]' FROM profile ORDER BY id")]
        await ingest.assert_sound()
    await again(tmp_path)


async def test_applying_a_query_twice_changes_nothing_more(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(BEFORE)
        await ingest.take({"user_id": "a", "amount": 5, "total": 7}, {"device": "d", "total": 1})
        await ingest.pipeline.put_query(
            AFTER.replace("user_id,", "user_id, device,").replace("BY user_id", "BY user_id OR device")
        )
        found = []
        for _ in range(3):
            await ingest.pipeline.rebuild("web")
            await ingest.drain()
            found.append(
                [await values(ingest, "a", "spent", "orders"), await values(ingest, "d", "spent", field="device")]
            )

        assert found == [[(7, 1), (1,)]] * 3
        assert [1, 1] == [each[0] for each in await ingest.rows("SELECT body ->> '$.m[2]' FROM profile ORDER BY id")]
        await ingest.assert_sound()
    await again(tmp_path)


async def test_keys_that_the_query_newly_finds_are_resolved(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(BEFORE)
        await ingest.pipeline.put_audience('FILTER email = "x@y.com" ALIAS known')
        await ingest.take(
            {"user_id": "a", "email": "x@y.com", "amount": 1}, {"user_id": "b", "amount": 1},
            {"email": "x@y.com", "total": 3},
        )  # fmt: skip
        await ingest.pipeline.put_query(
            "SELECT user_id, email(email) AS email, count(total) AS orders KIND int, sum(amount) AS spent KIND number"
            " FROM web INTO user BY user_id OR email ALIAS web"
        )
        await ingest.pipeline.rebuild("web")
        await ingest.drain()

        assert (1, 1) == await values(ingest, "x@y.com", "orders", "spent", field="email")
        assert (1, 1) == await values(ingest, "a", "orders", "spent")
        assert [1] == await ingest.members("known")
        assert [2, 1] == [each[0] for each in await ingest.rows("SELECT body ->> '$.m[2]' FROM profile ORDER BY id")]
        await ingest.assert_sound()
    await again(tmp_path)


async def test_who_was_split_stays_apart(tmp_path, open_ingest):
    query = BEFORE.replace("user_id,", "user_id, email,").replace("BY user_id", "BY user_id OR email")
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(query)
        await ingest.take({"user_id": "a", "amount": 1}, {"email": "e", "amount": 2}, {"user_id": "a", "email": "e"})
        await ingest.pipeline.split(("email", "e"), [("email", "e")], apart=False)
        await ingest.pipeline.put_query(query.replace("sum(amount)", "sum(amount * 10)"))
        await ingest.pipeline.rebuild("web")
        await ingest.drain()

        assert (10, None) == await values(ingest, "a", "spent", "email")
        assert (20, None) == await values(ingest, "e", "spent", "user_id", field="email")
        await ingest.assert_sound()
    await again(tmp_path)


async def test_who_was_erased_does_not_come_back_from_a_log_that_is_not_scrubbed_yet(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(BEFORE)
        await ingest.take({"user_id": "a", "device": "d", "amount": 1}, {"user_id": "b", "amount": 2})
        await ingest.pipeline.erase("user_id", "a")
        await ingest.pipeline.put_query(
            "SELECT user_id, device, sum(amount * 10) AS spent KIND number FROM web INTO user"
            " BY user_id OR device ALIAS web"
        )
        await ingest.pipeline.rebuild("web")
        await ingest.drain()

        assert (20,) == await values(ingest, "b", "spent")
        assert await values(ingest, "d", "spent", field="device") is None
        assert 1 == await ingest.one("SELECT count(*) FROM profile")
        await ingest.assert_sound()
    await again(tmp_path)


async def test_other_queries_that_feed_the_fields_are_applied_too(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(BEFORE)
        await ingest.pipeline.put_query(
            "SELECT user_id, sum(price) AS spent KIND number, count(price) AS buys KIND int FROM app INTO user"
            " BY user_id ALIAS app"
        )
        await ingest.take({"user_id": "a", "amount": 5, "total": 7})
        await ingest.take({"user_id": "a", "price": 100}, stream="app")
        await ingest.pipeline.put_query(AFTER)
        plan = await ingest.pipeline.plan_rebuild("web")
        await ingest.pipeline.rebuild("web")
        await ingest.drain()

        assert ("orders", "plan", "spent", "tags") == plan.fields
        assert {"web": 2, "app": 1} == plan.queries
        assert (2, 0) == (plan.events, plan.lost)
        assert (107, 1) == await values(ingest, "a", "spent", "buys")
    await again(tmp_path)


async def test_a_change_that_meets_the_fields_waits(tmp_path, open_ingest, monkeypatch):
    monkeypatch.setattr("daemon.ingest.pipeline.STEP_EVENTS", 10)
    async with open_ingest(tmp_path, run=False, batch_events=10) as ingest:
        running = asyncio.create_task(ingest.pipeline.run())
        await ingest.pipeline.put_query(BEFORE)
        await ingest.append(*({"user_id": f"u{each}", "amount": 1} for each in range(2000)), lane="bulk")
        await ingest.pipeline.drain()
        await ingest.pipeline.put_query(AFTER)
        await ingest.pipeline.rebuild("web")

        for change in (
            ingest.pipeline.put_query(BEFORE),
            ingest.pipeline.delete_query("web"),
            ingest.pipeline.put_query(
                "SELECT user_id, sum(x) AS spent KIND number FROM other INTO user BY user_id ALIAS other"
            ),
            ingest.pipeline.rebuild("web"),
        ):
            with pytest.raises(Conflict):
                await change
        await ingest.pipeline.put_query("SELECT user_id, city FROM other INTO user BY user_id ALIAS other")
        await ingest.pipeline.put_audience(BIG)
        assert ingest.pipeline.rebuilding() is not None
        await ingest.pipeline.drain()
        assert ingest.pipeline.rebuilding() is None
        await ingest.pipeline.put_query(BEFORE)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    await again(tmp_path)


async def test_cancelled_it_leaves_the_fields_as_they_are(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(BEFORE)
        await ingest.take(*({"user_id": f"u{each}", "amount": 3} for each in range(5000)), lane="bulk")
        await ingest.pipeline.put_query(AFTER)
        await ingest.pipeline.rebuild("web")
        row = await ingest.pipeline.cancel_rebuild()
        await ingest.take({"user_id": "u1", "total": 1})

        assert "cancelled" == row.state
        assert (4, 1) == await values(ingest, "u1", "spent", "orders")
        assert (3, None) == await values(ingest, "u2", "spent", "orders")
        with pytest.raises(NotFound):
            await ingest.pipeline.cancel_rebuild()
        await ingest.pipeline.rebuild("web")
        await ingest.drain()
        assert (1, 1) == await values(ingest, "u1", "spent", "orders")
        assert (None, None) == await values(ingest, "u2", "spent", "orders")
    await again(tmp_path)


async def test_what_the_log_has_lost_is_said_before_anything_begins(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(BEFORE)
        await ingest.take({"user_id": "a", "amount": 5, "total": 7}, {"user_id": "a", "amount": 5, "total": 1})
        await ingest.pipeline.put_query(AFTER)
        await ingest.events.write(lambda db: db.execute("DELETE FROM event_realtime WHERE position = 1"))

        plan = await ingest.pipeline.plan_rebuild("web")
        with pytest.raises(Conflict, match="not in the log any more"):
            await ingest.pipeline.rebuild("web")
        await ingest.pipeline.rebuild("web", incomplete=True)
        await ingest.drain()

        assert (1, 1) == (plan.events, plan.lost)
        assert (1, 1) == await values(ingest, "a", "spent", "orders")


NAMES = st.sampled_from(["x", "y", "z", "v"])
QUERIES = (
    (
        "SELECT user_id, email(email) AS email, sum(amount) AS spent KIND number, plan, set(tag) AS tags KIND []string,"
        " device KIND []string FROM web INTO user BY user_id OR email OR device ALIAS web"
    ),
    (
        "SELECT user_id, email(email) AS email, sum(amount) AS spent KIND number, plan, count(plan) AS plans KIND int"
        " FROM web INTO user BY user_id OR email ALIAS web"
    ),
    (
        "SELECT user_id, count(amount) AS plans KIND int, set(tag) AS tags KIND []string KEEP_DAYS 2,"
        " valuect(plan) AS seen FROM web INTO user BY user_id ALIAS web"
    ),
    (
        "SELECT device KIND []string, user_id, set(tag) AS tags KIND []string, sum(amount) AS spent KIND number"
        " FROM app INTO user BY user_id OR device ALIAS app"
    ),
)
AUDIENCES = (
    "FILTER spent >= 10 ALIAS big",
    'FILTER tags INTERSECTS ("a", "b") ALIAS tagged',
    "FILTER _num_events > 2 ALIAS busy",
    "FILTER AND ( EXISTS plan, NOT INCLUDE big ) ALIAS small",
    "FILTER seen.x > 1 ALIAS often",
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": NAMES, "email": NAMES.map("{}@example.com".format), "device": NAMES, "plan": NAMES,
        "tag": st.sampled_from(["a", "b", "c"]), "amount": st.integers(-20, 40), "_ts": st.integers(0, 90),
    },
)  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("events"), st.sampled_from(["realtime", "bulk"]), st.lists(EVENTS, min_size=1, max_size=12)),
    st.tuples(st.just("query"), st.integers(0, len(QUERIES) - 1)),
    st.tuples(st.just("rebuild"), st.sampled_from(["web", "app"])),
    st.tuples(st.just("audience"), st.integers(0, len(AUDIENCES) - 1)),
    st.tuples(st.just("erase"), NAMES),
    st.tuples(st.just("split"), NAMES),
    st.tuples(st.just("clock"), st.integers(1, 40)),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("drain")),
    st.tuples(st.just("restart")),
)


async def _live(open_ingest, folder, frozen_clock, steps):
    frozen_clock.us = 1_767_225_600_000_000
    stack = [*steps]
    while True:
        async with open_ingest(folder, cached_profiles=3, batch_events=5) as ingest:
            await ingest.pipeline.put_audience(AUDIENCES[0])
            while stack and stack[0][0] != "restart":
                with suppress(Conflict, NotFound, SplitError):
                    await _take(ingest, frozen_clock, *stack.pop(0))
            if not stack:
                await ingest.drain()
                await ingest.assert_sound()
                return
            stack.pop(0)


async def _take(ingest, frozen_clock, step, *rest):
    pipeline = ingest.pipeline
    if step == "events":
        lane, events = rest
        for each in events:
            body = {**each, "_ts": frozen_clock.us - each["_ts"] * 3_600_000_000} if "_ts" in each else each
            await ingest.append(body, lane=lane, stream="app" if "device" in each else "web")
    elif step == "query":
        await pipeline.put_query(QUERIES[rest[0]])
    elif step == "rebuild":
        await pipeline.rebuild(rest[0])
    elif step == "cancel":
        await pipeline.cancel_rebuild()
    elif step == "audience":
        await pipeline.put_audience(AUDIENCES[rest[0]])
    elif step == "erase":
        await pipeline.erase("user_id", rest[0])
    elif step == "split":
        await pipeline.split(("email", f"{rest[0]}@example.com"), [("email", f"{rest[0]}@example.com")])
    elif step == "clock":
        frozen_clock.us += rest[0] * 3_600_000_000
        pipeline.wake()
    else:
        await ingest.drain()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_the_state_stays_sound_and_a_replay_gives_it_again(steps, open_ingest, frozen_clock, monkeypatch):
    monkeypatch.setattr("daemon.ingest.pipeline.STEP_EVENTS", 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        async def run():
            await _live(open_ingest, folder, frozen_clock, steps)
            await again(folder)

        asyncio.run(run())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(EVENTS, max_size=15), between=st.lists(EVENTS, max_size=10), after=st.lists(EVENTS, max_size=10))
def test_fields_are_as_if_the_query_had_always_held(before, between, after, open_ingest, frozen_clock, monkeypatch):
    monkeypatch.setattr("daemon.ingest.pipeline.STEP_EVENTS", 3)
    by = "FROM web INTO user BY user_id OR email ALIAS web"
    old = f"SELECT user_id, email, sum(amount) AS spent KIND number, plan {by}"
    new = (
        'SELECT user_id, email, sum(amount) AS spent KIND number IF tag != "a", plan IF amount > 0,'
        f" set(tag) AS tags KIND []string, valuect(plan) AS seen, device KIND []string {by}"
    )
    lasting = ("user_id", "spent", "plan", "tags", "seen", "device")

    async def run(folder, texts):
        async with open_ingest(folder, batch_events=5) as ingest:
            await ingest.pipeline.put_query(texts[0])
            for number, events in enumerate((before, between, after)):
                if number == 1:
                    await ingest.drain()
                    await ingest.pipeline.put_query(texts[1])
                if number == 2:
                    await ingest.pipeline.rebuild("web")
                for place, each in enumerate(events):
                    at = frozen_clock.us - each.get("_ts", 0) * 3_600_000_000
                    await ingest.append({**each, "_ts": at, "_id": f"{number} {place}"}, lane="bulk")
            await ingest.drain()
            named = [("user_id", name) for name in "xyzv"] + [("email", f"{name}@example.com") for name in "xyzv"]
            return {key: await values(ingest, key[1], *lasting, field=key[0]) for key in named}

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "one").mkdir()
        (Path(name) / "other").mkdir()
        always = asyncio.run(run(Path(name) / "one", (new, new)))
        changed = asyncio.run(run(Path(name) / "other", (old, new)))

    assert always == changed


async def test_it_goes_on_where_a_kill_has_left_it(tmp_path, start_cohortd):
    events = b"\n".join(b'{"user_id": "u%d", "amount": 1, "total": 2}' % (each % 5000) for each in range(40_000))
    async with start_cohortd(tmp_path) as cohortd:
        client = cohortd.client
        await client.post("/api/query", data=BEFORE)
        await client.post("/api/segment", data="FILTER spent >= 16 ALIAS big")
        await client.post(
            "/collect/bulk/web", data=io.BytesIO(events), headers={"Content-Type": "application/x-ndjson"}
        )
        while ((await client.get("/api/entity/user/user_id/u4999?fields=spent")).data or {}).get("spent") != 8:
            await asyncio.sleep(0.05)
        await client.post("/api/query", data=AFTER)
        planned = (await client.post("/v2/query/web/replay?dryrun=true")).data
        begun = await client.post("/v2/query/web/replay")
        while not (looked := (await client.get("/v2/query/web/replay")).data)["events_looked_at"]:
            pass
        await cohortd.kill()
        await cohortd.start()
        await client.post("/collect/json/web", json={"user_id": "u1", "total": 100})
        done = await cohortd.logged("query_replayed", query="web")
        await cohortd.logged("audience_evaluated", audience="big")

        assert (40_000, 0, ["big"]) == (planned["events_of"], planned["events_lost"], planned["audiences"])
        assert (202, "running") == (begun.status, begun.data["state"])
        assert 0 < looked["events_looked_at"] < 40_000
        assert 40_000 == done["events"]
        status = (await client.get("/v2/query/web/replay")).data
        assert ("done", 40_000, 40_000) == (status["state"], status["events_looked_at"], status["events_taken"])
        assert 116 == (await client.get("/api/entity/user/user_id/u1")).data["spent"]
        assert 16 == (await client.get("/api/entity/user/user_id/u2")).data["spent"]
        assert 5000 == (await client.get("/api/segment/big")).data["size"]
    await again(tmp_path)


async def test_the_command_applies_a_query_and_says_what_it_would_do(tmp_path, open_daemon):
    def run(*arguments):
        return CliRunner().invoke(main, ["replay", "--query", *arguments, "--data-dir", str(tmp_path)])

    async with open_daemon(tmp_path) as opened:
        await opened.post("/api/query", data=BEFORE)
        await opened.post("/collect/json/web", json={"user_id": "a", "amount": 1, "total": 5})
        await opened.daemon.services.pipeline.drain()
        await opened.post("/api/query", data=AFTER)

        unknown = await asyncio.to_thread(run, "nothing")
        dry = await asyncio.to_thread(run, "web", "--dry-run", "--json")
        nothing = (await opened.get("/v2/query/web/replay")).status
        done = await asyncio.to_thread(run, "web", "--json")
        cancel = await asyncio.to_thread(run, "web", "--cancel")
        wrong = CliRunner().invoke(main, ["replay", "--yes", "--data-dir", str(tmp_path)])
        await opened.daemon.services.events.write(lambda db: db.execute("DELETE FROM event_realtime"))
        lost = await asyncio.to_thread(run, "web")
        accepted = await asyncio.to_thread(run, "web", "--yes", "--json")

        assert (1, 404, 0, 1, 2) == (unknown.exit_code, nothing, done.exit_code, cancel.exit_code, wrong.exit_code)
        assert ["orders", "plan", "spent", "tags"] == orjson.loads(dry.output)["fields"]
        assert "done" == (await opened.get("/v2/query/web/replay")).data["state"]
        assert "is not being applied" in cancel.output
        assert (1, 0) == (lost.exit_code, accepted.exit_code)
        assert "1 events of the past are not in the log any more" in lost.output
