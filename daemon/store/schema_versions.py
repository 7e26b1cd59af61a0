"""Versions of the schema: the decisions of the history that changed the queries, numbered from 1.

Nothing is stored beside the history, so the versions and what a replay plays cannot part. Version 0 is the schema
before the first query.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final, NamedTuple

import orjson

from daemon.store.definitions import QueryRow

# As in the index `history_schema`, letter for letter: only then is it used.
_KINDS: Final = "kind IN ('query', 'query_deleted', 'revert')"
COUNT: Final = f"SELECT count(*) FROM history WHERE {_KINDS}"  # noqa: S608  (a constant)
#: `number` counts the rows before, over the index alone.
PAGE: Final = f"""SELECT number, sequence, at_us, kind, body FROM history JOIN (
        SELECT row_number() OVER (ORDER BY sequence) AS number, sequence AS place FROM history WHERE {_KINDS})
    ON place = sequence WHERE number < ? ORDER BY number DESC LIMIT ?"""  # noqa: S608  (a constant)
FIRST: Final = f"SELECT kind, body FROM history WHERE {_KINDS} ORDER BY sequence LIMIT ?"  # noqa: S608  (a constant)


class SchemaVersion(NamedTuple):
    """A version: when and by what it came to be. `sequence` is its decision's number in the history.

    `stored` and `deleted` are the aliases that it changed; `reverted_to` is the version that a revert went back to.
    """

    number: int
    sequence: int
    at_us: int
    cause: str
    description: str
    stored: tuple[str, ...]
    deleted: tuple[str, ...]
    reverted_to: int | None


def newest(db: sqlite3.Connection) -> int:
    """Gives the number of the version that holds; 0 when there never was a query."""
    return int(db.execute(COUNT).fetchone()[0])


def page(db: sqlite3.Connection, below: int, limit: int) -> list[SchemaVersion]:
    """Gives up to `limit` versions with numbers below `below`, the newest first."""
    return [_version(*row) for row in db.execute(PAGE, (below, limit)).fetchall()]


def queries_of(db: sqlite3.Connection, number: int) -> list[QueryRow] | None:
    """Gives the queries of a version in their lasting order; None when there is no such version."""
    if number < 0:
        return None
    queries: dict[str, QueryRow] = {}
    seen = 0
    for kind, body in db.execute(FIRST, (number,)):
        decided(queries, kind, orjson.loads(body))
        seen += 1
    return in_order(queries) if seen == number else None


def decided(queries: dict[str, QueryRow], kind: str, body: dict[str, Any]) -> None:
    """Makes a decision of the history hold over `queries`; one that is not about queries changes nothing."""
    match kind:
        case "revert":
            queries.clear()
            queries.update((row["alias"], QueryRow(**row)) for row in body["queries"])
        case "query" if "queries" in body:
            queries.update((row["alias"], QueryRow(**row)) for row in body["queries"])
            for alias in body["deleted"]:
                del queries[alias]
        case "query":
            row = {name: body[name] for name in QueryRow._fields}
            queries[row["alias"]] = QueryRow(**row)
        case "query_deleted":
            del queries[body["alias"]]
        case _:
            pass


def in_order(queries: dict[str, QueryRow]) -> list[QueryRow]:
    """Gives queries in the order of their making, which ranks their identities."""
    return sorted(queries.values(), key=lambda row: (row.created_us, row.alias))


def _version(number: int, sequence: int, at_us: int, kind: str, text: str) -> SchemaVersion:
    body = orjson.loads(text)
    stored = tuple(row["alias"] for row in body["queries"]) if "queries" in body else ()
    deleted = tuple(body.get("deleted", ()))
    if kind == "query_deleted":
        deleted = (body["alias"],)
    elif kind == "query" and not stored and not deleted:
        stored = (body["alias"],)
    elif kind == "revert":
        stored = ()
    return SchemaVersion(
        number, sequence, at_us, kind, body.get("description", ""), stored, deleted, body.get("to")
    )  # fmt: skip
