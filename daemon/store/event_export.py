"""The log as exports read it: pages by stream and time of arrival, between two positions of a lane.

Only positions say what was exported: times of arrival go back when the clock is set.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from daemon.store.erasures import ERASED
from daemon.store.events import LANES, Lane

#: Positions that one read looks at, wanted or not, and events and bytes that it gives, about.
SPAN: Final = 50_000
PAGE_EVENTS: Final = 1024
PAGE_BYTES: Final = 256 * 1024
#: Bytes that a page never has more of, unless it is one event.
MOST_BYTES: Final = 8 * PAGE_BYTES

# After ?1 up to ?2, of the streams ?3 (JSON, null: all), arrived from ?4 on and before ?5, at most ?6.
_WANTED: Final = """(SELECT * FROM event_{lane} WHERE position > ?1 AND position <= ?2
        AND (?3 IS NULL OR stream IN (SELECT value FROM json_each(?3)))
        AND received_us >= ?4 AND received_us < ?5 AND body <> ?7 ORDER BY position LIMIT ?6)"""
_PAGE: Final = """SELECT count(*), max(position), '[' || group_concat('[' || position || ',' || received_us || ','
        || json_quote(stream) || ',' || event_us || ',' || body || ']') || ']' FROM """
PAGE: Final = {lane: (_PAGE + _WANTED).format(lane=lane) for lane in LANES}
# How long such a page would be: events may be a thousand times as large as those of the page before.
_SIZE: Final = {lane: ("SELECT total(length(body)) FROM " + _WANTED).format(lane=lane) for lane in LANES}  # noqa: S608

_EVER: Final = (1 << 63) - 1


class Wanted(NamedTuple):
    """Which events: of these streams (none: all), arrived from `start_us` on and before `end_us`."""

    streams: Sequence[str] = ()
    start_us: int | None = None
    end_us: int | None = None


class Page(NamedTuple):
    """Rows `[position, received_us, stream, event_us, {…}]`; all that is wanted up to `read_to` is in it.

    `next_limit`: how many events of this size the next page may have.
    """

    rows: list[Any]
    read_to: int
    next_limit: int


def read(db: sqlite3.Connection, lane: Lane, wanted: Wanted, after: int, upto: int, limit: int) -> Page:
    """Reads wanted events behind `after`, `limit` at most, up to `upto`; looks at SPAN positions at most."""
    end = min(upto, after + SPAN)
    streams = orjson.dumps(list(wanted.streams)).decode() if wanted.streams else None
    start_us = -_EVER if wanted.start_us is None else wanted.start_us
    end_us = _EVER if wanted.end_us is None else wanted.end_us
    while True:
        values = (after, end, streams, start_us, end_us, limit, ERASED)
        (size,) = db.execute(_SIZE[lane], values).fetchone()
        if size <= MOST_BYTES or limit == 1:
            break
        limit = max(1, min(limit // 2, int(limit * PAGE_BYTES / size)))
    count, last, text = db.execute(PAGE[lane], values).fetchone()
    if not count:
        return Page([], end, min(limit * 2, PAGE_EVENTS))
    fitting = max(1, min(PAGE_EVENTS, PAGE_BYTES * count // len(text)))
    return Page(orjson.loads(text), end if count < limit else last, fitting)
