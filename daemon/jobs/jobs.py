"""Jobs, as the API and the command line know them. A change is durable when the call returns."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from pydantic import ValidationError

from connectors.sdk.catalog import Catalog, catalog
from connectors.sdk.declare import JobType, TriggerExport
from daemon import clock, log
from daemon.jobs.supervisor import Subscriptions, Supervisor
from daemon.model.job import ACTIVE, NO_ERRORS, Command, JobState, Verdict, accepts, commanded
from daemon.model.subscription import Events
from daemon.settings import Settings
from daemon.store import jobs as stored
from daemon.store import subscriptions
from daemon.store.database import Database
from daemon.store.jobs import JobRow
from daemon.store.subscriptions import SubscriptionRow, UnknownAudienceError

DAY_US = 86_400_000_000
#: How often jobs that ended long ago are looked for, in seconds.
PURGE_EVERY_S = 3600.0


class NoSuchJobError(LookupError):
    """There is no job, or no job type, of that name."""


class JobConflictError(Exception):
    """The job's state does not allow it; the message says which would."""


class JobRefusedError(ValueError):
    """A job that cannot be created as asked; `errors` has {loc, msg} for each finding."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors))
        self.errors = errors


class Jobs:
    """All jobs. Made by `open`, which takes up those that were running or sleeping."""

    def __init__(self, state: Database, bus: Subscriptions, settings: Settings, known: Catalog) -> None:
        self.catalog = known
        self._state = state
        self._bus = bus
        self._settings = settings
        self._supervisors: dict[str, Supervisor] = {}
        self._subscription_of: dict[str, str] = {}
        self._changing: dict[str, asyncio.Lock] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, state: Database, bus: Subscriptions, settings: Settings, *, known: Catalog | None = None
    ) -> AsyncIterator[Jobs]:
        """Takes up every job and serves until left; then the runs are cancelled, their jobs' states stay as they are.

        `known` None: what is installed. A run that does not end in `jobs.stop_s` is left alone.
        """
        self = cls(state, bus, settings, known if known is not None else catalog())
        rows, listeners = await state.read(lambda db: (stored.every(db), subscriptions.every(db)))
        self._subscription_of = {each.job_id: each.id for each in listeners}
        for row in rows:
            if row.state in ACTIVE:
                await self._take_up(row)
        purging = asyncio.create_task(self._purge(), name="jobs: purge")
        try:
            yield self
        finally:
            with anyio.CancelScope(shield=True):  # runs are ended also when another loop has crashed
                purging.cancel()
                await asyncio.wait([purging])
                await asyncio.gather(*(each.stop() for each in self._supervisors.values()))

    # --- reading

    async def every(self) -> list[JobRow]:
        """Gives all jobs in the order of their making."""
        return await self._state.read(stored.every)

    async def get(self, job_id: str) -> JobRow:
        """Gives a job. Raises NoSuchJobError."""
        row = await self._state.read(lambda db: stored.one(db, job_id))
        if row is None:
            raise _unknown(job_id)
        return row

    def subscription_of(self, job_id: str) -> str | None:
        """Gives the id of a job's subscription."""
        return self._subscription_of.get(job_id)

    # --- changing

    async def create(
        self,
        job_type: str,
        config: Mapping[str, Any],
        *,
        label: str = "",
        description: str = "",
        auth_id: str | None = None,
    ) -> JobRow:
        """Creates a job and its subscription in one transaction, and starts it.

        A trigger committed after the return is delivered. Raises NoSuchJobError for an unknown job type and
        JobRefusedError for a configuration that is not accepted.
        """
        kind = self._job_type(job_type)
        accepted = _accept(kind, config)
        if auth_id is not None:
            raise JobRefusedError([{"loc": ["auth_id"], "msg": f"{job_type} takes no authorization"}])
        job_id, subscription_id = secrets.token_hex(16), secrets.token_hex(16)
        now_us = clock.now_us()
        text = accepted.model_dump_json()

        def make(db: sqlite3.Connection) -> tuple[JobRow | None, SubscriptionRow]:
            stored.insert(db, job_id, job_type, label, description, auth_id, text, now_us)
            row = subscriptions.begin(
                db,
                subscription_id,
                job_id,
                accepted.audiences,
                Events(accepted.events),
                existing=accepted.existing_users,
                now_us=now_us,
            )
            return stored.one(db, job_id), row

        try:
            row, subscription = await self._state.write(make)
        except UnknownAudienceError as error:
            raise JobRefusedError(
                [
                    {
                        "loc": ["config", "audiences", accepted.audiences.index(slug)],
                        "msg": f"there is no audience {slug!r}",
                    }
                    for slug in error.slugs
                ]
            ) from error
        if row is None:
            raise RuntimeError("a job that was just stored is not there")
        self._subscription_of[job_id] = subscription_id
        self._bus.add(subscription)
        log.get().info("job_created", job=job_id, job_type=job_type, label=label)
        self._start(row, kind, accepted)
        return row

    async def command(self, job_id: str, command: Command) -> JobRow:
        """Pauses, resumes, runs now or completes a job; the same again changes nothing.

        Raises NoSuchJobError, and JobConflictError where the job's state does not allow it.
        """
        await self.get(job_id)
        async with self._changing.setdefault(job_id, asyncio.Lock()):
            row = await self.get(job_id)
            state = commanded(row.state, command)
            if state is None:
                allowed = ", ".join(accepts(row.state)) or "nothing more; create a new job"
                raise JobConflictError(
                    f"job {job_id} is {row.state}, which does not accept {command}; it accepts {allowed}"
                )
            if state is JobState.RUNNING:
                return await self._run(row)
            if state is row.state:
                return row
            reason = row.reason if state is JobState.PAUSED and row.state is JobState.FAILED else ""
            moved = await self._move(row, Verdict(state, reason, NO_ERRORS), command)
            await self._stop(job_id)
            if state is JobState.COMPLETED:
                await self._bus.retire(self._subscription_of[job_id])
            return moved

    async def describe(self, job_id: str, *, label: str | None, description: str | None) -> JobRow:
        """Changes label and description, each where given. Raises NoSuchJobError."""
        row = await self._state.write(lambda db: stored.set_texts(db, job_id, label, description, clock.now_us()))
        if row is None:
            raise _unknown(job_id)
        return row

    async def delete(self, job_id: str) -> None:
        """Ends a job and deletes it with its subscription. Raises NoSuchJobError."""
        await self.get(job_id)
        async with self._changing.setdefault(job_id, asyncio.Lock()):
            if not await self._state.write(lambda db: stored.delete(db, job_id)):
                raise _unknown(job_id)
            await self._stop(job_id)
            self._forget(job_id)
            log.get().info("job_deleted", job=job_id)

    async def purge(self) -> int:
        """Deletes the jobs that failed, were paused or completed long ago; says how many."""
        before_us = clock.now_us() - round(self._settings.jobs.purge_days * DAY_US)
        gone = await self._state.write(lambda db: stored.purge(db, before_us))
        for job_id in gone:
            self._forget(job_id)
            log.get().warning("job_purged", job=job_id, days=self._settings.jobs.purge_days)
        return len(gone)

    # --- parts of the above

    def _job_type(self, slug: str) -> JobType[Any]:
        kind = self.catalog.job_types.get(slug)
        if kind is None:
            known = ", ".join(sorted(self.catalog.job_types))
            raise NoSuchJobError(f"there is no job type {slug!r}; there are {known}")
        return kind

    async def _run(self, row: JobRow) -> JobRow:
        """Makes a job run: one that sleeps at once, one that was paused or failed anew, with its errors forgotten."""
        supervisor = self._supervisors.get(row.id)
        if row.state in ACTIVE and supervisor is not None and supervisor.alive:
            if row.state is JobState.RUNNING:
                return row
            supervisor.run_now()
            return row._replace(state=JobState.RUNNING, reason="", sleep_until_us=None, sleep_cause=None)
        kind = self._job_type(row.job_type)
        moved = await self._move(row, Verdict(JobState.RUNNING, "", NO_ERRORS), Command.RESUME)
        try:
            accepted = kind.config.model_validate_json(row.config)
        except ValidationError as error:
            return await self._refuse(moved, error)
        await self._stop(row.id)
        self._start(moved, kind, accepted)
        return moved

    async def _move(self, row: JobRow, verdict: Verdict, command: Command) -> JobRow:
        moved = await self._state.write(
            lambda db: stored.set_state(db, row.id, verdict, [JobState(each) for each in JobState], clock.now_us())
        )
        if moved is None:
            raise _unknown(row.id)
        logger = log.get(job=row.id, before=row.state)
        match command:
            case Command.PAUSE:
                logger.info("job_paused")
            case Command.COMPLETE:
                logger.info("job_completed")
            case Command.RESUME | Command.RUN:
                logger.info("job_resumed")
        return moved

    async def _take_up(self, row: JobRow) -> None:
        """Starts a job that was running or sleeping when the daemon ended."""
        kind = self.catalog.job_types.get(row.job_type)
        if kind is None:
            reason = f"this installation has no job type {row.job_type!r}; install what provides it, then resume"
            await self._fail(row, reason)
            return
        try:
            accepted = kind.config.model_validate_json(row.config)
        except ValidationError as error:
            await self._refuse(row, error)
            return
        self._start(row, kind, accepted)

    async def _refuse(self, row: JobRow, error: ValidationError) -> JobRow:
        return await self._fail(row, f"its configuration is not accepted any more: {_findings(error)}")

    async def _fail(self, row: JobRow, reason: str) -> JobRow:
        verdict = Verdict(JobState.FAILED, reason, row.errors)
        failed = await self._state.write(lambda db: stored.set_state(db, row.id, verdict, ACTIVE, clock.now_us()))
        log.get().error("job_failed", job=row.id, reason=reason, errors=row.errors.count)
        return failed if failed is not None else row

    def _start(self, row: JobRow, kind: JobType[Any], accepted: TriggerExport) -> None:
        supervisor = Supervisor(
            row,
            kind,
            accepted,
            self._subscription_of[row.id],
            state=self._state,
            bus=self._bus,
            settings=self._settings,
            provider=self.catalog.provider_of[kind.slug],
            exports=self._settings.data_dir / "exports",
        )
        self._supervisors[row.id] = supervisor
        supervisor.start()

    async def _stop(self, job_id: str) -> None:
        supervisor = self._supervisors.get(job_id)
        if supervisor is not None:
            await supervisor.stop()
            del self._supervisors[job_id]

    def _forget(self, job_id: str) -> None:
        subscription_id = self._subscription_of.pop(job_id, None)
        if subscription_id is not None:
            self._bus.remove(subscription_id)
        self._changing.pop(job_id, None)

    async def _purge(self) -> None:
        while True:
            await asyncio.sleep(PURGE_EVERY_S)
            try:
                await self.purge()
            except Exception as error:  # noqa: BLE001  (the next round tries again)
                log.get().warning("retention_failed", what="jobs", error=str(error))


def _accept(kind: JobType[Any], config: Mapping[str, Any]) -> TriggerExport:
    try:
        accepted: TriggerExport = kind.config.model_validate(config)
    except ValidationError as error:
        raise JobRefusedError(_findings(error)) from None  # the cause would repeat what was given
    return accepted


def _findings(error: ValidationError) -> list[dict[str, Any]]:
    return [
        {"loc": ["config", *each["loc"]], "msg": each["msg"].removeprefix("Value error, ")}
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _unknown(job_id: str) -> NoSuchJobError:
    return NoSuchJobError(f"there is no job {job_id!r}")
