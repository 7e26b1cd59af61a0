"""Work in threads that a cancelled run leaves alone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from connectors.sdk.threads import Threaded


async def test_what_a_thread_still_works_on_is_closed_when_it_comes_back():
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    threads = Threaded(closed.set)

    def work():
        begun.set()
        go_on.wait(10)

    calling = asyncio.ensure_future(threads.call(work))
    await asyncio.to_thread(begun.wait, 10)
    calling.cancel()
    await asyncio.wait([calling])
    threads.end()
    early = closed.is_set()
    go_on.set()

    assert not early
    assert await asyncio.to_thread(closed.wait, 10)
    with pytest.raises(RuntimeError, match="was closed"):
        await threads.call(work)


async def test_what_nobody_works_on_is_closed_at_once_and_only_once():
    closed = []
    threads = Threaded(lambda: closed.append(1))

    threads.end()
    threads.end()

    assert closed == [1]
