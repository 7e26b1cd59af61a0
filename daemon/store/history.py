"""The decisions in the order in which they held (P10).

Bodies by kind, all JSON objects:

- `batch`: `{"lane", "upto"}`; extended while no other decision comes between.
- `query`: the stored query, or `{"queries": [stored query, …], "deleted": [alias, …]}` when several changed together;
  `query_deleted`: `{"alias"}`; `revert`: `{"to": version, "queries": [all that hold from here]}`. All three may have a
  `description`, and each is a version of the schema (`schema_versions`).
- `audience`: the stored audience; `audience_deleted`: `{"number", "slug"}`.
- `rule`: the stored rule; `rule_deleted`: `{"id"}`. Routing happens before the log, so a replay only reads past them.
- `identity`: the limits of the identity graph that hold from here on (`streams.guards.Limits`).
- `merge_guard`: `{"added": [the stored guard, …], "removed": [id, …]}`.
- `split`: `{"profile", "into", "keys": [[field, value], …], "apart", "at_us"}`, the keys being those of the new
  profile; or `{"profile", "keys", "forget": true}`: that profile may be stitched with its other half again.
  Keys of people who were erased are taken out. The first kind has `"upto": {lane: position}`, what was taken in by
  then, and `"halves": [text of the profile that kept its id, text of the new one]`: what the one begins with in a
  replay when the other is erased; null for who was erased.
- `erase`: `{"profile", "erasure", "hashes": [hash, …], "upto": {lane: position} or null, "splits": [µs, …],
  "scrubbed"}`: the keys as keyed hashes (`streams.tombstones`), up to which events they are kept out (null: for ever),
  the splits that the profile came of, and whether the log is clear of the person.
  Or `{"admitted": [erasure, …], "hashes", "upto"}`: from here on, what comes after `upto` counts.
- `rebuild`: a query begins to be applied to the past: `{"alias", "version", "fields", "realtime", "bulk"}` with the
  positions up to which the past goes; or a step of it: `{"step": number of that decision, "lane", "upto"}`.
- `rebuilt`: the end of it: `{"rebuild": number, "cancelled": bool}`.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, NamedTuple

APPEND = "INSERT INTO history (sequence, at_us, kind, body) VALUES (?, ?, ?, ?)"
EXTEND = "UPDATE history SET body = ? WHERE sequence = ?"
LAST = "SELECT sequence, kind, body FROM history ORDER BY sequence DESC LIMIT 1"
LAST_OF_KIND = "SELECT body FROM history WHERE kind = ? ORDER BY sequence DESC LIMIT 1"
OF_KIND = "SELECT sequence, at_us, kind, body FROM history WHERE kind = ? ORDER BY sequence"
# Decisions about queries, each with the positions up to which the lanes had been taken.
QUERY_DECISIONS = """SELECT sequence, at_us, kind, body, realtime, bulk FROM (SELECT sequence, at_us, kind, body,
        coalesce(max(CASE WHEN kind = 'batch' AND body ->> 'lane' = 'realtime' THEN body ->> 'upto' END) OVER past, 0)
            AS realtime,
        coalesce(max(CASE WHEN kind = 'batch' AND body ->> 'lane' = 'bulk' THEN body ->> 'upto' END) OVER past, 0)
            AS bulk
        FROM history WINDOW past AS (ORDER BY sequence))
    WHERE kind IN ('query', 'query_deleted', 'revert') ORDER BY sequence"""
DECISION = "SELECT sequence, at_us, kind, body FROM history WHERE sequence = ?"
PAGE = "SELECT sequence, at_us, kind, body FROM history WHERE sequence > ? ORDER BY sequence LIMIT ?"


class Entry(NamedTuple):
    """One decision; times in microseconds since the epoch."""

    sequence: int
    at_us: int
    kind: str
    body: dict[str, Any]


class QueryDecision(NamedTuple):
    """A decision about queries; it holds for what comes behind the positions."""

    sequence: int
    at_us: int
    kind: str
    body: dict[str, Any]
    realtime: int
    bulk: int


def append(db: sqlite3.Connection, sequence: int, at_us: int, kind: str, body: str) -> None:
    """Adds a decision with the given number, which must be new."""
    db.execute(APPEND, (sequence, at_us, kind, body))


def extend(db: sqlite3.Connection, sequence: int, body: str) -> None:
    """Replaces the body of the last decision, a batch that goes on."""
    db.execute(EXTEND, (body, sequence))


def last_of_kind(db: sqlite3.Connection, kind: str) -> dict[str, Any] | None:
    """Gives the body of the newest decision of a kind."""
    row = db.execute(LAST_OF_KIND, (kind,)).fetchone()
    return None if row is None else json.loads(row[0])


def of_kind(db: sqlite3.Connection, kind: str) -> list[Entry]:
    """Gives all decisions of a kind, in order; reads past all others."""
    rows = db.execute(OF_KIND, (kind,)).fetchall()
    return [Entry(sequence, at_us, kind, json.loads(body)) for sequence, at_us, kind, body in rows]


def page(db: sqlite3.Connection, after: int, limit: int) -> list[Entry]:
    """Gives up to `limit` decisions after the number `after`, in order."""
    rows = db.execute(PAGE, (after, limit)).fetchall()
    return [Entry(sequence, at_us, kind, json.loads(body)) for sequence, at_us, kind, body in rows]


def one(db: sqlite3.Connection, sequence: int) -> Entry | None:
    """Gives the decision with a number, None when there is none."""
    row = db.execute(DECISION, (sequence,)).fetchone()
    return None if row is None else Entry(row[0], row[1], row[2], json.loads(row[3]))


def query_decisions(db: sqlite3.Connection) -> list[QueryDecision]:
    """Gives all decisions about queries, in order."""
    rows = db.execute(QUERY_DECISIONS).fetchall()
    return [QueryDecision._make((*row[:3], json.loads(row[3]), *row[4:])) for row in rows]
