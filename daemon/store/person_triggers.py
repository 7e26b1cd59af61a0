"""Everything that the trigger log has of one person, for an archive of all that is held.

The log has no index by profile (each trigger would pay for it), so it is read in spans of ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Final, NamedTuple

import orjson

from daemon.store.trigger_log import head

#: Ids of one read.
SPAN: Final = 50_000

ABSORBED = """SELECT profile_id, merged_into FROM trigger WHERE id > ? AND id <= ? AND merged_into IS NOT NULL
    ORDER BY id DESC"""
OF_PROFILES = """SELECT t.id, t.profile_id, a.slug, a.name, t.kind, t.sequence, t.at_us, t.entered_us, t.until_us,
        t.cause, t.merged_into, t.audience
    FROM trigger t LEFT JOIN audience a ON a.number = t.audience
    WHERE t.id > ?1 AND t.id <= ?2 AND t.profile_id IN (SELECT value FROM json_each(?3)) ORDER BY t.id"""
MEMBERSHIPS = """SELECT a.slug, a.name, m.member, m.sequence, m.entered_us, m.changed_us, m.trigger_id
    FROM membership m LEFT JOIN audience a ON a.number = m.audience WHERE m.profile_id = ? ORDER BY m.audience"""
JOBS = """SELECT s.id, j.id, j.label, j.job_type, j.state, s.audiences, s.events, s.position, s.created_us
    FROM subscription s JOIN job j ON j.id = s.job_id ORDER BY s.created_us, s.id"""


class PersonTrigger(NamedTuple):
    """An enter or exit; `slug` and `name` are of its audience, None when that is no more."""

    id: int
    profile_id: int
    slug: str | None
    name: str | None
    kind: str
    sequence: int
    at_us: int
    entered_us: int
    until_us: int | None
    cause: str
    merged_into: int | None
    audience: int


class PersonMembership(NamedTuple):
    """What is known of the person in one audience; `transitions` counts enters and exits."""

    slug: str | None
    name: str | None
    member: bool
    transitions: int
    entered_us: int
    changed_us: int
    trigger_id: int


class Sender(NamedTuple):
    """A job that sends triggers, and the trigger id up to which it is done with all of them."""

    subscription: str
    job: str
    label: str
    job_type: str
    state: str
    audiences: frozenset[int]
    events: str
    position: int
    created_us: int


def spans(db: sqlite3.Connection) -> list[tuple[int, int]]:
    """Gives the spans of ids that the log is read by, in their order."""
    (first,) = db.execute("SELECT coalesce(min(id), 1) FROM trigger").fetchone()
    last = head(db)
    return [(after, min(last, after + SPAN)) for after in range(first - 1, last, SPAN)]


def absorbed(db: sqlite3.Connection, span: tuple[int, int], into: Collection[int]) -> list[int]:
    """Gives the profiles that ended in one of `into` within a span; ask from the last span to the first."""
    found = set(into)
    for profile_id, merged_into in db.execute(ABSORBED, span):
        if merged_into in found:
            found.add(profile_id)
    return sorted(found)


def triggers(db: sqlite3.Connection, span: tuple[int, int], profiles: Collection[int]) -> list[PersonTrigger]:
    """Gives the triggers of these profiles within a span, in their order."""
    ids = orjson.dumps(sorted(profiles)).decode()
    return [PersonTrigger(*row) for row in db.execute(OF_PROFILES, (*span, ids)).fetchall()]


def memberships(db: sqlite3.Connection, profile_id: int) -> list[PersonMembership]:
    """Gives the memberships of a profile, present and former."""
    rows = db.execute(MEMBERSHIPS, (profile_id,)).fetchall()
    return [PersonMembership(*row)._replace(member=bool(row[2])) for row in rows]


def senders(db: sqlite3.Connection) -> list[Sender]:
    """Gives all jobs that send triggers."""
    return [Sender(*row)._replace(audiences=frozenset(orjson.loads(row[5]))) for row in db.execute(JOBS).fetchall()]
