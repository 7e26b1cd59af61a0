"""What a run is given: its configuration, and, of a trigger export, batches of messages under lease.

A lease is the run's own until it is acknowledged, omitted, or the run ends; what was not settled by then is delivered
again by the next run, first. Messages of one profile come in order: a profile with a message under lease gives its
next one only when that is settled (unless the run asked for `ordered` leases, and so keeps the order itself).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypedDict, TypeVar, Unpack

from pydantic import BaseModel, ConfigDict
from structlog.typing import FilteringBoundLogger

from connectors.sdk.errors import AuthError, ConfigError, TransientError, gravest
from connectors.sdk.secret import Secret

C_co = TypeVar("C_co", covariant=True)


class Credentials(BaseModel):
    """What an authorization method asks for: read-only, and a name that it does not know is refused.

    Secret fields are `pydantic.SecretStr`: they are kept sealed, and shown nowhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(NamedTuple):
    """What one commit changed for one profile, as it is sent."""

    id: str  # the first trigger id
    body: bytes  # JSON, the trigger message of API.md
    enters: int
    exits: int
    profile: str = ""  # whose it is: `_id`, also where the fields that were asked for leave it out
    audiences: tuple[str, ...] = ()  # slugs, as they stand in `segment_events`


@dataclass(frozen=True, slots=True)
class Batching:
    """How large a batch may grow, and how long its first message may wait for the others."""

    count: int = 1
    bytes: int = 1024 * 1024
    age_s: float = 0.0


class Attempt(NamedTuple):
    """What is written down of one attempt to send a lease, for whoever asks what became of it."""

    number: int = 1
    to: str = ""  # who it was sent to: a host, a file
    bytes: int = 0
    status: int | None = None  # of HTTP
    answer: str = ""  # what the destination said; never a secret


class Facts(TypedDict, total=False):
    """What a run may say of an attempt; see `Attempt`. Without `size`, the messages' bytes are counted."""

    to: str
    size: int
    status: int
    answer: str


class Lease(Protocol):
    """Messages on loan. Settling it twice is harmless; what the run leaves unsettled is delivered again."""

    @property
    def messages(self) -> Sequence[Message]:
        """The messages, in the order in which they are to arrive; empty once settled."""

    @property
    def settled(self) -> bool:
        """Whether it was acknowledged or omitted."""

    def note(self, **facts: Unpack[Facts]) -> None:
        """Says what is to be written down of the attempt under way, however it ends."""

    def ack(self, **facts: Unpack[Facts]) -> None:
        """Moves the subscription past these messages. Returns at once; it is stored soon after.

        An `ordered` lease takes all that were given out before it along.
        """

    def omit(self, reason: str, **facts: Unpack[Facts]) -> None:
        """Moves past these messages without having delivered them: the destination refused them for good."""

    def failed(self, error: Exception, **facts: Unpack[Facts]) -> None:
        """Counts and logs an attempt that failed. The lease stays; try again, or raise."""


class Leases(Protocol):
    """The batches of one run."""

    async def next(self, timeout_s: float | None = None) -> Lease | None:
        """Gives the next batch, None after `timeout_s` without one. Several tasks may wait."""


class TriggerSource(Protocol):
    """Where a run's batches come from; the bus."""

    def leases(self, batching: Batching, *, fields: Sequence[str] | None, ordered: bool) -> Leases:
        """Begins to give out batches; `fields` None means all profile fields."""


@dataclass(frozen=True, slots=True)
class Network:
    """What a connector may reach and how long it waits."""

    deadline_s: float = 30.0
    allow_loopback: bool = True
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Patience:
    """Retries inside a run: from `first_s` doubling, with jitter, for about `total_s` after the first failure."""

    first_s: float = 0.15
    total_s: float = 5.0


class Control(Protocol):
    """What a run tells the daemon, and asks of it."""

    async def save(self, checkpoint: object) -> None:
        """Keeps where the run is (a JSON value), durably; the next run finds it in `checkpoint`."""

    async def request(self) -> None:
        """Waits until the authorization's rate allows one more request, and counts it."""

    def count(self, *, added: int = 0, removed: int = 0, omitted: int = 0, failed: int = 0) -> None:
        """Adds to what the job is shown to have done: profiles, or rows."""

    async def tell(self, reason: str) -> None:
        """Shows what the run is doing or waiting for beside the job's state; "" clears it."""

    def finish(self) -> None:
        """Says that nothing is left to do, whatever the schedule: the job is completed when the run returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[C_co]):
    """What every run may use. Cancelled on pause, in quiet hours and on shutdown; that is no failure."""

    job: str
    config: C_co
    log: FilteringBoundLogger
    secret: Callable[[str], Secret]  # resolves a reference; ConfigError when there is nothing
    exports: Path  # where relative folders of what is written begin
    now_us: Callable[[], int]  # the wall clock, microseconds since the epoch
    control: Control
    network: Network = field(default_factory=Network)
    patience: Patience = field(default_factory=Patience)
    imports: Path = field(default_factory=Path)  # where relative folders of what is read begin
    spool: Path = field(default_factory=Path)  # for files that last no longer than the run; it may not exist yet
    auth: Credentials | None = None  # of the job's authorization
    #: Whether the job has a schedule: what keeps updated then goes on from `checkpoint`.
    repeats: bool = False
    #: What was saved last, by this run's predecessors; None before the first.
    checkpoint: Any = None

    async def save(self, checkpoint: object) -> None:
        """Keeps where the run is (a JSON value), durably; the next run finds it in `checkpoint`."""
        await self.control.save(checkpoint)

    async def request(self) -> None:
        """Waits until the authorization's rate allows one more request, and counts it."""
        await self.control.request()

    def count(self, *, added: int = 0, removed: int = 0, omitted: int = 0, failed: int = 0) -> None:
        """Adds to what the job is shown to have done: profiles, or rows."""
        self.control.count(added=added, removed=removed, omitted=omitted, failed=failed)

    async def tell(self, reason: str) -> None:
        """Shows what the run is doing or waiting for beside the job's state; "" clears it."""
        await self.control.tell(reason)

    def finish(self) -> None:
        """Says that nothing is left to do, whatever the schedule: the job is completed when the run returns."""
        self.control.finish()


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRun(Run[C_co]):
    """What the run of a trigger export may use."""

    source: TriggerSource

    def leases(self, batching: Batching, *, fields: Sequence[str] | None = None, ordered: bool = False) -> Leases:
        """Begins to give out batches; see `Lease`. Call it once in a run."""
        return self.source.leases(batching, fields=fields, ordered=ordered)

    async def deliver(
        self,
        send: Callable[[Lease], Awaitable[None]],
        batching: Batching,
        *,
        fields: Sequence[str] | None = None,
        concurrency: int = 1,
    ) -> None:
        """Sends batch after batch, `concurrency` at a time, for as long as the run lasts.

        `send` returns when the batch is delivered (it is then acknowledged, if not settled already) or raises.
        A TransientError is tried again for about 5 s; then, or at once where the destination named a time or refused
        the authorization, it ends the run.
        """
        leases = self.leases(batching, fields=fields)

        async def work() -> None:
            while True:
                lease = await leases.next()
                if lease is not None:
                    await self._deliver_one(send, lease)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise gravest(errors) from None

    async def _deliver_one(self, send: Callable[[Lease], Awaitable[None]], lease: Lease) -> None:
        loop = asyncio.get_running_loop()
        delay = self.patience.first_s
        give_up_at: float | None = None
        while True:
            try:
                await send(lease)
            except TransientError as error:
                if lease.settled:  # delivered, and something went wrong after it
                    return
                lease.failed(error)
                if give_up_at is None:
                    give_up_at = loop.time() + self.patience.total_s
                pause = delay * random.uniform(0.5, 1.0)  # noqa: S311  (jitter, no secret)
                named = error.retry_after is not None or isinstance(error, AuthError)
                if named or loop.time() + pause > give_up_at:
                    raise
                await asyncio.sleep(pause)
                delay *= 2
            except ConfigError as error:
                lease.failed(error)
                raise
            else:
                lease.ack()
                return


@asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Bounds what stands inside; after `seconds` it is cancelled and a TransientError says what took too long."""
    try:
        async with asyncio.timeout(seconds) as scope:
            yield
    except TimeoutError as error:
        if scope.expired():
            raise TransientError(f"{what} took longer than {seconds:g} s") from error
        raise TransientError(f"{what} timed out") from error
