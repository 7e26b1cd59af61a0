"""Jobs, as the API and the command line know them. A change is durable when the call returns."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from pydantic import ValidationError

from connectors.sdk.catalog import Catalog, catalog
from connectors.sdk.declare import AudienceExport, Config, JobType, SystemExport, TriggerExport, TriggerJob
from daemon import clock, log
from daemon.jobs.asked import (
    Asked,
    JobConflictError,
    JobRefusedError,
    NewAuthorization,
    NoSuchJobError,
    Timed,
    accepted_config,
    accepted_timing,
    findings,
    known_audiences,
    unknown_job,
)
from daemon.jobs.opening import Prepared
from daemon.jobs.parts import Parts
from daemon.jobs.runs import Running
from daemon.jobs.supervisor import Supervisor, Timing
from daemon.jobs.told import tell
from daemon.model import codes
from daemon.model.job import ACTIVE, NO_ERRORS, JobState, Message, Verdict, accepts, after, expired
from daemon.model.refusal import Refused
from daemon.model.subscription import Events
from daemon.settings import Settings
from daemon.store import auths, subscriptions, system_events
from daemon.store import jobs as stored
from daemon.store.database import Database
from daemon.store.jobs import JobRow, NewJob, Wanted
from daemon.store.subscriptions import SubscriptionRow, UnknownAudienceError

DAY_US = 86_400_000_000
#: How often jobs that ended long ago, or whose time is over, are looked for, in seconds.
SWEEP_EVERY_S = 60.0


class Jobs:
    """All jobs. Made by `open`, which takes up those that were running or sleeping."""

    def __init__(self, state: Database, parts: Parts, settings: Settings, known: Catalog) -> None:
        self.catalog = known
        self._state = state
        self._parts = parts
        self._settings = settings
        self._supervisors: dict[str, Supervisor] = {}
        self._subscription_of: dict[str, str] = {}
        self._changing: dict[str, asyncio.Lock] = {}
        self._places = asyncio.Semaphore(settings.jobs.runs_at_once)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, state: Database, parts: Parts, settings: Settings, *, known: Catalog | None = None
    ) -> AsyncIterator[Jobs]:
        """Takes up every job and serves until left; then the runs are cancelled, their jobs' states stay as they are.

        `known` None: what is installed. A run that does not end in `jobs.stop_s` is left alone.
        """
        self = cls(state, parts, settings, known if known is not None else catalog())
        rows, listeners = await state.read(lambda db: (stored.every(db), subscriptions.every(db)))
        self._subscription_of = {each.job_id: each.id for each in listeners}
        for row in rows:
            if row.state in ACTIVE:
                await self._take_up(row)
        sweeping = asyncio.create_task(self._sweep(), name="jobs: sweep")
        try:
            yield self
        finally:
            with anyio.CancelScope(shield=True):  # runs are ended also when another loop has crashed
                sweeping.cancel()
                await asyncio.wait([sweeping])
                await asyncio.gather(*(each.stop() for each in self._supervisors.values()))

    # --- reading

    async def every(self) -> list[JobRow]:
        """Gives all jobs in the order of their making."""
        return await self._state.read(stored.every)

    async def page(
        self, wanted: Wanted, after: tuple[int, str] = (-1, ""), limit: int = 100
    ) -> tuple[list[JobRow], dict[JobState, int]]:
        """Gives a page of jobs, made after the one of this time and id, and how many there are in each state."""
        return await self._state.read(lambda db: (stored.page(db, wanted, after, limit), stored.counts(db, wanted)))

    async def get(self, job_id: str) -> JobRow:
        """Gives a job. Raises NoSuchJobError."""
        row = await self._state.read(lambda db: stored.one(db, job_id))
        if row is None:
            raise unknown_job(job_id)
        return row

    def subscription_of(self, job_id: str) -> str | None:
        """Gives the id of a job's subscription; imports and exports that are no triggers have none."""
        return self._subscription_of.get(job_id)

    def job_type(self, slug: str) -> JobType[Any]:
        """Gives what is declared of a job type. Raises NoSuchJobError."""
        kind = self.catalog.job_types.get(slug)
        if kind is None:
            known = ", ".join(sorted(self.catalog.job_types))
            raise NoSuchJobError(f"there is no job type {slug!r}; there are {known}")
        return kind

    # --- changing

    async def create(
        self,
        job_type: str,
        config: Mapping[str, Any],
        *,
        label: str = "",
        description: str = "",
        auth_id: str | None = None,
        authorization: NewAuthorization | None = None,
        timed: Timed = Timed(),  # noqa: B008  (immutable)
        owner: str = "",
    ) -> JobRow:
        """Creates a job, and the subscription of one that exports triggers, in one transaction, and starts it.

        A trigger committed after the return is delivered. `authorization`: one that is checked, and made in the same
        transaction; of a job that is refused none remains. Raises NoSuchJobError for an unknown job type,
        JobRefusedError for what is not accepted, VaultError when a secret could not be sealed.
        """
        kind = self.job_type(job_type)
        accepted = accepted_config(kind, config)
        timing = accepted_timing(kind, timed)
        prepared = None
        if authorization is None:
            await self.check_authorization(kind, auth_id)
        else:
            prepared = await self._prepare(kind, authorization, auth_id, owner)
            auth_id = prepared.row.id
        job_id = secrets.token_hex(16)
        new = NewJob(
            job_id,
            job_type,
            label,
            description,
            auth_id,
            accepted.model_dump_json(),
            owner,
            None if timing.schedule is None else timing.schedule.model_dump_json(),
            None if timing.quiet is None else timing.quiet.model_dump_json(),
            timing.expires_us,
        )
        now_us = clock.now_us()

        def make(db: sqlite3.Connection) -> tuple[JobRow | None, SubscriptionRow | None]:
            if prepared is not None:
                prepared.insert(db)
            _hold(db, auth_id)
            stored.insert(db, new, now_us)
            subscription = None
            match accepted:
                case TriggerExport():
                    subscription = subscriptions.begin(
                        db,
                        secrets.token_hex(16),
                        job_id,
                        accepted.audiences,
                        Events(accepted.events),
                        existing=accepted.existing_users,
                        now_us=now_us,
                    )
                case AudienceExport():
                    subscriptions.audience_numbers(db, accepted.audiences)
                case SystemExport():
                    stored.save(db, job_id, {"after": system_events.last_id(db)})
            return stored.one(db, job_id), subscription

        try:
            row, subscription = await self._state.write(make)
        except UnknownAudienceError as error:
            raise known_audiences(accepted, error) from error
        if row is None:
            raise RuntimeError("a job that was just stored is not there")
        if prepared is not None and self._parts.authorizations is not None:
            self._parts.authorizations.took(prepared)
        if subscription is not None:
            self._subscription_of[job_id] = subscription.id
            self._parts.bus.add(subscription)
        log.get().info("job_created", job=job_id, job_type=job_type, label=label, owner=owner)
        self._note(job_id, codes.CREATED, "the job was created", job_type=job_type, label=label, owner=owner)
        self._start(row, kind, accepted, timing)
        return row

    async def copy(self, job_id: str, *, label: str | None = None, owner: str = "") -> JobRow:
        """Creates a job as another one is: type, configuration, authorization, schedule, quiet hours. It starts anew.

        label None: the other one's, with "(copy)" behind it. Raises as `create`, and NoSuchJobError.
        """
        row = await self.get(job_id)
        asked = Asked.of(row)
        return await self.create(
            row.job_type,
            asked.config,
            label=f"{row.label} (copy)"[:200] if label is None else label,
            description=row.description,
            auth_id=row.auth_id,
            timed=asked.timed,
            owner=owner,
        )

    async def command(self, job_id: str, command: Message) -> JobRow:
        """Pauses, resumes, runs now or completes a job; the same again changes nothing.

        Raises NoSuchJobError, and JobConflictError where the job's state does not allow it.
        """
        await self.get(job_id)
        async with self._changing.setdefault(job_id, asyncio.Lock()):
            row = await self.get(job_id)
            state = after(row.state, command)
            if state is None:
                allowed = ", ".join(accepts(row.state))
                raise JobConflictError(
                    f"job {job_id} is {row.state}, which does not accept {command}; it accepts {allowed}"
                )
            if state is JobState.RUNNING:
                return await self._run(row)
            if state is row.state:
                return row
            return await self._end(row, command)

    async def edit(
        self, job_id: str, *, label: str | None = None, description: str | None = None, auth_id: str | None = None
    ) -> JobRow:
        """Changes label, description and authorization, each where given; a run goes on with the new one anew.

        Raises NoSuchJobError, and JobRefusedError for an authorization whose method does not enable the job's type.
        """
        async with self._changing.setdefault(job_id, asyncio.Lock()):
            before = await self.get(job_id)
            if auth_id is not None:
                await self.check_authorization(self.job_type(before.job_type), auth_id)
            now_us = clock.now_us()

            def change(db: sqlite3.Connection) -> JobRow | None:
                _hold(db, auth_id)
                return stored.edit(db, job_id, label, description, auth_id, now_us)

            row = await self._state.write(change)
            if row is None:
                raise unknown_job(job_id)
            log.get().info("job_edited", job=job_id, authorization_changed=row.auth_id != before.auth_id)
            self._note(job_id, codes.CHANGED, "the job was edited", authorization_changed=row.auth_id != before.auth_id)
            if row.auth_id != before.auth_id and row.state in ACTIVE:
                await self._stop(job_id)
                await self._take_up(row)
            return row

    async def delete(self, job_id: str) -> None:
        """Ends a job and deletes it with its subscription and checkpoints. Raises NoSuchJobError."""
        await self.get(job_id)
        async with self._changing.setdefault(job_id, asyncio.Lock()):
            if not await self._state.write(lambda db: stored.delete(db, job_id)):
                raise unknown_job(job_id)
            await self._stop(job_id)
            await self._forget(job_id)
            log.get().info("job_deleted", job=job_id)
            self._note(job_id, codes.DELETED, "the job was deleted")

    async def purge(self) -> int:
        """Deletes the jobs that failed, were paused or completed long ago, each announced before; says how many."""
        days = self._settings.jobs.purge_days
        before_us = clock.now_us() - round(days * DAY_US)
        gone = 0
        while rows := await self._state.read(lambda db: stored.ended_long_ago(db, before_us)):
            purged = 0
            for row in rows:
                since = clock.from_us(row.state_us).isoformat()
                log.get().warning("job_purging", job=row.id, label=row.label, state=row.state, since=since, days=days)
                self._note(row.id, codes.PURGE_DUE, f"{row.state} since {since}: it is deleted now", label=row.label)
                if await self._state.write(lambda db, row=row: stored.purge(db, row.id, before_us)):  # type: ignore[misc]
                    await self._forget(row.id)
                    log.get().warning("job_purged", job=row.id, days=days)
                    self._note(row.id, codes.PURGED, f"{row.state} for {days:g} days: it was deleted", label=row.label)
                    purged += 1
            gone += purged
            if not purged:
                break
        return gone

    async def expire(self) -> None:
        """Completes the paused and failed jobs whose time is over; the others do so themselves."""
        for row in await self._state.read(lambda db: stored.expired(db, clock.now_us())):
            async with self._changing.setdefault(row.id, asyncio.Lock()):
                if after(row.state, Message.EXPIRE) is not None:
                    await self._end(row, Message.EXPIRE)

    # --- parts of the above

    def _note(self, job_id: str, code: str, words: str, **facts: object) -> None:
        self._parts.journal.job_event(job_id, None, codes.CODES[code].level, code, words, **facts)

    async def _prepare(self, kind: JobType[Any], asked: NewAuthorization, auth_id: str | None, owner: str) -> Prepared:
        """Accepts and checks an authorization that comes with its job."""
        methods = [each.slug for each in kind.auths]
        if auth_id is not None:
            _refuse_authorization("give auth_id or authorization, not both")
        if self._parts.authorizations is None or not methods:
            raise JobRefusedError([{"loc": ["authorization"], "msg": f"{kind.slug} takes no authorization"}])
        if asked.method not in methods:
            said = f"{asked.method[:100]!r} does not enable {kind.slug}; {' and '.join(methods)} do"
            raise JobRefusedError([{"loc": ["authorization", "method"], "msg": said}])
        try:
            return await self._parts.authorizations.prepare(
                self.catalog.provider_of[kind.slug],
                asked.method,
                asked.config,
                label=asked.label,
                description=asked.description,
                owner=owner,
            )
        except Refused as error:
            errors = [{**each, "loc": ["authorization", *each["loc"]]} for each in error.errors]
            raise JobRefusedError(errors) from None

    async def check_authorization(self, kind: JobType[Any], auth_id: str | None) -> None:
        """Raises JobRefusedError unless the authorization is one by a method that enables the job type."""
        methods = [each.slug for each in kind.auths]
        provider = self.catalog.provider_of[kind.slug]
        if auth_id is None:
            if kind.auth_required:
                _refuse_authorization(f"{kind.slug} needs an authorization with {provider} by {' or '.join(methods)}")
            return
        if not methods or self._parts.authorizations is None:
            _refuse_authorization(f"{kind.slug} takes no authorization")
            return
        found = await self._parts.authorizations.method_of(auth_id)
        if found is None:
            _refuse_authorization(f"there is no authorization {auth_id!r}")
        elif found[0] != provider or found[1] not in methods:
            _refuse_authorization(
                f"authorization {auth_id} is with {found[0]} by {found[1]}, which does not enable {kind.slug}; "
                f"{provider} by {' or '.join(methods)} does"
            )

    async def _run(self, row: JobRow) -> JobRow:
        """Makes a job run: one that sleeps at once, one that was paused or failed anew, with its errors forgotten."""
        supervisor = self._supervisors.get(row.id)
        if row.state in ACTIVE and supervisor is not None and supervisor.alive:
            if row.state is JobState.RUNNING:
                return row
            supervisor.run_now()
            return row._replace(state=JobState.RUNNING, reason="", sleep_until_us=None, sleep_cause=None)
        kind = self.job_type(row.job_type)
        moved = await self._move(row, Verdict(Message.RESUME, "", NO_ERRORS))
        try:
            accepted, timing = kind.config.model_validate_json(row.config), Timing.of(row)
        except ValidationError as error:
            return await self._refuse(moved, error)
        await self._stop(row.id)
        self._start(moved, kind, accepted, timing)
        return moved

    async def _end(self, row: JobRow, message: Message) -> JobRow:
        """Pauses or completes a job."""
        if message is Message.EXPIRE:
            verdict = expired(row.errors)
        else:
            reason = row.reason if message is Message.PAUSE and row.state is JobState.FAILED else ""
            verdict = Verdict(message, reason, NO_ERRORS)
        moved = await self._move(row, verdict)
        await self._stop(row.id)
        if moved.state is JobState.COMPLETED and row.id in self._subscription_of:
            await self._parts.bus.retire(self._subscription_of[row.id])
        return moved

    async def _move(self, row: JobRow, verdict: Verdict) -> JobRow:
        moved = await self._state.write(lambda db: stored.move(db, row.id, verdict, clock.now_us()))
        if moved is None:
            raise unknown_job(row.id)
        tell(self._parts.journal, row.id, None, verdict)
        logger = log.get(job=row.id, before=row.state, cause=verdict.message)
        match moved.state:
            case JobState.PAUSED:
                logger.info("job_paused")
            case JobState.COMPLETED:
                logger.info("job_completed", errors=verdict.errors.count, reason=verdict.reason)
            case JobState.RUNNING:
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
            accepted, timing = kind.config.model_validate_json(row.config), Timing.of(row)
        except ValidationError as error:
            await self._refuse(row, error)
            return
        self._start(row, kind, accepted, timing)

    async def _refuse(self, row: JobRow, error: ValidationError) -> JobRow:
        return await self._fail(row, f"its configuration is not accepted any more: {findings(error, 'config')}")

    async def _fail(self, row: JobRow, reason: str) -> JobRow:
        verdict = Verdict(Message.FAIL, reason, row.errors)
        failed = await self._state.write(lambda db: stored.move(db, row.id, verdict, clock.now_us()))
        log.get().error("job_failed", job=row.id, before=row.state, reason=reason, errors=row.errors.count)
        tell(self._parts.journal, row.id, None, verdict)
        return failed if failed is not None else row

    def _start(self, row: JobRow, kind: JobType[Any], accepted: Config, timing: Timing) -> None:
        subscription_id = self._subscription_of[row.id] if isinstance(kind, TriggerJob) else None
        running = Running(kind, accepted, subscription_id, self._state, self._parts, self._settings, self._places)
        supervisor = Supervisor(
            row,
            running,
            timing,
            state=self._state,
            parts=self._parts,
            settings=self._settings,
            provider=self.catalog.provider_of[kind.slug],
        )
        self._supervisors[row.id] = supervisor
        supervisor.start()

    async def _stop(self, job_id: str) -> None:
        supervisor = self._supervisors.get(job_id)
        if supervisor is not None:
            await supervisor.stop()
            del self._supervisors[job_id]

    async def _forget(self, job_id: str) -> None:
        subscription_id = self._subscription_of.pop(job_id, None)
        if subscription_id is not None:
            self._parts.bus.remove(subscription_id)
        if self._parts.data is not None:
            await self._parts.data.forget(job_id)
        self._changing.pop(job_id, None)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await self.expire()
                await self.purge()
            except Exception as error:  # noqa: BLE001  (the next round tries again)
                log.get().warning("retention_failed", what="jobs", error=str(error))


def _hold(db: sqlite3.Connection, auth_id: str | None) -> None:
    """Refuses an authorization that was deleted meanwhile; from this transaction on the job keeps it."""
    if auth_id is not None and auths.method_of(db, auth_id) is None:
        _refuse_authorization(f"there is no authorization {auth_id!r}")


def _refuse_authorization(text: str) -> None:
    raise JobRefusedError([{"loc": ["auth_id"], "msg": text}])
