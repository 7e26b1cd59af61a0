"""Deletes what is too old from the log, in small transactions, so that nobody waits long for the writer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from daemon import clock, log
from daemon.settings import Settings
from daemon.store import events, streams
from daemon.store.database import Database
from daemon.store.events import LANES, Lane

#: How much one transaction deletes, in rows.
ROWS = 2000

_DAY_US = 86_400_000_000


async def retain(database: Database, settings: Settings, cursors: Mapping[Lane, int]) -> None:
    """Deletes events by the age of their arrival, never one that ingest needs; event ids and rejects by theirs."""
    now_us = clock.now_us()
    days = settings.retention.events_days
    gone = 0
    for lane in LANES:
        forget = partial(
            events.forget, lane=lane, before_us=now_us - int(days * _DAY_US), cursor=cursors[lane], limit=ROWS
        )
        more = True
        while more:
            number, more = await database.write(forget)
            gone += number
    until_us = now_us - int(settings.collect.dedup_days * _DAY_US)
    while await database.write(lambda db: events.forget_keys(db, until_us, ROWS)):
        pass
    oldest_us = now_us - int(settings.retention.rejects_days * _DAY_US)
    await database.write(lambda db: streams.forget_rejects(db, oldest_us))
    if gone:
        log.get().info("events_forgotten", events=gone, older_than_days=days)
