"""`azure_blob_export_events`: the raw events of streams as CSV blobs.

What it does stands in `connectors.sdk.files.events`; here a container is written to.
"""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from connectors.azure.choices import Container
from connectors.azure.output import opened_output
from connectors.azure.storage import AZURE_STORAGE, blobs_of, storage_of
from connectors.sdk.declare import EventsJob
from connectors.sdk.exports import EventsRun
from connectors.sdk.files.events import EventsFiles, export_events
from connectors.sdk.formats.pgp import Encryptor

_UNFIT = re.compile(r"[\x00-\x1f\x7f\\]|//|\.(/|$)")


class AzureBlobExportEvents(EventsFiles):
    """Which container, which events, and in what form."""

    container: Container = Field(description="Container of the files.")

    @field_validator("filename")
    @classmethod
    def _fits(cls, filename: str) -> str:
        if _UNFIT.search(filename.lstrip("/")):
            raise ValueError(
                "a blob's name is accepted, such as folder/events-{TIMESTAMP}: no backslash and no control character, "
                "and no part of it empty or with a point at its end"
            )
        return filename


async def run(run: EventsRun[AzureBlobExportEvents]) -> None:
    """Writes one file of what came since the last one; none when nothing did."""
    key = storage_of(run.auth).pgp_public_key
    async with blobs_of(run) as blobs:
        await export_events(
            run,
            lambda: opened_output(blobs, run.config.container),
            seal=None if key is None else lambda: Encryptor(key, now_us=run.now_us()),
        )


AZURE_BLOB_EXPORT_EVENTS = EventsJob(
    slug="azure_blob_export_events",
    label="Events to blobs",
    description="Writes the raw events of streams to CSV blobs: those of a time, or on a schedule what came since.",
    direction="export",
    config=AzureBlobExportEvents,
    run=run,
    auths=(AZURE_STORAGE,),
    auth_required=True,
    schedule="optional",
    frequency="daily",
)
