"""The raw events of streams as CSV files in a store.

A first pass over the events finds the columns, a second one writes: all events of a file have the same columns, and
those of the files before keep their places. What was exported is told by positions in the log, so that no event comes
twice and none is left out, whatever clocks do. After a crash the file under way is written anew, under the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

from anyio.to_thread import run_sync
from pydantic import Field, field_validator, model_validator

from connectors.sdk.declare import EventsExport
from connectors.sdk.errors import ConfigError, gravest
from connectors.sdk.exports import LOG_START, EventsRun, LogPlace, StoredEvent
from connectors.sdk.files.output import Output, packed
from connectors.sdk.formats.compression import Compression, Stage
from connectors.sdk.formats.delimiters import Delimiter, delimiter_of
from connectors.sdk.formats.names import check_format, moment_text
from connectors.sdk.formats.rows import CsvText, flat

#: What stands before the fields of an event.
COLUMNS: Final = ("_stream", "_event_at", "_received_at")
#: Columns that a file may have.
MOST_COLUMNS: Final = 10_000
#: Events, and pages of them, that are taken in one go, about: one turn in a thread.
BATCH_EVENTS: Final = 2048
BATCH_PAGES: Final = 4
#: How often a run says how far it is, in microseconds.
TELL_US: Final = 3_000_000
#: Formats of {TIMESTAMP} on offer; others can be made of the same pieces.
FORMATS: Final = (
    "YYYY-MM-DDTHH-mm-ss", "YYYY-MM-DD", "YYYY-MM-DD_HH-mm", "YYYYMMDD", "YYYYMMDDHHmm", "YYYYMMDDHHmmss",
    "YYYYMMDDTHHmmssZ", "YYYYMMDDTHHmmssSSSZ", "MM-DD-YYYY", "DD-MM-YYYY", "unix", "unix_ms",
)  # fmt: skip

_TIMESTAMP = "{TIMESTAMP}"
_CSV = ".csv"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventsFiles(EventsExport):
    """Which events, under which names, and in what form."""

    filename: str = Field(
        "events-{TIMESTAMP}",
        min_length=1,
        max_length=200,
        description="{TIMESTAMP} becomes the time of the export. It may begin with folders; the ending is added.",
    )
    timestamp_format: str = Field(
        FORMATS[0],
        max_length=50,
        description="MM is the month, mm the minute; UTC. Made of YYYY, YY, MM, DD, HH, mm, ss, SSS, or unix, unix_ms.",
        examples=list(FORMATS),
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
    def _order(self) -> EventsFiles:
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
    #: Of the file under way: its events, once they are counted.
    rows: int | None = None
    #: The name of the file under way, or of the last one, without its ending.
    name: str = ""

    def as_json(self) -> dict[str, Any]:
        """Gives it as a JSON value."""
        return {
            "place": list(self.place),
            "upto": None if self.upto is None else list(self.upto),
            "stamp_us": self.stamp_us,
            "columns": self.columns,
            "rows": self.rows,
            "name": self.name,
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
            value.get("rows"),
            value.get("name", ""),
        )


E = TypeVar("E", bound=EventsFiles)


async def export_events(
    run: EventsRun[E],
    opened: Callable[[], AbstractAsyncContextManager[Output]],
    *,
    seal: Callable[[], Stage] | None = None,
) -> None:
    """Writes one file of what came since the last one; none when nothing did.

    `opened` opens the store, ready to be written to; names of files may have folders in them. `seal` makes what
    encrypts a file.
    """
    config = run.config
    if _TIMESTAMP not in config.filename and run.repeats:
        raise ConfigError(
            "filename: with a schedule it needs {TIMESTAMP}, or each file would take the place of the last"
        )
    progress = Progress() if run.checkpoint is None else Progress.of_json(run.checkpoint)
    async with opened() as output:  # what is wrong with it is told before all work
        progress = await _counted(run, progress)
        if progress.rows:
            await _write(run, progress, output, seal)
        else:
            run.log.info("nothing_exported", streams=list(config.streams))
    assert progress.upto is not None  # noqa: S101  (set with the count)
    await run.save(replace(progress, place=progress.upto, upto=None, rows=None).as_json())
    await run.tell("")
    end_us = _us(config.end)
    if end_us is not None and progress.stamp_us >= end_us:
        run.finish()  # what comes from now on is not wanted


async def _counted(run: EventsRun[E], progress: Progress) -> Progress:
    """Begins a file, unless one is under way: how far it goes, its name, how many events, in which columns."""
    if progress.upto is None:
        upto, stamp_us = await run.place(), run.now_us()
        progress = replace(progress, upto=upto, stamp_us=stamp_us, rows=None)
        await run.save(progress.as_json())
    if progress.rows is not None:
        return progress
    seen = _Seen(progress.columns)
    tell = _Tell(run, "counts the events of the next file")

    async def look(events: Sequence[StoredEvent]) -> None:
        await run_sync(seen.add, events)
        await tell.so_far(seen.count)
        if len(seen.columns) > MOST_COLUMNS:
            raise ConfigError(
                f"the events, with those of the files before, have more than {MOST_COLUMNS} fields; choose fewer "
                "streams, in a job of its own"
            )

    await _each(run, progress, look)
    if not seen.count:
        return replace(progress, rows=0)
    columns = (*progress.columns, *sorted(seen.columns.difference(progress.columns, COLUMNS)))
    progress = replace(progress, columns=columns, rows=seen.count, name=_name(run.config, progress))
    await run.save(progress.as_json())
    return progress


def _name(config: EventsFiles, progress: Progress) -> str:
    """Gives the name of the next file, without its ending: another one than that of the file before."""
    name = config.filename.lstrip("/").removesuffix(_CSV)
    name = name.replace(_TIMESTAMP, moment_text(progress.stamp_us, config.timestamp_format))
    before, _, number = progress.name.rpartition("~")
    if progress.name == name:
        return f"{name}~2"
    return f"{name}~{int(number) + 1}" if before == name and number.isdecimal() else name


class _Seen:
    """How many events there are, and which columns they and those before them have."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.count = 0
        self.columns = set(columns)
        self._shapes: set[tuple[str, ...]] = set()

    def add(self, events: Sequence[StoredEvent]) -> None:
        """Looks at some more."""
        self.count += len(events)
        shapes = self._shapes
        for event in events:
            shape = tuple(event.fields)
            # Events of the same keys have the same columns, unless something is nested in them.
            if shape not in shapes or _nested(event.fields):
                self.columns.update(flat(event.fields))
                if len(shapes) < MOST_COLUMNS:
                    shapes.add(shape)


async def _write(run: EventsRun[E], progress: Progress, output: Output, seal: Callable[[], Stage] | None) -> None:
    config = run.config
    text = CsvText((*COLUMNS, *progress.columns), delimiter=delimiter_of(config.delimiter), maps="json")
    count = 0
    await output.begin(*packed(progress.name + _CSV, config.compression, seal))
    tell = _Tell(run, f"writes {output.name}", progress.rows)
    if config.header:
        await output.write(text.header())

    async def write(events: Sequence[StoredEvent]) -> None:
        nonlocal count
        await output.write(lambda: text.lines(_rows(events, progress.columns)))
        count += len(events)
        await tell.so_far(count)

    await _each(run, progress, write)
    name, size = await output.finish()
    run.count(added=count)
    run.log.info("file_written", file=name, bytes=size, rows=count)


async def _each(
    run: EventsRun[E], progress: Progress, work: Callable[[Sequence[StoredEvent]], Awaitable[None]]
) -> None:
    """Does `work` with the events of the file under way, some at a time; the next ones are read meanwhile."""
    try:
        async with aclosing(_batches(run, progress)) as batches, asyncio.TaskGroup() as group:
            following = group.create_task(_next(batches))
            while events := await following:
                following = group.create_task(_next(batches))
                await work(events)
    except BaseExceptionGroup as errors:
        raise gravest(errors) from None


async def _next(batches: AsyncGenerator[Sequence[StoredEvent], None]) -> Sequence[StoredEvent]:
    return await anext(batches, [])


async def _batches(run: EventsRun[E], progress: Progress) -> AsyncGenerator[Sequence[StoredEvent], None]:
    """Yields the events of the file under way, some at a time."""
    config = run.config
    found: list[StoredEvent] = []
    pages = 0
    async for page in run.events(
        config.streams,
        start_us=_us(config.start),
        end_us=_us(config.end),
        after=progress.place,
        upto=progress.upto or progress.place,
    ):
        found += page.events
        pages += bool(page.events)
        if len(found) >= BATCH_EVENTS or pages >= BATCH_PAGES:
            yield found
            found, pages = [], 0
    if found:
        yield found


class _Tell:
    """Says now and then how far a run is."""

    def __init__(self, run: EventsRun[E], what: str, of: int | None = None) -> None:
        self._run = run
        self._what = what
        self._of = "" if of is None else f" of {of:,}"
        self._told_us = run.now_us()

    async def so_far(self, count: int) -> None:
        """Says it, if it was not said lately."""
        now_us = self._run.now_us()
        if now_us - self._told_us > TELL_US:
            self._told_us = now_us
            await self._run.tell(f"{self._what}: {count:,}{self._of} so far")


def _rows(events: Sequence[StoredEvent], columns: Sequence[str]) -> Iterator[list[Any]]:
    """Yields the values of COLUMNS and of these columns."""
    for stream, at_us, received_us, fields in events:
        get = (flat(fields) if _nested(fields) else fields).get
        yield [stream, _text(at_us), _text(received_us), *map(get, columns)]


def _nested(fields: Mapping[str, Any]) -> bool:
    return dict in map(type, fields.values())


@lru_cache(maxsize=1024)  # what arrived together has one time
def _text(at_us: int) -> str:
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z" if micros else f"{_second(seconds)}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)
