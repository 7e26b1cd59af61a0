"""What the runs of exports are given: the members of audiences, and events of the log, both in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

from connectors.sdk.run import Run

C_co = TypeVar("C_co", covariant=True)


class Member(NamedTuple):
    """A profile with the audiences of the job that it is in."""

    profile: int  # its number: pages come in its order, and a run can go on after it
    fields: Mapping[str, Any]
    audiences: Sequence[str]  # slugs


class Line(NamedTuple):
    """A profile as it is written."""

    profile: int  # its number, as a Member's
    text: bytes


class Change(NamedTuple):
    """An enter or an exit."""

    trigger: int  # its number in the one log of triggers
    profile: int
    fields: Mapping[str, Any]  # as they are now; of a profile that is no more the last ones
    audience: str  # slug
    event: Literal["enter", "exit"]
    at_us: int


class ChangePage(NamedTuple):
    """Changes in order; all up to the trigger `read_to` are in it and the pages before."""

    changes: Sequence[Change]
    read_to: int


class ForgottenError(Exception):
    """What was asked for is so old that the log of triggers does not have it any more."""


class MemberSource(Protocol):
    """Where the members of a job's audiences come from; see AudienceRun."""

    def columns(self) -> Sequence[str]:
        """Gives the names of all fields that profiles can have now, the most telling ones first."""

    async def moment(self) -> int:
        """Gives the moment that it is, as the number of the last trigger."""

    def members(self, moment: int, *, fields: Sequence[str] | None, after: int) -> AsyncIterator[Sequence[Member]]:
        """Gives pages of the members as of a moment."""

    def member_lines(
        self, moment: int, line: Callable[[Mapping[str, Any]], bytes], *, fields: Sequence[str] | None, after: int
    ) -> AsyncIterator[Sequence[Line]]:
        """Gives the same as lines, each made by `line` in another thread."""

    def changes(self, after: int, upto: int, *, fields: Sequence[str] | None) -> AsyncIterator[ChangePage]:
        """Gives pages of what changed between two moments."""


class LogPlace(NamedTuple):
    """A place in the log: the last position of each of its lanes."""

    realtime: int = 0
    bulk: int = 0


#: Before all events.
LOG_START: Final = LogPlace()


class StoredEvent(NamedTuple):
    """An event as it stands in the log."""

    stream: str
    at_us: int  # the event's own time
    received_us: int
    fields: Mapping[str, Any]


class EventPage(NamedTuple):
    """Events by their arrival; all that was asked for up to `place` is in it and the pages before. It may be empty."""

    events: Sequence[StoredEvent]
    place: LogPlace


class EventSource(Protocol):
    """Where events of the log come from; see EventsRun."""

    async def place(self) -> LogPlace:
        """Gives where the log ends now."""

    def events(
        self, streams: Sequence[str], *, start_us: int | None, end_us: int | None, after: LogPlace, upto: LogPlace
    ) -> AsyncIterator[EventPage]:
        """Gives pages of events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudienceRun(Run[C_co]):
    """What the run of an audience export may use."""

    source: MemberSource

    def columns(self) -> Sequence[str]:
        """Gives the names of all fields that profiles can have now."""
        return self.source.columns()

    async def moment(self) -> int:
        """Gives the moment that it is, as the number of the last trigger: what comes later has a greater one."""
        return await self.source.moment()

    def members(
        self, moment: int, *, fields: Sequence[str] | None = None, after: int = 0
    ) -> AsyncIterator[Sequence[Member]]:
        """Gives pages of those who were members at `moment`, by the numbers of their profiles, behind `after`.

        Each once, with the fields of now. Who was erased or merged into another since is left out. Together with the
        `changes` after the same moment nobody is missing and nobody twice. Raises ForgottenError where the moment is
        too long ago, ConfigError for an audience that there is not.
        """
        return self.source.members(moment, fields=fields, after=after)

    def member_lines(
        self,
        moment: int,
        line: Callable[[Mapping[str, Any]], bytes],
        *,
        fields: Sequence[str] | None = None,
        after: int = 0,
    ) -> AsyncIterator[Sequence[Line]]:
        """Gives what `members` gives as lines: `line` makes each of a member's fields, in another thread.

        For writing many of them down: it takes half the time of making lines of members that were given.
        """
        return self.source.member_lines(moment, line, fields=fields, after=after)

    def changes(self, after: int, upto: int, *, fields: Sequence[str] | None = None) -> AsyncIterator[ChangePage]:
        """Gives pages of the enters and exits after one moment, up to another. Raises as `members` does."""
        return self.source.changes(after, upto, fields=fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsRun(Run[C_co]):
    """What the run of an event export may use."""

    source: EventSource

    async def place(self) -> LogPlace:
        """Gives where the log ends now."""
        return await self.source.place()

    def events(
        self,
        streams: Sequence[str] = (),
        *,
        start_us: int | None = None,
        end_us: int | None = None,
        after: LogPlace = LOG_START,
        upto: LogPlace,
    ) -> AsyncIterator[EventPage]:
        """Gives pages of the events of these streams (none: of all) between two places of the log.

        Of those the ones that arrived from `start_us` on and before `end_us`. Erased events are left out.
        """
        return self.source.events(streams, start_us=start_us, end_us=end_us, after=after, upto=upto)
