"""`files_import`: rows of CSV and NDJSON files in a folder of this host become events; see `sdk.files.imports`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from connectors.files.choices import find_columns, find_files, find_folders
from connectors.files.folder import Folder
from connectors.files.shelf import FolderShelf
from connectors.sdk.declare import Choices, ImportJob
from connectors.sdk.files.imports import FileImport, bring
from connectors.sdk.imports import ImportRun


class FilesImport(FileImport):
    """Which files, what they look like, and what is taken of them."""

    folder: Annotated[Folder, Choices("folders", find_folders)] = Field(
        description="Folder of the files; a relative one lies in the data directory's imports/."
    )
    file: Annotated[str, Choices("files", find_files)] | None = Field(
        None, max_length=255, description="The file to import; of several, the first one."
    )
    timestamp_field: Annotated[str, Choices("columns", find_columns)] | None = Field(
        None, max_length=200, description="Column that holds a row's time; without one it is the time of the import."
    )
    fields: tuple[Annotated[str, Choices("columns", find_columns)], ...] | None = Field(
        None, description="Columns to import; all of them when not given."
    )

    @field_validator("file")
    @classmethod
    def _in_folder(cls, file: str | None) -> str | None:
        if file is not None and ("/" in file or file in {".", ".."}):
            raise ValueError("a name in the folder is accepted, without a path")
        return file


async def run(run: ImportRun[FilesImport]) -> None:
    """Imports what there is; waits for what there is not yet."""
    await bring(run, run.config, FolderShelf(run.imports / run.config.folder))


FILES_IMPORT = ImportJob(
    slug="files_import",
    label="Import from files",
    description="Takes the rows of CSV and NDJSON files, packed or not, in as events: once, on a schedule, or whenever "
    "the next file comes.",
    direction="import",
    config=FilesImport,
    run=run,
    schedule="optional",
)
