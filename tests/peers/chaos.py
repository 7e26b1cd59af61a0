"""A proxy at the wire that makes trouble: it answers instead of the peer, delays, cuts off, resets, and goes silent.

`async with chaos(port) as proxy`: connect to `proxy.port`. Faults are set on the proxy and hold until they are used up;
without any, bytes pass as they are. `answer` knows HTTP/1.1, all else works for any protocol over TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

PIECE = 64 * 1024


@dataclass
class _Answers:
    status: int
    left: int
    body: bytes
    headers: str
    matching: re.Pattern[str]
    skip: int


@dataclass
class Chaos:
    """The proxy. `connections` counts those that were taken, `requests` are the first lines of HTTP requests."""

    peer: tuple[str, int]
    port: int = 0
    #: Seconds that each piece waits, in each direction.
    delay_s: float = 0.0
    #: After so many bytes from the client the connection is reset; None: never. `cut_times`: how often.
    cut_after: int | None = None
    cut_times: int = 0
    #: After so many bytes to the client the connection is reset.
    cut_back_after: int | None = None
    #: Takes connections and bytes, and passes nothing on.
    silent: bool = False
    connections: int = 0
    requests: list[str] = field(default_factory=list)
    #: Set whenever a fault was used.
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    _answers: list[_Answers] = field(default_factory=list)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def answer(
        self,
        status: int,
        times: int = 1,
        *,
        body: bytes = b"",
        headers: str = "",
        matching: str = "",
        skip: int = 0,
    ) -> None:
        """Answers the next `times` HTTP requests whose first line fits, after `skip` such, in the peer's stead."""
        self._answers.append(_Answers(status, times, body, headers, re.compile(matching), skip))

    def clear(self) -> None:
        """Passes everything on again."""
        self._answers.clear()
        self.delay_s, self.cut_after, self.cut_times, self.cut_back_after, self.silent = 0.0, None, 0, None, False

    def cut(self, after: int, times: int = 1) -> None:
        """Resets the next `times` connections after so many bytes from the client."""
        self.cut_after, self.cut_times = after, times

    def drop(self) -> None:
        """Resets all connections that there are."""
        for writer in list(self._writers):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        there: asyncio.StreamWriter | None = None
        try:
            while self.silent:
                if not await reader.read(PIECE):
                    return
            back, there = await asyncio.open_connection(*self.peer)
            async with asyncio.TaskGroup() as group:
                returning = group.create_task(self._return(back, writer))
                await self._forward(reader, there, writer)
                returning.cancel()
        except* (OSError, asyncio.IncompleteReadError):
            _reset(writer)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            for each in (writer, there):
                if each is not None:
                    each.close()
                    with contextlib.suppress(OSError):
                        await each.wait_closed()

    async def _forward(
        self, reader: asyncio.StreamReader, there: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        taken = 0
        body_left = 0  # of the HTTP request under way
        while data := await reader.read(PIECE):
            while self.silent:
                if not await reader.read(PIECE):
                    return
            taken += len(data)
            if self.cut_after is not None and self.cut_times > 0 and taken > self.cut_after:
                self.cut_times -= 1
                self.struck.set()
                raise ConnectionResetError
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if body_left > 0:
                body_left -= len(data)
            elif head := re.match(rb"([A-Z]+ [^\r\n]* HTTP/1\.1)\r\n", data):
                while b"\r\n\r\n" not in data and (more := await reader.read(PIECE)):
                    data += more
                line = head[1].decode()
                self.requests.append(line)
                announced = re.search(rb"\r\ncontent-length: *(\d+)", data, re.IGNORECASE)
                body_left = (int(announced[1]) if announced else 0) - (len(data) - data.index(b"\r\n\r\n") - 4)
                if (answers := self._answer_to(line)) is not None:
                    while body_left > 0:
                        body_left -= len(await reader.readexactly(min(body_left, PIECE)))
                    reply = (
                        f"HTTP/1.1 {answers.status} Chaos\r\nContent-Length: {len(answers.body)}\r\n{answers.headers}"
                    )
                    client.write(reply.encode() + b"\r\n" + (b"" if line.startswith("HEAD") else answers.body))
                    await client.drain()
                    self.struck.set()
                    continue
            there.write(data)
            await there.drain()

    def _answer_to(self, line: str) -> _Answers | None:
        for each in self._answers:
            if each.left and each.matching.search(line):
                if each.skip:
                    each.skip -= 1
                    continue
                each.left -= 1
                return each
        return None

    async def _return(self, back: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        given = 0
        while data := await back.read(PIECE):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            given += len(data)
            if self.cut_back_after is not None and given > self.cut_back_after:
                self.cut_back_after = None
                self.struck.set()
                raise ConnectionResetError
            client.write(data)
            await client.drain()
        raise ConnectionResetError  # the peer is gone


@asynccontextmanager
async def chaos(port: int, host: str = "127.0.0.1") -> AsyncIterator[Chaos]:
    """Runs a proxy in front of a peer while the block runs."""
    proxy = Chaos((host, port))
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(proxy._tasks):
            task.cancel()
        await asyncio.gather(*proxy._tasks, return_exceptions=True)
        await server.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection by RST: with a linger time of nothing, what was not sent is thrown away."""
    made = writer.get_extra_info("socket")
    if made is not None:
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
