"""The log: appending events, their ids, retention, and what the file holds.

Reading it in order is `daemon.store.event_reader`; what people see of streams is `daemon.store.streams`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, NamedTuple, cast

import orjson

from daemon.store import import_checkpoints
from daemon.store.import_checkpoints import Checkpoint

Lane = Literal["realtime", "bulk"]
LANES: Final[tuple[Lane, ...]] = ("realtime", "bulk")

_COLUMNS: Final = 5

#: Rows of one statement. Smaller numbers have a statement each: what a moment of single requests brings is one step.
_MANY: Final = 256
_SOME: Final = 64

# Which of these ids of a stream are known and within the window. CROSS JOIN: look each one up, do not scan the keys.
_KNOWN: Final = """
SELECT coalesce(json_group_array(given.value), '[]') FROM json_each(?) AS given CROSS JOIN event_key AS k
 WHERE k.stream = ? AND k.event_id = given.value AND k.seen_us > ?"""
_REMEMBER: Final = """
INSERT INTO event_key (stream, event_id, seen_us) SELECT ?, value, ? FROM json_each(?) WHERE true
ON CONFLICT (stream, event_id) DO UPDATE SET seen_us = excluded.seen_us"""

_HEADS: Final = """
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event_realtime'), 0),
       coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event_bulk'), 0)"""

# The first event that stays, among the next few; those before it go. Positions beyond the cursor are never looked at.
_KEPT: Final = {
    lane: f"""
SELECT coalesce(min(CASE WHEN received_us >= ?1 THEN position END), max(position) + 1), count(*)
  FROM (SELECT position, received_us FROM event_{lane} WHERE position <= ?2 ORDER BY position LIMIT ?3)"""  # noqa: S608
    for lane in LANES
}
_FORGET: Final = {lane: f"DELETE FROM event_{lane} WHERE position < ?" for lane in LANES}  # noqa: S608
_FORGET_KEYS: Final = """
DELETE FROM event_key WHERE (stream, event_id) IN
    (SELECT stream, event_id FROM event_key WHERE seen_us <= ? ORDER BY seen_us LIMIT ?)"""


@dataclass(slots=True)
class Batch:
    """Events that are appended together; `flat` has received_us, stream, event_us, event_id, body of each in turn.

    `keyed` says that some have an id, or that `checkpoint`, which goes into the same transaction, is given.
    """

    flat: list[object] = field(default_factory=list)
    keyed: bool = False
    checkpoint: Checkpoint | None = None


class Appended(NamedTuple):
    """What became of batches: the last position used (0 when none was), and the duplicates of each batch."""

    last: int
    duplicates: list[int]


def append_alone(db: sqlite3.Connection, lane: Lane, batches: Sequence[Batch], forgotten_us: int) -> Appended:
    """Does `append` as a transaction of its own, to be given a connection without one.

    Events without ids that fit one statement are that statement alone: each statement more gives up the interpreter
    lock and waits for it again, which beside a busy event loop takes longer than the disk.
    """
    if not any(batch.keyed for batch in batches):
        number = sum(len(batch.flat) for batch in batches) // _COLUMNS
        if number <= _SOME or number == _MANY:
            return append(db, lane, batches, forgotten_us)
    db.execute("BEGIN IMMEDIATE")
    appended = append(db, lane, batches, forgotten_us)
    db.execute("COMMIT")
    return appended


def append(db: sqlite3.Connection, lane: Lane, batches: Sequence[Batch], forgotten_us: int) -> Appended:
    """Appends batches in order, leaving out events whose id was seen after `forgotten_us`, or earlier in here."""
    flat: list[object] = []
    duplicates = [0] * len(batches)
    keyed = [batch for batch in batches if batch.keyed]
    fresh = _fresh_ids(db, keyed, forgotten_us) if keyed else {}
    for number, batch in enumerate(batches):
        if not batch.keyed:
            flat += batch.flat
            continue
        for at in range(0, len(batch.flat), _COLUMNS):
            row = batch.flat[at : at + _COLUMNS]
            event_id = cast("str | None", row[3])
            if event_id is not None:
                ids = fresh[cast("str", row[1])]
                if event_id not in ids:
                    duplicates[number] += 1
                    continue
                ids.discard(event_id)  # the next one with this id, in the same transaction, is a duplicate
            flat += row
    last = 0
    if flat:
        last = _insert(db, lane, flat)
    for batch in keyed:
        if batch.checkpoint is not None:
            import_checkpoints.save(db, batch.checkpoint)
    return Appended(last, duplicates)


def heads(db: sqlite3.Connection) -> dict[Lane, int]:
    """Gives the last position ever used of each lane, also when its event is no more."""
    realtime, bulk = db.execute(_HEADS).fetchone()
    return {"realtime": realtime, "bulk": bulk}


def forget(db: sqlite3.Connection, lane: Lane, before_us: int, cursor: int, limit: int) -> tuple[int, bool]:
    """Deletes up to `limit` events that arrived before `before_us`, never one behind which `cursor` does not stand yet.

    Gives how many went, and whether there may be more.
    """
    kept, seen = db.execute(_KEPT[lane], (before_us, cursor, limit)).fetchone()
    if not seen or kept is None:
        return 0, False
    gone = db.execute(_FORGET[lane], (kept,)).rowcount
    return gone, gone >= limit


def forget_keys(db: sqlite3.Connection, until_us: int, limit: int) -> bool:
    """Deletes up to `limit` event ids seen at `until_us` or before; says whether there may be more."""
    return db.execute(_FORGET_KEYS, (until_us, limit)).rowcount >= limit


def probe(db: sqlite3.Connection) -> None:
    """Writes something and takes it back, to find out whether the log can be written."""
    db.execute("INSERT OR REPLACE INTO event_key (stream, event_id, seen_us) VALUES ('', '', 0)")
    db.execute("DELETE FROM event_key WHERE stream = '' AND event_id = ''")


def free_bytes(db: sqlite3.Connection) -> int:
    """Gives the bytes within the file that can be used again."""
    (pages,) = db.execute("PRAGMA freelist_count").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(size)


def _insert(db: sqlite3.Connection, lane: Lane, flat: list[object]) -> int:
    at, left = 0, len(flat) // _COLUMNS
    last: int | None = 0
    while left:
        size = _MANY if left >= _MANY else min(left, _SOME)
        values = flat if size == left and not at else flat[at : at + size * _COLUMNS]
        last = db.execute(_statement(lane, size), values).lastrowid
        at += size * _COLUMNS
        left -= size
    return last or 0


@lru_cache(maxsize=2 * (_SOME + 1))
def _statement(lane: Lane, size: int) -> str:
    values = ",".join(["(?,?,?,?,?)"] * size)
    return f"INSERT INTO event_{lane} (received_us, stream, event_us, event_id, body) VALUES {values}"  # noqa: S608


def _fresh_ids(db: sqlite3.Connection, batches: Sequence[Batch], forgotten_us: int) -> dict[str, set[str]]:
    """Gives the ids not seen within the window, by stream, and remembers them."""
    given: dict[str, dict[str, int]] = {}
    for batch in batches:
        for at in range(0, len(batch.flat), _COLUMNS):
            if (event_id := cast("str | None", batch.flat[at + 3])) is not None:
                stream = cast("str", batch.flat[at + 1])
                given.setdefault(stream, {}).setdefault(event_id, cast("int", batch.flat[at]))
    fresh: dict[str, set[str]] = {}
    for stream, ids in given.items():
        (known,) = db.execute(_KNOWN, (orjson.dumps(list(ids)).decode(), stream, forgotten_us)).fetchone()
        fresh[stream] = ids.keys() - set(orjson.loads(known))
        if fresh[stream]:
            # In order, so that neighbours in the tree are written together.
            text = orjson.dumps(sorted(fresh[stream])).decode()
            db.execute(_REMEMBER, (stream, max(ids.values()), text))
    return fresh
