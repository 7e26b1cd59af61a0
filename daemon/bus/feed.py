"""The batches of one run: read from the log and from the members, given out under lease, settled.

What was read stands in a queue in order. A batch takes from its front, but not past a message of the same profile that
is under lease or was passed over: so a slow message holds up its profile and nothing else, and batches fill up
whatever the concurrency. Pages of the log and pages of members alternate, so that neither waits for the other's end.

Why a backfill is never stale: a page of members holds only memberships that have not changed since the subscription
began, as of the page's reading. A later change stands in the log behind all that was read before, so its message
comes into the queue after the page's, and order per profile keeps it there. Where a profile's first live message comes
before the page that has the rest of its memberships, these are sent first, so that trigger ids grow for each profile.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import groupby

from structlog.typing import FilteringBoundLogger

from connectors.sdk.run import Attempt, Batching, Message
from daemon import clock, log
from daemon.bus import metrics
from daemon.bus.cursor import Cursor
from daemon.bus.lease import BatchLease, Loan, Pending, Sent
from daemon.bus.messages import Builder
from daemon.bus.parts import NO_JOURNAL, Journal
from daemon.model import codes
from daemon.model.subscription import Outcome
from daemon.store import redeliveries, trigger_log
from daemon.store.database import Database
from daemon.store.trigger_log import Bodies, Member, Page
from streams.trigger import TriggerRow

#: Says of a moment (microseconds since the epoch) whether the triggers of then are passed over.
Dropped = Callable[[int], bool]

#: Messages that are read ahead of their sending, at most; their profiles are not.
WINDOW = 1000
#: Triggers of a page of the log, and profiles of a page of members. A page of members is how long live ones may wait.
LIVE_PAGE = 512
MEMBER_PAGE = 100
#: Profiles read in one step before their sending: how many, and of how many characters in all.
BODIES = 64
BODY_BUDGET = 1_000_000
#: What may be done beyond a cursor, at most: it is remembered, and stored. Where one message stands still for very
#: long, the others go on so far and no farther.
AHEAD = 5000
#: Messages of an ordered run (a file) that the journal can name one by one; more are counted alone.
LISTED = 100_000
#: How often a job's log says, at most, that messages were refused, in seconds.
OMITTED_AGAIN_S = 60.0
#: Messages asked for again that are read at a time.
AGAIN_PAGE = 100
#: How long messages are made before the loop gets its turn, in seconds: a request of collection needs several turns.
SLICE_S = 0.0003


class Feed:
    """Gives out the batches of one run; several of its tasks may ask."""

    def __init__(
        self,
        cursor: Cursor,
        state: Database,
        builder: Builder,
        batching: Batching,
        *,
        ordered: bool,
        on_settled: Callable[[Cursor, Outcome], None],
        logger: FilteringBoundLogger | None = None,
        dropped: Dropped | None = None,
        journal: Journal = NO_JOURNAL,
        run_id: str = "",
    ) -> None:
        self.log = logger if logger is not None else log.get(job=cursor.job_id)
        self._cursor = cursor
        self._state = state
        self._builder = builder
        self._batching = batching
        self._ordered = ordered
        self._on_settled = on_settled
        self._dropped = dropped
        self._queue: OrderedDict[int, Pending] = OrderedDict()
        self._read_number = 0
        self._loans: OrderedDict[int, Loan] = OrderedDict()
        self._lease_number = 0
        self._busy: dict[int, int] = {}
        self._members_next = False
        self._again_next = True
        self._again_read_to = 0
        self._journal = journal
        self._run_id = run_id
        self._listed = 0
        self._omitted = 0
        self._omitted_again = 0.0
        self._sent_ahead: set[int] = set()
        self._changed = asyncio.Event()
        self._assembling = asyncio.Lock()
        self._reader = cursor.reader
        cursor.unsettled, cursor.wake = self._unsettled, self._changed.set

    async def next(self, timeout_s: float | None = None) -> BatchLease | None:
        """Gives the next batch, None after `timeout_s` without one."""
        try:
            async with asyncio.timeout(timeout_s), self._assembling:
                return await self._assemble()
        except TimeoutError:
            return None

    def holds(self, number: int) -> bool:
        """Says whether the lease of this number is still to be settled."""
        return number in self._loans

    def settle(self, number: int, outcome: Outcome, attempt: Attempt | None = None) -> None:
        """Ends a lease; of an ordered run also those before it, as delivered."""
        if number not in self._loans or self._reader is not self._cursor.reader:
            return
        attempt = attempt or Attempt()
        ended: list[Loan] = []
        if self._ordered:
            while (first := next(iter(self._loans))) != number:
                ended.append(self._loans.pop(first))
                self._end(ended[-1], Outcome.DELIVERED)
            if ended and outcome is not Outcome.DELIVERED:
                self._note(ended, Outcome.DELIVERED, attempt._replace(answer="", status=None))
                ended = []
        ended.append(self._loans.pop(number))
        self._end(ended[-1], outcome)
        self._note(ended, outcome, attempt)
        if outcome is Outcome.OMITTED:
            self._tell_omitted(ended[-1].many, attempt.status)
        self._cursor.acked_us = clock.now_us()
        self._finish_backfill()
        self._changed.set()
        self._on_settled(self._cursor, outcome)

    def attempt_failed(self, number: int, attempt: Attempt) -> None:
        """Counts an attempt that failed."""
        if self._reader is not self._cursor.reader:
            return
        self._cursor.failed += 1
        self._note([self._loans[number]], Outcome.FAILED, attempt)
        metrics.count(self._cursor.job_id, Outcome.FAILED, 1)
        self._on_settled(self._cursor, Outcome.FAILED)

    # --- batches

    async def _assemble(self) -> BatchLease:
        """Waits for a batch: full, or its first message has waited long enough."""
        loop = asyncio.get_running_loop()
        taken: OrderedDict[int, Message] = OrderedDict()
        size = 0
        while True:
            self._must_be_current()
            self._changed.clear()
            size, full = await self._take(taken, size)
            if full:
                return self._lend(taken)
            if await self._read():
                continue
            if not taken:
                await self._changed.wait()
                continue
            due = self._queue[next(iter(taken))].read_at + self._batching.age_s
            if loop.time() >= due:
                return self._lend(taken)
            try:
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            except TimeoutError:
                return self._lend(taken)

    async def _take(self, taken: OrderedDict[int, Message], size: int) -> tuple[int, bool]:
        """Adds what the queue can give to a batch that is being made; gives its size and whether it is full.

        What is taken stays in the queue until the batch is lent: a run cancelled here has lost nothing.
        """
        loop = asyncio.get_running_loop()
        most = self._batching
        started = loop.time()
        while True:
            needed = self._candidates(taken, most.count - len(taken))
            if not needed:
                return size, False
            if any(self._queue[number].body is None for number in needed):
                await self._read_bodies(self._candidates(taken, max(len(needed), BODIES)))
            for number in needed:
                pending = self._queue[number]
                if pending.body is None:
                    break  # the budget did not reach so far
                made = self._builder.build(pending.rows, pending.body or None, backfill=pending.backfill)
                if taken and size + len(made.body) > most.bytes:
                    return size, True
                taken[number] = made
                size += len(made.body)
                if len(taken) >= most.count or size >= most.bytes:
                    return size, True
                if loop.time() - started > SLICE_S:
                    await asyncio.sleep(0)
                    started = loop.time()

    def _candidates(self, taken: OrderedDict[int, Message], limit: int) -> list[int]:
        """Gives what may be sent next, in order, `limit` at most."""
        found: list[int] = []
        held: set[int] = set()
        for number, pending in self._queue.items():
            if number in taken:
                continue
            profile = pending.profile
            if profile in held:
                continue
            if profile in self._busy:
                held.add(profile)
                continue
            found.append(number)
            if len(found) >= limit:
                break
        return found

    async def _read_bodies(self, numbers: Sequence[int]) -> None:
        """Reads the profiles of these messages, as far as the budget reaches; at least the first."""
        lacking = [self._queue[number] for number in numbers if self._queue[number].body is None][:BODIES]
        profiles = list(dict.fromkeys(each.profile for each in lacking if each.snapshot is None))
        snapshots = [each.snapshot for each in lacking if each.snapshot is not None]
        found = await self._state.read(lambda db: trigger_log.bodies(db, profiles, snapshots, BODY_BUDGET))
        for pending in lacking:
            pending.take_body(found)
            if pending.snapshot is not None and pending.body is None:
                pending.body = ""

    def _lend(self, taken: OrderedDict[int, Message]) -> BatchLease:
        pending = [self._queue.pop(number) for number in taken]
        messages = tuple(taken.values())
        listed = not self._ordered or self._listed < LISTED
        sampled = self._journal.samples and (not self._ordered or not self._loans)
        loan = Loan(pending, messages, ordered=self._ordered, listed=listed, sampled=sampled)
        self._listed += len(pending)
        for profile in loan.profiles:
            self._busy[profile] = self._busy.get(profile, 0) + 1
        self._lease_number += 1
        self._loans[self._lease_number] = loan
        return BatchLease(self, self._lease_number, messages)

    def _end(self, loan: Loan, outcome: Outcome) -> None:
        for profile in loan.profiles:
            left = self._busy[profile] - 1
            if left:
                self._busy[profile] = left
            else:
                del self._busy[profile]
        cursor = self._cursor
        cursor.done_live.update(loan.live)
        cursor.done_backfill.update(loan.backfill)
        cursor.done_again.update(loan.agains)
        self._listed -= loan.many
        metrics.count(cursor.job_id, outcome, loan.enters + loan.exits)
        if outcome is Outcome.OMITTED:
            cursor.omitted += loan.enters + loan.exits
        else:
            cursor.added += loan.enters
            cursor.removed += loan.exits

    def _tell_omitted(self, messages: int, status: int | None) -> None:
        """Notes in the job's log that messages were refused: at once, then once a minute at most."""
        self._omitted += messages
        now = asyncio.get_running_loop().time()
        if now < self._omitted_again:
            return
        self._omitted_again = now + OMITTED_AGAIN_S
        words = f"the destination refused {self._omitted} messages for good"
        self._journal.job_event(
            self._cursor.job_id, self._run_id, "warning", codes.OMITTED, words, status=status, messages=self._omitted
        )
        self._omitted = 0

    def _note(self, loans: Sequence[Loan], outcome: Outcome, attempt: Attempt) -> None:
        """Writes an attempt down."""
        enters, exits = sum(each.enters for each in loans), sum(each.exits for each in loans)
        match outcome:
            case Outcome.DELIVERED:
                counts = (enters, exits, 0, 0)
            case Outcome.OMITTED | Outcome.DROPPED:
                counts = (0, 0, enters + exits, 0)
            case Outcome.FAILED:
                counts = (0, 0, 0, 1)
        self._journal.delivered(
            self._cursor.job_id,
            self._run_id,
            outcome,
            attempt if attempt.bytes else attempt._replace(bytes=sum(each.bytes for each in loans)),
            messages=[each for loan in loans for each in loan.sent],
            many=sum(each.many for each in loans),
            again=sum(len(each.agains) for each in loans),
            counts=counts,
            sample=loans[0].sample,
        )

    # --- reading

    async def _read(self) -> bool:
        """Reads a page, of the log, of the members and of what was asked for again in turn.

        False when there is nothing to read, or no room.
        """
        cursor = self._cursor
        if len(self._queue) >= WINDOW or self._far_ahead():
            return False
        live = not cursor.caught_up
        members = cursor.backfilling and not cursor.backfill_ended
        if cursor.again and (self._again_next or not (live or members)):
            self._again_next = False
            await self._read_again()
            return True
        self._again_next = True
        if members and (self._members_next or not live):
            self._members_next = False
            await self._read_members()
        elif live:
            self._members_next = True
            await self._read_log()
        else:
            return False
        return True

    def _far_ahead(self) -> bool:
        cursor = self._cursor
        if max(len(cursor.done_live), len(cursor.done_backfill)) < AHEAD:
            return False
        cursor.forget_passed(0)
        return max(len(cursor.done_live), len(cursor.done_backfill)) >= AHEAD

    async def _read_log(self) -> None:
        cursor = self._cursor
        cursor.touched = False
        sent = self._sent_before_their_page()

        idle = not self._queue  # then what comes is about to be sent, and its profiles are read in the same go

        def read(db: sqlite3.Connection) -> tuple[Page, list[Member], Bodies]:
            page = trigger_log.page(db, cursor.filter, cursor.read_to, LIVE_PAGE)
            members: list[Member] = []
            if sent is not None and cursor.backfill_trigger is not None:
                people = {row.profile_id for row in page.triggers if row.profile_id > cursor.backfill_read_to} - sent
                members = trigger_log.members_of(db, cursor.wanted.audiences, cursor.backfill_trigger, people)
            if not idle or len(page.triggers) > BODIES:
                return page, members, Bodies({}, {})
            whole = dict.fromkeys(row.profile_id for row in page.triggers if row.id not in page.with_snapshot)
            return page, members, trigger_log.bodies(db, list(whole), list(page.with_snapshot), BODY_BUDGET)

        page, members, found = await self._state.read(read)
        before = {profile: list(group) for profile, group in groupby(members, lambda each: each.profile_id)}
        self._must_be_current()
        for _, group in groupby(page.triggers, lambda row: (row.commit_id, row.profile_id)):
            rows = list(group)
            if rows[0].id not in cursor.done_live:
                profile = rows[0].profile_id
                if profile in before:
                    self._sent_ahead.add(profile)
                    enters = [_as_enter(each) for each in before.pop(profile)]
                    self._enqueue(enters, None, backfill=True, ahead=True)
                if self._dropped is not None and self._dropped(rows[0].at_us):
                    self._drop(rows)
                    continue
                snapshot = next((row.id for row in rows if row.id in page.with_snapshot), None)
                self._enqueue(rows, snapshot, backfill=False).take_body(found)
        cursor.read_to = max(cursor.read_to, page.read_to)
        cursor.caught_up = page.read_to >= page.head and not cursor.touched

    def _drop(self, rows: Sequence[TriggerRow]) -> None:
        """Passes over what happened in hours whose triggers nobody wants."""
        cursor = self._cursor
        cursor.done_live.add(rows[0].id)
        cursor.omitted += len(rows)
        metrics.count(cursor.job_id, Outcome.OMITTED, len(rows))
        self.log.info("triggers_dropped", first=str(rows[0].id), triggers=len(rows), cause="quiet hours")
        self._journal.delivered(
            cursor.job_id,
            self._run_id,
            Outcome.OMITTED,
            Attempt(answer="it happened in quiet hours, whose triggers the job drops"),
            messages=[Sent(rows[0].profile_id, rows[0].id, rows[-1].id)],
            many=1,
            again=0,
            counts=(0, 0, len(rows), 0),
            sample=None,
        )
        self._on_settled(cursor, Outcome.DROPPED)

    def _sent_before_their_page(self) -> set[int] | None:
        """Gives whose other memberships were sent already; None where nobody's are sent before their page."""
        cursor = self._cursor
        if not cursor.backfilling or cursor.backfill_ended or len(cursor.wanted.audiences) == 1:
            return None  # of one audience, a live message says that the membership of the beginning is over
        sent = self._sent_ahead | cursor.done_backfill
        return sent if len(sent) < AHEAD else None

    async def _read_members(self) -> None:
        cursor = self._cursor
        since = cursor.backfill_trigger
        if since is None:
            return
        page = await self._state.read(
            lambda db: trigger_log.members(db, cursor.wanted.audiences, since, cursor.backfill_read_to, MEMBER_PAGE)
        )
        self._must_be_current()
        for profile, group in groupby(page.members, lambda member: member.profile_id):
            if profile not in cursor.done_backfill and profile not in self._sent_ahead:
                self._enqueue([_as_enter(member) for member in group], None, backfill=True)
        if page.read_to is not None:
            cursor.backfill_read_to = page.read_to
        else:
            cursor.backfill_read_to = max(cursor.backfill_read_to, page.members[-1].profile_id if page.members else 0)
            cursor.backfill_ended = True
            self._finish_backfill()

    async def _read_again(self) -> None:
        """Reads what was asked for again: of each message what is still the last word on its person and audience.

        What is newer stands in the log behind this page's moment, and so comes into the queue behind it.
        """
        cursor = self._cursor
        cursor.again = False
        after = self._again_read_to

        def read(db: sqlite3.Connection) -> redeliveries.Page:
            return redeliveries.page(db, cursor.job_id, cursor.wanted, after, AGAIN_PAGE)

        page = await self._state.read(read)
        self._must_be_current()
        passed = 0
        for each in page.rows:
            self._again_read_to = each.id
            if each.id in cursor.done_again:
                continue
            # What the cursor has still to come to is sent anyway.
            rows = [row for row in each.triggers if row.id <= cursor.read_to]
            if not rows:
                passed += 1
                cursor.done_again.add(each.id)
                continue
            live = any(row.cause == "erase" or row.merged_into is not None for row in rows)
            self._enqueue(rows, each.snapshot, backfill=not live, again=each.id)
        if page.rows:
            cursor.again = True
        if passed:
            self.log.info("redeliveries_passed_over", messages=passed)
            self._on_settled(cursor, Outcome.DELIVERED)

    def _must_be_current(self) -> None:
        """Stops a run that was cut off, before it moves a cursor that is another's."""
        if self._reader is not self._cursor.reader:
            raise RuntimeError("this run was given up; another one reads the subscription")

    def _enqueue(
        self,
        rows: list[TriggerRow],
        snapshot: int | None,
        *,
        backfill: bool,
        ahead: bool = False,
        again: int | None = None,
    ) -> Pending:
        self._read_number += 1
        read_at = asyncio.get_running_loop().time()
        pending = Pending(rows, snapshot, backfill=backfill, ahead=ahead, read_at=read_at, again=again)
        self._queue[self._read_number] = pending
        return pending

    def _finish_backfill(self) -> None:
        cursor = self._cursor
        if cursor.backfilling and cursor.backfill_ended and self._unsettled()[1] is None:
            cursor.backfill_trigger = None
            self.log.info("backfill_finished", subscription=cursor.id)
            self._journal.job_event(
                cursor.job_id, self._run_id, "info", codes.BACKFILLED, "all existing members were sent; now it is live"
            )
            self._on_settled(cursor, Outcome.DELIVERED)

    def _unsettled(self) -> tuple[int | None, int | None]:
        """Gives the first of what was read and is not settled: trigger id, profile id."""
        live = [loan.live_first for loan in self._loans.values() if loan.live_first is not None]
        backfill = [loan.backfill_first for loan in self._loans.values() if loan.backfill_first is not None]
        for pending in self._queue.values():
            if not pending.backfill and pending.again is None:
                live.append(pending.place)
                break
        for pending in self._queue.values():
            if pending.backfill and pending.again is None:
                backfill.append(pending.place)
                if not pending.ahead:  # those of pages come in order
                    break
        return min(live, default=None), min(backfill, default=None)


def _as_enter(member: Member) -> TriggerRow:
    """Gives the enter that made someone the member that it is."""
    return TriggerRow(
        id=member.trigger_id,
        commit_id=member.trigger_id,
        profile_id=member.profile_id,
        audience=member.audience,
        kind="enter",
        sequence=0,
        at_us=member.entered_us,
        entered_us=member.entered_us,
        until_us=None,
        cause="event",
    )
