"""Authorizations: made, checked, used and deleted. Their secrets leave this module in `OpenedAuth` alone."""

from __future__ import annotations

import asyncio
import random
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import anyio
import orjson

from connectors.sdk.catalog import Catalog
from connectors.sdk.declare import AuthMethod
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.run import Credentials
from connectors.sdk.secret import Secret
from daemon import clock, log
from daemon.jobs import credentials as values
from daemon.jobs import metrics
from daemon.jobs.checking import LONGEST_REASON, Verdict, ask
from daemon.jobs.credentials import Given, InvalidError
from daemon.jobs.limiter import Limiter
from daemon.jobs.opening import OpenedAuth, Prepared
from daemon.jobs.requests import Requests, showing_statuses
from daemon.jobs.rotation import Rotation, place, rotate
from daemon.model.authorization import Health, Unit, next_check
from daemon.model.refusal import Conflict, NotFound, Refused
from daemon.settings import Settings
from daemon.store import auths as stored
from daemon.store.auths import AuthRow, SecretRow
from daemon.store.database import Database
from daemon.vault import Sealed, Vault, VaultError

#: How often authorizations that are due are looked for, and how many are checked at once.
LOOK_S = 60.0
CHECKS_AT_ONCE = 4
#: How often counts are written, in seconds.
FLUSH_S = 10.0
#: Jobs that a refused deletion names.
NAMED_JOBS = 100


#: Takes notice of a system event: subject, its id, verb, facts.
Told = Callable[..., None]


def _untold(*_: object, **__: object) -> None:
    return


class View(NamedTuple):
    """An authorization as it is shown: no secret, only which are set, and references; its jobs by state."""

    row: AuthRow
    secrets: Mapping[str, str | None]
    jobs: Mapping[str, int]


class Authorizations:
    """All authorizations. Made by `open`, which checks those that are due until left."""

    def __init__(
        self, state: Database, vault: Vault, settings: Settings, known: Catalog, told: Told | None = None
    ) -> None:
        self.vault = vault
        self._told: Told = told if told is not None else _untold
        self._state = state
        self._settings = settings
        self._known = known
        self._requests = Requests(state)
        self._limiters: dict[str, Limiter] = {}
        self._health: dict[str, Health] = {}
        self._met: dict[str, Verdict] = {}
        self._news = asyncio.Event()
        self._checking = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._rotating = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, state: Database, vault: Vault, settings: Settings, known: Catalog, told: Told | None = None
    ) -> AsyncIterator[Authorizations]:
        """Looks after the authorizations until left; what was counted and met by then is stored.

        told: is called as `told("authorization", id, verb, **facts)` when something happens to one.
        """
        self = cls(state, vault, settings, known, told)
        self._health = await state.read(stored.statuses)
        await self._tell_keys()
        tasks = [
            asyncio.create_task(self._again(self.settle, FLUSH_S, self._news), name="authorizations: settle"),
            asyncio.create_task(self._again(self.check_due, LOOK_S), name="authorizations: check"),
        ]
        try:
            with showing_statuses(self._health):
                yield self
        finally:
            with anyio.CancelScope(shield=True):
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                await self.settle()

    # --- reading

    async def get(self, auth_id: str) -> View:
        """Gives an authorization. Raises NotFound."""
        await self._settled()

        def read(db: sqlite3.Connection) -> View | None:
            row = stored.one(db, auth_id, self.vault.known)
            return None if row is None else self._views(db, [row])[0]

        view = await self._state.read(read)
        if view is None:
            raise _unknown(auth_id)
        return view

    async def every(
        self,
        *,
        provider: str | None = None,
        method: str | None = None,
        status: str | None = None,
        after: tuple[int, str] = (-1, ""),
        limit: int = 100,
    ) -> tuple[list[View], int]:
        """Gives authorizations in the order of their making, those after (time, id), and how many there are in all."""
        await self._settled()

        def read(db: sqlite3.Connection) -> tuple[list[View], int]:
            rows, total = stored.page(
                db, self.vault.known, provider=provider, method=method, status=status, after=after, limit=limit
            )
            return self._views(db, rows), total

        return await self._state.read(read)

    async def method_of(self, auth_id: str) -> tuple[str, str] | None:
        """Gives the slugs of an authorization's provider and method, None when there is none."""
        return await self._state.read(lambda db: stored.method_of(db, auth_id))

    async def counts(self, auth_id: str) -> dict[Unit, list[tuple[int, int]]]:
        """Gives (start, requests) of each hour, day and week that had any. Raises NotFound."""
        await self.get(auth_id)
        return await self._state.read(lambda db: stored.counts(db, auth_id))

    def _views(self, db: sqlite3.Connection, rows: Sequence[AuthRow]) -> list[View]:
        ids = [row.id for row in rows]
        fields, jobs = stored.secrets_of(db, ids), stored.job_counts(db, ids)
        return [
            View(
                row if row.locked is None else row._replace(reason=self.vault.missing(row.locked)),
                {each.field: each.reference for each in fields[row.id]},
                jobs[row.id],
            )
            for row in rows
        ]

    # --- making and changing

    def method(self, provider: str, method: str) -> AuthMethod[Any]:
        """Gives what is declared of a method. Raises NotFound, naming what there is."""
        declared = self._known.providers.get(provider)
        if declared is None:
            raise NotFound(f"there is no provider {provider[:100]!r}; there are {', '.join(self._known.providers)}")
        for each in declared.auths:
            if each.slug == method:
                return each
        there = ", ".join(each.slug for each in declared.auths) or "none: it needs no authorization"
        raise NotFound(f"provider {provider} has no authorization method {method[:100]!r}; there are {there}")

    async def prepare(
        self,
        provider: str,
        method: str,
        config: Mapping[str, Any],
        *,
        label: str = "",
        description: str = "",
        owner: str = "",
    ) -> Prepared:
        """Accepts and checks a new authorization; whoever stores it calls `took` afterwards.

        One that could not be checked (no answer) is accepted, and unknown. Raises NotFound, Refused with the findings
        or the provider's words, and VaultError when a secret could not be sealed.
        """
        declared = self.method(provider, method)
        given, accepted, revealed = self._accepted(declared, config)
        if not self.vault.key_id and any(isinstance(each, Secret) for each in given.secrets.values()):
            raise VaultError(self.vault.problem)
        auth_id = secrets.token_hex(16)
        verdict = await ask(auth_id, declared, accepted, list(revealed.values()), self._settings)
        if verdict is not None and verdict.health is Health.UNHEALTHY:
            raise Refused([{"loc": ["config"], "msg": verdict.reason}], verdict.reason)
        now_us = clock.now_us()
        found = Verdict(Health.UNKNOWN, "") if verdict is None else verdict
        row = AuthRow(
            auth_id, provider, method, label, description, values.plain_text(accepted), owner, found.health,
            found.reason, now_us, None if verdict is None else now_us, self._due(now_us), None, now_us, now_us,
        )  # fmt: skip
        return Prepared(row, given, self.vault)

    async def create(
        self,
        provider: str,
        method: str,
        config: Mapping[str, Any],
        *,
        label: str = "",
        description: str = "",
        owner: str = "",
    ) -> View:
        """Makes an authorization: as `prepare`, and stores it."""
        prepared = await self.prepare(provider, method, config, label=label, description=description, owner=owner)
        await self._state.write(prepared.insert)
        self.took(prepared)
        return await self.get(prepared.row.id)

    def took(self, prepared: Prepared) -> None:
        """Takes notice that a prepared authorization is stored."""
        row = prepared.row
        self._health[row.id] = row.status
        log.get().info(
            "authorization_created",
            authorization=row.id,
            provider=row.provider,
            method=row.method,
            label=row.label,
            owner=row.owner,
            status=row.status,
        )
        self._told(
            "authorization", row.id, "created", provider=row.provider, method=row.method, label=row.label,
            owner=row.owner, status=row.status,
        )  # fmt: skip

    async def describe(self, auth_id: str, *, label: str | None, description: str | None) -> View:
        """Changes label and description, each where given. Raises NotFound."""
        now_us = clock.now_us()
        if not await self._state.write(lambda db: stored.set_texts(db, auth_id, label, description, now_us)):
            raise _unknown(auth_id)
        log.get().info("authorization_edited", authorization=auth_id)
        self._told("authorization", auth_id, "changed")
        return await self.get(auth_id)

    async def delete(self, auth_id: str) -> None:
        """Deletes an authorization. Raises NotFound, and Conflict with the running, sleeping and paused jobs of it."""

        def take(db: sqlite3.Connection) -> list[stored.Holder] | None:
            holders = stored.holders(db, auth_id, NAMED_JOBS)
            return holders if holders or stored.delete(db, auth_id) else None

        holders = await self._state.write(take)
        if holders is None:
            raise _unknown(auth_id)
        if holders:
            named = ", ".join(f"{each.id} ({each.state})" for each in holders[:5])
            more = ", …" if len(holders) > 5 else ""
            raise Conflict(
                f"authorization {auth_id} is in use by {named}{more}: give these jobs another one, or complete or "
                "delete them, first",
                {"jobs": [each._asdict() for each in holders]},
            )
        self._health.pop(auth_id, None)
        self._limiters.pop(auth_id, None)
        self._met.pop(auth_id, None)
        self._requests.forget(auth_id)
        log.get().info("authorization_deleted", authorization=auth_id)
        self._told("authorization", auth_id, "deleted")

    # --- use

    async def opened(self, auth_id: str) -> OpenedAuth:
        """Opens an authorization.

        Raises ConfigError where it is gone or not accepted any more, TransientError while its key is missing; both
        with what to do.
        """

        def read(db: sqlite3.Connection) -> tuple[AuthRow | None, list[SecretRow]]:
            return stored.one(db, auth_id, []), stored.secrets_of(db, [auth_id])[auth_id]

        row, fields = await self._state.read(read)
        if row is None:
            raise ConfigError(f"authorization {auth_id} was deleted; give the job another one")
        try:
            method = self.method(row.provider, row.method)
            given = Given(orjson.loads(row.config), {each.field: self._value(each) for each in fields})
            revealed = values.revealed(given)
            accepted = values.accepted(method.config, given.plain, revealed)
        except (NotFound, InvalidError) as error:
            raise ConfigError(f"authorization {auth_id} cannot be used: {error}") from None
        except VaultError as error:
            raise TransientError(f"authorization {auth_id} is {error}") from None
        self._requests.used(auth_id)
        limiter = self._limiters.setdefault(auth_id, Limiter(method.rate))
        return OpenedAuth(auth_id, method, accepted, limiter, self.requested, list(revealed.values()))

    def unsaved(self, provider: str, method: str, config: Mapping[str, Any]) -> OpenedAuth:
        """Opens values that are not stored, for the form of one that is being made. Raises NotFound, Refused."""
        declared = self.method(provider, method)
        _, accepted, revealed = self._accepted(declared, config)
        return OpenedAuth("", declared, accepted, Limiter(declared.rate), lambda _: None, list(revealed.values()))

    def requested(self, auth_id: str) -> None:
        """Counts one API request."""
        metrics.API_REQUESTS.inc()
        self._requests.made(auth_id)

    def met(self, auth_id: str, error: Exception | None) -> None:
        """Takes notice of what a run met: None when the provider accepted it. Returns at once; stored soon after.

        AuthError makes it unhealthy, None healthy; any other error says nothing of it.
        """
        if auth_id not in self._health:
            return
        if error is None:
            if self._health[auth_id] is Health.HEALTHY and auth_id not in self._met:
                self._requests.worked(auth_id)
                return
            self._met[auth_id] = Verdict(Health.HEALTHY, "")
        elif isinstance(error, AuthError):
            self._met[auth_id] = Verdict(Health.UNHEALTHY, str(error)[:LONGEST_REASON])
        else:
            return
        self._news.set()

    async def settle(self) -> None:
        """Stores what was counted and met."""
        while self._met:
            auth_id = next(iter(self._met))
            await self._found(auth_id, self._met[auth_id], "run")
        await self._requests.flush()

    async def _settled(self) -> None:
        """Stores it, where that is possible now: what is stored can be read also while the disk is full."""
        with suppress(sqlite3.OperationalError):
            await self.settle()

    # --- checks

    async def check(self, auth_id: str) -> View:
        """Checks an authorization now. Raises NotFound.

        What cannot be checked keeps its status; one whose key is missing is shown as unknown, and asks nobody.
        """
        view = await self.get(auth_id)
        row = view.row
        if row.locked is not None:
            self.vault.look_again()
            if row.locked not in self.vault.known:
                await self._put_off(auth_id)
                return view
        verdict: Verdict | None
        try:
            opened = await self.opened(auth_id)
        except ConfigError as error:
            verdict = Verdict(Health.UNHEALTHY, str(error))
        except TransientError as error:
            verdict = Verdict(Health.UNKNOWN, str(error))
        else:
            async with self._checking:
                verdict = await ask(auth_id, opened.method, opened.credentials, opened.secrets, self._settings)
            if verdict is None:
                await self._put_off(auth_id)
                return view
            self.requested(auth_id)
        await self._found(auth_id, verdict, "check", self._due(clock.now_us()))
        return await self.get(auth_id)

    async def check_due(self) -> int:
        """Checks those that are due, a few at a time; says how many. None when `auth.check_every_s` is 0."""
        every_s = self._settings.auth.check_every_s
        if not every_s:
            return 0
        longest_us = round(2 * every_s * 1_000_000)
        checked = 0
        while True:
            due = await self._state.read(lambda db: stored.due(db, clock.now_us(), longest_us, CHECKS_AT_ONCE))
            if not due:
                return checked
            for outcome in await asyncio.gather(*(self.check(each) for each in due), return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, NotFound):
                    raise outcome
            checked += len(due)

    async def _found(self, auth_id: str, verdict: Verdict, cause: str, due_us: int | None = None) -> None:
        """Stores what was found out; a change is logged, once."""
        now_us = clock.now_us()
        before = await self._state.write(
            lambda db: stored.set_status(db, auth_id, verdict.health, verdict.reason, now_us, due_us)
        )
        if self._met.get(auth_id) is verdict:
            del self._met[auth_id]
        if before is None:
            return
        self._health[auth_id] = verdict.health
        if before is not verdict.health:
            logger = log.get(authorization=auth_id, before=before, status=verdict.health, cause=cause)
            if verdict.health is Health.UNHEALTHY:
                logger.warning("authorization_status_changed", reason=verdict.reason)
            else:
                logger.info("authorization_status_changed", reason=verdict.reason)
            self._told(
                "authorization", auth_id, verdict.health.value, reason=verdict.reason, before=before, cause=cause
            )

    async def _put_off(self, auth_id: str) -> None:
        due_us = self._due(clock.now_us())
        await self._state.write(lambda db: stored.put_off(db, auth_id, due_us))

    # --- keys

    async def rotate(self, *, keep: bool = False) -> Rotation:
        """Replaces the key that seals; see `daemon.jobs.rotation`. Raises VaultError."""
        async with self._rotating:
            return await rotate(self._state, self.vault, keep=keep)

    async def _tell_keys(self) -> None:
        used = await self._state.read(stored.keys_used)
        missing = {key: count for key, count in used.items() if key not in self.vault.known}
        older = {key: count for key, count in used.items() if key in self.vault.older}
        if missing:
            log.get().error("secrets_not_readable", keys=missing, source=self.vault.source)
        if older:
            log.get().warning("secrets_under_older_keys", keys=older)

    # --- parts of the above

    def _accepted(
        self, method: AuthMethod[Any], config: Mapping[str, Any]
    ) -> tuple[Given, Credentials, dict[str, Secret]]:
        given = values.divided(method.config, config)
        try:
            revealed = values.revealed(given)
            return given, values.accepted(method.config, given.plain, revealed), revealed
        except InvalidError as error:
            raise Refused([{**each, "loc": ["config", *each["loc"]]} for each in error.errors]) from None

    def _value(self, secret: SecretRow) -> Secret | str:
        if secret.reference is not None:
            return secret.reference
        return self.vault.unseal(Sealed(secret.key_id or "", secret.sealed or b""), place(secret.auth_id, secret.field))

    def _due(self, now_us: int) -> int:
        settings = self._settings.auth
        return next_check(now_us, settings.check_every_s or 86_400.0, settings.check_jitter, random.random())  # noqa: S311

    async def _again(
        self, work: Callable[[], Awaitable[object]], every_s: float, news: asyncio.Event | None = None
    ) -> None:
        """Does the work again and again, at once when there is news; what fails is logged, and done again later."""
        while True:
            try:
                if news is not None:
                    news.clear()
                await work()
            except Exception as error:  # noqa: BLE001  (the next round tries again)
                log.get().warning("authorizations_not_looked_after", error=str(error), again_s=every_s)
                await asyncio.sleep(every_s)
            else:
                await _wait(every_s, news)


async def _wait(seconds: float, news: asyncio.Event | None) -> None:
    if news is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return


def _unknown(auth_id: str) -> NotFound:
    return NotFound(f"there is no authorization {auth_id[:100]!r}")
