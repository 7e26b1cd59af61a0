"""Files of rows, CSV or NDJSON, read as they come: packed or not, of any encoding, from the start or from a mark.

A mark says behind which row a reader was. Offsets count bytes of the text as UTF-8, unpacked and without a byte order
mark, so that they mean the same for every packing; with the check sum of all before it a reader can tell whether what
it goes on in is still the same file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from connectors.sdk.formats.compression import Compression, Unpacking, unpacking_of
from connectors.sdk.formats.encodings import Transcoder, mark_of
from streams.delimited import HeaderError, RowCutter, columns_differ
from streams.event import Refusal, Rules, read_lines, sample
from streams.lines import Lines, slice_end

Form = Literal["csv", "ndjson"]

#: Rows, and about as many bytes, that are given at a time: as many as go into the log in one small transaction.
SLICE_ROWS: Final = 256
SLICE_BYTES: Final = 256 * 1024
#: The longest row, in bytes; what an event may have is judged where it becomes one.
LONGEST_ROW: Final = 1024 * 1024
#: The check sum of a text that could not be summed up (a line beyond all bounds stands in it).
UNSUMMED: Final = -1

_ROW_RULES: Final = Rules(event_bytes=LONGEST_ROW, depth=64, keys=20_000)
_LINE_END: Final = 1


class ChangedError(Exception):
    """What was read before is not what stands there now."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file's bytes are to be read. `columns` None: the first row of a CSV file has their names."""

    form: Form = "csv"
    compression: Compression = "none"
    encoding: str = "utf-8"
    delimiter: str = ","
    columns: tuple[str, ...] | None = None

    def place_of(self, mark: Mark, head: bytes) -> int | None:
        """Gives where in the file a mark is, None where that cannot be said; `head` is how the file begins, 4 bytes."""
        if self.compression != "none" or self.encoding != "utf-8":
            return None
        found = mark_of(head)
        if found is None:
            return mark.offset
        return mark.offset + len(found[0]) if found[1] == "utf-8" else None


class Mark(NamedTuple):
    """A place between two rows: see the module. `columns` are those of the header, empty where there is none."""

    offset: int = 0
    line: int = 1
    row: int = 0
    sum: int = 0
    columns: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Gives it as a JSON value."""
        return self._asdict() | {"columns": list(self.columns)}

    @staticmethod
    def of_json(value: Mapping[str, Any]) -> Mark:
        """Reads what `as_json` gave."""
        return Mark(value["offset"], value["line"], value["row"], value["sum"], tuple(value["columns"]))


#: The place before all rows.
START: Final = Mark()


class Rows(NamedTuple):
    """Some rows in order, with the numbers of their lines; what cannot be read; the place behind all of that.

    It may have no rows: then it only says how far the reader is, and gives its caller a turn.
    """

    rows: list[dict[str, Any]]
    lines: list[int]
    refusals: list[Refusal]
    mark: Mark


class TableReader:
    """Reads rows of the bytes that it is fed, which are the file's own, as they lie there.

    start: where to go on. It is fed the file from its beginning, and passes over what was read before; ChangedError
    when that is not the same any more. `sought`: it is fed from the mark's place on (`Shape.place_of`).

    Raises PackingError, EncodingError or HeaderError for a file that cannot be read; all are ValueErrors.
    """

    def __init__(self, shape: Shape, start: Mark | None = None, *, sought: bool = False) -> None:
        self._unpacking: Unpacking = unpacking_of(shape.compression)
        self._transcoder: Transcoder | None = None if sought else Transcoder(shape.encoding)
        self._start = start or START
        self._skip = 0 if sought else self._start.offset
        self._skipped_sum = 0
        self._sum = self._start.sum
        self._base = self._start.offset
        self._summed = 0
        self._row = self._start.row
        self._pending = bytearray()
        self._lines = Lines(LONGEST_ROW)
        self._lines.number = self._start.line
        self._records: _Delimited | _Json
        if shape.form == "csv":
            columns = self._start.columns or shape.columns
            self._records = _Delimited(delimiter=shape.delimiter, headers=columns, longest=LONGEST_ROW)
        else:
            self._records = _Json()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, as far as they are known by now; of NDJSON those met so far, some of them."""
        return self._records.names

    def feed(self, chunk: bytes) -> Iterator[Rows]:
        """Yields the rows that are whole by now. What it yields is to be taken before it is fed again."""
        for piece in self._unpacking.feed(chunk):
            text = piece if self._transcoder is None else self._transcoder.feed(piece)
            yield from self._text(text)

    def end(self) -> Iterator[Rows]:
        """Yields the last rows."""
        for piece in self._unpacking.end():
            yield from self._text(piece if self._transcoder is None else self._transcoder.feed(piece))
        if self._transcoder is not None:
            yield from self._text(self._transcoder.feed(b"", last=True))
        if self._skip:
            raise ChangedError("the file is shorter than what was read of it before")
        first = self._lines.number
        yield from self._slices(self._lines.end(), first)
        found, refusals = self._records.rest(self._lines.number)
        yield self._given(found, refusals)

    def _text(self, text: bytes) -> Iterator[Rows]:
        if self._skip:
            passed, text = text[: self._skip], text[self._skip :]
            self._skip -= len(passed)
            self._skipped_sum = zlib.crc32(passed, self._skipped_sum)
            if self._skip:
                yield Rows([], [], [], self._start)
                return
            if self._start.sum != self._skipped_sum:
                raise ChangedError("the file is not what was read of it before")
        if not text:
            return
        if self._sum != UNSUMMED:
            self._pending += text
        first = self._lines.number
        lines = self._lines.feed(text)
        if self._lines.skipping:
            self._sum, self._pending = UNSUMMED, bytearray()
        yield from self._slices(lines, first)

    def _slices(self, lines: list[bytes], first: int) -> Iterator[Rows]:
        at = 0
        # Of several slices only the last ends where `Lines` is; what stands behind is counted back.
        behind = sum(map(len, lines)) + len(lines) * _LINE_END
        exact = all(len(line) <= LONGEST_ROW for line in lines)
        while at < len(lines):
            end = slice_end(lines, at, SLICE_ROWS, SLICE_BYTES)
            piece = lines[at:end]
            found, refusals = self._records.cut(piece, first + at)
            behind -= sum(map(len, piece)) + len(piece) * _LINE_END
            at = end
            yield self._given(found, refusals, first + at, behind if exact or at == len(lines) else None)

    def _given(
        self, found: list[_Record], refusals: list[Refusal], next_line: int | None = None, behind: int | None = 0
    ) -> Rows:
        """Gives rows with the place behind them; of a slice within a line beyond all bounds, the place is not moved."""
        self._row += len(found) + len(refusals)
        if behind is not None:
            self._base_to(max(self._lines.consumed - behind, 0) - self._records.held_bytes)
        line = (self._lines.number if next_line is None else next_line) - self._records.held_lines
        mark = Mark(self._base, line, self._row, self._sum, self._records.names if self._records.named else ())
        return Rows([each[1] for each in found], [each[0] for each in found], refusals, mark)

    def _base_to(self, summed: int) -> None:
        moved = summed - self._summed
        if moved <= 0:
            return
        if self._sum != UNSUMMED:
            self._sum = zlib.crc32(memoryview(self._pending)[:moved], self._sum)
            del self._pending[:moved]
        self._summed = summed
        self._base = self._start.offset + summed


_Record = tuple[int, dict[str, Any]]


class _Delimited(RowCutter[_Record]):
    """Gives rows as objects of texts, with the numbers of their lines."""

    named = True

    @property
    def held_lines(self) -> int:
        return len(self._held)

    def take(
        self, rows: Iterable[tuple[list[str], str]], first: int, found: list[_Record], refusals: list[Refusal]
    ) -> None:
        """Makes objects of rows."""
        names = self.names
        count = len(names)
        for number, (row, line) in enumerate(rows, first):
            if len(row) == count and line:
                found.append((number, dict(zip(names, row, strict=True))))
            elif len(row) != 1 or line.strip():
                refusals.append(Refusal(number, columns_differ(row, count), sample(line)))

    def check_names(self, names: Sequence[str]) -> None:
        """Refuses names that no event could have."""
        if len(names) > _ROW_RULES.keys:
            raise HeaderError(f"the file has {len(names)} columns; at most {_ROW_RULES.keys} are accepted")
        if any("\0" in name for name in names):
            raise HeaderError("a column's name has the character NUL")


class _Json:
    """Gives the object of each line, with the line's number."""

    named = False
    held_bytes = 0
    held_lines = 0

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def cut(self, lines: Sequence[bytes], first: int) -> tuple[list[_Record], list[Refusal]]:
        events, refusals = read_lines(lines, first, 0, _ROW_RULES)
        if len(events) == len(lines):
            found = [(first + at, each.data) for at, each in enumerate(events)]
        else:  # some are blank or refused: which number is whose is found line by line
            found, refusals = [], []
            for number, line in enumerate(lines, first):
                events, refused = read_lines((line,), number, 0, _ROW_RULES)
                found += [(number, each.data) for each in events]
                refusals += refused
        if found and len(self._names) < _ROW_RULES.keys:
            self._names.update(dict.fromkeys(found[0][1]))
        return found, refusals

    def rest(self, next_line: int) -> tuple[list[_Record], list[Refusal]]:
        del next_line
        return [], []
