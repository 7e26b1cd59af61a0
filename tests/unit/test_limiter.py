"""The rate of an authorization: a bound in every window, in the order of asking, whoever gives up meanwhile."""

from __future__ import annotations

import asyncio

from connectors.sdk.declare import Rate
from daemon.jobs.limiter import Limiter


async def test_without_a_rate_nobody_waits():
    limiter = Limiter(None)

    async with asyncio.timeout(1):
        for _ in range(10_000):
            await limiter.turn()


async def test_who_asks_first_passes_first_and_no_window_has_more_than_the_rate():
    limiter, passed = Limiter(Rate(2, 0.05)), []
    loop = asyncio.get_running_loop()

    async def ask(number):
        await limiter.turn()
        passed.append((number, loop.time()))

    await asyncio.gather(*(ask(number) for number in range(9)))

    assert list(range(9)) == [number for number, _ in passed]
    times = [at for _, at in passed]
    assert min(later - earlier for earlier, later in zip(times, times[2:], strict=False)) >= 0.049


async def test_who_gives_up_takes_no_place_and_holds_nobody_up():
    limiter = Limiter(Rate(1, 0.05))
    loop = asyncio.get_running_loop()
    await limiter.turn()
    began = loop.time()
    waiting = [asyncio.create_task(limiter.turn()) for _ in range(50)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)

    await limiter.turn()

    assert loop.time() - began < 0.5  # not 50 turns of 0.05 s
