"""How long triggers are kept: never shorter than a live cursor needs them, unless it is dead for very long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from daemon import clock, log
from daemon.bus.cursor import Cursor
from daemon.settings import Retention as RetentionSettings
from daemon.store import trigger_log
from daemon.store.database import Database

#: Triggers deleted in one transaction.
CHUNK = 5000
DAY_US = 86_400_000_000


class Retention:
    """Deletes old triggers, and moves cursors that no run has read for too long."""

    def __init__(self, state: Database, settings: RetentionSettings) -> None:
        self._state = state
        self._settings = settings

    async def give_up(self, cursors: Sequence[Cursor]) -> bool:
        """Moves the cursors that no run reads: on to what they want next, and past what is too old. Loudly.

        Returns whether any was moved.
        """
        before_us = clock.now_us() - round(self._settings.dead_cursor_days * DAY_US)
        moved = False
        for cursor in cursors:
            if cursor.attached or cursor.caught_up:
                continue
            cursor.touched = False
            position = cursor.read_to
            first, end = await self._state.read(
                lambda db, cursor=cursor, position=position: (
                    trigger_log.first_wanted(db, cursor.filter, position),
                    trigger_log.head(db),
                )
            )
            if cursor.attached:
                continue
            if first is None:
                if not cursor.touched:
                    cursor.skip_to(end, 0)
                    moved = True
                continue
            wanted_id, at_us = first
            if at_us >= before_us:
                cursor.skip_to(wanted_id - 1, 0)
                moved = True
                continue
            place, skipped = await self._state.read(
                lambda db, cursor=cursor, position=position: trigger_log.older_than(
                    db, cursor.filter, position, before_us
                )
            )
            if cursor.attached:
                continue
            cursor.skip_to(place, skipped)
            moved = True
            log.get().error(
                "triggers_given_up",
                job=cursor.job_id,
                subscription=cursor.id,
                triggers=skipped,
                days=self._settings.dead_cursor_days,
            )
        return moved

    async def delete(self, floor: int) -> int:
        """Deletes the triggers up to the id `floor` that are older than they are kept, piece by piece."""
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
