"""Sending again what somebody asks for: chosen here, sent by the job's runs (`daemon.bus.feed`).

What is chosen waits in a table until it is sent, also over restarts and pauses. Only the last word on a person and an
audience is sent again: whatever was followed by something newer would arrive as something stale after it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from daemon import clock
from daemon.bus.bus import Bus
from daemon.model.refusal import Conflict
from daemon.store import redeliveries
from daemon.store.database import Database
from daemon.store.redeliveries import Found
from daemon.store.subscriptions import SubscriptionRow

#: Messages that may wait to be sent again, of one job.
MOST: Final = 100_000
#: Messages chosen in one transaction.
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be sent again: these attempts; or attempts of times and outcomes; or a range of trigger ids."""

    deliveries: Sequence[int] = ()
    outcomes: Sequence[str] = ()
    after_us: int = 0
    before_us: int = 2**62
    first_trigger: int | None = None
    last_trigger: int | None = None


@dataclass(slots=True)
class Asked:
    """What became of asking, in messages.

    queued: will be sent. repeated: were asked for already. superseded: something newer of the same person and audience
    follows. waiting: the job has not come to them yet, and sends them anyway. complete: nothing chosen was left out for
    want of room. log_begins_at: of a range, the oldest trigger that is known, where that is inside it.
    """

    queued: int = 0
    repeated: int = 0
    superseded: int = 0
    waiting: int = 0
    complete: bool = True
    log_begins_at: int | None = None


async def ask(state: Database, bus: Bus, row: SubscriptionRow, chosen: Chosen, *, dry: bool) -> Asked:
    """Asks for messages again; `dry` only counts. Raises Conflict when too many wait already."""
    asked = Asked()
    room = MOST - await state.read(lambda db: redeliveries.waiting(db, row.job_id))
    if room <= 0:
        raise Conflict(f"{MOST} messages of this job wait to be sent again; ask when it has sent them")
    if chosen.first_trigger is not None:
        await _of_log(state, bus, row, chosen, asked, room, dry=dry)
    elif chosen.deliveries:
        for number in chosen.deliveries:
            await _of_deliveries(state, bus, row, chosen, asked, room - asked.queued, dry=dry, only=number)
    else:
        await _of_deliveries(state, bus, row, chosen, asked, room, dry=dry, only=None)
    if asked.queued and not dry:
        bus.ask_again(row.id)
    return asked


async def _of_deliveries(
    state: Database, bus: Bus, row: SubscriptionRow, chosen: Chosen, asked: Asked, room: int, *, dry: bool,
    only: int | None,
) -> None:  # fmt: skip
    place = (0, 0)
    began = asked.queued
    while True:
        at = place

        def read(db: sqlite3.Connection) -> tuple[list[Found], tuple[int, int]]:
            return redeliveries.of_deliveries(
                db,
                row.job_id,
                place=at,  # noqa: B023  (read before the next round)
                after_us=chosen.after_us,
                before_us=chosen.before_us,
                outcomes=chosen.outcomes,
                limit=PAGE,
                only=only,
            )

        found, place = await state.read(read)
        if not found:
            return
        if asked.queued - began + len(found) > room:
            asked.complete = False
            return
        await _queue(state, bus, row, found, asked, dry=dry)
        await asyncio.sleep(0)


async def _of_log(
    state: Database, bus: Bus, row: SubscriptionRow, chosen: Chosen, asked: Asked, room: int, *, dry: bool
) -> None:
    after = (chosen.first_trigger or 1) - 1
    upto = bus.head if chosen.last_trigger is None else min(chosen.last_trigger, bus.head)
    first = await state.read(redeliveries.first_trigger)
    if first is None or first > after + 1:
        asked.log_begins_at = first or bus.head + 1
    while True:
        at = after
        found = await state.read(lambda db: redeliveries.of_log(db, row.wanted, at, upto, PAGE))  # noqa: B023
        if not found:
            return
        after = max(each.last_id for each in found)
        if asked.queued + len(found) > room:
            asked.complete = False
            return
        await _queue(state, bus, row, found, asked, dry=dry)
        await asyncio.sleep(0)


async def _queue(
    state: Database, bus: Bus, row: SubscriptionRow, found: Sequence[Found], asked: Asked, *, dry: bool
) -> None:
    current = bus.row(row.id) or row
    passed = [each for each in found if each.first_id <= current.progress.position]
    asked.waiting += len(found) - len(passed)
    if not passed:
        return
    last = await state.read(lambda db: redeliveries.last_words(db, passed, row.wanted))
    left = [each for each in passed if last[each.place].triggers]
    asked.superseded += len(passed) - len(left)
    if dry or not left:
        asked.queued += len(left)
        return
    new = await state.write(lambda db: redeliveries.add(db, row.job_id, left, clock.now_us()))
    asked.queued += new
    asked.repeated += len(left) - new
