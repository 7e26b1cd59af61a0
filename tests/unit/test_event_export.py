"""Pages of the log as exports read it: all events, in order, and no page too large, however large events are."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import orjson
import pytest

from daemon.store import event_export, migrate
from daemon.store.event_export import MOST_BYTES, PAGE_EVENTS, Wanted


@pytest.fixture
def db():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as found:
        migrate.migrate(found, "events")
        yield found


def store(db, *sizes):
    for size in sizes:
        body = orjson.dumps({"text": "x" * size}).decode()
        db.execute("INSERT INTO event_bulk (received_us, stream, event_us, body) VALUES (1, 'a', 1, ?)", (body,))


def pages(db, wanted=Wanted()):  # noqa: B008  (immutable)
    (upto,) = db.execute("SELECT max(position) FROM event_bulk").fetchone()
    after, limit = 0, 32
    while after < upto:
        page = event_export.read(db, "bulk", wanted, after, upto, limit)
        yield page.rows
        after, limit = page.read_to, page.next_limit


def test_all_events_come_once_in_pages_that_grow_with_small_events(db):
    store(db, *([10] * 5000))
    found = list(pages(db))

    assert [row[0] for rows in found for row in rows] == list(range(1, 5001))
    assert max(map(len, found)) == PAGE_EVENTS


def test_a_page_is_bounded_also_where_events_are_suddenly_a_thousand_times_as_large(db):
    sizes = [10] * 2000 + [200_000] * 100 + [3_000_000] * 2 + [10] * 100
    store(db, *sizes)
    found = list(pages(db))

    assert [len(row[4]["text"]) for rows in found for row in rows] == sizes
    assert all(sum(len(row[4]["text"]) for row in rows) <= MOST_BYTES or len(rows) == 1 for rows in found)
    assert max(map(len, found)) == PAGE_EVENTS


def test_streams_that_are_not_wanted_are_passed_over(db):
    store(db, *([10] * 300))
    assert list(pages(db, Wanted(("b",)))) == [[]]
