"""What the run of an import is given: a way to hand rows over, with where it is, in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from connectors.sdk.run import Run
from streams.event import Refusal

C_co = TypeVar("C_co", covariant=True)
Row = Mapping[str, object]

#: Rows that are handed over at a time, at most: they are one transaction, for which others wait.
MOST_ROWS: Final = 1000


class Emitted(NamedTuple):
    """What became of rows: taken as events, refused (they are in the stream's rejects), or known by their ids."""

    accepted: int
    rejected: int
    duplicates: int


class Stored:
    """What became of rows that are stored already, for who waits for them."""

    def __init__(self, emitted: Emitted) -> None:
        self._emitted = emitted

    def __await__(self) -> Generator[Any, None, Emitted]:
        yield from ()
        return self._emitted


class Difference(Protocol):
    """Which rows of an import were not in the one before, by hashes on the disk. Memory does not grow with the rows."""

    async def changed(self, rows: Sequence[Row]) -> Sequence[int]:
        """Gives the places in `rows` of those that the former import did not have, in order.

        Rows are compared by what is imported of them. Asking again for the same rows changes nothing.
        """

    async def complete(self) -> None:
        """Makes this import the one that the next is compared with. Without it the former one stays."""


class RowSink(Protocol):
    """Where an import's rows go; the daemon's log."""

    async def hand_over(
        self, rows: Sequence[Row], checkpoint: object, *, lines: Sequence[int] = (), refused: Sequence[Refusal] = ()
    ) -> Awaitable[Emitted]:
        """Stores rows in the bulk lane and `checkpoint`, both or neither; see ImportRun."""

    async def save(self, checkpoint: object) -> None:
        """Stores a checkpoint without rows, where rows store theirs, behind all that was handed over before."""

    def difference(self, name: str) -> AbstractAsyncContextManager[Difference]:
        """Opens the comparison with the former import of this job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRun(Run[C_co]):
    """What the run of an import may use. `checkpoint` is that of the last rows that were emitted, or saved."""

    sink: RowSink

    async def save(self, checkpoint: object) -> None:
        """Keeps where the run is (a JSON value), durably, where `emit` keeps it."""
        await self.sink.save(checkpoint)

    async def emit(
        self, rows: Sequence[Row], checkpoint: object, *, lines: Sequence[int] = (), refused: Sequence[Refusal] = ()
    ) -> Emitted:
        """Hands rows over, MOST_ROWS at most, and says where the import is then (a JSON value): both or neither.

        The job's configuration says which stream, which column holds the time, and which columns are kept. `lines`:
        the rows' numbers where they come from, for what is said of those that are refused. `refused`: what the
        connector itself could make no row of; it goes to the stream's rejects too.

        Durable when it returns. Waits while the log is full; TransientError where it cannot be written. Counts what
        became of the rows.
        """
        return await _Counted(self, await self.sink.hand_over(rows, checkpoint, lines=lines, refused=refused))

    async def hand_over(
        self, rows: Sequence[Row], checkpoint: object, *, lines: Sequence[int] = (), refused: Sequence[Refusal] = ()
    ) -> Awaitable[Emitted]:
        """As `emit`, but returns as soon as the rows are on their way; awaiting what it gives, they are durable.

        So several may be on their way at once, a few: what was handed over first is stored first, and when one fails
        all behind it do. Await each of them, but when the run ends anyway.
        """
        return _Counted(self, await self.sink.hand_over(rows, checkpoint, lines=lines, refused=refused))

    def difference(self, name: str) -> AbstractAsyncContextManager[Difference]:
        """Opens the comparison with the former import of this job. A run that goes on gives the same name again."""
        return self.sink.difference(name)


class _Counted:
    """Rows on their way, counted once they are durable."""

    def __init__(self, run: ImportRun[Any], handed: Awaitable[Emitted]) -> None:
        self._run = run
        self._handed = handed

    def __await__(self) -> Generator[Any, None, Emitted]:
        emitted = yield from self._handed.__await__()
        self._run.count(added=emitted.accepted, omitted=emitted.duplicates, failed=emitted.rejected)
        return emitted
