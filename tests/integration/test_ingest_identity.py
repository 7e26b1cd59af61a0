"""Guards, windows, compaction and splits in the loop: memberships follow, and a replay comes out the same (P3, P10)."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.ingest.replay import replay
from daemon.model.refusal import Conflict, NotFound
from daemon.store.guards import GuardRow
from streams.guards import MOST_GLOBS, Limits
from streams.split import SplitError

HOUR = 3_600_000_000
DAY = 24 * HOUR
QUERY = (
    "SELECT user_id, set(email) AS emails KIND []string CAPACITY 3, set(cookie) AS cookies KIND []string,"
    " sum(amount) AS spent KIND number, plan, set(tag) AS tags KIND []string FROM web INTO user"
    " BY user_id OR emails OR cookies ALIAS web"
)
SHORT = QUERY.replace(" CAPACITY 3", "").replace(
    "set(tag) AS tags KIND []string", "set(tag) AS tags KIND []string KEEP_DAYS 1"
)
AUDIENCES = (
    "FILTER spent >= 10 ALIAS big",
    "FILTER _num_aliases > 2 ALIAS known_well",
    "FILTER EXISTS _split ALIAS was_split",
    'FILTER tags INTERSECTS ("a") ALIAS tagged',
    "FILTER AND ( _num_days > 1, EXISTS plan ) ALIAS lasting",
)


def guard(value=None, *, field=None, glob=False, to=None, stitches=None, window_us=None):
    kind = "value" if value is not None else "stitches"
    return GuardRow(0, kind, field, value, glob, to, stitches, window_us, "", 0)


GUARDS = (
    guard("k1"),
    guard("A@*", glob=True, field="emails"),
    guard(field="cookies", stitches=1, window_us=2 * HOUR),
    guard(field="cookies", to="emails", stitches=2, window_us=DAY),
    guard(field="emails", stitches=0, window_us=0),
)
LIMITS = (
    Limits(),
    Limits(stitches=2, window_us=6 * HOUR),
    Limits(keys=5, stitches=3, window_us=DAY, compact_keys=3),
    Limits(stitches=9, window_us=DAY, compact_us=2 * DAY),
)


async def identity_of(ingest, *, first=None):
    rows = await ingest.rows("SELECT profile_id, field, value FROM identity ORDER BY 1, 2, 3")
    owned: dict = {}
    for profile, field, value in rows:
        owned.setdefault(profile, []).append((field, value))
    return owned if first is None else owned[first]


# --- splits


async def test_a_split_moves_values_back_and_the_triggers_follow(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(AUDIENCES[0])
        await ingest.take({"cookie": "k", "amount": 8})
        await ingest.take({"user_id": "u", "cookie": "k", "amount": 2})
        assert await ingest.members("big") == [1]

        dry = await ingest.pipeline.split(("user_id", "u"), [("cookies", "k")], dry_run=True)
        assert await ingest.members("big") == [1]
        done = await ingest.pipeline.split(("user_id", "u"), [("cookies", "k")])

        assert (dry.kept.dump(), dry.before, dry.kept_members, dry.made_members) == (
            done.kept.dump().replace(str(done.kept.memory["x"][0][0]), str(dry.kept.memory["x"][0][0])), 2, 0, 0,
        )  # fmt: skip
        assert await identity_of(ingest) == {1: [("user_id", "u")], 2: [("cookies", "k")]}
        assert await ingest.triggers() == [("big", 1, "enter", 1, "event"), ("big", 1, "exit", 2, "split")]
        await ingest.take({"user_id": "u", "cookie": "k", "amount": 8}, {"cookie": "k", "amount": 2})
        assert await ingest.triggers() == [
            ("big", 1, "enter", 1, "event"), ("big", 1, "exit", 2, "split"), ("big", 1, "enter", 3, "event"),
            ("big", 2, "enter", 1, "event"),
        ]  # fmt: skip
        await ingest.assert_sound()


async def test_the_new_profile_enters_what_it_is_in(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience(AUDIENCES[0])
        await ingest.take({"cookie": "k", "amount": 10})
        await ingest.take({"user_id": "u", "cookie": "k", "amount": 2})

        await ingest.pipeline.split(("user_id", "u"), [("cookies", "k")])

        assert await ingest.triggers() == [
            ("big", 1, "enter", 1, "event"), ("big", 1, "exit", 2, "split"), ("big", 2, "enter", 1, "split"),
        ]  # fmt: skip
        assert await ingest.one("SELECT size FROM audience") == 1
        await ingest.assert_sound()


async def test_a_split_survives_a_restart_and_holds_until_it_is_told_otherwise(tmp_path, open_ingest):
    both = {"user_id": "u", "cookie": "k"}
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"cookie": "k"}, both)
        await ingest.pipeline.split(("user_id", "u"), [("cookies", "k")])
    async with open_ingest(tmp_path) as ingest:
        await ingest.take(both)
        assert len(await identity_of(ingest)) == 2
        assert await ingest.pipeline.forget_split(("user_id", "u"))
        assert not await ingest.pipeline.forget_split(("user_id", "u"))
        await ingest.take(both)

        assert len(await identity_of(ingest)) == 1
    report = await replay(tmp_path / "events.db", tmp_path / "state.db", tmp_path / "again.db")
    assert report.same, report.differences


async def test_what_cannot_be_split_changes_nothing(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "u", "cookie": "k"})

        with pytest.raises(NotFound):
            await ingest.pipeline.split(("user_id", "v"), [("cookies", "k")])
        with pytest.raises(SplitError):
            await ingest.pipeline.split(("user_id", "u"), [("cookies", "other")])
        await ingest.take({"user_id": "u", "cookie": "k2"})

        assert await identity_of(ingest) == {1: [("cookies", "k"), ("cookies", "k2"), ("user_id", "u")]}


# --- guards


async def test_a_guard_holds_from_the_next_event_on_and_is_a_decision(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "u", "email": "none@none"})
        change = await ingest.pipeline.put_guards([guard("None@none"), guard(field="cookies", stitches=3, window_us=9)])
        assert change.owners == [("emails", "none@none", 1)]
        await ingest.take({"user_id": "v", "email": "none@none"})
        assert (await ingest.pipeline.put_guards([guard("none@none ")])).rows[0].id == 1
        await ingest.pipeline.delete_guard(1)
        await ingest.take({"user_id": "w", "email": "none@none"})

        owned = await identity_of(ingest)
        assert owned == {1: [("emails", "none@none"), ("user_id", "u")], 2: [("user_id", "v")], 3: [("user_id", "w")]}
        assert [row.id for row in ingest.pipeline.definitions.guard_rows] == [2]
        kinds = [row[0] for row in await ingest.rows("SELECT kind FROM history WHERE kind LIKE '%guard' ORDER BY 1")]
        assert kinds == ["merge_guard", "merge_guard", "merge_guard"]
        with pytest.raises(NotFound):
            await ingest.pipeline.delete_guard(1)
    async with open_ingest(tmp_path) as ingest:
        assert [row.id for row in ingest.pipeline.definitions.guard_rows] == [2]
    report = await replay(tmp_path / "events.db", tmp_path / "state.db", tmp_path / "again.db")
    assert report.same, report.differences


async def test_there_are_not_more_globs_than_an_event_can_be_asked(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        most = [guard(f"x{each}*", glob=True) for each in range(MOST_GLOBS)]
        await ingest.pipeline.put_guards(most)

        with pytest.raises(Conflict, match="201 merge guards, 201 of them globs"):
            await ingest.pipeline.put_guards([guard("y*", glob=True)])


async def test_limits_of_before_hold_for_what_came_before(tmp_path, open_ingest):
    async with open_ingest(tmp_path, limits=Limits()) as ingest:
        await ingest.pipeline.put_query(SHORT)
        await ingest.take(*({"user_id": "u", "cookie": f"k{each}"} for each in range(6)))
    async with open_ingest(tmp_path, limits=Limits(compact_keys=3)) as ingest:
        await ingest.take({"user_id": "u"})
        assert len(await identity_of(ingest, first=1)) == 3
        assert await ingest.one("SELECT count(*) FROM history WHERE kind = 'identity'") == 2
    async with open_ingest(tmp_path, limits=Limits(compact_keys=3)) as ingest:
        await ingest.take({"user_id": "u", "cookie": "new"})
        assert await identity_of(ingest, first=1) == [("cookies", "k5"), ("cookies", "new"), ("user_id", "u")]
        assert await ingest.one("SELECT count(*) FROM history WHERE kind = 'identity'") == 2
        await ingest.assert_sound()
    report = await replay(tmp_path / "events.db", tmp_path / "state.db", tmp_path / "again.db")
    assert report.same, report.differences


# --- all together, replayed

TEXTS = st.sampled_from(["1", "2", "3", "4", "5"])
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": TEXTS.map("u{}".format), "cookie": TEXTS.map("k{}".format),
        "email": st.one_of(TEXTS.map("{}@x".format), st.lists(st.sampled_from(["a@x", "b@x", "null"]), max_size=2)),
        "amount": st.integers(0, 12), "plan": st.just("p"), "tag": st.sampled_from("ab"),
    },
)  # fmt: skip
KEYS = st.one_of(
    st.tuples(st.just("user_id"), TEXTS.map("u{}".format)), st.tuples(st.just("cookies"), TEXTS.map("k{}".format)),
    st.tuples(st.just("emails"), TEXTS.map("{}@x".format)),
)  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("events"), st.sampled_from(["realtime", "bulk"]), st.lists(EVENTS, min_size=1, max_size=12)),
    st.tuples(st.just("events"), st.just("realtime"), st.lists(EVENTS, min_size=1, max_size=12)),
    st.tuples(st.just("split"), KEYS, st.booleans()),
    st.tuples(st.just("rejoin"), KEYS),
    st.tuples(st.just("guard"), st.integers(0, len(GUARDS) - 1)),
    st.tuples(st.just("unguard")),
    st.tuples(st.just("query"), st.sampled_from([QUERY, SHORT])),
    st.tuples(st.just("audience"), st.integers(0, len(AUDIENCES) - 1)),
    st.tuples(st.just("erase"), KEYS),
    st.tuples(st.just("clock"), st.integers(1, 40)),
    st.tuples(st.just("restart"), st.integers(0, len(LIMITS) - 1)),
)


async def _live(open_ingest, folder, frozen_clock, steps):
    frozen_clock.us = 1_767_225_600_000_000
    left = [("restart", 1), *steps]
    while left:
        limits = LIMITS[left.pop(0)[1]]
        async with open_ingest(folder, limits=limits, cached_profiles=3) as ingest:
            await ingest.pipeline.put_query(QUERY)
            while left and left[0][0] != "restart":
                await _take(ingest, frozen_clock, *left.pop(0))
            await ingest.drain()
            await ingest.assert_sound()


async def _take(ingest, frozen_clock, step, *rest):
    pipeline = ingest.pipeline
    if step == "events":
        await ingest.append(*rest[1], lane=rest[0])
    elif step == "split":
        await ingest.drain()
        key, apart = rest
        owned = [keys for keys in (await identity_of(ingest)).values() if key in keys and len(keys) > 1]
        for keys in owned:
            await pipeline.split(key, keys[: len(keys) // 2], apart=apart)
    elif step == "rejoin":
        with suppress(NotFound):
            await pipeline.forget_split(rest[0])
    elif step == "guard":
        await pipeline.put_guards([GUARDS[rest[0]]])
    elif step == "unguard":
        for row in pipeline.definitions.guard_rows:
            await pipeline.delete_guard(row.id)
    elif step == "query":
        await pipeline.put_query(rest[0])
    elif step == "audience":
        await pipeline.put_audience(AUDIENCES[rest[0]])
    elif step == "erase":
        with suppress(NotFound):
            await pipeline.erase(*rest[0])
    else:
        frozen_clock.us += rest[0] * HOUR
        pipeline.wake()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=30))
def test_a_replay_gives_the_same_graph_whatever_was_guarded_compacted_and_split(steps, open_ingest, frozen_clock):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        async def run():
            await _live(open_ingest, folder, frozen_clock, steps)
            return await replay(folder / "events.db", folder / "state.db", folder / "again.db")

        report = asyncio.run(run())

        assert report.differences == []
        assert report.same
