"""`azure_sql_import`: the rows of a table become events, oldest first; on a schedule, those that came since.

All of a run is on one connection: the rows to import are put into a temporary table, numbered in the order of the
timestamp column, and read from it page by page. Where the import is, is stored with the rows: the last timestamp, and
hashes of the rows taken that have it. The next run, after a crash or a month, begins with that timestamp and leaves out
those rows: of rows that share a timestamp none is lost and none comes twice.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field, field_validator, model_validator

from connectors.azure.sql import AZURE_SQL, SqlCredentials, connected
from connectors.azure.sql_columns import (
    LONGEST_BYTES,
    MOMENTS,
    Column,
    absent,
    columns_of,
    find_columns,
    find_moments,
    find_tables,
    quoted,
    table_name,
)
from connectors.azure.sql_driver import AbsentError
from connectors.azure.sql_rows import MOST_HASHES, Piece, Progress, Reader
from connectors.azure.sql_session import GRACE_S, Session
from connectors.sdk.declare import Choices, Import, ImportJob
from connectors.sdk.errors import AuthError, ConfigError
from connectors.sdk.imports import Emitted, ImportRun

#: Rows of one query of the temporary table.
PAGE_ROWS: Final = 10_000
MINUTE_S: Final = 60.0
#: Pieces of rows that are on their way to the disk while the next ones are read.
UNDER_WAY: Final = 4
#: How often a run says how far it is, in microseconds.
TELL_US: Final = 3_000_000

_NUMBER: Final = "n"
_AT: Final = "at"


class AzureSqlImport(Import):
    """Which table, in which order, from when on."""

    stream: str = Field(
        "azuresql_activity",
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_.\-]+$",
        description="Stream override: the stream of the events, made if there is none.",
    )
    table: Annotated[str, Choices("sql_tables", find_tables)] = Field(
        min_length=1, max_length=300, description="Table or view to import: orders, sales.orders, [sales].[my.orders]."
    )
    timestamp_column: Annotated[str, Choices("sql_timestamps", find_moments)] = Field(
        min_length=1,
        max_length=128,
        description="Column that orders the rows; with a schedule, a run imports what came after the last it saw.",
    )
    timestamp_field: Annotated[str, Choices("sql_columns", find_columns)] | None = Field(
        None,
        max_length=128,
        description="Record timestamp column: holds the times of the events. The timestamp column when not given.",
    )
    fields: tuple[Annotated[str, Choices("sql_columns", find_columns)], ...] | None = Field(
        None, description="Columns to import; all of them when not given."
    )
    since_timestamp: str | None = Field(
        None, description="Imports rows from this timestamp on: yyyy-mm-dd HH:MM:SS, UTC."
    )
    query_timeout_minutes: int = Field(
        60, ge=1, le=1440, description="How long a query may run, in minutes; then it is cancelled on the server."
    )

    @model_validator(mode="before")
    @classmethod
    def _times_of_events(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and not given.get("timestamp_field"):
            return {**given, "timestamp_field": given.get("timestamp_column")}
        return given

    @field_validator("table")
    @classmethod
    def _readable(cls, table: str) -> str:
        return table_name(table).shown

    @field_validator("since_timestamp")
    @classmethod
    def _moment(cls, since: str | None) -> str | None:
        if not since:
            return None
        for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"):
            try:
                when = datetime.strptime(since.strip().removesuffix("Z"), form)  # noqa: DTZ007  (UTC, as it says)
            except ValueError:
                continue
            return when.isoformat(" ")
        raise ValueError("since_timestamp: yyyy-mm-dd HH:MM:SS is accepted, in UTC, such as 2026-01-31 00:00:00")


async def run(run: ImportRun[AzureSqlImport]) -> None:
    """Imports what there is that was not imported."""
    if not isinstance(run.auth, SqlCredentials):
        raise AuthError("the job has no authorization of Azure SQL")
    await run.request()
    async with connected(run.auth, run.network) as session:
        await _Import(run, session).run()


class _Import:
    def __init__(self, run: ImportRun[AzureSqlImport], session: Session) -> None:
        self._run = run
        self._session = session
        self._table = table_name(run.config.table)
        self._progress = Progress() if run.checkpoint is None else Progress(**run.checkpoint)
        self._seconds = run.config.query_timeout_minutes * MINUTE_S
        job = run.job if re.fullmatch(r"[0-9a-f]{32}", run.job) else hashlib.md5(run.job.encode()).hexdigest()  # noqa: S324
        # In a statement that has no parameters: nothing but hexadecimal digits and decimal ones.
        self._temporary = quoted(f"#TMP_{job}_{run.now_us() * 1000:d}")

    async def run(self) -> None:
        run, config, session = self._run, self._run.config, self._session
        short_s = run.network.deadline_s
        await run.request()
        await session.rows(f"SET TEXTSIZE {LONGEST_BYTES}", short_s, "the settings of the connection")
        columns = await columns_of(session, self._table, short_s)
        chosen, moment = self._chosen(columns)
        await run.tell(f"selects the rows of {self._table.shown}" + self._from_when())
        total = await self._select(chosen, moment)
        reader = Reader(chosen, self._progress, run.job)
        imported = await self._read(reader, len(chosen), total)
        await run.tell("")
        facts: dict[str, Any] = {"table": self._table.shown, "rows": imported, "upto": self._progress.at}
        if run.repeats:
            facts["unseen"] = f"rows committed from now on with an earlier {config.timestamp_column}"
        run.log.info("table_imported", **facts)

    def _from_when(self) -> str:
        since = self._progress.at or self._run.config.since_timestamp
        return f" from {since} on" if since else ""

    def _chosen(self, columns: Sequence[Column]) -> tuple[list[Column], Column]:
        """Gives the columns to import, and the one that orders them. Raises ConfigError with what there is."""
        config = self._run.config
        names = {each.name: each for each in columns}
        there = f"the columns of {self._table.shown} are {', '.join(names)}"
        for what, wanted in (
            ("timestamp_column", config.timestamp_column),
            ("timestamp_field", config.timestamp_field),
        ):
            if wanted not in names:
                raise AbsentError(f"{what}: there is no column {wanted!r}; {there}")
        lacking = [name for name in config.fields or () if name not in names]
        if lacking:
            raise AbsentError(f"fields: there is no column {', '.join(map(repr, lacking))}; {there}")
        moment = names[config.timestamp_column]
        if moment.kind not in MOMENTS:
            fit = [each.name for each in columns if each.kind in MOMENTS]
            raise ConfigError(
                f"timestamp_column: {moment.name} is of type {moment.kind}; one of {', '.join(MOMENTS)} is accepted"
                + (f", here {', '.join(fit)}" if fit else "; there is none here")
            )
        kept = names if config.fields is None else {*config.fields, config.timestamp_field}
        return [each for each in columns if each.name in kept], moment

    async def _select(self, chosen: Sequence[Column], moment: Column) -> int:
        """Puts the rows to import into the temporary table, in order; gives how many there are, -1 if nobody knows."""
        selected = [f"{each.selected} AS {quoted(f'c{place}')}" for place, each in enumerate(chosen)]
        order = f"ROW_NUMBER() OVER (ORDER BY {quoted(moment.name)}) AS {quoted(_NUMBER)}"
        sql = (
            f"SELECT {', '.join([order, *selected, f'{moment.selected} AS {quoted(_AT)}'])}"  # noqa: S608  (all quoted)
            f" INTO {self._temporary} FROM {self._table}{self._where(moment)}"
        )
        index = f"CREATE UNIQUE CLUSTERED INDEX {quoted('cohortd')} ON {self._temporary} ({quoted(_NUMBER)})"
        session, seconds, what = self._session, self._seconds, f"the selection of {self._table.shown}"
        await self._run.request()
        try:
            total = await session.call(lambda: session.execute(sql, seconds).rowcount, seconds + GRACE_S, what)
        except AbsentError:
            raise await absent(session, self._table, self._run.network.deadline_s) from None
        await self._run.request()
        await session.rows(index, seconds, what)
        return int(total)

    def _where(self, moment: Column) -> str:
        """Gives the condition of the rows to import: from the last timestamp on, which is compared as what it is."""
        column, at, since = quoted(moment.name), self._progress.at, self._run.config.since_timestamp
        if at is not None:
            text, kind = at.removesuffix("Z"), MOMENTS[moment.kind]
        elif since is not None:
            text, kind = since.replace(" ", "T"), "datetime2(7)" if moment.kind == "date" else MOMENTS[moment.kind]
        else:
            return ""
        if moment.kind == "datetimeoffset":
            text += "+00:00"
        if not re.fullmatch(r"[0-9T:.+-]+", text):
            raise ConfigError(f"{text[:50]!r} is no timestamp")
        return f" WHERE {column} >= CAST('{text}' AS {kind})"

    async def _read(self, reader: Reader, width: int, total: int) -> int:
        """Reads the temporary table page by page and hands its rows over; gives how many."""
        run, session = self._run, self._session
        short_s = run.network.deadline_s
        what = f"rows of {self._table.shown}"
        names = ", ".join([*(quoted(f"c{place}") for place in range(width)), quoted(_AT)])
        read = imported = 0
        told_us = run.now_us()
        under_way: deque[Awaitable[Emitted]] = deque()
        while True:
            number = quoted(_NUMBER)
            sql = (
                f"SELECT {names} FROM {self._temporary}"  # noqa: S608  (all quoted)
                f" WHERE {number} > {read:d} AND {number} <= {read + PAGE_ROWS:d} ORDER BY {number}"
            )
            await run.request()
            begun = read
            coming = session.start(lambda sql=sql: reader.first(session.execute(sql, short_s)))  # type: ignore[misc]
            while (piece := await _settling(session.result(coming, short_s + GRACE_S, what), under_way)) is not None:
                coming = session.start(reader.next)  # while these become durable
                read += piece.read
                if piece.rows or piece.refused:
                    checkpoint = piece.progress.as_json()
                    under_way.append(
                        await run.hand_over(piece.rows, checkpoint, lines=piece.lines, refused=piece.refused)
                    )
                    imported += len(piece.rows)
                    if len(under_way) > UNDER_WAY:
                        await under_way.popleft()
                if piece.progress.crowded and not self._progress.crowded:
                    run.log.warning("timestamp_crowded", at=piece.progress.at, hashes=MOST_HASHES)
                self._progress = piece.progress
                if run.now_us() - told_us > TELL_US:
                    told_us = run.now_us()
                    of = f" of {total:,}" if total >= 0 else ""
                    await run.tell(f"reads {self._table.shown}: {read:,}{of} rows so far")
            if read < begun + PAGE_ROWS:
                break
        while under_way:
            await under_way.popleft()
        return imported


async def _settling(coming: Awaitable[Piece | None], under_way: deque[Awaitable[Emitted]]) -> Piece | None:
    """Gives what comes; where that fails, once all rows before it are durable."""
    try:
        return await coming
    except Exception:
        while under_way:
            await under_way.popleft()
        raise


AZURE_SQL_IMPORT = ImportJob(
    slug="azure_sql_import",
    label="Import SQL table",
    description="Takes the rows of a table or view of an Azure SQL Database in as events, oldest first: once, or on a "
    "schedule those that came since.",
    direction="import",
    config=AzureSqlImport,
    run=run,
    auths=(AZURE_SQL,),
    auth_required=True,
    schedule="optional",
)
