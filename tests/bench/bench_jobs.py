"""A list of 10,000 jobs: any page of it, beside the same page where these are all the jobs there are.

`python bench_jobs.py [--quick]`: two real daemons; pages from the start, the middle and the end, and filtered ones.
"""

from __future__ import annotations

import itertools
import sqlite3
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import orjson
from figures import Figure, alternate, quantile
from running import Daemon, daemon

JOBS, PAGE = 10_000, 100
STATES = ("paused", "completed", "failed")


def fill(data_dir: Path, count: int) -> None:
    """Leaves a state with so many jobs, made by copying one that the daemon made."""
    with daemon(data_dir) as made:
        made.define(
            ("SELECT user_id FROM web INTO user BY user_id ALIAS web",), ("FILTER EXISTS user_id ALIAS all_of_them",)
        )
        config = {"audiences": ["all_of_them"], "url": "http://127.0.0.1:9/hook"}
        body = {"label": "job 0", "description": "One of many", "config": config}
        job = made.call("POST", "/v2/job/webhook_triggers", orjson.dumps(body))
        made.call("POST", f"/v2/job/{job['id']}/pause")
    db = sqlite3.connect(data_dir / "state.db")
    columns = [row[1] for row in db.execute("PRAGMA table_info(job)")]
    own = {"id": "printf('%032x', value)", "label": "'job ' || value", "created_us": "created_us + value",
           "state": "CASE value % 3 WHEN 0 THEN 'paused' WHEN 1 THEN 'completed' ELSE 'failed' END"}  # fmt: skip
    chosen = ", ".join(own.get(column, column) for column in columns)
    db.execute(
        f"WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {count - 1})"
        f" INSERT INTO job ({', '.join(columns)}) SELECT {chosen} FROM job, n"
    )
    db.commit()
    db.close()


def starts(ours: Daemon) -> list[str]:
    """Gives where each page begins, by going through all of them."""
    found, start = [""], ""
    while start is not None:
        reply = orjson.loads(ours._request("GET", f"/v2/job?limit={PAGE}&start={start}")[1])
        start = urllib.parse.quote(reply["_next"]) if reply.get("_next") else None
        if start is not None and reply["data"]:
            found.append(start)
    return found


def timed(of: Daemon, paths: Iterator[str], times: int) -> float:
    """Gives the p95 of so many pages, in milliseconds."""
    took = []
    for path in itertools.islice(paths, times):
        began = time.perf_counter()
        of.call("GET", path)
        took.append(time.perf_counter() - began)
    return 1000 * quantile(took, 0.95)


def lists(*, quick: bool) -> list[Figure]:
    times, rounds = (40, 3) if quick else (200, 5)
    with tempfile.TemporaryDirectory() as folder:
        many, few = Path(folder) / "many", Path(folder) / "few"
        fill(many, JOBS)
        fill(few, PAGE)
        with daemon(many) as ours, daemon(few) as floor:
            pages = starts(ours)
            assert len(pages) >= JOBS // PAGE
            plain = itertools.cycle(f"/v2/job?limit={PAGE}&start={start}" for start in pages)
            asked = itertools.cycle(
                f"/v2/job?limit={PAGE}&{query}"
                for query in (*(f"state={each}" for each in STATES), "text=many", "text=99")
            )
            alone = itertools.repeat(f"/v2/job?limit={PAGE}")
            figures = []
            for name, paths in (("any page", plain), ("a filtered page", asked)):
                figure = Figure(f"p95 of {name} of {JOBS:,} jobs, to that of {PAGE} jobs in all", "ms", "most", 4.0)
                figures.append(
                    alternate(
                        figure,
                        lambda paths=paths: timed(ours, paths, times),
                        lambda: timed(floor, alone, times),
                        rounds,
                    )
                )
            return figures


if __name__ == "__main__":
    for each in lists(quick="--quick" in sys.argv):
        print(each.show(), flush=True)
        if not each.met:
            sys.exit(1)
