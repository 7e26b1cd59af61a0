"""Compares an import of many rows with one of the day before, as the daemon does, and tells what that took.

Run by `test_scale.py` in a process of its own: `compare.py FOLDER ROWS`; a line of JSON on standard output.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from connectors.sdk.declare import Import
from daemon.jobs.imports import _Difference
from daemon.store.differences import Differences

CONFIG = Import(stream="people")
ROWS = 1000
CHANGED_EVERY = 100_000


async def imported(path: Path, name: str, count: int, shift: int) -> int:
    """Imports `count` rows, of which every CHANGED_EVERY-th one depends on `shift`; gives how many were changed."""
    changed = 0
    async with Differences.open(path, name) as found:
        difference = _Difference(found, lambda row: row)
        for start in range(0, count, ROWS):
            rows = [
                {"id": str(n), "email": f"person{n}@example.org", "v": str(shift if n % CHANGED_EVERY == 0 else 0)}
                for n in range(start, min(start + ROWS, count))
            ]
            changed += len(await difference.changed(rows))
        await difference.complete()
    return changed


async def main() -> None:
    path, count = Path(sys.argv[1]) / "d.db", int(sys.argv[2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    first = await imported(path, "1", count, 0)
    middle = time.perf_counter()
    second = await imported(path, "2", count, 1)
    print(
        json.dumps(
            {
                "first": first,
                "second": second,
                "first_s": round(middle - began, 1),
                "second_s": round(time.perf_counter() - middle, 1),
                "grown_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
                "disk_bytes": sum(each.stat().st_size for each in path.parent.iterdir()),
            }
        )
    )


asyncio.run(main())
