"""`files_export_audience`: who is in an audience, and who comes and goes, as files of CSV or NDJSON.

First, if asked for, all members as of one moment; then, from that moment on, those who enter (or leave), a file for
each look: nobody is missing between the two and nobody doubled. Where the export is, is saved with every file that has
appeared: after a crash the file under way is written anew, under the same name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from connectors.files.folder import Disk, Folder, Prefix
from connectors.sdk.declare import AudienceExport, AudienceJob
from connectors.sdk.errors import NotYetError
from connectors.sdk.exports import AudienceRun, ForgottenError
from connectors.sdk.formats.compression import Compression, Packer
from connectors.sdk.formats.delimiters import Delimiter, delimiter_of
from connectors.sdk.formats.names import moment_text
from connectors.sdk.formats.rows import CsvText, json_line

#: The largest file, in bytes, when nobody says.
LARGEST_FILE = 5_368_709_120
#: What stands before the fields of a change, where exits are written too.
CHANGE_COLUMNS = ("_event", "_audience", "_at")
#: Endings of files' names.
ENDINGS: Mapping[Compression, str] = {"none": "", "gzip": ".gz", "zip": ".zip"}

_STAMP = "YYYYMMDDTHHmmssSSS"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FilesExportAudience(AudienceExport):
    """Which folder, what of whom, and in what form."""

    folder: Folder = Field(description="Folder of the files; a relative one lies in the data directory's exports/.")
    prefix: Prefix = Field("audience", description="Beginning of the files' names.")
    format: Literal["json", "csv"] = Field("json", description="json: a line of JSON each.")
    compression: Compression = Field("none", description="How the files are packed.")
    delimiter: Delimiter = Field("", max_length=100, description="CSV: the first character counts; t is the tab.")
    join: str = Field("|", max_length=10, description="CSV: between the elements of a list; maps are URL-encoded.")
    header: bool = Field(default=True, description="CSV: the first row has the names of the columns.")
    existing_users: bool = Field(default=True, description="Begin with those who are members already.")
    events: Literal["enters", "exits", "both"] = Field(
        "enters",
        description="Who is written after that. With exits, _event, _audience and _at say what happened.",
    )
    one_time: bool = Field(default=False, description="Ends when the members of now are written.")
    full: bool = Field(default=False, description="Every time all members, and not what changed.")
    every_seconds: float = Field(
        3600.0, ge=1, le=2_678_400, description="Without a schedule: how often to write who came, in seconds."
    )
    max_file_bytes: int = Field(LARGEST_FILE, ge=1, description="A file goes on in the next one before it is larger.")

    @model_validator(mode="after")
    def _check(self) -> FilesExportAudience:
        if (self.one_time or self.full) and not self.existing_users:
            raise ValueError("existing_users: nobody would be written; leave it on with one_time and full")
        return self


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

    def as_json(self) -> dict[str, Any]:
        """Gives it as a JSON value."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Progress:
        """Reads what `as_json` gave."""
        return cls(**{**value, "columns": tuple(value["columns"])})


class _Row(NamedTuple):
    """What becomes a row, and the place behind it."""

    place: int
    fields: Mapping[str, Any]


async def run(run: AudienceRun[FilesExportAudience]) -> None:
    """Writes what there is to write; ends, or sleeps until the next time."""
    config = run.config
    export = _Export(run)
    await export.prepare()
    try:
        await export.go()
    finally:
        export.disk.discard()
    if not config.one_time and not run.repeats:
        raise NotYetError("written; the next file comes later", again_s=config.every_seconds)


class _Export:
    def __init__(self, run: AudienceRun[FilesExportAudience]) -> None:
        self._run = run
        self._config = run.config
        self._stem = f"{run.config.prefix}-{run.job}"
        self.disk = Disk(run.exports / run.config.folder, self._stem)
        self._text: CsvText | None = None
        self._progress = Progress("idle", 0)

    async def prepare(self) -> None:
        """Makes the folder."""
        try:
            await self.disk.prepare()
        except BaseException:
            self.disk.discard()
            raise

    async def go(self) -> None:
        """Writes the phase that is under way, or the next one."""
        run, config = self._run, self._config
        first = run.checkpoint is None
        if not first:
            self._progress = Progress.of_json(run.checkpoint)
        if first or self._progress.phase == "idle":
            moment = await run.moment()
            if config.full or (first and config.existing_users):
                await self._begin_members(moment)
            elif first:
                await self._save(Progress("idle", moment))
            else:
                await self._begin(replace(self._progress, phase="changes", upto=moment))
        while self._progress.phase != "idle":
            try:
                await self._write()
            except ForgottenError as error:
                self.disk.discard()
                self.disk = Disk(run.exports / config.folder, self._stem)
                run.log.warning("export_begun_anew", reason=str(error))
                await self._begin_members(await run.moment())

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

    async def _write(self) -> None:
        """Writes the files of a phase, from where it is."""
        if self._config.format == "csv":
            delimiter = delimiter_of(self._config.delimiter)
            self._text = CsvText(
                self._progress.columns, delimiter=delimiter, join=self._config.join or None, maps="url"
            )
        count = 0
        async for page in self._members() if self._progress.phase == "members" else self._changes():
            count += len(page)
            at = 0
            while at < len(page):
                at += await self._put(page[at:])
        if self.disk.writing:
            await self._finish(self._progress.after)
        self._run.count(added=count)
        done = self._progress
        after = done.moment if done.phase == "members" else done.upto
        self._run.log.info("audience_exported", phase=done.phase, rows=count)
        await self._save(replace(done, phase="idle", moment=after, upto=0, after=0))

    async def _members(self) -> AsyncIterator[Sequence[_Row]]:
        fields = self._config.user_fields
        progress = self._progress
        async for page in self._run.members(progress.moment, fields=fields, after=progress.after):
            yield [_Row(each.profile, each.fields) for each in page]

    async def _changes(self) -> AsyncIterator[Sequence[_Row]]:
        config, progress = self._config, self._progress
        after = max(progress.moment, progress.after)
        async for page in self._run.changes(after, progress.upto, fields=config.user_fields):
            rows = []
            for each in page.changes:
                if config.events in {"both", f"{each.event}s"}:
                    fields = each.fields
                    if config.events != "enters":
                        at = (_EPOCH + timedelta(microseconds=each.at_us)).isoformat().replace("+00:00", "Z")
                        fields = {"_event": each.event, "_audience": each.audience, "_at": at, **fields}
                    rows.append(_Row(each.trigger, fields))
            yield rows

    async def _put(self, rows: Sequence[_Row]) -> int:
        """Writes as many of the rows as the file takes, at least one; says how many."""
        if not self.disk.writing:
            await self._open()
        text = self._text
        room = self._config.max_file_bytes - self.disk.size
        empty = self.disk.size <= (len(text.header()) if text is not None and self._config.header else 0)
        taken = 0

        def lines() -> bytes:
            nonlocal taken
            pieces: list[bytes] = []
            size = 0
            for row in rows:
                line = json_line(row.fields) if text is None else text.row(row.fields)
                if size + len(line) > room and (pieces or not empty):
                    break
                pieces.append(line)
                size += len(line)
            taken = len(pieces)
            return b"".join(pieces)

        await self.disk.write(lines)
        if taken:
            self._progress = replace(self._progress, after=rows[taken - 1].place)
        if taken < len(rows):
            await self._finish(self._progress.after)
        return taken

    async def _open(self) -> None:
        config = self._config
        ending = "csv" if config.format == "csv" else "ndjson"
        stamp = moment_text(self._progress.stamp_us, _STAMP)
        name = f"{self._stem}-{stamp}-{self._progress.part:04d}.{ending}"
        await self.disk.begin(name + ENDINGS[config.compression], Packer(config.compression, name))
        if self._text is not None and config.header:
            await self.disk.write(self._text.header())

    async def _finish(self, after: int) -> None:
        name, size = await self.disk.finish()
        self._run.log.info("file_written", file=name, bytes=size)
        await self._save(replace(self._progress, after=after, part=self._progress.part + 1))


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
