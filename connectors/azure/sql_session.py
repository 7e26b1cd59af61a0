"""One connection to an SQL Server, used in a thread of its own: ODBC calls block, and some for as long as they like.

Whoever waits for a call can always leave. What runs on the server is cancelled then, and the connection closed, by the
thread when it comes back; nobody waits for it. Between calls the connection stays, and with it its temporary tables.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import anyio

from connectors.azure.sql_driver import pyodbc, told
from connectors.sdk.errors import ConfigError, TransientError
from connectors.sdk.http import refusal
from connectors.sdk.run import Network, deadline

T = TypeVar("T")

#: How often a call that was left is cancelled again, in seconds, and how often at most: the first time it may not
#: have begun yet.
AGAIN_S: Final = 0.25
TIMES: Final = 40
#: How long a connection that was given back may take to be closed, in seconds.
CLOSE_S: Final = 1.0
#: How much longer than the driver's own time a call is waited for, in seconds.
GRACE_S: Final = 5.0


class Session:
    """One connection and its thread. Made by `opened`."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._connection: Any = None
        self._cursor: Any = None
        self._idle = threading.Event()
        self._idle.set()
        self._waiting = 0
        self._ended = False
        self._lock = threading.Lock()
        self._handles = threading.Lock()  # what is cancelled must not be closed meanwhile: drivers crash
        # A thread that hangs in a driver must not keep the process from ending.
        self._thread = threading.Thread(target=self._serve, name="azure sql", daemon=True)
        self._thread.start()

    # --- from the event loop

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Has the thread do something next; `result` waits for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def succeed(value: T) -> None:
            if not future.done():
                future.set_result(value)

        def fail(error: BaseException) -> None:
            if self._ended:
                future.cancel()  # nobody asks any more
            elif not future.done():
                future.set_exception(error)

        def task() -> None:
            with suppress(RuntimeError):  # the loop has ended
                try:
                    value = work()
                except BaseException as error:  # noqa: BLE001  (handed over to whoever waits)
                    loop.call_soon_threadsafe(fail, error)
                else:
                    loop.call_soon_threadsafe(succeed, value)

        with self._lock:
            if self._ended:
                raise TransientError("this connection was given up")
            self._waiting += 1
            self._idle.clear()
            self._work.put(task)
        return future

    async def result(self, future: asyncio.Future[T], seconds: float, what: str) -> T:
        """Waits for what was started. Raises what it means for the job; left alone, the session is over."""
        try:
            async with deadline(seconds, what):
                return await future
        except (TransientError, ConfigError, asyncio.CancelledError):
            if future.cancelled() or not future.done():
                self.end()
            raise
        except UnicodeDecodeError as error:
            raise ConfigError(f"{what}: a text is not Unicode ({error.reason}); leave its column out") from error
        except pyodbc().Error as error:
            raise told(error, what) from None

    async def call(self, work: Callable[[], T], seconds: float, what: str) -> T:
        """Has the thread do something, and waits for it; see `result`."""
        return await self.result(self.start(work), seconds, what)

    async def connect(self, server: str, port: int, network: Network, text: str) -> None:
        """Connects, when the address may be reached."""
        where = f"{server}:{port}"

        def connect() -> None:
            _reach(server, port, network)
            self._connection = pyodbc().connect(text, autocommit=True, timeout=max(1, int(network.deadline_s)))

        await self.call(connect, 2 * network.deadline_s + GRACE_S, f"the connection to {where}")

    async def rows(self, sql: str, seconds: float, what: str) -> list[Any]:
        """Runs a statement; gives all its rows."""

        def run() -> list[Any]:
            cursor = self.execute(sql, seconds)
            return list(cursor.fetchall()) if cursor.description else []

        return await self.call(run, seconds + GRACE_S, what)

    def end(self) -> None:
        """Cancels what runs and closes the connection, soon; returns at once. Again, it does nothing."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._work.put(None)
        if not self._idle.is_set():
            threading.Thread(target=self._cancel, name="azure sql cancel", daemon=True).start()

    async def closed(self) -> None:
        """Ends it, and waits until it is closed: for CLOSE_S, since the server may not answer."""
        loop = asyncio.get_running_loop()
        gone = loop.create_future()

        def told_so() -> None:
            if not gone.done():
                gone.set_result(None)

        def wait() -> None:
            self._thread.join(CLOSE_S)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told_so)

        self.end()
        threading.Thread(target=wait, name="azure sql close", daemon=True).start()
        await gone

    # --- in the thread

    def execute(self, sql: str, seconds: float) -> Any:
        """Runs a statement and gives the cursor, in the thread. The driver gives up after so many seconds."""
        with self._handles:
            if self._ended:
                raise TransientError("this connection was given up")
            if self._cursor is not None:
                self._cursor.close()
            self._connection.timeout = max(1, int(seconds))
            self._cursor = self._connection.cursor()
        self._cursor.execute(sql)
        return self._cursor

    def _serve(self) -> None:
        while (task := self._work.get()) is not None and not self._ended:
            task()
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._idle.set()
        self._idle.set()
        with self._handles:
            cursor, connection = self._cursor, self._connection
            self._cursor = self._connection = None
            if connection is not None:
                with suppress(pyodbc().Error):
                    if cursor is not None:
                        cursor.close()
                    connection.close()

    def _cancel(self) -> None:
        for _ in range(TIMES):
            with self._handles:
                if self._idle.is_set():
                    return
                if self._cursor is not None:
                    with suppress(pyodbc().Error):
                        self._cursor.cancel()
            if self._idle.wait(AGAIN_S):
                return


@asynccontextmanager
async def opened(server: str, port: int, network: Network, text: str) -> AsyncIterator[Session]:
    """Opens a connection; closed on leaving, which takes CLOSE_S at most."""
    session = Session()
    try:
        await session.connect(server, port, network, text)
        yield session
    finally:
        with anyio.CancelScope(shield=True):  # bounded: the thread is not waited for any longer
            await session.closed()


def _reach(server: str, port: int, network: Network) -> None:
    """Looks whether the server can be reached and may be: drivers do not say which of the two it was that failed."""
    try:
        found = socket.getaddrinfo(server, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise TransientError(f"server {server}: {error.strerror}; is the name right?") from error
    except UnicodeError:
        raise ConfigError(f"server {server[:100]!r} is no name of a host") from None
    last: OSError | None = None
    for family, kind, protocol, _, address in found:
        why = refusal(str(address[0]), network)
        if why is not None:
            raise ConfigError(f"server {server}: {why}")
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(network.deadline_s / len(found))
            try:
                probe.connect(address)
            except OSError as error:
                last = error
            else:
                return
    if isinstance(last, TimeoutError):
        raise TransientError(f"{server}:{port} does not answer; is a firewall in between, or the port another?")
    raise TransientError(f"{server}:{port}: {last.strerror if last is not None else 'no address'}")
