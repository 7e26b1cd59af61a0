"""A file of rows on this host, read in a thread, piece by piece, and watched for being replaced meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from connectors.sdk.formats.compression import GZIP_START, ZIP_STARTS, Compression
from connectors.sdk.formats.tables import Form, Mark, Rows, Shape, TableReader
from connectors.sdk.threads import Threaded

#: Bytes read at a time.
CHUNK_BYTES = 256 * 1024
_NDJSON = (".ndjson", ".jsonl", ".json")


class Identity(NamedTuple):
    """What tells one state of a file from another, without reading it."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Identity:
        """Takes it from what the system says of the file."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


class TouchedError(Exception):
    """The file is not as it was when it was opened: what was read so far must be compared with what is there now."""


def form_of(name: str) -> Form:
    """Says by a file's name, packings left out, what its rows are: NDJSON, else CSV."""
    lower = name.lower().removesuffix(".gz").removesuffix(".zip")
    return "ndjson" if lower.endswith(_NDJSON) else "csv"


def compression_of(head: bytes) -> Compression:
    """Says by a file's first bytes how it is packed."""
    if head.startswith(GZIP_START):
        return "gzip"
    return "zip" if head.startswith(ZIP_STARTS) else "none"


class Source:
    """One file, open. Make it with `open`; `end` closes it."""

    def __init__(self, path: Path, form: Form | Literal["auto"], encoding: str, delimiter: str) -> None:
        self._path = path
        self._form: Form = form_of(path.name) if form == "auto" else form
        self._encoding = encoding
        self._delimiter = delimiter
        self._threads = Threaded(self._close)
        self._file: BinaryIO | None = None
        self._reader: TableReader | None = None
        self._rows: Iterator[Rows] = iter(())
        self._ended = False
        self._touched = False
        self._proven = 0
        self.identity = Identity(0, 0, 0)

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, as far as they are known."""
        return () if self._reader is None else self._reader.columns

    @property
    def form(self) -> Form:
        """What its rows are."""
        return self._form

    async def open(self, mark: Mark, known: Identity | None, columns: tuple[str, ...] | None) -> None:
        """Opens the file, to go on behind `mark`; what was read before is compared unless it is as `known`.

        Raises OSError, and later ChangedError from `step`. columns: those of a CSV file without a header.
        """

        def begin() -> None:
            file = self._path.open("rb", buffering=0)
            self._file = file
            self.identity = Identity.of(os.fstat(file.fileno()))
            head = file.read(4) or b""
            shape = Shape(self._form, compression_of(head), self._encoding, self._delimiter, columns)
            place = shape.place_of(mark, head) if self.identity == known and mark.offset else None
            file.seek(place or 0)
            self._reader = TableReader(shape, mark, sought=place is not None)
            self._proven = mark.offset

        await self._threads.call(begin)

    async def step(self) -> Rows | None:
        """Gives some rows, None at the end of the file.

        Raises ChangedError where what stands there is not what was read before, TouchedError where that must be
        found out, ValueError for a file that cannot be read, OSError.
        """
        return await self._threads.call(self._step)

    def end(self) -> None:
        """Closes the file, now or when its thread comes back."""
        self._threads.end()

    def _step(self) -> Rows | None:
        assert self._file is not None  # noqa: S101  (opened before)
        assert self._reader is not None  # noqa: S101
        while True:
            rows = next(self._rows, None)
            if rows is not None:
                return rows
            if self._ended:
                return None
            chunk = self._file.read(CHUNK_BYTES) or b""
            self._look(at_end=not chunk)
            if not chunk:
                self._ended = True
            self._rows = self._reader.feed(chunk) if chunk else self._reader.end()

    def _look(self, *, at_end: bool) -> None:
        """Looks whether the file is still the same.

        One that is written to while it is read is compared each time that it has doubled, and at its end.
        """
        assert self._file is not None  # noqa: S101  (as above)
        try:
            found = Identity.of(self._path.stat())
        except FileNotFoundError:
            return  # what is open can be read to its end
        read = self._file.tell()
        if found != self.identity:
            gone = found.inode != self.identity.inode or found.size < read
            if gone or at_end or read >= 2 * max(self._proven, CHUNK_BYTES):
                raise TouchedError

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
