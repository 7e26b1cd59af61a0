"""Rows of files become events: one file, or files one after the other in the order of the moments in their names.

Where the import is, by file, byte and row, is stored with the rows themselves: a crash makes no row come twice and
leaves none out. A file that is replaced while it is read is noticed: what has only grown is read on, what is another
file is begun anew, and said. A file that does not come is waited for asleep, and taken in its place when it is late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from connectors.sdk.declare import Import
from connectors.sdk.errors import ConfigError, NotYetError, TransientError
from connectors.sdk.files.source import Found, Identity, Shelf, Source, TouchedError
from connectors.sdk.formats.compression import PackingError
from connectors.sdk.formats.delimiters import Delimiter, delimiter_of
from connectors.sdk.formats.encodings import encoding_of
from connectors.sdk.formats.names import prefix_of, reader
from connectors.sdk.formats.tables import START, ChangedError, Mark, Rows
from connectors.sdk.imports import Difference, Emitted, ImportRun

#: Names of imported files that are remembered, to know a late one; the oldest are forgotten first.
REMEMBERED = 200
#: Files that one look at the shelf finds, the next ones in order; the others are found when these are taken.
FOUND_AT_ONCE = 100
#: Rows that were compared and not changed after which the place is stored all the same.
UNCHANGED_ROWS = 5000
#: Pieces of rows that are on their way to the disk while the next one is read.
UNDER_WAY = 4
#: How often a run says how far it is, in microseconds.
TELL_US = 3_000_000
#: How often a file is compared anew without having come any further; then it changes faster than it can be read.
TOUCHES = 5


class FileImport(Import):
    """What every import of files is configured with: which ones, what they look like, and what is taken of them."""

    file: str | None = Field(None, max_length=1024, description="The file to import; of several, the first one.")
    prefix: str | None = Field(
        None,
        max_length=1024,
        description="Imports all files whose names are this, a moment, and an ending (`orders-2026-01-31.csv.gz`), in "
        "the order of the moments. Without it: what stands before the moment in `file`.",
    )
    regex: bool = Field(default=False, description="The prefix is a regular expression (RE2).")
    continuous: bool = Field(default=False, description="Goes on with the next file whenever it comes.")
    format: Literal["auto", "csv", "ndjson"] = Field("auto", description="auto: by the file's ending.")
    delimiter: Delimiter = Field(
        "", max_length=100, description="CSV: the first character counts; t is the tab; comma when empty."
    )
    header: bool = Field(default=True, description="CSV: the first row has the names of the columns.")
    columns: tuple[str, ...] | None = Field(None, description="CSV without a header: names of the columns.")
    encoding: str = Field("utf-8", max_length=50, description="Of the text, where no byte order mark says it.")
    diff: bool = Field(default=False, description="Import only rows that the import before did not have.")
    poll_seconds: float = Field(30.0, ge=1, le=86_400, description="How often to look for a file that has not come.")
    settle_seconds: float = Field(
        2.0, ge=0, le=86_400, description="A file is taken when it was not written to for so long."
    )
    warn_after_hours: float = Field(25.0, gt=0, description="Says so, loudly, when the next file is so late.")

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        return encoding_of(encoding)

    @model_validator(mode="after")
    def _check(self) -> FileImport:
        if self.file is None and self.prefix is None:
            raise ValueError("name a file, or a prefix of files")
        if self.regex and self.prefix is None:
            raise ValueError("regex: name the prefix that is a regular expression")
        if self.header == (self.columns is not None):
            raise ValueError("columns: name them where the files have no header, and only there")
        if self.prefix is not None:
            reader(self.prefix, regex=self.regex)
        elif self.continuous and prefix_of(self.file or "") is None:
            raise ValueError("continuous: there is no moment in the file's name by which the next could be known")
        return self

    @property
    def sequence(self) -> bool:
        """Whether files are imported one after the other, by the moments in their names."""
        return self.prefix is not None or self.continuous

    @property
    def begins(self) -> str:
        """What stands before the moments in the files' names."""
        return self.prefix if self.prefix is not None else prefix_of(self.file or "") or ""


class Entry(NamedTuple):
    """A file on the shelf, by the moment in its name (0 of a file that was named)."""

    at_us: int
    name: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the import is; it is the checkpoint."""

    current: Entry | None = None  # the file under way
    mark: Mark = START
    identity: Identity | None = None  # of the file under way, else of the last one
    attempt: int = 0  # counts files begun, so that each has a name of its own to be compared under
    done: tuple[Entry, ...] = ()  # in order
    since_us: int = 0  # since when the next file is waited for
    warned: bool = False

    def as_json(self) -> dict[str, Any]:
        """Gives it as a JSON value."""
        return {
            "current": None if self.current is None else list(self.current),
            "mark": self.mark.as_json(),
            "identity": None if self.identity is None else list(self.identity),
            "attempt": self.attempt,
            "done": [list(each) for each in self.done],
            "since_us": self.since_us,
            "warned": self.warned,
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Progress:
        """Reads what `as_json` gave."""
        return cls(
            current=Entry(*value["current"]) if value["current"] else None,
            mark=Mark.of_json(value["mark"]),
            identity=tuple(value["identity"]) if value["identity"] else None,
            attempt=value["attempt"],
            done=tuple(Entry(*each) for each in value["done"]),
            since_us=value["since_us"],
            warned=value["warned"],
        )


async def bring(run: ImportRun[Any], config: FileImport, shelf: Shelf) -> None:
    """Imports the files of a shelf that are there; waits for what is not there yet."""
    await _Import(run, config, shelf).run()


class _Import:
    def __init__(self, run: ImportRun[Any], config: FileImport, shelf: Shelf) -> None:
        self._run = run
        self._config = config
        self._shelf = shelf
        self._moment = reader(config.begins, regex=config.regex)
        self._found: list[Entry] = []  # those to come, the next one last
        self._found_us = 0  # when; late ones that came since are looked for before long
        self._taken = 0  # files, by this run
        self._progress = Progress(since_us=run.now_us())
        if run.checkpoint is not None:
            self._progress = Progress.of_json(run.checkpoint)

    async def run(self) -> None:
        if not self._config.sequence:
            await self._one(Entry(0, self._config.file or ""))
            return
        while True:
            entry = self._progress.current or await self._next()
            if entry is None:
                return
            await self._take(entry)

    async def _one(self, entry: Entry) -> None:
        """Imports the file that was named; on a schedule again whenever it is another."""
        progress = self._progress
        if progress.current is None:
            try:
                found = await self._shelf.look(entry.name)
            except FileNotFoundError:
                await self._wait(f"{entry.name} in {self._shelf.where}")
            else:
                if progress.done and found.identity == progress.identity:
                    self._run.log.info("file_unchanged", file=entry.name)
                    return
                self._must_be_settled(entry.name, found)
        await self._take(entry)

    async def _next(self) -> Entry | None:
        """Gives the file to import next; None when there is none and none is waited for. Raises NotYetError."""
        done = self._progress.done
        while True:
            now_us = self._run.now_us()
            if not self._found or now_us - self._found_us > self._config.poll_seconds * 1e6:
                self._found, self._found_us = await self._listed(), now_us
            if not self._found:
                break
            entry = self._found[-1]
            try:
                found = await self._shelf.look(entry.name)
            except FileNotFoundError:  # since it was listed
                self._found.pop()
                continue
            self._must_be_settled(entry.name, found)
            if done and entry < done[-1]:
                self._run.log.warning("file_late", file=entry.name, after=done[-1].name)
            return self._found.pop()
        if done and not self._config.continuous and (self._taken or not self._run.repeats):
            return None
        behind = f", the next after {done[-1].name}" if done else ""
        await self._wait(f"a file {self._config.begins}… in {self._shelf.where}{behind}")
        return None

    async def _listed(self) -> list[Entry]:
        """Gives the next files whose names are as configured and that were not imported, the first one last."""
        done = self._progress.done
        known = set(done)
        # With so many done, what is older than all that are remembered was imported, or not.
        after = done[0] if len(done) >= REMEMBERED else None
        first = None if self._config.file is None else Entry(self._moment(self._config.file) or 0, self._config.file)
        found: list[Entry] = []
        async for page in self._shelf.pages("" if self._config.regex else self._config.begins):
            for name in page:
                at_us = self._moment(name)
                if at_us is None or (entry := Entry(at_us, name)) in known:
                    continue
                if (after is None or entry > after) and (first is None or entry >= first):
                    found.append(entry)
            found = sorted(found)[:FOUND_AT_ONCE]
        return found[::-1]

    async def _wait(self, what: str) -> None:
        """Says what is waited for, loudly once it is late, and sleeps."""
        waited_s = (self._run.now_us() - self._progress.since_us) / 1e6
        late = waited_s > self._config.warn_after_hours * 3600
        if late and not self._progress.warned:
            self._progress = replace(self._progress, warned=True)
            await self._run.save(self._progress.as_json())
            self._run.log.warning("file_overdue", awaited=what, hours=round(waited_s / 3600, 1))
        raise NotYetError(
            f"waits for {what}" + (f"; for {_in_words(waited_s)} now" if late else ""),
            again_s=self._config.poll_seconds,
        )

    def _must_be_settled(self, name: str, found: Found) -> None:
        age_s = self._run.now_us() / 1e6 - found.modified_s
        if 0 <= age_s < self._config.settle_seconds:
            raise NotYetError(f"{name} is still being written", again_s=self._config.settle_seconds - age_s + 0.05)

    # --- one file

    async def _take(self, entry: Entry) -> None:
        """Imports one file, from where the import is in it."""
        if self._progress.current is None:
            self._begin(entry)
        touched_at, touches = START, 0
        while True:
            try:
                await self._read(entry.name)
            except TouchedError:
                mark = self._progress.mark
                touched_at, touches = mark, touches + 1 if mark == touched_at else 1
                if touches >= TOUCHES:
                    raise TransientError(f"{entry.name} changes faster than it can be read") from None
                self._run.log.info("file_touched", file=entry.name, rows=mark.row)
                self._progress = replace(self._progress, identity=None)
            except ChangedError as error:
                self._run.log.warning("file_replaced", file=entry.name, rows=self._progress.mark.row, reason=str(error))
                self._begin(entry)
            except FileNotFoundError:
                rows = self._progress.mark.row
                await self._wait(f"{entry.name} in {self._shelf.where}, of which {rows} rows are in")
            except PackingError as error:
                if "not complete" in str(error):  # it may still be coming
                    raise TransientError(f"{entry.name}: {error}") from error
                raise ConfigError(f"{entry.name}: {error}") from error
            except ValueError as error:
                raise ConfigError(f"{entry.name}: {error}") from error
            else:
                break
        self._taken += 1
        progress = self._progress
        self._run.log.info("file_imported", file=entry.name, rows=progress.mark.row)
        done = tuple(sorted({*progress.done, entry}))[-REMEMBERED:]
        self._progress = Progress(
            identity=progress.identity, attempt=progress.attempt, done=done, since_us=self._run.now_us()
        )
        await self._run.save(self._progress.as_json())

    def _begin(self, entry: Entry) -> None:
        self._progress = replace(
            self._progress, current=entry, mark=START, identity=None, attempt=self._progress.attempt + 1
        )

    async def _read(self, name: str) -> None:
        config, progress = self._config, self._progress
        async with AsyncExitStack() as stack:
            difference = None
            if config.diff:
                difference = await stack.enter_async_context(self._run.difference(f"{name} {progress.attempt}"))
            opened = await stack.enter_async_context(self._shelf.open(name))
            source = Source(name, config.format, config.encoding, delimiter_of(config.delimiter))
            source.begin(opened, progress.mark, progress.identity, config.columns)
            self._progress = replace(progress, identity=source.identity)
            await self._emit(source, difference)
            await self._run.tell("")
            if difference is not None:
                await difference.complete()

    async def _emit(self, source: Source, difference: Difference | None) -> None:
        stored = self._progress.mark.row
        checked = False
        told_us = self._run.now_us()
        under_way: deque[Awaitable[Emitted]] = deque()
        while (rows := await _settling(source.step(), under_way)) is not None:
            if not checked and source.form == "csv" and source.columns:
                self._check_columns(source.columns)
                checked = True
            if rows.mark == self._progress.mark and not rows.rows and not rows.refusals:
                continue
            self._progress = replace(self._progress, mark=rows.mark)
            if difference is not None:
                rows = await _changed(rows, difference)
            if rows.rows or rows.refusals or rows.mark.row - stored >= UNCHANGED_ROWS:
                checkpoint = self._progress.as_json()
                under_way.append(
                    await self._run.hand_over(rows.rows, checkpoint, lines=rows.lines, refused=rows.refusals)
                )
                stored = rows.mark.row
                if len(under_way) > UNDER_WAY:
                    await under_way.popleft()
            if self._run.now_us() - told_us > TELL_US:
                told_us = self._run.now_us()
                await self._run.tell(f"reads {source.name}: {rows.mark.row:,} rows so far")
        while under_way:
            await under_way.popleft()

    def _check_columns(self, columns: Sequence[str]) -> None:
        time_field = self._config.timestamp_field
        if time_field is not None and time_field not in columns:
            raise ValueError(f"timestamp_field {time_field!r} is not a column; the columns are {_named(columns)}")
        lacking = [name for name in self._config.fields or () if name not in columns]
        if lacking:
            raise ValueError(f"fields {', '.join(lacking)}: no such columns; the columns are {_named(columns)}")


async def _settling(step: Awaitable[Rows | None], under_way: deque[Awaitable[Emitted]]) -> Rows | None:
    """Gives what a step gives; where it fails, once all rows before it are durable."""
    try:
        return await step
    except Exception:
        while under_way:
            await under_way.popleft()
        raise


async def _changed(rows: Rows, difference: Difference) -> Rows:
    places = await difference.changed(rows.rows)
    return rows._replace(rows=[rows.rows[at] for at in places], lines=[rows.lines[at] for at in places])


def _in_words(seconds: float) -> str:
    return f"{seconds / 3600:.0f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _named(columns: Sequence[str]) -> str:
    return ", ".join(columns[:50]) + (" …" if len(columns) > 50 else "")
