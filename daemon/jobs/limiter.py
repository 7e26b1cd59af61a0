"""How often requests may be made with one authorization, by all its jobs together."""

from __future__ import annotations

import asyncio
from collections import deque

from connectors.sdk.declare import Rate


class Limiter:
    """Lets at most `rate.requests` pass in any `rate.per_s` seconds, in the order of asking; without a rate, all.

    Who is cancelled while waiting takes no place from the others.
    """

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._passed: deque[float] = deque(maxlen=rate.requests if rate is not None else 0)
        self._turn = asyncio.Lock()

    async def turn(self) -> None:
        """Waits until one more request may be made."""
        if self._rate is None:
            return
        loop = asyncio.get_running_loop()
        async with self._turn:
            if len(self._passed) == self._rate.requests:
                wait_s = self._passed[0] + self._rate.per_s - loop.time()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
            self._passed.append(loop.time())
