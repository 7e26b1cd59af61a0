"""A webhook receiver in a process of its own, so that it can be stopped, be slow and be hostile.

Run as a script it prints its port. What it does is in the path: `/ok`, `/status/503`, `/slow/0.5`, `/big` (50 MB),
`/trickle` (an endless answer), `/reset` (drops the connection), `/redirect`. `?retry_after=7` adds that header,
`?times=3` makes it misbehave the first three times only. `GET /seen?path=/ok` gives what came, as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import time

from aiohttp import web

SEEN: list[dict[str, object]] = []
TIMES: dict[str, int] = {}


async def receive(request: web.Request) -> web.StreamResponse:
    try:
        return await answer(request)
    except ConnectionError:  # whom it answered has gone
        return web.Response()


async def answer(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    SEEN.append(
        {
            "path": request.path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": base64.b64encode(body).decode(),
            "at": time.time(),
        }
    )
    way = request.path.split("/")[1:]
    calls = TIMES[request.path_qs] = TIMES.get(request.path_qs, 0) + 1
    if "times" in request.query and calls > int(request.query["times"]):
        return web.Response()
    headers = {"Retry-After": request.query["retry_after"]} if "retry_after" in request.query else {}
    match way:
        case ["status", code, *_]:
            return web.Response(status=int(code), text=f"cannot: {request.headers.get('x-token', '')}", headers=headers)
        case ["slow", seconds, *_]:
            await asyncio.sleep(float(seconds))
        case ["big", *_]:
            response = web.StreamResponse(status=int(request.query.get("status", 200)))
            await response.prepare(request)
            for _ in range(50):
                await response.write(b"x" * 1_000_000)
            return response
        case ["trickle", *_]:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.05)
        case ["reset", *_]:
            if request.transport is not None:
                request.transport.abort()
        case ["redirect", *_]:
            raise web.HTTPTemporaryRedirect("/ok")
    return web.Response()


async def seen(request: web.Request) -> web.Response:
    path = request.query.get("path")
    return web.json_response([each for each in SEEN if path in (None, each["path"])])


async def main() -> None:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/seen", seen)
    app.router.add_route("POST", "/{way:.*}", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
