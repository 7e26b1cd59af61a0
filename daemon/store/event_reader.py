"""The log as ingest and replay read it: pages of JSON text, one step each.

A page is a list of rows `[position, received_us, stream, event_us, event_id or null, {…}]`.
"""

from __future__ import annotations

import sqlite3
from typing import Final, Literal, NamedTuple

#: Events and bytes of one page; bounds what one parse of it holds up.
PAGE_EVENTS: Final = 256
PAGE_BYTES: Final = 128 * 1024

_PAGE = """SELECT count(*), max(position), '[' || group_concat('[' || position || ',' || received_us || ','
        || json_quote(stream) || ',' || event_us || ',' || coalesce(json_quote(event_id), 'null') || ',' || body
        || ']') || ']'
    FROM (SELECT * FROM {table} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?)"""
PAGES: Final = {lane: _PAGE.format(table=f"event_{lane}") for lane in ("realtime", "bulk")}
HEADS: Final = """SELECT (SELECT coalesce(max(position), 0) FROM event_realtime),
    (SELECT coalesce(max(position), 0) FROM event_bulk)"""
FIRSTS: Final = """SELECT (SELECT min(position) FROM event_realtime), (SELECT min(position) FROM event_bulk)"""

END: Final = (1 << 63) - 1


class Page(NamedTuple):
    """Some events: how many, the last one's position, and their JSON text."""

    events: int
    last: int
    text: str


def read(
    db: sqlite3.Connection,
    lane: Literal["realtime", "bulk"],
    after: int,
    max_events: int,
    max_bytes: int,
    upto: int = END,
) -> list[Page]:
    """Gives the lane's events after a position, in order, up to the bounds, as pages; at least one event if any."""
    pages: list[Page] = []
    statement = PAGES[lane]
    size = min(32, max_events)
    while max_events > 0 and max_bytes > 0:
        events, last, text = db.execute(statement, (after, upto, min(size, max_events))).fetchone()
        if not events:
            break
        pages.append(Page(events, last, text))
        if events < min(size, max_events):
            break
        after = last
        max_events -= events
        max_bytes -= len(text)
        # Events may be of any size: the next page is as large as this one's events allow.
        size = max(1, min(PAGE_EVENTS, PAGE_BYTES * events // len(text)))
    return pages


def heads(db: sqlite3.Connection) -> tuple[int, int]:
    """Gives the last positions of the real-time and the bulk lane."""
    realtime, bulk = db.execute(HEADS).fetchone()
    return realtime, bulk


def firsts(db: sqlite3.Connection) -> tuple[int | None, int | None]:
    """Gives the first positions that are still in the log; None for an empty lane."""
    realtime, bulk = db.execute(FIRSTS).fetchone()
    return realtime, bulk
