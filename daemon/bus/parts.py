"""What the bus needs of the other parts of the daemon. `daemon.app` hands them over; none of them is imported here."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, Protocol

from connectors.sdk.run import Attempt
from daemon.bus.lease import Sent
from daemon.model.subscription import Outcome


class Batch(Protocol):
    """Attempts that go into one transaction; false when there are none."""

    def __bool__(self) -> bool:
        """Whether there is something to write."""

    @property
    def full(self) -> bool:
        """Whether there may be more than it took."""

    def write(self, db: sqlite3.Connection) -> None:
        """Writes them."""

    def give_back(self) -> None:
        """Puts back what could not be written."""


class Journal(Protocol):
    """Where deliveries are written down. `delivered` returns at once and never fails."""

    @property
    def samples(self) -> bool:
        """Whether messages are given as samples."""

    def delivered(
        self,
        job_id: str,
        run_id: str,
        outcome: Outcome,
        attempt: Attempt,
        *,
        messages: Sequence[Sent],
        many: int,
        again: int,
        counts: tuple[int, int, int, int],
        sample: bytes | None,
    ) -> None:
        """Notes an attempt; it is written by the transaction that moves the cursor (`take`)."""

    def job_event(self, job_id: str, run_id: str | None, level: str, code: str, message: str, **facts: object) -> None:
        """Notes a line of the job's own log."""

    def take(self) -> Batch:
        """Takes what is to be written next."""


class _NoBatch:
    full = False

    def __bool__(self) -> bool:
        return False

    def write(self, db: sqlite3.Connection) -> None:
        """Writes nothing."""

    def give_back(self) -> None:
        """Puts nothing back."""


class _NoJournal:
    samples = False

    def delivered(self, *_: object, **__: object) -> None:
        """Keeps nothing."""

    def job_event(self, *_: object, **__: object) -> None:
        """Keeps nothing."""

    def take(self) -> Batch:
        """Gives nothing."""
        return _NoBatch()


NO_JOURNAL: Final[Journal] = _NoJournal()
