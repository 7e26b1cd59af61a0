"""Collection, each figure beside its floor in the same run.

    python tests/bench/bench_collect.py [single] [ndjson] [csv] [--quick] [--json]

single: POSTs over 64 connections, each durable before its 200, to the real daemon; floor: a bare aiohttp handler that
only reads the body. ndjson, csv: a bulk upload, durable before its 200; floor: a bare loop in this process that parses
each line, makes the row that is stored (for CSV the JSON of its columns), and inserts it by `executemany`, 1,000 a
transaction, synchronous=FULL. Load comes from processes of their own.
"""

from __future__ import annotations

import csv
import http.client
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import orjson
from figures import Figure, alternate
from running import HERE, Daemon, daemon, script

CONNECTIONS = 64
ROWS = 200_000
COLUMNS = ("customer_id", "purchased_at", "cds", "dollars", "email", "_e")


def single(*, quick: bool) -> Figure:
    """Gives requests a second over 64 connections."""
    figure = Figure("single POSTs, 64 connections, each durable before its 200", "requests/s", "least", 0.6)
    seconds = 2.0 if quick else 5.0
    with (
        tempfile.TemporaryDirectory() as folder,
        daemon(Path(folder) / "d") as ours,
        script("bare.py") as (_, bare),
    ):
        slowest = [0.0]

        def measured() -> float:
            facts = _closed(f"{ours.address}/collect/json/web", ours.token, seconds)
            slowest[0] = max(slowest[0], facts["p99_ms"])
            return facts["count"] / facts["seconds"]

        def floor() -> float:
            facts = _closed(f"{bare}/collect/json/web", ours.token, seconds)
            return facts["count"] / facts["seconds"]

        alternate(figure, measured, floor, 3 if quick else 5)
        figure.note = f"p99 at most {slowest[0]:.1f} ms"
    return figure


def ndjson(*, quick: bool) -> Figure:
    """Gives rows a second of an upload of NDJSON."""
    return _bulk("NDJSON", "application/x-ndjson", b"\n".join(map(orjson.dumps, _rows())) + b"\n", quick=quick)


def csv_(*, quick: bool) -> Figure:
    """Gives rows a second of an upload of CSV."""
    lines = (",".join(str(value) for value in row.values()) for row in _rows())
    return _bulk("CSV", "text/csv", "\n".join([",".join(COLUMNS), *lines, ""]).encode(), quick=quick)


def _rows() -> Iterator[dict[str, object]]:
    for number in range(ROWS):
        values = (
            f"{number % 20_000:05d}",
            "1997-01-01",
            number % 7,
            11.77,
            f"u{number % 20_000}@example.com",
            "purchase",
        )
        yield dict(zip(COLUMNS, values, strict=True))


def _closed(url: str, token: str, seconds: float) -> dict[str, float]:
    arguments = [sys.executable, HERE / "closed.py", url, token, str(CONNECTIONS), str(seconds)]
    facts = orjson.loads(subprocess.run(arguments, check=True, capture_output=True).stdout)
    if facts["refused"]:
        raise RuntimeError(f"{facts['refused']} of {facts['count']} were refused")
    return facts


def _bulk(name: str, content_type: str, content: bytes, *, quick: bool) -> Figure:
    figure = Figure(f"{name} bulk, durable", "rows/s", "least", 0.5)
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder) / "d") as ours:
        file = Path(folder) / "upload"
        file.write_bytes(content)
        floor = _bare_csv if name == "CSV" else _bare_ndjson

        def measured() -> float:
            took = _upload(ours, file, content_type)
            while any(ours.call("GET", "/v2/stream/web/stats")["lag"].values()):
                time.sleep(0.02)
            return ROWS / took

        alternate(figure, measured, lambda: ROWS / _inserted(Path(folder) / "floor.db", floor(file)), 3 if quick else 5)
    return figure


def _upload(ours: Daemon, file: Path, content_type: str) -> float:
    parts = urlsplit(ours.address)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=600, blocksize=256 * 1024)
    headers = {"Authorization": ours.token, "Content-Type": content_type, "Content-Length": str(file.stat().st_size)}
    with closing(connection), file.open("rb") as body:
        began = time.perf_counter()
        connection.request("POST", "/collect/bulk/web", body=body, headers=headers)
        reply = connection.getresponse()
        content = orjson.loads(reply.read())
        took = time.perf_counter() - began
    if content["data"]["message_count"] != ROWS:
        raise RuntimeError(str(content))
    return took


def _bare_ndjson(file: Path) -> Iterator[tuple[int, str, int, None, str]]:
    now_us = time.time_ns() // 1000
    with file.open("rb") as lines:
        for line in lines:
            event = orjson.loads(line)
            yield now_us, "web", event.get("_ts", now_us), None, line.decode()


def _bare_csv(file: Path) -> Iterator[tuple[int, str, int, None, str]]:
    now_us = time.time_ns() // 1000
    with file.open(newline="") as lines:
        rows = csv.reader(lines)
        names = next(rows)
        for row in rows:
            yield now_us, "web", now_us, None, orjson.dumps(dict(zip(names, row, strict=True))).decode()


def _inserted(path: Path, rows: Iterator[tuple[int, str, int, None, str]]) -> float:
    """Gives the seconds of the floor."""
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = FULL")
        db.execute(
            "CREATE TABLE event (position INTEGER PRIMARY KEY AUTOINCREMENT, received_us INTEGER, stream TEXT,"
            " event_us INTEGER, event_id TEXT, body TEXT)"
        )
        began = time.perf_counter()
        batch = []
        for row in rows:
            batch.append(row)
            if len(batch) == 1000:
                _transaction(db, batch)
                batch = []
        _transaction(db, batch)
        return time.perf_counter() - began


def _transaction(db: sqlite3.Connection, batch: list[tuple[int, str, int, None, str]]) -> None:
    db.execute("BEGIN")
    db.executemany("INSERT INTO event (received_us, stream, event_us, event_id, body) VALUES (?, ?, ?, ?, ?)", batch)
    db.execute("COMMIT")


FIGURES = {"single": single, "ndjson": ndjson, "csv": csv_}


def main(arguments: list[str]) -> None:
    quick = "--quick" in arguments
    for name in [each for each in arguments if each in FIGURES] or FIGURES:
        figure = FIGURES[name](quick=quick)
        print(figure.show(), flush=True)
        if "--json" in arguments:
            print(figure.facts().decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
