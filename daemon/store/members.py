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

# The profiles after ?3 up to ?4 whose membership in the audience ?1 has not changed since trigger ?2, in order.
UNCHANGED: Final = """SELECT json_group_array(profile_id) FROM (SELECT profile_id FROM membership
    WHERE audience = ?1 AND member = 1 AND profile_id > ?3 AND profile_id <= ?4 AND trigger_id <= ?2
    ORDER BY profile_id)"""

# Of the profiles after ?2 up to ?3 those that left an audience of ?1 (JSON) first of all after trigger ?4.
LEFT_SINCE: Final = """SELECT json_group_array(json_array(profile_id, audience)) FROM (
    SELECT profile_id, audience, kind, min(id) FROM trigger
    WHERE id > ?4 AND audience IN (SELECT value FROM json_each(?1)) AND profile_id > ?2 AND profile_id <= ?3
    GROUP BY profile_id, audience) WHERE kind = 'exit'"""

# The bodies of the profiles with these ids (JSON) that there are: ids, and texts, a line each (no line end stands in
# them). Joined as text and not as JSON they need not be escaped to be parsed twice.
BODIES: Final = """SELECT json_group_array(p.id), group_concat(p.body, char(10))
    FROM json_each(?) AS wanted CROSS JOIN profile AS p ON p.id = wanted.value"""

FIRST_KEPT: Final = "SELECT min(id) FROM trigger"


class MemberPage(NamedTuple):
    """Profiles in order, each with its body and audiences; `read_to` None: it was the last page."""

    members: list[tuple[int, str, list[int]]]
    read_to: int | None


def page(db: sqlite3.Connection, audiences: Collection[int], moment: int, after: int, limit: int) -> MemberPage:
    """Reads about `limit` profiles behind `after` that were members at a moment and are still there."""
    ends = [db.execute(trigger_log.PAGE_END, (audience, after, limit)).fetchone() for audience in audiences]
    read_to = min((last for count, last in ends if count == limit), default=None)
    last = read_to if read_to is not None else (1 << 63) - 1
    of_profile: dict[int, list[int]] = {}
    for audience in sorted(audiences):
        alone = [audience]  # most profiles of a page are in the same audiences: one list for all of them
        for profile in orjson.loads(db.execute(UNCHANGED, (audience, moment, after, last)).fetchone()[0]):
            others = of_profile.get(profile)
            of_profile[profile] = alone if others is None else [*others, audience]
    if trigger_log.head(db) > moment:
        wanted = orjson.dumps(sorted(audiences)).decode()
        for profile, audience in orjson.loads(db.execute(LEFT_SINCE, (wanted, after, last, moment)).fetchone()[0]):
            of_profile[profile] = sorted({*of_profile.get(profile, ()), audience})
    texts = bodies(db, sorted(of_profile))
    return MemberPage([(profile, text, of_profile[profile]) for profile, text in texts.items()], read_to)


def bodies(db: sqlite3.Connection, profiles: Sequence[int]) -> dict[int, str]:
    """Gives the bodies of those profiles that there are, in their order."""
    numbers, texts = db.execute(BODIES, (orjson.dumps(list(profiles)).decode(),)).fetchone()
    return {} if texts is None else dict(zip(orjson.loads(numbers), texts.split("\n"), strict=True))


def reaches(db: sqlite3.Connection, moment: int) -> bool:
    """Says whether all triggers after a moment are still in the log."""
    first = db.execute(FIRST_KEPT).fetchone()[0]
    return bool(moment + 1 >= first) if first is not None else trigger_log.head(db) <= moment
