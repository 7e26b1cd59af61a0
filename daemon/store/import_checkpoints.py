"""How far imports have come, in the file of the log: a checkpoint is written in the transaction of its rows."""

from __future__ import annotations

import sqlite3
from typing import Any, Final, NamedTuple

import orjson

SAVE: Final = """INSERT INTO import_checkpoint (job_id, checkpoint, updated_us) VALUES (?, ?, ?)
    ON CONFLICT (job_id) DO UPDATE SET checkpoint = excluded.checkpoint, updated_us = excluded.updated_us"""
READ: Final = "SELECT checkpoint FROM import_checkpoint WHERE job_id = ?"
FORGET: Final = "DELETE FROM import_checkpoint WHERE job_id = ?"


class Checkpoint(NamedTuple):
    """Where an import is: the job, its connector's value as JSON text, and when."""

    job_id: str
    text: str
    at_us: int


def save(db: sqlite3.Connection, checkpoint: Checkpoint) -> None:
    """Keeps a checkpoint in place of the former one."""
    db.execute(SAVE, checkpoint)


def read(db: sqlite3.Connection, job_id: str) -> Any:
    """Gives what was saved last, None before that."""
    row = db.execute(READ, (job_id,)).fetchone()
    return None if row is None else orjson.loads(row[0])


def forget(db: sqlite3.Connection, job_id: str) -> None:
    """Deletes the checkpoint of a job that is no more."""
    db.execute(FORGET, (job_id,))
