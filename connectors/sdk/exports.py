"""What the runs of exports are given: the members of audiences, and events of the log, both in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from connectors.sdk.run import Run

C_co = TypeVar("C_co", covariant=True)


class Member(NamedTuple):
    """A profile with the audiences of the job that it is in."""

    profile: int  # its number: pages come in its order, and a run can go on after it
    fields: Mapping[str, Any]
    audiences: Sequence[str]  # slugs


class MemberSource(Protocol):
    """Where the members of a job's audiences come from."""

    def members(self, *, fields: Sequence[str] | None, after: int) -> AsyncIterator[Sequence[Member]]:
        """Gives pages of members in the order of their numbers, beginning behind `after` (0: all of them)."""


class StoredEvent(NamedTuple):
    """An event as it stands in the log."""

    position: int
    stream: str
    at_us: int  # the event's own time
    received_us: int
    fields: Mapping[str, Any]


class EventSource(Protocol):
    """Where events of the log come from."""

    def events(
        self, streams: Sequence[str], *, start_us: int | None, end_us: int | None, after: int
    ) -> AsyncIterator[Sequence[StoredEvent]]:
        """Gives pages of events by their arrival: `start_us` inclusive, `end_us` exclusive, positions behind `after`.

        No streams: all of them. Ends with what the log had when it was asked.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class AudienceRun(Run[C_co]):
    """What the run of an audience export may use."""

    source: MemberSource

    def members(self, *, fields: Sequence[str] | None = None, after: int = 0) -> AsyncIterator[Sequence[Member]]:
        """Gives pages of members in the order of their numbers, beginning behind `after` (0: all of them)."""
        return self.source.members(fields=fields, after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsRun(Run[C_co]):
    """What the run of an event export may use."""

    source: EventSource

    def events(
        self, streams: Sequence[str] = (), *, start_us: int | None = None, end_us: int | None = None, after: int = 0
    ) -> AsyncIterator[Sequence[StoredEvent]]:
        """Gives pages of events by arrival: `start_us` inclusive, `end_us` exclusive, positions behind `after`."""
        return self.source.events(streams, start_us=start_us, end_us=end_us, after=after)
