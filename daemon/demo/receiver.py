"""The destination of the demo, as a process of its own: takes webhooks, checks their signatures, counts.

`python -m daemon.demo.receiver [PORT]` prints its address. `POST /` takes messages; `GET /` says what came so far.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import sys
from collections import Counter, deque
from typing import Any

import orjson
from aiohttp import web

LATEST = 12
#: Trigger ids remembered to tell repeats from first deliveries; beyond it they are forgotten.
REMEMBERED = 500_000
LARGEST_REQUEST = 16 * 1024 * 1024


class Receiver:
    """What came so far. A trigger counts once, however often it is delivered."""

    def __init__(self, secret: str) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._seen: set[str] = set()
        self._requests = 0
        self._forged = 0
        self._repeats = 0
        self._events: Counter[str] = Counter()
        self._latest: deque[dict[str, Any]] = deque(maxlen=LATEST)

    async def take(self, request: web.Request) -> web.Response:
        """Takes a request with one message or an array of them; 401 for a signature that is not ours."""
        body = await request.read()
        self._requests += 1
        if not self._signed(request, body):
            self._forged += 1
            return web.Response(status=401)
        messages = orjson.loads(body)
        for message in messages if isinstance(messages, list) else [messages]:
            for event in message["data"]["segment_events"]:
                self._note(message["data"], event)
        return web.Response(status=204)

    async def tell(self, _: web.Request) -> web.Response:
        """Says what came so far."""
        told = {
            "requests": self._requests,
            "triggers": sum(self._events.values()),
            "repeats": self._repeats,
            "forged": self._forged,
            "events": self._events,
            "latest": list(self._latest),
        }
        return web.Response(body=orjson.dumps(told), content_type="application/json")

    def _note(self, profile: dict[str, Any], event: dict[str, Any]) -> None:
        if event["trigger_id"] in self._seen:
            self._repeats += 1
            return
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        self._seen.add(event["trigger_id"])
        self._events[f"{event['slug']} {event['event']}"] += 1
        self._latest.append(
            {"slug": event["slug"], "event": event["event"], "at": event[event["event"]]}
            | {"customer_id": profile.get("customer_id"), "spent": profile.get("spent")}
        )

    def _signed(self, request: web.Request, body: bytes) -> bool:
        head = f"{request.headers.get('webhook-id', '')}.{request.headers.get('webhook-timestamp', '')}."
        wanted = b"v1," + base64.b64encode(hmac.digest(self._key, head.encode() + body, hashlib.sha256))
        given = request.headers.get("webhook-signature", "").encode()
        return any(hmac.compare_digest(wanted, each) for each in given.split(b" "))


async def serve(port: int) -> None:
    """Serves until the process is ended; prints the address first."""
    receiver = Receiver(os.environ["DEMO_WEBHOOK_SECRET"])
    app = web.Application(client_max_size=LARGEST_REQUEST)
    app.add_routes([web.post("/", receiver.take), web.get("/", receiver.tell)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    host, bound = runner.addresses[0][:2]
    print(f"http://{host}:{bound}/", flush=True)  # noqa: T201  (its parent reads it)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
