"""Folders of this host, and files that appear in them whole.

A file is written under a hidden name of the run's own, flushed to the disk, and renamed: who looks into the folder sees
it whole or not at all, also after a power cut.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import AfterValidator, Field

from connectors.sdk.errors import ConfigError, TransientError
from connectors.sdk.formats.compression import Packer
from connectors.sdk.threads import Threaded


def _check_folder(folder: str) -> str:
    if "\0" in folder:
        raise ValueError("is not a path")
    if not Path(folder).is_absolute() and ".." in Path(folder).parts:
        raise ValueError("a relative folder must not lead out of the data directory by '..'; give an absolute one")
    return folder


#: A folder in a configuration.
Folder = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_check_folder)]
#: The beginning of files' names in a configuration.
Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Disk:
    """A folder and the file that is being written into it. `mark` tells the hidden files of this job from others'.

    Work on the disk is in threads, one at a time. A cancelled run leaves its thread alone; the hidden file is then the
    next run's to remove.
    """

    def __init__(self, folder: Path, mark: str) -> None:
        self._folder = folder
        self._mark = mark
        self._run = secrets.token_hex(4)
        self._threads = Threaded(self._close)
        self._file: BinaryIO | None = None
        self._packer = Packer("none", "")
        self.name = ""

    @property
    def size(self) -> int:
        """Bytes of the file if it were finished now, at most."""
        return self._packer.size

    @property
    def busy(self) -> bool:
        """Whether a thread is at work that nobody waits for."""
        return self._threads.busy

    @property
    def writing(self) -> bool:
        """Whether a file was begun and is not finished."""
        return self._file is not None

    async def prepare(self) -> None:
        """Makes the folder and removes what a crash left unfinished. ConfigError when the folder cannot be used."""

        def prepare() -> None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                for left in self._folder.glob(f".{glob.escape(self._mark)}.*.part"):
                    left.unlink()
                probe = self._folder / f".{self._mark}.probe.part"
                probe.touch()
                probe.unlink()
            except (NotADirectoryError, FileExistsError, PermissionError) as error:
                raise ConfigError(f"{self._folder} is no folder that cohortd may write to: {error.strerror}") from error

        await self._call(prepare)

    async def begin(self, name: str, packer: Packer | None = None) -> None:
        """Begins the file that will be called `name`, with folders before it or not; `packer` packs what is written."""

        def begin() -> None:
            self._file = self._hidden().open("wb")

        self.name, self._packer = name, packer or Packer("none", name)
        await self._call(begin)

    async def write(self, content: bytes | Callable[[], bytes]) -> None:
        """Appends to the file, what is there or what is made in the thread."""

        def write() -> None:
            data = content if isinstance(content, bytes) else content()
            assert self._file is not None  # noqa: S101  (begun before it is written)
            self._file.write(self._packer.feed(data))

        await self._call(write)

    async def finish(self) -> tuple[str, int]:
        """Makes the file appear, whole and on the disk, in place of one of the same name; gives its name and size."""

        def finish() -> int:
            file = self._file
            assert file is not None  # noqa: S101  (as above)
            file.write(self._packer.end())
            file.flush()
            size = file.tell()
            os.fsync(file.fileno())
            file.close()
            path = self._folder / self.name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._hidden().rename(path)
            for each in [path.parent, *path.parent.parents][: len(Path(self.name).parts)]:
                _sync(each)
            return size

        size = await self._call(finish)
        self._file = None
        return self.name, size

    def discard(self) -> None:
        """Lets go of a file that was not finished, now or when its thread comes back."""
        self._packer.close()
        self._threads.end()

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._hidden().unlink()

    async def _call(self, work: Callable[[], int | None]) -> int:
        def told() -> int:
            try:
                return work() or 0
            except OSError as error:
                raise TransientError(f"{self._folder}: {error.strerror or error}") from error

        return await self._threads.call(told)

    def _hidden(self) -> Path:
        # With a name of the run's own: a thread that comes back after the next run began finds nothing to rename.
        return self._folder / f".{self._mark}.{self._run}.part"


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@asynccontextmanager
async def opened(folder: Path, mark: str) -> AsyncIterator[Disk]:
    """Opens a folder to write into, and lets go of what is not finished on leaving."""
    disk = Disk(folder, mark)
    try:
        await disk.prepare()
        yield disk
    finally:
        disk.discard()
