"""The daemon as one scope: everything is opened in order, and closed in the reverse of it.

Settings, lock, log, databases, events, pipeline, bus, jobs, web, systemd. The only module that knows all parts: the
loops do not import one another, they are handed to each other here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import anyio
import structlog

from connectors.sdk.catalog import catalog
from daemon import lock, log
from daemon.bus.bus import Bus
from daemon.heap import use_one_heap
from daemon.ingest.erasing import Eraser
from daemon.ingest.pipeline import Pipeline
from daemon.ingest.unit import Commit
from daemon.jobs.authorizations import Authorizations
from daemon.jobs.data import JobData
from daemon.jobs.jobs import Jobs
from daemon.jobs.journal import Journal
from daemon.jobs.parts import Parts
from daemon.jobs.system import SystemEvents
from daemon.sdnotify import Notifier
from daemon.settings import Settings
from daemon.store.collector import Collector
from daemon.store.database import Database
from daemon.store.migrate import Name, NewerFileError, migrate
from daemon.store.tokens import Tokens
from daemon.vault import Vault
from daemon.web import api, auth, collect, server
from daemon.web.services import Services
from streams.guards import Limits

try:
    import uvloop
except ImportError:  # not on every platform
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

#: What makes a start impossible and is the owner's to mend: told in a line, without a traceback.
REFUSALS = (lock.LockedError, server.ListenError, NewerFileError)

#: How long a thread that computes may keep the event loop waiting for the interpreter lock, in seconds.
#: Shorter than any slice of work in the loop: who waits for the lock asks for it only after a whole interval without
#: a release, so beside slices of an interval's length a thread could wait a hundred of them (measured: 100 ms).
SWITCH_S = 0.0001

#: When the cycle collector looks, by allocations and by its younger generations. Events and profiles hold no cycles
#: and go by their reference counts; with the interpreter's defaults, searching the profile cache again and again for
#: cycles costs as much as mapping the events (measured). A search stops the loop for as long as what it looks at is
#: large: some 10,000 objects at a time are 10 ms at most, 100,000 were 60; the whole is searched once in millions of
#: events.
COLLECT = (2_000, 4, 5_000)

#: From the signal to the end. What has been answered with 2xx is on disk, so ending in the middle loses nothing.
END_S = 9.5


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that serves: where, and its parts."""

    address: str
    services: Services


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Daemon]:
    """Runs a daemon until left; what it has accepted by then is on disk.

    A loop that crashes cancels the block and comes out of it as an ExceptionGroup.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(lock.hold(settings.data_dir))
        events = await stack.enter_async_context(_database(settings, "events"))
        state = await stack.enter_async_context(_database(settings, "state"))
        tokens = await stack.enter_async_context(Tokens.open(state))

        def committed(commit: Commit) -> None:
            bus.notify(commit)  # nothing is committed before `run`, and the bus is open by then

        limits = _limits(settings)
        pipeline = await stack.enter_async_context(
            Pipeline.open(events, state, settings.ingest, committed, limits=limits)
        )
        collector = await stack.enter_async_context(
            Collector.open(
                events,
                settings,
                rules=lambda: pipeline.definitions.rules,
                cursors=pipeline.committed,
                wake=pipeline.wake,
            )
        )
        journal = await stack.enter_async_context(Journal.open(state, settings))
        bus = await stack.enter_async_context(Bus.open(state, lambda: pipeline.definitions, settings, journal))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        await tasks.start(pipeline.run, name="ingest")
        eraser = Eraser(
            events,
            state,
            committed=pipeline.committed,
            delivered=bus.settled,
            flush=collector.flush,
            passed=pipeline.tombstones_passed,
            wake=pipeline.to_scrub,
        )
        tasks.start_soon(eraser.run, name="erasing")
        system = SystemEvents(state, journal, collector, settings.journal.heartbeat_s)
        tasks.start_soon(system.run, name="system events")
        known = catalog()
        vault = Vault.open(settings.data_dir, settings)
        authorizations = await stack.enter_async_context(
            Authorizations.open(state, vault, settings, known, journal.system_event)
        )
        data = JobData(events, state, collector, lambda: pipeline.definitions, settings)
        parts = Parts(bus, authorizations, data, journal, system)
        jobs = await stack.enter_async_context(Jobs.open(state, parts, settings, known=known))
        services = Services(
            settings=settings,
            events=events,
            state=state,
            tokens=tokens,
            collector=collector,
            pipeline=pipeline,
            bus=bus,
            jobs=jobs,
            authorizations=authorizations,
            journal=journal,
            job_data=data,
            trusted_proxies=auth.networks(settings.server.trusted_proxies),
        )
        application = server.application(services, [*collect.routes(), *api.routes()])
        address = await stack.enter_async_context(server.serve(application))
        services.ready = True
        yield Daemon(address, services)


async def run(settings: Settings) -> int:
    """Runs the daemon until SIGTERM or SIGINT; gives the exit status, 0 after a signal, 1 after a failure."""
    sys.setswitchinterval(SWITCH_S)
    logger = log.get()
    notifier = Notifier()
    reason = "failure"
    status = 1
    try:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with opened(settings) as daemon, anyio.create_task_group() as tasks:
                tasks.start_soon(notifier.watchdog)
                logger.info("daemon_ready", address=daemon.address, data_dir=str(settings.data_dir))
                notifier.ready(f"serving on {daemon.address}")
                async for received in signals:
                    reason = received.name
                    break
                _end_in_time(logger)
                logger.info("daemon_stopping", reason=reason)
                notifier.stopping(f"stopping after {reason}")
                tasks.cancel_scope.cancel()
        status = 0
    except BaseException as error:
        causes = list(_causes(error))
        if all(isinstance(cause, REFUSALS) for cause in causes):
            for cause in causes:
                logger.error("daemon_refused", error=str(cause))  # noqa: TRY400  (its owner needs no traceback)
        else:
            for cause in causes:  # each for itself: the groups around them only say that there are scopes
                logger.error("daemon_failed", exc_info=cause)  # noqa: TRY400  (of the cause, not of the group)
            if not isinstance(error, Exception):
                raise
    finally:
        logger.info("daemon_stopped", reason=reason)
    return status


def main(settings: Settings) -> int:
    """Runs the daemon in an event loop of its own, uvloop's where it is installed; gives the exit status."""
    use_one_heap()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run(settings))


def _causes(error: BaseException) -> Iterator[BaseException]:
    # What fails within a task group comes out of it as a group.
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    else:
        yield error


def _end_in_time(logger: structlog.typing.FilteringBoundLogger) -> None:
    def end() -> None:
        logger.warning("daemon_stop_forced", after_s=END_S)
        os._exit(0)

    # A thread, since what keeps us may be the event loop itself; a daemon thread, so that it keeps nobody.
    timer = threading.Timer(END_S, end)
    timer.daemon = True
    timer.start()


def _limits(settings: Settings) -> Limits:
    identity = settings.identity
    return Limits(
        keys=identity.keys,
        stitches=identity.stitches,
        window_us=round(identity.stitch_window_s * 1_000_000) if identity.stitches else 0,
        compact_keys=identity.compact_keys,
        compact_us=identity.compact_days * 86_400_000_000,
    )


def _database(settings: Settings, name: Name) -> AbstractAsyncContextManager[Database]:
    return Database.open(
        settings.data_dir / f"{name}.db",
        # The log is written at its end and read once, so it gains little from a cache.
        cache_kib=settings.store.cache_kib // (1 if name == "state" else 4),
        prepare=partial(migrate, database=name),
    )
