"""Work in the event loop, in slices, so that collection and the bus get their turn (P5).

A single event needs several turns of the loop until it is on disk and answered; each waits for a slice.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

SLICE_S: Final = 0.0003


class Slices:
    """Says when a slice is over. Ask `over` every few items; `await turn()` when it is."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = perf_counter() + SLICE_S

    @property
    def over(self) -> bool:
        """Says whether this slice has lasted long enough."""
        return perf_counter() >= self._end

    async def turn(self) -> None:
        """Lets everything else that is ready run, then begins the next slice."""
        await asyncio.sleep(0)
        self._end = perf_counter() + SLICE_S
