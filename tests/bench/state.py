"""Large states made directly, as benchmarks and scale tests need them: profiles, timers, and a backlog of events."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import orjson
import workload

from daemon import clock
from streams import profile as profiles
from streams.guards import Limits
from streams.identity import resolve
from streams.mapping import Mapper
from streams.ql.parser import parse_query
from streams.schema import build_schema

DAY_US = 86_400_000_000
ROWS = 5_000


def body_of_profile(number: str = "0000000") -> str:
    """Gives the stored body of a profile that one event of the workload made."""
    query = parse_query(workload.QUERY)
    schema = build_schema([query])
    event = next(workload.events(1, 1))
    event |= {"customer_id": f"c{number}", "email": f"c{number}@example.com"}
    now_us = clock.now_us()
    (mapped,) = Mapper(schema, [query]).map("orders", event, now_us, None, now_us)
    made = resolve(schema, mapped, lambda _: None, lambda: profiles.new(1, now_us), limits=Limits())
    made.profile.apply(
        schema, made, event_us=now_us, event_id=None, stream="orders", received_us=now_us, position=("bulk", 1)
    )
    return made.profile.dump()


def fill(data_dir: Path, *, count: int, timers: int = 0, backlog: int = 0) -> None:
    """Adds profiles with identities, timers due after an hour within ten days, and a backlog, to closed databases."""
    template = body_of_profile("@@@@@@@")
    now_us = clock.now_us()
    with closing(sqlite3.connect(data_dir / "state.db", isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        numbers = range(1, count + 1)
        db.executemany(
            "INSERT INTO profile (id, body) VALUES (?, ?)",
            ((n, template.replace("@@@@@@@", f"{n:07}")) for n in numbers),
        )
        keys = [("customer_id", "c{:07}"), ("email", "c{:07}@example.com")]
        for field, form in keys:
            db.executemany(
                "INSERT INTO identity (field, value, profile_id) VALUES (?, ?, ?)",
                ((field, form.format(n), n) for n in numbers),
            )
        _time(db, timers, now_us + 3_600_000_000, 10 * DAY_US)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if backlog:
        log(data_dir / "events.db", workload.lines(backlog, max(count, 1)))


def set_timers(data_dir: Path, *, count: int, after_s: float, over_s: float) -> None:
    """Replaces all timers of closed databases: due evenly over a time that begins soon."""
    with closing(sqlite3.connect(data_dir / "state.db", isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.execute("DELETE FROM timer")
        _time(db, count, clock.now_us() + int(after_s * 1e6), int(over_s * 1e6))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _time(db: sqlite3.Connection, count: int, begin_us: int, over_us: int) -> None:
    db.executemany(
        "INSERT INTO timer (profile_id, due_us) VALUES (?, ?)",
        ((n, begin_us + n * over_us // count) for n in range(1, count + 1)),
    )


def lateness_s(data_dir: Path) -> float:
    """Says how long the timer that has waited longest is overdue, also beside a running daemon."""
    with closing(sqlite3.connect(f"file:{data_dir / 'state.db'}?mode=ro", uri=True)) as db:
        (due_us,) = db.execute("SELECT min(due_us) FROM timer").fetchone()
    return 0.0 if due_us is None else max(0.0, (clock.now_us() - due_us) / 1e6)


def log(path: Path, lines: Iterable[bytes]) -> None:
    """Adds events to the bulk lane of a closed log."""
    now_us = clock.now_us()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO event_bulk (received_us, stream, event_us, event_id, body) VALUES (?, 'orders', ?, NULL, ?)",
            ((now_us, now_us, line.decode()) for line in lines),
        )
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


if __name__ == "__main__":
    print(orjson.dumps(orjson.loads(body_of_profile()), option=orjson.OPT_INDENT_2).decode())
