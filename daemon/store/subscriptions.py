"""Subscriptions as stored: a filter over the trigger log, and how far it is done with."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from daemon.model.subscription import Ahead, Events, Wanted
from daemon.store import trigger_log

_COLUMNS = """s.id, s.job_id, s.audiences, s.events, s.position, s.backfill_trigger, s.backfill_profile, s.ahead,
    s.added, s.removed, s.omitted, s.failed, s.skipped, s.created_us, s.acked_us"""

AUDIENCES = "SELECT slug, number FROM audience WHERE deleted_us IS NULL AND slug IN (SELECT value FROM json_each(?))"
INSERT = """INSERT INTO subscription (id, job_id, audiences, events, position, backfill_trigger, created_us)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
ALL = f"SELECT {_COLUMNS} FROM subscription AS s ORDER BY s.created_us, s.id"  # noqa: S608  (a constant)
ONE = f"SELECT {_COLUMNS} FROM subscription AS s WHERE s.id = ?"  # noqa: S608  (a constant)
OF_JOB = f"SELECT {_COLUMNS} FROM subscription AS s WHERE s.job_id = ?"  # noqa: S608  (a constant)
LIVE = f"""SELECT {_COLUMNS} FROM subscription AS s JOIN job AS j ON j.id = s.job_id
    WHERE j.state <> 'completed' ORDER BY s.created_us, s.id"""  # noqa: S608  (a constant)
MOVE = """UPDATE subscription SET position = ?, backfill_trigger = ?, backfill_profile = ?, ahead = ?, added = ?,
    removed = ?, omitted = ?, failed = ?, skipped = ?, acked_us = ? WHERE id = ?"""


class UnknownAudienceError(LookupError):
    """A subscription names audiences that do not exist; `slugs` has them."""

    def __init__(self, slugs: Sequence[str]) -> None:
        super().__init__(f"there is no audience {', '.join(map(repr, slugs))}")
        self.slugs = slugs


class Progress(NamedTuple):
    """How far a subscription is done with, and what became of its triggers."""

    position: int
    backfill_trigger: int | None
    backfill_profile: int
    ahead: Ahead
    added: int = 0
    removed: int = 0
    omitted: int = 0
    failed: int = 0
    skipped: int = 0
    acked_us: int | None = None


class SubscriptionRow(NamedTuple):
    """A stored subscription."""

    id: str
    job_id: str
    wanted: Wanted
    created_us: int
    progress: Progress


def begin(
    db: sqlite3.Connection,
    subscription_id: str,
    job_id: str,
    slugs: Sequence[str],
    events: Events,
    *,
    existing: bool,
    now_us: int,
) -> SubscriptionRow:
    """Makes a subscription that begins behind the last trigger; with `existing`, it backfills the members until then.

    Raises UnknownAudienceError. Exits alone have no backfill: members are enters.
    """
    numbers = audience_numbers(db, slugs)
    position = trigger_log.head(db)
    backfill = position if existing and events is not Events.EXITS else None
    audiences = orjson.dumps(sorted(numbers.values())).decode()
    db.execute(INSERT, (subscription_id, job_id, audiences, events, position, backfill, now_us))
    wanted = Wanted(frozenset(numbers.values()), events)
    return SubscriptionRow(subscription_id, job_id, wanted, now_us, Progress(position, backfill, 0, Ahead()))


def audience_numbers(db: sqlite3.Connection, slugs: Sequence[str]) -> dict[str, int]:
    """Gives the numbers of audiences by their slugs. Raises UnknownAudienceError."""
    numbers = dict(db.execute(AUDIENCES, (orjson.dumps(list(slugs)).decode(),)).fetchall())
    unknown = [slug for slug in slugs if slug not in numbers]
    if unknown:
        raise UnknownAudienceError(unknown)
    return numbers


def every(db: sqlite3.Connection) -> list[SubscriptionRow]:
    """Gives all subscriptions in the order of their making."""
    return [_row(row) for row in db.execute(ALL).fetchall()]


def one(db: sqlite3.Connection, subscription_id: str) -> SubscriptionRow | None:
    """Gives a subscription, None when there is none."""
    row = db.execute(ONE, (subscription_id,)).fetchone()
    return _row(row) if row is not None else None


def of_job(db: sqlite3.Connection, job_id: str) -> SubscriptionRow | None:
    """Gives a job's subscription, None when there is none."""
    row = db.execute(OF_JOB, (job_id,)).fetchone()
    return _row(row) if row is not None else None


def live(db: sqlite3.Connection) -> list[SubscriptionRow]:
    """Gives the subscriptions of jobs that are not completed."""
    return [_row(row) for row in db.execute(LIVE).fetchall()]


def move(db: sqlite3.Connection, progress: Iterable[tuple[str, Progress]]) -> None:
    """Stores how far subscriptions are, by id. One that is no more is passed over."""
    for subscription_id, done in progress:
        db.execute(MOVE, (*done[:3], done.ahead.dump(), *done[4:], subscription_id))


def _row(row: tuple[Any, ...]) -> SubscriptionRow:
    wanted = Wanted(frozenset(orjson.loads(row[2])), Events(row[3]))
    position, backfill_trigger, backfill_profile, ahead, *counts, created_us, acked_us = row[4:]
    progress = Progress._make((position, backfill_trigger, backfill_profile, Ahead.load(ahead), *counts, acked_us))
    return SubscriptionRow(row[0], row[1], wanted, created_us, progress)
