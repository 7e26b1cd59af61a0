"""A batch of events: map, fetch what they touch in one read, resolve, merge; then evaluate, and one bundle.

Each profile is evaluated and written once a batch, however many of its events are in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import orjson

from daemon.ingest.cache import NEW_BYTES, Cache, Entry
from daemon.ingest.definitions import Definitions
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.slices import Slices
from daemon.ingest.unit import Lane, Unit
from daemon.store import profiles
from daemon.store.database import Database
from daemon.store.event_reader import Page
from streams.compaction import Compaction
from streams.guards import Limits
from streams.identity import Resolution, resolve
from streams.mapping import Key, Mapped
from streams.profile import Profile, load, new

#: What an event says, position, received_us, stream, event_us, event_id.
_Event: TypeAlias = tuple[list[Mapped], int, int, str, int, str | None]


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
    ) -> None:
        self._unit = unit
        self._definitions = definitions
        self._evaluator = evaluator
        self._cache = cache
        self._state = state
        self._limits = limits
        self._windows = definitions.guards.windows(definitions.schema, limits)
        self._compaction = Compaction(definitions.schema, limits) if limits.compacting else None
        self._slices = Slices()
        self._unknown: set[Key] = set()
        self._changed: dict[int, int] = {}
        self._whole: set[int] = set()
        self._owners: dict[Key, int | None] = {}
        self._received_us = 0
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
        events: list[_Event] = []
        if pages[0].last <= self.last:
            raise RuntimeError(f"events up to {self.last} are taken already")  # each is counted once, whatever happens
        for page in pages:
            await self._map(page, events)
        if self._unknown:
            await fetch(self._state, self._cache, self._definitions, list(self._unknown), self._slices)
            self._unknown.clear()
        await self._apply(lane, events)
        self._unit.events += len(events)
        self.last = pages[-1].last

    async def finish(self, lane: Lane) -> None:
        """Evaluates what changed, and makes the bundle whole."""
        self._unit.take_batch(lane, self.last)
        await self._evaluate()

    async def _map(self, page: Page, events: list[_Event]) -> None:
        rows: list[tuple[int, int, str, int, str | None, dict[str, Any]]] = orjson.loads(page.text)
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

    async def _apply(self, lane: Lane, events: Sequence[_Event]) -> None:
        schema, limits, slices = self._definitions.schema, self._limits, self._slices
        expiring = bool(schema.expiring)
        owner, create, changed = self._cache.by_key.get, self._create, self._changed
        windows, compaction = self._windows, self._compaction
        changed_before = changed.get
        for at in range(0, len(events), 16):
            for mapped, position, received_us, stream, event_us, event_id in events[at : at + 16]:
                for each in mapped:
                    self._received_us = received_us
                    resolution = resolve(schema, each, owner, create, limits=limits, windows=windows, at_us=received_us)
                    profile = resolution.profile
                    if resolution.attach or resolution.absorb:
                        self._link(resolution)
                    if resolution.refused:
                        for (field, _), reason in resolution.refused:
                            self._count_refused(field, reason, 1, position)
                    mask = changed_before(profile.id, 0)
                    if expiring:
                        mask |= profile.expire(schema, received_us)
                    changed[profile.id] = mask | profile.apply(
                        schema, resolution, event_us=event_us, event_id=event_id, stream=stream,
                        received_us=received_us, position=(lane, position),
                    )  # fmt: skip
                    if compaction is not None:
                        self.compacted += compaction.after_event(profile, resolution.keys, received_us)
                    if profile.dropped:
                        self._drop_keys(profile)
            if slices.over:
                await slices.turn()

    def _count_refused(self, field: str, reason: str, count: int, position: int) -> None:
        before, last = self.refused.get((field, reason), (0, 0))
        self.refused[field, reason] = (before + count, max(last, position))

    def _create(self) -> Profile:
        head = self._unit.head
        head.last_profile += 1
        profile = new(head.last_profile, self._received_us)
        self._cache.add(Entry(profile, size=NEW_BYTES, stored=False))
        self._whole.add(profile.id)
        return profile

    def _link(self, resolution: Resolution) -> None:
        """Gives the profile its new keys, and those of the profiles that it takes in."""
        profile, by_key, owners = resolution.profile, self._cache.by_key, self._owners
        for other in resolution.absorb:
            self._absorb(other, profile)
        for key in resolution.attach:
            by_key[key] = profile
            owners[key] = profile.id

    def _absorb(self, other: Profile, into: Profile) -> None:
        unit, cache = self._unit, self._cache
        entry = cache.by_id[other.id]
        if entry.stored:
            known = self._definitions.audiences
            memberships = {number: each for number, each in entry.memberships().items() if number in known}
            unit.leave_for_good(other.id, memberships, "merge", other.dump(), merged_into=into.id)
            unit.bundle.gone.append(other.id)
        cache.forget(entry, unit.number)
        for key in other.all_keys():
            cache.by_key[key] = into
            self._owners[key] = into.id
        self._changed.pop(other.id, None)
        self._whole.discard(other.id)
        self._whole.add(into.id)

    def _drop_keys(self, profile: Profile) -> None:
        by_key = self._cache.by_key
        for key in profile.dropped:
            if by_key.get(key) is profile:
                del by_key[key]
                self._owners[key] = None
        profile.dropped.clear()

    async def _evaluate(self) -> None:
        unit, cache, evaluator, slices = self._unit, self._cache, self._evaluator, self._slices
        by_id, touch, rows, whole = cache.by_id, cache.touch, unit.bundle.profiles, self._whole
        number = unit.number
        # In the order of the table, which is what the writes then have.
        changed = self._changed
        for count, profile_id in enumerate(sorted(changed)):
            entry = by_id[profile_id]
            touch(entry, number)
            if profile_id in whole:
                evaluator.whole(unit, entry, "merge" if entry.stored else "event")
                entry.stored = True
            else:
                evaluator.after_change(unit, entry, changed[profile_id])
            text = entry.profile.dump()
            rows += (profile_id, text)
            cache.resize(entry, len(text))
            if not count & 7 and slices.over:
                await slices.turn()
        for count, ((field, value), owner) in enumerate(self._owners.items()):
            if not count & 255 and slices.over:
                await slices.turn()
            if owner is None:
                unit.bundle.keys_gone.append((field, value))
            else:
                unit.bundle.identities += (field, value, owner)


async def fetch(state: Database, cache: Cache, definitions: Definitions, keys: Sequence[Key], slices: Slices) -> None:
    """Reads the owners of `keys` into the cache, in one read; what the cache has already is newer and stays."""
    for text in await state.read(partial(profiles.owned_by, keys=keys)):
        rows: list[Any] = orjson.loads(text)
        size = len(text) // max(1, len(rows))
        for row in rows:
            if row[0] not in cache.by_id and row[0] not in cache.gone:
                entry = entry_of(definitions, row)
                cache.add(entry)
                cache.resize(entry, size)
        await slices.turn()


def entry_of(definitions: Definitions, row: Sequence[Any]) -> Entry:
    """Makes an entry of a stored row (see `daemon.store.profiles`)."""
    profile_id, body, due_us, members, ledger = row
    mask = 0
    for number in members:
        mask |= 1 << number
    return Entry(load(definitions.schema, profile_id, body), ledger, mask, due_us)
