"""Words told of jobs, which may be a destination's own and so name a person: searched when one is erased."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

import orjson

PAGE: Final = 500
_IDS: Final = "(SELECT value FROM json_each(?))"


class Words(NamedTuple):
    """Words in one table: how to read a page of them behind an id, and how to take them away."""

    read: str
    forget: str

    def texts_after(self, db: sqlite3.Connection, after: int) -> list[tuple[int, str]]:
        """Gives up to PAGE rows behind the id `after`: id and all that was written; none when that was the last."""
        return db.execute(self.read, (after, PAGE)).fetchall()

    def blank(self, db: sqlite3.Connection, ids: Sequence[int]) -> None:
        """Takes the words of these rows away."""
        db.execute(self.forget, (orjson.dumps(list(ids)).decode(),))


LINES: Final = Words(
    "SELECT id, message || ' ' || facts FROM job_log WHERE id > ? ORDER BY id LIMIT ?",
    f"UPDATE job_log SET message = '(erased)', facts = '{{}}' WHERE id IN {_IDS}",  # noqa: S608  (a constant)
)
RUNS: Final = Words(
    "SELECT id, reason FROM job_run WHERE id > ? AND reason <> '' ORDER BY id LIMIT ?",
    f"UPDATE job_run SET reason = '(erased)' WHERE id IN {_IDS}",  # noqa: S608  (a constant)
)
JOBS: Final = Words(
    "SELECT rowid, reason FROM job WHERE rowid > ? AND reason <> '' ORDER BY rowid LIMIT ?",
    f"UPDATE job SET reason = '(erased)' WHERE rowid IN {_IDS}",  # noqa: S608  (a constant)
)
SYSTEM_EVENTS: Final = Words(
    "SELECT id, body FROM system_event WHERE id > ? ORDER BY id LIMIT ?",
    f"UPDATE system_event SET body = '{{}}' WHERE id IN {_IDS}",  # noqa: S608  (a constant)
)
EVERYWHERE: Final = (LINES, RUNS, JOBS, SYSTEM_EVENTS)
