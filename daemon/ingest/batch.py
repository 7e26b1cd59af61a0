"""A batch of events: map, fetch what they touch in one read, resolve; then merge, evaluate, and one bundle.

Each profile is opened, evaluated and written once a batch, however many of its events are in it: an event whose keys
all lead to one profile waits with it until the batch ends. What makes a profile or joins some, or could take a key
away, is merged at once, after all that waits for those profiles: of each profile the order is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import orjson

from daemon.ingest.cache import Cache, Entry
from daemon.ingest.definitions import Definitions
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.slices import Slices
from daemon.ingest.unit import Lane, Unit
from daemon.store import erasures, profiles
from daemon.store.database import Database
from daemon.store.erasures import Scrub
from daemon.store.event_reader import Page
from streams.compaction import Compaction
from streams.guards import Limits
from streams.identity import Resolution, resolve
from streams.mapping import Key, Mapped
from streams.profile import Profile, new
from streams.tombstones import Tombstones

#: Events that wait for one profile at most: merging them is one piece of work.
MOST_WAITING: Final = 64
#: Names of streams that are looked for in a page before it is parsed, at most.
MOST_SOUGHT: Final = 16
#: Names that stand in a page as they are, between quotes.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]+")

#: What an event says, position, received_us, stream, event_us, event_id.
_Event: TypeAlias = tuple[Iterable[Mapped], int, int, str, int, str | None]


class Batch:
    """Takes events of one lane into `unit`: `take` pages as often as there are some, then `finish`."""

    def __init__(
        self,
        unit: Unit,
        definitions: Definitions,
        evaluator: Evaluator,
        cache: Cache,
        state: Database,
        limits: Limits,
        tombstones: Tombstones,
    ) -> None:
        self._unit = unit
        self._definitions = definitions
        self._evaluator = evaluator
        self._cache = cache
        self._state = state
        self._limits = limits
        self._windows = definitions.guards.windows(definitions.schema, limits)
        self._compaction = Compaction(definitions.schema, limits) if limits.compacting else None
        self._tombstones = tombstones
        self._slices = Slices()
        self._turned_away = 0
        self._to_scrub: list[Scrub] = []
        self._unknown: set[Key] = set()
        #: The profiles that events of this batch go to, by id.
        self._touched: dict[int, Entry] = {}
        self._whole: set[int] = set()
        self._owners: dict[Key, int | None] = {}
        self._received_us = 0
        self._lane: Lane = "realtime"
        #: Bytes of stored text that were taken in.
        self.bytes = 0
        #: The position of the last event that was taken in.
        self.last = 0
        #: Refused keys by field and reason: how many, and the position of the last such event (0: it had no other key).
        self.refused: dict[tuple[str, str], tuple[int, int]] = {}
        #: Keys that compaction gave up.
        self.compacted = 0

    @property
    def events(self) -> int:
        """How many events were taken in."""
        return self._unit.events

    async def take(self, lane: Lane, pages: Sequence[Page]) -> None:
        """Takes the events of `pages` into the profiles in memory."""
        if pages[0].last <= self.last:
            raise RuntimeError(f"events up to {self.last} are taken already")  # each is counted once, whatever happens
        self._lane = lane
        held: list[_Event] = []
        screened = self._tombstones.all_concerned
        for page in pages:
            events = await self._map(page) if self._concerns(page) else []
            if held or self._unknown or screened:
                held += events  # for the read of their profiles, and in their order
            else:
                await self._place(events)
            self.bytes += len(page.text)
            self._unit.events += page.events
        if self._unknown:
            await fetch(self._state, self._cache, list(self._unknown), self._slices)
        if held:
            if self._tombstones:
                self._screen(lane, held)
            self._unknown.clear()
            await self._place(held)
        self.last = pages[-1].last

    async def finish(self, lane: Lane) -> None:
        """Evaluates what changed, and makes the bundle whole."""
        self._unit.take_batch(lane, self.last)
        await self._evaluate()
        if self._turned_away:
            turned = partial(erasures.turn_away, events=self._turned_away, listed=self._to_scrub)
            self._unit.bundle.work.append(turned)
            self._unit.to_scrub = True

    def _concerns(self, page: Page) -> bool:
        """Says whether a query may read an event of the page: whether a stream's name stands in its text."""
        streams = self._definitions.mapper.streams
        if len(streams) > MOST_SOUGHT or self._tombstones:
            return True
        return any(_PLAIN.fullmatch(each) is None or f'"{each}"' in page.text for each in streams)

    async def _map(self, page: Page) -> list[_Event]:
        rows: list[tuple[int, int, str, int, str | None, dict[str, Any]]] = orjson.loads(page.text)
        events: list[_Event] = []
        slices = self._slices
        map_event = self._definitions.mapper.map
        by_key, unknown = self._cache.by_key, self._unknown
        for at in range(0, len(rows), 16):
            for position, received_us, stream, event_us, event_id, body in rows[at : at + 16]:
                mapped = map_event(stream, body, event_us, event_id, received_us)
                events.append((mapped, position, received_us, stream, event_us, event_id))
                for each in mapped:
                    for key in each.keys:
                        if key not in by_key:
                            unknown.add(key)
            if slices.over:
                await slices.turn()
        lost = self._definitions.mapper.lost
        if lost:
            for (field, reason), count in lost.items():
                self._count_refused(field, reason, count, 0)
            lost.clear()
        return events

    async def _place(self, events: Sequence[_Event]) -> None:
        slices = self._slices
        owner, touched = self._cache.by_key.get, self._touched
        may_wait = not self._definitions.schema.limited and self._compaction is None
        for at in range(0, len(events), 32):
            for event in events[at : at + 32]:
                for each in event[0]:
                    keys = each.keys
                    entry = owner(keys[0])
                    if entry is None or each.refused or not may_wait:
                        self._resolve(each, event)
                        continue
                    for key in keys:
                        if owner(key) is not entry:
                            self._resolve(each, event)
                            break
                    else:
                        waiting = entry.waiting
                        if waiting is None:
                            waiting = entry.waiting = []
                            touched[entry.id] = entry
                        # Not what the event was mapped to as a whole: there are as many of these as a batch has events.
                        waiting.append((keys[0], each.values, *event[1:]))
                        if len(waiting) >= MOST_WAITING:
                            self._open(entry)
            if slices.over:
                await slices.turn()

    def _open(self, entry: Entry) -> Profile:
        """Gives a profile with all that waited for it merged into it."""
        schema = self._definitions.schema
        profile = entry.open(schema)
        waiting = entry.waiting
        if waiting is None:
            entry.waiting = []
            self._touched[entry.id] = entry
            return profile
        if waiting:
            mask, lane, expiring = entry.changed, self._lane, bool(schema.expiring)
            merge = profile.merge
            for home, values, position, received_us, stream, event_us, event_id in waiting:
                if expiring:
                    mask |= profile.expire(schema, received_us)
                mask |= merge(
                    schema, home, values, event_us, event_id, stream, received_us, (lane, position)
                )  # fmt: skip
            entry.changed = mask
            waiting.clear()
        return profile

    def _owner(self, key: Key) -> Profile | None:
        entry = self._cache.by_key.get(key)
        return None if entry is None else self._open(entry)

    def _resolve(self, mapped: Mapped, event: _Event) -> None:
        """Merges at once what makes a profile, or gives it keys, or may join some."""
        schema = self._definitions.schema
        _, position, received_us, stream, event_us, event_id = event
        self._received_us = received_us
        resolution = resolve(
            schema, mapped, self._owner, self._create, limits=self._limits, windows=self._windows, at_us=received_us
        )
        profile = resolution.profile
        entry = self._cache.by_id[profile.id]
        self._open(entry)
        if resolution.attach or resolution.absorb:
            self._link(entry, resolution)
        for (field, _), reason in resolution.refused:
            self._count_refused(field, reason, 1, position)
        if schema.expiring:
            entry.changed |= profile.expire(schema, received_us)
        entry.changed |= profile.apply(
            schema, resolution, event_us=event_us, event_id=event_id, stream=stream,
            received_us=received_us, position=(self._lane, position),
        )  # fmt: skip
        if self._compaction is not None:
            self.compacted += self._compaction.after_event(profile, resolution.keys, received_us)
        if profile.dropped:
            self._drop_keys(entry, profile)

    def _count_refused(self, field: str, reason: str, count: int, position: int) -> None:
        before, last = self.refused.get((field, reason), (0, 0))
        self.refused[field, reason] = (before + count, max(last, position))

    def _screen(self, lane: Lane, events: list[_Event]) -> None:
        """Has those events looked at, when their turn comes, that name somebody who was erased."""
        by_key, noted = self._cache.by_key, self._tombstones.noted
        unknown = {key for key in self._unknown if key not in by_key}  # what somebody has is no erased person's
        if self._tombstones.bounded:
            unknown.update(key for mapped, *_ in events for each in mapped for key in each.keys)
        marks = self._tombstones.among(unknown)
        if not (marks or noted):
            return
        for place, (mapped, position, *rest) in enumerate(events):
            if (lane, position) in noted or any(key in marks for each in mapped for key in each.keys):
                events[place] = (self._left(list(mapped), lane, position, marks), position, *rest)  # type: ignore[assignment]  # the rest as it was

    def _left(
        self, mapped: Sequence[Mapped], lane: Lane, position: int, marks: Mapping[Key, bytes]
    ) -> Iterator[Mapped]:
        # Asked for when all events before are applied: who is known by then decides.
        left = self._tombstones.screen(mapped, lane, position, marks, self._cache.by_key.get)
        if left.turned_away or left.cut:
            self._turned_away += 1
            if not left.mapped:
                self._to_scrub.append(Scrub(lane, position, None))
            elif not left.turned_away:
                self._to_scrub.append(erasures.to_cut(lane, position, left.cut))
        yield from left.mapped

    def _create(self) -> Profile:
        head = self._unit.head
        head.last_profile += 1
        profile = new(head.last_profile, self._received_us)
        self._cache.add(Entry(profile.id, profile=profile, stored=False))
        self._whole.add(profile.id)
        return profile

    def _link(self, entry: Entry, resolution: Resolution) -> None:
        """Gives the profile its new keys, and those of the profiles that it takes in."""
        by_key, owners = self._cache.by_key, self._owners
        for other in resolution.absorb:
            self._absorb(self._cache.by_id[other.id], entry)
        for key in resolution.attach:
            by_key[key] = entry
            owners[key] = entry.id
        entry.keys += resolution.attach

    def _absorb(self, other: Entry, into: Entry) -> None:
        unit, cache = self._unit, self._cache
        profile = other.open(self._definitions.schema)
        if other.stored:
            known = self._definitions.audiences
            memberships = {number: each for number, each in other.memberships().items() if number in known}
            unit.leave_for_good(other.id, memberships, "merge", profile.dump(), merged_into=into.id)
            unit.bundle.gone.append(other.id)
        cache.forget(other, unit.number)
        for key in other.keys:
            cache.by_key[key] = into
            self._owners[key] = into.id
        into.keys += other.keys
        self._touched.pop(other.id, None)
        self._whole.discard(other.id)
        self._whole.add(into.id)

    def _drop_keys(self, entry: Entry, profile: Profile) -> None:
        by_key = self._cache.by_key
        for key in profile.dropped:
            if by_key.get(key) is entry:
                del by_key[key]
                self._owners[key] = None
        entry.keys = tuple(key for key in entry.keys if by_key.get(key) is entry)
        profile.dropped.clear()

    async def _evaluate(self) -> None:
        unit, cache, slices = self._unit, self._cache, self._slices
        touch, rows = cache.touch, unit.bundle.profiles
        number = unit.number
        touched = self._touched
        # In the order of the table, which is what the writes then have.
        for count, profile_id in enumerate(sorted(touched)):
            entry = touched[profile_id]
            profile = self._open(entry)
            entry.waiting = None
            touch(entry, number)
            self._judge(entry)
            entry.stored = True
            entry.changed = 0
            text = profile.dump()
            rows += (profile_id, text)
            cache.keep(entry, text)
            if not count & 7 and slices.over:
                await slices.turn()
        for count, ((field, value), owner) in enumerate(self._owners.items()):
            if not count & 255 and slices.over:
                await slices.turn()
            if owner is None:
                unit.bundle.keys_gone.append((field, value))
            else:
                unit.bundle.identities += (field, value, owner)

    def _judge(self, entry: Entry) -> None:
        """Moves the memberships of a profile that events went to."""
        if entry.id in self._whole:
            self._evaluator.whole(self._unit, entry, "merge" if entry.stored else "event")
        else:
            self._evaluator.after_change(self._unit, entry, entry.changed)


async def fetch(state: Database, cache: Cache, keys: Sequence[Key], slices: Slices) -> None:
    """Reads the owners of `keys` into the cache, in one read; what the cache has already is newer and stays."""
    for text in await state.read(partial(profiles.owned_by, keys=keys)):
        rows: list[Any] = orjson.loads(text)
        for row in rows:
            if row[0] not in cache.by_id and row[0] not in cache.gone:
                cache.add(entry_of(row))
        await slices.turn()


def entry_of(row: Sequence[Any]) -> Entry:
    """Makes an entry of a stored row (see `daemon.store.profiles`)."""
    profile_id, text, due_us, members, ledger, keys = row
    mask = 0
    for number in members:
        mask |= 1 << number
    owned = tuple((field, value) for field, values in keys.items() for value in values)
    return Entry(profile_id, text, ledger, mask, due_us, keys=owned)
