"""Reading the one trigger log for subscriptions: pages of triggers and members, profile bodies, lag, retention.

Whole pages come back as one row of JSON text (see `database`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import orjson

from streams.trigger import TriggerRow

# The last id ever given out, also when retention has taken all rows.
HEAD = "SELECT seq FROM sqlite_sequence WHERE name = 'trigger'"

# Ids after ?1 up to ?2, of the audiences ?3 (JSON) and the kinds ?4 (JSON), at most ?5.
PAGE = """SELECT json_group_array(json_array(id, commit_id, profile_id, audience, kind, sequence, at_us, entered_us,
        until_us, cause, merged_into, profile_body IS NOT NULL))
    FROM (SELECT * FROM trigger WHERE id > ?1 AND id <= ?2
        AND audience IN (SELECT value FROM json_each(?3)) AND kind IN (SELECT value FROM json_each(?4))
        ORDER BY id LIMIT ?5)"""

# Members of the audiences ?1 (JSON) since trigger ?2 or before, of the profiles after ?3 up to ?4.
MEMBERS = """SELECT json_group_array(json_array(trigger_id, profile_id, audience, entered_us))
    FROM (SELECT m.trigger_id, m.profile_id, m.audience, m.entered_us
        FROM json_each(?1) AS wanted CROSS JOIN membership AS m
        ON m.audience = wanted.value AND m.member = 1 AND m.profile_id > ?3 AND m.profile_id <= ?4
        WHERE m.trigger_id <= ?2 ORDER BY m.profile_id, m.trigger_id)"""

# The same of the profiles ?3 (JSON) alone.
MEMBERS_OF = """SELECT json_group_array(json_array(trigger_id, profile_id, audience, entered_us))
    FROM (SELECT m.trigger_id, m.profile_id, m.audience, m.entered_us
        FROM json_each(?3) AS wanted CROSS JOIN membership AS m ON m.profile_id = wanted.value AND m.member = 1
        WHERE m.audience IN (SELECT value FROM json_each(?1)) AND m.trigger_id <= ?2
        ORDER BY m.profile_id, m.trigger_id)"""

# How many of the first ?3 members of the audience ?1 after the profile ?2 there are, and the last: a page's end.
PAGE_END = """SELECT count(*), max(profile_id) FROM (SELECT profile_id FROM membership
    WHERE audience = ?1 AND member = 1 AND profile_id > ?2 ORDER BY profile_id LIMIT ?3)"""

# Profile bodies by ids (JSON, in the order wanted), as far as ?2 characters reach; at least one.
BODIES = """SELECT json_group_array(json_array(id, body)) FROM (
    SELECT p.id, p.body, sum(length(p.body)) OVER (ORDER BY wanted.key) - length(p.body) AS before
    FROM json_each(?1) AS wanted CROSS JOIN profile AS p ON p.id = wanted.value) WHERE before < ?2"""

# The fields kept with the exits of profiles that are no more, by trigger id.
SNAPSHOTS = """SELECT json_group_array(json_array(id, profile_body)) FROM trigger
    WHERE id IN (SELECT value FROM json_each(?1)) AND profile_body IS NOT NULL"""

# The last fields of profiles that are no more, by profile id.
LAST_SNAPSHOTS = """SELECT json_group_array(json_array(profile_id, profile_body)) FROM (
    SELECT profile_id, profile_body, max(id) FROM trigger
    WHERE profile_id IN (SELECT value FROM json_each(?1)) AND profile_body IS NOT NULL GROUP BY profile_id)"""

# What lies behind ?1 for the audiences ?2 and kinds ?3, counted up to ?4: how many, the oldest.
LAG = """SELECT count(*), min(at_us) FROM (SELECT at_us FROM trigger WHERE id > ?1
    AND audience IN (SELECT value FROM json_each(?2)) AND kind IN (SELECT value FROM json_each(?3))
    ORDER BY id LIMIT ?4)"""
FIRST_WANTED = """SELECT id, at_us FROM trigger WHERE id > ?1
    AND audience IN (SELECT value FROM json_each(?2)) AND kind IN (SELECT value FROM json_each(?3))
    ORDER BY id LIMIT 1"""
FIRST_YOUNGER = "SELECT id FROM trigger WHERE id > ? AND at_us >= ? ORDER BY id LIMIT 1"
COUNT_BETWEEN = """SELECT count(*) FROM trigger WHERE id > ?1 AND id <= ?4
    AND audience IN (SELECT value FROM json_each(?2)) AND kind IN (SELECT value FROM json_each(?3))"""

# The oldest ?3 rows, of them those up to ?1 and older than ?2.
DELETE_OLD = """DELETE FROM trigger WHERE id IN (SELECT id FROM trigger ORDER BY id LIMIT ?3)
    AND id <= ?1 AND at_us < ?2"""

# What was kept of people who were erased, once every cursor has passed it.
HAS_ERASED = """SELECT 1 FROM trigger
    WHERE profile_body IS NOT NULL AND cause = 'erase' AND id <= ? LIMIT 1"""
FORGET_ERASED = """UPDATE trigger SET profile_body = NULL
    WHERE profile_body IS NOT NULL AND cause = 'erase' AND id <= ?"""

#: How many ids one read looks at, wanted or not: a subscription far behind goes through the log in such steps.
SPAN = 50_000

#: Lag is counted up to here; more is said as this many.
LAG_LIMIT = 1_000_000


class Page(NamedTuple):
    """Triggers in order, without their snapshots; all that is wanted up to the id `read_to` is in it.

    `with_snapshot` has the ids of those that have one, `head` is the end of the log.
    """

    triggers: list[TriggerRow]
    with_snapshot: frozenset[int]
    read_to: int
    head: int


class Member(NamedTuple):
    """A membership as the backfill sends it."""

    trigger_id: int
    profile_id: int
    audience: int
    entered_us: int


class MemberPage(NamedTuple):
    """Members in order of profile; all up to the profile `read_to` are in it, None when it was the last page."""

    members: list[Member]
    read_to: int | None


class Filter(NamedTuple):
    """Audiences and kinds as JSON text, as the statements take them."""

    audiences: str
    kinds: str


def make_filter(audiences: Collection[int], kinds: Sequence[str]) -> Filter:
    """Gives the filter of these audiences and kinds."""
    return Filter(orjson.dumps(sorted(audiences)).decode(), orjson.dumps(kinds).decode())


def head(db: sqlite3.Connection) -> int:
    """Gives the last trigger id ever given out, 0 before the first."""
    row = db.execute(HEAD).fetchone()
    return int(row[0]) if row is not None else 0


def page(db: sqlite3.Connection, wanted: Filter, after: int, limit: int) -> Page:
    """Reads up to `limit` triggers after the id `after`, never a part of what one commit changed for one profile.

    (Only a profile that one commit moves in more than `limit` audiences is divided.)
    """
    end = head(db)
    read_to = min(end, after + SPAN)
    text = db.execute(PAGE, (after, read_to, *wanted, limit)).fetchone()[0]
    found = orjson.loads(text)
    triggers = [TriggerRow(*row[:11]) for row in found]
    kept = frozenset(row[0] for row in found if row[11])
    if not triggers or (len(triggers) < limit and read_to == end):
        return Page(triggers, kept, read_to, end)
    # The page ends somewhere inside the log: what it has of the last commit and profile may be a part.
    last = triggers[-1]
    first = next(each for each in triggers if _together(each, last))
    if first.id != triggers[0].id:
        whole = [each for each in triggers if each.id < first.id]
        return Page(whole, kept, first.id - 1, end)
    if len(triggers) == limit:
        return Page(triggers, kept, last.id, end)
    if first.id > after + 1:
        return Page([], frozenset(), first.id - 1, end)
    return Page(triggers, kept, read_to, end)


def _together(one: TriggerRow, other: TriggerRow) -> bool:
    return one.commit_id == other.commit_id and one.profile_id == other.profile_id


def members(
    db: sqlite3.Connection, audiences: Collection[int], up_to_trigger: int, after: int, limit: int
) -> MemberPage:
    """Reads the memberships of about `limit` profiles after `after` that have not changed since `up_to_trigger`."""
    ends = []
    for audience in audiences:
        count, last = db.execute(PAGE_END, (audience, after, limit)).fetchone()
        if count == limit:
            ends.append(last)
    read_to = min(ends) if ends else None
    wanted = orjson.dumps(sorted(audiences)).decode()
    last_profile = read_to if read_to is not None else 2**63 - 1
    text = db.execute(MEMBERS, (wanted, up_to_trigger, after, last_profile)).fetchone()[0]
    return MemberPage([Member(*row) for row in orjson.loads(text)], read_to)


def members_of(
    db: sqlite3.Connection, audiences: Collection[int], up_to_trigger: int, profile_ids: Collection[int]
) -> list[Member]:
    """Reads the memberships of these profiles that have not changed since `up_to_trigger`."""
    wanted = orjson.dumps(sorted(audiences)).decode()
    among = orjson.dumps(sorted(profile_ids)).decode()
    text = db.execute(MEMBERS_OF, (wanted, up_to_trigger, among)).fetchone()[0]
    return [Member(*row) for row in orjson.loads(text)]


class Bodies(NamedTuple):
    """Profiles' bodies by profile id, and kept snapshots by trigger id. A profile without fields kept has None."""

    profiles: dict[int, str | None]
    snapshots: dict[int, str]


def bodies(db: sqlite3.Connection, profile_ids: Sequence[int], snapshots: Sequence[int], budget: int) -> Bodies:
    """Reads profile bodies by id, and the snapshots of the trigger ids `snapshots`, at one moment.

    Bodies come in the order of `profile_ids` as far as `budget` characters reach, at least one; what it did not reach
    is absent. A profile that is no more gives the last fields kept of it.
    """
    found: dict[int, str | None] = {}
    if profile_ids:
        found |= _pairs(db, BODIES, orjson.dumps(list(profile_ids)).decode(), budget)
        spent = sum(len(body or "") for body in found.values())
        reached = len(profile_ids)
        if spent >= budget:
            reached = max(at for at, each in enumerate(profile_ids) if each in found)
        gone = [each for each in profile_ids[:reached] if each not in found]
        if gone:
            found |= dict.fromkeys(gone)
            found |= _pairs(db, LAST_SNAPSHOTS, orjson.dumps(gone).decode())
    kept = _pairs(db, SNAPSHOTS, orjson.dumps(list(snapshots)).decode()) if snapshots else {}
    return Bodies(found, kept)


def _pairs(db: sqlite3.Connection, statement: str, *values: Any) -> dict[int, str]:
    return dict(orjson.loads(db.execute(statement, values).fetchone()[0]))


def lag(db: sqlite3.Connection, wanted: Filter, position: int) -> tuple[int, int | None]:
    """Counts the wanted triggers after `position` (at most LAG_LIMIT) and gives the time of the oldest."""
    count, oldest_us = db.execute(LAG, (position, *wanted, LAG_LIMIT)).fetchone()
    return count, oldest_us


def first_wanted(db: sqlite3.Connection, wanted: Filter, position: int) -> tuple[int, int] | None:
    """Gives id and time of the first wanted trigger after `position`."""
    row: tuple[int, int] | None = db.execute(FIRST_WANTED, (position, *wanted)).fetchone()
    return row


def older_than(db: sqlite3.Connection, wanted: Filter, position: int, before_us: int) -> tuple[int, int]:
    """Gives where a cursor that drops all before `before_us` would stand, and how many wanted triggers that skips."""
    row = db.execute(FIRST_YOUNGER, (position, before_us)).fetchone()
    moved = row[0] - 1 if row is not None else max(head(db), position)
    skipped = db.execute(COUNT_BETWEEN, (position, *wanted, moved)).fetchone()[0]
    return moved, skipped


def has_erased(db: sqlite3.Connection, up_to: int) -> bool:
    """Says whether `forget_erased` would find anything."""
    return db.execute(HAS_ERASED, (up_to,)).fetchone() is not None


def forget_erased(db: sqlite3.Connection, up_to: int) -> int:
    """Takes the last fields of erased people away from the triggers up to the id `up_to`; says from how many."""
    return db.execute(FORGET_ERASED, (up_to,)).rowcount


def delete_old(db: sqlite3.Connection, up_to: int, before_us: int, limit: int) -> int:
    """Deletes of the oldest `limit` triggers those up to the id `up_to` and before `before_us`; says how many."""
    return db.execute(DELETE_OLD, (up_to, before_us, limit)).rowcount
