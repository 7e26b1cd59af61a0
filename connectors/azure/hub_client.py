"""An open client of an event hub, with deadlines of our own around the SDK, which waits for ever in many cases.

A call that does not end is cancelled, also where the SDK swallows that, and its client is thrown away with its sockets
(PEERS.md 2.6). What the SDK repeats in secret stays: one more attempt of a batch on a new link, without a pause.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from azure.eventhub import EventDataBatch, TransportType
from azure.eventhub.aio import EventHubProducerClient

from connectors.azure.hub_connection import PORTS, Namespace, place_of
from connectors.azure.hub_refusals import BusyError, told, unresolved
from connectors.azure.hub_sockets import Sockets
from connectors.sdk.errors import ConfigError, TransientError, gravest
from connectors.sdk.http import addresses, refusal
from connectors.sdk.run import Network

T = TypeVar("T")

Transport = Literal["amqp", "websocket"]

#: How long closing may take, and how often a call is told to end, before it is left to itself, in seconds.
CLOSE_S: Final = 0.3
#: How long the SDK waits for a frame before it looks after other things, in seconds: opening takes some of these.
_SOCKET_S: Final = 0.1
#: What a batch takes beyond its events: for itself, and for each by its size.
_SMALL, _LARGE = 5, 8


@dataclass(frozen=True, slots=True)
class Way:
    """Which hub, and the way to it."""

    namespace: Namespace
    hub: str
    transport: Transport = "amqp"
    endpoint: str | None = None  # HOST or HOST:PORT that stands for the namespace
    ca_certificates: str | None = None

    @property
    def target(self) -> tuple[str, int]:
        """Host and port that are connected to."""
        host, port = (self.namespace.host, self.namespace.port) if self.endpoint is None else place_of(self.endpoint)
        return host, port or PORTS[self.transport]


class Batch(EventDataBatch):
    """A batch of events that are encoded already."""

    def add_encoded(self, event: bytes) -> bool:
        """Takes an event; False when there is no room for it."""
        size = self._size + len(event) + (_SMALL if len(event) < 256 else _LARGE)
        if size > self.max_size_in_bytes:
            return False
        self._message[5].append(event)
        self._size = size
        self._count += 1
        return True


class Hub:
    """An open client. Made by `open_hub`.

    `partitions` are the ids of the hub's partitions, `largest` is how many bytes it takes at once. After an error it is
    `broken`, and not to be used again.
    """

    def __init__(self, way: Way, network: Network) -> None:
        self.way = way
        self.partitions: Sequence[str] = ()
        self.largest = 0
        self.broken = False
        self._network = network
        self._sockets = Sockets()
        context = None
        if way.ca_certificates is not None:
            context = ssl.create_default_context(cadata=way.ca_certificates)
        host, port = way.target
        custom = way.endpoint is not None or (way.transport == "websocket" and way.namespace.emulator)
        self._client = EventHubProducerClient.from_connection_string(
            way.namespace.text,
            eventhub_name=way.hub,
            transport_type=TransportType.AmqpOverWebsocket if way.transport == "websocket" else TransportType.Amqp,
            custom_endpoint_address=f"sb://{host}:{port}" if custom else None,
            ssl_context=context,
            retry_total=0,
            retry_backoff_factor=0,
            socket_timeout=_SOCKET_S,
        )

    async def open(self) -> None:
        """Connects, and asks for the partitions and the largest message. Raises as `send` does."""
        host, port = self.way.target
        await self._reachable(host, port)
        said = f"{self.way.namespace.host} ({host}:{port})" if self.way.endpoint else f"{host}:{port}"
        what = f"opening {self.way.hub} at {said}"
        try:
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(self._call(self._client.get_eventhub_properties(), what))
                batch = group.create_task(self._call(self._client.create_batch(), what))
        except BaseExceptionGroup as errors:
            raise gravest(errors) from None
        self.partitions = [str(each) for each in asked.result()["partition_ids"]]
        self.largest = batch.result().max_size_in_bytes
        if not self.partitions:
            raise TransientError(f"the hub {self.way.hub} has no partitions now")

    def batch(self, partition: str, most: int) -> Batch:
        """Gives an empty batch for a partition, of at most so many bytes, or as many as the hub takes."""
        return Batch(max_size_in_bytes=min(most, self.largest), partition_id=partition)

    async def send(self, batch: Batch) -> None:
        """Sends a batch; returns when the hub has it.

        Raises AuthError, ConfigError where there is no such hub, BusyError, TooLargeError, TransientError. It may have
        the batch all the same, even twice.
        """
        await self._call(self._client.send_batch(batch), f"sending to {self.way.hub}")

    async def close(self) -> None:
        """Closes the connections, at once where one does not answer."""
        if self.broken:
            await self._sockets.abort()
        await _ended(asyncio.ensure_future(self._client.close()), CLOSE_S)
        await self._sockets.abort()  # also those that the SDK has lost hold of

    async def _reachable(self, host: str, port: int) -> None:
        """Looks the name up, and whether its addresses are permitted. A certificate holds the host to its name."""
        try:
            async with asyncio.timeout(self._network.deadline_s):
                found = await addresses(host.strip("[]"), port)
        except TimeoutError as error:
            raise TransientError(
                f"looking up the name {host} took longer than {self._network.deadline_s:g} s"
            ) from error
        except OSError as error:
            raise unresolved(error, self.way.namespace, host) from error
        for each in found:
            refused = refusal(str(each[4][0]), self._network)
            if refused is not None:
                raise ConfigError(f"{host} is not connected to: {refused}")

    async def _call(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """Does something of the SDK's, within the deadline. What it leaves hanging is cut off with its sockets."""
        with self._sockets.holding():
            task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait([task], timeout=self._network.deadline_s)
        except BaseException:
            self.broken = True
            await undisturbed(self._cut(task))
            raise
        if not done:
            self.broken = True
            await self._cut(task)
            raise TransientError(
                f"{what} took longer than {self._network.deadline_s:g} s: no answer from {self.way.target[0]}"
            )
        if task.cancelled():  # by the SDK itself: nobody here was told to end
            self.broken = True
            raise TransientError(f"{what}: the SDK broke it off")
        try:
            return task.result()
        except Exception as error:  # noqa: BLE001  (the SDK raises anything; it is told apart there)
            explained = told(error, what, self.way.namespace, self.way.hub)
            self.broken = self.broken or not isinstance(explained, BusyError)
            raise explained from None

    async def _cut(self, task: asyncio.Future[Any]) -> None:
        if not await _ended(task, CLOSE_S, cancel=True):
            await self._sockets.abort()
            await _ended(task, CLOSE_S, cancel=True)


@asynccontextmanager
async def open_hub(way: Way, network: Network) -> AsyncIterator[Hub]:
    """Opens a client; closed on leaving."""
    hub = Hub(way, network)
    try:
        await hub.open()
        yield hub
    finally:
        await undisturbed(hub.close())


async def undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Does what has to be done to the end, however often it is cancelled; it must be bounded. Then it is cancelled."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


async def _ended(task: asyncio.Future[Any], seconds: float, *, cancel: bool = False) -> bool:
    """Waits until something has ended, whatever with; with `cancel` it is told to, again and again.

    Once is not enough: `asyncio.wait_for`, which the SDK reads frames with, loses a cancellation that comes with one.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + seconds
    while not task.done() and loop.time() < give_up_at:
        if cancel:
            task.cancel()
        await asyncio.wait([task], timeout=min(0.1, seconds))
    task.add_done_callback(_noticed)
    if not task.done():
        task.cancel()
        return False
    return True


def _noticed(task: asyncio.Future[Any]) -> None:
    """Takes note of how something ended that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
