"""What jobs need of the other parts of the daemon. `daemon.app` hands them over; none of them is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from connectors.sdk.declare import AudienceExport, EventsExport, Import
from connectors.sdk.exports import EventSource, MemberSource
from connectors.sdk.imports import RowSink
from connectors.sdk.run import Attempt, Credentials, TriggerSource
from daemon.jobs.alerts import Source
from daemon.jobs.opening import Prepared
from daemon.model.subscription import Outcome
from daemon.store.subscriptions import SubscriptionRow

#: Says of a moment (microseconds since the epoch) whether what happened then is dropped.
Dropped = Callable[[int], bool]


class Subscriptions(Protocol):
    """What jobs need of the bus."""

    def add(self, row: SubscriptionRow) -> None:
        """Takes up a subscription that was stored."""

    def remove(self, subscription_id: str) -> None:
        """Lets go of a subscription that is deleted."""

    async def retire(self, subscription_id: str) -> None:
        """Stores how far a subscription is, for the last time, and lets go of it."""

    def attach(
        self,
        subscription_id: str,
        logger: FilteringBoundLogger,
        on_delivered: Callable[[], None],
        dropped: Dropped | None = None,
        run_id: str = "",
    ) -> AbstractAsyncContextManager[TriggerSource]:
        """Lets one run read a subscription; triggers of moments that are `dropped` are passed over, as omitted."""


class OpenedAuth(Protocol):
    """An authorization that a run may use."""

    @property
    def credentials(self) -> Credentials:
        """Its values, secrets and all."""

    async def request(self) -> None:
        """Waits for its turn in the authorization's rate, and counts a request."""

    def cleanse(self, error: BaseException) -> None:
        """Takes the authorization's secrets out of what an error says."""


class Authorizations(Protocol):
    """What jobs need of the authorizations."""

    async def method_of(self, auth_id: str) -> tuple[str, str] | None:
        """Gives the slugs of an authorization's provider and method, None when there is none."""

    async def prepare(
        self,
        provider: str,
        method: str,
        config: Mapping[str, Any],
        *,
        label: str = "",
        description: str = "",
        owner: str = "",
    ) -> Prepared:
        """Accepts and checks a new authorization, to be stored in the transaction of its job.

        Raises Refused with the findings or the provider's words, and VaultError.
        """

    def took(self, prepared: Prepared) -> None:
        """Takes notice that a prepared authorization is stored."""

    async def opened(self, auth_id: str) -> OpenedAuth:
        """Opens an authorization for a run.

        Raises ConfigError where it is gone, AuthError or TransientError where it cannot be opened now.
        """

    def met(self, auth_id: str, error: Exception | None) -> None:
        """Takes notice of what a run met: None when the provider accepted it. Returns at once."""


class Rows(Protocol):
    """Where the rows of one import go; see RowSink."""

    @property
    def checkpoint(self) -> object:
        """What was saved or emitted last, None before that."""

    @property
    def sink(self) -> RowSink:
        """Takes the rows."""


class Data(Protocol):
    """What imports and exports need of the log and the profiles."""

    def rows(self, job_id: str, config: Import, logger: FilteringBoundLogger) -> AbstractAsyncContextManager[Rows]:
        """Opens the way of one import's rows into the log."""

    def members(self, config: AudienceExport) -> MemberSource:
        """Gives the members of an export's audiences."""

    def events(self, config: EventsExport) -> EventSource:
        """Gives the events of an export's streams."""

    async def forget(self, job_id: str) -> None:
        """Deletes what is kept for the imports of a job that is deleted."""


class Journal(Protocol):
    """Where what jobs do is written down for their owners. Every call returns at once and never fails."""

    def job_event(self, job_id: str, run_id: str | None, level: str, code: str, message: str, **facts: object) -> None:
        """Notes a line of the job's own log."""

    def run_began(self, job_id: str, run_id: str, began_us: int) -> None:
        """Notes that a run began."""

    def run_ended(self, job_id: str, run_id: str, ended_us: int, outcome: str, reason: str) -> None:
        """Notes how a run ended: done, error, retry_after, not_yet, failed, cancelled, quiet, expired."""

    def counted(self, job_id: str, run_id: str, *, added: int, removed: int, omitted: int, failed: int) -> None:
        """Adds to the job's activity."""

    def delivered(
        self,
        job_id: str,
        run_id: str,
        outcome: Outcome,
        attempt: Attempt,
        *,
        messages: Sequence[tuple[int, int, int]],
        many: int,
        again: int,
        counts: tuple[int, int, int, int],
        sample: bytes | None,
        alert: bool = False,
    ) -> None:
        """Notes an attempt at sending messages that are no triggers."""


class Unwatched:
    """A journal that keeps nothing."""

    def job_event(self, job_id: str, run_id: str | None, level: str, code: str, message: str, **facts: object) -> None:
        """Keeps nothing."""

    def run_began(self, job_id: str, run_id: str, began_us: int) -> None:
        """Keeps nothing."""

    def run_ended(self, job_id: str, run_id: str, ended_us: int, outcome: str, reason: str) -> None:
        """Keeps nothing."""

    def counted(self, job_id: str, run_id: str, *, added: int, removed: int, omitted: int, failed: int) -> None:
        """Keeps nothing."""

    def delivered(self, *_: object, **__: object) -> None:
        """Keeps nothing."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that are there. Without one of them, jobs that need it are refused."""

    bus: Subscriptions
    authorizations: Authorizations | None = None
    data: Data | None = None
    journal: Journal = Unwatched()  # noqa: RUF009  (it holds nothing)
    system: Source | None = None
