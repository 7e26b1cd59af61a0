"""Keeps hold of the sockets that the Event Hubs SDK opens.

The SDK lets go of them, open, where opening fails or is cut off, and offers no way to cut one that is stuck. So its two
transports are replaced by these, which register themselves with whoever is holding.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from azure.eventhub._pyamqp.aio import _connection_async
from azure.eventhub._pyamqp.aio._sasl_async import SASLTransport, SASLWithWebSocket

_HOLDER: ContextVar[Sockets | None] = ContextVar("sockets", default=None)

#: How long closing a WebSocket may take, and its session, in seconds.
_SESSION_S: Final = 0.3


class Sockets:
    """The transports of one client."""

    def __init__(self) -> None:
        self._held: list[Any] = []

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Holds what is opened by tasks that are made within."""
        token = _HOLDER.set(self)
        try:
            yield
        finally:
            _HOLDER.reset(token)

    def hold(self, transport: object) -> None:
        """Takes hold of a transport, before it connects."""
        self._held.append(transport)

    def release(self, transport: object) -> None:
        """Lets go of a transport that was closed."""
        if transport in self._held:
            self._held.remove(transport)

    async def abort(self) -> None:
        """Cuts all that are open."""
        await asyncio.gather(*(_cut(each) for each in self._held))


async def _cut(transport: Any) -> None:
    writer = getattr(transport, "writer", None)
    if writer is not None:
        writer.transport.abort()
    for each in (transport.sock, getattr(transport, "session", None)):  # of a WebSocket
        if each is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(each.close(), _SESSION_S)


class _Plain(SASLTransport):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]  # the SDK's private parts have no types
        self._holder = _held(self)

    async def close(self) -> None:
        await super().close()  # type: ignore[no-untyped-call]  # as above
        self._holder.release(self)


class _WebSocket(SASLWithWebSocket):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]  # as above
        self._holder = _held(self)

    async def close(self) -> None:
        await super().close()  # type: ignore[no-untyped-call]  # as above
        self._holder.release(self)


def _held(transport: object) -> Sockets:
    holder = _HOLDER.get() or Sockets()
    holder.hold(transport)
    return holder


_connection_async.SASLTransport = _Plain  # type: ignore[attr-defined]  # as above
_connection_async.SASLWithWebSocket = _WebSocket  # type: ignore[attr-defined]  # as above
