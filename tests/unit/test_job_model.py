"""The rules of jobs and subscriptions that need no daemon."""

from __future__ import annotations

import pytest

from connectors.sdk.errors import AuthError, ConfigError, TransientError, gravest
from daemon.model.job import (
    NO_ERRORS,
    BackOff,
    Errors,
    JobState,
    Message,
    SleepCause,
    after,
    after_error,
    after_retry_after,
)
from daemon.model.subscription import Ahead

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US


def test_errors_in_a_row_sleep_twice_as_long_each_time_up_to_an_hour_and_fail_after_ten():
    rules, now_us, errors = BackOff(), 0, NO_ERRORS
    slept = []
    while True:
        verdict = after_error(errors, "no answer", now_us, rules)
        if verdict.state is JobState.FAILED:
            break
        slept.append((verdict.sleep_until_us - now_us) // MINUTE_US)
        assert verdict.sleep_cause is SleepCause.ERROR
        now_us, errors = verdict.sleep_until_us, verdict.errors

    assert slept[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert 10 * HOUR_US <= now_us < 11 * HOUR_US
    assert "no answer" in verdict.reason


def test_a_time_that_the_destination_names_is_no_error_and_bounded_by_an_hour():
    errors = Errors(3, 17)

    for asked, slept in ((7, 7), (0, 0), (-5, 0), (86_400, 3600)):
        verdict = after_retry_after(errors, asked, "busy", 1_000_000, BackOff())
        assert (verdict.state, verdict.sleep_cause) == (JobState.SLEEPING, SleepCause.RETRY_AFTER)
        assert 1_000_000 + slept * 1_000_000 == verdict.sleep_until_us
        assert errors == verdict.errors


@pytest.mark.parametrize(
    ("state", "command", "becomes"),
    [
        ("running", "pause", "paused"),
        ("sleeping", "pause", "paused"),
        ("paused", "resume", "running"),
        ("failed", "resume", "running"),
        ("sleeping", "run", "running"),
        ("paused", "run", None),
        ("completed", "resume", None),
        ("completed", "pause", None),
        ("failed", "complete", "completed"),
    ],
)
def test_what_a_command_makes_of_a_job(state, command, becomes):
    assert becomes == after(JobState(state), Message(command))


def test_the_gravest_of_several_errors_decides():
    transient, auth, config, bug = TransientError("t"), AuthError("a"), ConfigError("c"), KeyError("k")

    assert config is gravest(ExceptionGroup("", [transient, bug, ExceptionGroup("", [auth, config])]))
    assert auth is gravest(ExceptionGroup("", [transient, bug, auth]))
    assert bug is gravest(ExceptionGroup("", [transient, bug]))


def test_what_is_done_ahead_is_kept_as_text():
    ahead = Ahead(frozenset({5, 3}), frozenset())

    assert ahead == Ahead.load(ahead.dump())
    assert Ahead() == Ahead.load("{}")
