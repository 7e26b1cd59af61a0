"""`azure_blob_export_audience_json` and `…_csv`: who is in an audience, and who comes and goes, as blobs.

What they do stands in `connectors.sdk.files.audience`; here a container is written to.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from connectors.azure.choices import Container
from connectors.azure.output import LARGEST_BLOB, opened_output
from connectors.azure.storage import AZURE_STORAGE, blobs_of, storage_of
from connectors.sdk.declare import AudienceJob
from connectors.sdk.exports import AudienceRun
from connectors.sdk.files.audience import AudienceFiles, CsvLook, Flush, export_audience
from connectors.sdk.files.output import LARGEST_FILE
from connectors.sdk.formats.pgp import Encryptor

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._=+@,()-]*")


def _check_prefix(prefix: str) -> str:
    if not all(_NAME.fullmatch(part) and not part.endswith(".") for part in prefix.split("/")):
        raise ValueError("letters, digits and -_.=+@,() are accepted, with folders before it, such as exports/vip")
    return prefix


class AzureBlobExportAudience(AudienceFiles):
    """Which container, what of whom, and when a file appears."""

    container: Container = Field(description="Container of the files.")
    prefix: Annotated[str, AfterValidator(_check_prefix)] = Field(
        "audience",
        min_length=1,
        max_length=200,
        description="Beginning of the files' names; it may hold folders, as exports/vip.",
    )
    compression: Literal["none", "gzip"] = Field(
        "none", description="How the files are packed; packed first, then encrypted."
    )
    events: Literal["enters", "exits", "both"] = Field(
        "both",
        description="Who is written after the members of now. With exits, _event, _audience and _at say what happened.",
    )
    max_file_bytes: int = Field(
        LARGEST_FILE, ge=1, le=LARGEST_BLOB, description="A file goes on in the next one before it is larger, in bytes."
    )
    flush_seconds: float = Field(
        300.0,
        ge=1,
        le=2_678_400,
        description="Without a schedule: those who came and went are written when the first of them has waited so "
        "long, in seconds,",
    )
    flush_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        description="or when their rows are so many bytes; it is looked at least once a minute.",
    )


class AzureBlobExportAudienceJson(AzureBlobExportAudience):
    """Files of a line of JSON for each profile."""


class AzureBlobExportAudienceCsv(CsvLook, AzureBlobExportAudience):
    """Files of CSV."""


async def run_json(run: AudienceRun[AzureBlobExportAudienceJson]) -> None:
    """Writes NDJSON."""
    await _export(run, run.config, None)


async def run_csv(run: AudienceRun[AzureBlobExportAudienceCsv]) -> None:
    """Writes CSV."""
    await _export(run, run.config, run.config)


async def _export(run: AudienceRun[Any], config: AzureBlobExportAudience, csv: CsvLook | None) -> None:
    key = storage_of(run.auth).pgp_public_key
    async with blobs_of(run) as blobs:
        await export_audience(
            run,
            lambda: opened_output(blobs, config.container),
            stem=f"{config.prefix}-{run.job}",
            csv=csv,
            flush=Flush(config.flush_seconds, config.flush_bytes),
            seal=None if key is None else lambda: Encryptor(key, now_us=run.now_us()),
        )


AZURE_BLOB_EXPORT_AUDIENCE_JSON = AudienceJob(
    slug="azure_blob_export_audience_json",
    label="Export Audiences (Blob Storage) JSON",
    description="Writes the members of audiences to blobs as NDJSON, and then who enters and leaves: once, on a "
    "schedule, or all the time.",
    direction="export",
    config=AzureBlobExportAudienceJson,
    run=run_json,
    auths=(AZURE_STORAGE,),
    auth_required=True,
    schedule="optional",
)

AZURE_BLOB_EXPORT_AUDIENCE_CSV = AudienceJob(
    slug="azure_blob_export_audience_csv",
    label="Export Audiences (Blob Storage) CSV",
    description="Writes the members of audiences to blobs as CSV, and then who enters and leaves: once, on a schedule, "
    "or all the time.",
    direction="export",
    config=AzureBlobExportAudienceCsv,
    run=run_csv,
    auths=(AZURE_STORAGE,),
    auth_required=True,
    schedule="optional",
)
