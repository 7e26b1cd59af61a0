"""Profiles with what ingest keeps beside them: identities, timers, memberships.

The reads for ingest give pages as JSON text, one step a page (the reason stands in `database`): a page is a list of
rows `[profile id, body, due_us or null, [audience that it is a member of, …], ledger, {identity field: [value, …]}]`.
Body and ledger are texts that are themselves JSON, the ledger `[[audience, sequence, entered_us], …]`: they are not
always read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from streams.mapping import Key
from streams.stitches import Memory

#: Profiles of one page of JSON text; bounds what one parse of it holds up.
PAGE = 128

_MEMBERS = "(SELECT group_concat(m.audience) FROM membership m WHERE m.profile_id = p.id AND m.member = 1)"
_LEDGER = """(SELECT group_concat('[' || m.audience || ',' || m.sequence || ',' || m.entered_us || ']')
        FROM membership m WHERE m.profile_id = p.id)"""
_ROW = f"""'[' || p.id || ',' || json_quote(p.body) || ',' || coalesce(t.due_us, 'null') || ',['
        || coalesce({_MEMBERS}, '') || '],"[' || coalesce({_LEDGER}, '') || ']",'
        || json_extract(p.body, '$.k') || ']'"""

OWNERS = """SELECT '[' || coalesce(group_concat(id), '') || ']' FROM (SELECT DISTINCT i.profile_id AS id
    FROM json_each(?) k CROSS JOIN identity i
    WHERE i.field = json_extract(k.value, '$[0]') AND i.value = json_extract(k.value, '$[1]'))"""

# Many pages come in one step: a line each, and in it parts between unit separators; no JSON text has either.
BY_IDS = f"""SELECT group_concat(page, char(10)) FROM (SELECT (SELECT '[' || group_concat({_ROW}) || ']'
    FROM json_each(pages.value) k CROSS JOIN profile p ON p.id = k.value
    LEFT JOIN timer t ON t.profile_id = p.id) AS page FROM json_each(?) pages)"""  # noqa: S608  (constants)

RANGE_END = "SELECT max(id) FROM (SELECT id FROM profile WHERE id > ? AND id <= ? ORDER BY id LIMIT ?)"
RANGES = """SELECT group_concat(
    (SELECT '[' || coalesce(group_concat('[' || id || ',' || body || ']'), '') || ']' FROM profile
        WHERE id > first AND id <= last) || char(31) ||
    (SELECT '[' || coalesce(group_concat('[' || profile_id || ',' || due_us || ']'), '') || ']' FROM timer
        WHERE profile_id > first AND profile_id <= last) || char(31) ||
    (SELECT '[' || coalesce(group_concat('[' || profile_id || ',' || audience || ',' || sequence || ',' || entered_us
        || ']'), '') || ']' FROM membership WHERE profile_id > first AND profile_id <= last
        AND audience IN (SELECT value FROM json_each(?1))), char(10))
    FROM (SELECT json_extract(value, '$[0]') AS first, json_extract(value, '$[1]') AS last FROM json_each(?2))"""

DUE = """SELECT '[' || coalesce(group_concat(profile_id), '') || ']'
    FROM (SELECT profile_id FROM timer WHERE due_us <= ? ORDER BY due_us, profile_id LIMIT ?)"""
NEXT_DUE = "SELECT min(due_us) FROM timer WHERE due_us > ?"

FIND = "SELECT profile_id FROM identity WHERE field = ? AND value = ?"
READ = "SELECT body FROM profile WHERE id = ?"
COUNT = "SELECT count(*) FROM profile"


def owned_by(db: sqlite3.Connection, keys: Sequence[tuple[str, str]]) -> list[str]:
    """Gives, as pages of JSON text, the profiles that own any of `keys`; a profile comes once."""
    (text,) = db.execute(OWNERS, (_json(keys),)).fetchone()
    return by_ids(db, orjson.loads(text))


def by_ids(db: sqlite3.Connection, ids: Sequence[int]) -> list[str]:
    """Gives, as pages of JSON text, the profiles with these ids; those that are no more are left out."""
    if not ids:
        return []
    pages = [ids[at : at + PAGE] for at in range(0, len(ids), PAGE)]
    (text,) = db.execute(BY_IDS, (_json(pages),)).fetchone()
    return [] if text is None else text.split("\n")


def due(db: sqlite3.Connection, now_us: int, limit: int) -> tuple[list[str], int, int | None]:
    """Gives up to `limit` profiles whose timer is due, as pages; how many; and the next moment after `now_us`."""
    (text,) = db.execute(DUE, (now_us, limit)).fetchone()
    ids = orjson.loads(text)
    (later,) = db.execute(NEXT_DUE, (now_us,)).fetchone()
    return by_ids(db, ids), len(ids), later


class Slice(NamedTuple):
    """Some profiles in the order of their ids, three JSON texts.

    `[[id, body], …]`; the timers of those that have one, `[[id, due_us], …]`; the memberships asked for,
    `[[id, audience, sequence, entered_us], …]`.
    """

    bodies: str
    timers: str
    memberships: str


def in_range(
    db: sqlite3.Connection, after: int, upto: int, limit: int, audiences: Sequence[int]
) -> tuple[int, list[Slice]] | None:
    """Gives the last id and slices of up to `limit` profiles with ids in (`after`, `upto`]; None when none is left.

    With them come their memberships in `audiences`.
    """
    (last,) = db.execute(RANGE_END, (after, upto, limit)).fetchone()
    if last is None:
        return None
    # Ids are dense but for profiles that are no more: steps over ids are at most as many profiles.
    step = PAGE if last - after <= 8 * limit else max(PAGE, (last - after) * PAGE // limit)
    ends = [*range(after + step, last, step), last]
    pairs = list(zip([after, *ends], ends, strict=False))
    (text,) = db.execute(RANGES, (_json(audiences), _json(pairs))).fetchone()
    return last, [Slice(*line.split("\x1f")) for line in text.split("\n")]


def _json(value: Sequence[object]) -> str:
    return orjson.dumps(value).decode()


def find(db: sqlite3.Connection, field: str, value: str) -> int | None:
    """Gives the id of the profile that owns a key."""
    row = db.execute(FIND, (field, value)).fetchone()
    return None if row is None else int(row[0])


def read(db: sqlite3.Connection, profile_id: int) -> str | None:
    """Gives the body of a profile, JSON text."""
    row = db.execute(READ, (profile_id,)).fetchone()
    return None if row is None else str(row[0])


def memory_of(db: sqlite3.Connection, key: Key) -> Memory | None:
    """Gives what the owner of a key remembers of stitches; None where there is nothing."""
    owner = find(db, *key)
    text = None if owner is None else read(db, owner)
    return None if text is None else orjson.loads(text).get("s")


def count(db: sqlite3.Connection) -> int:
    """Counts the profiles; reads the whole index, so not for the hot path."""
    return int(db.execute(COUNT).fetchone()[0])
