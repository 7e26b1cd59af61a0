"""How much of requests is in memory at a time: a bound in bytes, and one large body at work."""

from __future__ import annotations

import asyncio

#: Bodies up to this size are worked on as they come; larger ones one after the other.
SMALL_BYTES = 256 * 1024


class Budget:
    """Bytes of bodies that have come and are not done with, at most `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        #: Held while a large body is worked on, since its events take many times its size.
        self.large = asyncio.Lock()

    def take(self, size: int) -> bool:
        """Takes bytes; False, and nothing taken, when there are not so many left."""
        if self._used + size > self._limit:
            return False
        self._used += size
        return True

    def give_back(self, size: int) -> None:
        """Gives bytes back."""
        self._used -= size
