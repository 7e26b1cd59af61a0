"""Closed-loop load: connections that each send the next request when the last is answered.

`python closed.py URL TOKEN CONNECTIONS SECONDS` prints `{"count", "seconds", "refused", "p99_ms"}`.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from urllib.parse import urlsplit

import orjson
import uvloop

BODY = (
    b'{"user_id":"u12345","email":"u12345@example.com","_e":"purchase","amount":11.77,"items":3,'
    b'"page":{"path":"/checkout","title":"Check out"}}'
)
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)


class Sender(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request = request
        self.until = until
        self.times: list[float] = []
        self.refused = 0
        self.answer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head = self.answer.find(b"\r\n\r\n")
        length = LENGTH.search(self.answer)
        if head < 0 or length is None or len(self.answer) < head + 4 + int(length[1]):
            return
        now = time.perf_counter()
        self.refused += not self.answer.startswith(b"HTTP/1.1 200")
        self.times.append(now - self.sent)
        self.answer = b""
        if now < self.until:
            self.send()
        else:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("closed by the server"))


async def main(url: str, token: str, connections: int, seconds: float) -> None:
    parts = urlsplit(url)
    request = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    senders = [
        (await loop.create_connection(lambda: Sender(request, began + seconds), parts.hostname, parts.port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(sender.done for sender in senders))
    took = time.perf_counter() - began
    times = sorted(each for sender in senders for each in sender.times)
    facts = {
        "count": len(times),
        "seconds": took,
        "refused": sum(sender.refused for sender in senders),
        "p99_ms": 1000 * times[int(0.99 * len(times))],
    }
    print(orjson.dumps(facts).decode())


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
