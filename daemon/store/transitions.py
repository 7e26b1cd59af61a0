"""How one profile came into an audience and left it, read backwards from the trigger log.

There is no index by profile, which would cost every trigger; the log is looked through in spans of ids, from the last
transition back to the first. `trigger.origin` stands on the first row of a commit and is JSON:

- `{"lane", "after", "upto"}`: the events of a lane behind one position up to another were taken;
- `{"decision"}`: the number of a decision of the history;
- `{"decisions": {audience number: number or null}}`: those that began the passes over all profiles.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final, NamedTuple

import orjson

#: Ids of one read.
SPAN: Final = 50_000

# Of the ids after ?1 up to ?2 those of the profile ?3, or of one that was absorbed by it, in the audience ?4.
_PAGE: Final = """SELECT t.id, t.commit_id, t.profile_id, t.kind, t.sequence, t.at_us, t.entered_us, t.until_us,
        t.cause, t.merged_into, (SELECT origin FROM trigger AS first WHERE first.id = t.commit_id)
    FROM trigger AS t WHERE t.id > ?1 AND t.id <= ?2 AND (t.profile_id = ?3 OR t.merged_into = ?3) AND t.audience = ?4
    ORDER BY t.id DESC LIMIT ?5"""
_FIRST: Final = "SELECT min(id) FROM trigger"
_MESSAGE: Final = "SELECT id FROM trigger WHERE id >= ? AND id <= ? AND profile_id = ? AND commit_id = ?"


class Transition(NamedTuple):
    """One enter or exit; times in microseconds. `profile_id` may be that of a profile which this one absorbed."""

    id: int
    commit_id: int
    profile_id: int
    kind: str
    sequence: int
    at_us: int
    entered_us: int
    until_us: int | None
    cause: str
    merged_into: int | None
    origin: dict[str, Any]


class Transitions(NamedTuple):
    """Transitions, the newest first. `looked_to`: all after this id are given; `first`: the first id in the log."""

    found: list[Transition]
    looked_to: int
    first: int


def page(db: sqlite3.Connection, profile_id: int, audience: int, upto: int, limit: int) -> Transitions:
    """Looks through one span of ids that ends at `upto`, for `limit` transitions at most."""
    (first,) = db.execute(_FIRST).fetchone()
    after = max(0, upto - SPAN)
    rows = db.execute(_PAGE, (after, upto, profile_id, audience, limit)).fetchall()
    found = [Transition._make((*row[:10], orjson.loads(row[10] or "{}"))) for row in rows]
    if len(found) == limit:
        after = found[-1].id - 1
    return Transitions(found, after, upto + 1 if first is None else first)


def message_ids(db: sqlite3.Connection, of: Transition) -> list[int]:
    """Gives the ids of what the same commit changed for the same profile, up to this one: one message has them."""
    rows = db.execute(_MESSAGE, (of.commit_id, of.id, of.profile_id, of.commit_id)).fetchall()
    return [row[0] for row in rows]
