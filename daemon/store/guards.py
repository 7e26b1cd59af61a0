"""Merge guards as stored: values that identify nobody, and limits of stitching; see `streams.guards`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from streams.guards import Guards, StitchGuard, ValueGuard

GUARDS = """SELECT id, kind, field, value, glob, to_field, stitches, window_us, note, created_us FROM merge_guard
    ORDER BY id"""
SAVE_GUARD = """INSERT OR REPLACE INTO merge_guard
    (id, kind, field, value, glob, to_field, stitches, window_us, note, created_us)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
DELETE_GUARDS = "DELETE FROM merge_guard WHERE id IN (SELECT value FROM json_each(?))"
OWNERS = """SELECT field, value, profile_id FROM identity WHERE value IN (SELECT value FROM json_each(?1))
    AND field IN (SELECT value FROM json_each(?2)) LIMIT ?3"""


class GuardRow(NamedTuple):
    """A stored guard; times in microseconds. Of kind `value`: field (None: all), value, glob; else the other three."""

    id: int
    kind: Literal["value", "stitches"]
    field: str | None
    value: str | None
    glob: bool
    to_field: str | None
    stitches: int | None
    window_us: int | None
    note: str
    created_us: int

    @property
    def subject(self) -> tuple[object, ...]:
        """What it is about: of two with the same subject the later replaces the other."""
        if self.kind == "value":
            return ("value", _lower(self.field), (self.value or "").strip().lower(), self.glob)
        return ("stitches", _lower(self.field), _lower(self.to_field))


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def guards_of(rows: Sequence[GuardRow]) -> Guards:
    """Gives the guards that rows make together."""
    return Guards(
        values=[ValueGuard(row.field, row.value or "", row.glob) for row in rows if row.kind == "value"],
        stitches=[
            StitchGuard(row.field or "", row.to_field, row.stitches or 0, row.window_us or 0)
            for row in rows
            if row.kind == "stitches"
        ],
    )


def guards(db: sqlite3.Connection) -> list[GuardRow]:
    """Gives all guards in the order of their making."""
    return [GuardRow(*row)._replace(glob=bool(row[4])) for row in db.execute(GUARDS).fetchall()]


def change(db: sqlite3.Connection, added: Sequence[GuardRow], removed: Sequence[int]) -> None:
    """Takes guards away, and inserts others or replaces those with their ids."""
    if removed:
        db.execute(DELETE_GUARDS, (json.dumps(list(removed)),))
    db.executemany(SAVE_GUARD, [[int(each) if isinstance(each, bool) else each for each in row] for row in added])


def owners(db: sqlite3.Connection, fields: Sequence[str], values: Sequence[str], limit: int) -> list[tuple[Any, ...]]:
    """Gives up to `limit` profiles that are known by one of the values: (field, value, profile id) each."""
    return db.execute(OWNERS, (json.dumps(list(values)), json.dumps(list(fields)), limit)).fetchall()
