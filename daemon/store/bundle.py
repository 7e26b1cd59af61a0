"""All that one step of ingest changes, written in one transaction (P2, P3).

Rows stand flat, one after the other, as the multi-row statements take them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from daemon.store import history, rows
from daemon.store.events import Lane

PROFILES = "INSERT INTO profile (id, body)"
PROFILES_TAIL = "ON CONFLICT (id) DO UPDATE SET body = excluded.body"
IDENTITIES = "INSERT INTO identity (field, value, profile_id)"
IDENTITIES_TAIL = "ON CONFLICT (field, value) DO UPDATE SET profile_id = excluded.profile_id"
MEMBERSHIPS = """INSERT INTO membership
    (profile_id, audience, sequence, trigger_id, changed_us, entered_us, member)"""
MEMBERSHIPS_TAIL = """ON CONFLICT (profile_id, audience) DO UPDATE SET sequence = excluded.sequence,
    trigger_id = excluded.trigger_id, changed_us = excluded.changed_us, entered_us = excluded.entered_us,
    member = excluded.member"""
TIMERS = "INSERT INTO timer (profile_id, due_us)"
TIMERS_TAIL = "ON CONFLICT (profile_id) DO UPDATE SET due_us = excluded.due_us"
TRIGGERS = """INSERT INTO trigger (id, commit_id, profile_id, audience, kind, sequence, at_us, entered_us, until_us,
    cause, merged_into, profile_body, origin)"""

FORGET_TIMERS = "DELETE FROM timer WHERE profile_id IN (SELECT value FROM json_each(?))"
FORGET_MEMBERSHIPS = "DELETE FROM membership WHERE profile_id IN (SELECT value FROM json_each(?))"
FORGET_PROFILES = "DELETE FROM profile WHERE id IN (SELECT value FROM json_each(?))"
FORGET_IDENTITIES = """DELETE FROM identity WHERE (field, value) IN
    (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""
RESIZE = """UPDATE audience SET size = size + d.delta
    FROM (SELECT CAST(key AS INTEGER) AS number, value AS delta FROM json_each(?)) d
    WHERE audience.number = d.number AND audience.deleted_us IS NULL"""
MOVE_CURSOR = "UPDATE lane_cursor SET position = ? WHERE lane = ? AND position = ?"
MOVE_PASS = "UPDATE audience SET evaluated_to = ? WHERE number = ?"  # noqa: S105  (a pass over profiles)

LAST_IDS = "SELECT name, seq FROM sqlite_sequence WHERE name IN ('profile', 'trigger', 'history', 'audience', 'rule')"
FIRST_DUE = "SELECT min(due_us) FROM timer"

#: Columns of the flat rows.
MEMBERSHIP_WIDTH = 7
TRIGGER_WIDTH = 13


class CursorMoved(Exception):  # noqa: N818  (says what happened)
    """The stored cursor is not where this bundle begins: what was computed stands on something else."""


@dataclass(slots=True)
class Bundle:
    """What one transaction writes. Empty parts cost nothing."""

    profiles: list[object] = field(default_factory=list)  # id, body
    identities: list[object] = field(default_factory=list)  # field, value, profile id
    memberships: list[object] = field(default_factory=list)  # as in MEMBERSHIPS
    timers: list[object] = field(default_factory=list)  # profile id, due_us
    timers_done: list[int] = field(default_factory=list)
    triggers: list[object] = field(default_factory=list)  # as in TRIGGERS
    origin: str | None = None  # what made these triggers, see `trigger_log`
    gone: list[int] = field(default_factory=list)  # profiles that are no more
    keys_gone: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)  # change of an audience's size
    cursor: tuple[str, int, int] | None = None  # lane, from, to
    passes: dict[int, int | None] = field(default_factory=dict)  # evaluated_to
    history: list[tuple[int, int, str, str]] = field(default_factory=list)  # sequence, at_us, kind, body
    history_extended: tuple[int, str] | None = None  # sequence, body
    work: list[Callable[[sqlite3.Connection], None]] = field(default_factory=list)  # definitions

    @property
    def empty(self) -> bool:
        """Says whether there is nothing to write: every change of a decision or cursor is one of these."""
        return not (self.history or self.history_extended or self.work or self.profiles or self.passes)


def write(db: sqlite3.Connection, bundle: Bundle) -> None:
    """Writes a bundle. Raises CursorMoved when it does not follow on what is stored."""
    if bundle.cursor is not None:
        lane, origin, to = bundle.cursor
        if db.execute(MOVE_CURSOR, (to, lane, origin)).rowcount != 1:
            raise CursorMoved(f"the {lane} cursor is not at {origin}")
    for work in bundle.work:
        work(db)
    if bundle.gone:
        gone = json.dumps(bundle.gone)
        for statement in (FORGET_TIMERS, FORGET_MEMBERSHIPS, FORGET_PROFILES):
            db.execute(statement, (gone,))
    if bundle.keys_gone:
        db.execute(FORGET_IDENTITIES, (json.dumps(bundle.keys_gone),))
    rows.insert(db, PROFILES, PROFILES_TAIL, 2, bundle.profiles)
    rows.insert(db, IDENTITIES, IDENTITIES_TAIL, 3, bundle.identities)
    rows.insert(db, MEMBERSHIPS, MEMBERSHIPS_TAIL, MEMBERSHIP_WIDTH, bundle.memberships)
    if bundle.timers_done:
        db.execute(FORGET_TIMERS, (json.dumps(bundle.timers_done),))
    rows.insert(db, TIMERS, TIMERS_TAIL, 2, bundle.timers)
    if bundle.triggers:
        bundle.triggers[TRIGGER_WIDTH - 1] = bundle.origin
        rows.insert(db, TRIGGERS, "", TRIGGER_WIDTH, bundle.triggers)
    if bundle.sizes:
        db.execute(RESIZE, (json.dumps(bundle.sizes),))
    for number, evaluated_to in bundle.passes.items():
        db.execute(MOVE_PASS, (evaluated_to, number))
    if bundle.history_extended is not None:
        sequence, body = bundle.history_extended
        history.extend(db, sequence, body)
    for decision in bundle.history:
        history.append(db, *decision)


def set_cursors(db: sqlite3.Connection, cursors: Mapping[Lane, int]) -> None:
    """Sets the cursors of a state that was made otherwise than by following the log."""
    for lane, to in cursors.items():
        db.execute("UPDATE lane_cursor SET position = ? WHERE lane = ?", (to, lane))


class Position(NamedTuple):
    """Where ingest stands: all that a new start needs besides the definitions."""

    realtime: int
    bulk: int
    last_profile: int
    last_trigger: int
    last_history: int
    last_audience: int
    last_rule: int
    #: The lane of the last decision when that is a batch, else None.
    open_batch: str | None
    first_due_us: int | None


def position(db: sqlite3.Connection) -> Position:
    """Reads where ingest stands; costs the same whatever the state's size."""
    cursors = dict(db.execute("SELECT lane, position FROM lane_cursor").fetchall())
    ids = dict(db.execute(LAST_IDS).fetchall())
    last = db.execute(history.LAST).fetchone()
    (first_due,) = db.execute(FIRST_DUE).fetchone()
    return Position(
        realtime=cursors["realtime"],
        bulk=cursors["bulk"],
        last_profile=ids.get("profile", 0),
        last_trigger=ids.get("trigger", 0),
        last_history=ids.get("history", 0),
        last_audience=ids.get("audience", 0),
        last_rule=ids.get("rule", 0),
        open_batch=json.loads(last[2])["lane"] if last is not None and last[1] == "batch" else None,
        first_due_us=first_due,
    )
