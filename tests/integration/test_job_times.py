"""When jobs run: schedules, quiet hours, the end of their time; and every pair of state and message."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from scripted_jobs import CONFIG, Listeners, Script, opened_state, until

from connectors.sdk.catalog import assemble
from connectors.sdk.declare import EventsExport, EventsJob, Provider
from connectors.sdk.errors import ConfigError, NotYetError, TransientError
from daemon import clock
from daemon.jobs.asked import JobRefusedError, Timed
from daemon.jobs.jobs import Jobs
from daemon.jobs.parts import Parts, Unwatched
from daemon.model.job import NO_ERRORS, JobState, Message, SleepCause, Verdict
from daemon.settings import Settings
from daemon.store import jobs as stored

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US

HOURLY = Timed(schedule={"frequency": "hourly"})
NIGHT = {"time_of_day": "22:00", "hours": 8, "time_zone": "Europe/Berlin"}


class Nothing:
    """Stands for the log and the profiles, of which these connectors ask nothing."""

    def __init__(self) -> None:
        self.forgotten = []

    def events(self, _config) -> None:
        return None

    async def forget(self, job_id) -> None:
        self.forgotten.append(job_id)


class Batch(Script):
    """A connector with a schedule."""

    def catalog(self):
        kind = EventsJob(
            slug="test_job",
            label="Test",
            description="",
            direction="export",
            config=EventsExport,
            run=self.run,
            schedule="optional",
        )
        return assemble([Provider("test", "Test", "", (kind,))])


class Witness(Unwatched):
    """A journal that remembers how runs ended."""

    def __init__(self) -> None:
        self.ends = []

    def run_ended(self, _job_id, _run_id, _ended_us, outcome, reason) -> None:
        self.ends.append((outcome, reason))


def opened(state, script, *, journal=None, bus=None, **settings):
    parts = Parts(bus or Listeners(), data=Nothing(), journal=journal or Witness())
    return Jobs.open(state, parts, Settings(jobs=settings), known=script.catalog())


def at(text: str) -> int:
    return clock.to_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


async def test_a_run_that_ends_sleeps_until_the_schedule_and_a_missed_one_runs_once(tmp_path, frozen_clock):
    script = Batch()
    frozen_clock.us = at("2026-03-10T09:00:00")
    async with opened_state(tmp_path) as state:
        async with opened(state, script) as jobs:
            job = await jobs.create("test_job", {}, timed=HOURLY)
            (await script.runs.get()).set_result(None)
            slept = await until(jobs, job.id, JobState.SLEEPING)
        frozen_clock.us += 5 * HOUR_US
        async with opened(state, script) as jobs:
            (await script.runs.get()).set_result(None)
            again = await until(jobs, job.id, JobState.SLEEPING)
            idle = script.runs.empty()

    assert (SleepCause.SCHEDULE, at("2026-03-10T10:00:00")) == (slept.sleep_cause, slept.sleep_until_us)
    assert (2, True) == (again.runs, idle)
    assert at("2026-03-10T15:00:00") == again.sleep_until_us
    assert [True, True] == [each.repeats for each in script.offered]


async def test_without_a_schedule_a_batch_runs_once(tmp_path):
    script = Batch()
    async with opened_state(tmp_path) as state, opened(state, script) as jobs:
        job = await jobs.create("test_job", {})
        (await script.runs.get()).set_result(None)
        row = await until(jobs, job.id, JobState.COMPLETED)

    assert (1, [False]) == (row.runs, [each.repeats for each in script.offered])


async def test_a_one_time_job_with_a_time_of_day_waits_for_it(tmp_path, frozen_clock):
    script = Batch()
    frozen_clock.us = at("2026-03-10T09:00:00")
    once = Timed(schedule={"frequency": "once", "time_of_day": "23:30", "time_zone": "Europe/Berlin"})
    async with opened_state(tmp_path) as state:
        async with opened(state, script) as jobs:
            job = await jobs.create("test_job", {}, timed=once)
            waiting = await until(jobs, job.id, JobState.SLEEPING)
        frozen_clock.us = at("2026-03-10T22:30:00")
        async with opened(state, script) as jobs:
            (await script.runs.get()).set_result(None)
            await until(jobs, job.id, JobState.COMPLETED)

    assert (0, at("2026-03-10T22:30:00")) == (waiting.runs, waiting.sleep_until_us)
    assert 1 == len(script.offered)


async def test_an_error_backs_off_and_then_the_schedule_goes_on(tmp_path, frozen_clock):
    script = Batch()
    frozen_clock.us = at("2026-03-10T09:00:00")
    daily = Timed(schedule={"frequency": "daily", "time_of_day": "12:00"})
    async with opened_state(tmp_path) as state, opened(state, script) as jobs:
        job = await jobs.create("test_job", {}, timed=daily)
        (await script.runs.get()).set_exception(TransientError("no answer"))
        failed = await until(jobs, job.id, JobState.SLEEPING)
        await jobs.command(job.id, Message.RUN)
        (await script.runs.get()).set_exception(NotYetError("waits for day_2.csv", again_s=600))
        waiting = await until(jobs, job.id, JobState.SLEEPING)
        await jobs.command(job.id, Message.RUN)
        (await script.runs.get()).set_result(None)
        done = await until(jobs, job.id, JobState.SLEEPING)

    assert (SleepCause.ERROR, 1) == (failed.sleep_cause, failed.errors.count)
    assert (SleepCause.SCHEDULE, 0, "waits for day_2.csv") == (
        waiting.sleep_cause,
        waiting.errors.count,
        waiting.reason,
    )
    assert frozen_clock.us + 600 * SECOND_US == waiting.sleep_until_us
    assert (at("2026-03-10T12:00:00"), "") == (done.sleep_until_us, done.reason)


async def test_a_back_off_is_no_longer_when_the_clock_is_set_back(tmp_path, frozen_clock):
    script = Batch()
    async with opened_state(tmp_path) as state, opened(state, script, back_off_s=0.2) as jobs:
        await jobs.create("test_job", {})
        end = await script.runs.get()
        end.set_exception(TransientError("no answer"))
        frozen_clock.us -= HOUR_US
        async with asyncio.timeout(5):
            await script.runs.get()

    assert 2 == len(script.offered)


async def test_a_clock_set_back_does_not_bring_a_planned_run_twice(tmp_path, frozen_clock):
    script = Batch()
    frozen_clock.us = at("2026-03-10T09:00:00")
    daily = Timed(schedule={"frequency": "daily", "time_of_day": "12:00"})
    async with opened_state(tmp_path) as state:
        async with opened(state, script) as jobs:
            job = await jobs.create("test_job", {}, timed=daily)
            (await script.runs.get()).set_result(None)
            await until(jobs, job.id, JobState.SLEEPING)
        frozen_clock.us = at("2026-03-10T12:00:01")
        async with opened(state, script) as jobs:
            end = await script.runs.get()
            frozen_clock.us -= HOUR_US
            end.set_result(None)
            row = await until(jobs, job.id, JobState.SLEEPING)

    assert at("2026-03-11T12:00:00") == row.sleep_until_us


async def test_a_run_by_hand_does_not_take_the_place_of_the_planned_one(tmp_path, frozen_clock):
    script = Batch()
    frozen_clock.us = at("2026-03-10T18:00:00")
    daily = Timed(schedule={"frequency": "daily", "time_of_day": "20:00"})
    async with opened_state(tmp_path) as state, opened(state, script) as jobs:
        job = await jobs.create("test_job", {}, timed=daily)
        until_us = []
        for _ in range(3):
            (await script.runs.get()).set_result(None)
            until_us.append((await until(jobs, job.id, JobState.SLEEPING)).sleep_until_us)
            await jobs.command(job.id, Message.RUN)

    assert [at("2026-03-10T20:00:00")] * 3 == until_us


async def test_quiet_hours_end_a_run_and_begin_it_again_when_they_are_over(tmp_path, frozen_clock):
    script, witness = Script(), Witness()
    frozen_clock.us = at("2026-03-10T20:59:59.9")  # 21:59:59.9 in Berlin
    async with opened_state(tmp_path) as state:
        async with opened(state, script, journal=witness) as jobs:
            job = await jobs.create("test_job", CONFIG, timed=Timed(quiet=NIGHT))
            end = await script.runs.get()
            frozen_clock.us += SECOND_US
            row = await until(jobs, job.id, JobState.SLEEPING)
            cancelled = end.cancelled()
            forced = await jobs.command(job.id, Message.RUN)
            await script.runs.get()
        frozen_clock.us = at("2026-03-11T03:00:00")
        async with opened(state, script) as jobs:
            asleep = await until(jobs, job.id, JobState.SLEEPING)
        frozen_clock.us = at("2026-03-11T05:00:00")
        async with opened(state, script) as jobs:
            await script.runs.get()

    assert cancelled
    assert (SleepCause.SCHEDULE, "quiet hours", 0) == (row.sleep_cause, row.reason, row.errors.count)
    assert at("2026-03-11T05:00:00") == row.sleep_until_us == asleep.sleep_until_us
    assert JobState.RUNNING is forced.state
    assert [("quiet", ""), ("cancelled", "")] == witness.ends


@pytest.mark.parametrize("state", ["running", "sleeping", "paused", "failed"])
async def test_a_job_whose_time_is_over_is_completed_from_every_state(tmp_path, frozen_clock, state):
    script, bus = Script(), Listeners()
    expires = clock.now() + timedelta(hours=1)
    async with opened_state(tmp_path) as store, opened(store, script, bus=bus) as jobs:
        job = await jobs.create("test_job", CONFIG, timed=Timed(expires_at=expires))
        end = await script.runs.get()
        frozen_clock.us += HOUR_US - SECOND_US // 10
        match state:
            case "sleeping":
                end.set_exception(TransientError("busy", retry_after=3000))
                await until(jobs, job.id, JobState.SLEEPING)
            case "paused":
                await jobs.command(job.id, Message.PAUSE)
            case "failed":
                end.set_exception(ConfigError("change it"))
                await until(jobs, job.id, JobState.FAILED)
            case "running":
                await jobs.command(job.id, Message.PAUSE)
                await jobs.command(job.id, Message.RESUME)
                await script.runs.get()
        if state == "sleeping":
            await jobs.command(job.id, Message.PAUSE)
            await jobs.command(job.id, Message.RESUME)  # sleeps a tenth of a second at most from here on
        frozen_clock.us += SECOND_US
        await jobs.expire()
        row = await until(jobs, job.id, JobState.COMPLETED)

    assert "expired" == row.reason
    assert set() == bus.ids


@pytest.mark.parametrize(
    ("timed", "loc"),
    [
        (Timed(schedule={"frequency": "fortnightly"}), ["schedule", "frequency"]),
        (Timed(schedule={"frequency": "daily", "time_zone": "Europe/Berlim"}), ["schedule", "time_zone"]),
        (Timed(quiet={"time_of_day": "25:00", "hours": 8}), ["quiet", "time_of_day"]),
        (Timed(expires_at=datetime(2020, 1, 1, tzinfo=UTC)), ["expires_at"]),
        (Timed(expires_at=datetime(2999, 1, 1)), ["expires_at"]),  # noqa: DTZ001  (it is what is refused)
    ],
)
async def test_times_that_cannot_be_are_refused_with_their_place(tmp_path, timed, loc):
    async with opened_state(tmp_path) as state, opened(state, Batch()) as jobs:
        with pytest.raises(JobRefusedError) as refused:
            await jobs.create("test_job", {}, timed=timed)
        rows = await jobs.every()

    assert [loc] == [list(each["loc"]) for each in refused.value.errors]
    assert [] == rows


async def test_an_export_of_triggers_takes_no_schedule(tmp_path):
    async with opened_state(tmp_path) as state, opened(state, Script()) as jobs:
        with pytest.raises(JobRefusedError, match="runs all the time"):
            await jobs.create("test_job", CONFIG, timed=HOURLY)


async def test_a_copy_is_a_job_of_its_own_with_all_that_was_asked(tmp_path, frozen_clock):
    script = Batch()
    timed = Timed({"frequency": "hourly"}, NIGHT, clock.from_us(frozen_clock.us + HOUR_US))
    async with opened_state(tmp_path) as state, opened(state, script) as jobs:
        first = await jobs.create("test_job", {"streams": ["web"]}, label="mine", timed=timed, owner="a")
        second = await jobs.copy(first.id, owner="b")

    assert first.id != second.id
    assert ("mine (copy)", "b") == (second.label, second.owner)
    assert (first.config, first.schedule, first.quiet, first.expires_us) == (
        second.config,
        second.schedule,
        second.quiet,
        second.expires_us,
    )


async def test_no_more_batches_run_at_once_than_the_setting_says(tmp_path):
    script = Batch()
    async with opened_state(tmp_path) as state, opened(state, script, runs_at_once=2) as jobs:
        made = [await jobs.create("test_job", {}) for _ in range(3)]
        ends = [await script.runs.get() for _ in range(2)]
        running = {each.job for each in script.offered}
        (third,) = {each.id for each in made} - running
        async with asyncio.timeout(5):
            while "waits for others" not in (await jobs.get(third)).reason:
                await asyncio.sleep(0)
        ends[0].set_result(None)
        await script.runs.get()

    assert {each.id for each in made} == {each.job for each in script.offered}


async def test_deleting_a_job_takes_what_is_kept_for_its_imports_away(tmp_path):
    data = Nothing()
    async with (
        opened_state(tmp_path) as state,
        Jobs.open(state, Parts(Listeners(), data=data), Settings(), known=Batch().catalog()) as jobs,
    ):
        job = await jobs.create("test_job", {})
        await jobs.delete(job.id)

    assert [job.id] == data.forgotten


#: State by state, what each message makes of a job; "." where it is refused. Written down apart from the code.
TABLE = """
            pause    resume   run      complete   due      done       rest      back_off  fail    expire
running     paused   running  running  completed  .        completed  sleeping  sleeping  failed  completed
sleeping    paused   running  running  completed  running  .          sleeping  .         failed  completed
paused      paused   running  .        completed  .        .          .         .         .       completed
failed      paused   running  .        completed  .        .          .         .         .       completed
completed   .        .        .        completed  .        .          .         .         .       .
"""


def pairs():
    head, *lines = TABLE.strip().splitlines()
    for line in lines:
        state, *becomes = line.split()
        for message, target in zip(head.split(), becomes, strict=True):
            yield state, message, None if target == "." else target


async def test_every_pair_of_state_and_message_does_what_the_table_says(tmp_path):
    def tried(db):
        found = []
        for state, message, _ in pairs():
            job = stored.NewJob(f"{state}-{message}", "test", "", "", None, "{}", "", None, None, None)
            stored.insert(db, job, 0)
            db.execute("UPDATE job SET state = ? WHERE id = ?", (state, job.id))
            moved = stored.move(db, job.id, Verdict(Message(message), "", NO_ERRORS), 1)
            row = stored.one(db, job.id)
            found.append((state, message, None if moved is None else str(moved.state), str(row.state)))
        return found

    async with opened_state(tmp_path) as state:
        found = await state.write(tried)

    assert {(state, message) for state, message, _ in pairs()} == {(s, m) for s in JobState for m in Message}
    assert [(s, m, target, target or s) for s, m, target in pairs()] == found
