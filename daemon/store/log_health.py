"""Whether the log can be written: found out by whoever writes, watched, and tried again until it can.

On a full disk the reserve is given up first, so that deleting works; it is taken again when there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
import time
from collections.abc import Awaitable, Callable

import anyio
from prometheus_client import Gauge

from daemon import log
from daemon.metrics import REGISTRY
from daemon.store import events as event_log
from daemon.store.database import Database
from daemon.store.reserve import Reserve

#: How often the disk is looked at, and what `look` does is done, in seconds.
WATCH_S = 1.0

#: When a log that failed is tried again first, in seconds; then twice as long after each try, up to WATCH_S.
FIRST_TRY_S = 0.1

_WRITABLE = Gauge("cohortd_log_writable", "1 while the log can be written.", registry=REGISTRY)


class LogHealth:
    """`failed` says why the log cannot be written now; None while all is well.

    look: called each second while all is well. retain: makes room by what need not be kept any more.
    failing: called when the log fails, as often as that is found out; everybody who waits must be told.
    """

    def __init__(
        self,
        database: Database,
        reserve: Reserve,
        *,
        look: Callable[[], Awaitable[None]],
        retain: Callable[[], Awaitable[None]],
        retain_s: float,
        failing: Callable[[], None],
    ) -> None:
        self._database = database
        self._reserve = reserve
        self._look = look
        self._retain = retain
        self._retain_s = retain_s
        self._retained_at = 0.0
        self._told = failing
        self._failing = asyncio.Event()
        self._full = False
        self.failed: str | None = None
        _WRITABLE.set(1)

    def fail(self, error: Exception) -> None:
        """Notes that the log could not be written."""
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or (
            isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        )
        freed = self._reserve.give_up() if full else False
        self._note(str(error), full=full, reserve_freed=freed)
        self._told()

    def _note(self, error: str, *, full: bool, reserve_freed: bool) -> None:
        if self.failed is None:
            log.get().error("log_failed", error=error, full=full, reserve_freed=reserve_freed)
        self.failed = error
        self._full = self._full or full
        self._failing.set()
        _WRITABLE.set(0)

    async def watch(self) -> None:
        """Looks after the log until cancelled."""
        tries = 0
        while True:
            if self.failed is None:
                tries = 0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_S):
                        await self._failing.wait()
            if self.failed is not None:
                await asyncio.sleep(min(WATCH_S, FIRST_TRY_S * 2 ** min(tries, 10)))
                tries += 1
            try:
                if self.failed is None:
                    await self._check()
                else:
                    await self._try_again()
            except (sqlite3.Error, OSError) as error:
                if self.failed is None:
                    self.fail(error)
            except Exception:  # noqa: BLE001  (a defect in what is noted for people must not stop collection)
                log.get().exception("log_watch_failed")

    async def _check(self) -> None:
        if await self._room_bytes() < self._reserve.size_bytes:
            self._note("the disk is almost full", full=True, reserve_freed=False)
            return
        await self._look()
        if not self._reserve.held:
            await anyio.to_thread.run_sync(self._reserve.take)
        if time.monotonic() - self._retained_at >= self._retain_s:
            self._retained_at = time.monotonic()
            await self._retain()

    async def _try_again(self) -> None:
        if self._full and not await self._has_room():
            await self._retain()
            if not await self._has_room():
                return
        await self._database.write(event_log.probe)
        await self._look()
        self.failed = None
        self._full = False
        self._failing.clear()
        _WRITABLE.set(1)
        log.get().info("log_recovered", free_bytes=self._reserve.room_bytes())

    async def _has_room(self) -> bool:
        return await anyio.to_thread.run_sync(self._reserve.take) and (
            await self._room_bytes() >= 2 * self._reserve.size_bytes
        )

    async def _room_bytes(self) -> int:
        room = self._reserve.room_bytes()
        if room < 2 * self._reserve.size_bytes:
            room += await self._database.read(event_log.free_bytes)
        return room
