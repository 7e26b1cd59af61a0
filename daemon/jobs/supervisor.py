"""One job's task: it waits, runs, and lets the run's end decide what comes next."""

from __future__ import annotations

import asyncio
import math
import secrets
import sqlite3
from contextlib import suppress
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from connectors.sdk.errors import AuthError, ConfigError, NotYetError, TransientError, gravest
from daemon import clock, log
from daemon.jobs.parts import Dropped, Parts
from daemon.jobs.runs import Running
from daemon.jobs.told import tell
from daemon.model import codes
from daemon.model.job import (
    ACTIVE,
    NO_ERRORS,
    BackOff,
    Errors,
    JobState,
    Message,
    SleepCause,
    Verdict,
    after_config_error,
    after_end,
    after_error,
    after_not_yet,
    after_retry_after,
    expired,
    in_quiet_hours,
)
from daemon.model.quiet import QuietHours, quiet_until
from daemon.model.schedule import Schedule, next_run, runs
from daemon.settings import Settings
from daemon.store import jobs as stored
from daemon.store.database import Database, Work
from daemon.store.jobs import JobRow

#: A sleeping job looks at the clock this often, so that a clock that was set is noticed.
LONGEST_WAIT_S = 60.0
#: A pause before state is stored again when it could not be (disk full), doubling up to the second.
STORE_AGAIN_S = (0.5, 10.0)
#: A pause before a job's task is begun again after a fault of ours.
TASK_AGAIN_S = 5.0
#: A run that returns or fails at once is not begun again faster than this.
LEAST_PAUSE_S = 0.05


class Timing(NamedTuple):
    """When a job runs: its schedule (none: once, or all the time), its quiet hours, and until when it lives."""

    schedule: Schedule | None = None
    quiet: QuietHours | None = None
    expires_us: int | None = None

    @classmethod
    def of(cls, row: JobRow) -> Timing:
        """Reads what is stored of a job. Raises ValueError where this program accepts it no more."""
        return cls(
            None if row.schedule is None else Schedule.model_validate_json(row.schedule),
            None if row.quiet is None else QuietHours.model_validate_json(row.quiet),
            row.expires_us,
        )


class Supervisor:
    """Runs one job for as long as it is running or sleeping. `row` is the job as last stored."""

    def __init__(
        self,
        row: JobRow,
        running: Running,
        timing: Timing,
        *,
        state: Database,
        parts: Parts,
        settings: Settings,
        provider: str,
    ) -> None:
        self.row = row
        self._running = running
        self._timing = timing
        self._state = state
        self._parts = parts
        self._settings = settings
        self._log = log.get(job=row.id, job_type=row.job_type, provider=provider)
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
        self._run_id: str | None = None
        #: Whether the owner said "run now": then quiet hours that have begun do not hold the next run back.
        self._forced = False
        self._accepted = False
        #: The moment for which this run was planned; a clock that is set back does not bring it a second time.
        self._planned_us: int | None = None

    def start(self) -> None:
        """Begins the job's task."""
        self._task = asyncio.create_task(self._serve(), name=f"job {self.row.id}")

    @property
    def alive(self) -> bool:
        """Whether the job has a task that has not ended."""
        return self._task is not None and not self._task.done()

    def run_now(self) -> None:
        """Ends a sleep, that of quiet hours too."""
        self._forced = True
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
            hindrance = self._hindrance()
            if hindrance is not None:
                if not await self._move(hindrance):
                    return
                continue
            if self.row.sleep_cause is SleepCause.SCHEDULE:  # a run that somebody asked for leaves the plan alone
                self._planned_us = None if self._forced else self.row.sleep_until_us
            if self.row.state is JobState.SLEEPING and not await self._store(
                lambda db: stored.wake(db, self.row.id, self._errors, clock.now_us())
            ):
                return
            if not await self._store(lambda db: stored.begin_run(db, self.row.id, clock.now_us())):
                return
            began = asyncio.get_running_loop().time()
            verdict, crashes = await self._attempt()
            if self._stopping:  # a run that was cancelled leaves its job as it was, whatever it made of that
                return
            if not await self._move(verdict, crashes):
                return
            with suppress(TimeoutError):  # a destination that asks for 0 s does not make us spin
                async with asyncio.timeout_at(began + LEAST_PAUSE_S):
                    await asyncio.Event().wait()

    async def _move(self, verdict: Verdict, crashes: int = 0) -> bool:
        before = self.row
        if not await self._store(
            lambda db: stored.move(db, self.row.id, verdict, clock.now_us(), only_from=ACTIVE, crashes=crashes)
        ):
            return False
        self._errors = verdict.errors
        self._tell(verdict, before)
        if verdict.state is JobState.COMPLETED and self._running.subscription_id is not None:
            # Nobody reads it any more: it must not hold triggers back. On a full disk the flush fails; where it was
            # is of no use to a job that is completed.
            with suppress(sqlite3.Error):
                await self._parts.bus.retire(self._running.subscription_id)
        return True

    async def _sleep(self) -> None:
        """Waits until the job's moment, its end, or for `run_now`."""
        until_us = self.row.sleep_until_us or 0
        if self._timing.expires_us is not None:
            until_us = min(until_us, self._timing.expires_us)
        loop = asyncio.get_running_loop()
        # A schedule goes by the clock. A back-off is a length of time: a clock set back does not make it longer.
        latest = loop.time() + min((until_us - clock.now_us()) / 1e6, self._rules.longest_s)
        if self.row.sleep_cause is SleepCause.SCHEDULE:
            latest = math.inf
        while not self._due.is_set():
            left_s = min((until_us - clock.now_us()) / 1e6, latest - loop.time())
            if left_s <= 0:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LONGEST_WAIT_S)):
                    await self._due.wait()
        self._due.clear()

    def _hindrance(self) -> Verdict | None:
        """Gives why the job must not run now: its time is over, quiet hours, or a first run that is set for later."""
        now_us = clock.now_us()
        timing = self._timing
        if timing.expires_us is not None and now_us >= timing.expires_us:
            return expired(self._errors)
        if self._forced:
            return None
        if timing.quiet is not None and (end := quiet_until(timing.quiet, clock.from_us(now_us))) is not None:
            return in_quiet_hours(self._errors, clock.to_us(end))
        schedule = timing.schedule
        if self.row.first_run_us is None and schedule is not None and schedule.frequency == "once":
            made = clock.from_us(self.row.created_us)
            moment = next(iter(runs(schedule, made, 1)), None) if schedule.time_of_day is not None else None
            if moment is not None and now_us < clock.to_us(moment):
                return Verdict(Message.REST, "", NO_ERRORS, clock.to_us(moment), SleepCause.SCHEDULE)
        return None

    async def _attempt(self) -> tuple[Verdict, int]:
        """Runs the job once; gives what the run's end makes of it, and 1 when it ended in something undeclared."""
        run_id = self._run_id = secrets.token_hex(4)
        logger = self._log.bind(run=run_id)
        self._errors = self.row.errors
        self._forced = self._accepted = False
        journal = self._parts.journal
        logger.info("run_started", label=self.row.label)
        journal.run_began(self.row.id, run_id, clock.now_us())
        bound_us = self._bound_us()
        outcome, reason = "cancelled", ""
        try:
            try:
                async with asyncio.timeout(None) as bound:
                    watching = asyncio.create_task(_watch(bound_us, bound), name=f"job {self.row.id}: bound")
                    try:
                        finished = await self._running.run(self.row, run_id, logger, self._delivered, self._dropped())
                    finally:
                        watching.cancel()
            except Exception as error:  # noqa: BLE001  (the one place that decides what a run's end means)
                if bound.expired():
                    verdict = self._hindrance() or after_not_yet(0, "", clock.now_us())
                    outcome = "expired" if verdict.message is Message.EXPIRE else "quiet"
                    return verdict, 0
                cause = gravest(error) if isinstance(error, BaseExceptionGroup) else error
                verdict, crashes, outcome = self._judge(cause, logger)
                reason = verdict.reason
                return verdict, crashes
            self._met(None)
            outcome = "done"
            return after_end(None if finished else self._next_us()), 0
        finally:
            journal.run_ended(self.row.id, run_id, clock.now_us(), outcome, reason)

    def _bound_us(self) -> int | None:
        """Gives the moment at which a run that begins now is ended: quiet hours, or the job's end."""
        moments = []
        if self._timing.expires_us is not None:
            moments.append(self._timing.expires_us)
        quiet = self._timing.quiet
        if quiet is not None:
            daily = Schedule(frequency="daily", time_of_day=quiet.time_of_day, time_zone=quiet.time_zone)
            moments += [clock.to_us(each) for each in runs(daily, clock.now(), 1)]
        return min(moments, default=None)

    def _next_us(self) -> int | None:
        schedule = self._timing.schedule
        if schedule is None:
            return None
        first = None if self.row.first_run_us is None else clock.from_us(self.row.first_run_us)
        planned = None if self._planned_us is None else clock.from_us(self._planned_us)
        moment = next_run(schedule, first=first, ended=clock.now(), planned=planned)
        return None if moment is None else clock.to_us(moment)

    def _dropped(self) -> Dropped | None:
        quiet = self._timing.quiet
        if quiet is None or not quiet.drop:
            return None
        return lambda at_us: quiet_until(quiet, clock.from_us(at_us)) is not None

    def _judge(self, error: BaseException, logger: FilteringBoundLogger) -> tuple[Verdict, int, str]:
        now_us = clock.now_us()
        reason = str(error) or type(error).__name__
        match error:
            case ConfigError():
                return after_config_error(self._errors, reason), 0, "failed"
            case NotYetError():
                logger.info("run_waits", reason=reason, again_s=error.again_s)
                return after_not_yet(error.again_s, reason, now_us), 0, "not_yet"
            case TransientError(retry_after=float() | int() as seconds):
                return after_retry_after(self._errors, seconds, reason, now_us, self._rules), 0, "retry_after"
            case TransientError():
                logger.warning("run_failed", error=reason, unauthorized=isinstance(error, AuthError))
                if isinstance(error, AuthError):
                    self._met(error)
                    self._note(codes.UNAUTHORIZED, reason)
                return after_error(self._errors, reason, now_us, self._rules), 0, "error"
            case _:
                logger.error("run_crashed", error=reason, exc_info=error)
                self._note(codes.CRASHED, f"{type(error).__name__}: {reason}")
                return after_error(self._errors, f"{type(error).__name__}: {reason}", now_us, self._rules), 1, "error"

    def _met(self, error: AuthError | None) -> None:
        """Tells the job's authorization whether the provider accepted it, once a run where it did."""
        if self.row.auth_id is not None and self._parts.authorizations is not None:
            self._parts.authorizations.met(self.row.auth_id, error)

    def _delivered(self) -> None:
        """Ends the row of errors at the first thing that was delivered."""
        if not self._accepted:
            self._accepted = True
            self._met(None)
        if self._errors.count:
            self._errors = NO_ERRORS
            self._log.info("job_recovered", errors=self.row.errors.count)
            self._note(codes.RECOVERED, f"it delivers again after {self.row.errors.count} errors in a row")
            self._recovering = asyncio.create_task(self._forget_errors(), name=f"job {self.row.id}: recovered")

    async def _forget_errors(self) -> None:
        with suppress(sqlite3.Error):  # the run's end stores it anyway
            await self._state.write(lambda db: stored.forget_errors(db, self.row.id))

    def _note(self, code: str, words: str) -> None:
        self._parts.journal.job_event(self.row.id, self._run_id, codes.CODES[code].level, code, words)

    def _tell(self, verdict: Verdict, before: JobRow) -> None:
        tell(self._parts.journal, self.row.id, self._run_id, verdict)
        facts = {"before": before.state, "errors": verdict.errors.count, "reason": verdict.reason}
        match verdict.state:
            case JobState.SLEEPING:
                until = clock.from_us(verdict.sleep_until_us or 0).isoformat()
                self._log.info("job_slept", until=until, cause=verdict.sleep_cause, **facts)
            case JobState.FAILED:
                self._log.error("job_failed", **facts)
            case JobState.COMPLETED:
                self._log.info("job_completed", cause=verdict.message, **facts)

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


async def _watch(moment_us: int | None, bound: asyncio.Timeout) -> None:
    """Ends a run at its moment, by the wall clock, which may be set."""
    if moment_us is None:
        return
    while (left_s := (moment_us - clock.now_us()) / 1e6) > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, LONGEST_WAIT_S)):
                await asyncio.Event().wait()
    bound.reschedule(asyncio.get_running_loop().time())
