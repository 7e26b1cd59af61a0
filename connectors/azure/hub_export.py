"""`azure_eventhub_export`: every enter and exit as an event of a hub.

The partition key is the profile, so each person's events stay in order. What was not acknowledged is sent again; the
event's `id` is the same each time. Where the hub is busy, the run waits as long as it is asked to, then longer and
longer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from pydantic import Field

from connectors.azure.hub import AZURE_EVENTHUB, hub_of
from connectors.azure.hub_client import Batch, Hub, Transport, Way, undisturbed
from connectors.azure.hub_events import OMITTED_NAMES, OVERHEAD, Partitions, encoded, reduced
from connectors.azure.hub_refusals import BusyError, TooLargeError
from connectors.sdk.declare import TriggerExport, TriggerJob
from connectors.sdk.errors import ConfigError, TransientError, gravest
from connectors.sdk.run import Batching, Lease, Message, TriggerRun

#: The most that hubs take at once, in bytes: Standard and above, and Basic.
STANDARD, BASIC = 1_048_576, 262_144
#: Messages of a lease, and leases that are on the way at the same time.
COUNT: Final = 500
CONCURRENCY: Final = 3
#: The longest wait for a busy hub, and how long a run bears it before the job sleeps, in seconds.
LONGEST_BUSY_S: Final = 60.0
BEARS_S: Final = 300.0
#: A client that sent nothing for so long is opened anew: what lies between forgets connections.
IDLE_S: Final = 60.0
#: Events and bytes a second that a throughput unit stands for.
UNIT_EVENTS: Final = 1000
UNIT_BYTES: Final = 1_000_000
#: How long messages are encoded before the loop gets its turn, in seconds.
SLICE_S: Final = 0.002
#: Names of left-out fields that are logged.
NAMED: Final = 20


class EventHubExport(TriggerExport):
    """How triggers are sent; which hub it is, says the authorization."""

    max_batch_bytes: int = Field(
        STANDARD,
        ge=65_536,
        le=STANDARD,
        description="The most that is sent at once, in bytes: 1048576, on a Basic namespace 262144. Never more than "
        "the hub says itself. A message that is larger loses fields, the largest first.",
    )
    flush_seconds: float = Field(0.5, ge=0, le=300, description="Longest wait for a batch to fill, in seconds.")
    transport: Transport | None = Field(
        None, description="amqp, or websocket: AMQP over WebSockets on port 443. Not given: as the authorization says."
    )
    throughput_units: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Sends no faster than so many throughput units take: 1,000 events and 1 MB a second each. Not "
        "given: as fast as the hub takes it.",
    )


async def run(run: TriggerRun[EventHubExport]) -> None:
    """Sends batch after batch until cancelled."""
    config = run.config
    batching = Batching(count=COUNT, bytes=config.max_batch_bytes, age_s=config.flush_seconds)
    way = hub_of(run.auth).way(config.transport)
    async with _connected(run, way) as connection:
        export = _Export(run, connection)
        await run.deliver(export.send, batching, fields=config.user_fields, concurrency=CONCURRENCY)


class _Connection:
    """The client that is open now, of all that the run opens."""

    def __init__(self, run: TriggerRun[EventHubExport], way: Way) -> None:
        self._run = run
        self._way = way
        self._hub: Hub | None = None
        self._users: dict[Hub, int] = {}
        self._opening = asyncio.Lock()
        self._used_at = 0.0

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Hub]:
        """Gives an open client. One that broke, or was idle for long, is replaced, and closed by its last user."""
        loop = asyncio.get_running_loop()
        async with self._opening:
            hub = self._hub
            if hub is not None and not self._users[hub] and (hub.broken or loop.time() - self._used_at > IDLE_S):
                await undisturbed(self._retire(hub))
                hub = None
            if hub is None or hub.broken:
                hub = await self._open()
            self._users[hub] += 1
        try:
            yield hub
        finally:
            self._users[hub] -= 1
            self._used_at = loop.time()
            if hub is not self._hub and not self._users[hub]:
                await undisturbed(self._retire(hub))

    async def _open(self) -> Hub:
        await self._run.request()
        hub = Hub(self._way, self._run.network)
        self._users[hub] = 0
        try:
            await hub.open()
        except BaseException:
            await undisturbed(self._retire(hub))
            raise
        self._hub = hub
        return hub

    async def _retire(self, hub: Hub) -> None:
        self._users.pop(hub, None)
        if self._hub is hub:
            self._hub = None
        await hub.close()

    async def close(self) -> None:
        """Closes what is open."""
        await asyncio.gather(*(self._retire(hub) for hub in list(self._users)), return_exceptions=True)


@asynccontextmanager
async def _connected(run: TriggerRun[EventHubExport], way: Way) -> AsyncIterator[_Connection]:
    connection = _Connection(run, way)
    try:
        yield connection
    finally:
        await undisturbed(connection.close())


class _Export:
    """What a run sends, and how fast."""

    def __init__(self, run: TriggerRun[EventHubExport], connection: _Connection) -> None:
        self._run = run
        self._config = run.config
        self._connection = connection
        self._gate = _Gate(run)
        self._pace = _Pace(run.config.throughput_units)
        self._most = run.config.max_batch_bytes
        #: Of leases that are tried again: the messages that the hub has already.
        self._there: dict[int, set[str]] = {}

    async def send(self, lease: Lease) -> None:
        """Sends a lease's messages, those of one partition in one batch, as far as it has room for them."""
        self._there.setdefault(id(lease), set())
        while not await self._try(lease):
            pass  # the gate says when it is tried again
        del self._there[id(lease)]

    async def _try(self, lease: Lease) -> bool:
        """Sends what the hub does not have yet. False where it is to be tried again after what the gate says."""
        there = self._there[id(lease)]
        await self._gate.passed()
        errors: list[Exception] = []
        outcomes: list[tuple[list[Message], Exception | None]] = []
        try:
            async with self._connection.use() as hub:
                lease.note(to=f"{hub.way.hub} at {hub.way.namespace.host}")
                outcomes = await self._send_all(hub, [each for each in lease.messages if each.id not in there], lease)
        except BusyError as busy:  # already at opening
            errors.append(busy)
        for messages, error in outcomes:
            if error is None:
                there.update(each.id for each in messages)
            else:
                errors.append(error)
        if not errors:
            await self._gate.through()
            return True
        others = [each for each in errors if not isinstance(each, TooLargeError | BusyError)]
        if others:
            raise gravest(ExceptionGroup("sending", others))
        lease.failed(errors[0])
        for each in errors:
            if isinstance(each, BusyError):
                await self._gate.shut(each)
            elif isinstance(each, TooLargeError):
                self._smaller(each)
        return False

    async def _send_all(
        self, hub: Hub, messages: list[Message], lease: Lease
    ) -> list[tuple[list[Message], Exception | None]]:
        """Sends messages, partition beside partition, and gives what became of each batch."""
        partitions = Partitions(hub.partitions)
        batches: dict[str, list[tuple[Batch, list[Message]]]] = {}
        size = 0
        lost = 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        most = min(self._most, hub.largest)
        for message in messages:
            event, short = self._event(message, most)
            lost += short
            of = batches.setdefault(partitions.of(message.profile), [])
            if not of or not of[-1][0].add_encoded(event):
                partition = partitions.of(message.profile)
                batch = hub.batch(partition, most)
                if not batch.add_encoded(event):
                    raise ConfigError(
                        f"message {message.id} has {len(event)} bytes without any field of the profile, and the hub "
                        f"takes {most}; follow fewer audiences in one job"
                    )
                of.append((batch, []))
            of[-1][1].append(message)
            size += len(event)
            if loop.time() - began > SLICE_S:
                await asyncio.sleep(0)
                began = loop.time()
        lease.note(size=size)
        if lost:
            lease.note(answer=f"{lost} messages lost fields: they were too large")
        await self._pace.passed(len(messages), size)

        async def in_order(of: list[tuple[Batch, list[Message]]]) -> list[tuple[list[Message], Exception | None]]:
            done: list[tuple[list[Message], Exception | None]] = []
            for batch, each in of:
                await self._run.request()
                try:
                    await hub.send(batch)
                except (TransientError, ConfigError, TooLargeError) as error:
                    return [*done, (each, error)]  # what follows in the partition comes after it
                done.append((each, None))
            return done

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_order(of)) for of in batches.values()]
        return [outcome for task in tasks for outcome in task.result()]

    def _event(self, message: Message, most: int) -> tuple[bytes, bool]:
        """Gives the event of a message, without the fields for which there is no room, and whether it lost some."""
        event = encoded(message, message.body)
        room = most - OVERHEAD
        if len(event) <= room:
            return event, False
        beside = len(event) - len(message.body) + OMITTED_NAMES
        body, omitted = reduced(message.body, room - beside)
        event = encoded(message, body, omitted)
        self._run.log.warning(
            "message_reduced",
            message=message.id,
            profile=message.profile,
            bytes=len(message.body),
            sent=len(body),
            fields=len(omitted),
            omitted=omitted[:NAMED],
        )
        return event, True

    def _smaller(self, error: TooLargeError) -> None:
        """Takes half of it at once from now on: the hub takes less than it says."""
        if self._most <= BASIC // 4:
            raise ConfigError(f"{error}; the hub takes not even {self._most} bytes at once")
        self._most //= 2
        self._run.log.warning("batches_halved", bytes=self._most, reason=str(error))


class _Gate:
    """Holds all that is sent back while the hub is busy: twice as long each time, and never all at once."""

    def __init__(self, run: TriggerRun[EventHubExport]) -> None:
        self._run = run
        self._open_at = 0.0
        self._times = 0
        self._since: float | None = None

    async def passed(self) -> None:
        """Waits until the hub may be asked again."""
        await asyncio.sleep(max(self._open_at - asyncio.get_running_loop().time(), 0))

    async def shut(self, error: BusyError) -> None:
        """Takes notice that the hub is busy. Raises the error where that has gone on for too long."""
        now = asyncio.get_running_loop().time()
        if now < self._open_at:
            return  # it was said at the same time by another batch
        if self._since is None:
            self._since = now
        elif now - self._since > BEARS_S:
            raise TransientError(f"{error}; for {BEARS_S / 60:.0f} minutes", retry_after=LONGEST_BUSY_S)
        pause = min(error.pause_s * 2**self._times, LONGEST_BUSY_S) * random.uniform(1.0, 1.25)  # noqa: S311  (jitter)
        self._times += 1
        self._open_at = now + pause
        self._run.log.warning("hub_throttled", wait_s=round(pause, 1), times=self._times, reason=str(error))
        await self._run.tell(f"the hub is busy; it is asked again in {pause:.0f} s")

    async def through(self) -> None:
        """Takes notice that the hub took something."""
        if self._since is not None:
            self._since, self._times = None, 0
            await self._run.tell("")


class _Pace:
    """No more events and bytes a second than so many throughput units."""

    def __init__(
        self,
        units: float | None,
        time: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._units = units
        self._time = time or asyncio.get_running_loop().time
        self._sleep = sleep
        self._free_at = 0.0

    async def passed(self, events: int, size: int) -> None:
        """Waits until so much may be sent."""
        if self._units is None:
            return
        now = self._time()
        at = max(now, self._free_at)
        self._free_at = at + max(events / UNIT_EVENTS, size / UNIT_BYTES) / self._units
        if at > now:
            await self._sleep(at - now)


AZURE_EVENTHUB_EXPORT = TriggerJob(
    slug="azure_eventhub_export",
    label="Export Audiences (Event Hub)",
    description="Sends an event to an event hub for every enter into and exit from the chosen audiences, at once.",
    direction="export",
    config=EventHubExport,
    run=run,
    auths=(AZURE_EVENTHUB,),
    auth_required=True,
)
