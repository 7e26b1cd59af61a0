"""What is read ahead, what is given out, and the lease that a run holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from connectors.sdk.run import Message
from daemon.model.subscription import Outcome
from daemon.store.trigger_log import Bodies
from streams.trigger import TriggerRow


class Settling(Protocol):
    """Whoever gave a lease out."""

    @property
    def log(self) -> FilteringBoundLogger:
        """The run's log."""

    def holds(self, number: int) -> bool:
        """Says whether the lease of this number is still to be settled."""

    def settle(self, number: int, outcome: Outcome) -> None:
        """Ends a lease."""

    def attempt_failed(self) -> None:
        """Counts an attempt that failed."""


class Pending:
    """A message that is to be sent; `place` is its first trigger id, of a backfill its profile."""

    __slots__ = ("ahead", "backfill", "body", "place", "profile", "read_at", "rows", "snapshot")

    def __init__(
        self, rows: list[TriggerRow], snapshot: int | None, *, backfill: bool, ahead: bool, read_at: float
    ) -> None:
        self.rows = rows
        self.profile = rows[0].profile_id
        self.snapshot = snapshot  # the trigger whose kept fields are the profile's last
        self.backfill = backfill
        self.ahead = ahead  # of a backfill, sent before its page
        self.place = self.profile if backfill else rows[0].id
        self.read_at = read_at
        self.body: str | None = None  # "" once it is known that there is none

    def take_body(self, found: Bodies) -> None:
        """Takes what was read of the profile, if it was."""
        if self.snapshot is not None:
            self.body = found.snapshots.get(self.snapshot)
        elif self.profile in found.profiles:
            self.body = found.profiles[self.profile] or ""


class Loan:
    """What the feed keeps of a lease: the first place in each cursor, and for unordered ones every place."""

    __slots__ = ("backfill", "backfill_first", "enters", "exits", "live", "live_first", "profiles")

    def __init__(self, pending: Iterable[Pending], messages: Sequence[Message], *, ordered: bool) -> None:
        pending = list(pending)
        live = [each.place for each in pending if not each.backfill]
        backfill = [each.place for each in pending if each.backfill]
        self.live_first = min(live, default=None)
        self.backfill_first = min(backfill, default=None)
        self.enters = sum(each.enters for each in messages)
        self.exits = sum(each.exits for each in messages)
        # An ordered run settles in order, and may hold very many: the first places are enough.
        self.live: list[int] = [] if ordered else live
        self.backfill = [each.place for each in pending if each.ahead] if ordered else backfill
        self.profiles: list[int] = [] if ordered else [each.profile for each in pending]


class BatchLease:
    """Messages on loan to a run; see `connectors.sdk.run.Lease`."""

    __slots__ = ("_feed", "_messages", "_number")

    def __init__(self, feed: Settling, number: int, messages: Sequence[Message]) -> None:
        self._feed = feed
        self._number = number
        self._messages = messages

    @property
    def messages(self) -> Sequence[Message]:
        """The messages in the order in which they are to arrive; empty once settled."""
        return self._messages

    @property
    def settled(self) -> bool:
        """Whether it was acknowledged or omitted."""
        return not self._feed.holds(self._number)

    def ack(self) -> None:
        """Moves the subscription past these messages; an ordered lease takes those before it along."""
        self._feed.settle(self._number, Outcome.DELIVERED)
        self._messages = ()

    def omit(self, reason: str) -> None:
        """Moves past these messages without having delivered them, and says why in the log."""
        if not self.settled:
            first, last = self._messages[0].id, self._messages[-1].id
            self._feed.settle(self._number, Outcome.OMITTED)
            self._feed.log.warning(
                "triggers_omitted", messages=len(self._messages), first=first, last=last, reason=reason
            )
        self._messages = ()

    def failed(self, error: Exception) -> None:
        """Counts and logs an attempt that failed."""
        if not self.settled:
            self._feed.attempt_failed()
            self._feed.log.debug(
                "delivery_failed", messages=len(self._messages), first=self._messages[0].id, error=str(error)
            )
