"""Requests at an even rate, from this process; each one's time from its planned moment to its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Load:
    """What was seen: when each request was planned (monotonic seconds), how long it took, and what was refused."""

    planned: dict[int, float] = field(default_factory=dict)
    latency_s: list[float] = field(default_factory=list)
    refused: int = 0


async def steady(
    url: str,
    body: Callable[[int], bytes],
    *,
    rate: float,
    duration_s: float,
    token: str = "",
    stop: asyncio.Event | None = None,
) -> Load:
    """Sends `rate` requests a second for `duration_s`, or until `stop`; a slow answer does not delay the next request.

    Latency counts from the planned moment, so that waiting in the sender is not left out.
    """
    load = Load()
    headers = {"Content-Type": "application/json", "Authorization": token}
    connector = aiohttp.TCPConnector(limit=256)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:

        async def send(number: int, planned: float) -> None:
            async with session.post(url, data=body(number), headers=headers) as response:
                await response.read()
                if response.status >= 300:
                    load.refused += 1
            load.latency_s.append(time.monotonic() - planned)

        start = time.monotonic() + 0.05
        for number in range(int(rate * duration_s)):
            planned = start + number / rate
            delay = planned - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            if stop is not None and stop.is_set():
                break
            load.planned[number] = planned
            group.create_task(send(number, planned))
    return load
