"""`files_export_events`: the raw events of streams as CSV files.

A first pass over the events finds the columns, a second one writes: all events of a file have the same columns, and
those of the files before keep their places. What was exported is told by positions in the log, so that no event comes
twice and none is left out, whatever clocks do. After a crash the file under way is written anew, under the same name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field, field_validator, model_validator

from connectors.files.folder import Disk, Folder
from connectors.sdk.declare import EventsExport, EventsJob
from connectors.sdk.errors import ConfigError
from connectors.sdk.exports import LOG_START, EventPage, EventsRun, LogPlace, StoredEvent
from connectors.sdk.files.output import ENDINGS
from connectors.sdk.formats.compression import Compression, Packer
from connectors.sdk.formats.delimiters import Delimiter, delimiter_of
from connectors.sdk.formats.names import check_format, moment_text
from connectors.sdk.formats.rows import CsvText, flat

#: What stands before the fields of an event.
COLUMNS = ("_stream", "_event_at", "_received_at")
#: Columns that a file may have.
MOST_COLUMNS = 10_000

_TIMESTAMP = "{TIMESTAMP}"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FilesExportEvents(EventsExport):
    """Which folder, which events, and in what form."""

    folder: Folder = Field(description="Folder of the files; a relative one lies in the data directory's exports/.")
    filename: str = Field(
        "events-{TIMESTAMP}",
        min_length=1,
        max_length=200,
        description="{TIMESTAMP} becomes the time of the export. It may begin with folders; the ending is added.",
    )
    timestamp_format: str = Field(
        "YYYY-MM-DDTHH-mm-ss", max_length=50, description="MM is the month, mm the minute; UTC. Also unix, unix_ms."
    )
    compression: Compression = Field("none", description="How the files are packed.")
    delimiter: Delimiter = Field("", max_length=100, description="The first character counts; t is the tab.")
    header: bool = Field(default=True, description="The first row has the names of the columns.")
    start: datetime | None = Field(None, description="Events that arrived from then on; a date means its beginning.")
    end: datetime | None = Field(None, description="Events that arrived before, not including it.")

    @field_validator("filename")
    @classmethod
    def _name(cls, filename: str) -> str:
        parts = PurePosixPath(filename.lstrip("/")).parts
        if not parts or ".." in parts or "\0" in filename or filename.endswith("/"):
            raise ValueError("a file name is accepted, with folders before it that lie within the folder")
        if parts[-1].startswith("."):
            raise ValueError("a file name that begins with a point would be hidden")
        return filename

    @field_validator("timestamp_format")
    @classmethod
    def _format(cls, text: str) -> str:
        return check_format(text)

    @field_validator("start", "end")
    @classmethod
    def _zone(cls, moment: datetime | None) -> datetime | None:
        return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment

    @model_validator(mode="after")
    def _order(self) -> FilesExportEvents:
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError("end: a moment after start is accepted")
        return self


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the export is; it is the checkpoint. `upto` None: no file is under way."""

    place: LogPlace = LOG_START
    upto: LogPlace | None = None
    stamp_us: int = 0
    columns: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Gives it as a JSON value."""
        return {
            "place": list(self.place),
            "upto": None if self.upto is None else list(self.upto),
            "stamp_us": self.stamp_us,
            "columns": self.columns,
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Progress:
        """Reads what `as_json` gave."""
        upto = value["upto"]
        return cls(
            LogPlace(*value["place"]),
            None if upto is None else LogPlace(*upto),
            value["stamp_us"],
            tuple(value["columns"]),
        )


async def run(run: EventsRun[FilesExportEvents]) -> None:
    """Writes one file of what came since the last one; none when nothing did."""
    config = run.config
    if _TIMESTAMP not in config.filename and run.repeats:
        raise ConfigError(
            "filename: with a schedule it needs {TIMESTAMP}, or each file would take the place of the last"
        )
    progress = Progress() if run.checkpoint is None else Progress.of_json(run.checkpoint)
    upto = progress.upto
    if upto is None:
        upto = await run.place()
        progress = replace(progress, upto=upto, stamp_us=run.now_us())
        await run.save(progress.as_json())
    count, columns = await _columns(run, progress)
    progress = replace(progress, columns=columns)
    if count:
        await run.save(progress.as_json())
        count = await _write(run, progress)
        run.count(added=count)
    else:
        run.log.info("nothing_exported", streams=list(config.streams))
    await run.save(replace(progress, place=upto, upto=None).as_json())
    end_us = _us(config.end)
    if end_us is not None and progress.stamp_us >= end_us:
        run.finish()  # what comes from now on is not wanted


async def _columns(run: EventsRun[FilesExportEvents], progress: Progress) -> tuple[int, tuple[str, ...]]:
    """Counts the events and finds their columns: those of before, then the new ones."""
    count = 0
    found: set[str] = set()
    shapes: set[tuple[str, ...]] = set()
    async with aclosing(_pages(run, progress)) as pages:
        async for page in pages:
            count += len(page.events)
            for event in page.events:
                shape = tuple(event.fields)
                # Events of the same keys have the same columns, unless something is nested in them.
                if shape not in shapes or any(isinstance(value, dict) for value in event.fields.values()):
                    found.update(flat(event.fields))
                    if len(shapes) < MOST_COLUMNS:
                        shapes.add(shape)
            if len(found) > MOST_COLUMNS:
                raise ConfigError(f"the events have more than {MOST_COLUMNS} fields; choose fewer streams")
    return count, (*progress.columns, *sorted(found.difference(progress.columns, COLUMNS)))


async def _write(run: EventsRun[FilesExportEvents], progress: Progress) -> int:
    config = run.config
    name = config.filename.lstrip("/").replace(_TIMESTAMP, moment_text(progress.stamp_us, config.timestamp_format))
    path = PurePosixPath(f"{name}.csv")
    disk = Disk(run.exports / config.folder / path.parent, f"events-{run.job}")
    text = CsvText((*COLUMNS, *progress.columns), delimiter=delimiter_of(config.delimiter), maps="json")
    count = 0
    try:
        await disk.prepare()
        await disk.begin(path.name + ENDINGS[config.compression], Packer(config.compression, path.name))
        if config.header:
            await disk.write(text.header())
        async with aclosing(_pages(run, progress)) as pages:
            async for page in pages:
                count += len(page.events)
                await disk.write(lambda page=page: b"".join(text.row(_row(event)) for event in page.events))  # type: ignore[misc]
        written, size = await disk.finish()
    finally:
        disk.discard()
    run.log.info("file_written", file=str(path.parent / written), bytes=size, rows=count)
    return count


async def _pages(run: EventsRun[FilesExportEvents], progress: Progress) -> AsyncGenerator[EventPage, None]:
    config = run.config
    async for page in run.events(
        config.streams,
        start_us=_us(config.start),
        end_us=_us(config.end),
        after=progress.place,
        upto=progress.upto or progress.place,
    ):
        if page.events:
            yield page


def _row(event: StoredEvent) -> dict[str, Any]:
    head = {"_stream": event.stream, "_event_at": _text(event.at_us), "_received_at": _text(event.received_us)}
    return flat(event.fields) | head


def _text(at_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat().replace("+00:00", "Z")


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)


FILES_EXPORT_EVENTS = EventsJob(
    slug="files_export_events",
    label="Events to files",
    description="Writes the raw events of streams to CSV files: those of a time, or on a schedule what came since.",
    direction="export",
    config=FilesExportEvents,
    run=run,
    schedule="optional",
)
