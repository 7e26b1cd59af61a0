"""What the run of an import is given: a way to hand rows over, with where it is, in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from connectors.sdk.run import Run

C_co = TypeVar("C_co", covariant=True)
Row = Mapping[str, object]


class Emitted(NamedTuple):
    """What became of rows: taken as events, refused (they are in the stream's rejects), or known by their ids."""

    accepted: int
    rejected: int
    duplicates: int


class Difference(Protocol):
    """Which rows of an import were not in the one before, by hashes on the disk. Memory does not grow with the rows."""

    def changed(self, rows: Sequence[Row]) -> AsyncIterator[Sequence[Row]]:
        """Gives those of `rows` that the former import did not have, in pages and in order."""

    async def complete(self) -> None:
        """Makes this import the one that the next is compared with. Without it the former one stays."""


class RowSink(Protocol):
    """Where an import's rows go; the daemon's log."""

    async def emit(self, rows: Sequence[Row], checkpoint: object) -> Emitted:
        """Stores rows in the bulk lane and `checkpoint`, both or neither, durably.

        Waits while the log is full. Raises TransientError where it cannot be written.
        """

    async def save(self, checkpoint: object) -> None:
        """Stores a checkpoint without rows, where `emit` stores its own."""

    def difference(self) -> AbstractAsyncContextManager[Difference]:
        """Opens the comparison with the former import of this job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRun(Run[C_co]):
    """What the run of an import may use. `checkpoint` is that of the last rows that were emitted, or saved."""

    sink: RowSink

    async def save(self, checkpoint: object) -> None:
        """Keeps where the run is (a JSON value), durably, where `emit` keeps it."""
        await self.sink.save(checkpoint)

    async def emit(self, rows: Sequence[Row], checkpoint: object) -> Emitted:
        """Hands rows over and says where the import is then (a JSON value): never one without the other.

        The job's configuration says which stream, which column holds the time, and which columns are kept.
        """
        return await self.sink.emit(rows, checkpoint)

    def difference(self) -> AbstractAsyncContextManager[Difference]:
        """Opens the comparison with the former import of this job."""
        return self.sink.difference()
