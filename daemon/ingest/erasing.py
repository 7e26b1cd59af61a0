"""What is left to do for people who were erased: a background work that a crash does not lose.

It searches the log for their events, a page at a time and with rests, longer ones while events come in; scrubs them;
deletes refused requests that name them; forgets the last fields that their exits carried once every destination has
them; and empties the write-ahead logs. Each page is told in `state.db` first (what it found, how far the search is)
and carried out in `events.db` then, so doing it again after a crash changes nothing and counts nothing twice.

Erasures that are accepted while a search is under way are searched for together by the next one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import anyio
import orjson

from daemon import clock, log
from daemon.ingest.person import Epoch, Event, Found, PersonEvents, epochs_of, events_of, judge
from daemon.store import deliveries, event_reader, profiles
from daemon.store import erasures as store
from daemon.store.database import Database
from daemon.store.erasures import Counted, Erasure, Scrub, Span
from daemon.store.events import LANES, Lane
from daemon.store.told import EVERYWHERE
from streams import stitches
from streams.mapping import Key
from streams.person import IsTheirs, Stand, Texts, cut, names
from streams.tombstones import Halves, Tombstones

#: Events scrubbed in one transaction, and looked at without a find before it is noted how far the search is.
SCRUB_EVENTS: Final = 256
NOTE_EVENTS: Final = 8192
#: How long it rests after a page of the search, in times of its work: while nothing comes in, and while events do.
IDLE_REST: Final = 0.5
BUSY_REST: Final = 3.0
#: How often it is looked whether ingest or a destination has gone on, while they are waited for: at first, and at the
#: longest, in seconds.
LOOK_S: Final = 0.25
LONGEST_LOOK_S: Final = 10.0
#: How often the write-ahead logs are emptied at most for events that were turned away, in seconds.
CLEAN_S: Final = 60.0


class Eraser:
    """The work. Run `run` in a task.

    committed: how far ingest is, durably. delivered: stores the subscriptions' places, and gives the trigger id up to
    which all of them are. flush: writes what was refused and is only in memory. passed: forgets tombstones that hold
    for no event any more. wake: set when there may be something to do.
    """

    def __init__(
        self,
        events: Database,
        state: Database,
        *,
        committed: Callable[[], Mapping[Lane, int]],
        delivered: Callable[[], Awaitable[int]],
        flush: Callable[[], Awaitable[None]],
        passed: Callable[[], list[bytes]],
        wake: asyncio.Event,
    ) -> None:
        self._events = events
        self._state = state
        self._committed = committed
        self._delivered = delivered
        self._flush = flush
        self._passed = passed
        self._wake = wake
        #: Whether a write-ahead log has bodies that were scrubbed since it was emptied, and when that was.
        self._unclean = False
        self._cleaned_at = -CLEAN_S
        #: How far ingest was when a page was searched.
        self._seen: dict[Lane, int] = {}

    async def run(self) -> None:
        """Works until cancelled."""
        pause: float | None = 0.0
        while True:
            with anyio.move_on_after(pause):
                await self._wake.wait()
                pause = 0.0
            self._wake.clear()
            try:
                waiting = await self.work()
            except (sqlite3.Error, OSError) as error:
                log.get().warning("erasing_failed", error=f"{type(error).__name__}: {error}", again_s=LONGEST_LOOK_S)
                pause = LONGEST_LOOK_S
                continue
            pause = min(LONGEST_LOOK_S, max(LOOK_S, 2 * (pause or 0.0))) if waiting else None

    async def work(self) -> bool:
        """Does all that can be done now; says whether something is left that has to wait for others."""
        while True:
            moved = await self._scrub()
            unfinished = await self._state.read(store.unfinished)
            searching = [each for each in unfinished if each.state == "scrubbing"]
            for lane in LANES:
                moved = await self._search(lane, searching) or moved
            if moved:
                continue
            for each in searching:
                if all(each.looked[lane] >= each.head[lane] for lane in LANES):
                    await self._searched(each)
                    moved = True
            moved = await self._deliver([each for each in unfinished if each.state == "delivering"]) or moved
            moved = await self._clean([each for each in unfinished if each.state == "cleaning"]) or moved
            if not moved:
                hashes = self._passed()
                if hashes:
                    await self._state.write(partial(store.unbury, hashes=hashes))
                return bool(unfinished) or self._unclean

    # --- the log

    async def _scrub(self) -> bool:
        """Scrubs the events that are listed; says whether there were any."""
        any_listed = False
        while listed := await self._state.read(partial(store.listed, limit=SCRUB_EVENTS)):
            any_listed = self._unclean = True
            await self._events.write(partial(store.scrub, events=await self._left(listed)))
            await self._state.write(partial(store.unlist, done=listed))
        return any_listed

    async def _left(self, listed: Sequence[Scrub]) -> list[Scrub]:
        """Works out what is left of the events that ingest took in without an erased key."""
        if not any(map(store.cut_of, listed)):
            return list(listed)
        tombstones = Tombstones(await self._state.read(store.salt))
        epochs = await epochs_of(self._state)
        result = []
        for each in listed:
            hashes = store.cut_of(each)
            if not hashes:
                result.append(each)
                continue
            pages = await self._events.read(
                partial(
                    event_reader.read, lane=each.lane, after=each.position - 1, upto=each.position,
                    max_events=1, max_bytes=1,
                )
            )  # fmt: skip
            for event in events_of(each.lane, pages):
                left = _without(event, epochs, lambda key, gone=hashes: tombstones.hash(key) in gone)  # type: ignore[misc]
                result.append(Scrub(each.lane, each.position, orjson.dumps(left).decode()))
        return result

    async def _search(self, lane: Lane, searching: Sequence[Erasure]) -> bool:
        """Searches on in a lane for those whose search is least advanced; says whether it got on."""
        open_ones = [each for each in searching if each.looked[lane] < each.head[lane]]
        if not open_ones:
            return False
        after = min(each.looked[lane] for each in open_ones)
        group = [each for each in open_ones if each.looked[lane] == after]
        # What ingest has not taken in by the erasure it turns away itself: only who nobody knows is searched for there.
        stops = [each.looked[lane] for each in open_ones] + [each.head[lane] for each in group]
        stops += [each.taken[lane] for each in group]
        upto = min([stop for stop in stops if stop > after] + [self._committed()[lane]])
        if upto <= after:
            return False
        epochs = await epochs_of(self._state)
        of_key = {key: each.id for each in group if after < each.taken[lane] for key in each.keys}
        texts = Texts([key for each in group for key in each.keys])
        once = await self._state.read(partial(_Once.read, group=group))
        walk = PersonEvents(self._events, epochs, lambda key: key in of_key or key in once.keys, texts)
        page, noted = _Page(group, of_key, once), 0
        async for found, end in walk.pages(lane, after, upto, rest=self._rest):
            for each in found:
                page.take(each, epochs, await self._reasons(each) if each.others or once.keys else {})
            after = end
            # Each note is a write to the disk; what is looked at again after a crash costs little.
            if found or end >= upto or walk.looked_at - noted >= NOTE_EVENTS:
                page.looked(walk.looked_at - noted)
                noted = walk.looked_at
                await self._state.write(partial(page.write, lane=lane, upto=end))
                page = _Page(group, of_key, once)
                await self._scrub()
        if after < upto:  # retention took the rest
            page.looked(walk.looked_at - noted)
            await self._state.write(partial(page.write, lane=lane, upto=upto))
        return True

    def _rest(self) -> float:
        """Says how long to rest after a page, in times of its work: long while events come in."""
        before, self._seen = self._seen, dict(self._committed())
        return IDLE_REST if before == self._seen else BUSY_REST

    async def _reasons(self, found: Found) -> dict[str, str]:
        """Gives what those whose event it is remember of refused keys: why, by the mark of each."""
        place = (found.event.lane, found.event.position)

        def read(db: sqlite3.Connection) -> dict[str, str]:
            reasons = {}
            for each in found.stand.then:
                memory = profiles.memory_of(db, each.keys[0])
                for which in map(stitches.mark, each.keys) if memory else ():
                    if (reason := stitches.why(memory, which, place)) is not None:
                        reasons[which] = reason
            return reasons

        return await self._state.read(read)

    async def _searched(self, erasure: Erasure) -> None:
        """Deletes what was refused of the person, and ends the search."""
        texts = Texts(erasure.keys)
        await self._flush()
        rejects = after = 0
        while page := await self._events.read(partial(store.rejects_page, after=after)):
            after = page[-1][0]
            named = [number for number, *words in page if any(map(texts.within_text, words))]
            if named:
                rejects += await self._events.write(partial(store.forget_rejects, ids=named))
            await asyncio.sleep(0)
        await self._events.write(partial(store.forget_fields, texts=texts))
        await self._forget_told(texts)
        await self._state.write(partial(store.searched, erasure=erasure, rejects=rejects))

    async def _forget_told(self, texts: Texts) -> None:
        """Blanks what was told of jobs in words that name the person: answers of destinations, reasons."""
        for told in (deliveries, *EVERYWHERE):
            after = 0
            while page := await self._state.read(partial(told.texts_after, after=after)):
                after = page[-1][0]
                named = [number for number, words in page if texts.within_text(words)]
                if named:
                    await self._state.write(partial(told.blank, ids=named))
                await asyncio.sleep(0)

    # --- the rest

    async def _deliver(self, delivering: Sequence[Erasure]) -> bool:
        """Forgets the snapshots of those whose exits every subscription is done with."""
        if not delivering:
            return False
        floor = await self._delivered()
        ready = [each for each in delivering if each.last_trigger <= floor]
        for each in ready:
            await self._state.write(partial(deliveries.forget_people, profiles=each.profiles))
            await self._state.write(partial(store.delivered, erasure=each))
        return bool(ready)

    async def _clean(self, cleaning: Sequence[Erasure]) -> bool:
        """Empties the write-ahead logs: what was overwritten in the files stands there still."""
        now = asyncio.get_running_loop().time()
        if not (cleaning or (self._unclean and now - self._cleaned_at >= CLEAN_S)):
            return False
        for each in cleaning:
            await self._state.write(partial(store.smooth, erasure=each))
        for database in (self._events, self._state):
            emptied: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            database.submit(store.truncate, partial(_settle, emptied), own=True)
            if not await emptied:
                return False
        self._unclean = False
        self._cleaned_at = now
        if not cleaning:
            return False
        await self._state.write(partial(store.done, ids=[each.id for each in cleaning], now_us=clock.now_us()))
        for each in cleaning:
            done = await self._state.read(partial(store.one, erasure_id=each.id))
            if done is not None:
                log.get().info(
                    "erasure_finished", erasure=done.id, scrubbed=done.scrubbed, cut=done.cut, kept=done.kept,
                    rejects=done.rejects, events_looked=done.events_looked,
                )  # fmt: skip
        return True


class _Once:
    """What was otherwise once: who was one with the erased until a split, and when their keys were kept out before."""

    def __init__(
        self, halves: Halves, kept_out: Mapping[str, Sequence[Span]], hashed: Tombstones, group: Sequence[Erasure]
    ) -> None:
        self._kept_out = kept_out
        self._hashed = hashed
        #: The erasures by key, each with what had been taken in by the split. What these keys had done before it, a
        #: replay leaves out as well.
        self.keys: dict[Key, list[tuple[int, Mapping[Lane, int]]]] = {}
        for each in group:
            for half in (half for of_split in halves.get(each.id, {}).values() for half in of_split):
                for key in half.keys:
                    self.keys.setdefault(key, []).append((each.id, half.upto))

    @classmethod
    def read(cls, db: sqlite3.Connection, group: Sequence[Erasure]) -> _Once:
        """Reads it for these erasures."""
        return cls(store.halves(db), store.kept_out(db), Tombstones(store.salt(db)), group)

    def kept_out(self, key: Key, event: Event) -> bool:
        """Says whether an event was taken in without a key, which was that of an erased person then too."""
        lane, position = event.lane, event.position
        spans = self._kept_out.get(self._hashed.hash(key).hex(), ())
        return any(after[lane] < position and (upto is None or position <= upto[lane]) for after, upto in spans)

    def of(self, key: Key, event: Event) -> set[int]:
        """Gives the erasures of people with whose profile a key was when an event was taken in."""
        return {number for number, upto in self.keys.get(key, ()) if event.position <= upto[event.lane]}


class _Page:
    """What a stretch of the search found, and what is to become of it."""

    def __init__(self, group: Sequence[Erasure], of_key: Mapping[Key, int], once: _Once) -> None:
        self._of_key = of_key
        self._once = once
        self._counts: dict[int, list[int]] = {each.id: [0, 0, 0, 0] for each in group}
        self._texts = {each.id: Texts(each.keys) for each in group}
        self._listed: list[Scrub] = []
        self._refused: list[tuple[Lane, int, int, str]] = []

    def looked(self, events: int) -> None:
        """Counts events that were looked at."""
        for counts in self._counts.values():
            counts[0] += events

    def take(self, found: Found, epochs: Sequence[Epoch], reasons: Mapping[str, str]) -> None:
        """Decides about an event: it goes, or what is left of it stays with others.

        `reasons`: why keys of others' were refused, by their marks.
        """
        event = found.event
        place = (event.lane, event.position)
        if self._once.keys:
            again = judge(event, found.stand, self._of_key.__contains__)
            if again is None and (found.stand.then or found.stand.now):
                self._note(found, reasons)
                return
            found = again or found
        if not found.others:
            for erasure in self._whose(found):
                self._counts[erasure][1] += 1
            self._listed.append(Scrub(*place, None))
            return
        theirs = self._of_key.__contains__
        left = _without(event, epochs, theirs)
        remains = any(names(mapped, theirs) for mapped in _look(event, epochs)(left))
        for erasure in self._whose(found):
            self._counts[erasure][2] += 1
            self._counts[erasure][3] += remains
        self._note(found, reasons)
        if left != event.body:
            self._listed.append(Scrub(*place, orjson.dumps(left).decode()))

    def _note(self, found: Found, reasons: Mapping[str, str]) -> None:
        """Notes which keys others were refused, for the replay, which cannot work it out again."""
        event = found.event
        of_erasure: dict[int, list[tuple[str, list[tuple[str, str, str]]]]] = {}
        for each in found.stand.then:
            if each.keys[0] in self._of_key:
                continue
            rows: dict[int, list[tuple[str, str, str]]] = {}
            for key in each.keys:
                whose = {self._of_key[key]} if key in self._of_key else self._once.of(key, event)
                if whose and self._once.kept_out(key, event):
                    continue
                mark = stitches.mark(key)
                for erasure in whose - self._once.of(each.keys[0], event):
                    rows.setdefault(erasure, []).append((key[0], mark, reasons.get(mark, "conflict")))
            for erasure, refused in rows.items():
                of_erasure.setdefault(erasure, []).append((stitches.mark(each.keys[0]), refused))
        for erasure, noted in of_erasure.items():
            self._refused.append((event.lane, event.position, erasure, orjson.dumps(noted).decode()))

    def _whose(self, found: Found) -> set[int]:
        keys = {key for mapped in found.stand for each in mapped for key in each.keys}
        whose = {self._of_key[key] for key in keys if key in self._of_key}
        return whose or {number for number, texts in self._texts.items() if texts.within(found.event.body)}

    def write(self, db: sqlite3.Connection, lane: Lane, upto: int) -> None:
        """Stores it; see `daemon.store.erasures.note_page`."""
        counted = {number: Counted(*counts) for number, counts in self._counts.items()}
        store.note_page(db, lane, upto, counted, self._listed, self._refused)


def _look(event: Event, epochs: Sequence[Epoch]) -> Callable[[dict[str, Any]], Stand]:
    eye = next(each.eye for each in epochs if event.position <= each.upto[event.lane])
    return lambda body: eye.see(event.stream, body, event.event_us, event.event_id, event.received_us)


def _without(event: Event, epochs: Sequence[Epoch], theirs: IsTheirs) -> dict[str, Any]:
    return cut(event.body, _look(event, epochs), theirs)


def _settle(future: asyncio.Future[bool], result: bool | None, error: BaseException | None) -> None:  # noqa: FBT001
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(bool(result))
