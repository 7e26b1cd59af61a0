"""What imports and exports are given of the log and the profiles: rows with their checkpoint, members, events."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial

import orjson
import pytest
import structlog

from connectors.sdk.declare import Import
from connectors.sdk.errors import ConfigError, TransientError
from connectors.sdk.exports import LOG_START, ForgottenError
from daemon import settings as settings_module
from daemon.jobs import exports
from daemon.jobs.exports import LoggedEvents, Members
from daemon.jobs.imports import Imports
from daemon.store import differences, import_checkpoints
from daemon.store.collector import Collector
from daemon.store.database import Database
from daemon.store.differences import Differences
from daemon.store.migrate import migrate
from streams.event import Refusal

CONFIG = Import(stream="people")


class Log:
    """The log, and imports into it; `taken` is how far ingest has come with the bulk lane."""

    def __init__(self, database, collector, imports, cursors):
        self.database = database
        self.collector = collector
        self.imports = imports
        self.cursors = cursors

    def rows(self, config=CONFIG, job="job1"):
        return self.imports.rows(job, config, structlog.get_logger())

    async def bodies(self):
        found = await self.database.read(
            lambda db: db.execute("SELECT body FROM event_bulk ORDER BY position").fetchall()
        )
        return [orjson.loads(body) for (body,) in found]

    async def checkpoint(self, job="job1"):
        return await self.database.read(lambda db: import_checkpoints.read(db, job))


@asynccontextmanager
async def opened(folder, **sections):
    settings = settings_module.load(flags={"data_dir": folder} | sections)
    cursors = {"realtime": 0, "bulk": 0}
    async with (
        Database.open(folder / "events.db", prepare=partial(migrate, database="events")) as database,
        Collector.open(database, settings, rules=list, cursors=lambda: cursors, wake=lambda _lane: None) as collector,
    ):
        yield Log(database, collector, Imports(database, collector, settings), cursors)


async def test_rows_and_the_place_behind_them_are_stored_together(tmp_path):
    async with opened(tmp_path) as log, log.rows() as rows:
        before = rows.checkpoint
        emitted = await rows.emit([{"a": "1"}, {"a": "2"}], {"row": 2})

        assert before is None
        assert emitted == (2, 0, 0)
        assert await log.bodies() == [{"a": "1"}, {"a": "2"}]
        assert await log.checkpoint() == {"row": 2}
    async with opened(tmp_path) as log, log.rows() as rows:
        assert rows.checkpoint == {"row": 2}


async def test_where_the_place_cannot_be_written_no_row_is(tmp_path, monkeypatch):
    def fail(*_):
        raise import_checkpoints.sqlite3.OperationalError("disk I/O error")

    async with opened(tmp_path) as log, log.rows() as rows:
        await rows.emit([{"a": "1"}], 1)
        with monkeypatch.context() as patch:
            patch.setattr(import_checkpoints, "save", fail)
            with pytest.raises(TransientError, match="log cannot be written") as caught:
                await rows.emit([{"a": "2"}], 2)

        assert caught.value.retry_after
        assert await log.bodies() == [{"a": "1"}]
        assert await log.checkpoint() == 1


async def test_what_is_handed_over_behind_rows_that_failed_fails_too(tmp_path, monkeypatch):
    def fail(*_):
        raise import_checkpoints.sqlite3.OperationalError("disk I/O error")

    async with opened(tmp_path) as log:
        async with log.rows() as rows:
            await rows.emit([{"a": "1"}], 1)
            hold = threading.Event()
            standing = asyncio.ensure_future(log.database.write(lambda _db: hold.wait(20)))
            with monkeypatch.context() as patch:
                patch.setattr(import_checkpoints, "save", fail)
                under_way = [await rows.hand_over([{"a": str(n)}], n) for n in (2, 3, 4)]
                hold.set()
                await standing
                for each in under_way:
                    with pytest.raises(TransientError, match="log cannot be written"):
                        await each
            monkeypatch.setattr(log.collector._health, "failed", None)  # it can be written again
            with pytest.raises(TransientError):
                await rows.hand_over([{"a": "5"}], 5)
            with pytest.raises(TransientError):
                await rows.save(6)
        async with log.rows() as rows:
            before = rows.checkpoint
            await rows.emit([{"a": "2"}], 2)

        assert before == 1
        assert await log.bodies() == [{"a": "1"}, {"a": "2"}]
        assert await log.checkpoint() == 2


async def test_a_place_alone_is_stored_behind_the_rows_that_are_on_their_way(tmp_path):
    async with opened(tmp_path) as log, log.rows() as rows:
        hold = threading.Event()
        standing = asyncio.ensure_future(log.database.write(lambda _db: hold.wait(20)))
        handed = [await rows.hand_over([{"a": str(n)}], n) for n in range(1, 4)]
        saving = asyncio.ensure_future(rows.save(4))
        await asyncio.wait([saving], timeout=0.05)
        waited = not saving.done()
        hold.set()
        await standing
        await saving

        assert waited
        assert [(await each).accepted for each in handed] == [1, 1, 1]
        assert await log.bodies() == [{"a": "1"}, {"a": "2"}, {"a": "3"}]
        assert await log.checkpoint() == 4


async def test_rows_become_the_same_events_whatever_stands_beside_them(tmp_path):
    plain = [{"a": str(n), "at": f"2026-01-0{n}", "b": 'x "y"\n'} for n in range(1, 4)]
    odd = [
        {"a": "{", "at": "2026-01-05"},
        {"a": ["x"], "at": "2026-01-06"},
        {"a": "1" * 30, "at": "2026-01-07"},
        {"a": "x", "at": "soon"},
        {"a": "\0", "at": "2026-01-08"},
        {"a": "x" * 3000, "at": "2026-01-09"},
        {"a": "_ts", "_id": "i1", "_ts": 1_800_000_000_000, "at": ""},
        {"a": {"b": 1}, "at": None},
        {"a": "\ud800", "at": "2026-01-10"},
    ]
    config = Import(stream="people", timestamp_field="at", fields=("a", "b"))
    asked = "SELECT event_us, event_id, body FROM event_bulk ORDER BY position"
    found = []
    for pieces in ([[row] for row in (*plain, *odd)], [[*plain, *odd]], [plain, odd]):
        folder = tmp_path / str(len(pieces))
        folder.mkdir()
        async with opened(folder) as log, log.rows(config) as rows:
            counted = [await rows.emit(piece, 1) for piece in pieces]
            stored = await log.database.read(lambda db: [tuple(row) for row in db.execute(asked)])
            found.append((sum(each.accepted for each in counted), sum(each.rejected for each in counted), stored))

    assert found[0][:2] == (9, 3)
    assert all(each[:2] == found[0][:2] for each in found)
    timed = [[row for row in stored if row[0] < 1_790_000_000_000_000] for _, _, stored in found]
    assert timed[0] == timed[1] == timed[2]
    assert [[row[2] for row in stored] for _, _, stored in found] == [[row[2] for row in found[0][2]]] * 3


@pytest.mark.parametrize("odd", [{"_id": "i1"}, {"_ts": 1_800_000_000_000}, {"a": "{"}, {"a": "["}, {"a": "x" * 3000}])
async def test_one_odd_row_among_plain_ones_is_what_it_is_alone(tmp_path, odd):
    asked = "SELECT event_us - received_us, event_us, event_id, body FROM event_bulk ORDER BY position"
    found = []
    for pieces in ([[{"a": "1"}, odd]], [[{"a": "1"}], [odd]]):
        folder = tmp_path / str(len(pieces))
        folder.mkdir()
        async with opened(folder) as log, log.rows() as rows:
            for piece in pieces:
                await rows.emit(piece, 1)
            stored = await log.database.read(lambda db: db.execute(asked).fetchall())
            found.append([(each[0] == 0 or each[1], each[2], each[3]) for each in stored])

    assert found[0] == found[1]
    assert found[0][1] == (odd.get("_ts", 0) * 1000 or True, odd.get("_id"), orjson.dumps(odd).decode())


async def test_a_run_that_was_cut_off_is_waited_for_so_that_no_row_comes_twice(tmp_path):
    async with opened(tmp_path) as log:
        hold, held = threading.Event(), threading.Event()

        def stand_still(_db):
            held.set()
            hold.wait(20)

        standing = asyncio.ensure_future(log.database.write(stand_still))
        async with log.rows() as rows:
            while not held.is_set():
                await asyncio.sleep(0)
            emitting = asyncio.ensure_future(rows.emit([{"a": "1"}], 1))
            while not log.imports._under_way:
                await asyncio.sleep(0)
            emitting.cancel()
            await asyncio.wait([emitting])

        async def next_run():
            async with log.rows() as rows:
                return rows.checkpoint

        following = asyncio.ensure_future(next_run())
        await asyncio.wait([following], timeout=0.05)
        waited = not following.done()
        hold.set()

        assert await following == 1
        assert waited
        assert await log.bodies() == [{"a": "1"}]
        await standing


async def test_a_run_that_was_given_up_can_hand_nothing_over_any_more(tmp_path):
    async with opened(tmp_path) as log, log.rows() as old, log.rows() as new:
        await new.emit([{"a": "1"}], 1)

        with pytest.raises(RuntimeError, match="given up"):
            await old.emit([{"a": "1"}], 1)
        with pytest.raises(RuntimeError, match="given up"):
            await old.save(0)
        assert await log.bodies() == [{"a": "1"}]


async def test_rows_wait_while_the_lane_is_full_and_none_is_dropped(tmp_path):
    async with opened(tmp_path, collect={"bulk_backlog_events": 2}) as log, log.rows() as rows:
        await rows.emit([{"n": 1}, {"n": 2}], 1)
        emitting = asyncio.ensure_future(rows.emit([{"n": 3}], 2))
        await asyncio.wait([emitting], timeout=0.2)
        waited = not emitting.done()
        log.cursors["bulk"] = 2
        await emitting

        assert waited
        assert [each["n"] for each in await log.bodies()] == [1, 2, 3]


async def test_times_and_fields_are_taken_as_configured_and_what_is_refused_is_kept(tmp_path):
    config = Import(stream="people", timestamp_field="at", fields=("name",))
    async with opened(tmp_path) as log, log.rows(config) as rows:
        emitted = await rows.emit(
            [
                {"name": "Ann", "at": "2026-01-31T12:00:00Z", "left": "out", "_id": "1"},
                {"name": "Bob", "at": "yesterday-ish"},
                {"name": "Ann", "at": "2026-01-31T12:00:00Z", "_id": "1"},
            ],
            1,
            lines=[2, 3, 4],
            refused=[Refusal(7, "no row at all", "x")],
        )
        found = await log.database.read(lambda db: db.execute("SELECT event_us, body FROM event_bulk").fetchall())
        await log.collector.flush()
        rejects = await log.database.read(lambda db: db.execute("SELECT place, message FROM reject").fetchall())

    assert emitted == (1, 2, 1)
    assert [(at, orjson.loads(body)) for at, body in found] == [(1769860800000000, {"name": "Ann", "_id": "1"})]
    assert [place for place, _ in rejects] == ["line 3", "line 7"]
    assert "'yesterday-ish' is not a time" in rejects[0][1]


async def test_values_of_databases_become_json(tmp_path):
    row = {
        "at": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "naive": datetime(2026, 1, 31, 12),  # noqa: DTZ001  (what a driver gives)
        "day": date(2026, 1, 31),
        "price": Decimal("1.10"),
        "raw": b"\x00\x01",
    }
    async with opened(tmp_path) as log, log.rows(Import(stream="people", timestamp_field="at")) as rows:
        await rows.emit([row], 1)

        assert await log.bodies() == [
            {
                "at": "2026-01-31T12:00:00Z",
                "naive": "2026-01-31T12:00:00Z",
                "day": "2026-01-31",
                "price": "1.10",
                "raw": "AAE=",
            }
        ]


async def test_what_is_kept_of_an_import_goes_with_its_job(tmp_path):
    async with opened(tmp_path) as log:
        async with log.rows() as rows:
            await rows.emit([{"a": "1"}], 1)
            async with rows.difference("one") as difference:
                await difference.changed([{"a": "1"}])
        path = log.imports.differences_of("job1")
        there = path.exists()
        await log.imports.forget("job1")

        assert there
        assert not list(path.parent.iterdir())
        assert await log.checkpoint() is None


# --- differences


async def changed(rows, name, table, *, complete=True, size=3):
    found = []
    async with rows.difference(name) as difference:
        for at in range(0, len(table), size):
            page = table[at : at + size]
            found += [page[place] for place in await difference.changed(page)]
        if complete:
            await difference.complete()
    return found


async def test_only_rows_that_the_former_import_did_not_have_are_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(differences, "SORTED", 3)
    first = [{"id": str(n), "name": "x"} for n in range(20)]
    second = [{"name": "x", "id": str(n)} for n in range(5, 15)] + [{"id": "7", "name": "y"}]
    third = [*second, {"id": "0", "name": "x"}]
    async with opened(tmp_path) as log, log.rows() as rows:
        assert await changed(rows, "1", first) == first
        assert await changed(rows, "2", second) == second[-1:]
        assert await changed(rows, "3", third) == third[-1:]
        assert await changed(rows, "4", third) == []


async def test_an_import_that_was_broken_off_is_compared_with_the_last_whole_one(tmp_path):
    first = [{"id": str(n)} for n in range(10)]
    second = [{"id": str(n)} for n in range(5, 12)]
    async with opened(tmp_path) as log, log.rows() as rows:
        await changed(rows, "1", first)
        await changed(rows, "2", second[:6], complete=False)

        assert await changed(rows, "2", second[3:]) == second[5:]  # it goes on, somewhat before where it was
        assert await changed(rows, "2", []) == []  # completed again after a crash between that and its note
        assert await changed(rows, "3", second) == []
        assert await changed(rows, "4", first) == first[:5]


async def test_only_what_is_imported_of_a_row_is_compared(tmp_path):
    config = Import(stream="people", fields=("name",), timestamp_field="at")
    table = [{"name": "Ann", "at": "1", "note": "a"}]
    async with opened(tmp_path) as log, log.rows(config) as rows:
        await changed(rows, "1", table)

        assert await changed(rows, "2", [table[0] | {"note": "b"}]) == []
        assert await changed(rows, "3", [table[0] | {"at": "2"}]) != []


async def test_a_crash_while_an_import_is_completed_leaves_the_one_or_the_other(tmp_path, monkeypatch):
    path = tmp_path / "d.db"

    def hashes(*numbers):
        return b"".join(number.to_bytes(differences.HASH_BYTES, "little") for number in numbers)

    def crash(*_args, **_options):
        raise RuntimeError("cut off")

    async with Differences.open(path, "1") as first:
        await first.unseen(lambda: hashes(1, 2, 3))
        await first.complete()
    with monkeypatch.context() as patch:
        patch.setattr(differences, "_swap", crash)
        async with Differences.open(path, "2") as second:
            await second.unseen(lambda: hashes(3, 4))
            with pytest.raises(RuntimeError):
                await second.complete()
    async with Differences.open(path, "2") as second:
        again = await second.unseen(lambda: hashes(3, 4))
        await second.complete()
    async with Differences.open(path, "3") as third:
        found = await third.unseen(lambda: hashes(1, 3, 4, 5))

    assert again == [1]
    assert found == [0, 3]


# --- members

QUERY = "SELECT email(email) AS email, tonumber(n) AS n FROM people INTO user BY email ALIAS people"
BIG = "FILTER n > 10 ALIAS big"
ODD = "FILTER n IN (11, 13, 3) ALIAS odd"


async def settled(daemon):
    services = daemon.daemon.services
    async with asyncio.timeout(20):
        while services.collector.lag("realtime") or services.collector.lag("bulk"):
            await asyncio.sleep(0.01)


async def put(daemon, **numbers):
    events = [{"email": f"{name}@example.org", "n": number} for name, number in numbers.items()]
    await daemon.post("/collect/json/people", events, ok=True)
    await settled(daemon)


@asynccontextmanager
async def people(open_daemon, folder):
    async with open_daemon(folder) as daemon:
        await daemon.call("POST", "/api/query", data=QUERY, ok=True)
        for text in (BIG, ODD):
            await daemon.call("POST", "/api/segment", data=text, ok=True)
        yield daemon


def source(daemon, *slugs):
    services = daemon.daemon.services
    return Members(services.state, lambda: services.pipeline.definitions, slugs)


async def names(members, moment, after=0):
    pages = [page async for page in members.members(moment, fields=["email"], after=after)]
    return {each.fields["email"].partition("@")[0]: each.audiences for page in pages for each in page}


async def test_members_are_those_of_the_moment_whatever_comes_meanwhile(tmp_path, open_daemon, monkeypatch):
    monkeypatch.setattr(exports, "PAGE_MEMBERS", 2)
    async with people(open_daemon, tmp_path) as daemon:
        await put(daemon, ann=11, bob=12, cid=13, dan=14, eve=1, fay=15, gus=16)
        both = source(daemon, "big", "odd")
        moment = await both.moment()
        before = await names(both, moment)
        reading = both.members(moment, fields=["email"], after=0)
        first = await anext(reading)
        await put(daemon, ann=1, cid=1, eve=11, fay=1)
        await put(daemon, cid=13, fay=11, hal=50)
        await daemon.delete("/api/entity/user/email/gus@example.org", ok=True)
        rest = [each async for page in reading for each in page]
        found = [each.fields["email"].partition("@")[0] for each in [*first, *rest]]
        changes = [
            change async for page in both.changes(moment, await both.moment(), fields=None) for change in page.changes
        ]

    assert before == {
        "ann": ["big", "odd"],
        "bob": ["big"],
        "cid": ["big", "odd"],
        "dan": ["big"],
        "fay": ["big"],
        "gus": ["big"],
    }
    assert found == ["ann", "bob", "cid", "dan", "fay"]
    assert [each.audiences for each in rest if each.fields["email"][:3] in {"cid", "fay"}] == [["big", "odd"], ["big"]]
    told = [(each.fields.get("email", "?")[:3], each.audience, each.event) for each in changes]
    assert told.count(("cid", "big", "exit")) == told.count(("cid", "big", "enter")) == 1
    assert ("eve", "odd", "enter") in told
    assert [each.trigger for each in changes] == sorted({each.trigger for each in changes})


async def test_changes_are_given_up_to_the_moment_and_what_the_log_forgot_is_said(tmp_path, open_daemon):
    async with people(open_daemon, tmp_path) as daemon:
        await put(daemon, ann=20)
        big = source(daemon, "big")
        start = await big.moment()
        await put(daemon, bob=20)
        upto = await big.moment()
        await put(daemon, cid=20)
        found = [each async for page in big.changes(start, upto, fields=["email"]) for each in page.changes]
        await daemon.daemon.services.state.write(lambda db: db.execute("DELETE FROM trigger WHERE id <= ?", (upto,)))

        assert [each.fields for each in found] == [{"email": "bob@example.org"}]
        with pytest.raises(ForgottenError):
            await anext(big.changes(start, upto, fields=None))
        with pytest.raises(ForgottenError):
            await anext(big.members(start, fields=None, after=0))
        with pytest.raises(ConfigError, match="no audience 'gone'"):
            await anext(source(daemon, "gone").members(upto, fields=None, after=0))


async def test_columns_begin_with_what_identifies(tmp_path, open_daemon):
    async with people(open_daemon, tmp_path) as daemon:
        columns = source(daemon, "big").columns()

    assert columns[:2] == ["email", "n"]
    assert len(columns) == len(set(columns))


# --- events


async def test_events_of_both_lanes_come_by_arrival_between_two_places(tmp_path, open_daemon, frozen_clock):
    async with open_daemon(tmp_path) as daemon:
        log = LoggedEvents(daemon.daemon.services.events)
        start = frozen_clock.us
        for number in range(600):
            frozen_clock.us += 1_000_000
            stream = "a" if number % 3 else "b"
            kind = "bulk" if number % 2 else "json"
            headers = {"Content-Type": "application/x-ndjson"}
            await daemon.call("POST", f"/collect/{kind}/{stream}", data=b'{"n":%d}' % number, headers=headers, ok=True)
        end = await log.place()
        await daemon.post("/collect/json/a", {"n": 1000}, ok=True)

        async def read(streams=(), start_us=None, end_us=None, after=LOG_START, upto=end):
            pages = [
                page async for page in log.events(streams, start_us=start_us, end_us=end_us, after=after, upto=upto)
            ]
            return pages, [event.fields["n"] for page in pages for event in page.events]

        pages, everything = await read()
        _, of_b = await read(["b"])
        _, between = await read((), start + 101_000_000, start + 201_000_000)
        middle = next(page.place for page in pages if page.place.realtime > 100)
        done = sum(len(page.events) for page in pages[: [page.place for page in pages].index(middle) + 1])
        _, rest = await read(after=middle)

    assert everything == list(range(600))
    assert of_b == list(range(0, 600, 3))
    assert between == list(range(100, 200))  # the first arrived after one second; from is inclusive, to exclusive
    assert rest == list(range(done, 600))
    assert pages[-1].place == end


async def test_an_erased_event_is_not_exported(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as daemon:
        await daemon.post("/collect/json/a", [{"n": 1}, {"n": 2}], ok=True)
        events = daemon.daemon.services.events
        await events.write(
            lambda db: db.execute("UPDATE event_realtime SET body = '{\"_erased\":true}' WHERE position = 1")
        )
        log = LoggedEvents(events)
        pages = [
            page async for page in log.events([], start_us=None, end_us=None, after=LOG_START, upto=await log.place())
        ]

    assert [event.fields for page in pages for event in page.events] == [{"n": 2}]
