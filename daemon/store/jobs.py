"""Jobs as stored. What moves them is in `daemon.model.job`; each change names the states that it holds for."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any, NamedTuple

import orjson

from daemon.model.job import NO_ERRORS, Errors, JobState, SleepCause, Verdict

_COLUMNS = """id, job_type, label, description, auth_id, config, state, reason, sleep_until_us, sleep_cause, errors,
    first_error_us, crashes, created_us, updated_us"""

INSERT = """INSERT INTO job (id, job_type, label, description, auth_id, config, state, created_us, updated_us)
    VALUES (?, ?, ?, ?, ?, ?, 'running', ?, ?)"""
ALL = f"SELECT {_COLUMNS} FROM job ORDER BY created_us, id"  # noqa: S608  (a constant)
ONE = f"SELECT {_COLUMNS} FROM job WHERE id = ?"  # noqa: S608  (a constant)

# A change of state takes place only from the states that it was decided for: a pause that came first wins.
SET_STATE = f"""UPDATE job SET state = ?, reason = ?, sleep_until_us = ?, sleep_cause = ?, errors = ?,
        first_error_us = ?, crashes = crashes + ?, updated_us = ?
    WHERE id = ? AND state IN (SELECT value FROM json_each(?)) RETURNING {_COLUMNS}"""  # noqa: S608  (a constant)
SET_TEXTS = f"""UPDATE job SET label = coalesce(?, label), description = coalesce(?, description), updated_us = ?
    WHERE id = ? RETURNING {_COLUMNS}"""  # noqa: S608  (a constant)
FORGET_ERRORS = "UPDATE job SET errors = 0, first_error_us = NULL, reason = '' WHERE id = ? AND state = 'running'"
DELETE = "DELETE FROM job WHERE id = ?"
PURGE = "DELETE FROM job WHERE state IN ('failed', 'paused', 'completed') AND updated_us < ? RETURNING id"


class JobRow(NamedTuple):
    """A stored job; times in microseconds since the epoch, `config` as JSON text."""

    id: str
    job_type: str
    label: str
    description: str
    auth_id: str | None
    config: str
    state: JobState
    reason: str
    sleep_until_us: int | None
    sleep_cause: SleepCause | None
    errors: Errors
    crashes: int
    created_us: int
    updated_us: int


def insert(
    db: sqlite3.Connection,
    job_id: str,
    job_type: str,
    label: str,
    description: str,
    auth_id: str | None,
    config: str,
    now_us: int,
) -> None:
    """Stores a new job, running."""
    db.execute(INSERT, (job_id, job_type, label, description, auth_id, config, now_us, now_us))


def every(db: sqlite3.Connection) -> list[JobRow]:
    """Gives all jobs in the order of their making."""
    return [_row(row) for row in db.execute(ALL).fetchall()]


def one(db: sqlite3.Connection, job_id: str) -> JobRow | None:
    """Gives a job, None when there is none."""
    row = db.execute(ONE, (job_id,)).fetchone()
    return _row(row) if row is not None else None


def set_state(
    db: sqlite3.Connection,
    job_id: str,
    verdict: Verdict,
    only_from: Collection[JobState],
    now_us: int,
    *,
    crashes: int = 0,
) -> JobRow | None:
    """Moves a job where its state is in `only_from`; gives the job as it is then, None when it was not moved."""
    rows = db.execute(
        SET_STATE,
        (
            verdict.state,
            verdict.reason,
            verdict.sleep_until_us,
            verdict.sleep_cause,
            verdict.errors.count,
            verdict.errors.first_us,
            crashes,
            now_us,
            job_id,
            orjson.dumps(sorted(only_from)).decode(),
        ),
    ).fetchall()
    return _row(rows[0]) if rows else None


def start(
    db: sqlite3.Connection, job_id: str, errors: Errors, only_from: Collection[JobState], now_us: int
) -> JobRow | None:
    """Makes a job running, with the errors in a row that still count."""
    return set_state(db, job_id, Verdict(JobState.RUNNING, "", errors), only_from, now_us)


def set_texts(
    db: sqlite3.Connection, job_id: str, label: str | None, description: str | None, now_us: int
) -> JobRow | None:
    """Changes label and description, each where given; None when there is no such job."""
    rows = db.execute(SET_TEXTS, (label, description, now_us, job_id)).fetchall()
    return _row(rows[0]) if rows else None


def forget_errors(db: sqlite3.Connection, job_id: str) -> None:
    """Ends a running job's row of errors: something was delivered."""
    db.execute(FORGET_ERRORS, (job_id,))


def delete(db: sqlite3.Connection, job_id: str) -> bool:
    """Deletes a job and its subscription; False when there is none."""
    return db.execute(DELETE, (job_id,)).rowcount > 0


def purge(db: sqlite3.Connection, before_us: int) -> list[str]:
    """Deletes the failed, paused and completed jobs that were last changed before `before_us`; gives their ids."""
    return [row[0] for row in db.execute(PURGE, (before_us,)).fetchall()]


def _row(row: tuple[Any, ...]) -> JobRow:
    errors = Errors(row[10], row[11]) if row[10] else NO_ERRORS
    cause = SleepCause(row[9]) if row[9] is not None else None
    return JobRow._make((*row[:6], JobState(row[6]), row[7], row[8], cause, errors, *row[12:]))
