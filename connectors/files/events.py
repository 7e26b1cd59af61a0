"""`files_export_events`: the raw events of streams as CSV files in a folder of this host; see `sdk.files.events`."""

from __future__ import annotations

from pydantic import Field

from connectors.files.folder import Folder, opened
from connectors.sdk.declare import EventsJob
from connectors.sdk.exports import EventsRun
from connectors.sdk.files.events import EventsFiles, export_events


class FilesExportEvents(EventsFiles):
    """Which folder, which events, and in what form."""

    folder: Folder = Field(description="Folder of the files; a relative one lies in the data directory's exports/.")


async def run(run: EventsRun[FilesExportEvents]) -> None:
    """Writes one file of what came since the last one; none when nothing did."""
    await export_events(run, lambda: opened(run.exports / run.config.folder, f"events-{run.job}"))


FILES_EXPORT_EVENTS = EventsJob(
    slug="files_export_events",
    label="Events to files",
    description="Writes the raw events of streams to CSV files: those of a time, or on a schedule what came since.",
    direction="export",
    config=FilesExportEvents,
    run=run,
    schedule="optional",
)
