"""`files_export_audience`: who is in an audience, and who comes and goes, as files of CSV or NDJSON.

What it does stands in `connectors.sdk.files.audience`; here a folder of this host is written to.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from connectors.files.folder import Folder, Prefix, opened
from connectors.sdk.declare import AudienceJob
from connectors.sdk.exports import AudienceRun
from connectors.sdk.files.audience import AudienceFiles, CsvLook, Flush, export_audience


class FilesExportAudience(CsvLook, AudienceFiles):
    """Which folder, what of whom, and in what form."""

    folder: Folder = Field(description="Folder of the files; a relative one lies in the data directory's exports/.")
    prefix: Prefix = Field("audience", description="Beginning of the files' names.")
    format: Literal["json", "csv"] = Field("json", description="json: a line of JSON each.")
    every_seconds: float = Field(
        3600.0, ge=1, le=2_678_400, description="Without a schedule: how often to write who came, in seconds."
    )


async def run(run: AudienceRun[FilesExportAudience]) -> None:
    """Writes what there is to write; ends, or sleeps until the next time."""
    config = run.config
    stem = f"{config.prefix}-{run.job}"
    await export_audience(
        run,
        lambda: opened(run.exports / config.folder, stem),
        stem=stem,
        csv=config if config.format == "csv" else None,
        flush=Flush(config.every_seconds),
    )


FILES_EXPORT_AUDIENCE = AudienceJob(
    slug="files_export_audience",
    label="Audience to files",
    description="Writes the members of audiences to CSV or NDJSON files, and then who enters: once, on a schedule, or "
    "all the time.",
    direction="export",
    config=FilesExportAudience,
    run=run,
    schedule="optional",
)
