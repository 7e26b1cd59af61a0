"""An audience's members into a blob, beside the bare work: SELECT, orjson, and the SDK's `upload_blob`.

`python bench_azure_audience.py [--quick]`: a real daemon, Azurite on the same host, the query's ten fields, one file.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import state
import workload
from azure.storage.blob import BlobServiceClient
from figures import Figure, alternate
from running import Daemon, daemon

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from azurite import azurite

#: All fields of the query; what cohortd adds to them is left out, as the bare work has none of it.
FIELDS = (
    "customer_id", "email", "country", "spent", "cds", "orders", "last_purchase", "first_purchase", "genres",
    "channels",
)  # fmt: skip
MEMBERS = """SELECT p.body FROM membership AS m JOIN profile AS p ON p.id = m.profile_id
    WHERE m.member = 1 ORDER BY m.profile_id"""


def prepared(data_dir: Path, count: int) -> None:
    """Leaves a closed daemon's files with so many members of one audience."""
    with daemon(data_dir) as made:
        made.define((workload.QUERY,), ())
    state.fill(data_dir, count=count)


def fill(running: Daemon, count: int) -> None:
    """Makes an audience of all profiles, and waits until they are in it."""
    running.define((), ("FILTER EXISTS customer_id FROM user ALIAS everybody",))
    while running.call("GET", "/api/segment/everybody")["size"] < count:
        time.sleep(0.1)


def bare(data_dir: Path, store: Any, container: str, count: int) -> float:
    """Does the work without cohortd; gives profiles a second."""
    started = time.perf_counter()
    with (
        closing(sqlite3.connect(f"file:{data_dir / 'state.db'}?mode=ro", uri=True)) as db,
        BlobServiceClient.from_connection_string(store.connection_string) as client,
    ):
        lines = [orjson.dumps(orjson.loads(body)) + b"\n" for (body,) in db.execute(MEMBERS)]
        client.get_blob_client(container, "bare").upload_blob(b"".join(lines), overwrite=True)
    took = time.perf_counter() - started
    assert len(lines) == count
    return count / took


def ours(running: Daemon, auth: str, container: str, count: int) -> float:
    """Lets the daemon export the audience; gives profiles a second."""
    config = {"audiences": ["everybody"], "container": container, "one_time": True, "user_fields": FIELDS}
    body = {"label": "bench", "auth_id": auth, "config": config}
    started = time.perf_counter()
    job = running.call("POST", "/v2/job/azure_blob_export_audience_json", orjson.dumps(body))["id"]
    while (found := running.call("GET", f"/v2/job/{job}"))["state"] == "running":
        time.sleep(0.02)
    took = time.perf_counter() - started
    assert found["state"] == "completed", found
    return count / took


def exported(*, quick: bool) -> Figure:
    """Measures both in turn."""
    count, times = (50_000, 3) if quick else (500_000, 3)
    figure = Figure(f"{count:,} profiles of an audience to a blob", "profiles/s", "least", 0.4)
    with tempfile.TemporaryDirectory() as folder, azurite(Path(folder) / "store") as store:
        data_dir = Path(folder) / "d"
        prepared(data_dir, count)
        store.create("bench")
        with daemon(data_dir) as running:
            fill(running, count)
            body = {"label": "bench", "config": {"connection_string": store.connection_string}}
            auth = running.call("POST", "/v2/auth/azure/azure_storage", orjson.dumps(body))["id"]
            alternate(
                figure,
                lambda: ours(running, auth, "bench", count),
                lambda: bare(data_dir, store, "bench", count),
                times,
            )
            figure.note = f"the daemon's memory afterwards: {running.memory_bytes() / 1e6:.0f} MB"
    return figure


if __name__ == "__main__":
    measured = exported(quick="--quick" in sys.argv)
    print(measured.show(), flush=True)
    sys.exit(not measured.met)
