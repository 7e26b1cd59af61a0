"""One job's task: it waits, runs, and lets the run's end decide what comes next."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from connectors.sdk.declare import JobType, TriggerExport
from connectors.sdk.errors import AuthError, ConfigError, TransientError, gravest
from connectors.sdk.run import Network, Patience, TriggerRun, TriggerSource
from daemon import clock, log
from daemon.jobs.references import resolve
from daemon.model.job import (
    ACTIVE,
    NO_ERRORS,
    BackOff,
    Errors,
    JobState,
    Verdict,
    after_config_error,
    after_end,
    after_error,
    after_retry_after,
)
from daemon.settings import Settings
from daemon.store import jobs as stored
from daemon.store.database import Database, Work
from daemon.store.jobs import JobRow
from daemon.store.subscriptions import SubscriptionRow

#: A sleeping job looks at the clock this often, so that a clock that was set is noticed.
LONGEST_WAIT_S = 60.0
#: A pause before state is stored again when it could not be (disk full), doubling up to the second.
STORE_AGAIN_S = (0.5, 10.0)
#: A pause before a job's task is begun again after a fault of ours.
TASK_AGAIN_S = 5.0
#: A run that returns or fails at once is not begun again faster than this.
LEAST_PAUSE_S = 0.05


class Subscriptions(Protocol):
    """What jobs need of the bus."""

    def add(self, row: SubscriptionRow) -> None:
        """Takes up a subscription that was stored."""

    def remove(self, subscription_id: str) -> None:
        """Lets go of a subscription that is deleted."""

    async def retire(self, subscription_id: str) -> None:
        """Stores how far a subscription is, for the last time, and lets go of it."""

    def attach(
        self, subscription_id: str, logger: FilteringBoundLogger, on_delivered: Callable[[], None]
    ) -> AbstractAsyncContextManager[TriggerSource]:
        """Lets one run read a subscription."""


class Supervisor:
    """Runs one job for as long as it is running or sleeping. `row` is the job as last stored."""

    def __init__(
        self,
        row: JobRow,
        job_type: JobType[Any],
        config: TriggerExport,
        subscription_id: str,
        *,
        state: Database,
        bus: Subscriptions,
        settings: Settings,
        provider: str,
        exports: Path,
    ) -> None:
        self.row = row
        self._job_type = job_type
        self._config = config
        self._subscription_id = subscription_id
        self._state = state
        self._bus = bus
        self._settings = settings
        self._exports = exports
        self._log = log.get(job=row.id, job_type=job_type.slug, provider=provider)
        self._rules = BackOff(
            settings.jobs.back_off_s,
            settings.jobs.back_off_longest_s,
            settings.jobs.retry_after_longest_s,
            settings.jobs.fail_after_s,
        )
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._errors: Errors = row.errors
        self._recovering: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begins the job's task."""
        self._task = asyncio.create_task(self._serve(), name=f"job {self.row.id}")

    @property
    def alive(self) -> bool:
        """Whether the job has a task that has not ended."""
        return self._task is not None and not self._task.done()

    def run_now(self) -> None:
        """Ends a sleep."""
        self._due.set()

    async def stop(self) -> bool:
        """Cancels the job's task and waits a bounded time for it; False when it did not end by then."""
        task = self._task
        if task is None:
            return True
        self._stopping = True
        task.cancel()
        if self._recovering is not None:
            self._recovering.cancel()
        await asyncio.wait([task], timeout=self._settings.jobs.stop_s)
        if not task.done():
            self._log.error("run_abandoned", after_s=self._settings.jobs.stop_s)
            return False
        return True

    # --- the task

    async def _serve(self) -> None:
        """Lives on whatever happens: a job without a task would stand still unseen."""
        while True:
            try:
                await self._live()
            except Exception:  # noqa: BLE001  (logged with its traceback)
                self._log.exception("job_task_crashed", again_s=TASK_AGAIN_S)
                await asyncio.sleep(TASK_AGAIN_S)
            else:
                return

    async def _live(self) -> None:
        while self.row.state in ACTIVE:
            if self.row.state is JobState.SLEEPING:
                await self._sleep()
                if not await self._store(
                    lambda db: stored.start(db, self.row.id, self._errors, ACTIVE, clock.now_us())
                ):
                    return
            began = asyncio.get_running_loop().time()
            verdict, crashes = await self._attempt()
            if self._stopping:  # a run that was cancelled leaves its job as it was, whatever it made of that
                return
            errors_before = self.row.errors
            if not await self._store(
                lambda db, verdict=verdict, crashes=crashes: stored.set_state(  # type: ignore[misc]
                    db, self.row.id, verdict, ACTIVE, clock.now_us(), crashes=crashes
                )
            ):
                return
            self._errors = verdict.errors
            self._tell(verdict, errors_before)
            with suppress(TimeoutError):  # a destination that asks for 0 s does not make us spin
                async with asyncio.timeout_at(began + LEAST_PAUSE_S):
                    await asyncio.Event().wait()

    async def _sleep(self) -> None:
        """Waits until the job's moment, or for `run_now`."""
        until_us = self.row.sleep_until_us or 0
        while not self._due.is_set():
            left_s = (until_us - clock.now_us()) / 1e6
            if left_s <= 0:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LONGEST_WAIT_S)):
                    await self._due.wait()
        self._due.clear()

    async def _attempt(self) -> tuple[Verdict, int]:
        """Runs the job once; gives what the run's end makes of it, and 1 when it ended in something undeclared."""
        run_id = secrets.token_hex(4)
        logger = self._log.bind(run=run_id)
        self._errors = self.row.errors
        logger.info("run_started", label=self.row.label)
        try:
            async with self._bus.attach(self._subscription_id, logger, self._delivered) as source:
                await self._job_type.run(self._offer(source, logger))
        except Exception as error:  # noqa: BLE001  (the one place that decides what a run's end means)
            cause = gravest(error) if isinstance(error, BaseExceptionGroup) else error
            return self._judge(cause, logger)
        return after_end(), 0

    def _offer(self, source: TriggerSource, logger: FilteringBoundLogger) -> TriggerRun[TriggerExport]:
        settings = self._settings.jobs
        return TriggerRun(
            job=self.row.id,
            config=self._config,
            source=source,
            log=logger,
            secret=resolve,
            exports=self._exports,
            now_us=clock.now_us,
            network=Network(settings.request_timeout_s, settings.allow_loopback, settings.allow_private),
            patience=Patience(total_s=settings.retry_s),
        )

    def _judge(self, error: BaseException, logger: FilteringBoundLogger) -> tuple[Verdict, int]:
        now_us = clock.now_us()
        reason = str(error) or type(error).__name__
        match error:
            case ConfigError():
                return after_config_error(self._errors, reason), 0
            case TransientError(retry_after=float() | int() as seconds):
                return after_retry_after(self._errors, seconds, reason, now_us, self._rules), 0
            case TransientError():
                logger.warning("run_failed", error=reason, unauthorized=isinstance(error, AuthError))
                return after_error(self._errors, reason, now_us, self._rules), 0
            case _:
                logger.error("run_crashed", error=reason, exc_info=error)
                return after_error(self._errors, f"{type(error).__name__}: {reason}", now_us, self._rules), 1

    def _delivered(self) -> None:
        """Ends the row of errors at the first thing that was delivered."""
        if self._errors.count:
            self._errors = NO_ERRORS
            self._log.info("job_recovered", errors=self.row.errors.count)
            self._recovering = asyncio.create_task(self._forget_errors(), name=f"job {self.row.id}: recovered")

    async def _forget_errors(self) -> None:
        with suppress(sqlite3.Error):  # the run's end stores it anyway
            await self._state.write(lambda db: stored.forget_errors(db, self.row.id))

    def _tell(self, verdict: Verdict, errors_before: Errors) -> None:
        match verdict.state:
            case JobState.SLEEPING:
                until = clock.from_us(verdict.sleep_until_us or 0).isoformat()
                self._log.info(
                    "job_slept",
                    until=until,
                    cause=verdict.sleep_cause,
                    errors=verdict.errors.count,
                    reason=verdict.reason,
                )
            case JobState.FAILED:
                self._log.error("job_failed", reason=verdict.reason, errors=verdict.errors.count)
            case JobState.COMPLETED:
                self._log.info("job_completed", errors=errors_before.count)

    async def _store(self, work: Work[JobRow | None]) -> bool:
        """Stores a change of the job, for as long as that takes; False when the job was changed by somebody else."""
        pause_s, longest_s = STORE_AGAIN_S
        while True:
            try:
                row = await self._state.write(work)
            except sqlite3.OperationalError as error:
                self._log.warning("job_not_stored", error=str(error), again_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, longest_s)
                continue
            if row is None:
                return False
            self.row = row
            return True
