"""The life of jobs: states, back-off, pause, restart; with connectors that do as the test says."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from scripted_jobs import CONFIG, Listeners, Script, opened_state, until
from structlog.testing import capture_logs

from connectors.sdk.catalog import assemble
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from daemon.jobs.jobs import JobConflictError, JobRefusedError, Jobs, NoSuchJobError
from daemon.jobs.parts import Parts
from daemon.model.job import JobState, Message, SleepCause
from daemon.settings import Settings
from daemon.store import subscriptions

HOUR_US = 3_600_000_000


def opened_jobs(state, script, bus=None, **settings):
    return Jobs.open(state, Parts(bus or Listeners()), Settings(jobs=settings), known=script.catalog())


async def test_a_job_is_created_with_its_subscription_and_runs(tmp_path):
    script, bus = Script(), Listeners()
    async with opened_state(tmp_path) as state, opened_jobs(state, script, bus) as jobs:
        row = await jobs.create("test_job", CONFIG, label="mine", description="what for")
        await script.runs.get()
        stored = await state.read(lambda db: subscriptions.of_job(db, row.id))

    assert (row.state, row.label, row.description) == (JobState.RUNNING, "mine", "what for")
    assert {stored.id} == bus.ids
    assert frozenset({1}) == stored.wanted.audiences
    assert [each.config.audiences for each in script.offered] == [("vip",)]


async def test_a_job_that_cannot_be_is_refused_and_nothing_of_it_is_kept(tmp_path):
    script = Script()
    async with opened_state(tmp_path) as state, opened_jobs(state, script) as jobs:
        with pytest.raises(NoSuchJobError, match="test_job"):
            await jobs.create("other_job", CONFIG)
        with pytest.raises(JobRefusedError) as invalid:
            await jobs.create("test_job", {"audiences": ["vip"], "events": "never"})
        with pytest.raises(JobRefusedError) as unknown:
            await jobs.create("test_job", {"audiences": ["vip", "nobody"]})
        rows = await jobs.every()

    assert [each["loc"] for each in invalid.value.errors] == [["config", "events"]]
    assert [each["loc"] for each in unknown.value.errors] == [["config", "audiences", 1]]
    assert rows == []


@pytest.mark.parametrize(
    ("raised", "state", "cause", "errors", "crashes"),
    [
        (None, JobState.COMPLETED, None, 0, 0),
        (TransientError("no answer"), JobState.SLEEPING, SleepCause.ERROR, 1, 0),
        (AuthError("refused"), JobState.SLEEPING, SleepCause.ERROR, 1, 0),
        (TransientError("busy", retry_after=50), JobState.SLEEPING, SleepCause.RETRY_AFTER, 0, 0),
        (ConfigError("change the url"), JobState.FAILED, None, 0, 0),
        (KeyError("bug"), JobState.SLEEPING, SleepCause.ERROR, 1, 1),
        (ExceptionGroup("", [TransientError("t"), ConfigError("change the url")]), JobState.FAILED, None, 0, 0),
    ],
)
async def test_what_a_run_raises_decides_the_state(tmp_path, frozen_clock, raised, state, cause, errors, crashes):
    script = Script()
    async with opened_state(tmp_path) as store, opened_jobs(store, script) as jobs:
        job = await jobs.create("test_job", CONFIG)
        end = await script.runs.get()
        if raised is None:
            end.set_result(None)
        else:
            end.set_exception(raised)
        row = await until(jobs, job.id, state)

    assert (cause, errors, crashes) == (row.sleep_cause, row.errors.count, row.crashes)
    if cause is SleepCause.ERROR:
        assert frozen_clock.us + 60_000_000 == row.sleep_until_us
    if cause is SleepCause.RETRY_AFTER:
        assert frozen_clock.us + 50_000_000 == row.sleep_until_us
    if state is JobState.FAILED:
        assert row.reason == "change the url"


async def test_errors_in_a_row_end_with_the_first_thing_that_is_delivered(tmp_path):
    script, bus = Script(), Listeners()
    async with opened_state(tmp_path) as state, opened_jobs(state, script, bus, back_off_s=0.01) as jobs:
        job = await jobs.create("test_job", CONFIG)
        for _ in range(3):
            (await script.runs.get()).set_exception(TransientError("no answer"))
        end = await script.runs.get()
        counted = (await until(jobs, job.id, JobState.RUNNING)).errors.count
        bus.delivered[jobs.subscription_of(job.id)]()
        end.set_exception(TransientError("no answer"))
        row = await until(jobs, job.id, JobState.SLEEPING)

    assert (counted, row.errors.count) == (3, 1)


async def test_a_job_fails_after_ten_hours_of_errors_and_can_be_resumed(tmp_path, frozen_clock):
    script = Script()
    async with opened_state(tmp_path) as state, opened_jobs(state, script) as jobs:
        job = await jobs.create("test_job", CONFIG)
        (await script.runs.get()).set_exception(TransientError("no answer"))
        await until(jobs, job.id, JobState.SLEEPING)
        frozen_clock.us += 10 * HOUR_US
        await jobs.command(job.id, Message.RUN)
        (await script.runs.get()).set_exception(TransientError("no answer"))
        failed = await until(jobs, job.id, JobState.FAILED)
        await jobs.command(job.id, Message.RESUME)
        await script.runs.get()
        row = await jobs.get(job.id)

    assert "no answer" in failed.reason
    assert (row.state, row.errors.count) == (JobState.RUNNING, 0)


async def test_a_sleeping_job_wakes_when_its_moment_comes(tmp_path):
    script = Script()
    async with opened_state(tmp_path) as state, opened_jobs(state, script) as jobs:
        await jobs.create("test_job", CONFIG)
        (await script.runs.get()).set_exception(TransientError("busy", retry_after=0.2))
        async with asyncio.timeout(5):
            await script.runs.get()


async def test_a_paused_job_does_nothing_until_it_is_resumed(tmp_path):
    script, bus = Script(), Listeners()
    async with opened_state(tmp_path) as state, opened_jobs(state, script, bus) as jobs:
        job = await jobs.create("test_job", CONFIG)
        end = await script.runs.get()
        paused = await jobs.command(job.id, Message.PAUSE)
        again = await jobs.command(job.id, Message.PAUSE)
        with pytest.raises(JobConflictError, match="it accepts pause, resume, complete"):
            await jobs.command(job.id, Message.RUN)
        cancelled, idle = end.cancelled(), script.runs.empty()
        resumed = await jobs.command(job.id, Message.RESUME)
        await script.runs.get()

    assert (cancelled, idle) == (True, True)
    assert [each.state for each in (paused, again, resumed)] == [JobState.PAUSED, JobState.PAUSED, JobState.RUNNING]
    assert resumed.errors.count == 0
    assert len(bus.ids) == 1


async def test_a_run_that_does_not_end_is_left_alone_after_a_bound(tmp_path):
    script = Script()
    script.deaf = True
    async with opened_state(tmp_path) as state:
        async with opened_jobs(state, script, stop_s=0.2) as jobs:
            job = await jobs.create("test_job", CONFIG)
            end = await script.runs.get()
            began = asyncio.get_running_loop().time()
            with capture_logs() as said:
                await jobs.command(job.id, Message.PAUSE)
            paused_after = asyncio.get_running_loop().time() - began
            await jobs.command(job.id, Message.RESUME)
            second = await script.runs.get()
            began = asyncio.get_running_loop().time()
        closed_after = asyncio.get_running_loop().time() - began
        for each in (end, second):
            each.set_result(None)
        await asyncio.sleep(0)
        left = await state.read(lambda db: db.execute("SELECT state FROM job").fetchall())

    assert [each["event"] for each in said if each["log_level"] == "error"] == ["run_abandoned"]
    assert paused_after < 2
    assert closed_after < 2
    assert left == [("running",)]


async def test_a_restart_takes_up_every_job_as_it_was(tmp_path, frozen_clock):
    script = Script()
    async with opened_state(tmp_path) as state:
        async with opened_jobs(state, script) as jobs:
            running, sleeping, paused, failed = [await jobs.create("test_job", CONFIG) for _ in range(4)]
            ends = [await script.runs.get() for _ in range(4)]
            ends[1].set_exception(TransientError("no answer"))
            ends[3].set_exception(ConfigError("change it"))
            await until(jobs, sleeping.id, JobState.SLEEPING)
            await until(jobs, failed.id, JobState.FAILED)
            await jobs.command(paused.id, Message.PAUSE)
        before = len(script.offered)
        async with opened_jobs(state, script) as jobs:
            await script.runs.get()
            taken_up = [each.job for each in script.offered[before:]]
            rows = {row.id: row for row in await jobs.every()}

    assert [running.id] == taken_up
    assert [rows[each.id].state for each in (running, sleeping, paused, failed)] == [
        JobState.RUNNING,
        JobState.SLEEPING,
        JobState.PAUSED,
        JobState.FAILED,
    ]
    assert frozen_clock.us + 60_000_000 == rows[sleeping.id].sleep_until_us
    assert (rows[running.id].errors.count, rows[sleeping.id].errors.count) == (0, 1)


async def test_a_job_whose_type_is_not_installed_any_more_fails_with_what_to_do(tmp_path):
    script = Script()
    async with opened_state(tmp_path) as state:
        async with opened_jobs(state, script) as jobs:
            job = await jobs.create("test_job", CONFIG)
        async with Jobs.open(state, Parts(Listeners()), Settings(), known=assemble([])) as jobs:
            row = await jobs.get(job.id)

    assert JobState.FAILED is row.state
    assert "install" in row.reason


async def test_deleting_a_job_ends_its_run_and_takes_its_subscription_away(tmp_path):
    script, bus = Script(), Listeners()
    async with opened_state(tmp_path) as state, opened_jobs(state, script, bus) as jobs:
        job = await jobs.create("test_job", CONFIG)
        end = await script.runs.get()
        await jobs.delete(job.id)
        with pytest.raises(NoSuchJobError):
            await jobs.delete(job.id)
        left = await state.read(subscriptions.every)

    assert end.cancelled()
    assert ([], set()) == (left, bus.ids)


async def test_a_completed_job_keeps_its_counts_and_holds_nothing(tmp_path):
    script, bus = Script(), Listeners()
    async with opened_state(tmp_path) as state, opened_jobs(state, script, bus) as jobs:
        job = await jobs.create("test_job", CONFIG)
        await script.runs.get()
        row = await jobs.command(job.id, Message.COMPLETE)
        with pytest.raises(JobConflictError):
            await jobs.command(job.id, Message.RESUME)
        live = await state.read(subscriptions.live)

    assert (JobState.COMPLETED, [], set()) == (row.state, live, bus.ids)


async def test_jobs_that_ended_long_ago_are_purged(tmp_path, frozen_clock):
    script, bus = Script(), Listeners()
    async with opened_state(tmp_path) as state, opened_jobs(state, script, bus) as jobs:
        running, paused, done = [await jobs.create("test_job", CONFIG) for _ in range(3)]
        await jobs.command(paused.id, Message.PAUSE)
        await jobs.command(done.id, Message.COMPLETE)
        frozen_clock.us += 89 * 24 * HOUR_US
        early = await jobs.purge()
        frozen_clock.us += 2 * 24 * HOUR_US
        late = await jobs.purge()
        left = [row.id for row in await jobs.every()]

    assert (0, 2, [running.id]) == (early, late, left)
    assert len(bus.ids) == 1


async def test_a_full_disk_does_not_end_a_jobs_life(tmp_path, monkeypatch):
    script = Script()
    monkeypatch.setattr("daemon.jobs.supervisor.STORE_AGAIN_S", (0.01, 0.01))
    async with opened_state(tmp_path) as state, opened_jobs(state, script) as jobs:
        job = await jobs.create("test_job", CONFIG)
        end = await script.runs.get()
        write, refused = state.write, 0

        async def full(work):
            nonlocal refused
            refused += 1
            if refused <= 3:
                raise sqlite3.OperationalError("database or disk is full")
            return await write(work)

        state.write = full
        end.set_exception(TransientError("busy", retry_after=0))
        await script.runs.get()
        row = await until(jobs, job.id, JobState.RUNNING)

    assert refused >= 4
    assert JobState.RUNNING is row.state
