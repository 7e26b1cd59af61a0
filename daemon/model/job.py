"""The states of a job, what moves it from one to another, and how long it stays away after an error."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

SECOND_US = 1_000_000


class JobState(StrEnum):
    """The states, as users know them."""

    RUNNING = "running"
    SLEEPING = "sleeping"
    PAUSED = "paused"
    FAILED = "failed"
    COMPLETED = "completed"


class SleepCause(StrEnum):
    """What a sleeping job waits for."""

    SCHEDULE = "schedule"
    ERROR = "error"
    RETRY_AFTER = "retry_after"


class Command(StrEnum):
    """What a user can tell a job."""

    PAUSE = "pause"
    RESUME = "resume"
    RUN = "run"
    COMPLETE = "complete"


#: States in which a job has a task of its own: it runs, or will.
ACTIVE = frozenset({JobState.RUNNING, JobState.SLEEPING})

#: States that may come back: their cursor is live and what they use cannot be deleted.
LIVE = ACTIVE | {JobState.PAUSED, JobState.FAILED}

#: What a command makes of a job; where nothing stands, it is refused. The same state again means: nothing to do.
TRANSITIONS: dict[Command, dict[JobState, JobState]] = {
    Command.PAUSE: {
        JobState.RUNNING: JobState.PAUSED,
        JobState.SLEEPING: JobState.PAUSED,
        JobState.FAILED: JobState.PAUSED,
        JobState.PAUSED: JobState.PAUSED,
    },
    Command.RESUME: {
        JobState.PAUSED: JobState.RUNNING,
        JobState.FAILED: JobState.RUNNING,
        JobState.SLEEPING: JobState.RUNNING,
        JobState.RUNNING: JobState.RUNNING,
    },
    Command.RUN: {
        JobState.SLEEPING: JobState.RUNNING,
        JobState.RUNNING: JobState.RUNNING,
    },
    Command.COMPLETE: {
        JobState.RUNNING: JobState.COMPLETED,
        JobState.SLEEPING: JobState.COMPLETED,
        JobState.PAUSED: JobState.COMPLETED,
        JobState.FAILED: JobState.COMPLETED,
        JobState.COMPLETED: JobState.COMPLETED,
    },
}


def commanded(state: JobState, command: Command) -> JobState | None:
    """Gives the state that `command` leads to from `state`, None when it is refused there."""
    return TRANSITIONS[command].get(state)


def accepts(state: JobState) -> list[Command]:
    """Gives the commands that a job in `state` accepts."""
    return [command for command in Command if state in TRANSITIONS[command]]


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long a job sleeps after errors in a row, in seconds, and after how long it is failed."""

    first_s: float = 60.0
    longest_s: float = 3600.0
    retry_after_longest_s: float = 3600.0
    fail_after_s: float = 36_000.0


@dataclass(frozen=True, slots=True)
class Errors:
    """Consecutive errors: how many, and since when."""

    count: int
    first_us: int | None


class Verdict(NamedTuple):
    """What a run's end makes of its job."""

    state: JobState
    reason: str
    errors: Errors
    sleep_until_us: int | None = None
    sleep_cause: SleepCause | None = None


NO_ERRORS = Errors(0, None)


def after_error(errors: Errors, reason: str, now_us: int, rules: BackOff) -> Verdict:
    """Decides after a run that ended in a transient error: sleep, twice as long each time, and failed in the end."""
    first_us = now_us if errors.first_us is None else errors.first_us
    counted = Errors(errors.count + 1, first_us)
    failing_s = (now_us - first_us) / SECOND_US
    if failing_s >= rules.fail_after_s:
        hours = failing_s / 3600
        return Verdict(
            JobState.FAILED, f"{counted.count} errors in a row over {hours:.1f} h, the last: {reason}", counted
        )
    # The exponent is bounded so that it cannot overflow; 2**20 minutes is beyond any longest_s.
    sleep_s = min(rules.first_s * 2 ** min(errors.count, 20), rules.longest_s)
    until_us = now_us + round(sleep_s * SECOND_US)
    return Verdict(JobState.SLEEPING, reason, counted, until_us, SleepCause.ERROR)


def after_retry_after(errors: Errors, seconds: float, reason: str, now_us: int, rules: BackOff) -> Verdict:
    """Decides after a run whose destination named a time: sleep that long; errors are neither added nor forgotten."""
    sleep_s = min(max(seconds, 0.0), rules.retry_after_longest_s)
    until_us = now_us + round(sleep_s * SECOND_US)
    return Verdict(JobState.SLEEPING, reason, errors, until_us, SleepCause.RETRY_AFTER)


def after_config_error(errors: Errors, reason: str) -> Verdict:
    """Decides after a run that cannot work as configured: failed at once."""
    return Verdict(JobState.FAILED, reason, errors)


def after_end() -> Verdict:
    """Decides after a run that had nothing more to do."""
    return Verdict(JobState.COMPLETED, "", NO_ERRORS)
