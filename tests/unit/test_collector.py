"""The log: durable together, ids once, bounds, retention, and a disk that is full."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import pytest

from daemon import settings as settings_module
from daemon.store import events as event_log
from daemon.store import log_health
from daemon.store import streams as stream_store
from daemon.store.collector import Collector, NotAcceptedError
from daemon.store.database import Database
from daemon.store.migrate import migrate
from streams.event import Event, Refusal

# Events arrive when the clock, which stands still, says so.
pytestmark = pytest.mark.usefixtures("frozen_clock")

NOW = 1_767_225_600_000_000
DAY = 86_400_000_000


def event(event_id: str | None = None, **data: Any) -> Event:
    return Event(NOW, event_id, orjson.dumps(data).decode(), data)


@dataclass
class Log:
    collector: Collector
    database: Database
    cursors: dict[str, int]
    rules: list[Any]
    woken: list[str] = field(default_factory=list)

    async def add(self, *events: Event, lane: Any = "realtime", stream: str = "web", at: int = NOW) -> int:
        return await self.collector.append(lane, stream, events, at)

    async def rows(self, sql: str, *parameters: object) -> list[Any]:
        return await self.database.read(lambda db: db.execute(sql, parameters).fetchall())

    async def bodies(self, lane: str = "realtime") -> list[str]:
        return [body for (body,) in await self.rows(f"SELECT body FROM event_{lane} ORDER BY position")]


@asynccontextmanager
async def opened(folder, **sections):
    settings = settings_module.load(flags={"data_dir": folder} | sections)
    cursors = {"realtime": 0, "bulk": 0}
    rules: list[Any] = []
    woken: list[str] = []
    async with (
        Database.open(folder / "events.db", prepare=partial(migrate, database="events")) as database,
        Collector.open(
            database, settings, rules=lambda: rules, cursors=lambda: cursors, wake=woken.append
        ) as collector,
    ):
        yield Log(collector, database, cursors, rules, woken)


async def test_what_is_answered_is_in_the_log_in_order_and_ingest_is_woken(tmp_path):
    async with opened(tmp_path) as log:
        await asyncio.gather(*(log.add(event(n=number)) for number in range(200)))

        assert await log.bodies() == [f'{{"n":{number}}}' for number in range(200)]
        assert set(log.woken) == {"realtime"}
        assert log.collector.lag("realtime") == 200
        assert log.collector.lag("bulk") == 0


async def test_requests_of_a_moment_share_a_transaction(tmp_path, monkeypatch):
    groups = []
    append = event_log.append
    monkeypatch.setattr(
        event_log, "append", lambda db, lane, batches, us: groups.append(len(batches)) or append(db, lane, batches, us)
    )
    async with opened(tmp_path) as log:
        await asyncio.gather(*(log.add(event(n=number)) for number in range(200)))

    assert sum(groups) == 200
    assert len(groups) <= 2


@pytest.mark.parametrize("size", [1, 63, 64, 65, 600, 1300])
async def test_any_number_of_events_is_appended_whole(tmp_path, size):
    async with opened(tmp_path) as log:
        await log.add(*(event(n=number) for number in range(size)), lane="bulk")

        assert await log.bodies("bulk") == [f'{{"n":{number}}}' for number in range(size)]
        assert log.collector.lag("bulk") == size


async def test_positions_go_on_after_a_restart_also_when_the_log_is_empty(tmp_path):
    async with opened(tmp_path) as log:
        await log.add(event(), event())
        await log.database.write(lambda db: db.execute("DELETE FROM event_realtime"))
    async with opened(tmp_path) as log:
        log.cursors["realtime"] = 2
        assert log.collector.lag("realtime") == 0
        await log.add(event())

        assert await log.rows("SELECT position FROM event_realtime") == [(3,)]
        assert log.collector.lag("realtime") == 1


async def test_an_id_counts_once_a_stream_in_one_request_and_over_many(tmp_path):
    async with opened(tmp_path) as log:
        first = await log.add(event("a", n=1), event("a", n=2), event("b", n=3), event(None, n=4))
        second = await asyncio.gather(log.add(event("b", n=5)), log.add(event("c", n=6)), log.add(event("c", n=7)))
        other = await log.add(event("a", n=8), stream="app")

        assert (first, list(second), other) == (1, [1, 0, 1], 0)
        assert [orjson.loads(body)["n"] for body in await log.bodies()] == [1, 3, 4, 6, 8]


async def test_an_id_is_forgotten_when_its_window_is_over(tmp_path, frozen_clock):
    async with opened(tmp_path, collect={"dedup_days": 7}) as log:
        frozen_clock.us = NOW
        await log.add(event("a"), at=NOW)
        frozen_clock.us = NOW + 7 * DAY - 1
        within = await log.add(event("a"), at=frozen_clock.us)
        frozen_clock.us = NOW + 7 * DAY
        after = await log.add(event("a"), at=frozen_clock.us)
        again = await log.add(event("a"), at=frozen_clock.us)

    assert (within, after, again) == (1, 0, 1)


async def test_ids_of_any_text_are_kept_apart(tmp_path):
    ids = ["1", "01", "1.0", "A", "a", "é", "e\u0301", '"', "'", "\\", "null", " ", "\u2028", "😀"]
    async with opened(tmp_path) as log:
        first = await log.add(*(event(each) for each in ids))
        second = await log.add(*(event(each) for each in ids))

    assert (first, second) == (0, len(ids))


async def test_rules_move_events_to_other_streams(tmp_path):
    class Rule:
        id, name, priority, input, output, expression, active = 1, "r", 0, "web", "vip", 'plan == "pro"', 1

    async with opened(tmp_path) as log:
        log.rules.append(Rule())
        log.collector._rules = lambda: tuple(log.rules)
        await log.add(event("a", plan="pro"), event("b", plan="free"))
        repeated = await log.add(event("a", plan="pro"))
        await log.collector.flush()

        assert await log.rows("SELECT stream, event_id FROM event_realtime ORDER BY position") == [
            ("vip", "a"),
            ("web", "b"),
        ]
        assert repeated == 1
        assert {name for (name,) in await log.rows("SELECT name FROM stream WHERE events > 0")} >= {"vip", "web"}


async def test_a_lane_beyond_its_bound_takes_nothing_until_ingest_has_caught_up(tmp_path):
    async with opened(tmp_path, collect={"backlog_events": 3, "bulk_backlog_events": 2}) as log:
        await log.add(event(), event(), event())
        await log.add(event(), event(), lane="bulk")
        with pytest.raises(NotAcceptedError) as realtime:
            log.collector.admit("realtime")
        with pytest.raises(NotAcceptedError) as bulk:
            log.collector.admit("bulk")
        waiting = asyncio.ensure_future(log.collector.room("bulk"))
        log.cursors.update(realtime=1, bulk=1)
        await waiting
        log.collector.admit("realtime")
        log.collector.admit("bulk")

    assert realtime.value.behind
    assert bulk.value.behind
    assert realtime.value.retry_after_s > 0


async def test_what_waits_for_the_disk_is_bounded(tmp_path):
    async with opened(tmp_path, collect={"waiting_bytes": 1024}) as log:
        taken = [log.collector.append("realtime", "web", [event(text="x" * 600)], NOW) for _ in range(2)]
        with pytest.raises(NotAcceptedError) as refused:
            log.collector.append("realtime", "web", [event()], NOW)
        await asyncio.gather(*taken)
        await log.add(event())

    assert refused.value.behind


async def test_what_was_taken_is_committed_at_the_stop_and_what_comes_is_refused(tmp_path):
    async with opened(tmp_path) as log:
        taken = [log.collector.append("realtime", "web", [event(n=number)], NOW) for number in range(50)]
    with pytest.raises(NotAcceptedError) as refused:
        log.collector.append("realtime", "web", [event()], NOW)

    assert [done.result() for done in taken] == [0] * 50
    assert not refused.value.behind
    with sqlite3.connect(tmp_path / "events.db") as db:
        assert db.execute("SELECT count(*) FROM event_realtime").fetchone() == (50,)
    db.close()


def _full() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


async def test_on_a_full_disk_nothing_is_lost_the_reserve_is_freed_and_work_goes_on_when_there_is_room(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(log_health, "WATCH_S", 0.02)
    append = event_log.append

    def fail(db, lane, batches, us):
        append(db, lane, batches, us)
        raise _full()

    async with opened(tmp_path) as log:
        reserve = log.collector._reserve
        assert reserve.held
        await log.add(event(n=1))
        room = reserve.room_bytes
        monkeypatch.setattr(reserve, "room_bytes", lambda: 0)
        monkeypatch.setattr(event_log, "append", fail)
        with pytest.raises(NotAcceptedError) as failed:
            await log.add(event("an id", n=2))
        monkeypatch.setattr(event_log, "append", append)
        with pytest.raises(NotAcceptedError) as refused:
            await log.add(event(n=3))
        held_when_full = reserve.held
        monkeypatch.setattr(reserve, "room_bytes", room)
        async with asyncio.timeout(10):
            while log.collector.trouble:
                await asyncio.sleep(0.01)
        await log.add(event(n=4))

        assert not failed.value.behind
        assert not refused.value.behind
        assert "full" in str(refused.value)
        assert not held_when_full
        assert reserve.held
        assert await log.bodies() == ['{"n":1}', '{"n":4}']


async def test_collection_stops_before_the_last_of_the_disk_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(log_health, "WATCH_S", 0.02)
    async with opened(tmp_path) as log:
        room = log.collector._reserve.room_bytes
        monkeypatch.setattr(log.collector._reserve, "room_bytes", lambda: 1000)
        async with asyncio.timeout(10):
            while not log.collector.trouble:
                await asyncio.sleep(0.01)
        with pytest.raises(NotAcceptedError):
            log.collector.admit("realtime")
        assert log.collector._reserve.held
        monkeypatch.setattr(log.collector._reserve, "room_bytes", room)
        async with asyncio.timeout(10):
            while log.collector.trouble:
                await asyncio.sleep(0.01)
        log.collector.admit("realtime")


async def test_an_error_of_the_disk_is_told_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(log_health, "WATCH_S", 0.02)
    append = event_log.append

    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    async with opened(tmp_path) as log:
        monkeypatch.setattr(event_log, "append", fail)
        results = await asyncio.gather(*(log.add(event()) for _ in range(5)), return_exceptions=True)
        monkeypatch.setattr(event_log, "append", append)
        assert all(isinstance(each, NotAcceptedError) for each in results)
        assert log.collector._reserve.held
        async with asyncio.timeout(10):
            while log.collector.trouble:
                await asyncio.sleep(0.01)
        assert await log.add(event()) == 0


async def test_counts_fields_and_rejects_of_streams(tmp_path):
    async with opened(tmp_path) as log:
        await log.add(event("a", email="x", page={"path": "/", "n": None}, tags=["a"]))
        await log.add(event("a", email=3))
        log.collector.refuse("web", "index", [Refusal(3, "why", "sample")], "r1")
        log.collector.refuse("web", "", [Refusal(0, "no JSON", "")], "r2")
        await log.collector.flush()

        stream = await log.database.read(lambda db: stream_store.stream(db, "web"))
        fields = await log.database.read(lambda db: stream_store.fields(db, "web"))
        rejects = await log.database.read(lambda db: stream_store.rejects(db, "web", 1 << 60, 10))
        recent = await log.database.read(lambda db: stream_store.recent(db, "web", 10))

    assert (stream.events, stream.duplicates, stream.rejects) == (1, 1, 2)
    assert [(each.field, each.kind) for each in fields] == [
        ("email", "string"),
        ("page.n", "null"),
        ("page.path", "string"),
        ("tags", "list"),
    ]
    assert [(each.place, each.message, each.request_id) for each in rejects] == [
        ("body", "no JSON", "r2"),
        ("index 3", "why", "r1"),
    ]
    assert recent[0].body == {"email": "x", "page": {"path": "/", "n": None}, "tags": ["a"]}


async def test_rejects_and_field_names_are_bounded(tmp_path):
    async with opened(tmp_path, retention={"rejects": 20}, collect={"stream_fields": 50}) as log:
        for start in range(0, 10_000, 100):
            await log.add(event(**{f"f{number}": 1 for number in range(start, start + 100)}))
            log.collector.refuse("web", "index", [Refusal(n, "why", "s") for n in range(30)], "r")
            await log.collector.flush()

        assert await log.rows("SELECT count(*) FROM stream_field") == [(50,)]
        assert await log.rows("SELECT count(*) FROM reject") == [(20,)]
        assert await log.rows("SELECT rejects, events FROM stream") == [(3000, 100)]


async def test_streams_are_bounded(tmp_path):
    async with opened(tmp_path, collect={"streams": 2}) as log:
        await log.add(event(), stream="a")
        await log.add(event(), stream="b")
        with pytest.raises(NotAcceptedError):
            log.collector.append("realtime", "c", [event()], NOW)
        await log.add(event(), stream="a")


async def test_retention_goes_by_arrival_and_never_passes_ingest(tmp_path, frozen_clock):
    async with opened(tmp_path, retention={"events_days": 1}) as log:
        for number in range(6):
            await log.add(event(n=number), at=NOW + number * DAY // 2)
        frozen_clock.us = NOW + 3 * DAY
        log.cursors["realtime"] = 3
        await log.collector._retain()
        held_back = await log.bodies()
        log.cursors["realtime"] = 6
        await log.collector._retain()

        assert held_back == ['{"n":3}', '{"n":4}', '{"n":5}']
        assert await log.bodies() == ['{"n":4}', '{"n":5}']


async def test_old_ids_and_rejects_are_purged(tmp_path, frozen_clock):
    async with opened(tmp_path, collect={"dedup_days": 1}, retention={"rejects_days": 1}) as log:
        frozen_clock.us = NOW
        await log.add(event("old"), at=NOW)
        log.collector.refuse("web", "", [Refusal(0, "old", "")], "r")
        await log.collector.flush()
        frozen_clock.us = NOW + DAY + 1
        await log.add(event("new"), at=frozen_clock.us)
        log.collector.refuse("web", "", [Refusal(0, "new", "")], "r")
        await log.collector.flush()
        await log.collector._retain()

        assert await log.rows("SELECT event_id FROM event_key") == [("new",)]
        assert await log.rows("SELECT message FROM reject") == [("new",)]
