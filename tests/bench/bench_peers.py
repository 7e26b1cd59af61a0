"""Beside others: bytewax for membership work, dlt for taking in a CSV.

Needs the environment that `make bench-peers` sets up.

`python bench_peers.py PYTHON [--quick]`, where PYTHON has bytewax and dlt.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import workload
from figures import Figure, alternate
from running import HERE, daemon

COPIES = 3


def bytewax(python: str, *, quick: bool) -> Figure:
    """Membership work from the posted bytes to durable transitions, against bytewax with recovery each second."""
    events, times = (50_000, 2) if quick else (200_000, 5)
    figure = Figure("membership work beside bytewax (recovery each second)", "events/s", "least", 0.5)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "events.ndjson"
        source.write_bytes(b"\n".join(workload.lines(events, 20_000)) + b"\n")
        body = source.read_bytes()

        def theirs() -> float:
            with tempfile.TemporaryDirectory() as work:
                recovery = Path(work) / "recovery"
                recovery.mkdir()
                subprocess.run([python, "-m", "bytewax.recovery", recovery, "1"], check=True)
                environment = {**os.environ, "EVENTS": str(source), "MOVES": f"{work}/moves"}
                flow = [python, "-m", "bytewax.run", "bytewax_flow", "-r", recovery, "-s", "1", "-b", "0"]
                started = time.perf_counter()
                subprocess.run(flow, check=True, cwd=HERE / "peers", env=environment)
                return events / (time.perf_counter() - started)

        def ours() -> float:
            with tempfile.TemporaryDirectory() as work, daemon(Path(work) / "d") as running:
                running.define((workload.QUERY,), workload.AUDIENCES)
                started = time.perf_counter()
                running.call("POST", "/collect/bulk/orders", body)
                running.settle()
                return events / (time.perf_counter() - started)

        figure.note = "theirs with the start of its process, ours with HTTP, the log and identities"
        return alternate(figure, ours, theirs, times)


def dlt(python: str, *, quick: bool) -> Figure:
    """Rows of CDNOW taken in durably, against dlt appending them to SQLite."""
    times = 2 if quick else 5
    original = (HERE.parent / "data" / "cdnow.csv").read_text(encoding="utf-8")
    header, _, rows = original.partition("\n")
    content = (header + "\n" + rows * (1 if quick else COPIES)).encode()
    count = sum(1 for _ in csv.reader(io.StringIO(content.decode()))) - 1
    figure = Figure(f"{count:,} CSV rows beside dlt appending to SQLite", "rows/s", "least", 3.0)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.csv"
        source.write_bytes(content)

        def theirs() -> float:
            with tempfile.TemporaryDirectory() as work:
                command = [python, HERE / "peers" / "dlt_import.py", source, work]
                done = subprocess.run(command, check=True, capture_output=True)
                rate, rows_stored = done.stdout.decode().split()[-2:]
                assert int(rows_stored) == count, done.stdout
                return float(rate)

        def ours() -> float:
            with tempfile.TemporaryDirectory() as work, daemon(Path(work) / "d") as running:
                started = time.perf_counter()
                running._request("POST", "/collect/bulk/cdnow", content)
                return count / (time.perf_counter() - started)

        return alternate(figure, ours, theirs, times)


def main() -> None:
    python, quick = sys.argv[1], "--quick" in sys.argv
    for figure in (bytewax(python, quick=quick), dlt(python, quick=quick)):
        print(figure.show(), flush=True)


if __name__ == "__main__":
    main()
