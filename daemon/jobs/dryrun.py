"""A dry run: what a job of a configuration would send; and sending one message of it, without making a job."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

from connectors.sdk.declare import JobType, SystemJob, TriggerExport, TriggerJob
from connectors.sdk.errors import AuthError, ConfigError, NotYetError, TransientError, gravest
from connectors.sdk.run import Attempt, Message, Network, Patience, TriggerRun
from daemon import clock, log
from daemon.jobs.lent import OneByOne
from daemon.jobs.parts import OpenedAuth
from daemon.jobs.references import resolve
from daemon.model.subscription import Outcome
from daemon.settings import Settings

#: How long one message may take beyond the deadline of a request, in seconds.
BEYOND_S = 10.0


class Sample(NamedTuple):
    """What became of one message that was sent; `error` is the connector's word where it could not be."""

    outcome: str
    attempt: Attempt
    error: str


class Untold:
    """What a run that is none may tell; nothing of it is kept."""

    def __init__(self, opened: OpenedAuth | None) -> None:
        self._opened = opened

    async def save(self, checkpoint: object) -> None:
        """Keeps nothing."""

    async def request(self) -> None:
        """Waits for the authorization's rate."""
        if self._opened is not None:
            await self._opened.request()

    def count(self, *, added: int = 0, removed: int = 0, omitted: int = 0, failed: int = 0) -> None:
        """Counts nothing."""

    async def tell(self, reason: str) -> None:
        """Shows nothing."""

    def finish(self) -> None:
        """Completes nothing."""


async def send(
    kind: JobType[Any], config: TriggerExport, opened: OpenedAuth | None, message: Message, settings: Settings
) -> Sample:
    """Sends one message by a job type's own run, once. Nothing of cohortd's state changes."""
    if not isinstance(kind, TriggerJob | SystemJob):
        raise TypeError(f"{kind.slug} sends no messages")
    done = asyncio.Event()
    became: list[tuple[Outcome, Attempt]] = []
    given = False

    async def following() -> Message:
        nonlocal given
        if given:
            done.set()  # what writes files settles when it is ended
            await asyncio.Event().wait()
        given = True
        return message

    def settled(_: Message, outcome: Outcome, attempt: Attempt) -> None:
        became.append((outcome, attempt))
        if outcome is not Outcome.FAILED:
            done.set()

    jobs = settings.jobs
    run = TriggerRun(
        source=OneByOne(following, settled),
        job="dryrun",
        config=config,
        log=log.get(job="dryrun", job_type=kind.slug),
        secret=resolve,
        exports=settings.data_dir / Path("exports"),
        imports=settings.data_dir / Path("imports"),
        now_us=clock.now_us,
        control=Untold(opened),
        network=Network(jobs.request_timeout_s, jobs.allow_loopback, jobs.allow_private),
        patience=Patience(total_s=0.0),
        auth=None if opened is None else opened.credentials,
    )
    running = asyncio.ensure_future(kind.run(run))
    waiting = asyncio.ensure_future(done.wait())
    try:
        await asyncio.wait(
            [running, waiting], timeout=jobs.request_timeout_s + BEYOND_S, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        waiting.cancel()
        running.cancel()  # what writes files finishes the one that is open
        await asyncio.wait([running], timeout=jobs.stop_s)
    error = running.exception() if running.done() and not running.cancelled() else None
    if isinstance(error, BaseExceptionGroup):
        error = gravest(error)
    if error is not None and opened is not None:
        opened.cleanse(error)
    words = ""
    match error:
        case None:
            pass
        case ConfigError() | TransientError() | AuthError() | NotYetError():
            words = str(error)
        case _:
            log.get().error("run_crashed", error=str(error), exc_info=error)
            words = f"{type(error).__name__}: {error}"
    outcome, attempt = became[-1] if became else (Outcome.FAILED, Attempt())
    return Sample(outcome.value, attempt, words or ("" if became else "it did not come to an end in time"))
