"""What is too large for `make test`: P6 with a backlog of a million events over a million profiles."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"
COUNT = 1_000_000
#: The backlog's memory bound is that of any other ingest; a tenth above the figure of `make bench`.
MOST_BYTES = 275_000_000


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmarks' ways of making large states and running daemons."""
    monkeypatch.syspath_prepend(str(BENCH))
    import running  # noqa: PLC0415  (a script's module, found by its folder)
    import state  # noqa: PLC0415
    import workload  # noqa: PLC0415

    yield type("Bench", (), {"running": running, "state": state, "workload": workload})
    for name in ("running", "state", "workload"):
        sys.modules.pop(name, None)


@pytest.mark.scale
@pytest.mark.timeout(1800)
def test_a_backlog_of_a_million_over_a_million_profiles_is_taken_in_with_flat_memory(
    tmp_path: Path, bench: Any
) -> None:
    data = tmp_path / "data"
    with bench.running.daemon(data) as daemon:
        daemon.define((bench.workload.QUERY,), bench.workload.AUDIENCES)
    bench.state.fill(data, count=COUNT, timers=100_000, backlog=COUNT)

    with bench.running.daemon(data) as daemon:
        ready_s = daemon.start_s
        seen = []
        while daemon.backlog():
            seen.append(daemon.memory_bytes())
            time.sleep(0.25)  # between two looks at the memory
        seen.append(daemon.memory_bytes())

        size = daemon.call("GET", "/api/segment/b03")["size"]

    assert ready_s < 10
    assert max(seen) < MOST_BYTES, f"{max(seen):,} bytes"
    assert size > 0


@pytest.mark.scale
@pytest.mark.timeout(3600)
def test_ten_million_rows_are_compared_with_those_of_the_day_before_in_bounded_memory(tmp_path: Path) -> None:
    script = Path(__file__).with_name("compare.py")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, script, tmp_path, "10000000"],
        check=True,
        capture_output=True,
        cwd=root,
        env={"PYTHONPATH": str(root)},
    )
    found = json.loads(done.stdout)

    assert (found["first"], found["second"]) == (10_000_000, 100)
    assert found["grown_bytes"] < 100_000_000, found
