"""Authorizations as stored: what is known of them, their secrets (sealed, or by reference), and counted requests.

Where the keys that are known are given (`keys`), an authorization with a secret under another one is `unknown`, and
`locked` names that key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from daemon.model.authorization import KEPT, LENGTH_US, Health, Unit, start_of
from daemon.model.job import JobState

#: States in which a job holds its authorization.
HOLDING = (JobState.RUNNING, JobState.SLEEPING, JobState.PAUSED)

# ?1: the known keys, a JSON array.
_SEEN = """(SELECT *, (SELECT min(s.key_id) FROM auth_secret s WHERE s.auth_id = auth.id
        AND s.key_id IS NOT NULL AND s.key_id NOT IN (SELECT value FROM json_each(?1))) AS locked FROM auth)"""
_COLUMNS = """id, provider, method, label, description, config, owner,
    CASE WHEN locked IS NULL THEN status ELSE 'unknown' END AS seen, reason, status_us, checked_us, due_us, used_us,
    created_us, updated_us, locked"""

INSERT = """INSERT INTO auth (id, provider, method, label, description, config, owner, status, reason, status_us,
    checked_us, due_us, used_us, created_us, updated_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
INSERT_FIELD = "INSERT INTO auth_secret (auth_id, field, key_id, sealed, reference) VALUES (?, ?, ?, ?, ?)"
ONE = f"SELECT {_COLUMNS} FROM {_SEEN} WHERE id = ?2"  # noqa: S608  (constants)
_FILTER = "(?2 IS NULL OR provider = ?2) AND (?3 IS NULL OR method = ?3) AND (?4 IS NULL OR seen = ?4)"
PAGE = f"""SELECT * FROM (SELECT {_COLUMNS} FROM {_SEEN}) WHERE {_FILTER}
    AND (created_us, id) > (?5, ?6) ORDER BY created_us, id LIMIT ?7"""  # noqa: S608  (constants)
TOTAL = f"SELECT count(*) FROM (SELECT {_COLUMNS} FROM {_SEEN}) WHERE {_FILTER}"  # noqa: S608  (constants)
SECRETS = """SELECT auth_id, field, key_id, sealed, reference FROM auth_secret
    WHERE auth_id IN (SELECT value FROM json_each(?)) ORDER BY auth_id, field"""
METHOD = "SELECT provider, method FROM auth WHERE id = ?"
SET_TEXTS = """UPDATE auth SET label = coalesce(?, label), description = coalesce(?, description), updated_us = ?
    WHERE id = ?"""
STATUS = "SELECT status FROM auth WHERE id = ?"
SET_STATUS = """UPDATE auth SET status_us = CASE WHEN status = ?1 THEN status_us ELSE ?3 END, status = ?1, reason = ?2,
        checked_us = ?3, due_us = coalesce(?4, due_us)
    WHERE id = ?5"""
STATUSES = "SELECT id, status FROM auth"
# One that is due long after any check could be was dated by a clock that has since been set back.
DUE = """SELECT id FROM auth WHERE due_us <= ?1 OR due_us > ?2 ORDER BY due_us LIMIT ?3"""
PUT_OFF = "UPDATE auth SET due_us = ? WHERE id = ?"
JOBS = """SELECT id, job_type, label, state FROM job WHERE auth_id = ?1
        AND state IN (SELECT value FROM json_each(?2)) ORDER BY created_us, id LIMIT ?3"""
JOB_COUNTS = """SELECT auth_id, state, count(*) FROM job WHERE auth_id IN (SELECT value FROM json_each(?))
    GROUP BY auth_id, state"""
DELETE = "DELETE FROM auth WHERE id = ?"

# ?1: [[id, requests]]; one that was deleted meanwhile is left out.
COUNT = """INSERT INTO auth_count (auth_id, unit, start_us, requests)
    SELECT value ->> 0, ?2, ?3, value ->> 1 FROM json_each(?1) WHERE value ->> 0 IN (SELECT id FROM auth)
    ON CONFLICT (auth_id, unit, start_us) DO UPDATE SET requests = requests + excluded.requests"""
FORGET_COUNTS = "DELETE FROM auth_count WHERE unit = ?1 AND start_us < ?2"
USED = """UPDATE auth SET used_us = max(coalesce(used_us, 0), u.value ->> 1)
    FROM json_each(?1) AS u WHERE auth.id = u.value ->> 0"""
WORKED = """UPDATE auth SET checked_us = max(coalesce(checked_us, 0), w.value ->> 1)
    FROM json_each(?1) AS w WHERE auth.id = w.value ->> 0 AND auth.status = 'healthy'"""
COUNTS = "SELECT unit, start_us, requests FROM auth_count WHERE auth_id = ? ORDER BY unit, start_us"

KEYS = "SELECT key_id, count(*) FROM auth_secret WHERE key_id IS NOT NULL GROUP BY key_id"
UNDER_OTHER_KEYS = """SELECT auth_id, field, key_id, sealed, reference FROM auth_secret
    WHERE key_id <> ?1 AND (auth_id, field) > (?2, ?3) ORDER BY auth_id, field LIMIT ?4"""
RESEAL = "UPDATE auth_secret SET key_id = ?, sealed = ? WHERE auth_id = ? AND field = ? AND sealed = ?"


class AuthRow(NamedTuple):
    """A stored authorization; times in microseconds since the epoch, `config` as JSON text.

    `locked`: a key that a secret of it is sealed with and that is not known.
    """

    id: str
    provider: str
    method: str
    label: str
    description: str
    config: str
    owner: str
    status: Health
    reason: str
    status_us: int
    checked_us: int | None
    due_us: int
    used_us: int | None
    created_us: int
    updated_us: int
    locked: str | None = None


class SecretRow(NamedTuple):
    """A secret field of an authorization: sealed under `key_id`, or by reference."""

    auth_id: str
    field: str
    key_id: str | None
    sealed: bytes | None
    reference: str | None


class Holder(NamedTuple):
    """A job that uses an authorization."""

    id: str
    job_type: str
    label: str
    state: JobState


def insert(db: sqlite3.Connection, row: AuthRow, secrets: Sequence[SecretRow]) -> None:
    """Stores a new authorization with its secrets."""
    db.execute(INSERT, row[:-1])
    db.executemany(INSERT_FIELD, secrets)


def one(db: sqlite3.Connection, auth_id: str, keys: Sequence[str]) -> AuthRow | None:
    """Gives an authorization, None when there is none."""
    row = db.execute(ONE, (_json(keys), auth_id)).fetchone()
    return _row(row) if row is not None else None


def page(
    db: sqlite3.Connection,
    keys: Sequence[str],
    *,
    provider: str | None = None,
    method: str | None = None,
    status: str | None = None,
    after: tuple[int, str] = (-1, ""),
    limit: int = 100,
) -> tuple[list[AuthRow], int]:
    """Gives authorizations in the order of their making, those after `after`, and how many there are in all."""
    wanted = (_json(keys), provider, method, status)
    rows = [_row(row) for row in db.execute(PAGE, (*wanted, *after, limit)).fetchall()]
    (total,) = db.execute(TOTAL, wanted).fetchone()
    return rows, int(total)


def secrets_of(db: sqlite3.Connection, auth_ids: Collection[str]) -> dict[str, list[SecretRow]]:
    """Gives the secret fields of authorizations, in the order of their names."""
    found: dict[str, list[SecretRow]] = {auth_id: [] for auth_id in auth_ids}
    for row in db.execute(SECRETS, (_json(auth_ids),)).fetchall():
        found[row[0]].append(SecretRow(*row))
    return found


def method_of(db: sqlite3.Connection, auth_id: str) -> tuple[str, str] | None:
    """Gives provider and method of an authorization, None when there is none. For the transaction that takes it."""
    row: tuple[str, str] | None = db.execute(METHOD, (auth_id,)).fetchone()
    return row


def set_texts(db: sqlite3.Connection, auth_id: str, label: str | None, description: str | None, now_us: int) -> bool:
    """Changes label and description, each where given; False when there is no such authorization."""
    return db.execute(SET_TEXTS, (label, description, now_us, auth_id)).rowcount > 0


def set_status(
    db: sqlite3.Connection, auth_id: str, status: Health, reason: str, now_us: int, due_us: int | None = None
) -> Health | None:
    """Stores what was found out, and when to check next where given.

    Gives what was stored before, None when there is no such authorization.
    """
    row = db.execute(STATUS, (auth_id,)).fetchone()
    if row is None:
        return None
    db.execute(SET_STATUS, (status, reason, now_us, due_us, auth_id))
    return Health(row[0])


def statuses(db: sqlite3.Connection) -> dict[str, Health]:
    """Gives the stored status of every authorization."""
    return {auth_id: Health(status) for auth_id, status in db.execute(STATUSES).fetchall()}


def due(db: sqlite3.Connection, now_us: int, longest_us: int, limit: int) -> list[str]:
    """Gives authorizations that are to be checked, the most overdue first."""
    return [row[0] for row in db.execute(DUE, (now_us, now_us + longest_us, limit)).fetchall()]


def put_off(db: sqlite3.Connection, auth_id: str, due_us: int) -> None:
    """Says when an authorization is to be checked, and nothing else about it."""
    db.execute(PUT_OFF, (due_us, auth_id))


def holders(db: sqlite3.Connection, auth_id: str, limit: int, states: Collection[JobState] = HOLDING) -> list[Holder]:
    """Gives the jobs in these states that use an authorization, in the order of their making."""
    rows = db.execute(JOBS, (auth_id, _json(states), limit)).fetchall()
    return [Holder(job_id, job_type, label, JobState(state)) for job_id, job_type, label, state in rows]


def job_counts(db: sqlite3.Connection, auth_ids: Collection[str]) -> dict[str, dict[str, int]]:
    """Gives how many jobs use each of the authorizations, by their state."""
    found: dict[str, dict[str, int]] = {auth_id: {} for auth_id in auth_ids}
    for auth_id, state, jobs in db.execute(JOB_COUNTS, (_json(auth_ids),)).fetchall():
        found[auth_id][state] = jobs
    return found


def delete(db: sqlite3.Connection, auth_id: str) -> bool:
    """Deletes an authorization with its secrets and counts; False when there is none. Ask `holders` first."""
    return db.execute(DELETE, (auth_id,)).rowcount > 0


# --- requests


def count(
    db: sqlite3.Connection,
    requests: Mapping[str, int],
    used: Mapping[str, int],
    worked: Mapping[str, int],
    now_us: int,
) -> None:
    """Adds requests to the present hour, day and week, and forgets what is too old.

    Also notes when each was used, and when a healthy one last worked.
    """
    rows = _json(list(requests.items()))
    for unit in Unit:
        start_us = start_of(unit, now_us)
        if requests:
            db.execute(COUNT, (rows, unit, start_us))
        db.execute(FORGET_COUNTS, (unit, start_us - (KEPT[unit] - 1) * LENGTH_US[unit]))
    if used:
        db.execute(USED, (_json(list(used.items())),))
    if worked:
        db.execute(WORKED, (_json(list(worked.items())),))


def counts(db: sqlite3.Connection, auth_id: str) -> dict[Unit, list[tuple[int, int]]]:
    """Gives (start, requests) of each hour, day and week that had any, ascending."""
    found: dict[Unit, list[tuple[int, int]]] = {unit: [] for unit in Unit}
    for unit, start_us, requests in db.execute(COUNTS, (auth_id,)).fetchall():
        found[Unit(unit)].append((start_us, requests))
    return found


# --- keys


def keys_used(db: sqlite3.Connection) -> dict[str, int]:
    """Gives how many secrets are sealed with each key."""
    return dict(db.execute(KEYS).fetchall())


def under_other_keys(db: sqlite3.Connection, key_id: str, after: tuple[str, str], limit: int) -> list[SecretRow]:
    """Gives sealed secrets that are not under this key, those after (authorization, field) `after`."""
    return [SecretRow(*row) for row in db.execute(UNDER_OTHER_KEYS, (key_id, *after, limit)).fetchall()]


def reseal(db: sqlite3.Connection, rows: Sequence[tuple[SecretRow, str, bytes]]) -> int:
    """Replaces sealed values by (row, key, sealed anew), each only while it is what it was; says how many."""
    return sum(
        db.execute(RESEAL, (key_id, sealed, row.auth_id, row.field, row.sealed)).rowcount
        for row, key_id, sealed in rows
    )


def _row(row: tuple[Any, ...]) -> AuthRow:
    return AuthRow._make((*row[:7], Health(row[7]), *row[8:]))


def _json(value: Collection[object]) -> str:
    return orjson.dumps(list(value)).decode()
