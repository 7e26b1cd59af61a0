"""The floor for latency, as a process: takes a POST, appends it to a file, fsyncs, answers, and POSTs it on.

Arguments: the receiver's address, the file. Prints its own address.
"""

from __future__ import annotations

import asyncio
import os
import sys

import aiohttp
import uvloop
from aiohttp import web


async def main(target: str, path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sending: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:

        async def send(body: bytes) -> None:
            async with session.post(target, data=body) as response:
                await response.read()

        async def take(request: web.Request) -> web.Response:
            body = await request.read()
            os.write(file, body + b"\n")
            os.fdatasync(file)
            task = asyncio.create_task(send(body))
            sending.add(task)
            task.add_done_callback(sending.discard)
            return web.Response()

        app = web.Application()
        app.add_routes([web.post("/{rest:.*}", take)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/", flush=True)
        await asyncio.Event().wait()


uvloop.run(main(sys.argv[1], sys.argv[2]))
