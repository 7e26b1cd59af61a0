"""Which rows an import did not have before, by their hashes: a file of its own for each job, so that it can be dropped.

`seen` has the hashes of the last import that was completed, `coming` those of the one under way, in the order of its
rows. Completing sorts `coming` into `fresh`, range by range, and puts it in the place of `seen` in one transaction: a
crash leaves the one or the other. All of it works on the disk; memory does not grow with the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from daemon.store.database import Database

#: Bytes of a hash: among ten million rows two that differ have the same with a chance of one in 10^14.
HASH_BYTES: Final = 12
#: Hashes that are sorted at a time, about.
SORTED: Final = 500_000
#: The writer's page cache, in KiB.
CACHE_KIB: Final = 8192

PREPARE: Final = """
PRAGMA synchronous = NORMAL;
PRAGMA secure_delete = OFF;
CREATE TABLE IF NOT EXISTS seen (hash BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS coming (number INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS import (what TEXT PRIMARY KEY CHECK (what IN ('seen', 'coming')), name TEXT NOT NULL)
    STRICT, WITHOUT ROWID;
"""
NAME: Final = "SELECT name FROM import WHERE what = ?"
SET_NAME: Final = "INSERT INTO import (what, name) VALUES (?, ?) ON CONFLICT (what) DO UPDATE SET name = excluded.name"
CLEAR: Final = ("DROP TABLE IF EXISTS fresh", "DELETE FROM coming")

# The numbers from 0 on, ?2 of them; the hash of each is a piece of ?1, of HASH_BYTES.
UNSEEN: Final = """WITH RECURSIVE piece (place) AS (
        SELECT 0 WHERE ?2 > 0 UNION ALL SELECT place + 1 FROM piece WHERE place + 1 < ?2),
    given (place, hash) AS (SELECT place, substr(?1, place * 12 + 1, 12) FROM piece)
    SELECT json_group_array(place) FROM given WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.hash = given.hash)"""
ADD: Final = """INSERT INTO coming (hash) WITH RECURSIVE piece (place) AS (
        SELECT 0 WHERE ?2 > 0 UNION ALL SELECT place + 1 FROM piece WHERE place + 1 < ?2)
    SELECT substr(?1, place * 12 + 1, 12) FROM piece"""
COUNT: Final = "SELECT coalesce(max(number), 0) FROM coming"

FRESH: Final = "CREATE TABLE IF NOT EXISTS fresh (hash BLOB PRIMARY KEY) STRICT, WITHOUT ROWID"
SORT: Final = """INSERT INTO fresh (hash) SELECT DISTINCT hash FROM coming
    WHERE hash >= ?1 AND (?2 IS NULL OR hash < ?2) ORDER BY hash"""
SWAP: Final = ("DROP TABLE seen", "ALTER TABLE fresh RENAME TO seen", "DELETE FROM coming")


class Differences:
    """The comparison of one import with the one before."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, name: str) -> AsyncIterator[Differences]:
        """Opens the file of a job (made when absent), for the import `name`.

        An import of the same name goes on where it was; one under way of another name is forgotten.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with Database.open(path, readers=0, cache_kib=CACHE_KIB, prepare=_prepare) as database:
            await database.write(partial(_begin, name=name))
            yield cls(database, name)

    async def unseen(self, hashes: Callable[[], bytes]) -> Sequence[int]:
        """Notes the hashes of rows, one after the other; gives the places of those that the former import lacked.

        `hashes` is called in the thread that looks them up.
        """

        def work(db: sqlite3.Connection) -> list[int]:
            text = hashes()
            number = len(text) // HASH_BYTES
            found: list[int] = orjson.loads(db.execute(UNSEEN, (text, number)).fetchone()[0])
            db.execute(ADD, (text, number))
            return found

        return await self._database.write(work)

    async def complete(self) -> None:
        """Makes this import the one that the next is compared with. Again, it does nothing."""
        if await self._database.write(lambda db: _named(db, "seen") == self._name):
            return
        number = await self._database.write(_number)
        parts = 1
        while parts < 65_536 and number > parts * SORTED:
            parts *= 2
        step = 65_536 // parts
        bounds = [(at * step).to_bytes(2, "big") for at in range(parts)]
        for start, end in zip(bounds, [*bounds[1:], None], strict=True):
            await self._database.write(lambda db, a=start, b=end: db.execute(SORT, (a, b)).rowcount)  # type: ignore[misc]
        await self._database.write(partial(_swap, name=self._name))


def forget(path: Path) -> None:
    """Deletes the file of a job that is no more."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def _prepare(db: sqlite3.Connection) -> None:
    db.executescript(PREPARE)


def _begin(db: sqlite3.Connection, name: str) -> None:
    if _named(db, "coming") != name:
        for statement in CLEAR:
            db.execute(statement)
        db.execute(SET_NAME, ("coming", name))


def _number(db: sqlite3.Connection) -> int:
    db.execute("DROP TABLE IF EXISTS fresh")  # of a completion that was broken off
    db.execute(FRESH)
    return int(db.execute(COUNT).fetchone()[0])


def _swap(db: sqlite3.Connection, name: str) -> None:
    for statement in SWAP:
        db.execute(statement)
    db.execute(SET_NAME, ("seen", name))


def _named(db: sqlite3.Connection, what: str) -> str | None:
    row = db.execute(NAME, (what,)).fetchone()
    return None if row is None else str(row[0])
