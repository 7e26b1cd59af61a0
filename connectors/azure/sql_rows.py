"""Rows of a temporary table made into events, and known again when they were taken before.

What is made runs in the thread of the connection; `Piece` is what comes out of it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from connectors.azure.sql_columns import LONGEST_BYTES, Column
from connectors.sdk.imports import MOST_ROWS
from streams.event import Refusal, sample

#: Bytes after which rows are handed over though they are few, and rows fetched at a time where they may be long.
MOST_BYTES: Final = 8 * 1024 * 1024
FEW_ROWS: Final = 20
#: Rows of one timestamp whose hashes are kept; further ones get an event id, by which the log knows them again.
MOST_HASHES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the import is; it is the checkpoint."""

    at: str | None = None  # timestamp of the last row, as the server writes it; None before any, and of rows without
    taken: Mapping[str, int] = field(default_factory=dict)  # hashes of the rows taken that have it, and how often
    crowded: bool = False  # there are more of them than hashes are kept
    rows: int = 0  # ever imported

    def as_json(self) -> dict[str, Any]:
        """Gives it as a JSON value."""
        return {"at": self.at, "taken": dict(self.taken), "crowded": self.crowded, "rows": self.rows}


class Piece(NamedTuple):
    """Some rows to hand over, and where the import is behind them."""

    rows: list[dict[str, Any]]
    lines: list[int]
    refused: list[Refusal]
    progress: Progress
    read: int  # rows of the temporary table, those that were left out included


class Reader:
    """Makes events of rows, in the thread of the connection, and knows those again that were taken before."""

    def __init__(self, columns: Sequence[Column], progress: Progress, job: str) -> None:
        self._names = [each.name for each in columns]
        self._readers = [(each.name, each.reader) for each in columns if each.reader is not None]
        self._endless = {each.name: each.cut_at(LONGEST_BYTES) for each in columns if each.size < 0}
        longest = sum(each.size for each in columns)
        self._few = bool(self._endless) or longest * MOST_ROWS > MOST_BYTES
        self._job = job
        self._at = progress.at
        self._taken = dict(progress.taken)
        self._left_out = dict(progress.taken)  # what is still to be left out, as often as it was taken
        self._number = sum(self._taken.values())
        self._crowded = progress.crowded
        self._rows = progress.rows
        self._line = 0
        self._cursor: Any = None

    def first(self, cursor: Any) -> Piece | None:
        """Gives the first rows of a query, None when it has none."""
        self._cursor = cursor
        return self.next()

    def next(self) -> Piece | None:
        """Gives the following rows, None when there are no more."""
        raws = self._fetch()
        if not raws:
            return None
        rows: list[dict[str, Any]] = []
        lines: list[int] = []
        refused: list[Refusal] = []
        known = self._known(raws, rows, lines)
        behind = raws[known:]
        names = self._names
        rows += [
            dict(zip(names, raw, strict=False))
            if None not in raw
            else {name: value for name, value in zip(names, raw, strict=False) if value is not None}
            for raw in behind
        ]
        lines += range(self._line + known + 1, self._line + len(raws) + 1)
        self._read_values(rows[len(rows) - len(behind) :])
        if behind:
            self._remember(behind, rows)
        if self._endless:
            rows, lines, refused = self._bounded(rows, lines)
        self._line += len(raws)
        self._rows += len(rows)
        progress = Progress(self._at, dict(self._taken), self._crowded, self._rows)
        return Piece(rows, lines, refused, progress, len(raws))

    def _fetch(self) -> list[Any]:
        if not self._few:
            return list(self._cursor.fetchmany(MOST_ROWS))
        raws: list[Any] = []
        size = 0
        while len(raws) < MOST_ROWS and size < MOST_BYTES:
            some = self._cursor.fetchmany(FEW_ROWS)
            raws += some
            size += sum(len(value) for raw in some for value in raw if isinstance(value, str | bytes))
            if len(some) < FEW_ROWS:
                break
        return raws

    def _known(self, raws: Sequence[Any], rows: list[dict[str, Any]], lines: list[int]) -> int:
        """Goes through the rows at the beginning that have the timestamp of the last one; gives their number.

        Those that were taken before are left out.
        """
        for place, raw in enumerate(raws):
            if raw[-1] != self._at:
                return place
            row = {name: value for name, value in zip(self._names, raw, strict=False) if value is not None}
            self._read_values([row])
            mark = _hash(row)
            if self._left_out.get(mark, 0) > 0:
                self._left_out[mark] -= 1
                continue
            rows.append(row)
            lines.append(self._line + place + 1)
            self._mark(row, mark)
        return len(raws)

    def _remember(self, behind: Sequence[Any], rows: list[dict[str, Any]]) -> None:
        """Keeps the hashes of those of the rows that have the last one's timestamp."""
        self._at = behind[-1][-1]
        self._taken, self._left_out, self._number, self._crowded = {}, {}, 0, False
        first = len(behind)
        while first and behind[first - 1][-1] == self._at:
            first -= 1
        for row in rows[len(rows) - len(behind) + first :]:
            self._mark(row, _hash(row))

    def _mark(self, row: dict[str, Any], mark: str) -> None:
        if self._number < MOST_HASHES:
            self._taken[mark] = self._taken.get(mark, 0) + 1
            self._number += 1
            return
        self._crowded = True
        row.setdefault("_id", f"{self._job}/{self._at}/{mark}")

    def _read_values(self, rows: Sequence[dict[str, Any]]) -> None:
        for name, reader in self._readers:
            for row in rows:
                if name in row:
                    row[name] = reader(row[name])

    def _bounded(
        self, rows: list[dict[str, Any]], lines: list[int]
    ) -> tuple[list[dict[str, Any]], list[int], list[Refusal]]:
        """Refuses rows with a value that was cut."""
        kept: list[dict[str, Any]] = []
        places: list[int] = []
        refused: list[Refusal] = []
        for row, line in zip(rows, lines, strict=True):
            cut = next((name for name, most in self._endless.items() if _length(row.get(name)) >= most), None)
            if cut is None:
                kept.append(row)
                places.append(line)
            else:
                shown = sample(repr({name: value for name, value in row.items() if _length(value) < 1000}))
                refused.append(Refusal(line, f"{cut} is longer than {LONGEST_BYTES} bytes", shown))
        return kept, places, refused


def _length(value: object) -> int:
    return len(value) if isinstance(value, str) else 0


def _hash(row: Mapping[str, Any]) -> str:
    """Gives what tells a row from another: of its values that are not NULL."""
    digest = hashlib.blake2b(orjson.dumps(row, default=str), digest_size=8).digest()
    return base64.b64encode(digest).decode().rstrip("=")
