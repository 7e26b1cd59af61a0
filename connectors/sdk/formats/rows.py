"""Rows into text: CSV with fixed columns, and NDJSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import urlencode

import orjson

#: Below this every whole number is exact as a float.
_EXACT: Final = 2.0**53
#: What the writer of the standard library writes as we do.
_AS_THEY_ARE: Final = frozenset({str, int, type(None)})


def flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Gives a row without objects in it: what is nested has its names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


class CsvText:
    """Makes lines of CSV with the same columns throughout; a field without a column is left out.

    `join` stands between the elements of a list; without one a list is written as JSON. Objects are URL-encoded
    (`a=1&b=2`), or written as JSON.
    """

    def __init__(
        self, columns: Sequence[str], *, delimiter: str = ",", join: str | None = None, maps: Literal["url", "json"]
    ) -> None:
        self.columns = tuple(columns)
        self._join = join
        self._maps = maps
        self._sink = io.StringIO(newline="")
        self._writer = csv.writer(self._sink, delimiter=delimiter, lineterminator="\n")

    def header(self) -> bytes:
        """Gives the line of the columns' names."""
        return self._line(self.columns)

    def row(self, fields: Mapping[str, Any]) -> bytes:
        """Gives the line (or lines, where values have line ends) of one row."""
        return self._line([self._cell(fields.get(name)) for name in self.columns])

    def lines(self, rows: Iterable[Sequence[Any]]) -> bytes:
        """Gives the lines of many rows, of each the values in the order of the columns."""
        cell = self._cell
        self._writer.writerows(
            [value if type(value) in _AS_THEY_ARE else cell(value) for value in values] for values in rows
        )
        return self._taken()

    def _line(self, cells: Iterable[str]) -> bytes:
        self._writer.writerow(cells)
        return self._taken()

    def _taken(self) -> bytes:
        text = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return text.encode("utf-8", "backslashreplace")

    def _cell(self, value: Any) -> str:
        if type(value) is float and not value.is_integer():
            return str(value)
        match value:
            case None:
                return ""
            case str():
                return value
            case bool():
                return "true" if value else "false"
            case float() if value.is_integer() and abs(value) < _EXACT:
                return str(int(value))
            case int() | float():
                return str(value)
            case list() if self._join is not None:
                return self._join.join(self._cell(each) for each in value)
            case dict() if self._maps == "url":
                return urlencode({name: self._cell(each) for name, each in value.items()})
            case _:
                return orjson.dumps(value, default=str).decode()


def json_line(fields: Mapping[str, Any]) -> bytes:
    """Gives a row as one line of JSON."""
    return orjson.dumps(fields, default=str, option=orjson.OPT_APPEND_NEWLINE)
