"""A folder of this host as a shelf of files; each is read in a thread, and watched for being replaced meanwhile."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from anyio.to_thread import run_sync

from connectors.sdk.errors import ConfigError, TransientError
from connectors.sdk.files.source import HEAD_BYTES, Found, Identity, TouchedError
from connectors.sdk.threads import Threaded

#: Bytes read at a time.
CHUNK_BYTES = 256 * 1024
#: Names given at a time.
PAGE = 1000

T = TypeVar("T")


class FolderShelf:
    """The files that lie in a folder itself, hidden ones left out; see `connectors.sdk.files.source.Shelf`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._folder)

    async def pages(self, prefix: str) -> AsyncIterator[Sequence[str]]:
        """Yields the names of files that begin so."""

        def names() -> list[str]:
            with os.scandir(self._folder) as entries:
                return [
                    each.name
                    for each in entries
                    if each.name.startswith(prefix) and not each.name.startswith(".") and each.is_file()
                ]

        try:
            found = await self._call(self._folder, names)
        except FileNotFoundError:
            found = []
        for at in range(0, len(found), PAGE):
            yield found[at : at + PAGE]

    async def look(self, name: str) -> Found:
        """Looks at a file. Raises FileNotFoundError."""
        path = self._folder / name
        found = await self._call(path, path.stat)
        return Found(identity_of(found), found.st_size, found.st_mtime)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[OpenFile]:
        """Opens a file, closed when it is left or its thread comes back. Raises FileNotFoundError."""
        opened = OpenFile(self._folder / name)
        try:
            await opened.open()
            yield opened
        finally:
            opened.end()

    async def _call(self, path: Path, work: Callable[[], T]) -> T:
        try:
            return await run_sync(work, abandon_on_cancel=True)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise told(path, error) from error


class OpenFile:
    """One file, open; see `connectors.sdk.files.source.Opened`."""

    seekable = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = Threaded(self._close)
        self._file: BinaryIO | None = None
        self._compared = 0
        self._at = 0
        self.identity: Identity = ()
        self.head = b""

    async def open(self) -> None:
        """Opens the file. Raises FileNotFoundError and the contract's errors."""

        def begin() -> None:
            self._file = file = self._path.open("rb", buffering=0)
            self.identity = identity_of(os.fstat(file.fileno()))
            self.head = file.read(HEAD_BYTES) or b""

        await self._call(begin)

    def begin(self, at: int, compared: int) -> None:
        """Says from where on it is read."""
        self._at, self._compared = at, compared

    async def read(self) -> bytes:
        """Gives the next piece, nothing at the end. Raises TouchedError."""
        return await self._call(self._read)

    def end(self) -> None:
        """Closes the file, now or when its thread comes back."""
        self._threads.end()

    def _read(self) -> bytes:
        file = self._file
        assert file is not None  # noqa: S101  (opened before)
        file.seek(self._at)
        chunk = file.read(CHUNK_BYTES) or b""
        self._at += len(chunk)
        self._look(at_end=not chunk)
        return chunk

    def _look(self, *, at_end: bool) -> None:
        """Looks whether the file is still the same.

        One that is written to while it is read is compared each time that it has doubled, and at its end.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return  # what is open can be read to its end
        found = identity_of(status)
        if found != self.identity:
            gone = found[2] != self.identity[2] or status.st_size < self._at
            if gone or at_end or self._at >= 2 * max(self._compared, CHUNK_BYTES):
                raise TouchedError

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await self._threads.call(work)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise told(self._path, error) from error


def identity_of(found: os.stat_result) -> Identity:
    """Gives what tells a file from another: size, time of its last change (ns), inode."""
    return (found.st_size, found.st_mtime_ns, found.st_ino)


def told(path: Path, error: OSError) -> Exception:
    """Gives what an error of the system means to a job."""
    text = f"{path}: {error.strerror or error}"
    if isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError):
        return ConfigError(f"{text}; let cohortd's user read it, or name another")
    return TransientError(text)
