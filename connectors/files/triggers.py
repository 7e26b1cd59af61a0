"""`files_export_triggers`: every enter and exit as a line of NDJSON.

A file's messages are acknowledged after it has appeared, so a crash in between delivers them again; they go to a file
of the same name (it says the first trigger in it), which takes the former one's place. Only a reader that took the file
away in those moments sees them twice.
"""

from __future__ import annotations

import asyncio
import contextlib

import anyio
from pydantic import Field

from connectors.files.folder import Disk, Folder, Prefix
from connectors.sdk.declare import TriggerExport, TriggerJob
from connectors.sdk.errors import TransientError
from connectors.sdk.run import Batching, Lease, TriggerRun

#: Messages that are written in one go.
BATCH = Batching(count=500)
#: How long a file may take to be finished when the run is cancelled, in seconds.
LAST_FILE_S = 2.0


class FilesExportTriggers(TriggerExport):
    """Which folder, and when a file is complete."""

    folder: Folder = Field(description="Folder of the files; a relative one lies in the data directory's exports/.")
    prefix: Prefix = Field("triggers", description="Beginning of the files' names.")
    rotate_bytes: int = Field(64 * 1024 * 1024, ge=1, le=5 * 1024**3, description="A file of this size is complete.")
    rotate_seconds: float = Field(60.0, gt=0, le=86_400, description="A file of this age is complete, in seconds.")


async def run(run: TriggerRun[FilesExportTriggers]) -> None:
    """Writes file after file until cancelled; what is open then is finished, if that goes quickly."""
    config = run.config
    stem = f"{config.prefix}-{run.job}"
    disk = Disk(run.exports / config.folder, stem)
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
        await disk.prepare()
        while True:
            lease = await leases.next(None if last is None else max(due - loop.time(), 0.0))
            if lease is not None:
                if last is None:
                    due = loop.time() + config.rotate_seconds
                    await disk.begin(f"{stem}-{int(lease.messages[0].id):019d}.ndjson")
                await disk.write(b"".join(each.body + b"\n" for each in lease.messages))
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


FILES_EXPORT_TRIGGERS = TriggerJob(
    slug="files_export_triggers",
    label="Audience triggers to files",
    description="Writes a line of NDJSON for every enter into and exit from the chosen audiences.",
    direction="export",
    config=FilesExportTriggers,
    run=run,
)
