"""The floor of collection: a bare aiohttp handler that only reads the body. Prints its address first."""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web


async def read(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(text="ok")


async def main() -> None:
    app = web.Application()
    app.router.add_post("/collect/json/{stream}", read)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
