"""The import of a table from a database server, beside the bare driver that fetches the same rows.

`python bench_azure_sql.py [--quick]`: a real daemon runs `azure_sql_import` until all rows are durable in its log; the
floor is pyodbc with the same driver, which fetches the same rows in the same order and keeps none. Both meet the same
peer, whose own work is in both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import orjson
import pyodbc
from figures import Figure, alternate
from running import Daemon, daemon

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from tds.running import DATABASE, PASSWORD, USER, Peer, serving

from connectors.azure.sql_driver import connection_string, find_driver

TABLE = "people"
COLUMNS = ("email", "name", "n", "city", "at", "note", "amount")
AT_ONCE = 1000


def fill(peer: Peer, count: int) -> None:
    peer.sql(
        f"CREATE TABLE {TABLE} (email nvarchar(100), name nvarchar(100), n int, city nvarchar(50), at datetime2(3),"
        " note nvarchar(200), amount decimal(18, 2))"
    )
    peer.duck(
        f"INSERT INTO dbo.{TABLE} SELECT 'p' || i || '@example.org', 'Name ' || i, i, 'Springfield',"
        f" TIMESTAMP '2026-01-01' + INTERVAL (i // 10) SECOND, 'a short note', i / 100.0 FROM range({count}) t(i)"
    )


def ours(daemon: Daemon, auth: str, count: int) -> float:
    """Gives rows a second, from the job's creation until it is completed."""
    daemon.settle()
    config = {"stream": "people", "table": TABLE, "timestamp_column": "at"}
    began = time.perf_counter()
    body = orjson.dumps({"label": "bench", "auth_id": auth, "config": config})
    job = daemon.call("POST", "/v2/job/azure_sql_import", body)["id"]
    while (found := daemon.call("GET", f"/v2/job/{job}"))["state"] != "completed":
        if found["state"] not in {"running", "sleeping"} or found["errors"]:
            raise RuntimeError(found["reason"])
        time.sleep(0.02)
    took = time.perf_counter() - began
    stored = daemon.call("GET", f"/v2/job/{job}/metrics")["added"]
    if stored != count:
        raise RuntimeError(f"{stored} rows of {count}")
    return count / took


def bare(peer: Peer, count: int) -> float:
    """Gives rows a second of the driver alone."""
    text = connection_string(
        find_driver("auto"), server="127.0.0.1", port=peer.port, database=DATABASE, user=USER, password=PASSWORD,
        encrypt=False, trust=True,
    )  # fmt: skip
    fetched = 0
    began = time.perf_counter()
    with closing(pyodbc.connect(text, autocommit=True)) as db, closing(db.cursor()) as cursor:
        cursor.execute(f"SELECT {', '.join(COLUMNS)} FROM {TABLE} ORDER BY at")
        while rows := cursor.fetchmany(AT_ONCE):
            fetched += len(rows)
    took = time.perf_counter() - began
    if fetched != count:
        raise RuntimeError(f"{fetched} rows of {count}")
    return count / took


def imports(*, quick: bool) -> Figure:
    count, rounds = (60_000, 3) if quick else (300_000, 5)
    with tempfile.TemporaryDirectory() as made, serving(Path(made)) as peer, daemon(Path(made) / "data") as running:
        fill(peer, count)
        login = {"server": "127.0.0.1", "port": peer.port, "database": DATABASE, "user": USER, "password": PASSWORD}
        body = orjson.dumps({"config": login | {"encrypt": False}})
        auth = running.call("POST", "/v2/auth/azure/azure_sql", body)["id"]
        figure = Figure("SQL import, rows durable, to the bare driver that fetches them", "rows/s", "least", 0.4)
        return alternate(figure, lambda: ours(running, auth, count), lambda: bare(peer, count), rounds)


if __name__ == "__main__":
    found = imports(quick="--quick" in sys.argv)
    print(found.show(), flush=True)
    sys.exit(0 if found.met else 1)
