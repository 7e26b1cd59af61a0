"""One run of a job: opening what it may use, and calling the connector with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from connectors.sdk.declare import AudienceJob, Config, EventsJob, ImportJob, JobType, SystemJob, TriggerJob
from connectors.sdk.errors import ConfigError, NotYetError
from connectors.sdk.exports import AudienceRun, EventsRun
from connectors.sdk.imports import ImportRun
from connectors.sdk.run import Attempt, Network, Patience, TriggerRun
from daemon import clock
from daemon.jobs import alerts
from daemon.jobs.parts import Dropped, OpenedAuth, Parts
from daemon.jobs.references import resolve
from daemon.model.subscription import Outcome
from daemon.settings import Settings
from daemon.store import jobs as stored
from daemon.store.database import Database
from daemon.store.jobs import JobRow


@dataclass(frozen=True, slots=True)
class Running:
    """What all runs of one job have in common."""

    job_type: JobType[Any]
    config: Config
    subscription_id: str | None
    state: Database
    parts: Parts
    settings: Settings
    #: Runs of imports and exports that may go on at once; those of triggers go on all the time and are not counted.
    places: asyncio.Semaphore

    async def run(
        self,
        row: JobRow,
        run_id: str,
        logger: FilteringBoundLogger,
        on_delivered: Callable[[], None],
        dropped: Dropped | None,
    ) -> bool:
        """Runs the job once; says whether nothing is left to do, whatever its schedule.

        Raises what the connector raises, and ConfigError where what it needs is not there.
        """
        async with AsyncExitStack() as stack:
            opened = await self._authorization(row)
            if opened is not None:
                stack.push(partial(_cleanse, opened))
            control = _Control(row, run_id, self, opened)
            stack.push(partial(_answered, control, on_delivered))
            if not isinstance(self.job_type, TriggerJob | SystemJob):
                if self.places.locked():
                    await control.tell(f"waits for others: {self.settings.jobs.runs_at_once} imports and exports run")
                await stack.enter_async_context(self.places)
                await control.tell("")
            common = self._common(row, logger, control, opened)
            match self.job_type:
                case TriggerJob(run=run):
                    if self.subscription_id is None:
                        raise ConfigError("the job has no subscription; create it anew")
                    source = await stack.enter_async_context(
                        self.parts.bus.attach(self.subscription_id, logger, on_delivered, dropped, run_id)
                    )
                    await run(TriggerRun(source=source, **common))
                case ImportJob(run=run):
                    rows = await stack.enter_async_context(self._data.rows(row.id, common["config"], logger))
                    await run(ImportRun(sink=rows.sink, **(common | {"checkpoint": rows.checkpoint})))
                case AudienceJob(run=run):
                    members = self._data.members(common["config"])
                    await run(AudienceRun(source=members, **(common | await self._checkpoint(row))))
                case EventsJob(run=run):
                    events = self._data.events(common["config"])
                    await run(EventsRun(source=events, **(common | await self._checkpoint(row))))
                case SystemJob(run=run):
                    checkpoint = await self._checkpoint(row)
                    lent = await alerts.source(
                        row.id, common["config"], checkpoint["checkpoint"], self._system, control.save, control.told
                    )
                    await run(TriggerRun(source=lent, **(common | checkpoint)))
                case _:
                    raise ConfigError(f"job type {row.job_type} is of no kind that this cohortd knows")
        return control.finished

    async def _authorization(self, row: JobRow) -> OpenedAuth | None:
        if row.auth_id is None:
            return None
        if self.parts.authorizations is None:
            raise ConfigError("this daemon keeps no authorizations")
        return await self.parts.authorizations.opened(row.auth_id)

    @property
    def _data(self) -> Any:
        if self.parts.data is None:
            raise ConfigError("this daemon has no log and no profiles to offer")
        return self.parts.data

    @property
    def _system(self) -> alerts.Source:
        if self.parts.system is None:
            raise ConfigError("this daemon has no system events to offer")
        return self.parts.system

    async def _checkpoint(self, row: JobRow) -> dict[str, object]:
        return {"checkpoint": await self.state.read(lambda db: stored.checkpoint(db, row.id))}

    def _common(
        self, row: JobRow, logger: FilteringBoundLogger, control: _Control, opened: OpenedAuth | None
    ) -> dict[str, Any]:
        settings = self.settings.jobs
        folder = self.settings.data_dir
        return {
            "job": row.id,
            "config": self.config,
            "log": logger,
            "secret": resolve,
            "exports": folder / Path("exports"),
            "imports": folder / Path("imports"),
            "spool": folder / Path("spool"),
            "now_us": clock.now_us,
            "control": control,
            "network": Network(settings.request_timeout_s, settings.allow_loopback, settings.allow_private),
            "patience": Patience(total_s=settings.retry_s),
            "auth": None if opened is None else opened.credentials,
            "repeats": row.schedule is not None,
        }


def _cleanse(opened: OpenedAuth, _type: object, error: BaseException | None, _trace: object) -> None:
    """Keeps the authorization's secrets out of what becomes the job's reason, and of the log."""
    if error is not None:
        opened.cleanse(error)


def _answered(
    control: _Control, accepted: Callable[[], None], _type: object, error: BaseException | None, _trace: object
) -> None:
    """Notes that what lets in is accepted, of a run that asked the provider and found that there is nothing to do."""
    if isinstance(error, NotYetError) and control.asked:
        accepted()


class _Control:
    """What a run tells the daemon; see `connectors.sdk.run.Control`."""

    def __init__(self, row: JobRow, run_id: str, running: Running, opened: OpenedAuth | None) -> None:
        self._job_id = row.id
        self._run_id = run_id
        self._told = row.reason
        self._running = running
        self._opened = opened
        self.finished = False
        #: Whether the provider was asked for anything.
        self.asked = False

    def finish(self) -> None:
        """Notes that nothing is left to do."""
        self.finished = True

    async def save(self, checkpoint: object) -> None:
        """Keeps the checkpoint with the job."""
        await self._running.state.write(lambda db: stored.save(db, self._job_id, checkpoint))

    async def request(self) -> None:
        """Waits for the authorization's rate; without an authorization there is none."""
        if self._opened is not None:
            await self._opened.request()
            self.asked = True

    def count(self, *, added: int = 0, removed: int = 0, omitted: int = 0, failed: int = 0) -> None:
        """Adds to the job's activity."""
        self._running.parts.journal.counted(
            self._job_id, self._run_id, added=added, removed=removed, omitted=omitted, failed=failed
        )

    def told(self, outcome: Outcome, attempt: Attempt) -> None:
        """Writes an alert down, as deliveries are."""
        counts = {Outcome.DELIVERED: (1, 0, 0, 0), Outcome.FAILED: (0, 0, 0, 1)}.get(outcome, (0, 0, 1, 0))
        self._running.parts.journal.delivered(
            self._job_id,
            self._run_id,
            outcome,
            attempt,
            messages=(),
            many=1,
            again=0,
            counts=counts,
            sample=None,
            alert=True,
        )

    async def tell(self, reason: str) -> None:
        """Shows the reason beside the job's state; the same again costs nothing."""
        if reason != self._told:
            self._told = reason
            await self._running.state.write(lambda db: stored.tell(db, self._job_id, reason))
