"""Erasing a person everywhere: profile, log, what was refused, and the bytes of the files; and nobody comes back."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import orjson
import pytest

from daemon import clock
from daemon.ingest import erasing
from daemon.ingest.erasing import Eraser
from daemon.ingest.replay import replay
from daemon.model.refusal import NotFound
from daemon.store import erasures as store
from daemon.store import events as event_log

QUERY = "SELECT user_id, email(email) AS email, plan FROM web INTO user BY user_id OR email ALIAS web"
ANN = "ann.very.distinct@example.com"


@asynccontextmanager
async def eraser_of(ingest, floor=1 << 62):
    async def delivered():
        return floor() if callable(floor) else floor

    async def flush():
        return None

    yield Eraser(
        ingest.events, ingest.state, committed=ingest.pipeline.committed, delivered=delivered, flush=flush,
        passed=ingest.pipeline.tombstones_passed, wake=ingest.pipeline.to_scrub,
    )  # fmt: skip


async def finish(ingest, floor=1 << 62):
    """Does all the work of erasing."""
    async with eraser_of(ingest, floor) as eraser:
        for _ in range(200):
            await ingest.drain()
            if not await eraser.work():
                return
            await asyncio.sleep(0.01)  # a reader stands in the way of emptying the write-ahead log
    raise AssertionError("not finished")


async def status(ingest, number=1):
    return await ingest.state.read(lambda db: store.one(db, number))


async def bodies(ingest, lane="realtime"):
    rows = await ingest.events.read(
        lambda db: db.execute(f"SELECT body, event_id FROM event_{lane} ORDER BY position").fetchall()
    )
    return [orjson.loads(body) for body, _ in rows]


def in_files(folder, *texts):
    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes().lower() if path.is_file() else b""
        found += [(path.name, text) for text in texts if text.lower().encode() in content]
    return found


async def same(folder):
    with tempfile.TemporaryDirectory() as name:
        report = await replay(folder / "events.db", folder / "state.db", Path(name) / "again.db")
    assert report.differences == []
    assert report.same


async def test_nothing_of_a_person_is_left_in_the_files(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience("FILTER EXISTS plan ALIAS planned")
        await ingest.take({"user_id": "a", "email": ANN, "plan": "x"}, {"user_id": "b", "plan": "y"})
        for each in range(40):
            await ingest.take({"email": ANN, "plan": f"gold{each}", "_id": f"order-{ANN}-{each}"}, lane="bulk")
        await ingest.take({"who": ANN.upper()}, {"who": "else"}, stream="unmapped")
        await ingest.events.write(
            lambda db: db.execute(
                "INSERT INTO reject (at_us, stream, place, message, sample, request_id) VALUES"
                " (1, 's', 'x', 'm', ?, 'r'), (1, 's', 'x', 'm', 'else', 'r')",
                (f'{{"email": "{ANN}"',),
            )
        )
        await ingest.events.write(
            lambda db: db.execute("INSERT INTO stream_field VALUES ('s', ?, 'string', 1, 1)", (f"map.{ANN}",))
        )
        assert in_files(tmp_path, ANN)

        accepted = await ingest.pipeline.erase("email", ANN)
        await finish(ingest)

        done = await status(ingest)
        assert (accepted.id, done.state, done.keys, done.admitted_us) == (1, "done", (), None)
        assert (done.scrubbed, done.cut, done.kept, done.rejects, done.snapshots) == (42, 0, 0, 1, 1)
        assert done.events_looked == 44
        assert done.finished_us >= done.accepted_us
        assert in_files(tmp_path, ANN) == []
        assert await bodies(ingest) == [
            {"_erased": True}, {"user_id": "b", "plan": "y"}, {"_erased": True}, {"who": "else"},
        ]  # fmt: skip
        assert len(await bodies(ingest, "bulk")) == 40
        (body,) = await ingest.rows("SELECT body FROM history WHERE kind = 'erase'")
        assert orjson.loads(body[0])["scrubbed"] is True
        assert await ingest.rows("SELECT kind, cause, profile_body FROM trigger WHERE profile_id = 1") == [
            ("enter", "event", None), ("exit", "erase", None),
        ]  # fmt: skip
        await ingest.assert_sound()
    await same(tmp_path)


async def test_neither_a_repeat_nor_an_import_brings_the_person_back_until_admitted(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "a", "email": ANN, "plan": "x"}, {"user_id": "b"})
        await ingest.pipeline.erase("user_id", "a")
        await finish(ingest)

        await ingest.take({"user_id": "a", "plan": "back"}, {"email": ANN}, {"user_id": "new", "email": ANN})
        await ingest.take({"user_id": "b", "email": ANN, "plan": "kept"}, {"user_id": "c"}, lane="bulk")
        await finish(ingest)

        assert await ingest.rows("SELECT value FROM identity ORDER BY 1") == [("b",), ("c",)]
        assert in_files(tmp_path, ANN) == []
        assert (await bodies(ingest))[2:] == [{"_erased": True}] * 3
        assert (await bodies(ingest, "bulk"))[0] == {"user_id": "b", "plan": "kept"}
        assert await ingest.state.read(store.turned_away) == 4

        assert await ingest.pipeline.admit([("email", ANN)]) == [1]
        with pytest.raises(NotFound):
            await ingest.pipeline.admit([("email", ANN)])
        await ingest.take({"user_id": "a", "email": ANN, "plan": "again"})

        assert ("a",) in await ingest.rows("SELECT value FROM identity")
        assert (await status(ingest)).admitted_us is not None
        await finish(ingest)
        assert await ingest.rows("SELECT * FROM tombstone") == []
        await ingest.assert_sound()
    await same(tmp_path)


async def test_tombstones_hold_after_a_restart_and_have_no_plain_value(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "a", "email": ANN})
        await ingest.pipeline.erase("user_id", "a")
    async with open_ingest(tmp_path) as ingest:
        await ingest.take({"user_id": "a"}, {"email": ANN})
        await finish(ingest)

        assert await ingest.one("SELECT count(*) FROM profile") == 0
        assert len(await ingest.rows("SELECT hash FROM tombstone")) == 2
        assert in_files(tmp_path, ANN) == []


async def test_with_allow_return_only_what_was_there_before_is_kept_out(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "a", "plan": "plan-of-old"})
        await ingest.append({"user_id": "a", "plan": "plan-that-waits"}, lane="bulk")

        await ingest.pipeline.erase("user_id", "a", allow_return=True)
        await ingest.take({"user_id": "a", "plan": "new"})
        await finish(ingest)

        (body,) = await ingest.rows("SELECT body FROM profile")
        assert "new" in body[0]
        assert in_files(tmp_path, "plan-that-waits", "plan-of-old") == []
        assert await ingest.rows("SELECT * FROM tombstone") == []
    await same(tmp_path)


async def test_who_returns_does_not_get_what_waited_from_before(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "a", "plan": "old"})
        now_us = clock.now_us()
        flat = [now_us, "web", now_us, None, '{"user_id":"a","email":"before@example.com"}']
        await ingest.events.write(lambda db: event_log.append(db, "bulk", [event_log.Batch(flat)], 0))  # and no wake
        await ingest.pipeline.erase("user_id", "a", allow_return=True)
        await ingest.append({"user_id": "a", "plan": "new"})
        while not await ingest.rows("SELECT 1 FROM identity"):
            await asyncio.sleep(0.01)
        async with eraser_of(ingest) as eraser:
            assert await eraser.work()
        await ingest.drain()

        assert await ingest.rows("SELECT field, value FROM identity") == [("user_id", "a")]
        await finish(ingest)
        assert in_files(tmp_path, "before@example.com") == []
    await same(tmp_path)


async def test_what_waits_unprocessed_is_scrubbed_as_well(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "a", "email": ANN})
        erasing = asyncio.ensure_future(ingest.pipeline.erase("user_id", "a"))
        await ingest.append(*({"user_id": "a", "n": each, "email": ANN} for each in range(300)), lane="bulk")
        await ingest.append({"who": ANN}, stream="unmapped")
        await erasing
        await finish(ingest)

        assert await ingest.one("SELECT count(*) FROM profile") == 0
        # What came to a stream without a query after the erasure stays: nobody has said that it is the person's.
        assert [name for name, _ in in_files(tmp_path, ANN)] in ([], ["events.db"], ["events.db-wal"])
    await same(tmp_path)


async def test_events_of_others_lose_the_persons_keys_and_the_others_stay_as_they_are(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_query(
            "SELECT friend AS user_id, count(friend) AS invited KIND int FROM web INTO user BY user_id ALIAS friends"
        )
        await ingest.take({"user_id": "a", "email": ANN}, {"user_id": "b", "email": "b@example.com", "plan": "x"})
        await ingest.take({"user_id": "b", "email": ANN, "plan": "y"})  # a conflict, refused
        await ingest.take({"user_id": "a", "friend": "b", "plan": "plan-of-ann"})
        before = await ingest.one("SELECT body FROM profile WHERE id = 2")

        await ingest.pipeline.erase("user_id", "a")
        await finish(ingest)

        done = await status(ingest)
        assert (done.scrubbed, done.cut, done.kept) == (1, 2, 0)
        assert (await bodies(ingest))[2:] == [{"user_id": "b", "plan": "y"}, {"friend": "b"}]
        assert await ingest.one("SELECT body FROM profile WHERE id = 2") == before
        assert in_files(tmp_path, ANN, "plan-of-ann") == []
    await same(tmp_path)


async def test_what_others_have_made_of_a_key_stays_and_is_told(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(
            "SELECT user_id, email(email) AS email, set(email) AS seen KIND []string FROM web INTO user"
            " BY user_id OR email ALIAS web"
        )
        await ingest.take({"user_id": "a", "email": ANN}, {"user_id": "b", "email": "b@example.com"})
        await ingest.take({"user_id": "b", "email": ANN})

        await ingest.pipeline.erase("user_id", "a")
        await finish(ingest)

        done = await status(ingest)
        assert (done.scrubbed, done.cut, done.kept) == (1, 1, 1)
    await same(tmp_path)


async def test_a_replay_gives_the_same_before_during_and_after_scrubbing(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience("FILTER EXISTS plan ALIAS planned")
        await ingest.take(*({"user_id": "a", "email": ANN, "plan": "x"} for _ in range(600)))
        await ingest.take({"user_id": "b", "email": "b@example.com"}, {"user_id": "b", "email": ANN})
        await ingest.pipeline.erase("user_id", "a")
        await same(tmp_path)
        epochs = await erasing.epochs_of(ingest.state)
        assert len(epochs) == 1
        async with eraser_of(ingest) as eraser:
            (erasure,) = await ingest.state.read(store.unfinished)
            walk = eraser._search("realtime", [erasure])
            scrubs = 0

            async def scrub_and_stop(*_):
                nonlocal scrubs
                scrubs += 1
                if scrubs == 2:
                    raise asyncio.CancelledError

            eraser._scrub = scrub_and_stop
            with suppress(asyncio.CancelledError):
                await walk
        assert 0 < (await status(ingest)).looked["realtime"] < 602
        await same(tmp_path)
        await finish(ingest)
        await same(tmp_path)
        assert (await status(ingest)).scrubbed == 600


async def test_last_fields_go_when_every_destination_has_the_exits(tmp_path, open_ingest):
    floor = 0
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.pipeline.put_audience("FILTER EXISTS plan ALIAS planned")
        await ingest.take({"user_id": "a", "plan": "x"}, {"email": ANN, "plan": "y"})
        await ingest.take({"user_id": "a", "email": ANN})  # takes the other in: an exit with its last fields
        await ingest.pipeline.erase("user_id", "a")
        async with eraser_of(ingest, lambda: floor) as eraser:
            assert await eraser.work()
            assert (await status(ingest)).state == "delivering"
            assert len(await ingest.rows("SELECT 1 FROM trigger WHERE profile_body IS NOT NULL")) == 2
            await ingest.state.write(_deliver_with_an_answer)
            floor = 4
            await finish(ingest, lambda: floor)
            assert await ingest.rows("SELECT answer, sample FROM delivery ORDER BY id") == [("", None), ("no", "{}")]

        assert (await status(ingest)).snapshots == 2
        assert in_files(tmp_path, ANN) == []
    await same(tmp_path)


def _deliver_with_an_answer(db):
    # The destination repeats in its answer whom it refused.
    for number, profile, answer in ((1, 1, f"no {ANN}"), (2, 99, "no")):
        db.execute(
            "INSERT INTO delivery VALUES (?, 'j', 'r', 1, 'omitted', 1, 'h', 1, 400, ?, 1, 0, '{}')", (number, answer)
        )
        db.execute(
            "INSERT INTO delivery_message (delivery, profile_id, first_id, last_id) VALUES (?, ?, 1, 1)",
            (number, profile),
        )


async def test_a_stop_anywhere_in_the_work_loses_nothing_and_counts_nothing_twice(tmp_path, open_ingest, monkeypatch):
    class StopError(Exception):
        pass

    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        for each in range(10):
            await ingest.take(*({"user_id": "a", "email": ANN, "n": each * 300 + n} for n in range(300)))
        await ingest.take({"user_id": "b", "email": "b@example.com"}, {"user_id": "b", "email": ANN})
        await ingest.pipeline.erase("user_id", "a")

        calls, stop_at = 0, 0
        for name in ("scrub", "unlist", "note_page", "searched", "delivered", "done"):
            whole = getattr(store, name)

            def stopping(*args, whole=whole, **options):
                nonlocal calls
                calls += 1
                if calls == stop_at:
                    raise StopError
                return whole(*args, **options)

            monkeypatch.setattr(store, name, stopping)
        chance = random.Random(5)
        for _ in range(80):
            calls, stop_at = 0, chance.randrange(1, 9)
            async with eraser_of(ingest) as eraser:
                with suppress(StopError):
                    await eraser.work()
        stop_at = 0
        await finish(ingest)

        done = await status(ingest)
        assert (done.state, done.scrubbed, done.cut, done.events_looked) == ("done", 3000, 1, 3002)
        assert in_files(tmp_path, ANN) == []
    await same(tmp_path)


async def test_erasures_accepted_together_are_searched_for_together(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take(*({"user_id": f"u{each}", "email": f"u{each}@example.com"} for each in range(50)))
        for each in range(0, 50, 2):
            await ingest.pipeline.erase("user_id", f"u{each}")
        await finish(ingest)

        assert [(await status(ingest, each)).scrubbed for each in range(1, 26)] == [1] * 25
        assert await ingest.one("SELECT count(*) FROM profile") == 25
    await same(tmp_path)


@pytest.mark.parametrize("going", ["user_id", "email"])
@pytest.mark.parametrize("erased", ["user_id", "email"])
async def test_a_half_of_a_split_is_erased_and_the_other_comes_out_the_same(tmp_path, open_ingest, going, erased):
    key = {"user_id": ("user_id", "the-user-of-ann"), "email": ("email", ANN)}
    other = key["email" if erased == "user_id" else "user_id"]
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY.replace("plan", "set(plan) AS plan KIND []string"))
        await ingest.pipeline.put_audience("FILTER EXISTS plan ALIAS planned")
        await ingest.take({"email": ANN, "plan": "plan-of-email"}, {"user_id": "b", "plan": "y"})
        await ingest.take({"user_id": "the-user-of-ann", "email": ANN, "plan": "plan-of-user_id"})
        await ingest.take({"user_id": "b", "email": ANN})  # refused, because the two were one
        await ingest.pipeline.split(key[going], [key[going]])
        await ingest.take({"user_id": "the-user-of-ann", "email": ANN, "plan": "later"})  # refused: they were split
        await same(tmp_path)
        shown = await ingest.one(
            "SELECT body FROM profile WHERE id = (SELECT profile_id FROM identity WHERE value = ?)", other[1]
        )

        await ingest.pipeline.erase(*key[erased])
        await same(tmp_path)
        await finish(ingest)

        assert in_files(tmp_path, key[erased][1], f"plan-of-{erased}") == []
        left = await ingest.one(
            "SELECT body FROM profile WHERE id = (SELECT profile_id FROM identity WHERE value = ?)", other[1]
        )
        assert left == shown
        await same(tmp_path)
        await ingest.take({other[0]: other[1], "plan": "after"})
        await ingest.assert_sound()
    await same(tmp_path)


_SEEN = "SELECT user_id, email(email) AS email, set(email) AS seen KIND []string FROM web INTO user"
_FRIENDS = "SELECT friend AS user_id, count(friend) AS invited KIND int, plan AS last FROM web INTO user"
QUERIES = (
    "SELECT user_id, email(email) AS email, cookie, plan FROM web INTO user BY cookie OR email OR user_id ALIAS web",
    f"{_SEEN} BY user_id OR email ALIAS web",
    f"{_FRIENDS} BY user_id ALIAS friends",
)
STEPS = {
    "events": 10, "erase": 4, "drain": 3, "split": 4, "rejoin": 1, "admit": 2, "work": 2, "query": 2, "restart": 1,
}  # fmt: skip


class Life:
    """A random life of a small daemon, in which few people do much; the same for the same seed."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.steps = ["drain", *self.chance.choices([*STEPS], [*STEPS.values()], k=40)]
        self.erased = self.split = 0

    def event(self):
        body = {"plan": self.chance.randrange(10)}
        for field in ("user_id", "email", "cookie", "friend"):
            if self.chance.random() < (0.2 if field == "friend" else 0.5):
                name = self.chance.choice("xyz")
                body[field] = f"{name}@example.com" if field == "email" else name
        return body

    async def step(self, ingest, step):
        chance = self.chance
        match step:
            case "events":
                events = [self.event() for _ in range(chance.randrange(1, 7))]
                await ingest.append(*events, lane=chance.choice(["realtime", "bulk"]))
            case "query":
                await ingest.pipeline.put_query(chance.choice(QUERIES))
            case "erase":
                if chance.random() < 0.6:
                    await ingest.drain()
                keys = await ingest.rows("SELECT field, value FROM identity ORDER BY 1, 2")
                if keys:
                    with suppress(NotFound):  # by now taken in
                        await ingest.pipeline.erase(*chance.choice(keys), allow_return=chance.random() < 0.4)
                        self.erased += 1
            case "split":
                await ingest.drain()
                rows = await ingest.rows("SELECT field, value, profile_id FROM identity ORDER BY 3, 1, 2")
                of = chance.choice(rows)[2] if rows else None
                keys = [row[:2] for row in rows if row[2] == of]
                if len(keys) > 1:
                    going = chance.sample(keys, chance.randrange(1, len(keys)))
                    apart = chance.random() < 0.6
                    await ingest.pipeline.split(going[0], going, apart=apart)
                    self.split += 1
            case "rejoin":
                await ingest.drain()
                if rows := await ingest.rows("SELECT field, value FROM identity ORDER BY 1, 2"):
                    await ingest.pipeline.forget_split(chance.choice(rows))
            case "admit":
                with suppress(NotFound):
                    await ingest.pipeline.admit([("user_id", chance.choice("xyz"))])
            case "work":
                await finish(ingest)
            case _:
                await ingest.drain()


@pytest.mark.parametrize("seed", range(24))
async def test_whatever_is_erased_when_a_replay_gives_the_same(seed, tmp_path, open_ingest):
    life = Life(seed)
    while life.steps:
        async with open_ingest(tmp_path, cached_profiles=2) as ingest:
            await ingest.pipeline.put_query(QUERIES[0])
            while life.steps and (step := life.steps.pop(0)) != "restart":
                await life.step(ingest, step)
            await ingest.drain()
            if not life.steps:
                await same(tmp_path)
                await finish(ingest)
                await ingest.assert_sound()
                await same(tmp_path)
    assert life.erased


async def test_a_crash_of_the_process_while_it_scrubs_is_gone_on_from(tmp_path, open_ingest):
    # The writes of the two files are not of one transaction: whichever came last, the next start ends at the same.
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take(*({"user_id": "a", "email": ANN} for _ in range(600)))
        await ingest.pipeline.erase("user_id", "a")
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        assert db.execute("SELECT state FROM erasure").fetchall() == [("scrubbing",)]
    async with open_ingest(tmp_path) as ingest:
        await finish(ingest)

        assert (await status(ingest)).scrubbed == 600
