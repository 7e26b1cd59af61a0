"""Many rows in one step: multi-row VALUES, prepared in a few sizes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache

#: Rows of one statement, largest first; few sizes, so that each is prepared once and kept.
SIZES = (512, 64, 8, 1)


@lru_cache(maxsize=256)
def _statement(head: str, tail: str, columns: int, rows: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return f"{head} VALUES {','.join([row] * rows)} {tail}"


def insert(db: sqlite3.Connection, head: str, tail: str, columns: int, flat: Sequence[object]) -> None:
    """Inserts the rows that stand one after the other in `flat`, `columns` values each.

    `head` is the statement before VALUES, `tail` what stands behind (ON CONFLICT …).
    """
    at, left = 0, len(flat) // columns
    for size in SIZES:
        if left < size:
            continue
        statement = _statement(head, tail, columns, size)
        width = size * columns
        while left >= size:
            db.execute(statement, flat[at : at + width])
            at += width
            left -= size
