"""Erasures as stored: their work and how far it is, tombstones, and what of people stands in the log.

`Work` is told in `state.db`; the statements over `events.db` are below. A body that is taken away leaves ERASED in its
place, so that positions have no hole, and the event's id goes with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

from daemon.store.events import LANES, Lane
from streams.mapping import Key
from streams.person import Texts
from streams.tombstones import Half, Noted

State: TypeAlias = Literal["scrubbing", "delivering", "cleaning", "done"]

#: Positions by lane behind which, and up to which, a key was kept out.
Span: TypeAlias = tuple[Mapping[Lane, int], Mapping[Lane, int] | None]

#: What stands in the log instead of an event's body.
ERASED: Final = '{"_erased":true}'
#: Begins what stands for the rest of an event where that is still to be worked out; the keys' hashes follow.
_TO_CUT: Final = "without "

_COLUMNS = """id, state, accepted_us, finished_us, allow_return, admitted_us, keys, profiles, last_trigger, history,
    taken, head, looked, events_looked, scrubbed, cut, kept, rejects, snapshots"""
PAGE = f"SELECT {_COLUMNS} FROM erasure WHERE id < ? ORDER BY id DESC LIMIT ?"  # noqa: S608  (constants)
ONE = f"SELECT {_COLUMNS} FROM erasure WHERE id = ?"  # noqa: S608  (constants)
OPEN = f"SELECT {_COLUMNS} FROM erasure WHERE state <> 'done' ORDER BY id"  # noqa: S608  (constants)
ADD = """INSERT INTO erasure (id, state, accepted_us, allow_return, keys, profiles, last_trigger, history, taken, head,
    looked) VALUES (?, 'scrubbing', ?, ?, ?, ?, ?, ?, ?, ?, '{"realtime":0,"bulk":0}')"""
LAST_ID = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'erasure'), 0)"
TOTAL = "SELECT count(*) FROM erasure"
PROGRESS = """UPDATE erasure SET looked = json_set(looked, '$.' || ?2, ?3), events_looked = events_looked + ?4,
    scrubbed = scrubbed + ?5, cut = cut + ?6, kept = kept + ?7 WHERE id = ?1 AND state = 'scrubbing'"""
SEARCHED = """UPDATE erasure SET state = 'delivering', keys = NULL, rejects = ?2, profiles = ?3
    WHERE id = ?1 AND state = 'scrubbing' RETURNING history"""
KEPT_OUT = """SELECT h.body -> '$.upto', h.body -> '$.admitted', h.body -> '$.hashes', e.taken FROM history AS h
    LEFT JOIN erasure AS e ON e.id = h.body ->> '$.erasure' WHERE h.kind = 'erase' ORDER BY h.sequence"""
SCRUBBED = "UPDATE history SET body = json_set(body, '$.scrubbed', json('true')) WHERE sequence = ?"
SPLITS = "SELECT sequence, body FROM history WHERE kind = 'split' ORDER BY sequence"
ERASED_SPLITS = """SELECT sequence, body FROM history WHERE kind = 'erase' AND json_array_length(body, '$.splits') > 0
    ORDER BY sequence"""
REWRITE = "UPDATE history SET body = ? WHERE sequence = ?"
# Snapshots of the profile, and of those that it had taken in.
ABSORBED = """SELECT DISTINCT profile_id FROM trigger
    WHERE profile_body IS NOT NULL AND merged_into IN (SELECT value FROM json_each(?))"""
FORGET_SNAPSHOTS = """UPDATE trigger SET profile_body = NULL WHERE profile_body IS NOT NULL AND id <= ?2
    AND profile_id IN (SELECT value FROM json_each(?1))"""
# What destinations said may repeat what they got.
FORGET_ANSWERS = """UPDATE delivery SET answer = '', sample = NULL WHERE id IN (SELECT delivery FROM delivery_message
    WHERE profile_id IN (SELECT value FROM json_each(?)))"""
DELIVERED = "UPDATE erasure SET state = 'cleaning', snapshots = ?2 WHERE id = ?1 AND state = 'delivering'"
DONE = "UPDATE erasure SET state = 'done', finished_us = ?2 WHERE id = ?1 AND state = 'cleaning'"
ADMITTED = "UPDATE erasure SET admitted_us = ?2 WHERE id = ?1 AND admitted_us IS NULL"

BURY = """INSERT INTO tombstone (hash, erasure, realtime, bulk) VALUES (?, ?, ?, ?)
    ON CONFLICT (hash) DO UPDATE SET erasure = excluded.erasure, realtime = excluded.realtime, bulk = excluded.bulk"""
TOMBSTONES = "SELECT hash, realtime, bulk FROM tombstone"
TOMBSTONES_OF = "SELECT hash FROM tombstone WHERE erasure = ? AND realtime IS NULL"
ERASURE_OF = "SELECT erasure FROM tombstone WHERE hash = ? AND realtime IS NULL"
BOUND = "UPDATE tombstone SET realtime = ?, bulk = ? WHERE hash = ?"
UNBURY = "DELETE FROM tombstone WHERE hash = ?"

LIST_EVENT = "INSERT INTO erased_event (lane, position, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
LISTED = "SELECT lane, position, body FROM erased_event ORDER BY lane, position LIMIT ?"
UNLIST = "DELETE FROM erased_event WHERE lane = ? AND position = ?"
NOTE_REFUSALS = """INSERT INTO erased_refusal (lane, position, erasure, refused) VALUES (?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""
REFUSALS = "SELECT lane, position, erasure, refused FROM erased_refusal"
TURN_AWAY = "UPDATE erasing SET turned_away = turned_away + ?"

#: Rows on each side that are written anew with a person's.
NEIGHBOURS: Final = 12
_AROUND: Final = """SELECT * FROM (SELECT * FROM {table} WHERE id <= ? ORDER BY id DESC LIMIT ?)
    UNION ALL SELECT * FROM (SELECT * FROM {table} WHERE id > ? ORDER BY id LIMIT ?) ORDER BY 1"""

_SCRUB: Final = {
    lane: f"""UPDATE event_{lane} SET body = given.value->>1, event_id = CASE WHEN given.value->>2 THEN NULL
        ELSE event_id END FROM json_each(?) AS given WHERE event_{lane}.position = given.value->>0"""  # noqa: S608
    for lane in LANES
}
_FORGET_IDS: Final = {
    lane: f"""DELETE FROM event_key WHERE (stream, event_id) IN (SELECT e.stream, e.event_id FROM event_{lane} AS e
        WHERE e.event_id IS NOT NULL AND e.position IN (SELECT value FROM json_each(?)))"""  # noqa: S608
    for lane in LANES
}
REJECTS_AFTER = "SELECT id, message, sample FROM reject WHERE id > ? ORDER BY id LIMIT 500"
FORGET_REJECTS = "DELETE FROM reject WHERE id IN (SELECT value FROM json_each(?))"
FIELDS = "SELECT stream, field FROM stream_field"
FORGET_FIELD = "DELETE FROM stream_field WHERE stream = ? AND field = ?"


class Erasure(NamedTuple):
    """One erasure; times in microseconds since the epoch.

    `taken`, `head` and `looked` are positions by lane: what ingest had taken in and what was in the log when it was
    accepted, and how far the log is searched. `keys` are there while it is.
    """

    id: int
    state: State
    accepted_us: int
    finished_us: int | None
    allow_return: bool
    admitted_us: int | None
    keys: tuple[Key, ...]
    profiles: tuple[int, ...]
    last_trigger: int
    history: int
    taken: dict[Lane, int]
    head: dict[Lane, int]
    looked: dict[Lane, int]
    events_looked: int
    scrubbed: int
    cut: int
    kept: int
    rejects: int
    snapshots: int


class Scrub(NamedTuple):
    """An event to be scrubbed, and what is left of its body (JSON text); None: nothing."""

    lane: Lane
    position: int
    body: str | None


def to_cut(lane: Lane, position: int, hashes: Iterable[bytes]) -> Scrub:
    """Gives an event that keys with these hashes are to be taken out of, once somebody works out what is left."""
    return Scrub(lane, position, _TO_CUT + " ".join(sorted(each.hex() for each in hashes)))


def cut_of(scrub: Scrub) -> frozenset[bytes]:
    """Gives the hashes of the keys that are to be taken out; none when what is left is worked out."""
    if scrub.body is None or not scrub.body.startswith(_TO_CUT):
        return frozenset()
    return frozenset(bytes.fromhex(each) for each in scrub.body.removeprefix(_TO_CUT).split())


class Counted(NamedTuple):
    """What a page of the search found, of one erasure."""

    events_looked: int = 0
    scrubbed: int = 0
    cut: int = 0
    kept: int = 0


# --- state.db


def salt(db: sqlite3.Connection) -> bytes:
    """Gives what keyed hashes are made with."""
    return bytes(db.execute("SELECT salt FROM erasing").fetchone()[0])


def turned_away(db: sqlite3.Connection) -> int:
    """Gives how many events were not taken in, for a tombstone."""
    return int(db.execute("SELECT turned_away FROM erasing").fetchone()[0])


def last_id(db: sqlite3.Connection) -> int:
    """Gives the last id that an erasure has got."""
    return int(db.execute(LAST_ID).fetchone()[0])


def add(db: sqlite3.Connection, erasure: Erasure, hashes: Sequence[bytes], bounds: Mapping[Lane, int] | None) -> None:
    """Stores a new erasure with its tombstones."""
    texts = [orjson.dumps(each).decode() for each in (erasure.keys, erasure.profiles, erasure.taken, erasure.head)]
    keys, profiles, taken, head = texts
    db.execute(
        ADD,
        (erasure.id, erasure.accepted_us, int(erasure.allow_return), keys, profiles, erasure.last_trigger,
         erasure.history, taken, head),
    )  # fmt: skip
    upto = (None, None) if bounds is None else (bounds["realtime"], bounds["bulk"])
    db.executemany(BURY, [(each, erasure.id, *upto) for each in hashes])


def one(db: sqlite3.Connection, erasure_id: int) -> Erasure | None:
    """Gives an erasure; None where there is none."""
    row = db.execute(ONE, (erasure_id,)).fetchone()
    return None if row is None else _erasure(row)


def page(db: sqlite3.Connection, below: int, limit: int) -> tuple[list[Erasure], int]:
    """Gives up to `limit` erasures of ids below `below`, the newest first; and how many there are in all."""
    rows = db.execute(PAGE, (below, limit)).fetchall()
    return [_erasure(row) for row in rows], int(db.execute(TOTAL).fetchone()[0])


def unfinished(db: sqlite3.Connection) -> list[Erasure]:
    """Gives the erasures that are not done, in the order of their acceptance."""
    return [_erasure(row) for row in db.execute(OPEN).fetchall()]


def tombstones(db: sqlite3.Connection) -> list[tuple[bytes, dict[Lane, int] | None]]:
    """Gives the hashes of keys that nobody may have, and up to where; None: for ever."""
    return [
        (bytes(mark), None if realtime is None else {"realtime": realtime, "bulk": bulk})
        for mark, realtime, bulk in db.execute(TOMBSTONES).fetchall()
    ]


def buried_with(db: sqlite3.Connection, hashes: Sequence[bytes]) -> tuple[list[int], list[bytes]]:
    """Gives the erasures to which the lasting tombstones with these hashes belong, and all lasting ones of theirs."""
    ids = sorted({row[0] for each in hashes for row in db.execute(ERASURE_OF, (each,)).fetchall()})
    return ids, [bytes(row[0]) for each in ids for row in db.execute(TOMBSTONES_OF, (each,)).fetchall()]


def bound(
    db: sqlite3.Connection, hashes: Sequence[bytes], bounds: Mapping[Lane, int], erasures: Sequence[int], now_us: int
) -> None:
    """Lets tombstones hold for what is in the log only, and notes with the erasures that they were admitted."""
    db.executemany(BOUND, [(bounds["realtime"], bounds["bulk"], each) for each in hashes])
    db.executemany(ADMITTED, [(each, now_us) for each in erasures])


def unbury(db: sqlite3.Connection, hashes: Sequence[bytes]) -> None:
    """Takes tombstones away that hold for no event any more."""
    db.executemany(UNBURY, [(each,) for each in hashes])


def turn_away(db: sqlite3.Connection, events: int, listed: Sequence[Scrub]) -> None:
    """Counts events that were not taken in, and lists those whose bodies are to go."""
    db.execute(TURN_AWAY, (events,))
    db.executemany(LIST_EVENT, listed)


def note_page(
    db: sqlite3.Connection,
    lane: Lane,
    upto: int,
    counted: Mapping[int, Counted],
    listed: Sequence[Scrub],
    refused: Sequence[tuple[Lane, int, int, str]],
) -> None:
    """Stores what a page of the search found, by erasure, and that the log is searched up to its end."""
    db.executemany(NOTE_REFUSALS, refused)
    db.executemany(LIST_EVENT, listed)
    db.executemany(PROGRESS, [(each, lane, upto, *found) for each, found in counted.items()])


def listed(db: sqlite3.Connection, limit: int) -> list[Scrub]:
    """Gives up to `limit` events that are to be scrubbed."""
    return [Scrub(*row) for row in db.execute(LISTED, (limit,)).fetchall()]


def unlist(db: sqlite3.Connection, done: Sequence[Scrub]) -> None:
    """Notes that events are scrubbed."""
    db.executemany(UNLIST, [each[:2] for each in done])


def refusals(db: sqlite3.Connection) -> dict[tuple[Lane, int], dict[int, list[Noted]]]:
    """Gives what `streams.tombstones.Foreseen` needs of events that were cut."""
    found: dict[tuple[Lane, int], dict[int, list[Noted]]] = {}
    for lane, position, erasure, refused in db.execute(REFUSALS):
        found.setdefault((lane, position), {})[erasure] = orjson.loads(refused)
    return found


def searched(db: sqlite3.Connection, erasure: Erasure, rejects: int) -> None:
    """Notes that nothing of a person is left in the log; with that the keys in plain text go."""
    profiles = set(erasure.profiles)
    while more := {row[0] for row in db.execute(ABSORBED, (_json(sorted(profiles)),)).fetchall()} - profiles:
        profiles |= more
    row = db.execute(SEARCHED, (erasure.id, rejects, _json(sorted(profiles)))).fetchone()
    if row is not None:
        db.execute(SCRUBBED, (row[0],))
    theirs = set(erasure.keys)
    for sequence, text in db.execute(SPLITS).fetchall():
        if sequence > erasure.history:  # who came back is somebody
            break
        body = orjson.loads(text)
        left = {"keys": [key for key in body.get("keys", ()) if tuple(key) not in theirs]}
        if "halves" in body:
            ids = (body["profile"], body["into"])
            left["halves"] = [
                None if half is None or of in profiles or theirs.intersection(_keys_in(half)) else half
                for of, half in zip(ids, body["halves"], strict=True)
            ]
        if body | left != body:
            db.execute(REWRITE, (orjson.dumps(body | left).decode(), sequence))


def halves(db: sqlite3.Connection) -> dict[int, dict[int, list[Half]]]:
    """Gives the halves of the splits that erased people came of, without those that are known to be theirs.

    By erasure, then by the split's place in the history.
    """
    erased = [(sequence, orjson.loads(text)) for sequence, text in db.execute(ERASED_SPLITS).fetchall()]
    splits = [(sequence, orjson.loads(text)) for sequence, text in (db.execute(SPLITS).fetchall() if erased else ())]
    found: dict[int, dict[int, list[Half]]] = {}
    for decided, erasure in erased:
        of_erasure = found[erasure["erasure"]] = {}
        for sequence, body in splits:
            if sequence < decided and body.get("at_us") in erasure["splits"] and "halves" in body:
                of_erasure[sequence] = [
                    Half(_keys_in(text), text, body["upto"])
                    for of, text in zip((body["profile"], body["into"]), body["halves"], strict=True)
                    if text is not None and of != erasure["profile"]
                ]
    return found


def halves_of(db: sqlite3.Connection, keys: Iterable[Key]) -> list[tuple[int, str]]:
    """Gives the halves of splits with any of these keys: when (µs), and the profile's text as the history keeps it."""
    asked, found = set(keys), []
    for _, text in db.execute(SPLITS).fetchall():
        body = orjson.loads(text)
        kept = [half for half in body.get("halves", ()) if half is not None and asked.intersection(_keys_in(half))]
        found += [(body["at_us"], half) for half in kept]
    return found


def kept_out(db: sqlite3.Connection) -> dict[str, list[Span]]:
    """Gives by hash when keys were kept out of events: from behind, and up to, positions by lane (None: still)."""
    found: dict[str, list[Span]] = {}
    for upto, admitted, hashes, taken in db.execute(KEPT_OUT).fetchall():
        ended = None if upto is None else orjson.loads(upto)  # null stays None
        for each in orjson.loads(hashes):
            spans = found.setdefault(each, [])
            if admitted is not None and spans:
                spans[-1] = (spans[-1][0], ended)
            elif taken is not None:
                spans.append((orjson.loads(taken), ended))
    return found


def _keys_in(text: str) -> tuple[Key, ...]:
    return tuple((field, value) for field, values in orjson.loads(text)["k"].items() for value in values)


def delivered(db: sqlite3.Connection, erasure: Erasure) -> None:
    """Takes the last fields away that the exits carried: every destination has them."""
    gone = db.execute(FORGET_SNAPSHOTS, (_json(erasure.profiles), erasure.last_trigger)).rowcount
    db.execute(FORGET_ANSWERS, (_json(erasure.profiles),))
    db.execute(DELIVERED, (erasure.id, gone))


def smooth(db: sqlite3.Connection, erasure: Erasure) -> None:
    """Writes the rows around those of a person anew.

    Deleting overwrites what stood in the row's place (`secure_delete`). But where SQLite divided a page earlier, a copy
    may be left between the rows of the page that the row was in before (measured: of 1 in 100 profiles). Such a page is
    that of neighbours: when all of them go it is freed, and with that overwritten.
    """
    for profile in erasure.profiles:
        _rewrite(db, "profile", profile)
    _rewrite(db, "erasure", erasure.id)  # which had the keys


def _rewrite(db: sqlite3.Connection, table: str, number: int) -> None:
    around = db.execute(_AROUND.format(table=table), (number, NEIGHBOURS, number, NEIGHBOURS)).fetchall()
    if around:
        ids = _json([row[0] for row in around])
        db.execute(f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", (ids,))  # noqa: S608
        places = ", ".join("?" * len(around[0]))
        db.executemany(f"INSERT INTO {table} VALUES ({places})", around)  # noqa: S608  (a name of ours)


def done(db: sqlite3.Connection, ids: Sequence[int], now_us: int) -> None:
    """Notes that erasures are done."""
    db.executemany(DONE, [(each, now_us) for each in ids])


def _erasure(row: Sequence[Any]) -> Erasure:
    values = list(row)
    values[4] = bool(row[4])
    values[6] = () if row[6] is None else tuple((field, value) for field, value in orjson.loads(row[6]))
    values[7] = tuple(orjson.loads(row[7]))
    for place in (10, 11, 12):
        values[place] = orjson.loads(row[place])
    return Erasure(*values)


# --- events.db


def scrub(db: sqlite3.Connection, events: Sequence[Scrub]) -> None:
    """Takes bodies away, or what is to go of them; doing it again changes nothing. Ids of what went whole go too."""
    for lane in LANES:
        of_lane = [each for each in events if each.lane == lane]
        whole = [each.position for each in of_lane if each.body is None]
        if whole:
            db.execute(_FORGET_IDS[lane], (_json(whole),))
        if of_lane:
            given = [(each.position, each.body or ERASED, each.body is None) for each in of_lane]
            db.execute(_SCRUB[lane], (_json(given),))


def rejects_page(db: sqlite3.Connection, after: int) -> list[tuple[int, str, str]]:
    """Gives ids, messages and samples of some refused events after an id."""
    return [(number, message, sample) for number, message, sample in db.execute(REJECTS_AFTER, (after,)).fetchall()]


def forget_rejects(db: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Deletes refused events; says how many."""
    return db.execute(FORGET_REJECTS, (_json(ids),)).rowcount


def forget_fields(db: sqlite3.Connection, texts: Texts) -> None:
    """Deletes field names of streams that have one of the texts in them (an object with people as its names)."""
    for stream, field in db.execute(FIELDS).fetchall():
        if texts.within_text(field):
            db.execute(FORGET_FIELD, (stream, field))


def truncate(db: sqlite3.Connection) -> bool:
    """Copies the write-ahead log into the file and empties it; False while a reader stands in the way.

    To be given a connection without a transaction.
    """
    (before,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute("PRAGMA busy_timeout = 0").fetchall()
    try:
        (busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        db.execute(f"PRAGMA busy_timeout = {int(before):d}").fetchall()
    return not busy


def _json(values: Sequence[object]) -> str:
    return orjson.dumps(values).decode()
