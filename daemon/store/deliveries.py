"""Deliveries as stored: one row an attempt, with its messages; and messages that are asked for again.

Attempts are written in the transaction that moves their subscription's cursor: whatever a cursor has passed since the
journal began has its row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import orjson

Outcome: TypeAlias = Literal["delivered", "omitted", "failed"]

_COLUMNS: Final = """d.id, d.job_id, d.run_id, d.at_us, d.outcome, d.attempt, d.receiver, d.bytes, d.status, d.answer,
    d.messages, d.again, d.sample"""

LAST_ID = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'delivery'), 0)"
ADD = """INSERT INTO delivery (id, job_id, run_id, at_us, outcome, attempt, receiver, bytes, status, answer, messages,
        again, sample)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8,
        value->>9, value->>10, value->>11, value->>12 FROM json_each(?)"""
ADD_MESSAGES = """INSERT INTO delivery_message (delivery, profile_id, first_id, last_id)
    SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?)"""
PAGE = f"""SELECT {_COLUMNS} FROM delivery AS d WHERE d.job_id = ?1 AND d.id < ?2
    AND d.at_us >= ?3 AND d.at_us < ?4 AND (?6 IS NULL OR d.outcome IN (SELECT value FROM json_each(?6)))
    ORDER BY d.id DESC LIMIT ?5"""  # noqa: S608  (a constant)
PAGE_TROUBLED = f"""SELECT {_COLUMNS} FROM delivery AS d WHERE d.job_id = ?1 AND d.id < ?2 AND d.outcome <> 'delivered'
    AND d.at_us >= ?3 AND d.at_us < ?4 AND d.outcome IN (SELECT value FROM json_each(?6))
    ORDER BY d.id DESC LIMIT ?5"""  # noqa: S608  (a constant)
MESSAGES = """SELECT profile_id, first_id, last_id FROM delivery_message WHERE delivery = ? ORDER BY id LIMIT ?"""
ONE = f"SELECT {_COLUMNS} FROM delivery AS d WHERE d.id = ? AND d.job_id = ?"  # noqa: S608  (a constant)
OF_PERSON = f"""SELECT {_COLUMNS}, m.profile_id, m.first_id, m.last_id FROM delivery_message AS m
    JOIN delivery AS d ON d.id = m.delivery WHERE m.profile_id = ?1 AND d.job_id = ?2 AND m.id < ?4
    ORDER BY m.id DESC LIMIT ?3"""  # noqa: S608  (a constant)

# The newest attempt that is too old or beyond the number of messages kept: all up to it may go.
TOO_OLD = "SELECT id FROM delivery WHERE at_us >= ? ORDER BY id LIMIT 1"
TOO_MANY = "SELECT delivery FROM delivery_message WHERE id <= (SELECT max(id) FROM delivery_message) - ? ORDER BY id DESC LIMIT 1"  # noqa: E501
FORGET_MESSAGES = """DELETE FROM delivery_message WHERE id IN (SELECT id FROM delivery_message ORDER BY id LIMIT ?2)
    AND delivery <= ?1"""
FORGET = "DELETE FROM delivery WHERE id IN (SELECT id FROM delivery ORDER BY id LIMIT ?2) AND id <= ?1"

# Of people who were erased.
FORGET_SAMPLES = """UPDATE delivery SET sample = NULL, answer = '' WHERE (sample IS NOT NULL OR answer <> '') AND id IN
    (SELECT delivery FROM delivery_message WHERE profile_id IN (SELECT value FROM json_each(?)))"""
ANSWERS_AFTER = """SELECT id, answer || ' ' || coalesce(sample, '') FROM delivery WHERE id > ? ORDER BY id LIMIT 2000"""
BLANK = "UPDATE delivery SET sample = NULL, answer = '' WHERE id IN (SELECT value FROM json_each(?))"

#: Messages of one attempt that are given with it.
SHOWN: Final = 100


class Delivery(NamedTuple):
    """An attempt; times in microseconds since the epoch, `sample` is JSON text."""

    id: int
    job_id: str
    run_id: str
    at_us: int
    outcome: Outcome
    attempt: int
    receiver: str
    bytes: int
    status: int | None
    answer: str
    messages: int
    again: int
    sample: str | None


class Sent(NamedTuple):
    """A message of an attempt: whose, and its first and last trigger id."""

    profile_id: int
    first_id: int
    last_id: int


def last_id(db: sqlite3.Connection) -> int:
    """Gives the last id that an attempt has got."""
    return int(db.execute(LAST_ID).fetchone()[0])


def add(db: sqlite3.Connection, rows: Sequence[Sequence[object]], messages: Sequence[Sequence[int]]) -> None:
    """Appends attempts (columns as in `Delivery`), and messages: (attempt, profile, first id, last id)."""
    db.execute(ADD, (orjson.dumps(rows).decode(),))
    db.execute(ADD_MESSAGES, (orjson.dumps(messages).decode(),))


def page(
    db: sqlite3.Connection,
    job_id: str,
    *,
    outcomes: Sequence[str] = (),
    below: int,
    after_us: int = 0,
    before_us: int = 2**62,
    limit: int,
) -> list[tuple[Delivery, list[Sent]]]:
    """Gives attempts of a job with ids below `below`, the newest first, each with its first SHOWN messages."""
    among = orjson.dumps(list(outcomes)).decode() if outcomes else None
    statement = PAGE_TROUBLED if outcomes and "delivered" not in outcomes else PAGE  # its index has few
    rows = db.execute(statement, (job_id, below, after_us, before_us, limit, among)).fetchall()
    return [(Delivery(*row), messages(db, row[0], SHOWN)) for row in rows]


def one(db: sqlite3.Connection, delivery_id: int, job_id: str) -> Delivery | None:
    """Gives an attempt of a job, None when there is none."""
    row = db.execute(ONE, (delivery_id, job_id)).fetchone()
    return None if row is None else Delivery(*row)


def messages(db: sqlite3.Connection, delivery_id: int, limit: int) -> list[Sent]:
    """Gives up to `limit` messages of an attempt in their order."""
    return [Sent(*row) for row in db.execute(MESSAGES, (delivery_id, limit)).fetchall()]


def of_person(db: sqlite3.Connection, job_id: str, profile_id: int, limit: int) -> list[tuple[Delivery, Sent]]:
    """Gives the newest attempts of a job to send something of a profile."""
    rows = db.execute(OF_PERSON, (profile_id, job_id, limit, 2**62)).fetchall()
    return [(Delivery(*row[:13]), Sent(*row[13:])) for row in rows]


def too_old(db: sqlite3.Connection, before_us: int, most: int) -> int:
    """Gives the attempt up to which all are older than `before_us` or beyond the newest `most` messages; 0: none."""
    first = db.execute(TOO_OLD, (before_us,)).fetchone()
    upto = last_id(db) if first is None else first[0] - 1
    many = db.execute(TOO_MANY, (most,)).fetchone()
    return max(upto, 0 if many is None else many[0])


def forget(db: sqlite3.Connection, upto: int, limit: int) -> int:
    """Deletes up to `limit` messages, or attempts where those have none left, up to the attempt `upto`."""
    deleted = db.execute(FORGET_MESSAGES, (upto, limit)).rowcount
    return deleted or db.execute(FORGET, (upto, limit)).rowcount


def forget_people(db: sqlite3.Connection, profiles: Sequence[int]) -> int:
    """Takes samples and answers away from the attempts that had something of these profiles; says from how many."""
    return db.execute(FORGET_SAMPLES, (orjson.dumps(list(profiles)).decode(),)).rowcount


def texts_after(db: sqlite3.Connection, after: int) -> list[tuple[int, str]]:
    """Gives up to 2,000 attempts after the id `after`: id, and what of them could name somebody."""
    return db.execute(ANSWERS_AFTER, (after,)).fetchall()


def blank(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Takes samples and answers away from these attempts."""
    db.execute(BLANK, (orjson.dumps(list(ids)).decode(),))
