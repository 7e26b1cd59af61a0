"""Memberships that time alone moves (P7): profiles whose moment has come are evaluated, and only they."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import orjson

from daemon.ingest.batch import entry_of
from daemon.ingest.cache import Cache
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.slices import Slices
from daemon.ingest.unit import Unit
from daemon.store import profiles
from daemon.store.database import Database

#: Profiles of one step.
STEP_PROFILES: Final = 2048


async def fire(unit: Unit, evaluator: Evaluator, cache: Cache, state: Database) -> int:
    """Evaluates the profiles whose timer is due, and sets their next; returns how many there were.

    Needs everything before it to be committed. Profiles that the cache does not hold are not taken into it: a wave
    of timers is no sign that events will come.
    """
    pages, count, later_us = await state.read(partial(profiles.due, now_us=unit.now_us, limit=STEP_PROFILES))
    unit.head.next_due_us = unit.now_us if count == STEP_PROFILES else later_us
    unit.scanned = True
    slices = Slices()
    for text in pages:
        rows: list[Any] = orjson.loads(text)
        for row in rows:
            entry = cache.by_id.get(row[0])
            if entry is None:
                entry = entry_of(row)
            else:
                cache.touch(entry, unit.number)
            evaluator.due(unit, entry)
            entry.rest()
            if slices.over:
                await slices.turn()
    return count
