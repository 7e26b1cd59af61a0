"""What jobs did, as stored: their logs, runs and activity. Deliveries are in `deliveries`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

Span: TypeAlias = Literal["hour", "day", "week"]

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
#: From Monday to Monday; the epoch was a Thursday.
WEEK_US: Final = 7 * DAY_US
FIRST_MONDAY_US: Final = 4 * DAY_US

LOG = """INSERT INTO job_log (job_id, run_id, at_us, level, code, message, facts)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6 FROM json_each(?)"""
# A line of a log is looked up by job, or of all; `?3` (a JSON array) names the levels.
LOGS_OF = """SELECT id, job_id, run_id, at_us, level, code, message, facts FROM job_log
    WHERE job_id = ?1 AND id < ?2 AND level IN (SELECT value FROM json_each(?3))
    AND (?4 IS NULL OR run_id = ?4) ORDER BY id DESC LIMIT ?5"""
LOGS = """SELECT id, job_id, run_id, at_us, level, code, message, facts FROM job_log
    WHERE id < ?1 AND level IN (SELECT value FROM json_each(?2)) ORDER BY id DESC LIMIT ?3"""

BEGIN = "INSERT INTO job_run (job_id, run_id, began_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
# An export's checkpoint stands with the job; an import's with its rows, in events.db.
END = """UPDATE job_run SET ended_us = ?3, outcome = ?4, reason = ?5,
    checkpoint = (SELECT checkpoint FROM job WHERE id = ?1) WHERE job_id = ?1 AND run_id = ?2"""
CUT_OFF = """UPDATE job_run SET ended_us = ?, outcome = 'interrupted',
    reason = 'the daemon ended in the middle of it; the next run went on from where it was' WHERE ended_us IS NULL"""
RUN_COUNTS = """UPDATE job_run SET added = added + ?3, removed = removed + ?4, omitted = omitted + ?5,
    failed = failed + ?6 WHERE job_id = ?1 AND run_id = ?2"""
RUNS = """SELECT id, job_id, run_id, began_us, ended_us, outcome, reason, added, removed, omitted, failed, checkpoint
    FROM job_run WHERE job_id = ? AND id < ? ORDER BY id DESC LIMIT ?"""

COUNT = """INSERT INTO job_activity (job_id, span, start_us, added, removed, omitted, failed)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6 FROM json_each(?) WHERE true
    ON CONFLICT (job_id, span, start_us) DO UPDATE SET added = added + excluded.added,
        removed = removed + excluded.removed, omitted = omitted + excluded.omitted, failed = failed + excluded.failed"""
ACTIVITY = """SELECT start_us, added, removed, omitted, failed FROM job_activity
    WHERE job_id = ? AND span = ? AND start_us >= ? AND start_us < ? ORDER BY start_us"""

_OLD_ROWS = """DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT ?1)
    AND (at_us < ?2 OR id <= (SELECT max(id) FROM {table}) - ?3)"""
_OLD_RUNS = """DELETE FROM job_run WHERE id IN (SELECT id FROM job_run ORDER BY id LIMIT ?1) AND ended_us IS NOT NULL
    AND (began_us < ?2 OR id <= (SELECT max(id) FROM job_run) - ?3)"""
_OLD_ACTIVITY = """DELETE FROM job_activity WHERE (job_id, span, start_us) IN (SELECT job_id, span, start_us
    FROM job_activity WHERE span = ?2 AND start_us < ?3 LIMIT ?1)"""

#: Tables with an id and `at_us` that are forgotten by age and number.
Table: TypeAlias = Literal["job_log", "system_event", "audit"]


class LogLine(NamedTuple):
    """A line of a job's log; `facts` is JSON text."""

    id: int
    job_id: str
    run_id: str | None
    at_us: int
    level: str
    code: str
    message: str
    facts: str


class RunRow(NamedTuple):
    """A run; `ended_us` None: it goes on. `checkpoint` is JSON text."""

    id: int
    job_id: str
    run_id: str
    began_us: int
    ended_us: int | None
    outcome: str | None
    reason: str
    added: int
    removed: int
    omitted: int
    failed: int
    checkpoint: str | None


class Activity(NamedTuple):
    """What a job did in the hour, day or week from `start_us` on (UTC; a week begins on Monday)."""

    start_us: int
    added: int
    removed: int
    omitted: int
    failed: int


def add_lines(db: sqlite3.Connection, rows: Sequence[Sequence[object]]) -> None:
    """Appends lines: each (job, run, at_us, level, code, message, facts as JSON text)."""
    db.execute(LOG, (orjson.dumps(rows).decode(),))


def lines(
    db: sqlite3.Connection,
    job_id: str | None,
    *,
    levels: Sequence[str],
    below: int,
    limit: int,
    run_id: str | None = None,
) -> list[LogLine]:
    """Gives lines of a job's log, or of all jobs (None), with ids below `below`, the newest first."""
    among = orjson.dumps(list(levels)).decode()
    if job_id is None:
        rows = db.execute(LOGS, (below, among, limit)).fetchall()
    else:
        rows = db.execute(LOGS_OF, (job_id, below, among, run_id, limit)).fetchall()
    return [LogLine(*row) for row in rows]


def begin_run(db: sqlite3.Connection, job_id: str, run_id: str, began_us: int) -> None:
    """Notes that a run began."""
    db.execute(BEGIN, (job_id, run_id, began_us))


def end_run(db: sqlite3.Connection, job_id: str, run_id: str, ended_us: int, outcome: str, reason: str) -> None:
    """Notes how a run ended."""
    db.execute(END, (job_id, run_id, ended_us, outcome, reason))


def cut_off(db: sqlite3.Connection, now_us: int) -> int:
    """Ends the runs that a daemon before this one left open; says how many."""
    return db.execute(CUT_OFF, (now_us,)).rowcount


def runs(db: sqlite3.Connection, job_id: str, below: int, limit: int) -> list[RunRow]:
    """Gives runs of a job with ids below `below`, the newest first."""
    return [RunRow(*row) for row in db.execute(RUNS, (job_id, below, limit)).fetchall()]


def count(db: sqlite3.Connection, counts: Mapping[tuple[str, str, int], Sequence[int]]) -> None:
    """Adds (added, removed, omitted, failed) by job, run and hour to the activity and to the runs."""
    rows: list[tuple[object, ...]] = []
    of_runs: dict[tuple[str, str], list[int]] = {}
    for (job_id, run_id, hour_us), numbers in counts.items():
        rows.append((job_id, "hour", hour_us, *numbers))
        rows.append((job_id, "day", hour_us // DAY_US * DAY_US, *numbers))
        if run_id:
            sums = of_runs.setdefault((job_id, run_id), [0, 0, 0, 0])
            sums[:] = [one + other for one, other in zip(sums, numbers, strict=True)]
    db.execute(COUNT, (orjson.dumps(rows).decode(),))
    db.executemany(RUN_COUNTS, [(*key, *sums) for key, sums in of_runs.items()])


def activity(db: sqlite3.Connection, job_id: str, span: Span, start_us: int, end_us: int) -> list[Activity]:
    """Gives what a job did, by `span`, from `start_us` on and before `end_us`; spans of nothing are left out."""
    stored = "hour" if span == "hour" else "day"
    rows = [Activity(*row) for row in db.execute(ACTIVITY, (job_id, stored, start_us, end_us)).fetchall()]
    if span != "week":
        return rows
    weeks: dict[int, Activity] = {}
    for row in rows:
        start = start_of(row.start_us, "week")
        held = weeks.get(start, Activity(start, 0, 0, 0, 0))
        weeks[start] = Activity(start, *(one + other for one, other in zip(held[1:], row[1:], strict=True)))
    return list(weeks.values())


def start_of(at_us: int, span: Span) -> int:
    """Gives when the hour, day or week (from Monday) of a moment began, in UTC."""
    match span:
        case "hour":
            return at_us // HOUR_US * HOUR_US
        case "day":
            return at_us // DAY_US * DAY_US
        case "week":
            return (at_us - FIRST_MONDAY_US) // WEEK_US * WEEK_US + FIRST_MONDAY_US


def forget(db: sqlite3.Connection, table: Table, before_us: int, most: int, limit: int) -> int:
    """Deletes of the oldest `limit` rows those before `before_us` or beyond the newest `most`; says how many."""
    return db.execute(_OLD_ROWS.format(table=table), (limit, before_us, most)).rowcount


def forget_runs(db: sqlite3.Connection, before_us: int, most: int, limit: int) -> int:
    """As `forget`, of runs that have ended."""
    return db.execute(_OLD_RUNS, (limit, before_us, most)).rowcount


def forget_activity(db: sqlite3.Connection, hours_before_us: int, days_before_us: int, limit: int) -> int:
    """Deletes up to `limit` rows of activity of each span that begin before these moments; says how many."""
    deleted = db.execute(_OLD_ACTIVITY, (limit, "hour", hours_before_us)).rowcount
    return deleted + db.execute(_OLD_ACTIVITY, (limit, "day", days_before_us)).rowcount


def shown_facts(line: LogLine) -> dict[str, Any]:
    """Gives a line's facts."""
    found: dict[str, Any] = orjson.loads(line.facts)
    return found
