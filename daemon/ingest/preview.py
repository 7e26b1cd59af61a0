"""What a filter would do before it is saved: a pass over all profiles that changes nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from daemon import clock
from daemon.store import profiles
from daemon.store.database import Database
from streams.profile import fields_read, load, viewer
from streams.ql.compiler import CompiledFilter
from streams.schema import Schema

PAGE = 2048
#: Profiles evaluated before other work gets its turn.
SLICE = 64
#: Profiles named in each sample.
SAMPLE = 10
#: All ids: SQLite's largest.
LAST_ID = 2**63 - 1


@dataclass(slots=True)
class Preview:
    """What was found: `profiles` looked at, `size` that match, `enters` and `exits` against the members now.

    The samples have profile ids, as `_id` shows them.
    """

    profiles: int = 0
    size: int = 0
    enters: int = 0
    exits: int = 0
    sample_enters: list[str] = field(default_factory=list)
    sample_exits: list[str] = field(default_factory=list)


async def preview(
    state: Database, schema: Schema, compiled: CompiledFilter, number: int | None, now: datetime
) -> Preview:
    """Evaluates a filter over all profiles as of `now`, against the members of the audience `number` where given.

    Reads in pages, each of one moment: profiles that change meanwhile are counted as they were when their page was
    read. Memory is bounded by the page.
    """
    found = Preview()
    view = viewer(schema, compiled.fields)
    read = fields_read(schema, compiled.fields)
    expiring = any(slot.name in read for slot in schema.expiring)
    now_us = clock.to_us(now)
    after = 0
    while True:

        def page(db: sqlite3.Connection, after: int = after) -> tuple[int, list[profiles.Slice]] | None:
            return profiles.in_range(db, after, LAST_ID, PAGE, [] if number is None else [number])

        got = await state.read(page)
        if got is None:
            return found
        after, slices = got
        for texts in slices:
            members = {row[0] for row in orjson.loads(texts.memberships) if row[2] % 2}
            rows = orjson.loads(texts.bodies)
            for start in range(0, len(rows), SLICE):
                for profile_id, body in rows[start : start + SLICE]:
                    if expiring:
                        profile = load(schema, profile_id, body)
                        profile.expire(schema, now_us)
                        profile.refresh_meta()
                        values = profile.values
                    else:
                        values = view(profile_id, body)
                    match, ok = compiled.evaluate(values, now)
                    _count(found, profile_id, matches=match and ok, member=profile_id in members)
                await asyncio.sleep(0)


def _count(found: Preview, profile_id: int, *, matches: bool, member: bool) -> None:
    found.profiles += 1
    found.size += matches
    if matches and not member:
        found.enters += 1
        if len(found.sample_enters) < SAMPLE:
            found.sample_enters.append(str(profile_id))
    elif member and not matches:
        found.exits += 1
        if len(found.sample_exits) < SAMPLE:
            found.sample_exits.append(str(profile_id))
