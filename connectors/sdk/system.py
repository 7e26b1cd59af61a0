"""What the run of a job of alerts is given: what happens to jobs, to authorizations and to the daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from connectors.sdk.run import Run

C_co = TypeVar("C_co", covariant=True)

Subject = Literal["job", "authorization", "daemon"]


class SystemEvent(NamedTuple):
    """Something that happened; `content` is the JSON object that tells of it."""

    number: int  # growing: a run goes on behind it
    id: str  # the same in repeats
    at_us: int
    subject: str
    subject_id: str
    verb: str
    content: dict[str, Any]


class SystemSource(Protocol):
    """Where system events come from."""

    async def head(self) -> int:
        """Gives the number of the last one that there is."""

    def events(self, after: int) -> AsyncIterator[Sequence[SystemEvent]]:
        """Gives pages of them behind `after`, in their order, and waits for more; it has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemRun(Run[C_co]):
    """What the run of alerts may use."""

    source: SystemSource
