"""Tokens: what may be done with a request. Only their hashes are stored.

A token is 256 random bits, so a plain SHA-256 of it cannot be reversed by guessing, and looking one up costs a
microsecond.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import anyio
import orjson

from daemon import clock, lock, log
from daemon.store import audit
from daemon.store.database import BUSY_S, Database, make_private, prepare_connection
from daemon.store.migrate import migrate, migrations, version

Scope = Literal["data", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("data", "read", "admin")

FILE = "state.db"

#: How often a running daemon looks for tokens made or revoked beside it, in seconds.
REFRESH_S = 1.0

#: How often, at most, unknown tokens make it look out of turn.
MISS_S = 0.1

_LIVE = """
SELECT '[' || coalesce(group_concat(json_array(id, hash, scope, stream)), '') || ']'
  FROM token WHERE revoked_us IS NULL
"""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a live token; never the token itself. `stream`: where Segment calls made with it go."""

    id: str
    scope: Scope
    stream: str | None = None

    def allows(self, scope: Scope) -> bool:
        """Says whether the token may do what needs `scope`; admin includes the others."""
        return self.scope in ("admin", scope)


@dataclass(frozen=True, slots=True)
class Listed:
    """A token as `cohortd token list` shows it; times in microseconds since the epoch."""

    id: str
    scope: Scope
    label: str
    stream: str | None
    created_us: int
    revoked_us: int | None


class Tokens:
    """The live tokens in memory, kept current by `run`.

    `check` never waits and knows what the last look found; `find` looks again for one that it does not know, so
    that a token just made works at once. A revoked one is refused within two looks.
    """

    def __init__(self, state: Database) -> None:
        self._state = state
        self._live: dict[bytes, Token] = {}
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, state: Database) -> AsyncIterator[Tokens]:
        """Reads the tokens, and keeps them current until left."""
        self = cls(state)
        await self._look()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep, name="tokens")
            yield self
            tasks.cancel_scope.cancel()

    def check(self, token: str) -> Token | None:
        """Gives what is known of `token`; None when it is unknown or revoked."""
        return self._live.get(_digest(token))

    async def find(self, token: str) -> Token | None:
        """As `check`, but looks into the store once more before it says None."""
        if (known := self.check(token)) is not None:
            return known
        # One look serves everybody who waits, so that guessing tokens costs the store ten reads a second.
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look_soon())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)
        return self.check(token)

    async def _look_soon(self) -> None:
        await asyncio.sleep(MISS_S / 2)
        await self._look()
        await asyncio.sleep(0)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()

    async def _look(self) -> None:
        rows = await self._state.read(_live)
        self._live = {
            bytes.fromhex(digest): Token(name, cast("Scope", scope), stream) for name, digest, scope, stream in rows
        }

    async def _keep(self) -> None:
        while True:
            await anyio.sleep(REFRESH_S)
            try:
                await self._look()
            except sqlite3.OperationalError as error:  # the disk may come back; until then what was known holds
                log.get().warning("tokens_unreadable", error=str(error))


def create(db: sqlite3.Connection, scope: Scope, label: str = "", stream: str | None = None) -> str:
    """Stores a new token and gives its text, which nobody can read again."""
    token = "cohortd_" + secrets.token_urlsafe(32)
    token_id = secrets.token_hex(4)
    db.execute(
        "INSERT INTO token (id, hash, scope, label, stream, created_us) VALUES (?, ?, ?, ?, ?, ?)",
        (token_id, _digest(token).hex(), scope, label, stream, clock.now_us()),
    )
    audit.add(db, clock.now_us(), "local", "create_token", f"token {token_id}", {"scope": scope, "label": label})
    return token


def listed(db: sqlite3.Connection) -> list[Listed]:
    """Gives all tokens, the oldest first, revoked ones too."""
    rows = db.execute(
        "SELECT id, scope, label, stream, created_us, revoked_us FROM token ORDER BY created_us, id"
    ).fetchall()
    return [Listed(*row) for row in rows]


def revoke(db: sqlite3.Connection, id_or_token: str) -> bool:
    """Ends a token, given by its id or itself; False when there is none such that is live."""
    row = db.execute(
        "UPDATE token SET revoked_us = ? WHERE (id = ? OR hash = ?) AND revoked_us IS NULL RETURNING id",
        (clock.now_us(), id_or_token, _digest(id_or_token).hex()),
    ).fetchone()
    if row is not None:
        audit.add(db, clock.now_us(), "local", "revoke_token", f"token {row[0]}", {})
    return row is not None


@contextmanager
def beside(data_dir: Path) -> Iterator[sqlite3.Connection]:
    """Opens the state database for a short command, in one transaction, whether or not a daemon runs.

    The directory and the file are made where absent. Raises RuntimeError when the file has another version than this
    program and a running daemon of that version holds it.
    """
    lock.make(data_dir)
    path = data_dir / FILE
    make_private(path)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)) as db:
        prepare_connection(db)
        if version(db) != len(migrations("state")) and version(db) > 0 and (process := lock.holder(data_dir)):
            raise RuntimeError(f"a cohortd of another version runs as process {process}: restart it first")
        migrate(db, "state")
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _live(db: sqlite3.Connection) -> list[tuple[str, str, str, str | None]]:
    (text,) = db.execute(_LIVE).fetchone()
    return cast("list[tuple[str, str, str, str | None]]", orjson.loads(text))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
