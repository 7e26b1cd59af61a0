"""`cohortd filter test`, `expr test`, `query test` and `schedule test`: a JSON object a line in, one a line out.

They need no daemon and no data directory; a line without "now" takes the clock's. A line is answered before the next
is read, so a program can talk to them. The status is 0 when every line was answered, also where an answer holds an
error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
import orjson

from daemon import clock

#: 64-bit integers pass orjson whole; larger ones must not turn into floats on the way.
Row = Callable[[dict[str, Any]], dict[str, Any]]


@click.command()
def filter_test() -> None:
    """Evaluate {"filter", "profile", "kinds", "includes", "now"} lines."""
    from streams.ql.rows import filter_row  #  (the languages take a while to import)

    _answer(filter_row, {"match": False, "ok": False, "boundary": None})


@click.command()
def expr_test() -> None:
    """Evaluate {"expr", "data", "kinds", "now"} lines."""
    from streams.ql.rows import expr_row

    _answer(expr_row, {"value": None, "kind": "nil", "ok": False})


@click.command()
def query_test() -> None:
    """Map {"query", "events", "now"} lines to profiles."""
    from streams.query_rows import query_row

    _answer(query_row, {"profiles": []})


@click.command()
def schedule_test() -> None:
    """Give the runs of {"schedule", "after", "count"} lines."""
    from daemon.cli.schedule_rows import schedule_row

    _answer(schedule_row, {"runs": []})


def _answer(row: Row, refused: dict[str, Any]) -> None:
    answered = True
    for line in sys.stdin.buffer:
        if not line.strip():
            continue
        try:
            given = orjson.loads(line)
            if isinstance(given, dict):
                if given.get("now") is None:
                    given["now"] = clock.now().isoformat()
                answer = row(given)
            else:
                answer = refused | {"error": "each line is a JSON object"}
            written = orjson.dumps(answer)
        except orjson.JSONDecodeError as error:
            written = orjson.dumps(refused | {"error": f"not JSON: {error}"})
        except Exception as error:  # noqa: BLE001  (a mistake of ours must not cost the answers to the lines after)
            written = orjson.dumps(refused | {"error": f"cohortd failed: {type(error).__name__}: {error}"})
            answered = False
        sys.stdout.buffer.write(written + b"\n")
        sys.stdout.buffer.flush()
    if not answered:
        raise SystemExit(1)
