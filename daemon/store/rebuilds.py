"""Queries that are, or were, applied to the past; and the events of the past that they read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import orjson

from daemon.store.bundle import CursorMoved
from daemon.store.events import Lane

_COLUMNS: Final = """id, alias, version, fields, realtime_to, bulk_to, realtime_at, bulk_at, events, lost, state,
    begun_us, ended_us"""
ALL: Final = f"SELECT {_COLUMNS} FROM rebuild ORDER BY id"  # noqa: S608  (a constant)
BEGIN: Final = f"INSERT INTO rebuild ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
ADVANCE: Final = {
    lane: f"""UPDATE rebuild SET {lane}_at = ?, events = events + ?
        WHERE id = ? AND state = 'running' AND {lane}_at = ?"""  # noqa: S608  (constants)
    for lane in ("realtime", "bulk")
}
END: Final = "UPDATE rebuild SET state = ?, ended_us = ? WHERE id = ? AND state = 'running'"

# Of the events after ?1 up to ?2, at most ?3: where they end; and, as JSON, those on the streams ?4.
_PAST: Final = """SELECT max(position), '[' || coalesce(group_concat('[' || position || ',' || received_us || ','
        || json_quote(stream) || ',' || event_us || ',' || coalesce(json_quote(event_id), 'null') || ',' || body
        || ']') FILTER (WHERE stream IN (SELECT value FROM json_each(?4))), '') || ']'
    FROM (SELECT * FROM event_{lane} WHERE position > ?1 AND position <= ?2 ORDER BY position LIMIT ?3)"""
PAST: Final = {lane: _PAST.format(lane=lane) for lane in ("realtime", "bulk")}
_FIRST: Final = "SELECT position, received_us FROM event_{lane} ORDER BY position LIMIT 1"
FIRST: Final = {lane: _FIRST.format(lane=lane) for lane in ("realtime", "bulk")}


class RebuildRow(NamedTuple):
    """A query that is applied to the past; positions of both lanes, times in microseconds since the epoch."""

    id: int
    alias: str
    version: int
    fields: tuple[str, ...]
    realtime_to: int
    bulk_to: int
    realtime_at: int
    bulk_at: int
    events: int
    lost: int
    state: str
    begun_us: int
    ended_us: int | None = None

    @property
    def running(self) -> bool:
        """Whether it is under way."""
        return self.state == "running"

    @property
    def lane(self) -> Lane | None:
        """The lane that it reads next; None when all is read."""
        if self.realtime_at < self.realtime_to:
            return "realtime"
        return "bulk" if self.bulk_at < self.bulk_to else None

    def at(self, lane: Lane) -> int:
        """Gives how far it has come in a lane."""
        return self.realtime_at if lane == "realtime" else self.bulk_at

    def to(self, lane: Lane) -> int:
        """Gives how far it goes in a lane."""
        return self.realtime_to if lane == "realtime" else self.bulk_to

    def advanced(self, lane: Lane, upto: int, events: int) -> RebuildRow:
        """Gives it as it is once the lane's events up to a position are taken, of which so many fed a field."""
        events += self.events
        if lane == "realtime":
            return self._replace(realtime_at=upto, events=events)
        return self._replace(bulk_at=upto, events=events)


def every(db: sqlite3.Connection) -> list[RebuildRow]:
    """Gives all that ever were, in their order."""
    rows = db.execute(ALL).fetchall()
    return [RebuildRow._make((*row[:3], tuple(orjson.loads(row[3])), *row[4:])) for row in rows]


def begin(db: sqlite3.Connection, row: RebuildRow) -> None:
    """Stores a new one."""
    db.execute(BEGIN, (*row[:3], orjson.dumps(row.fields).decode(), *row[4:]))


def advance(db: sqlite3.Connection, row: RebuildRow, lane: Lane, upto: int, events: int) -> None:
    """Notes that it has come from where `row` stands up to a position. Raises CursorMoved when it stood elsewhere."""
    if db.execute(ADVANCE[lane], (upto, events, row.id, row.at(lane))).rowcount != 1:
        raise CursorMoved(f"the rebuilding {row.id} is not at {row.at(lane)} of the {lane} lane")


def end(db: sqlite3.Connection, number: int, state: str, now_us: int) -> None:
    """Notes that one has ended: `done` or `cancelled`."""
    if db.execute(END, (state, now_us, number)).rowcount != 1:
        raise CursorMoved(f"the rebuilding {number} is not under way")


def past(
    db: sqlite3.Connection, lane: Lane, after: int, upto: int, limit: int, streams: Sequence[str]
) -> tuple[int, str]:
    """Looks at `limit` events of (`after`, `upto`]: up to where, and those on these streams as a page's JSON text.

    The page is one of `event_reader`; where the log has nothing more it goes up to `upto`.
    """
    wanted = orjson.dumps(list(streams)).decode()
    last, text = db.execute(PAST[lane], (after, upto, limit, wanted)).fetchone()
    return (upto if last is None else last), text


def firsts(db: sqlite3.Connection) -> dict[Lane, tuple[int, int] | None]:
    """Gives position and time of arrival of each lane's first event that is still in the log."""
    lanes: tuple[Lane, Lane] = ("realtime", "bulk")
    return {lane: db.execute(FIRST[lane]).fetchone() for lane in lanes}


def generations(rows: Iterable[RebuildRow]) -> dict[str, tuple[int, int]]:
    """Gives by field the generation of the states that are shown, and that of those being made, 0 for none."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        for name in row.fields:
            shown, made = found.get(name, (0, 0))
            found[name] = (row.id, made) if row.state == "done" else (shown, row.id if row.running else made)
    return found
