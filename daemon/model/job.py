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


class Message(StrEnum):
    """What moves a job from one state to another: its owner's commands, then what a run or time brings."""

    PAUSE = "pause"
    RESUME = "resume"
    RUN = "run"
    COMPLETE = "complete"
    # the daemon's own
    DUE = "due"  # a sleep is over
    DONE = "done"  # a run ended, and nothing is left to do
    REST = "rest"  # a run ended, and the schedule has another; or quiet hours begin
    BACK_OFF = "back_off"  # a run ended in an error, or in a time named by the destination
    FAIL = "fail"  # errors for too long, or a configuration that cannot work
    EXPIRE = "expire"  # the job's time is over


#: What a user can tell a job.
COMMANDS = (Message.PAUSE, Message.RESUME, Message.RUN, Message.COMPLETE)

#: States in which a job has a task of its own: it runs, or will.
ACTIVE = frozenset({JobState.RUNNING, JobState.SLEEPING})

#: States that may come back: their cursor is live.
LIVE = ACTIVE | {JobState.PAUSED, JobState.FAILED}

#: States in which a job's authorization cannot be deleted.
HOLDING = ACTIVE | {JobState.PAUSED}

#: Every transition there is: state, message, state. Where nothing stands, the message is refused, or comes too late and
#: changes nothing. The same state again means that there is nothing to do.
TRANSITIONS: dict[JobState, dict[Message, JobState]] = {
    JobState.RUNNING: {
        Message.PAUSE: JobState.PAUSED,
        Message.RESUME: JobState.RUNNING,
        Message.RUN: JobState.RUNNING,
        Message.COMPLETE: JobState.COMPLETED,
        Message.DONE: JobState.COMPLETED,
        Message.REST: JobState.SLEEPING,
        Message.BACK_OFF: JobState.SLEEPING,
        Message.FAIL: JobState.FAILED,
        Message.EXPIRE: JobState.COMPLETED,
    },
    JobState.SLEEPING: {
        Message.PAUSE: JobState.PAUSED,
        Message.RESUME: JobState.RUNNING,
        Message.RUN: JobState.RUNNING,
        Message.COMPLETE: JobState.COMPLETED,
        Message.DUE: JobState.RUNNING,
        Message.REST: JobState.SLEEPING,
        Message.FAIL: JobState.FAILED,
        Message.EXPIRE: JobState.COMPLETED,
    },
    JobState.PAUSED: {
        Message.PAUSE: JobState.PAUSED,
        Message.RESUME: JobState.RUNNING,
        Message.COMPLETE: JobState.COMPLETED,
        Message.EXPIRE: JobState.COMPLETED,
    },
    JobState.FAILED: {
        Message.PAUSE: JobState.PAUSED,
        Message.RESUME: JobState.RUNNING,
        Message.COMPLETE: JobState.COMPLETED,
        Message.EXPIRE: JobState.COMPLETED,
    },
    JobState.COMPLETED: {
        Message.COMPLETE: JobState.COMPLETED,
    },
}


def after(state: JobState, message: Message) -> JobState | None:
    """Gives the state that `message` leads to from `state`, None when it is refused there."""
    return TRANSITIONS[state].get(message)


def accepts(state: JobState) -> list[Message]:
    """Gives the commands that a job in `state` accepts."""
    return [command for command in COMMANDS if command in TRANSITIONS[state]]


def sources(message: Message) -> frozenset[JobState]:
    """Gives the states in which `message` is taken."""
    return frozenset(state for state in JobState if message in TRANSITIONS[state])


def target(message: Message) -> JobState:
    """Gives the state that a message leads to; it is the same from wherever it is taken."""
    (state,) = {TRANSITIONS[each][message] for each in sources(message)}
    return state


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
    """What a run's end, a command or time makes of a job."""

    message: Message
    reason: str
    errors: Errors
    sleep_until_us: int | None = None
    sleep_cause: SleepCause | None = None

    @property
    def state(self) -> JobState:
        """The state that it leads to."""
        return target(self.message)


NO_ERRORS = Errors(0, None)


def after_error(errors: Errors, reason: str, now_us: int, rules: BackOff) -> Verdict:
    """Decides after a run that ended in a transient error: sleep, twice as long each time, and failed in the end."""
    first_us = now_us if errors.first_us is None else errors.first_us
    counted = Errors(errors.count + 1, first_us)
    failing_s = (now_us - first_us) / SECOND_US
    if failing_s >= rules.fail_after_s:
        hours = failing_s / 3600
        return Verdict(Message.FAIL, f"{counted.count} errors in a row over {hours:.1f} h, the last: {reason}", counted)
    # The exponent is bounded so that it cannot overflow; 2**20 minutes is beyond any longest_s.
    sleep_s = min(rules.first_s * 2 ** min(errors.count, 20), rules.longest_s)
    until_us = now_us + round(sleep_s * SECOND_US)
    return Verdict(Message.BACK_OFF, reason, counted, until_us, SleepCause.ERROR)


def after_retry_after(errors: Errors, seconds: float, reason: str, now_us: int, rules: BackOff) -> Verdict:
    """Decides after a run whose destination named a time: sleep that long; errors are neither added nor forgotten."""
    sleep_s = min(max(seconds, 0.0), rules.retry_after_longest_s)
    until_us = now_us + round(sleep_s * SECOND_US)
    return Verdict(Message.BACK_OFF, reason, errors, until_us, SleepCause.RETRY_AFTER)


def after_not_yet(seconds: float, reason: str, now_us: int) -> Verdict:
    """Decides after a run that waits for something which is not there yet: no error, and none before it counts."""
    until_us = now_us + round(max(seconds, 1.0) * SECOND_US)
    return Verdict(Message.REST, reason, NO_ERRORS, until_us, SleepCause.SCHEDULE)


def after_config_error(errors: Errors, reason: str) -> Verdict:
    """Decides after a run that cannot work as configured: failed at once."""
    return Verdict(Message.FAIL, reason, errors)


def after_end(next_us: int | None) -> Verdict:
    """Decides after a run that did all there was to do: asleep until the schedule's next run, or completed."""
    if next_us is None:
        return Verdict(Message.DONE, "", NO_ERRORS)
    return Verdict(Message.REST, "", NO_ERRORS, next_us, SleepCause.SCHEDULE)


def in_quiet_hours(errors: Errors, until_us: int) -> Verdict:
    """Decides when quiet hours begin, or a sleep ends within them: asleep until they are over."""
    return Verdict(Message.REST, "quiet hours", errors, until_us, SleepCause.SCHEDULE)


def expired(errors: Errors) -> Verdict:
    """Decides when a job's time is over."""
    return Verdict(Message.EXPIRE, "expired", errors)
