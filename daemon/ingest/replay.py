"""The log and the history again, into a fresh state (P10): what comes out must be what the live state says.

Decisions are taken in the order of the history: batches of events lane by lane, definitions, erasures. Nothing is
delivered: the fresh state has no jobs. Profiles are then compared by their keys, memberships at the moment for which
the live state holds them: now, or just before a timer of theirs that is due and has not been worked off.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from daemon import clock
from daemon.ingest import rebuild
from daemon.ingest.audience_pass import END, STEP_PROFILES, Group, evaluate_page
from daemon.ingest.batch import Batch, fetch
from daemon.ingest.cache import Cache, Entry
from daemon.ingest.definitions import Definitions, build
from daemon.ingest.erase import erase_profile, erased, play
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.identity_commands import divide, forget, owner_of, store_entry, with_guards
from daemon.ingest.rebuild import Past, PastMapper
from daemon.ingest.slices import Slices
from daemon.ingest.timeline import Timeline
from daemon.ingest.unit import Head, Lane, Unit
from daemon.store import bundle, erasures, event_reader, history, memberships, profiles, rebuilds, schema_versions
from daemon.store import definitions as store
from daemon.store import events as event_log
from daemon.store.database import Database
from daemon.store.definitions import AudienceRow, Pass, QueryRow
from daemon.store.guards import GuardRow
from daemon.store.migrate import migrate
from streams import stitches
from streams.guards import Limits
from streams.mapping import Key
from streams.profile import forget_outlived, load
from streams.split import SplitError
from streams.tombstones import Foreseen, Half

#: Events of one step, decisions of one read, and profiles compared at a time.
STEP_EVENTS: Final = 8192
STEP_BYTES: Final = 8 * 1024 * 1024
STEP_DECISIONS: Final = 256
#: Differences that are told in words.
TOLD: Final = 100
#: Profiles and bytes in memory.
CACHED_PROFILES: Final = 50_000
CACHE_BYTES: Final = 192 * 1024 * 1024

#: Called with the events done and all of them.
Progress = Callable[[int, int], None]


class ReplayError(Exception):
    """A replay that cannot be made; the message says why."""


@dataclass(slots=True)
class Report:
    """What a replay found. `complete`: the log still had every event of the history.

    `differences` are told in words, the first hundred of `differing`.
    """

    events: int = 0
    decisions: int = 0
    profiles: int = 0
    memberships: int = 0
    complete: bool = True
    differing: int = 0
    differences: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Says whether the live state came out again."""
        return self.complete and not self.differing

    def differ(self, told: str) -> None:
        """Notes a difference."""
        self.differing += 1
        if len(self.differences) < TOLD:
            self.differences.append(told)


async def replay(events_path: Path, state_path: Path, into_path: Path, progress: Progress | None = None) -> Report:
    """Rebuilds the state in the new file `into_path`, and compares it with the live one as of the same positions.

    A daemon may run meanwhile. Raises ReplayError when `into_path` exists, or a file is not of this version.
    """
    if into_path.exists():  # noqa: ASYNC240  (before anything runs)
        raise ReplayError(f"{into_path} exists: a replay makes a new file")
    async with (
        _opened(events_path, "events") as events,
        _opened(state_path, "state") as live,
        Database.open(into_path, prepare=partial(migrate, database="state")) as into,
    ):
        # What the daemon does meanwhile is replayed too; the last stretch and the comparison are of one moment.
        with _asked(state_path) as now:
            player = _Player(events, live, now, into, progress or (lambda _done, _all: None))
            await player.open()
            until = await live.read(_last_decision)
            await player.play(until)
            async with _held(live_path=state_path) as moment:
                await player.play(_last_decision(moment))
                await player.compare(moment)
        return player.report


@asynccontextmanager
async def _opened(path: Path, name: str) -> AsyncIterator[Database]:
    if not path.is_file():  # noqa: ASYNC240  (before anything runs)
        raise ReplayError(f"there is no {path}")

    def check(db: sqlite3.Connection) -> None:
        migrate(db, "events" if name == "events" else "state")

    async with Database.open(path, prepare=check) as opened:
        yield opened


@contextmanager
def _asked(live_path: Path) -> Iterator[sqlite3.Connection]:
    """The live state as it is whenever it is asked."""
    with closing(sqlite3.connect(live_path, isolation_level=None)) as db:
        db.execute("PRAGMA query_only = ON")
        yield db


@asynccontextmanager
async def _held(live_path: Path) -> AsyncIterator[sqlite3.Connection]:
    """The live state as of one moment."""
    # Read here and, for the comparison, in the thread of the fresh state; never in both at once.
    db = sqlite3.connect(live_path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA query_only = ON")
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM lane_cursor").fetchone()
        yield db
    finally:
        db.close()


def _last_decision(db: sqlite3.Connection) -> tuple[int, dict[Lane, int]]:
    row = db.execute(history.LAST).fetchone()
    cursors: dict[Lane, int] = dict(db.execute("SELECT lane, position FROM lane_cursor").fetchall())
    return (0 if row is None else row[0]), cursors


def _foreseen(db: sqlite3.Connection, now: sqlite3.Connection) -> Foreseen:
    """What is known of erasures before they are played. `now` is asked while it is used, in this thread."""
    known = (erased(each.sequence, each.body) for each in history.of_kind(db, "erase"))

    def why(home: Key, which: str, position: tuple[Lane, int]) -> str | None:
        return stitches.why(profiles.memory_of(now, home), which, position)

    return Foreseen(
        erasures.salt(db), [each for each in known if each is not None], erasures.refusals(db), erasures.halves(db), why
    )


class _Player:
    """Plays decisions into the fresh state. Audiences are only kept in mind; they are evaluated at the end."""

    def __init__(
        self, events: Database, live: Database, now: sqlite3.Connection, into: Database, progress: Progress
    ) -> None:
        self._events = events
        self._live = live
        self._now = now
        self._into = into
        self._progress = progress
        self._cache = Cache(CACHED_PROFILES, CACHE_BYTES)
        self._queries: dict[str, QueryRow] = {}
        self._audiences: dict[int, AudienceRow] = {}
        self._limits = Limits()
        self._done = 0  # the last decision that is played whole; a batch may have grown since
        self._unit = 0
        self._asked: PastMapper | None = None
        self._all_events = 0
        self._head: Head
        self._definitions: Definitions
        self._tombstones: Foreseen
        self.report = Report()

    async def open(self) -> None:
        """Begins at the beginning."""
        self._head = Head.at(await self._into.read(bundle.position), [])
        self._definitions = await build([], [], [])
        self._tombstones = await self._live.read(partial(_foreseen, now=self._now))
        firsts = await self._events.read(event_reader.firsts)
        cursors = await self._live.read(lambda db: _last_decision(db)[1])
        self._all_events = sum(cursors.values())
        self.report.complete = all(first is None or first == 1 for first in firsts) and all(
            first is not None or not cursors[lane] for first, lane in zip(firsts, event_log.LANES, strict=True)
        )

    async def play(self, until: tuple[int, dict[Lane, int]]) -> None:
        """Plays all decisions up to a moment of the live state, given by its last decision and its cursors."""
        last, cursors = until
        after = max(0, self._done - 1)
        while after < last:
            decisions = await self._live.read(partial(history.page, after=after, limit=STEP_DECISIONS))
            if not decisions:
                raise ReplayError("the history has a gap")
            for decision in decisions:
                if decision.sequence > last:
                    break
                if decision.kind == "batch":
                    lane: Lane = decision.body["lane"]
                    await self._batch(lane, min(decision.body["upto"], cursors[lane]))
                elif decision.sequence > self._done:
                    self._tombstones.reach(decision.sequence)
                    await self._decide(decision.kind, decision.body, decision.sequence)
                self._done = decision.sequence
            after = decisions[-1].sequence
        self.report.decisions = self._done

    async def _batch(self, lane: Lane, upto: int) -> None:
        while self._head.cursors[lane] < upto:
            read = partial(
                event_reader.read, lane=lane, after=self._head.cursors[lane], upto=upto,
                max_events=STEP_EVENTS, max_bytes=STEP_BYTES,
            )  # fmt: skip
            pages = await self._events.read(read)
            if not pages:
                self._head.cursors[lane] = upto  # what is missing has been told by `complete`
                return
            unit = self._next()
            batch = Batch(
                unit,
                self._definitions,
                Evaluator(self._definitions),
                self._cache,
                self._into,
                self._limits,
                self._tombstones,
            )
            await batch.take(lane, pages)
            await batch.finish(lane)
            unit.bundle.cursor = None
            unit.bundle.work.clear()
            unit.bundle.history.clear()
            unit.bundle.history_extended = None
            await self._write(unit)
            self.report.events += unit.events
            self._progress(self.report.events, max(self._all_events, self.report.events))

    async def _decide(self, kind: str, body: dict[str, Any], sequence: int) -> None:
        match kind:
            case "query" | "query_deleted" | "revert":
                schema_versions.decided(self._queries, kind, body)
                await self._redefine()
            case "audience":
                self._audiences[body["number"]] = AudienceRow(**body)
            case "audience_deleted":
                del self._audiences[body["number"]]
            case "identity":
                self._limits = Limits(**body)
            case "merge_guard":
                added = [GuardRow(**row) for row in body["added"]]
                self._definitions = await with_guards(self._definitions, added, body["removed"])
            case "split":
                await self._split(sequence, [(field, value) for field, value in body.get("keys", [])], body)
            case "rebuild" if "step" in body:
                await self._past(body["lane"], body["upto"])
            case "rebuild":
                await self._rebuild(sequence, body)
            case "rebuilt":
                await self._rebuilt(cancelled=body["cancelled"])
            case "erase":
                if erased(sequence, body) is not None and not self._tombstones.foresaw(sequence):
                    await self._erase({bytes.fromhex(each) for each in body["hashes"]})
                play(self._tombstones, body)
            case _:
                pass  # rules hold before the log

    async def _redefine(self) -> None:
        rows = schema_versions.in_order(self._queries)
        self._definitions = await build(rows, [], [], self._definitions)

    async def _rebuild(self, sequence: int, body: dict[str, Any]) -> None:
        row = rebuild.begun(sequence, body, lost=0, now_us=0)
        await self._into.write(partial(rebuilds.begin, row=row))
        self._head.past = row
        self._definitions = await rebuild.ended(self._definitions, row)
        # Of those before, how far they came; that does not change any more.
        past = [each for each in await self._live.read(rebuilds.every) if each.id < sequence]
        timeline = await self._live.read(partial(Timeline.read, rebuilds=past))
        self._asked = PastMapper(self._definitions, row, timeline)

    async def _past(self, lane: Lane, upto: int) -> None:
        row, asked = self._head.past, self._asked
        if row is None or asked is None:
            raise ReplayError("the history has a step of a rebuilding that never began")
        if asked.definitions is not self._definitions:
            asked = self._asked = PastMapper(self._definitions, row, asked.timeline)
        read = partial(
            rebuilds.past, lane=lane, after=row.at(lane), upto=upto, limit=upto - row.at(lane), streams=asked.streams
        )
        _, text = await self._events.read(read)
        unit = self._next()
        evaluator = Evaluator(self._definitions)
        past = Past(
            unit, self._definitions, evaluator, self._cache, self._into, self._limits, self._tombstones,
            row=row, asked=asked,
        )  # fmt: skip
        await past.take_past(lane, upto, text)
        await past.finish(lane)
        unit.bundle.history.clear()
        await self._write(unit)

    async def _rebuilt(self, *, cancelled: bool) -> None:
        row = self._head.past
        if row is not None:
            row = row._replace(state="cancelled" if cancelled else "done")
            await self._into.write(partial(rebuilds.end, number=row.id, state=row.state, now_us=0))
            self._definitions = await rebuild.ended(self._definitions, row)
        self._head.past = None

    async def _erase(self, hashes: set[bytes]) -> None:
        """Erases a person who was there when this began, and whose erasure was decided meanwhile."""

        def find(db: sqlite3.Connection) -> list[Key]:
            return [
                key for key in db.execute("SELECT field, value FROM identity") if self._tombstones.hash(key) in hashes
            ]

        keys = await self._into.read(find)
        await fetch(self._into, self._cache, keys, Slices())
        for key in keys:
            entry = self._cache.by_key.get(key)
            if entry is not None:
                unit = self._next()
                erase_profile(unit, self._definitions, self._cache, entry.id)
                await self._write(unit)

    async def _split(self, sequence: int, keys: Sequence[Key], body: dict[str, Any]) -> None:
        halves = self._tombstones.going_on(sequence)
        if halves is not None:
            for half in halves:
                await self._begin(half)
            return
        if not keys:  # taken out with the person that they were of
            return
        entry = await owner_of(self._into, self._cache, keys[0])
        if entry is None:
            return
        unit = self._next()
        if body.get("forget"):
            forget(unit, self._definitions, self._cache, entry)
        else:
            apart, at_us = body["apart"], body["at_us"]
            evaluator = Evaluator(self._definitions)
            try:
                divide(unit, self._definitions, evaluator, self._cache, entry, keys, at_us, apart=apart)
            except SplitError:  # of a person who is erased, and from before splits were kept: told as a difference
                return
        await self._write(unit)

    async def _begin(self, half: Half) -> None:
        """Lets a half of a split begin as the history has kept it, in place of whatever its keys have led to."""
        await fetch(self._into, self._cache, half.keys, Slices())
        unit = self._next()
        for owner in {entry.id for key in half.keys if (entry := self._cache.by_key.get(key)) is not None}:
            erase_profile(unit, self._definitions, self._cache, owner)
        await self._write(unit)
        unit = self._next()
        unit.head.last_profile += 1
        profile = load(self._definitions.schema, unit.head.last_profile, half.body)
        entry = Entry(profile.id, profile=profile, keys=half.keys, stored=False)
        self._cache.add(entry)
        for name, text in half.keys:
            unit.bundle.identities += (name, text, profile.id)
        store_entry(unit, self._cache, entry, profile)
        await self._write(unit)

    def _next(self) -> Unit:
        self._unit += 1
        return Unit(self._unit, self._head, clock.now_us())

    async def _write(self, unit: Unit) -> None:
        await self._into.write(partial(bundle.write, bundle=unit.bundle))
        while self._cache.evict(unit.number, 1024):
            pass

    # --- comparing

    async def compare(self, moment: sqlite3.Connection) -> None:
        """Evaluates the audiences in the fresh state, and compares it with the live state's moment."""
        now_us = clock.now_us()
        while self._cache.empty(1024):
            pass
        self._definitions = await build(
            schema_versions.in_order(self._queries), sorted(self._audiences.values()), [], self._definitions,
        )  # fmt: skip
        await self._into.write(self._store_definitions)
        await self._evaluate_all(now_us)
        comparison = _Comparison(self.report, self._definitions, moment, now_us, self._tombstones.unsure)
        await self._into.read(comparison.run)

    def _store_definitions(self, db: sqlite3.Connection) -> None:
        for query in self._queries.values():
            store.save_query(db, query)
        for audience in self._audiences.values():
            store.save_audience(db, audience)
        bundle.set_cursors(db, self._head.cursors)

    async def _evaluate_all(self, now_us: int) -> None:
        self._head.passes = tuple(Pass(number, 0, deleted=False, replay=True) for number in self._audiences)
        evaluator = Evaluator(self._definitions)
        while self._head.passes:
            group = Group.of(self._head)
            page = await self._into.read(
                partial(profiles.in_range, after=group.after, upto=END, limit=STEP_PROFILES, audiences=group.audiences)
            )
            self._unit += 1
            unit = Unit(self._unit, self._head, now_us)
            await evaluate_page(unit, group, page, self._definitions, evaluator, self._cache)
            await self._write(unit)


class _Comparison:
    """Profile by profile: what the live state has against what the replay made."""

    def __init__(
        self, report: Report, definitions: Definitions, live: sqlite3.Connection, now_us: int, unsure: Collection[str]
    ) -> None:
        self._unsure = unsure
        self._report = report
        self._definitions = definitions
        self._evaluator = Evaluator(definitions)
        self._live = live
        self._now_us = now_us
        self._under_way = {each.audience: each.evaluated_to for each in store.passes(live) if not each.deleted}
        self._slugs = {number: each.slug for number, each in definitions.audiences.items()}

    def run(self, made: sqlite3.Connection) -> None:
        report = self._report
        report.unfinished = sorted(self._slugs[number] for number in self._under_way if number in self._slugs)
        after = 0
        numbers = sorted(self._slugs)
        while (page := profiles.in_range(self._live, after, END, STEP_PROFILES, numbers)) is not None:
            after, slices = page
            for texts in slices:
                timers: dict[int, int] = dict(orjson.loads(texts.timers))
                members: dict[int, set[int]] = {}
                for profile_id, audience, sequence, *_ in orjson.loads(texts.memberships):
                    if sequence & 1:
                        members.setdefault(profile_id, set()).add(audience)
                for profile_id, body in orjson.loads(texts.bodies):
                    self._compare(made, profile_id, body, timers.get(profile_id), members.get(profile_id, set()))
        ours, theirs = profiles.count(made), profiles.count(self._live)
        if ours != theirs:
            report.differ(f"the replay has {ours} profiles, the live state {theirs}")

    def _compare(
        self, made: sqlite3.Connection, profile_id: int, body: dict[str, Any], due_us: int | None, members: set[int]
    ) -> None:
        report = self._report
        report.profiles += 1
        keys = [(name, value) for name, values in body["k"].items() for value in values]
        if {profiles.find(self._live, name, value) for name, value in keys} != {profile_id}:
            report.differ(f"profile {profile_id}: is not found by all of its keys")
            return
        owners = {profiles.find(made, name, value) for name, value in keys}
        owner = owners.pop() if len(owners) == 1 else None
        again = None if owner is None else profiles.read(made, owner)
        if owner is None or again is None:
            report.differ(f"profile {profile_id}: its keys belong to nobody, or to several, in the replay")
            return
        rebuilt = orjson.loads(again)
        for each in (body, rebuilt):
            forget_outlived(self._definitions.schema, each["f"])
            for *_, fields, _ in each.get("p", ()):
                forget_outlived(self._definitions.schema, fields)
        for each in (body, rebuilt):
            _comparable(each.get("s", {}).get("r"), self._unsure)
        for part in sorted(body.keys() | rebuilt.keys()):
            if body.get(part) != rebuilt.get(part):
                report.differ(f"profile {profile_id}: {part!r} differs")
                return
        again_members = {each.audience for each in memberships.of_profile(made, owner) if each.member}
        report.memberships += len(members)
        doubtful = members ^ again_members
        if doubtful and due_us is not None and due_us <= self._now_us:
            # Its timer is due and not worked off: the live state holds for the moment before.
            profile = self._evaluator.at(load(self._definitions.schema, profile_id, rebuilt), due_us - 1)
            numbers = tuple(sorted(doubtful & self._evaluator.known))
            matched = self._evaluator.matched(profile, numbers, clock.from_us(due_us - 1))
            doubtful = {number for number in doubtful if (number in members) != bool(matched >> number & 1)}
        for number in sorted(doubtful):
            if profile_id > self._under_way.get(number, END):
                continue
            live, replayed = number in members, number not in members
            report.differ(
                f"profile {profile_id}: {'in' if live else 'not in'} {self._slugs[number]}, "
                f"the replay says {'in' if replayed else 'not in'}"
            )


def _comparable(refused: dict[str, Any] | None, unsure: Collection[str]) -> None:
    """Makes what a profile remembers of refused keys comparable: within an event they stand in whichever order.

    Why the key of an erased person was refused is known as far as somebody remembered it; that it was is compared.
    """
    if refused is None:
        return
    rows, of_mark = [], dict[str, list[Any]]()
    for row in refused["l"]:
        if row[2] not in unsure:
            rows.append(row)
        elif row[2] not in of_mark:
            of_mark[row[2]] = ["", *row[1:]]
        else:
            before = of_mark[row[2]]
            of_mark[row[2]] = ["", *max(before, row, key=lambda one: one[5])[1:6], before[6] + row[6]]
    refused["l"] = sorted([*rows, *of_mark.values()], key=lambda row: (row[5], row[3], row[4], row[2]))
    if of_mark:
        counts = refused["n"]
        refused["n"] = {reason: times for reason, times in counts.items() if reason not in stitches.CONFLICTS}
        refused["n"][""] = sum(counts.values()) - sum(refused["n"].values())
