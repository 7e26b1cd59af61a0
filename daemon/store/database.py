"""One SQLite file: a writer behind a queue that groups what arrived together, and a few readers.

Work is a plain function over `sqlite3.Connection` that runs whole in the connection's thread: no await can stand in
the middle of a transaction, and cancelling a caller never leaves one open.

Why statements here handle many rows in one step: the interpreter lock is given up and taken back around every
`sqlite3_step`. Beside a busy event loop each taking back may wait a whole switch interval, so `executemany` over
1,000 rows can cost a thousand waits. Multi-row VALUES, `json_each(?)` for input and `group_concat`/`json_group_array`
for output cost one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import aiosqlite

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

#: How much work one transaction may take at most, in queued functions.
GROUP_LIMIT = 256


class _Connection(aiosqlite.Connection):
    """An aiosqlite connection that also runs a whole function in its thread."""

    async def run(self, work: Work[T]) -> T:
        result: T = await self._execute(work, self._conn)
        return result


async def _open(path: Path, *, cache_kib: int, query_only: bool) -> _Connection:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, cached_statements=512, timeout=30)

    connection = _Connection(connect, iter_chunk_size=1000)
    await connection

    def prepare(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute(f"PRAGMA cache_size = -{cache_kib:d}")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA journal_size_limit = 67108864").fetchall()
        if query_only:
            db.execute("PRAGMA query_only = ON")

    try:
        await connection.run(prepare)
    except BaseException:
        await asyncio.shield(connection.close())
        raise
    return connection


class _Item(Generic[T]):
    __slots__ = ("future", "work")

    def __init__(self, work: Work[T], future: asyncio.Future[T]) -> None:
        self.work = work
        self.future = future


class Database:
    """A file with one writer and `readers` readers.

    `write(work)` runs `work` in a transaction, possibly together with other work that waits at that moment: it
    returns after the commit is on disk (WAL, synchronous=FULL), or raises what `work` raised, with nothing of it
    kept and the others untouched. `read(work)` runs on a reader, in a deferred transaction: what it reads is of one
    moment. Cancelling either only stops waiting; a write already begun is finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: list[_Item[Any]] = []
        self._wake = asyncio.Event()
        self._idle_readers: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, *, readers: int = 2, cache_kib: int = 16384, prepare: Work[None] | None = None
    ) -> AsyncIterator[Database]:
        """Opens the file (created when absent), runs `prepare` (migrations) on the writer, and serves until left.

        On leaving, queued writes are finished first.
        """
        self = cls(path)
        connections: list[_Connection] = []
        task: asyncio.Task[None] | None = None
        try:
            writer = await _open(path, cache_kib=cache_kib, query_only=False)
            connections.append(writer)
            if prepare is not None:
                await writer.run(prepare)
            for _ in range(readers):
                reader = await _open(path, cache_kib=cache_kib, query_only=True)
                connections.append(reader)
                self._idle_readers.put_nowait(reader)
            task = asyncio.create_task(self._serve(writer), name=f"writer of {path.name}")
            yield self
        finally:
            self._closing = True
            self._wake.set()
            await asyncio.shield(self._close(task, connections))

    async def _close(self, task: asyncio.Task[None] | None, connections: list[_Connection]) -> None:
        if task is not None:
            with suppress(asyncio.CancelledError):
                await task
        for connection in reversed(connections):
            await connection.close()

    async def write(self, work: Work[T]) -> T:
        """Runs `work` in a transaction and returns its result once that is durable."""
        if self._closing:
            raise sqlite3.ProgrammingError(f"{self.path.name} is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append(_Item(work, future))
        self._wake.set()
        return await future

    async def read(self, work: Work[T]) -> T:
        """Runs `work` on a reader, over one snapshot."""
        reader = await self._idle_readers.get()

        def snapshot(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            try:
                return work(db)
            finally:
                db.execute("ROLLBACK")

        # The reader goes back only when the thread is done with it, also when the caller was cancelled.
        running = asyncio.ensure_future(reader.run(snapshot))
        running.add_done_callback(lambda _: self._idle_readers.put_nowait(reader))
        return await asyncio.shield(running)

    async def _serve(self, writer: _Connection) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            group, self._queue = self._queue[:GROUP_LIMIT], self._queue[GROUP_LIMIT:]
            group = [item for item in group if not item.future.cancelled()]
            if not group:
                continue
            try:
                outcomes = await writer.run(lambda db, group=group: _transaction(db, group))  # type: ignore[misc]
            except BaseException as error:  # noqa: BLE001  (each waiting caller gets it)
                outcomes = [(None, error)] * len(group)
            for item, (result, failure) in zip(group, outcomes, strict=True):
                if item.future.done():
                    continue
                if failure is None:
                    item.future.set_result(result)
                else:
                    item.future.set_exception(failure)


def _transaction(db: sqlite3.Connection, group: list[_Item[Any]]) -> list[tuple[Any, BaseException | None]]:
    """Runs a group in one transaction; work that raises is undone alone, when the commit fails all is."""
    outcomes: list[tuple[Any, BaseException | None]] = []
    try:
        db.execute("BEGIN IMMEDIATE")
        alone = len(group) == 1
        for item in group:
            if alone:
                outcomes.append((item.work(db), None))
                continue
            db.execute("SAVEPOINT work")
            try:
                result = item.work(db)
            except BaseException as error:  # noqa: BLE001  (handed to the caller of this piece of work)
                db.execute("ROLLBACK TO work")
                outcomes.append((None, error))
            else:
                outcomes.append((result, None))
            db.execute("RELEASE work")
        db.execute("COMMIT")
    except BaseException as error:  # noqa: BLE001  (the transaction must not stay open, whatever happened)
        if db.in_transaction:
            db.execute("ROLLBACK")
        return [(None, error)] * len(group)
    return outcomes
