"""What the fields of files' jobs can be chosen from: folders, files, columns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from anyio.to_thread import run_sync
from pydantic import TypeAdapter, ValidationError

from connectors.files.folder import Folder
from connectors.files.shelf import FolderShelf
from connectors.sdk.declare import Choice, Choosing
from connectors.sdk.errors import ConfigError
from connectors.sdk.files.source import columns_of

#: Entries of a folder that are looked at, and levels of folders.
LOOKED_AT = 10_000
LEVELS = 3


async def find_folders(choosing: Choosing) -> Sequence[Choice]:
    """Gives the folders in the data directory's imports/."""
    root = choosing.folders.get("imports", Path())

    def look() -> list[Choice]:
        return [Choice(name) for name in sorted(_folders(root)) if choosing.search in name][: choosing.limit]

    return await run_sync(look, abandon_on_cancel=True)


async def find_files(choosing: Choosing) -> Sequence[Choice]:
    """Gives the files of the folder that the form names, the newest first."""
    folder = _folder(choosing)

    def look() -> list[Choice]:
        found: list[tuple[float, str, int]] = []
        with os.scandir(folder) as entries:
            for _, entry in zip(range(LOOKED_AT), entries, strict=False):
                if not entry.name.startswith(".") and choosing.search in entry.name and entry.is_file():
                    status = entry.stat()
                    found.append((status.st_mtime, entry.name, status.st_size))
        found.sort(reverse=True)
        return [
            Choice(name, hint=f"{size:,} bytes, {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC")
            for at, name, size in found[: choosing.limit]
        ]

    try:
        return await run_sync(look, abandon_on_cancel=True)
    except OSError as error:
        raise ConfigError(f"folder {folder}: {error.strerror}") from error


async def find_columns(choosing: Choosing) -> Sequence[Choice]:
    """Gives the columns of the file that the form names, or of the first that its prefix fits."""
    folder = _folder(choosing)
    if "/" in str(choosing.config.get("file") or ""):
        return []
    try:
        columns = await columns_of(FolderShelf(folder), choosing.config)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: {error}") from error
    return [Choice(each) for each in columns if choosing.search in each][: choosing.limit]


def _folder(choosing: Choosing) -> Path:
    try:
        folder = TypeAdapter(Folder).validate_python(choosing.config.get("folder"))
    except ValidationError:
        raise ConfigError("folder: choose it first") from None
    return choosing.folders.get("imports", Path()) / folder


def _folders(root: Path) -> Iterator[str]:
    left = LOOKED_AT
    level = [""]
    yield "."
    for _ in range(LEVELS):
        below: list[str] = []
        for parent in level:
            try:
                with os.scandir(root / parent) as entries:
                    for entry in entries:
                        left -= 1
                        if left < 0:
                            return
                        if not entry.name.startswith(".") and entry.is_dir():
                            below.append(f"{parent}{entry.name}/")
            except OSError:
                continue
        yield from (each.rstrip("/") for each in below)
        level = below
