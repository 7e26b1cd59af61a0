"""System events as stored: what happened to jobs, authorizations and the daemon, for the log and for alerts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import orjson

_COLUMNS = "id, uid, at_us, subject, subject_id, verb, body"

ADD = """INSERT INTO system_event (uid, at_us, subject, subject_id, verb, body)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 FROM json_each(?)"""
LAST_ID = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'system_event'), 0)"
WAITING = f"SELECT {_COLUMNS} FROM system_event WHERE forwarded = 0 ORDER BY id LIMIT ?"  # noqa: S608  (a constant)
FORWARDED = "UPDATE system_event SET forwarded = 1 WHERE id IN (SELECT value FROM json_each(?))"
AFTER = f"SELECT {_COLUMNS} FROM system_event WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608  (a constant)
PAGE = f"""SELECT {_COLUMNS} FROM system_event WHERE id < ?1 AND (?2 IS NULL OR subject = ?2)
    AND (?3 IS NULL OR subject_id = ?3) AND (?4 IS NULL OR verb = ?4) AND at_us >= ?5 AND at_us < ?6
    ORDER BY id DESC LIMIT ?7"""  # noqa: S608  (a constant)


class SystemEvent(NamedTuple):
    """What happened: `verb` to the `subject` (job, authorization, daemon) of that id; `body` is JSON text.

    `uid` is its id as an event, the same in repeats.
    """

    id: int
    uid: str
    at_us: int
    subject: str
    subject_id: str
    verb: str
    body: str


def add(db: sqlite3.Connection, events: Sequence[SystemEvent]) -> None:
    """Appends events; their ids are given here."""
    db.execute(ADD, (orjson.dumps([each[1:] for each in events]).decode(),))


def last_id(db: sqlite3.Connection) -> int:
    """Gives the last id that an event has got."""
    return int(db.execute(LAST_ID).fetchone()[0])


def waiting(db: sqlite3.Connection, limit: int) -> list[SystemEvent]:
    """Gives the oldest events that are not in the log yet."""
    return [SystemEvent(*row) for row in db.execute(WAITING, (limit,)).fetchall()]


def forwarded(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Notes that events are in the log."""
    db.execute(FORWARDED, (orjson.dumps(list(ids)).decode(),))


def after(db: sqlite3.Connection, position: int, limit: int) -> list[SystemEvent]:
    """Gives events with ids after `position`, in their order."""
    return [SystemEvent(*row) for row in db.execute(AFTER, (position, limit)).fetchall()]


def page(
    db: sqlite3.Connection,
    *,
    below: int,
    subject: str | None,
    subject_id: str | None,
    verb: str | None,
    after_us: int,
    before_us: int,
    limit: int,
) -> list[SystemEvent]:
    """Gives events with ids below `below`, the newest first."""
    rows = db.execute(PAGE, (below, subject, subject_id, verb, after_us, before_us, limit)).fetchall()
    return [SystemEvent(*row) for row in rows]
