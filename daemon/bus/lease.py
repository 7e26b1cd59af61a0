"""What is read ahead, what is given out, and the lease that a run holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, Unpack

from structlog.typing import FilteringBoundLogger

from connectors.sdk.run import Attempt, Facts, Message
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

    def settle(self, number: int, outcome: Outcome, attempt: Attempt) -> None:
        """Ends a lease."""

    def attempt_failed(self, number: int, attempt: Attempt) -> None:
        """Counts an attempt that failed."""


class Sent(NamedTuple):
    """A message as the journal names it: whose, and its first and last trigger id."""

    profile_id: int
    first_id: int
    last_id: int


class Pending:
    """A message that is to be sent; `place` is its first trigger id, of a backfill its profile.

    `again` is set where somebody asked for it again: the number of that row; it has no place in the cursors.
    """

    __slots__ = ("again", "ahead", "backfill", "body", "place", "profile", "read_at", "rows", "snapshot")

    def __init__(
        self,
        rows: list[TriggerRow],
        snapshot: int | None,
        *,
        backfill: bool,
        ahead: bool,
        read_at: float,
        again: int | None = None,
    ) -> None:
        self.rows = rows
        self.profile = rows[0].profile_id
        self.snapshot = snapshot  # the trigger whose kept fields are the profile's last
        self.backfill = backfill
        self.ahead = ahead  # of a backfill, sent before its page
        self.again = again
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

    __slots__ = (
        "agains", "backfill", "backfill_first", "bytes", "enters", "exits", "live", "live_first", "many", "profiles",
        "sample", "sent",
    )  # fmt: skip

    def __init__(
        self, pending: Iterable[Pending], messages: Sequence[Message], *, ordered: bool, listed: bool, sampled: bool
    ) -> None:
        pending = list(pending)
        of_cursor = [each for each in pending if each.again is None]
        live = [each.place for each in of_cursor if not each.backfill]
        backfill = [each.place for each in of_cursor if each.backfill]
        self.agains = [each.again for each in pending if each.again is not None]
        self.many = len(pending)
        self.bytes = sum(len(each.body) for each in messages)
        self.sent = [Sent(each.profile, each.rows[0].id, each.rows[-1].id) for each in pending] if listed else []
        self.sample = messages[0].body if sampled else None
        self.live_first = min(live, default=None)
        self.backfill_first = min(backfill, default=None)
        self.enters = sum(each.enters for each in messages)
        self.exits = sum(each.exits for each in messages)
        # An ordered run settles in order, and may hold very many: the first places are enough.
        self.live: list[int] = [] if ordered else live
        self.backfill = [each.place for each in of_cursor if each.ahead] if ordered else backfill
        self.profiles: list[int] = [] if ordered else [each.profile for each in pending]


class BatchLease:
    """Messages on loan to a run; see `connectors.sdk.run.Lease`."""

    __slots__ = ("_attempt", "_facts", "_feed", "_messages", "_number")

    def __init__(self, feed: Settling, number: int, messages: Sequence[Message]) -> None:
        self._feed = feed
        self._number = number
        self._messages = messages
        self._attempt = 1
        self._facts: Facts = {}

    @property
    def messages(self) -> Sequence[Message]:
        """The messages in the order in which they are to arrive; empty once settled."""
        return self._messages

    @property
    def settled(self) -> bool:
        """Whether it was acknowledged or omitted."""
        return not self._feed.holds(self._number)

    def note(self, **facts: Unpack[Facts]) -> None:
        """Says what is to be written down of the attempt under way, however it ends."""
        self._facts.update(facts)

    def ack(self, **facts: Unpack[Facts]) -> None:
        """Moves the subscription past these messages; an ordered lease takes those before it along."""
        self._feed.settle(self._number, Outcome.DELIVERED, self._as_attempt(facts, ""))
        self._messages = ()

    def omit(self, reason: str, **facts: Unpack[Facts]) -> None:
        """Moves past these messages without having delivered them, and says why in the log."""
        if not self.settled:
            first, last = self._messages[0].id, self._messages[-1].id
            self._feed.settle(self._number, Outcome.OMITTED, self._as_attempt(facts, reason))
            self._feed.log.warning(
                "triggers_omitted", messages=len(self._messages), first=first, last=last, reason=reason
            )
        self._messages = ()

    def failed(self, error: Exception, **facts: Unpack[Facts]) -> None:
        """Counts and logs an attempt that failed."""
        if not self.settled:
            self._feed.attempt_failed(self._number, self._as_attempt(facts, str(error) or type(error).__name__))
            self._feed.log.debug(
                "delivery_failed", messages=len(self._messages), first=self._messages[0].id, error=str(error)
            )
            self._attempt += 1
            self._facts = {}

    def _as_attempt(self, facts: Facts, answer: str) -> Attempt:
        known = self._facts | facts
        return Attempt(
            self._attempt, known.get("to", ""), known.get("size", 0), known.get("status"), known.get("answer", answer)
        )
