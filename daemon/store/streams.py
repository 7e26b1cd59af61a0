"""What people see of streams: counts, fields, recent events, and what was refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from daemon.store.events import LANES, Lane

_COUNT: Final = """
INSERT INTO stream (name, first_us, last_us, events, duplicates, rejects)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 FROM json_each(?) WHERE true
ON CONFLICT (name) DO UPDATE SET last_us = max(last_us, excluded.last_us), events = events + excluded.events,
    duplicates = duplicates + excluded.duplicates, rejects = rejects + excluded.rejects"""
_COUNTED: Final = "UPDATE stream_counted SET position = ? WHERE lane = ?"
_UNCOUNTED: Final = "SELECT lane, position FROM stream_counted"
_RECOUNT: Final = {
    lane: f"""
SELECT stream, count(*), max(received_us) FROM event_{lane} WHERE position > ? AND position <= ? GROUP BY stream"""  # noqa: S608
    for lane in LANES
}
_FIELDS: Final = """
INSERT INTO stream_field (stream, field, kind, first_us, last_us)
SELECT value->>0, value->>1, value->>2, value->>3, value->>3 FROM json_each(?) WHERE true
ON CONFLICT (stream, field) DO UPDATE SET last_us = max(last_us, excluded.last_us),
    kind = CASE kind WHEN 'null' THEN excluded.kind ELSE kind END"""
_REJECT: Final = """
INSERT INTO reject (at_us, stream, place, message, sample, request_id)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 FROM json_each(?)"""
_TRIM: Final = "DELETE FROM reject WHERE id <= (SELECT max(id) FROM reject) - ?"
_FORGET_REJECTS: Final = """
DELETE FROM reject
 WHERE id < coalesce((SELECT min(id) FROM reject WHERE at_us >= ?), (SELECT max(id) + 1 FROM reject))"""

_STREAMS: Final = "SELECT name, first_us, last_us, events, duplicates, rejects FROM stream"
_FIELDS_OF: Final = "SELECT field, kind, first_us, last_us FROM stream_field WHERE stream = ? ORDER BY field"
_KNOWN: Final = """
SELECT s.name, json_group_object(f.field, f.last_us) FILTER (WHERE f.field IS NOT NULL)
  FROM stream AS s LEFT JOIN (SELECT * FROM stream_field LIMIT ?) AS f ON f.stream = s.name GROUP BY s.name"""
_RECENT: Final = """
SELECT coalesce(json_group_array(json_array(lane, position, received_us, event_us, event_id, json(body))), '[]') FROM (
    SELECT * FROM (
        SELECT 'realtime' AS lane, * FROM (SELECT * FROM event_realtime ORDER BY position DESC LIMIT ?2)
         UNION ALL
        SELECT 'bulk' AS lane, * FROM (SELECT * FROM event_bulk ORDER BY position DESC LIMIT ?2))
     WHERE stream = ?1 ORDER BY received_us DESC, position DESC LIMIT ?3)"""
_REJECTS: Final = """
SELECT id, at_us, place, message, sample, request_id FROM reject
 WHERE stream = ? AND id < ? ORDER BY id DESC LIMIT ?"""

#: Recent events are looked for among this many of each lane, so that a rare stream costs no scan of the log.
LOOK_BACK: Final = 20_000


class Counts(NamedTuple):
    """What one stream got since the last time; times in microseconds since the epoch."""

    name: str
    first_us: int
    last_us: int
    events: int
    duplicates: int
    rejects: int


class Stream(NamedTuple):
    """A stream, counted since its first event."""

    name: str
    first_us: int
    last_us: int
    events: int
    duplicates: int
    rejects: int


class StreamField(NamedTuple):
    """A field of a stream; nested ones have dotted names. `kind` is that of the first value that was not null."""

    field: str
    kind: str
    first_us: int
    last_us: int


class RecentEvent(NamedTuple):
    """An event as accepted."""

    lane: str
    position: int
    received_us: int
    event_us: int
    event_id: str | None
    body: dict[str, Any]


class Reject(NamedTuple):
    """Something refused: when, where it stood ("index 3", "line 7", "body"), why, and how it began."""

    id: int
    at_us: int
    place: str
    message: str
    sample: str
    request_id: str


#: What is stored of a refusal: at_us, stream, place, message, sample, request_id.
RejectRow = tuple[int, str, str, str, str, str]

#: What is stored of a field seen: stream, field, kind, seen_us.
FieldRow = tuple[str, str, str, int]


def counted(db: sqlite3.Connection) -> dict[Lane, int]:
    """Gives the positions up to which the counts know the events: a process that was killed had the rest in memory."""
    return dict(db.execute(_UNCOUNTED).fetchall())


def recount(db: sqlite3.Connection, lane: Lane, after: int, upto: int) -> list[tuple[str, int, int]]:
    """Gives streams, with their numbers of events and the last arrivals, of some positions."""
    return db.execute(_RECOUNT[lane], (after, upto)).fetchall()


def note(
    db: sqlite3.Connection,
    counts: Sequence[Counts],
    fields: Sequence[FieldRow],
    rejects: Sequence[RejectRow],
    *,
    heads: Mapping[Lane, int],
    keep: int,
) -> None:
    """Adds what was seen of events up to the positions `heads`; of the rejects of all streams the last `keep` stay."""
    if counts:
        db.execute(_COUNT, (_json(counts),))
        for lane, position in heads.items():
            db.execute(_COUNTED, (position, lane))
    if fields:
        db.execute(_FIELDS, (_json(fields),))
    if rejects:
        db.execute(_REJECT, (_json(rejects),))
        db.execute(_TRIM, (keep,))


def forget_rejects(db: sqlite3.Connection, before_us: int) -> None:
    """Deletes rejects older than `before_us`."""
    db.execute(_FORGET_REJECTS, (before_us,))


def streams(db: sqlite3.Connection) -> list[Stream]:
    """Gives all streams by name."""
    return [Stream(*row) for row in db.execute(f"{_STREAMS} ORDER BY name").fetchall()]


def known(db: sqlite3.Connection, most_fields: int) -> dict[str, dict[str, int]]:
    """Gives every stream with its fields and when each was last seen, at most so many fields in all."""
    return {name: orjson.loads(found or "{}") for name, found in db.execute(_KNOWN, (most_fields,)).fetchall()}


def stream(db: sqlite3.Connection, name: str) -> Stream | None:
    """Gives one stream; None when nothing ever came on it."""
    row = db.execute(f"{_STREAMS} WHERE name = ?", (name,)).fetchone()
    return None if row is None else Stream(*row)


def fields(db: sqlite3.Connection, name: str) -> list[StreamField]:
    """Gives the fields seen on a stream, by name."""
    return [StreamField(*row) for row in db.execute(_FIELDS_OF, (name,)).fetchall()]


def recent(db: sqlite3.Connection, name: str, limit: int) -> list[RecentEvent]:
    """Gives the last events of a stream, the newest first, as far as they are among the last of their lane."""
    (text,) = db.execute(_RECENT, (name, LOOK_BACK, limit)).fetchone()
    return [RecentEvent(*row) for row in orjson.loads(text)]


def rejects(db: sqlite3.Connection, name: str, before: int, limit: int) -> list[Reject]:
    """Gives what was refused on a stream, the newest first, of ids below `before`."""
    return [Reject(*row) for row in db.execute(_REJECTS, (name, before, limit)).fetchall()]


def _json(values: Sequence[tuple[Any, ...]]) -> str:
    return orjson.dumps([tuple(each) for each in values]).decode()
