"""What is too large for `make test` of Azure: ten million rows of a blob, and containers of 100,000 blobs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from azure.storage.blob import BlobClient
from azure.storage.blob.aio import ContainerClient
from azurite import azurite
from import_sink import Sink, run_of

from connectors.azure.choices import find_files
from connectors.azure.imports import AzureBlobImport, run
from connectors.azure.storage import StorageCredentials
from connectors.sdk.declare import Choosing
from connectors.sdk.run import Network

BENCH = Path(__file__).parents[1] / "bench"
ROWS = 10_000_000
BLOBS = 100_000
#: Beside what a daemon takes anyway; all hashes of the rows would be more than this.
MOST_GROWN_BYTES = 120_000_000


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmarks' way of running daemons."""
    monkeypatch.syspath_prepend(str(BENCH))
    import running  # noqa: PLC0415  (a script's module, found by its folder)

    yield running
    sys.modules.pop("running", None)


def rows(changed: range) -> Iterator[bytes]:
    yield b"id,name\n"
    for start in range(0, ROWS, 10_000):
        yield b"".join(
            b"%d,name %d%s\n" % (n, n, b" changed" if n in changed else b"") for n in range(start, start + 10_000)
        )


@pytest.mark.scale
@pytest.mark.timeout(3600)
def test_ten_million_rows_of_a_blob_and_then_what_changed_in_bounded_memory(tmp_path: Path, running: Any) -> None:
    with azurite(tmp_path / "azurite") as store, running.daemon(tmp_path / "data") as daemon:
        store.create("box")
        config: dict[str, Any] = {"config": {"connection_string": store.connection_string}}
        auth = daemon.call("POST", "/v2/auth/azure/azure_storage", orjson.dumps(config))["id"]
        before = daemon.memory_bytes()
        seen = []
        config = {"stream": "people", "container": "box", "file": "rows.csv", "diff": True}
        job = {"label": "all", "auth_id": auth, "config": config, "schedule": {"frequency": "daily"}}
        found: list[int] = []
        for changed in (range(0), range(5_000_000, 5_000_100)):
            with BlobClient.from_connection_string(store.connection_string, "box", "rows.csv") as client:
                client.upload_blob(rows(changed), overwrite=True)
            if not found:
                made = daemon.call("POST", "/v2/job/azure_blob_import", orjson.dumps(job))["id"]
            else:
                daemon.call("POST", f"/v2/job/{made}/run")
            while (now := daemon.call("GET", f"/v2/job/{made}"))["state"] != "sleeping" or now["runs"] <= len(found):
                assert not now["errors"], now["reason"]
                seen.append(daemon.memory_bytes())
                time.sleep(0.25)  # between two looks at the memory
            found.append(daemon.call("GET", f"/v2/job/{made}/metrics")["added"])

    assert [ROWS, ROWS + 100] == found
    assert max(seen) - before < MOST_GROWN_BYTES, f"{max(seen) - before:,} bytes"


@pytest.mark.scale
@pytest.mark.timeout(1800)
async def test_among_100_000_blobs_a_file_is_chosen_and_the_next_ones_are_taken_in_order(tmp_path: Path) -> None:
    names = [
        f"in/p{n % 7}-{2000 + n // 10_000}{n // 100 % 12 + 1:02d}{n % 28 + 1:02d}.{n:06d}.csv" for n in range(BLOBS)
    ]
    wanted = [f"late/orders-202601{day:02d}.csv" for day in range(1, 29)]
    with azurite(tmp_path / "azurite", memory=True) as store:
        store.create("box")
        async with ContainerClient.from_connection_string(store.connection_string, "box") as client:
            left = iter(names)

            async def put() -> None:
                for name in left:
                    await client.upload_blob(name, b"id\n1\n")

            await asyncio.gather(*(put() for _ in range(32)))
        for day, name in enumerate(reversed(wanted)):
            store.put("box", name, b"id\n%d\n" % (len(wanted) - day))
        auth = StorageCredentials.model_validate({"connection_string": store.connection_string})
        choosing = Choosing(
            auth, {"container": "box"}, "orders", 50, Network(30), structlog.get_logger(), {}, lambda: 0
        )
        began = time.monotonic()
        chosen = {each.value for each in await find_files(choosing)}
        took_s = time.monotonic() - began
        sink = Sink()
        config = AzureBlobImport(stream="s", container="box", prefix=r"la\w+/orders-", regex=True)
        await run(run_of(config, sink, tmp_path, auth=auth))

    assert set(wanted) == chosen
    assert took_s < 60
    assert [str(day) for day in range(1, 29)] == [row["id"] for row in sink.rows]
