"""Authorizations as stored: pages, status, counts with bounds, and what of it goes together."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from daemon.model.authorization import DAY_US, HOUR_US, KEPT, Health, Unit, next_check, start_of
from daemon.store import auths, jobs
from daemon.store.auths import AuthRow, SecretRow
from daemon.store.database import prepare_connection
from daemon.store.migrate import migrate

NOW_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z, a Thursday


@pytest.fixture
def db():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        prepare_connection(db)
        migrate(db, "state")
        yield db


def put(db, auth_id, *, provider="p", method="m", status=Health.HEALTHY, at=NOW_US, key="aa", due=NOW_US + DAY_US):
    row = AuthRow(auth_id, provider, method, "", "", "{}", "t", status, "", at, at, due, None, at, at)
    auths.insert(db, row, [SecretRow(auth_id, "password", key, b"sealed", None)])
    return row


def test_pages_hold_everything_once_and_say_how_many_there_are(db):
    for number in range(7):
        put(db, f"{number}", provider="ab"[number % 2], at=NOW_US + number // 3)  # several of one moment

    found, after = [], (-1, "")
    while True:
        rows, total = auths.page(db, ["aa"], after=after, limit=2)
        found += rows
        if len(rows) < 2:
            break
        after = rows[-1].created_us, rows[-1].id

    assert (["0", "1", "2", "3", "4", "5", "6"], 7) == ([each.id for each in found], total)
    assert 4 == auths.page(db, ["aa"], provider="a")[1]
    assert ([], 0) == auths.page(db, ["aa"], provider="a", method="other")


def test_what_is_sealed_with_another_key_is_unknown_and_names_it(db):
    put(db, "1")
    put(db, "2", key="bb")
    auths.insert(
        db,
        put(db, "3")._replace(id="4"),
        [SecretRow("4", "x", None, None, "env:X"), SecretRow("4", "y", "aa", b"", None)],
    )

    rows, _ = auths.page(db, ["aa", "cc"])

    seen = [("1", Health.HEALTHY, None), ("2", Health.UNKNOWN, "bb"), ("3", Health.HEALTHY, None),
            ("4", Health.HEALTHY, None)]  # fmt: skip
    assert seen == [(each.id, each.status, each.locked) for each in rows]
    assert ["2"] == [each.id for each in auths.page(db, ["aa"], status="unknown")[0]]
    assert [(Health.UNKNOWN, "aa")] * 2 == [
        (row.status, row.locked) for row in (auths.one(db, "4", []), auths.one(db, "4", ["bb"]))
    ]


def test_a_secret_is_sealed_or_by_reference_never_both_nor_neither(db):
    put(db, "1")
    for key, sealed, reference in ((None, None, None), ("aa", b"x", "env:X"), (None, b"x", None), ("aa", None, None)):
        with pytest.raises(sqlite3.IntegrityError, match="sealed_or_by_reference"):
            db.execute(auths.INSERT_FIELD, ("1", "other", key, sealed, reference))


def test_a_status_tells_what_it_was_and_since_when_it_is(db):
    put(db, "1")

    assert Health.HEALTHY is auths.set_status(db, "1", Health.UNHEALTHY, "no", NOW_US + 1, NOW_US + 9)
    assert Health.UNHEALTHY is auths.set_status(db, "1", Health.UNHEALTHY, "still no", NOW_US + 2)
    assert None is auths.set_status(db, "2", Health.HEALTHY, "", NOW_US)
    row = auths.one(db, "1", ["aa"])
    assert ("still no", NOW_US + 1, NOW_US + 2, NOW_US + 9) == row[8:12]


def test_what_is_due_is_found_also_after_the_clock_was_set_back(db):
    put(db, "later", due=NOW_US + HOUR_US)
    put(db, "now", due=NOW_US)
    put(db, "odd", due=NOW_US + 30 * DAY_US)

    assert ["now", "odd"] == auths.due(db, NOW_US, DAY_US, 10)
    assert ["now"] == auths.due(db, NOW_US, DAY_US, 1)


def test_requests_are_counted_by_hour_day_and_week_and_the_old_ones_go(db):
    put(db, "1")
    put(db, "2")
    auths.count(db, {"1": 2, "gone": 5}, {"1": NOW_US}, {}, NOW_US)
    auths.count(db, {"1": 3}, {"1": NOW_US - 1}, {}, NOW_US + HOUR_US)

    monday_us = NOW_US - 3 * DAY_US
    expected = {
        Unit.HOUR: [(NOW_US, 2), (NOW_US + HOUR_US, 3)],
        Unit.DAY: [(NOW_US, 5)],
        Unit.WEEK: [(monday_us, 5)],
    }
    assert expected == auths.counts(db, "1")
    assert (NOW_US, None) == tuple(auths.one(db, each, ["aa"]).used_us for each in "12")

    for hour in range(0, 24 * 900, 5):
        auths.count(db, {"1": 1}, {}, {}, NOW_US + hour * HOUR_US)
    kept = {unit: len(rows) for unit, rows in auths.counts(db, "1").items()}
    assert all(0 < kept[unit] <= KEPT[unit] for unit in Unit), kept
    assert KEPT[Unit.WEEK] == kept[Unit.WEEK]


def test_weeks_begin_on_monday_also_before_the_epoch():
    assert 4 * DAY_US == start_of(Unit.WEEK, 4 * DAY_US) == start_of(Unit.WEEK, 11 * DAY_US - 1)
    assert -3 * DAY_US == start_of(Unit.WEEK, 0)
    assert 23 * HOUR_US == start_of(Unit.HOUR, DAY_US - 1)


def test_checks_are_spread_about_their_time():
    due = [next_check(0, 86_400, 0.1, chance) for chance in (0.0, 0.5, 1.0)]

    assert [round(DAY_US * part) for part in (0.9, 1.0, 1.1)] == due


def test_deleting_takes_secrets_and_counts_along(db):
    put(db, "1")
    auths.count(db, {"1": 1}, {}, {}, NOW_US)
    jobs.insert(db, jobs.NewJob("j", "t", "", "", "1", "{}", "", None, None, None), NOW_US)

    assert [("j", "running")] == [(each.id, each.state) for each in auths.holders(db, "1", 5)]
    assert {"1": {"running": 1}, "2": {}} == auths.job_counts(db, ["1", "2"])
    assert auths.delete(db, "1")
    assert not auths.delete(db, "1")
    assert [(0,), (0,)] == [
        db.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("auth_secret", "auth_count")
    ]


def test_a_row_is_sealed_anew_only_while_it_is_what_was_read(db):
    for number in range(3):
        put(db, str(number), key="ab"[number % 2] * 2)

    (old,) = auths.under_other_keys(db, "aa", ("", ""), 10)
    assert ("1", "bb") == (old.auth_id, old.key_id)
    assert 0 == auths.reseal(db, [(old._replace(sealed=b"other"), "aa", b"new")])
    assert 1 == auths.reseal(db, [(old, "aa", b"new")])
    assert {"aa": 3} == auths.keys_used(db)
