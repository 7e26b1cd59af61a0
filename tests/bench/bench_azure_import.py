"""The import of a CSV file from a container of Azurite, beside a bare loop over the same blob.

`python bench_azure_import.py [--quick]`: a real daemon runs `azure_blob_import` until all rows are durable in its log;
the floor reads the blob with the SDK, parses it with `csv`, and stores the rows by `executemany`, 1,000 in a durable
transaction. Both meet the same Azurite, whose own work is in both.
"""

from __future__ import annotations

import csv
import io
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import orjson
from azure.storage.blob import BlobClient
from figures import Figure, alternate
from running import Daemon, daemon

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from azurite import Azurite, azurite

COLUMNS = ("email", "name", "n", "city", "at", "note")
CONTAINER, NAME = "bench", "people.csv"
AT_ONCE = 1000


def people(count: int) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(COLUMNS)
    writer.writerows(
        (f"p{n}@example.org", f"Name {n}", n, "Springfield", "2026-01-01T00:00:00Z", "a short note")
        for n in range(count)
    )
    return sink.getvalue().encode()


def ours(daemon: Daemon, auth: str, count: int) -> float:
    """Gives rows a second, from the job's creation until it is completed."""
    daemon.settle()
    config = {"stream": "people", "container": CONTAINER, "file": NAME}
    began = time.perf_counter()
    body = orjson.dumps({"label": "bench", "auth_id": auth, "config": config})
    job = daemon.call("POST", "/v2/job/azure_blob_import", body)["id"]
    while (found := daemon.call("GET", f"/v2/job/{job}"))["state"] != "completed":
        if found["state"] not in {"running", "sleeping"} or found["errors"]:
            raise RuntimeError(found["reason"])
        time.sleep(0.05)
    took = time.perf_counter() - began
    stored = daemon.call("GET", f"/v2/job/{job}/metrics")["added"]
    if stored != count:
        raise RuntimeError(f"{stored} rows of {count}")
    return count / took


def bare(connection_string: str, folder: Path, count: int) -> float:
    """Gives rows a second of the loop that does nothing else."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        db = sqlite3.connect(Path(made) / "bare.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"CREATE TABLE row ({', '.join(COLUMNS)})")
        insert = f"INSERT INTO row VALUES ({', '.join('?' * len(COLUMNS))})"
        began = time.perf_counter()
        with BlobClient.from_connection_string(connection_string, CONTAINER, NAME) as client:
            rows = csv.reader(lines(client))
            next(rows)
            while page := list(islice(rows, AT_ONCE)):
                db.execute("BEGIN")
                db.executemany(insert, page)
                db.execute("COMMIT")
        took = time.perf_counter() - began
        (stored,) = db.execute("SELECT count(*) FROM row").fetchone()
        db.close()
        if stored != count:
            raise RuntimeError(f"{stored} rows of {count}")
        return count / took


def lines(client: BlobClient) -> Iterator[str]:
    rest = b""
    for chunk in client.download_blob().chunks():
        whole, end, rest = (rest + chunk).rpartition(b"\n")
        yield from io.StringIO((whole + end).decode(), newline="")
    if rest:
        yield rest.decode()


def imports(*, quick: bool) -> Figure:
    count, rounds = (200_000, 3) if quick else (300_000, 5)
    with tempfile.TemporaryDirectory() as made, azurite(Path(made) / "azurite") as store:
        folder = Path(made)
        fill(store, count)
        with daemon(folder / "data") as running:
            config = orjson.dumps({"config": {"connection_string": store.connection_string}})
            auth = running.call("POST", "/v2/auth/azure/azure_storage", config)["id"]
            figure = Figure("blob CSV import, rows durable, to a bare loop", "rows/s", "least", 0.4)
            return alternate(
                figure,
                lambda: ours(running, auth, count),
                lambda: bare(store.connection_string, folder, count),
                rounds,
            )


def fill(store: Azurite, count: int) -> None:
    store.create(CONTAINER)
    store.put(CONTAINER, NAME, people(count))


if __name__ == "__main__":
    found = imports(quick="--quick" in sys.argv)
    print(found.show(), flush=True)
    sys.exit(0 if found.met else 1)
