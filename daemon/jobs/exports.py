"""What exports read: the members of audiences as of a moment, what changed since, and events of the log."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

from connectors.sdk.errors import ConfigError
from connectors.sdk.exports import Change, ChangePage, EventPage, ForgottenError, Line, LogPlace, Member, StoredEvent
from daemon import clock
from daemon.store import event_export, members, trigger_log
from daemon.store import events as event_log
from daemon.store.database import Database, Work
from daemon.store.event_export import Wanted
from daemon.store.events import Lane
from daemon.store.trigger_log import Filter
from streams import profile as profiles
from streams.profile_rows import Show, showing
from streams.profile_view import META_NAMES, output
from streams.schema import Schema
from streams.trigger import TriggerRow

T = TypeVar("T")

#: Profiles of a page: of the first one, and at least and at most; in between about so many bytes of stored text.
FIRST_PAGE: Final = 100
LEAST_PAGE: Final = 20
PAGE_MEMBERS: Final = 250
PAGE_BYTES: Final = 256 * 1024
#: Triggers of a page.
PAGE_CHANGES: Final = 200


class Named(Protocol):
    """An audience as far as an export names it."""

    @property
    def slug(self) -> str:
        """What people call it."""


class Snapshot(Protocol):
    """What of the current definitions exports need."""

    @property
    def schema(self) -> Schema:
        """The schema that profiles are shown by."""

    @property
    def audiences(self) -> Mapping[int, Named]:
        """The audiences by number."""


class Members:
    """The members of the audiences that are named by their slugs; see `connectors.sdk.exports.AudienceRun`."""

    def __init__(self, state: Database, definitions: Callable[[], Snapshot], slugs: Sequence[str]) -> None:
        self._state = state
        self._definitions = definitions
        self._slugs = slugs

    def columns(self) -> Sequence[str]:
        """Gives the names of all fields: identities first, then the others, then what the daemon adds."""
        schema = self._definitions().schema
        first = [each.name for each in schema.identities]
        rest = sorted(schema.fields.keys() - set(first))
        return [*first, *rest, *(name for name in sorted(META_NAMES) if name not in schema.fields)]

    async def moment(self) -> int:
        """Gives the id of the last trigger."""
        return await self._state.read(trigger_log.head)

    async def members(
        self, moment: int, *, fields: Sequence[str] | None, after: int
    ) -> AsyncIterator[Sequence[Member]]:
        """Gives pages of those who were members at a moment."""
        slugs = self._audiences()
        view = _View(self._definitions, fields)

        def member(profile: int, body: str, audiences: Sequence[int]) -> Member:
            return Member(profile, view.show(profile, body), [slugs[number] for number in audiences])

        async for page in self._pages(slugs.keys(), moment, after, member):
            yield page

    async def member_lines(
        self, moment: int, line: Callable[[Mapping[str, Any]], bytes], *, fields: Sequence[str] | None, after: int
    ) -> AsyncIterator[Sequence[Line]]:
        """Gives the same as lines."""
        view = _View(self._definitions, fields)

        def made(profile: int, body: str, _: Sequence[int]) -> Line:
            return Line(profile, line(view.show(profile, body)))

        async for page in self._pages(self._audiences().keys(), moment, after, made):
            yield page

    async def _pages(
        self, audiences: Collection[int], moment: int, after: int, made: Callable[[int, str, Sequence[int]], T]
    ) -> AsyncIterator[Sequence[T]]:
        """Gives pages of what is made of each member, in the thread of a reader."""
        limit = min(FIRST_PAGE, PAGE_MEMBERS)

        def read(db: sqlite3.Connection) -> tuple[list[T], int | None, int]:
            page = members.page(db, audiences, moment, after, limit)
            return [made(*each) for each in page.members], page.read_to, sum(len(body) for _, body, _ in page.members)

        while True:
            found, read_to, size = await self._read(moment, read)
            if found:
                yield found
                limit = min(max(LEAST_PAGE, PAGE_BYTES * len(found) // size), PAGE_MEMBERS)
            if read_to is None:
                return
            after = read_to

    async def changes(self, after: int, upto: int, *, fields: Sequence[str] | None) -> AsyncIterator[ChangePage]:
        """Gives pages of the enters and exits between two moments."""
        slugs = self._audiences()
        view = _View(self._definitions, fields)
        wanted = trigger_log.make_filter(slugs.keys(), ("enter", "exit"))

        def read(db: sqlite3.Connection) -> ChangePage:
            rows, texts, read_to = _changes(db, wanted, after)
            found = []
            for row in rows:
                if row.id > upto:
                    break
                body = texts.get(row.profile_id)
                shown = {"_id": str(row.profile_id)} if body is None else view.show(row.profile_id, body)
                event: Literal["enter", "exit"] = "enter" if row.kind == "enter" else "exit"
                found.append(Change(row.id, row.profile_id, shown, slugs[row.audience], event, row.at_us))
            return ChangePage(found, min(read_to, upto))

        while after < upto:
            page = await self._read(after, read)
            after = page.read_to
            yield page

    def _audiences(self) -> dict[int, str]:
        """Gives the numbers of the audiences, with their slugs. Raises ConfigError."""
        known = {audience.slug: number for number, audience in self._definitions().audiences.items()}
        for slug in self._slugs:
            if slug not in known:
                raise ConfigError(f"there is no audience {slug!r} any more; create a job with one that there is")
        return {known[slug]: slug for slug in self._slugs}

    async def _read(self, moment: int, work: Work[T]) -> T:
        def read(db: sqlite3.Connection) -> T | None:
            return work(db) if members.reaches(db, moment) else None

        found = await self._state.read(read)
        if found is None:
            raise ForgottenError(f"the triggers after {moment} are not kept any more")
        return found


def _changes(db: sqlite3.Connection, wanted: Filter, after: int) -> tuple[list[TriggerRow], dict[int, str], int]:
    page = trigger_log.page(db, wanted, after, PAGE_CHANGES)
    ids = list(dict.fromkeys(row.profile_id for row in page.triggers))
    found = trigger_log.bodies(db, ids, [], 1 << 62)
    return page.triggers, {key: body for key, body in found.profiles.items() if body is not None}, page.read_to


class _View:
    """Shows profiles by the definitions of now; it is used in the thread of a reader."""

    def __init__(self, definitions: Callable[[], Snapshot], fields: Sequence[str] | None) -> None:
        self._definitions = definitions
        self._fields = None if fields is None else frozenset(fields)
        self._schema: Schema | None = None
        self._show: Show | None = None

    def show(self, profile_id: int, body: str) -> Mapping[str, Any]:
        """Gives a profile's fields in JSON shape."""
        schema = self._definitions().schema
        if schema.expiring:
            profile = profiles.load(schema, profile_id, body)
            profile.expire(schema, clock.now_us())
            return output(profile, schema, self._fields, stored=body)
        if self._show is None or schema is not self._schema:
            self._schema, self._show = schema, showing(schema, self._fields)
        return self._show(profile_id, body)


class LoggedEvents:
    """Events of the log; see `connectors.sdk.exports.EventsRun`."""

    def __init__(self, log: Database) -> None:
        self._log = log

    async def place(self) -> LogPlace:
        """Gives the last positions of both lanes."""
        heads = await self._log.read(event_log.heads)
        return LogPlace(heads["realtime"], heads["bulk"])

    async def events(
        self, streams: Sequence[str], *, start_us: int | None, end_us: int | None, after: LogPlace, upto: LogPlace
    ) -> AsyncIterator[EventPage]:
        """Gives pages of events, of both lanes by the time of their arrival."""
        wanted = Wanted(streams, start_us, end_us)
        lanes = [_Lane(self._log, lane, wanted, getattr(after, lane), getattr(upto, lane)) for lane in event_log.LANES]
        realtime, bulk = lanes
        while True:
            for lane in lanes:
                await lane.fill()
            found = []
            while realtime.next_us is not None and bulk.next_us is not None:
                found.append((realtime if realtime.next_us <= bulk.next_us else bulk).take())
            if realtime.over:
                found += bulk.take_all()
            elif bulk.over:
                found += realtime.take_all()
            yield EventPage(found, LogPlace(realtime.place, bulk.place))
            if realtime.over and bulk.over:
                return


class _Lane:
    """One lane's events, read in pages. `place`: the last position of which everything was taken."""

    def __init__(self, log: Database, lane: Lane, wanted: Wanted, after: int, upto: int) -> None:
        self.place = after
        self._log = log
        self._lane: Lane = lane
        self._wanted = wanted
        self._read_to = after
        self._upto = upto
        self._limit = 32
        self._rows: list[Any] = []
        self._at = 0

    @property
    def next_us(self) -> int | None:
        """When the next event that was read arrived; None when another page is needed."""
        return self._rows[self._at][1] if self._at < len(self._rows) else None

    @property
    def ended(self) -> bool:
        """Whether all pages were read."""
        return self._read_to >= self._upto

    @property
    def over(self) -> bool:
        """Whether all events were taken."""
        return self.ended and self._at >= len(self._rows)

    async def fill(self) -> None:
        """Reads a page when none is left and there is one."""
        if self._at < len(self._rows) or self.ended:
            return
        page = await self._log.read(
            lambda db: event_export.read(db, self._lane, self._wanted, self._read_to, self._upto, self._limit)
        )
        self._rows, self._at, self._limit = page.rows, 0, page.next_limit
        self._read_to = page.read_to
        if not page.rows:
            self.place = page.read_to

    def take(self) -> StoredEvent:
        """Takes the next event."""
        position, received_us, stream, event_us, fields = self._rows[self._at]
        self._at += 1
        self.place = position if self._at < len(self._rows) else self._read_to
        return StoredEvent(stream, event_us, received_us, fields)

    def take_all(self) -> list[StoredEvent]:
        """Takes all that was read."""
        rows = self._rows[self._at :]
        if rows:
            self._at = len(self._rows)
            self.place = self._read_to
        return [StoredEvent(stream, event_us, at_us, fields) for _, at_us, stream, event_us, fields in rows]
