"""Who was in an audience at a moment, for exports: pages by profile, with the profiles' bodies of now.

A moment is the id of a trigger. Most memberships have not changed since; of the others the first trigger after the
moment says what they were.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import orjson

from daemon.store import trigger_log

# Of the profiles after ?2 up to ?3 those that left an audience of ?1 (JSON) first of all after trigger ?4.
LEFT_SINCE: Final = """SELECT json_group_array(json_array(profile_id, audience)) FROM (
    SELECT profile_id, audience, kind, min(id) FROM trigger
    WHERE id > ?4 AND audience IN (SELECT value FROM json_each(?1)) AND profile_id > ?2 AND profile_id <= ?3
    GROUP BY profile_id, audience) WHERE kind = 'exit'"""

# The bodies of profiles that there are, by id (JSON).
BODIES: Final = """SELECT json_group_array(json_array(p.id, p.body))
    FROM json_each(?) AS wanted CROSS JOIN profile AS p ON p.id = wanted.value"""

FIRST_KEPT: Final = "SELECT min(id) FROM trigger"


class MemberPage(NamedTuple):
    """Profiles in order, each with its body and audiences; `read_to` None: it was the last page."""

    members: list[tuple[int, str, list[int]]]
    read_to: int | None


def page(db: sqlite3.Connection, audiences: Collection[int], moment: int, after: int, limit: int) -> MemberPage:
    """Reads about `limit` profiles behind `after` that were members at a moment and are still there."""
    found = trigger_log.members(db, audiences, moment, after, limit)
    of_profile: dict[int, set[int]] = {}
    for member in found.members:
        of_profile.setdefault(member.profile_id, set()).add(member.audience)
    if trigger_log.head(db) > moment:
        wanted = orjson.dumps(sorted(audiences)).decode()
        last = found.read_to if found.read_to is not None else (1 << 63) - 1
        for profile, audience in orjson.loads(db.execute(LEFT_SINCE, (wanted, after, last, moment)).fetchone()[0]):
            of_profile.setdefault(profile, set()).add(audience)
    texts = bodies(db, sorted(of_profile))
    members = [(profile, texts[profile], sorted(of_profile[profile])) for profile in sorted(texts)]
    return MemberPage(members, found.read_to)


def bodies(db: sqlite3.Connection, profiles: Sequence[int]) -> dict[int, str]:
    """Gives the bodies of those profiles that there are."""
    return dict(orjson.loads(db.execute(BODIES, (orjson.dumps(list(profiles)).decode(),)).fetchone()[0]))


def reaches(db: sqlite3.Connection, moment: int) -> bool:
    """Says whether all triggers after a moment are still in the log."""
    first = db.execute(FIRST_KEPT).fetchone()[0]
    return bool(moment + 1 >= first) if first is not None else trigger_log.head(db) <= moment
