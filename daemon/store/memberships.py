"""Who is in which audience: reads for people, for backfills and for the replay's comparison."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

OF_PROFILE = """SELECT audience, sequence, trigger_id, changed_us, entered_us, member FROM membership
    WHERE profile_id = ? ORDER BY audience"""
MEMBERS = """SELECT profile_id FROM membership WHERE audience = ? AND member = 1 AND profile_id > ?
    ORDER BY profile_id LIMIT ?"""
SIZES = "SELECT number, size FROM audience WHERE deleted_us IS NULL"
PURGE = "DELETE FROM membership WHERE audience = ? AND profile_id > ? AND profile_id <= ?"


class Membership(NamedTuple):
    """One profile in one audience; `sequence` odd means member."""

    audience: int
    sequence: int
    trigger_id: int
    changed_us: int
    entered_us: int
    member: bool


def of_profile(db: sqlite3.Connection, profile_id: int) -> list[Membership]:
    """Gives what is known of a profile's memberships, former ones too."""
    rows = db.execute(OF_PROFILE, (profile_id,)).fetchall()
    return [Membership(*row)._replace(member=bool(row[5])) for row in rows]


def members(db: sqlite3.Connection, audience: int, after: int, limit: int) -> list[int]:
    """Gives up to `limit` profile ids of members after the id `after`, ascending."""
    return [row[0] for row in db.execute(MEMBERS, (audience, after, limit)).fetchall()]


def sizes(db: sqlite3.Connection) -> dict[int, int]:
    """Gives the number of members of every audience by its number."""
    return dict(db.execute(SIZES).fetchall())


def purge(db: sqlite3.Connection, audience: int, after: int, upto: int) -> None:
    """Takes a deleted audience's rows away for the profiles in (`after`, `upto`]."""
    db.execute(PURGE, (audience, after, upto))
