"""Which queries and merge guards mapped which events: their versions, by the positions for which they held."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

import orjson

from daemon.store.definitions import QueryRow
from daemon.store.events import LANES, Lane
from daemon.store.guards import GuardRow
from daemon.store.schema_versions import decided, in_order

CHANGES: Final = """SELECT sequence, kind, body FROM history
    WHERE kind IN ('query', 'query_deleted', 'revert', 'merge_guard') ORDER BY sequence"""
# Batches of a lane stand in order, so the last one before a decision says how far the lane had come by then.
UPTO: Final = """SELECT json_extract(body, '$.upto') FROM history
    WHERE kind = 'batch' AND sequence < ? AND json_extract(body, '$.lane') = ? ORDER BY sequence DESC LIMIT 1"""

#: Beyond every position.
END: Final = (1 << 63) - 1


class Version(NamedTuple):
    """The queries, in the order of their making, and guards that mapped the events up to these positions by lane."""

    queries: tuple[QueryRow, ...]
    guards: tuple[GuardRow, ...]
    upto: dict[Lane, int]


def versions(db: sqlite3.Connection) -> list[Version]:
    """Gives the versions in their order; the last one holds without end. Sets that mapped nothing are left out."""
    found: list[Version] = []
    queries: dict[str, QueryRow] = {}
    guards: dict[int, GuardRow] = {}
    before: dict[Lane, int] = dict.fromkeys(LANES, 0)
    for sequence, kind, text in db.execute(CHANGES).fetchall():
        upto = {lane: _upto(db, sequence, lane) for lane in LANES}
        if upto != before:
            found.append(Version(tuple(in_order(queries)), tuple(guards.values()), upto))
            before = upto
        body = orjson.loads(text)
        decided(queries, kind, body)
        if kind == "merge_guard":
            guards = {number: row for number, row in guards.items() if number not in body["removed"]}
            guards |= {row["id"]: GuardRow(**row) for row in body["added"]}
    found.append(Version(tuple(in_order(queries)), tuple(guards.values()), dict.fromkeys(LANES, END)))
    return found


def _upto(db: sqlite3.Connection, sequence: int, lane: Lane) -> int:
    row = db.execute(UPTO, (sequence, lane)).fetchone()
    return 0 if row is None else int(row[0])
