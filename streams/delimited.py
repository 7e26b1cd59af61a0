"""Delimited text (CSV) into rows, and rows into events: values are text as written.

Quoting is strict (RFC 4180): a quote stands at both ends of a value or doubled within one, nowhere else. A row has as
many values as there are columns. Blank lines are nothing. A value in quotes may hold newlines; a refusal names the
first line of its row.
"""

from __future__ import annotations

import csv
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import orjson

from streams.event import (
    ID_KEY,
    TIME_KEY,
    Event,
    Refusal,
    RefusedError,
    Rules,
    accepted,
    event_id,
    event_time,
    sample,
)

#: Names that a delimiter may be given by.
DELIMITERS: Final = {"tab": "\t", "t": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}

# Values are bounded by the size of an event; the module's own bound would refuse some of them.
csv.field_size_limit(2**31 - 1)

T = TypeVar("T")

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class HeaderError(ValueError):
    """A header, or a parameter of the format, that cannot be used: nothing of the upload can be read."""


def delimiter_of(text: str) -> str:
    """Gives the delimiter that a parameter names: one character, or a name such as `tab`. Raises HeaderError."""
    found = DELIMITERS.get(text.lower(), text)
    if len(found) != 1 or found in '"\r\n\0':
        raise HeaderError(f"delimiter {text!r}: accepted are one character (no quote or newline) and {_names()}")
    return found


class RowCutter(ABC, Generic[T]):
    """Cuts lines that come in pieces into rows; who derives from it says what becomes of a row.

    `headers` None takes the first line. A row whose quotes are not closed within `longest` characters is refused. With
    `stop`, reading ends with the first refusal: what stands behind it is not looked at.
    """

    def __init__(
        self, *, delimiter: str = ",", headers: Sequence[str] | None = None, longest: int, stop: bool = False
    ) -> None:
        self.names: tuple[str, ...] = ()
        self._delimiter = delimiter
        self._longest = longest
        self._stop = stop
        self._held: list[str] = []
        value = f'(?>"(?:[^"]++|"")*+"|[^"{re.escape(delimiter)}\r\n]*+)'
        row = f"{value}(?:{re.escape(delimiter)}{value})*+\r?"
        self._rows = re.compile(f"{row}(?:\n{row})*+")
        if headers is not None:
            self._set_names(headers)

    @property
    def held_bytes(self) -> int:
        """The bytes of the lines that were read and wait for the end of their row, line ends included."""
        return sum(len(line.encode("utf-8", "surrogateescape")) + 1 for line in self._held)

    @abstractmethod
    def take(self, rows: Iterable[tuple[list[str], str]], first: int, found: list[T], refusals: list[Refusal]) -> None:
        """Takes rows of as many lines, of which the first has the number `first`, each with its line's text.

        What a row gives is added to `found`, a row that cannot be used to `refusals`.
        """

    @abstractmethod
    def check_names(self, names: Sequence[str]) -> None:
        """Raises HeaderError for names, all different, that rows cannot be used with."""

    def cut(self, lines: Sequence[bytes], first: int) -> tuple[list[T], list[Refusal]]:
        """Reads lines, of which the first has the number `first`; the last row may wait for the lines that follow.

        Raises HeaderError for a header that cannot be used.
        """
        found: list[T] = []
        refusals: list[Refusal] = []
        if not lines:
            return found, refusals
        plain = not self._held
        try:
            text = b"\n".join(lines).decode()
        except UnicodeDecodeError:
            text = b"\n".join(lines).decode("utf-8", "surrogateescape")
            plain = False
        if plain and "\r" in text and '"' not in text:
            text = text.replace("\r\n", "\n").removesuffix("\r")
        rows = text.split("\n")
        if not self.names:
            while rows and not rows[0].strip():
                rows, first = rows[1:], first + 1
            if not rows:
                return found, refusals
            self._set_names(self._header(rows[0].removesuffix("\r")))
            rows, first = rows[1:], first + 1
        if plain and '"' not in text and "\r" not in text and "\0" not in text:
            self.take(((row.split(self._delimiter), row) for row in rows), first, found, refusals)
        else:
            first -= len(self._held)
            self._careful(self._held + rows, first, found, refusals)
        return found, refusals

    def rest(self, next_line: int) -> tuple[list[T], list[Refusal]]:
        """Reads what still waits, with `next_line` the number of the line that would have come next."""
        found: list[T] = []
        refusals: list[Refusal] = []
        while self._held and not (refusals and self._stop):
            held, self._held = self._held, []
            at = next_line - len(held)
            refusals.append(Refusal(at, "a quote is opened and never closed", sample(held[0])))
            if not self._stop:
                self._careful(held[1:], at + 1, found, refusals)
        return found, refusals

    def _careful(self, lines: list[str], first: int, found: list[T], refusals: list[Refusal]) -> None:
        """Reads lines that may have quotes, or be broken in any way."""
        self._held = []
        at = 0
        while at < len(lines) and not (refusals and self._stop):
            whole = _complete(lines, at)
            text = "\n".join(lines[at:whole])
            if whole > at and self._rows.fullmatch(text) and "\0" not in text and not _SURROGATE.search(text):
                self._batch(lines[at:whole], first + at, found, refusals)
                at = whole
                continue
            end = _row_end(lines, at)
            if end is None:
                if sum(map(len, lines[at:])) <= self._longest:
                    self._held = lines[at:]
                    return
                reason: str | None = f"a quote is not closed within {self._longest} bytes"
            else:
                reason = self._fault("\n".join(lines[at:end]))
            if reason is None:
                self._batch(lines[at : end or at + 1], first + at, found, refusals)
                at = end or at + 1
            else:
                # The next row is looked for on the next line, whatever the quotes say.
                refusals.append(Refusal(first + at, reason, sample(lines[at])))
                at += 1

    def _fault(self, row: str) -> str | None:
        if not self._rows.fullmatch(row):
            if '"' not in row:
                return "a carriage return stands within the line"
            return 'a quote stands within a value; write the value in quotes, and quotes within it doubled: "5"" pipe"'
        if "\0" in row:
            return "the row has the character NUL"
        if _SURROGATE.search(row):
            return "the row is not valid UTF-8"
        return None

    def _batch(self, lines: list[str], first: int, found: list[T], refusals: list[Refusal]) -> None:
        reader = csv.reader([line + "\n" for line in lines], delimiter=self._delimiter, strict=True)
        line = 1
        for row in reader:
            if row:
                self.take(((row, lines[line - 1]),), first + line - 1, found, refusals)
                if refusals and self._stop:
                    return
            line = reader.line_num + 1

    def _header(self, line: str) -> list[str]:
        if reason := self._fault(line):
            raise HeaderError(f"the header line cannot be read: {reason}")
        return next(csv.reader([line], delimiter=self._delimiter, strict=True))

    def _set_names(self, names: Sequence[str]) -> None:
        names = [name.strip() for name in names]
        for column, name in enumerate(names, 1):
            if not name:
                raise HeaderError(f"column {column} has no name")
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise HeaderError(f"column names that stand more than once: {', '.join(twice)}")
        self.check_names(names)
        self.names = tuple(names)


class Delimited(RowCutter[Event]):
    """Reads events; `append` is merged into every row and wins over a column of the same name."""

    def __init__(
        self,
        rules: Rules,
        *,
        delimiter: str = ",",
        headers: Sequence[str] | None = None,
        append: Mapping[str, Any] | None = None,
        stop: bool = False,
    ) -> None:
        self._rules = rules
        self._append = dict(append or {})
        self._received_us = 0
        super().__init__(delimiter=delimiter, headers=headers, longest=rules.event_bytes, stop=stop)

    def read(self, lines: Sequence[bytes], first: int, received_us: int) -> tuple[list[Event], list[Refusal]]:
        """Reads lines as `cut` does; `received_us` is the time of events that have none."""
        self._received_us = received_us
        return self.cut(lines, first)

    def end(self, next_line: int, received_us: int) -> tuple[list[Event], list[Refusal]]:
        """Reads what still waits, with `next_line` the number of the line that would have come next."""
        self._received_us = received_us
        return self.rest(next_line)

    def take(
        self, rows: Iterable[tuple[list[str], str]], first: int, found: list[Event], refusals: list[Refusal]
    ) -> None:
        """Makes events of rows."""
        names, rules, append, stop, received_us = self.names, self._rules, self._append, self._stop, self._received_us
        count, largest = len(names), rules.event_bytes
        dumps, accept = orjson.dumps, found.append
        timed = rules.timestamp_field is not None or TIME_KEY in names or TIME_KEY in append
        keyed = ID_KEY in names or ID_KEY in append
        for number, (row, line) in enumerate(rows, first):
            try:
                if len(row) != count or not line:
                    if len(row) == 1 and not line.strip():
                        continue
                    raise RefusedError(columns_differ(row, count))  # noqa: TRY301  (a call would cost more than the row)
                data: dict[str, Any] = dict(zip(names, row, strict=True))
                if append:
                    data.update(append)
                body = dumps(data)
                if len(body) > largest:
                    raise RefusedError(  # noqa: TRY301  (as above)
                        f"the event has {len(body)} bytes; at most {largest} are accepted"
                    )
                when = event_time(data, received_us, rules) if timed else received_us
                name = event_id(data, rules) if keyed else None
            except RefusedError as refusal:
                refusals.append(Refusal(number, str(refusal), sample(line)))
                if stop:
                    return
                continue
            accept(Event(when, name, body.decode(), data))

    def check_names(self, names: Sequence[str]) -> None:
        """Raises HeaderError where no row could become an event."""
        field = self._rules.timestamp_field
        if field is not None and field not in names and field not in self._append:
            raise HeaderError(f"timestamp_field {field!r} is not a column; the columns are {', '.join(names)}")
        # What is appended, and the number of columns, are judged once for all rows.
        data = dict.fromkeys(names, "") | self._append
        try:
            accepted(data, orjson.dumps(data), 0, self._rules)
        except RefusedError as refusal:
            raise HeaderError(f"the columns, with what is appended: {refusal}") from None


def columns_differ(row: Sequence[str], count: int) -> str:
    """Says that a row does not have as many values as there are columns."""
    return f"the row has {len(row)} values, there are {count} columns"


def _complete(lines: list[str], start: int) -> int:
    """Gives the end of the longest run of lines, from `start`, after which no quote is open."""
    odd, end = 0, start
    for index in range(start, len(lines)):
        odd ^= lines[index].count('"') & 1
        if not odd:
            end = index + 1
    return end


def _row_end(lines: list[str], start: int) -> int | None:
    odd = 0
    for index in range(start, len(lines)):
        odd ^= lines[index].count('"') & 1
        if not odd:
            return index + 1
    return None


def _names() -> str:
    return ", ".join(name for name in DELIMITERS if len(name) > 2)
