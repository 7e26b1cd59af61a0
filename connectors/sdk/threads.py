"""Blocking work beside the event loop, one piece at a time, that a cancelled run need not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

T = TypeVar("T")


class Threaded:
    """Something that is used in threads and must be closed once nobody uses it any more.

    A cancelled call leaves its thread to itself: what it works on is closed when it comes back, by whichever comes
    last, `end` or the thread.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._one = CapacityLimiter(1)
        self._lock = threading.Lock()
        self._busy = False
        self._ended = False

    @property
    def busy(self) -> bool:
        """Whether a thread is at work, waited for or not."""
        return self._busy

    async def call(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread. Raises what it raises."""

        def guarded() -> T:
            with self._lock:
                if self._ended:
                    raise RuntimeError("this was closed")
                self._busy = True
            try:
                return work()
            finally:
                self._came_back()

        return await run_sync(guarded, limiter=self._one, abandon_on_cancel=True)

    def _came_back(self) -> None:
        with self._lock:
            self._busy = False
            closing = self._ended
        if closing:
            self._close()

    def end(self) -> None:
        """Closes it, now or when the thread comes back. Returns at once; again, it does nothing."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            busy = self._busy
        if not busy:
            self._close()
