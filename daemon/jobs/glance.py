"""A dry run of what is no message: the first rows that an import would bring, or an export would write.

An import's own code reads them, from the real source, and is ended when there are enough; nothing of it is kept. An
export is shown what it would be given, since its own code would write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from connectors.sdk.declare import AudienceJob, EventsJob, ImportJob, JobType
from connectors.sdk.errors import ConfigError, NotYetError, TransientError, gravest
from connectors.sdk.exports import LOG_START
from connectors.sdk.imports import Emitted, ImportRun, Row, Stored
from connectors.sdk.run import Network, Patience
from daemon import clock, log
from daemon.jobs.dryrun import Untold
from daemon.jobs.parts import Data, OpenedAuth
from daemon.jobs.references import resolve
from daemon.settings import Settings
from streams.event import Refusal

#: Rows that are shown, at most.
MOST = 10


class Glance(NamedTuple):
    """The first rows, the first refusals, and, where the source could not be read, the connector's word."""

    rows: Sequence[Mapping[str, Any]]
    refused: Sequence[Refusal] = ()
    error: str = ""


async def look(kind: JobType[Any], config: Any, opened: OpenedAuth | None, data: Data, settings: Settings) -> Glance:
    """Gives the first rows of a job that is an import, or an export of members or events."""
    match kind:
        case ImportJob():
            return await _imported(kind, config, opened, settings)
        case AudienceJob():
            return await _members(data, config)
        case EventsJob():
            return await _events(data, config)
    raise TypeError(f"{kind.slug} has no rows")


async def _members(data: Data, config: Any) -> Glance:
    source = data.members(config)
    try:
        async for page in source.members(await source.moment(), fields=config.user_fields, after=0):
            return Glance([each.fields for each in page[:MOST]])
    except ConfigError as error:
        return Glance((), error=str(error))
    return Glance(())


async def _events(data: Data, config: Any) -> Glance:
    source = data.events(config)
    rows: list[Mapping[str, Any]] = []
    pages = source.events(config.streams, start_us=None, end_us=None, after=LOG_START, upto=await source.place())
    async for page in pages:
        for each in page.events:
            at, received = clock.from_us(each.at_us), clock.from_us(each.received_us)
            rows.append({"stream": each.stream, "at": at, "received": received, "fields": each.fields})
        if len(rows) >= MOST:
            break
    return Glance(rows[:MOST])


class _Enough:
    """Takes the first rows, and lets the run wait from then on."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.refused: list[Refusal] = []
        self.full = asyncio.Event()

    async def hand_over(
        self, rows: Sequence[Row], checkpoint: object, *, lines: Sequence[int] = (), refused: Sequence[Refusal] = ()
    ) -> Stored:
        """Keeps what is shown."""
        del checkpoint, lines
        self.rows += rows[: MOST - len(self.rows)]
        self.refused += refused[: MOST - len(self.refused)]
        if len(self.rows) >= MOST or len(self.refused) >= MOST:
            self.full.set()
            await asyncio.Event().wait()  # the run is ended here
        return Stored(Emitted(len(rows), len(refused), 0))

    async def save(self, checkpoint: object) -> None:
        """Keeps nothing."""

    @asynccontextmanager
    async def difference(self, name: str) -> AsyncIterator[_All]:
        """Compares with nothing: every row is shown as changed."""
        del name
        yield _All()


class _All:
    async def changed(self, rows: Sequence[Row]) -> Sequence[int]:
        return range(len(rows))

    async def complete(self) -> None:
        return None


async def _imported(kind: ImportJob[Any], config: Any, opened: OpenedAuth | None, settings: Settings) -> Glance:
    jobs = settings.jobs
    sink = _Enough()
    run = ImportRun(
        sink=sink,
        job="dryrun",
        config=config,
        log=log.get(job="dryrun", job_type=kind.slug),
        secret=resolve,
        exports=settings.data_dir / Path("exports"),
        imports=settings.data_dir / Path("imports"),
        spool=settings.data_dir / Path("spool"),
        now_us=clock.now_us,
        control=Untold(opened),
        network=Network(jobs.request_timeout_s, jobs.allow_loopback, jobs.allow_private),
        patience=Patience(total_s=0.0),
        auth=None if opened is None else opened.credentials,
    )
    running = asyncio.ensure_future(kind.run(run))
    waiting = asyncio.ensure_future(sink.full.wait())
    try:
        ended, _ = await asyncio.wait(
            [running, waiting], timeout=jobs.request_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        waiting.cancel()
        running.cancel()
        await asyncio.wait([running], timeout=jobs.stop_s)
    error = running.exception() if running in ended and not running.cancelled() else None
    if isinstance(error, BaseExceptionGroup):
        error = gravest(error)
    if error is not None and opened is not None:
        opened.cleanse(error)
    words = "" if ended else f"no {MOST} rows came within {jobs.request_timeout_s:g} s"
    match error:
        case None:
            pass
        case ConfigError() | TransientError() | NotYetError():
            words = str(error)
        case _:
            log.get().error("run_crashed", error=str(error), exc_info=error)
            words = f"{type(error).__name__}: {error}"
    names = None if config.fields is None else {*config.fields, config.timestamp_field}
    shown = [row if names is None else {key: row[key] for key in row if key in names} for row in sink.rows]
    return Glance(shown, sink.refused, words)
