"""A webhook receiver, as a process: prints its address, then keeps when each sequence number arrived.

`GET /times` gives `{"number": seconds}` on the monotonic clock that all processes of a machine share, and forgets them;
`GET /count` how many messages came. With the argument `hang`, it takes requests and never answers.
"""

from __future__ import annotations

import asyncio
import sys
import time

import orjson
from aiohttp import web

FIELD = "number"


async def main(*, hang: bool) -> None:
    times: dict[int, float] = {}
    count = 0

    async def hook(request: web.Request) -> web.Response:
        nonlocal count
        arrived = time.monotonic()
        message = orjson.loads(await request.read())
        if hang:
            await asyncio.Event().wait()
        for each in message if isinstance(message, list) else [message]:
            count += 1
            number = each.get("data", each).get(FIELD)
            if number is not None:
                times.setdefault(int(number), arrived)
        return web.Response()

    async def give_times(_: web.Request) -> web.Response:
        content = orjson.dumps(times, option=orjson.OPT_NON_STR_KEYS)
        times.clear()
        return web.Response(body=content)

    async def give_count(_: web.Request) -> web.Response:
        return web.json_response(count)

    app = web.Application(client_max_size=2**30)
    app.add_routes([web.post("/", hook), web.get("/times", give_times), web.get("/count", give_count)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(hang="hang" in sys.argv))
