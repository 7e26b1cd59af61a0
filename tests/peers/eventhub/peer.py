"""An Event Hubs namespace in a process: AMQP plain, with TLS, and over WebSockets, and a port to steer it by.

`python -m eventhub.peer '{"hubs": {"people": 4}, "keys": {"send": "…"}}'` prints a line of JSON with its ports when it
listens, and ends on SIGTERM. With `store` it keeps what was acknowledged through a kill. Steering is a line of JSON
each way: see `Control`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp.web
from eventhub.amqp import Client, Namespace
from eventhub.faults import Faults
from eventhub.hubs import Hubs, shown

HOST = "127.0.0.1"
#: Where the SDKs look for AMQP over WebSockets, and its subprotocol.
WEBSOCKET = "/$servicebus/websocket"
SUBPROTOCOL = "AMQPWSB10"


class Control:
    """Takes a line of JSON, `{"do": …}`, and answers with one."""

    def __init__(self, namespace: Namespace) -> None:
        self._space = namespace

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers line after line."""
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                asked = json.loads(line)
                answer = await getattr(self, "do_" + asked.pop("do"))(**asked)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def do_fault(self, **facts: Any) -> None:
        """Sets a fault; see `eventhub.faults`."""
        self._space.faults.add(**facts)

    async def do_clear(self) -> None:
        """Takes all faults away."""
        self._space.faults.faults.clear()

    async def do_stats(self) -> dict[str, Any]:
        """Tells how many connections there are and were, the faults, and of each hub its events and messages."""
        return {
            "connections": len(self._space.connections),
            "opened": self._space.opened,
            "faults": [asdict(each) for each in self._space.faults.faults],
            "hubs": {
                name: {"events": sum(map(len, hub.partitions)), "sizes": hub.sizes, "batches": hub.batches}
                for name, hub in self._space.hubs.hubs.items()
            },
        }

    async def do_events(self, hub: str, after: list[int] | None = None) -> list[dict[str, Any]]:
        """Gives the events of a hub, partition by partition, of each behind the sequence numbers `after`."""
        found = []
        for number, events in enumerate(self._space.hubs.hubs[hub].partitions):
            found += [shown(each, number) for each in events[after[number] if after else 0 :]]
        return found

    async def do_wait(self, hub: str, count: int) -> int:
        """Answers when a hub has so many events."""
        async with self._space.grown:
            while (many := sum(map(len, self._space.hubs.hubs[hub].partitions))) < count:
                await self._space.grown.wait()
        return many

    async def do_span(self, hub: str) -> list[int]:
        """Tells how many events a hub has, and when the first and the last came, in milliseconds."""
        times = [each.at_ms for events in self._space.hubs.hubs[hub].partitions for each in events]
        return [len(times), min(times), max(times)]

    async def do_wait_hits(self, on: str, count: int) -> int:
        """Answers when faults of a place have struck so often."""
        while (many := sum(each.hit for each in self._space.faults.faults if each.on == on)) < count:
            await asyncio.sleep(0.01)
        return many

    async def do_create(self, hub: str, partitions: int) -> None:
        """Makes a hub."""
        self._space.hubs.create(hub, partitions)

    async def do_delete(self, hub: str) -> None:
        """Deletes a hub and ends its links."""
        del self._space.hubs.hubs[hub]
        for each in list(self._space.connections):
            each.detach(hub)

    async def do_keys(self, keys: dict[str, str]) -> None:
        """Changes the keys; connections that there are stay."""
        self._space.hubs.keys = keys

    async def do_drop(self) -> int:
        """Cuts all connections."""
        each = list(self._space.connections)
        for one in each:
            one.drop()
        return len(each)

    async def do_max_message(self, size: int) -> None:
        """Changes what links that come take at most."""
        self._space.max_message = size


async def _relay(request: aiohttp.web.Request, port: int) -> aiohttp.web.WebSocketResponse:
    """Passes the bytes of a WebSocket on to the plain port, and back."""
    socket = aiohttp.web.WebSocketResponse(protocols=(SUBPROTOCOL,), max_msg_size=0)
    await socket.prepare(request)
    reader, writer = await asyncio.open_connection(HOST, port)

    async def back() -> None:
        while data := await reader.read(65536):
            await socket.send_bytes(data)
        await socket.close()

    task = asyncio.ensure_future(back())
    try:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                writer.write(message.data)
                await writer.drain()
    finally:
        task.cancel()
        writer.close()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await task
    return socket


async def serve(config: dict[str, Any]) -> None:
    """Serves until SIGTERM."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    store = Path(config["store"]) if config.get("store") else None
    hubs = Hubs(config["hubs"], config["keys"], store)
    namespace = Namespace(hubs, Faults(), config.get("max_message", 1024 * 1024))
    ports = config.get("ports", {})
    async with AsyncExitStack() as stack:
        stack.callback(hubs.close)
        found: dict[str, int] = {}

        async def listen(name: str, context: ssl.SSLContext | None) -> int:
            server = await loop.create_server(lambda: Client(namespace), HOST, ports.get(name, 0), ssl=context)
            stack.callback(server.close)
            found[name] = server.sockets[0].getsockname()[1]
            return found[name]

        plain = await listen("amqp", None)
        tls = None
        if config.get("certificate"):
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(config["certificate"], config["key"])
            await listen("amqps", tls)

        async def relay(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
            return await _relay(request, plain)

        application = aiohttp.web.Application()
        application.router.add_get(WEBSOCKET, relay)
        runner = aiohttp.web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        for name, context in (("ws", None), ("wss", tls)):
            if name == "ws" or context is not None:
                site = aiohttp.web.TCPSite(runner, HOST, ports.get(name, 0), ssl_context=context)
                await site.start()
                found[name] = runner.addresses[-1][1]
        control = await asyncio.start_server(Control(namespace).serve, HOST, ports.get("control", 0), limit=2**24)
        stack.callback(control.close)
        found["control"] = control.sockets[0].getsockname()[1]
        print(json.dumps(found), flush=True)
        await done.wait()
        for each in list(namespace.connections):
            each.drop()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
