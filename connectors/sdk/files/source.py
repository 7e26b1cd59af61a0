"""A file of rows, read piece by piece and parsed in a thread; where it comes from is its shelf's business."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

from connectors.sdk.formats.compression import GZIP_START, ZIP_STARTS, Compression
from connectors.sdk.formats.delimiters import delimiter_of
from connectors.sdk.formats.names import reader
from connectors.sdk.formats.tables import START, ChangedError, Form, Mark, Rows, Shape, TableReader
from connectors.sdk.threads import Threaded

#: Bytes that are read of a file to say how it begins.
HEAD_BYTES = 4
#: Pieces of rows that are made in one go.
PIECES = 4
_NDJSON = (".ndjson", ".jsonl", ".json")
_PACKINGS = (".pgp", ".gpg", ".asc", ".gz", ".zip")

#: What tells one state of a file from another, without reading it; values of JSON, each store's own.
Identity = tuple[int | str, ...]


class TouchedError(Exception):
    """The file is not as it was when it was opened: what was read so far must be compared with what is there now."""


class Found(NamedTuple):
    """What a store says of a file: its identity, its size in bytes, and when it was written last (s since 1970)."""

    identity: Identity
    size: int
    modified_s: float


class Opened(Protocol):
    """The bytes of one file, as its rows lie in them (decrypted, packed). Its identity is that of its opening."""

    @property
    def identity(self) -> Identity:
        """What the file is told by."""

    @property
    def head(self) -> bytes:
        """How it begins: HEAD_BYTES, fewer only of a shorter file."""

    @property
    def seekable(self) -> bool:
        """Whether reading may begin anywhere."""

    def begin(self, at: int, compared: int) -> None:
        """Says from which byte on it is read (0 where it is not seekable), before the first `read`.

        compared: so many bytes from the file's beginning will have been compared with what was read before.
        """

    async def read(self) -> bytes:
        """Gives the next piece, nothing at the end.

        Raises TouchedError where the file is not the same any more, PackingError where it cannot be decrypted, and
        the contract's errors.
        """


class Shelf(Protocol):
    """A store's files under one roof. Errors are the contract's, or FileNotFoundError of a single file."""

    @property
    def where(self) -> str:
        """What it is called, in messages: "the folder /a/b"."""

    def pages(self, prefix: str) -> AsyncIterator[Sequence[str]]:
        """Yields the names of all files whose names begin so, in any order, in pages of a bounded size."""

    async def look(self, name: str) -> Found:
        """Looks at one file. Raises FileNotFoundError."""

    def open(self, name: str) -> AbstractAsyncContextManager[Opened]:
        """Opens one file. Raises FileNotFoundError."""


def form_of(name: str) -> Form:
    """Says by a file's name, packings left out, what its rows are: NDJSON, else CSV."""
    lower = name.lower()
    while lower.endswith(_PACKINGS):
        lower = lower[: lower.rindex(".")]
    return "ndjson" if lower.endswith(_NDJSON) else "csv"


def compression_of(head: bytes) -> Compression:
    """Says by a file's first bytes how it is packed."""
    if head.startswith(GZIP_START):
        return "gzip"
    return "zip" if head.startswith(ZIP_STARTS) else "none"


class Source:
    """The rows of one open file."""

    def __init__(self, name: str, form: Form | Literal["auto"], encoding: str, delimiter: str) -> None:
        self._name = name
        self._form: Form = form_of(name) if form == "auto" else form
        self._encoding = encoding
        self._delimiter = delimiter
        self._threads = Threaded(lambda: None)
        self._opened: Opened | None = None
        self._reader: TableReader | None = None
        self._rows: Iterator[Rows] = iter(())
        self._ready: deque[Rows] = deque()
        self._failed: Exception | None = None
        self._ended = False
        self.identity: Identity = ()

    @property
    def name(self) -> str:
        """The file's name."""
        return self._name

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, as far as they are known."""
        return () if self._reader is None else self._reader.columns

    @property
    def form(self) -> Form:
        """What its rows are."""
        return self._form

    def begin(self, opened: Opened, mark: Mark, known: Identity | None, columns: Sequence[str] | None) -> None:
        """Begins behind `mark`; what was read before is compared unless the file is as `known`.

        columns: those of a CSV file without a header. `step` raises ChangedError where another file is met.
        """
        self._opened = opened
        self.identity = opened.identity
        named = None if columns is None else tuple(columns)
        shape = Shape(self._form, compression_of(opened.head), self._encoding, self._delimiter, named)
        sought = opened.seekable and self.identity == known and mark.offset > 0
        place = shape.place_of(mark, opened.head) if sought else None
        opened.begin(place or 0, mark.offset)
        self._reader = TableReader(shape, mark, sought=place is not None)

    async def step(self) -> Rows | None:
        """Gives some rows, None at the end of the file.

        Raises ChangedError where what stands there is not what was read before, TouchedError where that must be
        found out, ValueError for a file that cannot be read, and what its shelf raises.
        """
        assert self._opened is not None  # noqa: S101  (begun before)
        assert self._reader is not None  # noqa: S101
        while not self._ready:
            if self._failed is not None:
                raise self._failed
            await self._threads.call(self._parse)
            if self._ready or self._failed is not None:
                continue
            if self._ended:
                return None
            chunk = await self._opened.read()
            self._ended = not chunk
            self._rows = self._reader.feed(chunk) if chunk else self._reader.end()
        return self._ready.popleft()

    def _parse(self) -> None:
        """Makes rows ready, a few pieces at a time; what stands before something that cannot be read is given first."""
        try:
            self._ready.extend(islice(self._rows, PIECES))
        except (ChangedError, ValueError) as error:
            self._failed = error


async def columns_of(shelf: Shelf, config: Mapping[str, Any]) -> Sequence[str]:
    """Gives the columns of the file that a form names, or of the first that its prefix fits; none where none does.

    config: what the form holds, not validated. Raises ValueError for a file that cannot be read, FileNotFoundError, and
    what the shelf raises.
    """
    name = config.get("file")
    if not isinstance(name, str) or not name:
        prefix, regex = str(config.get("prefix") or ""), bool(config.get("regex"))
        fits = reader(prefix, regex=regex)
        name = None
        async for page in shelf.pages("" if regex else prefix):
            name = min([each for each in (*page, name) if each is not None and fits(each) is not None], default=None)
    if name is None:
        return []
    form: Form | Literal["auto"] = config["format"] if config.get("format") in {"csv", "ndjson"} else "auto"
    delimiter = delimiter_of(str(config.get("delimiter") or ""))
    source = Source(name, form, str(config.get("encoding") or "utf-8"), delimiter)
    try:
        async with shelf.open(name) as opened:
            source.begin(opened, START, None, config.get("columns") or None)
            while not source.columns and await source.step() is not None:
                pass
            return source.columns
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
