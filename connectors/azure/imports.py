"""`azure_blob_import`: rows of CSV and NDJSON files in a container become events; see `sdk.files.imports`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field

from connectors.azure.blobs import open_blobs
from connectors.azure.choices import Container, find_files
from connectors.azure.shelf import ContainerShelf
from connectors.azure.storage import AZURE_STORAGE, blobs_of, storage_of
from connectors.sdk.declare import Choice, Choices, Choosing, ImportJob
from connectors.sdk.errors import ConfigError
from connectors.sdk.files.imports import FileImport, bring
from connectors.sdk.files.source import columns_of
from connectors.sdk.formats.names import prefix_of, reader
from connectors.sdk.imports import ImportRun
from connectors.sdk.run import Patience

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def find_prefixes(choosing: Choosing) -> Sequence[Choice]:
    """Gives the prefix of the file that the form names, and one for dated folders, each with the moment behind it."""
    name = choosing.config.get("file")
    if not isinstance(name, str) or (prefix := prefix_of(name)) is None:
        return []
    at = _EPOCH + timedelta(microseconds=reader(prefix, regex=False)(name) or 0)
    found = [Choice(prefix, hint=f"behind it stands the moment {at:%Y-%m-%d %H:%M:%S} UTC")]
    folders, slash, rest = prefix.rpartition("/")
    pieces = re.split(r"(\d+)", folders)
    if len(pieces) > 1:
        pattern = "".join(r"\d+" if each.isdigit() else re.escape(each) for each in pieces) + slash + re.escape(rest)
        found.append(Choice(pattern, hint="a regular expression, for folders of other dates too; turn `regex` on"))
    return [each for each in found if choosing.search in each.value][: choosing.limit]


async def find_columns(choosing: Choosing) -> Sequence[Choice]:
    """Gives the columns of the file that the form names, or of the first that its prefix fits."""
    container = choosing.config.get("container")
    if not isinstance(container, str) or not container:
        raise ConfigError("container: choose it first")
    auth = storage_of(choosing.auth)

    async def untold(_: str) -> None:
        return

    async with open_blobs(auth.endpoint, choosing.network, patience=Patience(total_s=1)) as blobs:
        shelf = ContainerShelf(
            blobs, container, auth, spool=choosing.folders["spool"], now_us=choosing.now_us, tell=untold
        )
        try:
            columns = await columns_of(shelf, choosing.config)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(str(error)) from error
    return [Choice(each) for each in columns if choosing.search in each][: choosing.limit]


class AzureBlobImport(FileImport):
    """Which blobs, what they look like, and what is taken of them."""

    container: Container = Field(description="Container of the files.")
    file: Annotated[str, Choices("files", find_files)] | None = Field(
        None, max_length=1024, description="The file to import, with its folders; of several, the first one."
    )
    prefix: Annotated[str, Choices("prefixes", find_prefixes)] | None = Field(
        None,
        max_length=1024,
        description="Imports all files whose names, with their folders, are this, a moment, and an ending "
        "(`daily/orders-2026-01-31.csv.gz`), in the order of the moments. Without it: what stands before the moment in "
        "`file`.",
    )
    timestamp_field: Annotated[str, Choices("columns", find_columns)] | None = Field(
        None, max_length=200, description="Column that holds a row's time; without one it is the time of the import."
    )
    fields: tuple[Annotated[str, Choices("columns", find_columns)], ...] | None = Field(
        None, description="Columns to import; all of them when not given."
    )
    settle_seconds: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="A file is taken when it was not written to for so long; for blobs that are appended to.",
    )


async def run(run: ImportRun[AzureBlobImport]) -> None:
    """Imports what there is; waits for what there is not yet."""
    config = run.config
    async with blobs_of(run) as blobs:
        shelf = ContainerShelf(
            blobs, config.container, storage_of(run.auth), spool=run.spool, now_us=run.now_us, tell=run.tell
        )
        await bring(run, config, shelf)


AZURE_BLOB_IMPORT = ImportJob(
    slug="azure_blob_import",
    label="Import Data",
    description="Takes the rows of CSV and NDJSON files in a container, packed, encrypted or not, in as events: once, "
    "on a schedule, or whenever the next file comes.",
    direction="import",
    config=AzureBlobImport,
    run=run,
    auths=(AZURE_STORAGE,),
    auth_required=True,
    schedule="optional",
)
