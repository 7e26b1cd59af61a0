"""Files in a folder of this host: every enter and exit as a line of NDJSON.

A file is written under a hidden name, and appears whole: flushed to the disk and renamed. Its messages are acknowledged
after that, so a crash in between delivers them again; they go to a file of the same name (it says the first trigger
in it), which takes the former one's place. Only a reader that took the file away in those moments sees them twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import anyio
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from pydantic import Field, field_validator

from connectors.sdk.declare import Provider, TriggerExport, TriggerJob
from connectors.sdk.errors import ConfigError, TransientError
from connectors.sdk.run import Batching, Lease, Message, TriggerRun

#: Messages that are written in one go.
BATCH = Batching(count=500)
#: How long a file may take to be finished when the run is cancelled, in seconds.
LAST_FILE_S = 2.0


class FilesExportTriggers(TriggerExport):
    """Which folder, and when a file is complete."""

    folder: str = Field(
        min_length=1,
        max_length=1000,
        description="Folder of the files; a relative one lies in the data directory's exports/.",
    )
    prefix: str = Field(
        "triggers", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Beginning of the files' names."
    )
    rotate_bytes: int = Field(64 * 1024 * 1024, ge=1, le=5 * 1024**3, description="A file of this size is complete.")
    rotate_seconds: float = Field(60.0, gt=0, le=86_400, description="A file of this age is complete, in seconds.")

    @field_validator("folder")
    @classmethod
    def _check_folder(cls, folder: str) -> str:
        if "\0" in folder:
            raise ValueError("is not a path")
        if not Path(folder).is_absolute() and ".." in Path(folder).parts:
            raise ValueError("a relative folder must not lead out of exports/ by '..'; give an absolute one")
        return folder


async def run(run: TriggerRun[FilesExportTriggers]) -> None:
    """Writes file after file until cancelled; what is open then is finished, if that goes quickly."""
    config = run.config
    disk = _Disk(run.exports / config.folder, config.prefix, run.job)
    await disk.prepare()
    leases = run.leases(BATCH, fields=config.user_fields, ordered=True)
    loop = asyncio.get_running_loop()
    last: Lease | None = None  # settling it settles all of the file
    due = 0.0

    async def finish() -> None:
        nonlocal last
        if last is not None:
            name, size = await disk.finish()
            last.ack(to=name, size=size)
            last = None
            run.log.info("file_written", file=name, bytes=size)

    try:
        while True:
            lease = await leases.next(None if last is None else max(due - loop.time(), 0.0))
            if lease is not None:
                if last is None:
                    due = loop.time() + config.rotate_seconds
                await disk.write(lease.messages)
                last = lease
            if last is not None and (disk.size >= config.rotate_bytes or loop.time() >= due):
                await finish()
    except asyncio.CancelledError:
        if not disk.busy:  # a thread that is still writing is not waited for: the file is written anew
            with anyio.move_on_after(LAST_FILE_S, shield=True), contextlib.suppress(TransientError):
                await finish()
        raise
    finally:
        disk.discard()


class _Disk:
    """The folder of one job and the file that is being written. Work on the disk is in threads, one at a time.

    A cancelled run leaves its thread alone: `busy` stays true, and the hidden file is the next run's to remove.
    """

    def __init__(self, folder: Path, prefix: str, job: str) -> None:
        self._folder = folder
        self._stem = f"{prefix}-{job}"
        self._thread = CapacityLimiter(1)
        self._file: BinaryIO | None = None
        self._name = ""
        self._run = secrets.token_hex(4)
        self.busy = False
        self.size = 0

    async def prepare(self) -> None:
        """Makes the folder and removes what a crash left unfinished. ConfigError when the folder cannot be used."""

        def prepare() -> None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                for left in self._folder.glob(f".{glob.escape(self._stem)}-*.part"):
                    left.unlink()
                probe = self._folder / f".{self._stem}-probe.part"
                probe.touch()
                probe.unlink()
            except (NotADirectoryError, FileExistsError, PermissionError) as error:
                raise ConfigError(f"{self._folder} is no folder that cohortd may write to: {error.strerror}") from error
            except OSError as error:
                raise TransientError(f"{self._folder}: {error.strerror or error}") from error

        await self._in_thread(prepare)

    async def write(self, messages: Sequence[Message]) -> None:
        """Appends messages, beginning a file when there is none."""
        lines = b"".join(each.body + b"\n" for each in messages)
        if self._file is None:
            self._name = f"{self._stem}-{int(messages[0].id):019d}.ndjson"
            self.size = 0

        def write() -> None:
            try:
                if self._file is None:
                    self._file = self._hidden().open("wb")
                self._file.write(lines)
            except OSError as error:
                raise TransientError(f"{self._folder}: {error.strerror or error}") from error

        await self._in_thread(write)
        self.size += len(lines)

    async def finish(self) -> tuple[str, int]:
        """Makes the file appear, whole and on the disk; gives its name and size."""

        def finish() -> None:
            try:
                if self._file is None:
                    return
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._hidden().rename(self._folder / self._name)
                folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
            except OSError as error:
                raise TransientError(f"{self._folder}: {error.strerror or error}") from error

        await self._in_thread(finish)
        self._file = None
        return self._name, self.size

    def discard(self) -> None:
        """Lets go of a file that was not finished; its messages are delivered again."""
        if self._file is not None and not self.busy:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._hidden().unlink()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        self.busy = True
        try:
            await run_sync(work, limiter=self._thread, abandon_on_cancel=True)
        except Exception:
            self.busy = False
            raise
        self.busy = False

    def _hidden(self) -> Path:
        # With a name of the run's own: a thread that comes back after the next run began finds nothing to rename.
        return self._folder / f".{self._name}.{self._run}.part"


FILES_EXPORT_TRIGGERS = TriggerJob(
    slug="files_export_triggers",
    label="Audience triggers to files",
    description="Writes a line of NDJSON for every enter into and exit from the chosen audiences.",
    direction="export",
    config=FilesExportTriggers,
    run=run,
)

PROVIDER = Provider(
    slug="files",
    label="Files",
    description="Folders of the host that cohortd runs on.",
    jobs=(FILES_EXPORT_TRIGGERS,),
)
