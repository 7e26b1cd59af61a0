"""New and changed audiences over the profiles that exist, page by page, while events go on.

How far it has come stands in `audience.evaluated_to`, in the transaction of what it found. Passes that meet go on
together, so that twenty new audiences read the profiles once. The pass over a deleted audience takes its memberships
away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeAlias

import orjson

from daemon.ingest.cache import Cache, Entry
from daemon.ingest.definitions import Definitions, touched_audiences
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.slices import Slices
from daemon.ingest.unit import Cause, Head, Unit
from daemon.store import definitions as store
from daemon.store import memberships, profiles
from daemon.store.database import Database
from streams.profile import load, new
from streams.profile_view import viewer

#: Profiles of one step.
STEP_PROFILES: Final = 8192
#: Beyond every profile id. Profiles made after a pass began are evaluated at once, so it may end before them.
END: Final = (1 << 63) - 1

#: See `daemon.store.profiles.in_range`.
_Range: TypeAlias = tuple[int, list[profiles.Slice]] | None


@dataclass(frozen=True, slots=True)
class Group:
    """The passes that go on together: profiles in (`after`, `upto`]; `upto` is END when no pass is further."""

    after: int
    upto: int
    audiences: tuple[int, ...]
    deleted: tuple[int, ...]
    cause: Cause = "definition"

    @classmethod
    def of(cls, head: Head) -> Group:
        """Gives the passes that are least advanced, up to where the next ones are."""
        passes = head.passes
        after = min(each.evaluated_to for each in passes)
        further = (each.evaluated_to for each in passes if each.evaluated_to > after)
        here = [each for each in passes if each.evaluated_to == after]
        here = [each for each in here if each.replay == here[0].replay]
        return cls(
            after=after,
            upto=min(further, default=END),
            audiences=tuple(each.audience for each in here if not each.deleted),
            deleted=tuple(each.audience for each in here if each.deleted),
            cause="replay" if here[0].replay else "definition",
        )

    def next(self, last: int) -> Group:
        """Gives the same passes, from `last` on."""
        return replace(self, after=last)


class PageReader:
    """Reads the pages of passes, each while the one before is computed.

    `seen_unit`: a page read ahead knows of all steps up to this one; entries changed later must stay in the cache
    until it is used or dropped.
    """

    def __init__(self, state: Database) -> None:
        self._state = state
        self._group: Group | None = None
        self._ahead: asyncio.Future[_Range] | None = None
        self.seen_unit: int | None = None

    async def read(self, group: Group, committed_unit: int) -> _Range:
        """Gives the next page of a group, and begins to read the one after it."""
        if self._ahead is not None and self._group == group:
            page = await self._ahead
            self._ahead = None
        else:
            await self.drop()
            page = await self._start(group)
        self.seen_unit = None
        if page is not None and page[0] < group.upto:
            self._group = group.next(page[0])
            self.seen_unit = committed_unit
            self._ahead = asyncio.ensure_future(self._start(self._group))
        return page

    async def drop(self) -> None:
        """Gives a page read ahead up: what it says may be old."""
        ahead, self._ahead, self._group, self.seen_unit = self._ahead, None, None, None
        if ahead is not None:
            await asyncio.wait([ahead])
            ahead.exception()

    async def _start(self, group: Group) -> _Range:
        return await self._state.read(
            partial(
                profiles.in_range,
                after=group.after,
                upto=group.upto,
                limit=STEP_PROFILES,
                audiences=group.audiences,
            )
        )


async def evaluate_page(
    unit: Unit, group: Group, page: _Range, definitions: Definitions, evaluator: Evaluator, cache: Cache
) -> None:  # fmt: skip
    """Evaluates a group's audiences for a page of profiles and moves the passes on; without a page they end."""
    unit.scanned = True
    last = group.upto if page is None else page[0]
    if page is not None and group.audiences:
        unit.bundle.origin = _origin(unit.head, group.audiences)
        await _Scan(unit, group.audiences, definitions, evaluator, cache, group.cause).run(page[1])
    for number in group.deleted:
        unit.bundle.work.append(partial(memberships.purge, audience=number, after=group.after, upto=last))
    _advance(unit, group, last, ended=page is None and group.upto == END)


def begin(unit: Unit, before: Definitions, after: Definitions) -> None:
    """Begins the passes that a change of definitions asks for; the step's last decision is why."""
    numbers = touched_audiences(before, after)
    if numbers:
        text = orjson.dumps(numbers).decode()
        unit.bundle.work.append(partial(store.reevaluate, numbers=text, decision=unit.head.last_history))


def _origin(head: Head, numbers: Sequence[int]) -> str:
    decisions = {str(each.audience): each.decision for each in head.passes if each.audience in numbers}
    return orjson.dumps({"decisions": decisions}).decode()


def _advance(unit: Unit, group: Group, last: int, *, ended: bool) -> None:
    moved = {*group.audiences, *group.deleted}
    passes = []
    for each in unit.head.passes:
        if each.audience not in moved:
            passes.append(each)
            continue
        unit.bundle.passes[each.audience] = None if ended else last
        if not ended:
            passes.append(each._replace(evaluated_to=last))
        elif each.deleted:
            unit.bundle.work.append(partial(store.drop_audience, number=each.audience))
    unit.head.passes = tuple(passes)


class _Scan:
    """One page: profiles of the cache by their entries, all others by the few fields that the audiences read."""

    def __init__(
        self, unit: Unit, numbers: Sequence[int], definitions: Definitions, evaluator: Evaluator, cache: Cache,
        cause: Cause,
    ) -> None:  # fmt: skip
        self._unit = unit
        self._cause: Cause = cause
        self._definitions = definitions
        self._evaluator = evaluator
        self._cache = cache
        known = definitions.audience_set.audiences
        self._numbers = tuple(number for number in numbers if number in known)
        self._refused = [number for number in numbers if number not in known]
        self._timed = tuple(number for number in self._numbers if number in evaluator.timed)
        fields = {name for number in self._numbers for name in known[number].fields}
        self._view: Callable[[int, dict[str, Any]], dict[str, Any]] = viewer(definitions.schema, fields)
        #: Stands for each profile in turn, with no more of it than the audiences read.
        self._seen = new(0, 0)

    async def run(self, found: Sequence[profiles.Slice]) -> None:
        slices = Slices()
        # What keep_days lets expire is only known to a whole profile.
        slow = bool(self._definitions.schema.expiring)
        for texts in found:
            timers: dict[int, int] = dict(orjson.loads(texts.timers))
            former: dict[int, list[list[int]]] = {}
            for row in orjson.loads(texts.memberships):
                former.setdefault(row[0], []).append(row[1:])
            rows: list[list[Any]] = orjson.loads(texts.bodies)
            if slices.over:
                await slices.turn()
            for at in range(0, len(rows), 64):
                part = rows[at : at + 64]
                if slow:
                    for profile_id, body in part:
                        entry = self._cache.by_id.get(profile_id)
                        if entry is None and profile_id not in self._cache.gone:
                            entry = self._scanned(profile_id, body, timers, former)
                        if entry is not None:
                            self._whole(entry)
                else:
                    self._fast(part, timers, former)
                if slices.over:
                    await slices.turn()

    def _scanned(
        self, profile_id: int, body: dict[str, Any], timers: Mapping[int, int], former: Mapping[int, list[list[int]]]
    ) -> Entry:
        known = former.get(profile_id, [])
        members = sum(1 << audience for audience, sequence, _ in known if sequence & 1)
        profile = load(self._definitions.schema, profile_id, body)
        ledger = orjson.dumps(known).decode()
        return Entry(profile_id, "", ledger, members, timers.get(profile_id), profile=profile)

    def _whole(self, entry: Entry) -> None:
        if self._cache.by_id.get(entry.id) is entry:
            self._cache.touch(entry, self._unit.number)
        self._evaluator.some(self._unit, entry, self._numbers, self._cause)
        entry.rest()
        refused = [(number, None) for number in self._refused if entry.members >> number & 1]
        if refused:
            self._unit.move(entry, refused, self._cause)

    def _fast(
        self, rows: Sequence[Sequence[Any]], timers: Mapping[int, int], former: Mapping[int, list[list[int]]]
    ) -> None:
        by_id, gone, unit, evaluator = self._cache.by_id, self._cache.gone, self._unit, self._evaluator
        view, numbers, timed, seen, now = self._view, self._numbers, self._timed, self._seen, self._unit.now
        alone = evaluator.asked_alone(numbers[0]) if len(numbers) == 1 else None
        bit = 1 << numbers[0] if numbers else 0
        for profile_id, body in rows:
            entry = by_id.get(profile_id)
            if entry is not None or profile_id in gone:
                if entry is not None:
                    self._whole(entry)
                continue
            seen.id = profile_id
            seen.meta = body["m"]
            seen.keys = body["k"]
            seen.values = view(profile_id, body)
            if alone is not None:
                try:
                    match, ok = alone(seen.values, now)
                    matched = bit if match and ok else 0
                except Exception:  # noqa: BLE001  (a defect in the filter: the careful way tells it once)
                    matched = evaluator.matched(seen, numbers, now)
            else:
                matched = evaluator.matched(seen, numbers, now)
            before = former.get(profile_id)
            if matched or before is not None:
                self._move(profile_id, matched, before)
            if timed:
                due_us = evaluator.earliest(seen, timed, now)
                pending = timers.get(profile_id)
                if due_us is not None and (pending is None or due_us < pending):
                    unit.set_timer(profile_id, due_us)

    def _move(self, profile_id: int, matched: int, before: list[list[int]] | None) -> None:
        unit, cause = self._unit, self._cause
        known: dict[int, tuple[int, int]] = {}
        members = 0
        if before is not None:
            for number, sequence, entered_us in before:
                known[number] = (sequence, entered_us)
                members |= (sequence & 1) << number
        moved = matched ^ members
        if not moved:
            return
        for number in (*self._numbers, *self._refused):
            if moved >> number & 1:
                until_us = self._evaluator.until(self._seen, number, unit) if matched >> number & 1 else None
                unit.turn(profile_id, number, known.get(number), cause, until_us=until_us)
