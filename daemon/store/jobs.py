"""Jobs as stored. What moves them is in `daemon.model.job`; each change names the states that it holds for."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any, NamedTuple

import orjson

from daemon.model.job import ACTIVE, NO_ERRORS, Errors, JobState, Message, SleepCause, Verdict, sources

_COLUMNS = """id, job_type, label, description, auth_id, config, state, reason, sleep_until_us, sleep_cause, errors,
    first_error_us, crashes, created_us, updated_us, owner, schedule, quiet, expires_us, state_us, modified_us,
    first_run_us, run_us, runs"""

INSERT = """INSERT INTO job (id, job_type, label, description, auth_id, config, owner, schedule, quiet, expires_us,
        state, created_us, updated_us, state_us, modified_us)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', ?11, ?11, ?11, ?11)"""
ALL = f"SELECT {_COLUMNS} FROM job ORDER BY created_us, id"  # noqa: S608  (a constant)
ONE = f"SELECT {_COLUMNS} FROM job WHERE id = ?"  # noqa: S608  (a constant)

_LISTED = """(:state IS NULL OR state = :state) AND (:auth_id IS NULL OR auth_id = :auth_id)
    AND (:types IS NULL OR job_type IN (SELECT value FROM json_each(:types)))
    AND (:text IS NULL OR instr(lower(label), lower(:text)) OR instr(lower(description), lower(:text)))"""
PAGE = f"""SELECT {_COLUMNS} FROM job WHERE (created_us, id) > (:created_us, :id) AND {_LISTED}
    ORDER BY created_us, id LIMIT :limit"""  # noqa: S608  (constants)
COUNTS = f"SELECT state, count(*) FROM job WHERE {_LISTED} GROUP BY state"  # noqa: S608  (constants)

# A change of state takes place only from the states that it was decided for: a pause that came first wins.
MOVE = f"""UPDATE job SET state_us = CASE WHEN state = ?1 THEN state_us ELSE ?8 END, state = ?1, reason = ?2,
        sleep_until_us = ?3, sleep_cause = ?4, errors = ?5, first_error_us = ?6, crashes = crashes + ?7, updated_us = ?8
    WHERE id = ?9 AND state IN (SELECT value FROM json_each(?10)) RETURNING {_COLUMNS}"""  # noqa: S608  (a constant)
BEGIN_RUN = f"""UPDATE job SET runs = runs + 1, run_us = ?1, first_run_us = coalesce(first_run_us, ?1)
    WHERE id = ?2 AND state = 'running' RETURNING {_COLUMNS}"""  # noqa: S608  (a constant)
EDIT = f"""UPDATE job SET label = coalesce(?, label), description = coalesce(?, description),
        auth_id = coalesce(?, auth_id), updated_us = ?4, modified_us = ?4
    WHERE id = ?5 RETURNING {_COLUMNS}"""  # noqa: S608  (a constant)
TELL = "UPDATE job SET reason = ? WHERE id = ? AND state = 'running'"
FORGET_ERRORS = "UPDATE job SET errors = 0, first_error_us = NULL, reason = '' WHERE id = ? AND state = 'running'"
CHECKPOINT = "SELECT checkpoint FROM job WHERE id = ?"
SAVE = "UPDATE job SET checkpoint = ? WHERE id = ?"
DELETE = "DELETE FROM job WHERE id = ?"

_ENDED = "state IN ('failed', 'paused', 'completed')"
ENDED_LONG_AGO = f"""SELECT {_COLUMNS} FROM job WHERE {_ENDED} AND max(state_us, modified_us) < ?
    ORDER BY state_us LIMIT 1000"""  # noqa: S608  (constants)
PURGE = f"DELETE FROM job WHERE id = ? AND {_ENDED} AND max(state_us, modified_us) < ?"  # noqa: S608  (a constant)
EXPIRED = f"""SELECT {_COLUMNS} FROM job WHERE expires_us <= ? AND state IN ('paused', 'failed')
    LIMIT 1000"""  # noqa: S608  (a constant)


class JobRow(NamedTuple):
    """A stored job; times in microseconds since the epoch, `config`, `schedule` and `quiet` as JSON text."""

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
    owner: str
    schedule: str | None
    quiet: str | None
    expires_us: int | None
    state_us: int
    modified_us: int
    first_run_us: int | None
    run_us: int | None
    runs: int


class NewJob(NamedTuple):
    """A job to be stored; as in `JobRow`."""

    id: str
    job_type: str
    label: str
    description: str
    auth_id: str | None
    config: str
    owner: str
    schedule: str | None
    quiet: str | None
    expires_us: int | None


class Wanted(NamedTuple):
    """Which jobs a list has: those in a state, with an authorization, of job types, with a text in their names."""

    state: JobState | None = None
    auth_id: str | None = None
    job_types: Collection[str] | None = None
    text: str | None = None


def insert(db: sqlite3.Connection, job: NewJob, now_us: int) -> None:
    """Stores a new job, running."""
    db.execute(INSERT, (*job, now_us))


def every(db: sqlite3.Connection) -> list[JobRow]:
    """Gives all jobs in the order of their making."""
    return [_row(row) for row in db.execute(ALL).fetchall()]


def page(db: sqlite3.Connection, wanted: Wanted, after: tuple[int, str], limit: int) -> list[JobRow]:
    """Gives at most `limit` jobs made after the job with this time and id, in the order of their making."""
    place = {"created_us": after[0], "id": after[1], "limit": limit}
    return [_row(row) for row in db.execute(PAGE, _named(wanted) | place).fetchall()]


def counts(db: sqlite3.Connection, wanted: Wanted) -> dict[JobState, int]:
    """Gives how many such jobs there are in each state."""
    found = dict(db.execute(COUNTS, _named(wanted)).fetchall())
    return {state: found.get(state, 0) for state in JobState}


def one(db: sqlite3.Connection, job_id: str) -> JobRow | None:
    """Gives a job, None when there is none."""
    row = db.execute(ONE, (job_id,)).fetchone()
    return _row(row) if row is not None else None


def move(
    db: sqlite3.Connection,
    job_id: str,
    verdict: Verdict,
    now_us: int,
    *,
    only_from: Collection[JobState] | None = None,
    crashes: int = 0,
) -> JobRow | None:
    """Moves a job where its state takes the message, and is in `only_from`; gives the job then, None when not moved."""
    states = sources(verdict.message) if only_from is None else sources(verdict.message) & set(only_from)
    rows = db.execute(
        MOVE,
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
            orjson.dumps(sorted(states)).decode(),
        ),
    ).fetchall()
    return _row(rows[0]) if rows else None


def wake(db: sqlite3.Connection, job_id: str, errors: Errors, now_us: int) -> JobRow | None:
    """Ends a job's sleep, with the errors in a row that still count; None when it does not sleep any more."""
    return move(db, job_id, Verdict(Message.DUE, "", errors), now_us, only_from=ACTIVE)


def begin_run(db: sqlite3.Connection, job_id: str, now_us: int) -> JobRow | None:
    """Counts a run of a running job; None when it is not running any more."""
    rows = db.execute(BEGIN_RUN, (now_us, job_id)).fetchall()
    return _row(rows[0]) if rows else None


def edit(
    db: sqlite3.Connection, job_id: str, label: str | None, description: str | None, auth_id: str | None, now_us: int
) -> JobRow | None:
    """Changes label, description and authorization, each where given; None when there is no such job."""
    rows = db.execute(EDIT, (label, description, auth_id, now_us, job_id)).fetchall()
    return _row(rows[0]) if rows else None


def tell(db: sqlite3.Connection, job_id: str, reason: str) -> None:
    """Shows what a running job waits for."""
    db.execute(TELL, (reason, job_id))


def forget_errors(db: sqlite3.Connection, job_id: str) -> None:
    """Ends a running job's row of errors: something was delivered."""
    db.execute(FORGET_ERRORS, (job_id,))


def checkpoint(db: sqlite3.Connection, job_id: str) -> object:
    """Gives what a job's run has saved last, None before that."""
    row = db.execute(CHECKPOINT, (job_id,)).fetchone()
    return None if row is None or row[0] is None else orjson.loads(row[0])


def save(db: sqlite3.Connection, job_id: str, value: object) -> None:
    """Keeps a run's checkpoint, a JSON value."""
    db.execute(SAVE, (orjson.dumps(value).decode(), job_id))


def delete(db: sqlite3.Connection, job_id: str) -> bool:
    """Deletes a job and its subscription; False when there is none."""
    return db.execute(DELETE, (job_id,)).rowcount > 0


def ended_long_ago(db: sqlite3.Connection, before_us: int) -> list[JobRow]:
    """Gives failed, paused and completed jobs, at most 1,000, that neither moved nor were edited since `before_us`."""
    return [_row(row) for row in db.execute(ENDED_LONG_AGO, (before_us,)).fetchall()]


def purge(db: sqlite3.Connection, job_id: str, before_us: int) -> bool:
    """Deletes such a job; False when it was changed meanwhile."""
    return db.execute(PURGE, (job_id, before_us)).rowcount > 0


def expired(db: sqlite3.Connection, now_us: int) -> list[JobRow]:
    """Gives paused and failed jobs, at most 1,000, whose time is over; those with a task end themselves."""
    return [_row(row) for row in db.execute(EXPIRED, (now_us,)).fetchall()]


def _named(wanted: Wanted) -> dict[str, Any]:
    types = None if wanted.job_types is None else orjson.dumps(sorted(wanted.job_types)).decode()
    return {"state": wanted.state, "auth_id": wanted.auth_id, "types": types, "text": wanted.text}


def _row(row: tuple[Any, ...]) -> JobRow:
    errors = Errors(row[10], row[11]) if row[10] else NO_ERRORS
    cause = SleepCause(row[9]) if row[9] is not None else None
    return JobRow._make((*row[:6], JobState(row[6]), row[7], row[8], cause, errors, *row[12:]))


def states(db: sqlite3.Connection) -> dict[str, int]:
    """Gives how many jobs are in which state."""
    return dict(db.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall())
