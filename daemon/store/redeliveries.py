"""Messages that somebody asked for again, until they are sent.

What is sent again is the last word on a person and an audience alone: a trigger after which another came for the same
person and audience is passed over, since the destination has heard, or will hear, the newer one. So it is made of the
membership, which outlives the trigger log; only of people who are no more it is made of the trigger.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from daemon.model.subscription import Wanted
from streams.trigger import TriggerRow

ADD = """INSERT INTO redelivery (job_id, profile_id, first_id, last_id, asked_us)
    SELECT ?1, value->>0, value->>1, value->>2, ?2 FROM json_each(?3) WHERE true ON CONFLICT DO NOTHING"""
WAITING = "SELECT count(*) FROM redelivery WHERE job_id = ?"
JOBS = "SELECT DISTINCT job_id FROM redelivery"
DONE = "DELETE FROM redelivery WHERE id IN (SELECT value FROM json_each(?))"
PAGE = "SELECT id, profile_id, first_id, last_id FROM redelivery WHERE job_id = ? AND id > ? ORDER BY id LIMIT ?"

# Of the rows ?1 (JSON: id, profile, first, last) the memberships whose last transition is among their triggers.
_LAST: Final = """SELECT given.value->>0, m.trigger_id, m.profile_id, m.audience, m.member, m.sequence, m.changed_us,
        m.entered_us
    FROM json_each(?1) AS given CROSS JOIN membership AS m ON m.profile_id = given.value->>1
        AND m.trigger_id BETWEEN given.value->>2 AND given.value->>3
    WHERE m.audience IN (SELECT value FROM json_each(?2)) ORDER BY given.key, m.trigger_id"""
# The exits of profiles that are no more.
_GONE: Final = """SELECT given.value->>0, t.id, t.commit_id, t.profile_id, t.audience, t.kind, t.sequence, t.at_us,
        t.entered_us, t.until_us, t.cause, t.merged_into, t.profile_body IS NOT NULL
    FROM json_each(?1) AS given CROSS JOIN trigger AS t ON t.id BETWEEN given.value->>2 AND given.value->>3
        AND t.profile_id = given.value->>1
    WHERE t.kind = 'exit' AND t.audience IN (SELECT value FROM json_each(?2))
        AND NOT EXISTS (SELECT 1 FROM profile WHERE profile.id = t.profile_id) ORDER BY given.key, t.id"""

# Messages of attempts from ?2 on, behind the message ?3. What was omitted or failed, and delivered later, is left out.
FROM_DELIVERIES = """SELECT m.id, m.profile_id, m.first_id, m.last_id, d.id FROM delivery AS d
    CROSS JOIN delivery_message AS m ON m.delivery = d.id
    WHERE d.job_id = ?1 AND d.id >= ?2 AND m.id > ?3 AND d.at_us >= ?4 AND d.at_us < ?5
        AND d.outcome IN (SELECT value FROM json_each(?6)) AND (?8 IS NULL OR d.id = ?8)
        AND (d.outcome = 'delivered' OR NOT EXISTS (SELECT 1 FROM delivery_message AS later
            JOIN delivery AS l ON l.id = later.delivery
            WHERE later.profile_id = m.profile_id AND later.id > m.id AND later.first_id = m.first_id
                AND l.job_id = ?1 AND l.outcome = 'delivered'))
    ORDER BY d.id, m.id LIMIT ?7"""
FROM_LOG = """SELECT max(id), profile_id, min(id), max(id) FROM (SELECT id, commit_id, profile_id FROM trigger
    WHERE id > ?1 AND id <= ?2 AND audience IN (SELECT value FROM json_each(?3))
        AND kind IN (SELECT value FROM json_each(?4)) ORDER BY id LIMIT ?5)
    GROUP BY commit_id, profile_id ORDER BY 1"""
FIRST_TRIGGER = "SELECT min(id) FROM trigger"


class Asked(NamedTuple):
    """A message asked for again: what of it is still the last word, maybe nothing.

    `snapshot` is the trigger with the last fields of a profile that is no more.
    """

    id: int
    triggers: list[TriggerRow]
    snapshot: int | None


class Page(NamedTuple):
    """Messages asked for again, in the order of asking."""

    rows: list[Asked]


class Found(NamedTuple):
    """A message that could be asked for again; `place` is where a search goes on from."""

    place: int
    profile_id: int
    first_id: int
    last_id: int


def add(db: sqlite3.Connection, job_id: str, found: Sequence[Found], now_us: int) -> int:
    """Asks for messages again; one that is asked for already is not asked for twice. Says how many are new."""
    return db.execute(ADD, (job_id, now_us, orjson.dumps([each[1:] for each in found]).decode())).rowcount


def waiting(db: sqlite3.Connection, job_id: str) -> int:
    """Gives how many messages wait to be sent again."""
    return int(db.execute(WAITING, (job_id,)).fetchone()[0])


def jobs(db: sqlite3.Connection) -> set[str]:
    """Gives the jobs that have messages to send again."""
    return {row[0] for row in db.execute(JOBS).fetchall()}


def done(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Forgets what was sent again."""
    db.execute(DONE, (orjson.dumps(list(ids)).decode(),))


def page(db: sqlite3.Connection, job_id: str, wanted: Wanted, after: int, limit: int) -> Page:
    """Gives what a job is asked to send again, with ids after `after`."""
    rows = db.execute(PAGE, (job_id, after, limit)).fetchall()
    found = last_words(db, [Found(*row) for row in rows], wanted) if rows else {}
    return Page([found[row[0]] for row in rows])


def last_words(db: sqlite3.Connection, found: Sequence[Found], wanted: Wanted) -> dict[int, Asked]:
    """Gives by place what of messages is still the last word on a person and a wanted audience."""
    given = _json(found)
    audiences = orjson.dumps(sorted(wanted.audiences)).decode()
    kinds = wanted.events.kinds
    asked = {each.place: Asked(each.place, [], None) for each in found}
    for place, *row in db.execute(_LAST, (given, audiences)).fetchall():
        trigger = _of_membership(row)
        if trigger.kind in kinds:
            asked[place].triggers.append(trigger)
    empty = [each for each in found if not asked[each.place].triggers]
    if empty and "exit" in kinds:
        for place, *row in db.execute(_GONE, (_json(empty), audiences)).fetchall():
            asked[place].triggers.append(TriggerRow(*row[:11]))
            if row[11]:
                asked[place] = asked[place]._replace(snapshot=row[0])
    return asked


def of_deliveries(
    db: sqlite3.Connection,
    job_id: str,
    *,
    place: tuple[int, int] = (0, 0),
    after_us: int = 0,
    before_us: int = 2**62,
    outcomes: Sequence[str],
    limit: int,
    only: int | None = None,
) -> tuple[list[Found], tuple[int, int]]:
    """Gives messages of attempts of these times and outcomes (or of the attempt `only`), in the order of the attempts.

    With them comes the place to go on from.
    """
    among = orjson.dumps(list(outcomes)).decode()
    rows = db.execute(FROM_DELIVERIES, (job_id, *place, after_us, before_us, among, limit, only)).fetchall()
    return [Found(*row[:4]) for row in rows], (rows[-1][4], rows[-1][0]) if rows else place


def of_log(db: sqlite3.Connection, wanted: Wanted, after: int, upto: int, limit: int) -> list[Found]:
    """Gives messages of the triggers after `after` up to `upto`, as far as `limit` triggers reach."""
    audiences = orjson.dumps(sorted(wanted.audiences)).decode()
    kinds = orjson.dumps(wanted.events.kinds).decode()
    return [Found(*row) for row in db.execute(FROM_LOG, (after, upto, audiences, kinds, limit)).fetchall()]


def first_trigger(db: sqlite3.Connection) -> int | None:
    """Gives the oldest trigger that is still in the log."""
    found: int | None = db.execute(FIRST_TRIGGER).fetchone()[0]
    return found


def _json(found: Sequence[Found]) -> str:
    return orjson.dumps([tuple(each) for each in found]).decode()


def _of_membership(row: Sequence[Any]) -> TriggerRow:
    trigger_id, profile_id, audience, member, sequence, changed_us, entered_us = row
    return TriggerRow(
        id=trigger_id,
        commit_id=trigger_id,
        profile_id=profile_id,
        audience=audience,
        kind="enter" if member else "exit",
        sequence=sequence,
        at_us=changed_us,
        entered_us=entered_us,
        until_us=None,
        cause="event",
    )
