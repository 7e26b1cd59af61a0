"""The same CSV appended to SQLite by dlt: prints rows a second. Arguments: the CSV, the folder to work in."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"

import dlt

PAGE = 5_000


def main(source: str, folder: str) -> None:
    os.environ["DLT_DATA_DIR"] = folder

    @dlt.resource(name="events", write_disposition="append")
    def rows() -> Iterator[list[dict[str, str]]]:
        with Path(source).open(newline="", encoding="utf-8") as file:
            page: list[dict[str, str]] = []
            for row in csv.DictReader(file):
                page.append(row)
                if len(page) == PAGE:
                    yield page
                    page = []
            yield page

    destination = dlt.destinations.sqlalchemy(f"sqlite:///{folder}/events.db")
    pipeline = dlt.pipeline("bench", destination=destination, dataset_name="main", pipelines_dir=f"{folder}/pipelines")
    started = time.perf_counter()
    pipeline.run(rows())
    taken = time.perf_counter() - started
    with pipeline.sql_client() as client:
        ((count,),) = client.execute_sql("SELECT count(*) FROM events")
    print(f"{count / taken:.1f} {count}")


main(sys.argv[1], sys.argv[2])
