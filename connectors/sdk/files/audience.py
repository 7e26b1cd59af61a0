"""Who is in an audience, and who comes and goes, as files of CSV or NDJSON in a store.

First, if asked for, all members as of one moment; then, from that moment on, those who enter (or leave), in a file
whenever there is enough to write or it has waited long enough: nobody is missing between the two and nobody doubled.
Where the export is, is saved with every file that has appeared: after a crash the file under way is written anew, under
the same name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, TypeVar

from anyio.to_thread import run_sync
from pydantic import Field, model_validator

from connectors.sdk.declare import AudienceExport, Config
from connectors.sdk.errors import NotYetError
from connectors.sdk.exports import AudienceRun, Change, ForgottenError
from connectors.sdk.files.output import LARGEST_FILE, Output, packed
from connectors.sdk.formats.compression import Compression, Stage
from connectors.sdk.formats.delimiters import Delimiter, delimiter_of
from connectors.sdk.formats.names import moment_text
from connectors.sdk.formats.rows import CsvText, json_line

#: What stands before the fields of a change, where exits are written too.
CHANGE_COLUMNS: Final = ("_event", "_audience", "_at")
#: How often to look for changes that are to be written when there are enough of them, at most, in seconds.
LOOK_S: Final = 60.0
#: How often a run says how far it is, in microseconds.
TELL_US: Final = 3_000_000

_STAMP = "YYYYMMDDTHHmmssSSS"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AudienceFiles(AudienceExport):
    """What of whom is written, and how large a file may be."""

    compression: Compression = Field("none", description="How the files are packed.")
    existing_users: bool = Field(default=True, description="Begin with those who are members already.")
    events: Literal["enters", "exits", "both"] = Field(
        "enters",
        description="Who is written after that. With exits, _event, _audience and _at say what happened.",
    )
    one_time: bool = Field(default=False, description="Ends when the members of now are written.")
    full: bool = Field(default=False, description="Every time all members, and not what changed.")
    max_file_bytes: int = Field(LARGEST_FILE, ge=1, description="A file goes on in the next one before it is larger.")

    @model_validator(mode="after")
    def _check(self) -> AudienceFiles:
        if (self.one_time or self.full) and not self.existing_users:
            raise ValueError("existing_users: nobody would be written; leave it on with one_time and full")
        return self


class CsvLook(Config):
    """What CSV files look like."""

    delimiter: Delimiter = Field("", max_length=100, description="CSV: the first character counts; t is the tab.")
    join: str = Field("|", max_length=10, description="CSV: between the elements of a list; maps are URL-encoded.")
    header: bool = Field(default=True, description="CSV: the first row has the names of the columns.")


@dataclass(frozen=True, slots=True)
class Flush:
    """When changes are written without a schedule: the oldest is `age_s` old, or so many bytes of rows wait.

    bytes None: whenever the job looks, which it does every `age_s`.
    """

    age_s: float
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the export is; it is the checkpoint."""

    phase: Literal["members", "changes", "idle"]
    moment: int  # of the members; before the changes
    upto: int = 0  # the last of the changes
    after: int = 0  # members: the last profile written
    stamp_us: int = 0
    part: int = 1
    columns: tuple[str, ...] = ()
    #: Of the changes that wait to be written: up to which they are counted, their bytes, and since when.
    counted: int = 0
    waiting: int = 0
    since_us: int = 0

    def as_json(self) -> dict[str, Any]:
        """Gives it as a JSON value."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Progress:
        """Reads what `as_json` gave."""
        return cls(**{**value, "columns": tuple(value["columns"])})


class _Row(NamedTuple):
    """A row as it is written, and the place behind it."""

    place: int
    text: bytes


C = TypeVar("C", bound=AudienceFiles)


async def export_audience(
    run: AudienceRun[C],
    opened: Callable[[], AbstractAsyncContextManager[Output]],
    *,
    stem: str,
    csv: CsvLook | None,
    flush: Flush,
    seal: Callable[[], Stage] | None = None,
) -> None:
    """Writes what there is to write; ends, or sleeps until the next time.

    `opened` opens the store, ready to be written to. `stem` begins the files' names; the moment, the number of the part
    and the ending come behind it. `csv` None: NDJSON. `seal` makes what encrypts a file.
    """
    again_s = await _Export(run, opened, stem, csv, flush, seal).go()
    if not run.config.one_time and not run.repeats:
        raise NotYetError("written; the next file comes later", again_s=again_s)


class _Export:
    def __init__(
        self,
        run: AudienceRun[C],
        opened: Callable[[], AbstractAsyncContextManager[Output]],
        stem: str,
        csv: CsvLook | None,
        flush: Flush,
        seal: Callable[[], Stage] | None,
    ) -> None:
        self._run = run
        self._config: AudienceFiles = run.config
        self._opened = opened
        self._stem = stem
        self._csv = csv
        self._flush = flush
        self._seal = seal
        self._progress = Progress("idle", 0)
        self._rows = 0  # of the file under way

    async def go(self) -> float:
        """Writes the phase that is under way, or the next one; says when to come again, in seconds."""
        run = self._run
        first = run.checkpoint is None
        if not first:
            self._progress = Progress.of_json(run.checkpoint)
        if first or self._progress.phase == "idle":
            await self._next(first=first)
        while self._progress.phase != "idle":
            try:
                async with self._opened() as output:
                    await self._write(output)
            except ForgottenError as error:
                await self._anew(error)
        return self._flush.age_s if self._flush.bytes is None else min(self._flush.age_s, LOOK_S)

    async def _next(self, *, first: bool) -> None:
        """Decides what is to be written now."""
        moment = await self._run.moment()
        if self._config.full or (first and self._config.existing_users):
            await self._begin_members(moment)
        elif first:
            async with self._opened():  # what is wrong with it is told at once
                await self._save(Progress("idle", moment))
        else:
            try:
                enough = self._run.repeats or self._flush.bytes is None or await self._enough(moment)
            except ForgottenError as error:
                await self._anew(error)
                return
            if enough:
                await self._begin(
                    replace(self._progress, phase="changes", upto=moment, counted=0, waiting=0, since_us=0)
                )

    async def _enough(self, moment: int) -> bool:
        """Counts what changed up to a moment; says whether it is to be written, else raises NotYetError if anything is.

        What was counted before is not read again.
        """
        progress = self._progress
        waiting, since_us = progress.waiting, progress.since_us
        async for page in self._changes(max(progress.moment, progress.counted), moment):
            waiting += sum(len(row.text) for row in page)
            if page and not since_us:
                since_us = self._run.now_us()
        if not waiting:
            if moment != progress.moment:
                await self._save(replace(progress, moment=moment, counted=0))
            return False
        left_s = self._flush.age_s - (self._run.now_us() - since_us) / 1e6
        if left_s <= 0 or waiting >= (self._flush.bytes or 0):
            return True
        await self._save(replace(progress, counted=moment, waiting=waiting, since_us=since_us))
        raise NotYetError(
            f"{waiting:,} bytes of changes wait; they are written in {left_s:.0f} s, or as {self._flush.bytes:,} bytes",
            again_s=max(min(left_s, LOOK_S), 1.0),
        )

    async def _anew(self, error: ForgottenError) -> None:
        self._run.log.warning("export_begun_anew", reason=str(error))
        await self._begin_members(await self._run.moment())

    async def _begin_members(self, moment: int) -> None:
        await self._begin(Progress("members", moment))

    async def _begin(self, progress: Progress) -> None:
        """Begins a phase: its files have its time in their names, and the columns of now."""
        names = self._config.user_fields
        columns = tuple(names) if names is not None else tuple(self._run.columns())
        if progress.phase == "changes" and self._config.events != "enters":
            columns = (*CHANGE_COLUMNS, *columns)
        await self._save(replace(progress, stamp_us=self._run.now_us(), part=1, columns=columns))

    async def _save(self, progress: Progress) -> None:
        await self._run.save(progress.as_json())
        self._progress = progress

    async def _write(self, output: Output) -> None:
        """Writes the files of a phase, from where it is."""
        progress = self._progress
        count = 0
        told_us = self._run.now_us()
        pages = (
            self._members()
            if progress.phase == "members"
            else self._changes(max(progress.moment, progress.after), progress.upto)
        )
        async for page in pages:
            at = 0
            while at < len(page):
                at += await self._put(output, page[at:])
            count += len(page)
            if self._run.now_us() - told_us > TELL_US:
                told_us = self._run.now_us()
                await self._run.tell(f"writes {output.name}: {count:,} rows so far")
        if output.writing:
            await self._finish(output, self._progress.after)
        self._run.count(added=count)
        done = self._progress
        after = done.moment if done.phase == "members" else done.upto
        self._run.log.info("audience_exported", phase=done.phase, rows=count)
        await self._run.tell("")
        await self._save(replace(done, phase="idle", moment=after, upto=0, after=0))

    async def _members(self) -> AsyncIterator[Sequence[_Row]]:
        fields = self._config.user_fields
        progress = self._progress
        line = json_line if (text := self._csv_text()) is None else text.row
        async for page in self._run.member_lines(progress.moment, line, fields=fields, after=progress.after):
            yield [_Row(*each) for each in page]

    async def _changes(self, after: int, upto: int) -> AsyncIterator[Sequence[_Row]]:
        config = self._config
        line = json_line if (text := self._csv_text()) is None else text.row

        def made(changes: Sequence[Change]) -> list[_Row]:
            rows = []
            for each in changes:
                if config.events in {"both", f"{each.event}s"}:
                    fields = each.fields
                    if config.events != "enters":
                        at = (_EPOCH + timedelta(microseconds=each.at_us)).isoformat().replace("+00:00", "Z")
                        fields = {"_event": each.event, "_audience": each.audience, "_at": at, **fields}
                    rows.append(_Row(each.trigger, line(fields)))
            return rows

        async for page in self._run.changes(after, upto, fields=config.user_fields):
            yield await run_sync(made, page.changes)

    def _csv_text(self) -> CsvText | None:
        """Makes what writes CSV, with the columns of the phase."""
        if self._csv is None:
            return None
        delimiter = delimiter_of(self._csv.delimiter)
        return CsvText(self._progress.columns, delimiter=delimiter, join=self._csv.join or None, maps="url")

    async def _put(self, output: Output, rows: Sequence[_Row]) -> int:
        """Writes as many of the rows as the file takes, at least one; says how many."""
        if not output.writing:
            await self._open(output)
        room = self._config.max_file_bytes - output.size
        taken = len(rows)
        text = b"".join([row.text for row in rows])
        if len(text) > room:
            taken = _fitting(rows, room)
            if not taken and not self._rows:
                taken = 1  # it is larger than a file may be, and a file by itself
            text = b"".join([row.text for row in rows[:taken]])
        if taken:
            await output.write(text)
            self._rows += taken
            self._progress = replace(self._progress, after=rows[taken - 1].place)
        if taken < len(rows):
            await self._finish(output, self._progress.after)
        return taken

    async def _open(self, output: Output) -> None:
        ending = "ndjson" if self._csv is None else "csv"
        stamp = moment_text(self._progress.stamp_us, _STAMP)
        name = f"{self._stem}-{stamp}-{self._progress.part:04d}.{ending}"
        await output.begin(*packed(name, self._config.compression, self._seal))
        self._rows = 0
        text = self._csv_text()
        if self._csv is not None and self._csv.header and text is not None:
            await output.write(text.header())

    async def _finish(self, output: Output, after: int) -> None:
        name, size = await output.finish()
        self._run.log.info("file_written", file=name, bytes=size)
        await self._save(replace(self._progress, after=after, part=self._progress.part + 1))


def _fitting(rows: Sequence[_Row], room: int) -> int:
    """Says how many of the rows fit."""
    for count, row in enumerate(rows):
        room -= len(row.text)
        if room < 0:
            return count
    return len(rows)
