"""Who hears of an audience: the jobs with a subscription to it."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

import orjson

from daemon.model.subscription import Events

LISTENERS: Final = """SELECT j.id, j.label, j.job_type, j.state, s.audiences, s.events
    FROM subscription s JOIN job j ON j.id = s.job_id WHERE j.state <> 'completed' ORDER BY j.created_us, j.id"""


class Listener(NamedTuple):
    """A job that is not completed, with the audiences (numbers) that it sends, and of what kind of trigger."""

    job: str
    label: str
    job_type: str
    state: str
    audiences: frozenset[int]
    events: Events


def listeners(db: sqlite3.Connection) -> list[Listener]:
    """Gives all jobs that send an audience's triggers now or once they are resumed, in the order of their making."""
    rows = db.execute(LISTENERS).fetchall()
    return [Listener._make((*row[:4], frozenset(orjson.loads(row[4])), Events(row[5]))) for row in rows]
