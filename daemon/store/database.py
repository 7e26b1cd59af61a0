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
import os
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import aiosqlite
import anyio

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Done = Callable[[T | None, BaseException | None], None]

#: How much work one transaction may take at most, in queued functions.
GROUP_LIMIT = 256

#: How long another process (`cohortd token create`) may hold the file before a write fails, in seconds.
BUSY_S = 30.0


def make_private(path: Path) -> None:
    """Makes the file, readable for its owner only, where there is none; SQLite gives its companions the same mode.

    A file that is there must not be opened: closing it again would drop this process's locks on it, those of its open
    connections too, and the next process to leave the database would delete the write-ahead log under them.
    """
    with suppress(OSError):  # what is wrong with the path SQLite tells better
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def prepare_connection(db: sqlite3.Connection, *, cache_kib: int = 2048, query_only: bool = False) -> None:
    """Sets a connection to one of our files up: WAL, each commit on disk before it is answered."""
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute(f"PRAGMA cache_size = -{cache_kib:d}")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("PRAGMA secure_delete = ON").fetchall()  # what is deleted or replaced is not readable in the file
    db.execute("PRAGMA journal_size_limit = 67108864").fetchall()
    if query_only:
        db.execute("PRAGMA query_only = ON")


class _Connection(aiosqlite.Connection):
    """An aiosqlite connection that also runs a whole function in its thread."""

    async def run(self, work: Work[T]) -> T:
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]  # as aiosqlite has it
        return result

    def post(self, work: Work[T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """Runs a function in its thread; `done(result, error)` is called in the event loop."""
        loop = asyncio.get_running_loop()

        def run() -> None:
            try:
                result = work(self._conn)
            except BaseException as error:  # noqa: BLE001  (told to whoever waits)
                loop.call_soon_threadsafe(done, None, error)
            else:
                loop.call_soon_threadsafe(done, result, None)

        self._tx.put_nowait((None, run))

    async def end(self) -> None:
        """Closes it, breaking off what it still runs: the writer's work is done by then, and nobody waits for reads."""
        closing = asyncio.ensure_future(self.close())
        # Again and again, since work may have many statements, and one may be about to begin.
        while not (await asyncio.wait([closing], timeout=0.02))[0]:
            if self._connection is not None:
                with suppress(sqlite3.ProgrammingError):  # the thread has closed it this moment
                    self._connection.interrupt()
        closing.result()


class _Item(Generic[T]):
    __slots__ = ("done", "own", "wanted", "work")

    def __init__(self, work: Work[T], done: Done[T], wanted: Callable[[], bool], *, own: bool) -> None:
        self.work = work
        self.done = done
        self.wanted = wanted
        self.own = own


class Database:
    """A file with one writer and `readers` readers.

    `write(work)` runs `work` in a transaction, possibly together with other work that waits at that moment: it
    returns after the commit is on disk (WAL, synchronous=FULL), or raises what `work` raised, with nothing of it
    kept and the others untouched. Where SQLite itself undoes the transaction (disk full, I/O error), all of the group
    get that error and nothing of any of them is kept.

    `read(work)` runs on a reader, in a deferred transaction: what it reads is of one moment. Cancelling either only
    stops waiting; a write that has begun is finished, one that has not is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: deque[_Item[Any]] = deque()
        self._writer: _Connection | None = None
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._idle_readers: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, *, readers: int = 2, cache_kib: int = 16384, prepare: Work[None] | None = None
    ) -> AsyncIterator[Database]:
        """Opens the file (created when absent), runs `prepare` (migrations) on the writer, and serves until left.

        `cache_kib`: the writer's page cache; each reader has a quarter of it. On leaving, queued writes are finished
        first, and reads still under way are broken off.
        """
        self = cls(path)
        connections: list[_Connection] = []
        try:
            writer = await _open(path, connections, cache_kib=cache_kib, query_only=False)
            if prepare is not None:
                await writer.run(prepare)
            for _ in range(readers):
                reader = await _open(path, connections, cache_kib=cache_kib // 4, query_only=True)
                self._idle_readers.put_nowait(reader)
            self._writer = writer
            yield self
        finally:
            self._closing = True
            await undisturbed(self._close(connections))

    async def _close(self, connections: list[_Connection]) -> None:
        try:
            await self._idle.wait()
        finally:
            # Readers first: the last connection to close checkpoints the WAL, and only the writer may do that.
            for connection in reversed(connections):
                await connection.end()

    async def write(self, work: Work[T]) -> T:
        """Runs `work` in a transaction and returns its result once that is durable."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(work, partial(_settle, future), lambda: not future.done())
        return await future

    def submit(
        self, work: Work[T], done: Done[T], wanted: Callable[[], bool] = lambda: True, *, own: bool = False
    ) -> None:
        """As `write`, for a caller that is no coroutine: `done(result, error)` is called in the event loop.

        wanted: asked before it begins; False drops it, and `done` is not called. own: `work` is given the connection
        without a transaction, never together with others: it makes its own, or is one statement. Fewer turns of the
        event loop lie between this and `done` than with a coroutine, each of which may take as long as the others'
        work in it.
        """
        if self._closing or self._writer is None:
            raise sqlite3.ProgrammingError(f"{self.path.name} is closed")
        self._queue.append(_Item(work, done, wanted, own=own))
        if not self._busy:
            # In the next turn, so that what comes in this one goes together.
            self._busy = True
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._next)

    async def read(self, work: Work[T]) -> T:
        """Runs `work` on a reader, over one snapshot."""
        reader = await self._idle_readers.get()

        def snapshot(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            try:
                return work(db)
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

        def finished(run: asyncio.Task[T]) -> None:
            # The reader goes back only when its thread is done with it, also when the caller was cancelled; the
            # error that then nobody waits for is taken, or asyncio would complain about it.
            self._idle_readers.put_nowait(reader)
            if not run.cancelled():
                run.exception()

        if self._closing:
            self._idle_readers.put_nowait(reader)
            raise sqlite3.ProgrammingError(f"{self.path.name} is closed")
        running = asyncio.ensure_future(reader.run(snapshot))
        running.add_done_callback(finished)
        return await asyncio.shield(running)

    def _next(self) -> None:
        group: list[_Item[Any]] = []
        while self._queue and len(group) < GROUP_LIMIT:
            if group and (group[0].own or self._queue[0].own):
                break
            item = self._queue.popleft()
            if item.wanted():
                group.append(item)
        if not group:
            self._busy = False
            self._idle.set()
            return
        assert self._writer is not None  # noqa: S101  (open while anything is queued)
        self._writer.post(lambda db: _transaction(db, group), partial(self._finished, group))

    def _finished(
        self,
        group: list[_Item[Any]],
        outcomes: list[tuple[Any, BaseException | None]] | None,
        error: BaseException | None,
    ) -> None:
        try:
            for item, outcome in zip(group, outcomes or [(None, error)] * len(group), strict=True):
                item.done(*outcome)
        finally:
            self._next()


async def _open(path: Path, opened: list[_Connection], *, cache_kib: int, query_only: bool) -> _Connection:
    def connect() -> sqlite3.Connection:
        make_private(path)
        return sqlite3.connect(path, isolation_level=None, cached_statements=512, timeout=BUSY_S)

    connection = _Connection(connect, iter_chunk_size=1000)
    await connection
    opened.append(connection)  # before the next await, so that the caller closes it whatever happens
    await connection.run(lambda db: prepare_connection(db, cache_kib=cache_kib, query_only=query_only))
    return connection


async def undisturbed(work: Awaitable[None]) -> None:
    """Awaits `work` to its end through any cancellation, anyio's and asyncio's, and then lets that go on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as request:
                cancelled = request
    task.result()
    if cancelled is not None:
        raise cancelled


def _settle(future: asyncio.Future[T], result: T | None, failure: BaseException | None) -> None:
    if future.done():
        return
    match failure:
        case None:
            future.set_result(cast("T", result))
        case StopIteration():  # which no future can carry
            future.set_exception(RuntimeError("work raised StopIteration"))
        case _:
            future.set_exception(failure)


def _transaction(db: sqlite3.Connection, group: list[_Item[Any]]) -> list[tuple[Any, BaseException | None]]:
    """Runs a group in one transaction; work that raises is undone alone, when the commit fails all is."""
    outcomes: list[tuple[Any, BaseException | None]] = []
    try:
        if db.in_transaction:  # left open by a ROLLBACK that failed
            db.execute("ROLLBACK")
        if group[0].own:
            outcome = group[0].work(db)
            _must_be_over(db)
            return [(outcome, None)]
        db.execute("BEGIN IMMEDIATE")
        if len(group) == 1:
            outcomes.append((group[0].work(db), None))
            _still_open(db)
        else:
            outcomes += [_savepoint(db, item.work) for item in group]
        db.execute("COMMIT")
    except BaseException as error:  # noqa: BLE001  (the transaction must not stay open, whatever happened)
        if db.in_transaction:
            db.execute("ROLLBACK")
        return [(None, error)] * len(group)
    return outcomes


def _savepoint(db: sqlite3.Connection, work: Work[T]) -> tuple[T | None, BaseException | None]:
    db.execute("SAVEPOINT work")
    try:
        result = work(db)
    except BaseException as error:
        # On a full disk and on I/O errors SQLite may have undone the whole transaction, savepoints and all: then the
        # cause goes to everybody in it.
        if not db.in_transaction:
            raise
        db.execute("ROLLBACK TO work")
        db.execute("RELEASE work")
        return None, error
    _still_open(db)
    db.execute("RELEASE work")
    return result, None


def _must_be_over(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        raise sqlite3.OperationalError("work that makes its own transaction left it open")


def _still_open(db: sqlite3.Connection) -> None:
    if not db.in_transaction:
        raise sqlite3.OperationalError(
            "the transaction was ended within its work: SQLite undid it (disk full, I/O error) and the work went on"
        )
