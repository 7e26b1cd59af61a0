"""Events out of the log into a blob, gzip, beside the same two passes bare: SQLite, orjson, csv, zlib, the SDK.

`python bench_azure_events.py [--quick]`: a real daemon and Azurite; memory is the daemon's, looked at all the while.
"""

from __future__ import annotations

import base64
import csv
import io
import sqlite3
import sys
import tempfile
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import orjson
import workload
from azure.storage.blob import BlobBlock, BlobServiceClient
from figures import Figure
from running import Daemon, daemon

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from azurite import Azurite, azurite

BLOCK_BYTES = 4 * 1024 * 1024
HEAD = ("_stream", "_event_at", "_received_at")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def fill(ours: Daemon, count: int) -> None:
    """Posts so many events."""
    lines = workload.lines(min(count, 200_000), 20_000)
    for _ in range(count // len(lines)):
        ours.call("POST", "/collect/bulk/orders", b"\n".join(lines))
    ours.settle()


class Memory:
    """Looks at the memory of a process while the block runs; `highest` in bytes."""

    def __init__(self, of: Daemon) -> None:
        self._of = of
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.highest = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.highest = max(self.highest, self._of.memory_bytes())


def exported(ours: Daemon, auth: str, container: str, number: int) -> None:
    """Lets the daemon export everything, once."""
    config = {"container": container, "streams": ["orders"], "filename": f"ours-{number}", "compression": "gzip"}
    body = {"label": "bench", "auth_id": auth, "config": config}
    job = ours.call("POST", "/v2/job/azure_blob_export_events", orjson.dumps(body))["id"]
    while (found := ours.call("GET", f"/v2/job/{job}"))["state"] == "running":
        time.sleep(0.05)
    assert found["state"] == "completed", found


def bare(path: Path, container: str, store: Azurite, number: int) -> None:
    """Does the same without us: one pass for the columns, one to write."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    client = BlobServiceClient.from_connection_string(store.connection_string)
    blob = client.get_blob_client(container, f"bare-{number}.csv.gz")
    columns: dict[str, None] = {}
    for (body,) in db.execute("SELECT body FROM event_bulk ORDER BY position"):
        columns.update(dict.fromkeys(orjson.loads(body)))
    names = sorted(columns)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*HEAD, *names))
    packer = zlib.compressobj(wbits=31)
    buffer = bytearray()
    blocks: list[BlobBlock] = []

    def stage() -> None:
        block = base64.b64encode(b"%06d" % len(blocks)).decode()
        blob.stage_block(block, bytes(buffer))
        blocks.append(BlobBlock(block))
        buffer.clear()

    rows = db.execute("SELECT received_us, stream, event_us, body FROM event_bulk ORDER BY position")
    while page := rows.fetchmany(2000):
        for received_us, stream, event_us, body in page:
            event = orjson.loads(body)
            head = (stream, moment(event_us), moment(received_us))
            writer.writerow((*head, *[event.get(name, "") for name in names]))
        buffer += packer.compress(text.getvalue().encode())
        text.seek(0)
        text.truncate()
        if len(buffer) >= BLOCK_BYTES:
            stage()
    buffer += packer.flush()
    stage()
    blob.commit_block_list(blocks)
    client.close()
    db.close()


def moment(at_us: int) -> str:
    return (EPOCH + timedelta(microseconds=at_us)).isoformat().replace("+00:00", "Z")


def events(*, quick: bool) -> list[Figure]:
    count, times = (200_000, 3) if quick else (2_000_000, 3)
    figure = Figure(f"event export to a blob, {count:,} events, gzip", "events/s", "least", 0.5)
    memory = Figure(f"memory of the daemon during the export of {count:,} events", "MB", "most", 200)
    with (
        tempfile.TemporaryDirectory() as folder,
        azurite(Path(folder) / "azurite") as store,
        daemon(Path(folder) / "d") as ours,
    ):
        store.create("bench")
        fill(ours, count)
        config = {"label": "bench", "config": {"connection_string": store.connection_string}}
        auth = ours.call("POST", "/v2/auth/azure/azure_storage", orjson.dumps(config))["id"]
        for number in range(times):
            began = time.perf_counter()
            bare(ours.data_dir / "events.db", "bench", store, number)
            figure.floor.append(count / (time.perf_counter() - began))
            began = time.perf_counter()
            with Memory(ours) as seen:
                exported(ours, auth, "bench", number)
            figure.ours.append(count / (time.perf_counter() - began))
            memory.ours.append(seen.highest / 1e6)
            same(store, number)
    return [figure, memory]


def same(store: Azurite, number: int) -> None:
    """Sees to it that both wrote the same number of rows of the same width."""
    counts = []
    with BlobServiceClient.from_connection_string(store.connection_string) as client:
        for who in ("bare", "ours"):
            unpacker = zlib.decompressobj(31)
            found = [0, 0]
            for chunk in client.get_blob_client("bench", f"{who}-{number}.csv.gz").download_blob().chunks():
                text = unpacker.decompress(chunk)
                found = [found[0] + text.count(b"\n"), found[1] + text.count(b",")]
            counts.append(found)
    assert counts[0] == counts[1], counts


def main() -> None:
    for figure in events(quick="--quick" in sys.argv):
        print(figure.show(), flush=True)


if __name__ == "__main__":
    main()
