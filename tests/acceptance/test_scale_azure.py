"""What is too large for `make test` of Azure: ten million rows of a blob."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from azure.storage.blob import BlobClient
from azurite import azurite

BENCH = Path(__file__).parents[1] / "bench"
ROWS = 10_000_000
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
