"""How long triggers are kept: never shorter than a live cursor needs them, unless it is dead for very long."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence

from daemon import clock, log
from daemon.bus.cursor import Cursor
from daemon.bus.parts import NO_JOURNAL, Journal
from daemon.model import codes
from daemon.settings import Retention as RetentionSettings
from daemon.store import trigger_log
from daemon.store.database import Database

#: Triggers deleted in one transaction.
CHUNK = 5000
DAY_US = 86_400_000_000


class Retention:
    """Deletes old triggers, and moves cursors that no run has read for too long."""

    def __init__(self, state: Database, settings: RetentionSettings, journal: Journal = NO_JOURNAL) -> None:
        self._state = state
        self._settings = settings
        self._journal = journal

    async def give_up(self, cursors: Sequence[Cursor]) -> bool:
        """Moves the cursors that no run reads: on to what they want next, and past what is too old. Loudly.

        Returns whether any was moved.
        """
        before_us = clock.now_us() - round(self._settings.dead_cursor_days * DAY_US)
        moved = False
        for cursor in cursors:
            if cursor.reader is None and not cursor.caught_up:
                moved = await self._move(cursor, before_us) or moved
        return moved

    async def _move(self, cursor: Cursor, before_us: int) -> bool:
        position = cursor.read_to
        cursor.touched = False

        def look(db: sqlite3.Connection) -> tuple[int, int]:
            """Gives where the cursor may stand, and how many wanted triggers that skips."""
            first = trigger_log.first_wanted(db, cursor.filter, position)
            if first is None:
                return trigger_log.head(db), 0
            wanted_id, at_us = first
            if at_us >= before_us:
                return wanted_id - 1, 0
            return trigger_log.older_than(db, cursor.filter, position, before_us)

        place, skipped = await self._state.read(look)
        # A run that began meanwhile reads from the old place.
        if place <= position or not _still_alone(cursor):
            return False
        cursor.skip_to(place, skipped)
        if skipped:
            log.get().error(
                "triggers_given_up",
                job=cursor.job_id,
                subscription=cursor.id,
                triggers=skipped,
                days=self._settings.dead_cursor_days,
            )
            words = (
                f"{skipped:,} triggers waited longer than {self._settings.dead_cursor_days:g} days and were given up"
            )
            self._journal.job_event(cursor.job_id, None, "error", codes.GIVEN_UP, words, triggers=skipped)
        return True

    async def delete(self, floor: int) -> int:
        """Deletes the triggers up to the id `floor` that are older than they are kept, piece by piece.

        Of people who were erased nothing but the exit is kept that long.
        """
        if await self._state.read(lambda db: trigger_log.has_erased(db, floor)):
            await self._state.write(lambda db: trigger_log.forget_erased(db, floor))
        before_us = clock.now_us() - round(self._settings.triggers_days * DAY_US)
        deleted = 0
        while True:
            count = await self._state.write(lambda db: trigger_log.delete_old(db, floor, before_us, CHUNK))
            deleted += count
            if count < CHUNK:
                break
            await asyncio.sleep(0.05)  # the writer's other work comes in between
        if deleted:
            log.get().info("triggers_deleted", triggers=deleted, up_to=floor)
        return deleted


def _still_alone(cursor: Cursor) -> bool:
    return cursor.reader is None
