"""P4 on the bus alone: a real state.db, runs that lease and settle as they like, and restarts in the middle."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import orjson
import pytest
from structlog.testing import capture_logs

from connectors.sdk.run import Batching
from daemon import clock, log
from daemon.bus.bus import Bus
from daemon.bus.parts import NO_JOURNAL
from daemon.model import codes
from daemon.model.subscription import Events
from daemon.settings import Settings
from daemon.store import jobs as stored_jobs
from daemon.store import subscriptions, trigger_log
from daemon.store.database import Database
from daemon.store.migrate import migrate
from streams import profile as profiles
from streams.audience import AudienceSet
from streams.ql.parser import parse_query
from streams.schema import build_schema

SCHEMA = build_schema([parse_query("SELECT uid FROM default INTO user BY uid ALIAS q")])
DEFINITIONS = SimpleNamespace(
    schema=SCHEMA,
    audiences={number: SimpleNamespace(id=f"{number:032x}", slug=f"a{number}") for number in range(1, 10)},
    audience_set=AudienceSet({}, SCHEMA),
)
DAY_US = 86_400_000_000


class Commit(NamedTuple):
    first: int
    last: int
    audiences: frozenset[int]


class World:
    """What ingest would do: profiles and memberships move, each commit appends its triggers."""

    def __init__(self, state: Database) -> None:
        self.state = state
        self.bus: Bus | None = None
        self.member: set[tuple[int, int]] = set()
        self.sequence: dict[tuple[int, int], int] = defaultdict(int)
        self.log: list[tuple[int, int, int, str]] = []  # trigger id, profile, audience, kind
        self.version: dict[int, int] = defaultdict(int)

    async def commit(self, moves: Iterable[tuple[int, int]], at_us: int | None = None) -> Commit:
        """Flips each (profile, audience) and tells the bus when that is durable."""
        at_us = clock.now_us() if at_us is None else at_us
        moves = sorted(set(moves))
        for profile in {profile for profile, _ in moves}:
            self.version[profile] += 1

        def write(db) -> Commit:
            commit_id = trigger_log.head(db) + 1
            trigger_id = commit_id - 1
            for profile, audience in moves:
                trigger_id += 1
                self.sequence[profile, audience] += 1
                sequence = self.sequence[profile, audience]
                kind = "enter" if sequence % 2 else "exit"
                db.execute(
                    "INSERT INTO trigger (commit_id, profile_id, audience, kind, sequence, at_us, entered_us, cause)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, 'event')",
                    (commit_id, profile, audience, kind, sequence, at_us, at_us),
                )
                db.execute(
                    "INSERT OR REPLACE INTO membership VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (profile, audience, sequence, trigger_id, at_us, at_us, sequence % 2),
                )
                self.log.append((trigger_id, profile, audience, kind))
                (self.member.add if kind == "enter" else self.member.discard)((profile, audience))
            for profile in {profile for profile, _ in moves}:
                body = profiles.new(profile, at_us)
                body.meta[2] = self.version[profile]
                db.execute("INSERT OR REPLACE INTO profile VALUES (?, ?)", (profile, body.dump()))
            return Commit(commit_id, trigger_id, frozenset(audience for _, audience in moves))

        commit = await self.state.write(write)
        if self.bus is not None:
            self.bus.notify(commit)
        return commit

    async def subscribe(self, *audiences: int, events: str = "both", existing: bool = False, name: str = "s") -> str:
        def write(db):
            for number in audiences:
                db.execute(
                    "INSERT OR IGNORE INTO audience (number, id, slug, name, text, version, created_us, updated_us)"
                    " VALUES (?, ?, ?, '', '', 1, 0, 0)",
                    (number, f"{number:032x}", f"a{number}"),
                )
            new = stored_jobs.NewJob(f"job-{name}", "test", "", "", None, "{}", "", None, None, None)
            stored_jobs.insert(db, new, 0)
            slugs = [f"a{number}" for number in audiences]
            return subscriptions.begin(
                db, name, f"job-{name}", slugs, Events(events), existing=existing, now_us=clock.now_us()
            )

        row = await self.state.write(write)
        if self.bus is not None:
            self.bus.add(row)
        return name


@asynccontextmanager
async def opened_state(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(tmp_path / "state.db", prepare=partial(migrate, database="state")) as state:
        yield state


@asynccontextmanager
async def opened_bus(world: World, *, killed: bool = False, journal=NO_JOURNAL, **sections) -> AsyncIterator[Bus]:
    """A bus over the world's state; `killed`: what it had not stored when it is left is lost."""
    settings = Settings(bus={"store_s": 0.001}, **sections)
    async with Bus.open(world.state, lambda: DEFINITIONS, settings, journal) as bus:
        world.bus = bus
        try:
            yield bus
        finally:
            world.bus = None
            if killed:

                async def nothing(**_: object) -> None:
                    return

                bus.flush = nothing


@asynccontextmanager
async def reading(bus: Bus, name: str = "s", *, ordered: bool = False, **batching):
    async with bus.attach(name, log.get(), lambda: None) as source:
        yield source.leases(Batching(**batching), fields=None, ordered=ordered)


def events_of(message) -> list[tuple[int, int, int, str]]:
    """(trigger id, profile, audience, kind) of each segment event."""
    data = orjson.loads(message.body)["data"]
    return [
        (int(each["trigger_id"]), int(data["_id"]), int(each["id"], 16), each["event"])
        for each in data["segment_events"]
    ]


async def drain(feed, *, count: int | None = None) -> list:
    """Takes and acknowledges until nothing comes any more; gives the events."""
    got = []
    while count is None or len(got) < count:
        lease = await feed.next(0.2)
        if lease is None:
            return got
        for message in lease.messages:
            got += events_of(message)
        lease.ack()
    return got


async def test_a_subscription_gets_what_comes_after_it_and_nothing_from_before(tmp_path):
    async with opened_state(tmp_path) as state:
        world = World(state)
        await world.commit([(1, 1), (2, 1)])
        async with opened_bus(world) as bus:
            await world.subscribe(1)
            await world.commit([(1, 1), (3, 1), (3, 2)])
            async with reading(bus) as feed:
                got = await drain(feed)

    assert got == [(3, 1, 1, "exit"), (4, 3, 1, "enter")]


async def test_a_message_carries_what_one_commit_changed_for_one_profile(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1, 2)
        await world.commit([(7, 1), (7, 2), (7, 3), (8, 2)])
        async with reading(bus, count=10) as feed:
            lease = await feed.next(1)
            contents = [orjson.loads(each.body) for each in lease.messages]

    assert [each["id"] for each in contents] == ["1", "4"]
    assert [each["trigger_id"] for each in contents[0]["data"]["segment_events"]] == ["1", "2"]
    assert [each["slug"] for each in contents[0]["data"]["segment_events"]] == ["a1", "a2"]
    assert contents[0]["data"]["segment_events"][0]["exit"] == "2099-12-31T23:59:59Z"
    assert {"object": "user", "subscription_id": "s"}.items() <= contents[0]["meta"].items()


async def test_events_says_which_kinds_are_taken(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1, events="enters", name="in")
        await world.subscribe(1, events="exits", name="out")
        for _ in range(3):
            await world.commit([(1, 1)])
        async with reading(bus, "in") as feed:
            enters = await drain(feed)
        async with reading(bus, "out") as feed:
            exits = await drain(feed)

    assert [each[0] for each in enters] == [1, 3]
    assert [each[0] for each in exits] == [2]


async def test_a_profile_with_a_message_under_lease_gives_its_next_one_only_when_that_is_settled(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(1, 1), (2, 1)])
        await world.commit([(1, 1), (2, 1)])
        async with reading(bus) as feed:
            one, two = await feed.next(1), await feed.next(1)
            none = await feed.next(0.1)
            two.ack()
            three = await feed.next(1)

    assert events_of(one.messages[0]) == [(1, 1, 1, "enter")]
    assert none is None
    assert events_of(three.messages[0]) == [(4, 2, 1, "exit")]


async def test_a_batch_is_full_whatever_holds_some_profiles_up(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(each, 1) for each in range(1, 31)])
        await world.commit([(each, 1) for each in range(1, 31)])
        async with reading(bus, count=20, age_s=60) as feed:
            first, second = await feed.next(5), await feed.next(5)

    assert [len(first.messages), len(second.messages)] == [20, 20]
    profiles_of = [{events_of(each)[0][1] for each in lease.messages} for lease in (first, second)]
    assert profiles_of[0].isdisjoint(profiles_of[1])


async def test_a_batch_is_limited_by_bytes_and_never_empty(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(each, 1) for each in range(1, 7)])
        async with reading(bus, count=100, bytes=1) as feed:
            small = [len((await feed.next(1)).messages) for _ in range(3)]
        async with reading(bus, count=100, bytes=10_000) as feed:
            rest = len((await feed.next(1)).messages)

    assert small == [1, 1, 1]
    assert rest == 6


async def test_a_batch_that_does_not_fill_goes_out_when_its_first_message_has_waited_long_enough(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        async with reading(bus, count=10, age_s=0.3) as feed:
            waiting = asyncio.ensure_future(feed.next(10))
            began = asyncio.get_running_loop().time()
            await world.commit([(1, 1)])
            await world.commit([(2, 1)])
            lease = await waiting
            took = asyncio.get_running_loop().time() - began

    assert len(lease.messages) == 2
    assert 0.25 <= took < 2


async def test_what_a_run_leaves_unsettled_is_read_again_and_what_it_settled_is_not(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(each, 1) for each in range(1, 6)])
        async with reading(bus) as feed:
            leases = [await feed.next(1) for _ in range(4)]
            leases[1].ack()
            leases[3].omit("no such person")
        async with reading(bus) as feed:
            got = [each[0] for each in await drain(feed)]
        progress = bus.row("s").progress

    assert got == [1, 3, 5]
    assert (progress.added, progress.removed, progress.omitted, progress.position) == (4, 0, 1, 5)


async def test_what_was_settled_out_of_order_is_not_sent_again_after_a_restart(tmp_path):
    async with opened_state(tmp_path) as state:
        world = World(state)
        async with opened_bus(world) as bus:
            await world.subscribe(1)
            await world.commit([(each, 1) for each in range(1, 6)])
            async with reading(bus) as feed:
                leases = [await feed.next(1) for _ in range(4)]
                leases[1].ack()
                leases[3].ack()
        async with opened_bus(world) as bus, reading(bus) as feed:
            got = [each[0] for each in await drain(feed)]

    assert got == [1, 3, 5]


async def test_acknowledgements_that_could_not_be_stored_are_stored_later(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(1, 1), (2, 1)])
        write, refused = state.write, 0

        async def full(work):
            nonlocal refused
            refused += 1
            if refused <= 2:
                raise sqlite3.OperationalError("database or disk is full")
            return await write(work)

        async with reading(bus) as feed:
            state.write = full
            got = await drain(feed)
            async with asyncio.timeout(10):
                while (row := await state.read(lambda db: subscriptions.one(db, "s"))).progress.position < 2:
                    await asyncio.sleep(0.01)
            state.write = write

    assert len(got) == 2
    assert (row.progress.added, refused) == (2, 3)


async def test_one_message_that_stands_still_bounds_what_is_done_beyond_it(tmp_path, monkeypatch):
    monkeypatch.setattr("daemon.bus.feed.AHEAD", 50)
    monkeypatch.setattr("daemon.bus.feed.WINDOW", 20)
    monkeypatch.setattr("daemon.bus.feed.LIVE_PAGE", 10)
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(each, 1) for each in range(1, 301)])
        async with reading(bus) as feed:
            stuck = await feed.next(1)
            beyond = await drain(feed)
            stuck.ack()
            rest = await drain(feed)

    assert 50 <= len(beyond) < 90
    assert len(beyond) + len(rest) == 299


async def test_settling_an_ordered_lease_takes_those_before_it_along(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        for _ in range(6):
            await world.commit([(1, 1)])
        async with reading(bus, ordered=True, count=2) as feed:
            leases = [await feed.next(1) for _ in range(3)]
            numbers = [events_of(each)[0][0] for lease in leases for each in lease.messages]
            before = bus.row("s").progress.position
            leases[1].ack()
            after = bus.row("s").progress.position

    assert numbers == [1, 2, 3, 4, 5, 6]
    assert (before, after) == (0, 4)


async def test_a_run_that_does_not_end_is_cut_off_when_another_begins(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(1, 1), (2, 1)])
        old = bus.attach("s", log.get(), lambda: None)
        source = await old.__aenter__()
        stuck = source.leases(Batching(), fields=None, ordered=False)
        lease = await stuck.next(1)
        async with reading(bus) as feed:
            again = await feed.next(1)
            events = events_of(again.messages[0])
            lease.ack()
            position = bus.row("s").progress.position
            with pytest.raises(RuntimeError, match="given up"):
                await stuck.next(1)
            await old.__aexit__(None, None, None)
            again.ack()
            moved = bus.row("s").progress.position

    assert events == [(1, 1, 1, "enter")]
    assert (position, moved) == (0, 1)


async def test_a_commit_that_touches_no_audience_of_it_moves_a_caught_up_subscription_without_reading(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        async with reading(bus) as feed:
            assert await feed.next(0.05) is None
            read = state.read
            reads = 0

            async def counted(work):
                nonlocal reads
                reads += 1
                return await read(work)

            state.read = counted
            waiting = asyncio.ensure_future(feed.next(5))
            for _ in range(20):
                await world.commit([(1, 2)])
            position, untouched = bus.row("s").progress.position, reads
            await world.commit([(9, 1)])
            lease = await waiting
            state.read = read

    assert (position, untouched) == (20, 0)
    assert events_of(lease.messages[0]) == [(21, 9, 1, "enter")]


async def test_the_members_of_the_beginning_are_sent_once_beside_what_comes(tmp_path):
    async with opened_state(tmp_path) as state:
        world = World(state)
        for start in range(1, 351, 50):
            await world.commit([(each, 1) for each in range(start, start + 50)])
        async with opened_bus(world) as bus:
            await world.subscribe(1, existing=True)
            await world.commit([(each, 1) for each in (10, 20, 340)])  # they leave before they are sent
            await world.commit([(340, 1)])  # and one comes back
            async with reading(bus, count=7) as feed:
                got = await drain(feed)
            row = bus.row("s")
            lag = await bus.lag("s")

    members = {profile for _, profile, _, kind in got if kind == "enter"}
    assert set(range(1, 351)) - {10, 20} == members
    assert ["exit", "enter"] == [kind for _, profile, _, kind in got if profile == 340]
    assert {10, 20, 340} == {profile for _, profile, _, kind in got if kind == "exit"}
    assert len(got) == 351
    assert (row.progress.backfill_trigger, row.progress.position) == (None, 354)
    assert (lag.triggers, lag.seconds, lag.backfilling) == (0, 0.0, False)


@pytest.mark.parametrize("limit", [4, 5, 6, 7, 8, 9, 100])
async def test_a_page_of_the_log_never_divides_what_makes_one_message(tmp_path, limit):
    async with opened_state(tmp_path) as state:
        world = World(state)
        for _ in range(3):
            await world.commit([(profile, audience) for profile in (1, 2, 3) for audience in (1, 2, 3, 4)])
        everything = trigger_log.make_filter([2, 3, 4, 5], ["enter", "exit"])
        position, groups = 0, []
        while position < 36:
            page = await state.read(lambda db, position=position: trigger_log.page(db, everything, position, limit))
            assert page.read_to > position
            position = page.read_to
            groups.append([(row.commit_id, row.profile_id) for row in page.triggers])

    assert sum(map(len, groups)) == 27
    assert [each for one, other in pairwise(groups) for each in one if each in other] == []


async def test_live_triggers_do_not_wait_for_the_end_of_a_backfill(tmp_path):
    async with opened_state(tmp_path) as state:
        world = World(state)
        await world.commit([(each, 1) for each in range(1, 2001)])
        async with opened_bus(world) as bus:
            await world.subscribe(1, existing=True)
            async with reading(bus) as feed:
                for _ in range(50):
                    (await feed.next(1)).ack()
                await world.commit([(5000, 1)])
                before = 0
                while events_of((lease := await feed.next(1)).messages[0])[0][1] != 5000:
                    lease.ack()
                    before += 1

    assert before <= 200


async def test_a_profile_that_is_no_more_is_sent_with_its_last_fields(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(1, 1), (2, 1)])

        def merge(db) -> Commit:
            body = profiles.new(2, 0)
            body.meta[2] = 77
            db.execute("DELETE FROM profile WHERE id IN (1, 2)")
            db.execute(
                "INSERT INTO trigger (commit_id, profile_id, audience, kind, sequence, at_us, entered_us, cause,"
                " merged_into, profile_body) VALUES (3, 2, 1, 'exit', 2, 5, 4, 'merge', 9, ?)",
                (body.dump(),),
            )
            return Commit(3, 3, frozenset({1}))

        bus.notify(await state.write(merge))
        async with reading(bus, count=10) as feed:
            contents = [orjson.loads(each.body)["data"] for each in (await feed.next(1)).messages]

    lost, enter, leave = contents
    assert {"_id", "segment_events"} == lost.keys()
    assert [enter["_num_events"], leave["_num_events"]] == [77, 77]
    assert leave["segment_events"][0]["merged_into"] == "9"


async def test_lag_counts_what_is_wanted_and_not_yet_done(tmp_path, frozen_clock):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(1, 1), (2, 1), (3, 1), (1, 2)])
        frozen_clock.us += 5_000_000
        async with reading(bus) as feed:
            leases = [await feed.next(1) for _ in range(2)]
            leases[1].ack()
            lag = await bus.lag("s")

    assert (lag.triggers, lag.seconds, lag.position) == (2, 5.0, 0)


# --- retention


async def test_triggers_are_kept_until_every_live_cursor_has_passed_them(tmp_path, frozen_clock):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1, name="quick")
        await world.subscribe(1, name="paused")
        for profile in range(1, 6):
            await world.commit([(profile, 1)])
        async with reading(bus, "quick") as feed:
            await drain(feed)
        frozen_clock.us += 8 * DAY_US
        await world.commit([(6, 1)])
        kept = await bus.sweep()
        async with reading(bus, "paused") as feed:
            got = await drain(feed)
        deleted = await bus.sweep()
        left = await state.read(lambda db: db.execute("SELECT id FROM trigger").fetchall())

    assert kept == 0
    assert [each[0] for each in got] == [1, 2, 3, 4, 5, 6]
    assert (deleted, left) == (5, [(6,)])


async def test_a_cursor_that_wants_nothing_does_not_hold_the_log(tmp_path, frozen_clock):
    async with opened_state(tmp_path) as state:
        world = World(state)
        async with opened_bus(world) as bus:
            await world.subscribe(5)
            await world.commit([(1, 1)])
        async with opened_bus(world) as bus:
            frozen_clock.us += 8 * DAY_US
            deleted = await bus.sweep()
            await world.commit([(1, 5)])
            async with reading(bus) as feed:
                got = await drain(feed)

    assert deleted == 1
    assert got == [(2, 1, 5, "enter")]


async def test_the_last_fields_of_erased_people_go_when_everybody_has_them(tmp_path):
    async with opened_state(tmp_path) as state, opened_bus(world := World(state)) as bus:
        await world.subscribe(1)
        await world.commit([(1, 1)])

        def erase(db) -> Commit:
            db.execute("DELETE FROM profile")
            db.execute(
                "INSERT INTO trigger (commit_id, profile_id, audience, kind, sequence, at_us, entered_us, cause,"
                " profile_body) VALUES (2, 1, 1, 'exit', 2, ?, 4, 'erase', ?)",
                (clock.now_us(), profiles.new(1, 0).dump()),
            )
            return Commit(2, 2, frozenset({1}))

        bus.notify(await state.write(erase))
        kept = []
        await bus.sweep()
        kept.append(await state.read(lambda db: db.execute("SELECT count(profile_body) FROM trigger").fetchone()[0]))
        async with reading(bus) as feed:
            await drain(feed)
        await bus.sweep()
        kept.append(await state.read(lambda db: db.execute("SELECT count(profile_body) FROM trigger").fetchone()[0]))

    assert kept == [1, 0]


async def test_a_dead_cursor_is_given_up_loudly_and_goes_on_with_what_is_younger(tmp_path, frozen_clock):
    told = []

    class Journal(type(NO_JOURNAL)):
        def job_event(self, *facts, **more) -> None:
            told.append((*facts[:4], more))

    async with opened_state(tmp_path) as state, opened_bus(world := World(state), journal=Journal()) as bus:
        await world.subscribe(1)
        for profile in range(1, 4):
            await world.commit([(profile, 1)])
        frozen_clock.us += 25 * DAY_US
        await world.commit([(4, 1)])
        frozen_clock.us += 6 * DAY_US
        with capture_logs() as said:
            deleted = await bus.sweep()
        async with reading(bus) as feed:
            got = await drain(feed)
        skipped = bus.row("s").progress.skipped

    assert [
        (each["log_level"], each["job"], each["triggers"]) for each in said if each["event"] == "triggers_given_up"
    ] == [("error", "job-s", 3)]
    assert (deleted, skipped) == (3, 3)
    assert told == [("job-s", None, "error", codes.GIVEN_UP, {"triggers": 3})]
    assert [each[0] for each in got] == [4]


async def test_attempts_are_written_once_also_where_their_writing_is_cancelled(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    class Journal(type(NO_JOURNAL)):
        given_back = 0

        def take(self):
            return self

        def __bool__(self):
            return True

        full = False

        def write(self, _db) -> None:
            begun.set()
            go_on.wait()

        def give_back(self) -> None:
            self.given_back += 1

    async with opened_state(tmp_path) as state, opened_bus(World(state), killed=True, journal=Journal()) as bus:
        flushing = asyncio.ensure_future(bus.flush())
        await asyncio.to_thread(begun.wait)
        flushing.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([flushing])

    assert flushing.cancelled()
    assert bus._journal.given_back == 0


# --- everything at once


@pytest.mark.parametrize("seed", range(24))
async def test_everything_arrives_in_order_whatever_is_interrupted(tmp_path, seed):
    """Random moves, workers, orders of settling, cancelled runs, restarts and kills; a backfill of three audiences."""
    rng = random.Random(seed)
    people, wanted = 40, (1, 2, 3)
    delivered: list[list[tuple[int, int, int, str]]] = []  # by life of the process, in the order of lending
    settled_ids: set[int] = set()
    async with opened_state(tmp_path) as state:
        world = World(state)
        for _ in range(6):
            await world.commit([(rng.randint(1, people), rng.randint(1, 4)) for _ in range(rng.randint(1, 25))])
        await world.subscribe(*wanted, existing=True)
        start = world.log[-1][0]
        members = {each for each in world.member if each[1] in wanted}

        async def write(moves: int) -> None:
            for _ in range(moves):
                await world.commit([(rng.randint(1, people), rng.randint(1, 4)) for _ in range(rng.randint(1, 5))])
                for _ in range(rng.randint(0, 4)):
                    await asyncio.sleep(0)

        async def work(feed, life: list, under_way: set[int], *, exclusive: bool) -> None:
            while True:
                lease = await feed.next()
                events = [each for message in lease.messages for each in events_of(message)]
                life += events
                people_now = {profile for _, profile, _, _ in events}
                assert not exclusive or under_way.isdisjoint(people_now)
                under_way |= people_now
                for _ in range(rng.randint(0, 12)):
                    await asyncio.sleep(0)
                under_way -= people_now
                lease.ack()
                settled_ids.update(each[0] for each in events)

        for life_number in range(5):
            life: list[tuple[int, int, int, str]] = []
            delivered.append(life)
            last = life_number == 4
            async with opened_bus(world, killed=rng.random() < 0.5) as bus:
                writer = asyncio.create_task(write(rng.randint(5, 25)))
                for _ in range(rng.randint(1, 3)):
                    workers = rng.choice([1, 1, 3, 5])
                    under_way: set[int] = set()
                    async with reading(
                        bus,
                        count=rng.choice([1, 1, 3, 10]),
                        age_s=rng.choice([0, 0.002]),
                        ordered=workers == 1 and rng.random() < 0.5,
                    ) as feed:
                        tasks = [
                            asyncio.create_task(work(feed, life, under_way, exclusive=workers > 1))
                            for _ in range(workers)
                        ]
                        for _ in range(rng.randint(1, 400)):
                            await asyncio.sleep(0)
                        for task in tasks:
                            task.cancel()
                        ended = await asyncio.gather(*tasks, return_exceptions=True)
                        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
                await writer
                if last:
                    async with reading(bus, count=10) as feed:
                        life += await drain(feed)
                    row = bus.row("s").progress
                    lag = await bus.lag("s")

    everything = [each for life in delivered for each in life]
    live = {each for each in world.log if each[0] > start and each[2] in wanted}
    assert live <= set(everything)
    changed = {(profile, audience) for _, profile, audience, _ in live}
    backfilled = {(profile, audience) for number, profile, audience, _ in everything if number <= start}
    assert members - changed <= backfilled <= members
    assert set(everything) <= set(world.log)
    _in_order(everything)
    assert (None, world.log[-1][0]) == (row.backfill_trigger, row.position)
    assert lag.triggers == 0


def _in_order(events: list[tuple[int, int, int, str]]) -> None:
    """First deliveries of one person grow, the backfill's too; so nothing is stale after something newer."""
    seen: set[int] = set()
    newest: dict[int, int] = {}
    for number, profile, _, _ in events:
        if number in seen:
            continue  # a repeat, which the receiver drops
        seen.add(number)
        assert newest.get(profile, 0) < number
        newest[profile] = number
