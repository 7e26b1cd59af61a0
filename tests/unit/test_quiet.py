"""Quiet hours: who reads the clock on the wall agrees, also in the nights in which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from daemon.model.quiet import QuietHours, quiet_until

MINUTE = timedelta(minutes=1)
#: Nights with a change of clocks, and one without.
NIGHTS = [
    ("Europe/Berlin", "2026-03-28"), ("Europe/Berlin", "2026-10-24"), ("Europe/Berlin", "2026-06-01"),
    ("America/New_York", "2026-03-07"), ("America/New_York", "2026-10-31"), ("Australia/Lord_Howe", "2026-10-03"),
    ("Australia/Lord_Howe", "2026-04-04"), ("America/Sao_Paulo", "2018-11-03"), ("Africa/Casablanca", "2026-02-14"),
    ("Asia/Kathmandu", "2026-03-28"), ("UTC", "2026-03-28"),
]  # fmt: skip


def at(text):
    return datetime.fromisoformat(text)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NIGHTS), st.integers(0, 47), st.integers(1, 47))
def test_who_walks_along_the_clock_meets_the_same_begin_and_end(night, begins, halves):
    zone, day = night
    begin = timedelta(minutes=30 * begins)
    length = timedelta(minutes=30 * halves)
    quiet = QuietHours(time_of_day=f"{begins // 2:02}:{begins % 2 * 30:02}", hours=halves / 2, time_zone=zone)
    noon = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    midnight = datetime.fromisoformat(day)

    # A naive time of the clock -> the minute at which it is first shown; a skipped one, as late after the gap.
    reached = {}
    before = None
    for n in range(-40 * 60, 52 * 60):
        moment = noon + n * MINUTE
        clock = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        if before is not None:
            for late in range((clock - before) // MINUTE - 1):
                reached.setdefault(before + (late + 1) * MINUTE, moment + late * MINUTE)
        reached.setdefault(clock, moment)
        before = clock

    starts = [midnight + begin + timedelta(days=n) for n in (-1, 0, 1)]
    windows = [(reached[s], reached[s + length]) for s in starts if s in reached and s + length in reached]
    for start, end in windows[1:]:  # of the first, what came before it is not known
        for now in (start - MINUTE, start, start + (end - start) / 2, end - MINUTE, end):
            assert quiet_until(quiet, now) == max((e for s, e in windows if s <= now < e), default=None)


def test_they_end_at_the_same_time_on_the_clock_every_night():
    quiet = QuietHours(time_of_day="22:00", hours=8, time_zone="Europe/Berlin")

    ends = [quiet_until(quiet, at(f"{day}T23:30:00+00:00")) for day in ("2026-03-28", "2026-10-24", "2026-06-01")]

    assert ends == [at("2026-03-29T04:00:00Z"), at("2026-10-25T05:00:00Z"), at("2026-06-02T04:00:00Z")]


def test_they_hold_from_their_first_moment_and_not_at_their_last():
    quiet = QuietHours(time_of_day="22:00", hours=8)

    assert quiet_until(quiet, at("2026-06-01T21:59:59.999999Z")) is None
    assert quiet_until(quiet, at("2026-06-01T22:00:00Z")) == at("2026-06-02T06:00:00Z")
    assert quiet_until(quiet, at("2026-06-02T05:59:59.999999Z")) == at("2026-06-02T06:00:00Z")
    assert quiet_until(quiet, at("2026-06-02T06:00:00Z")) is None


@pytest.mark.parametrize(
    ("given_", "loc", "words"),
    [
        ({"hours": 8}, "time_of_day", "required"),
        ({"time_of_day": "22:00"}, "hours", "required"),
        ({"time_of_day": "22:00", "hours": 0}, "hours", "0 is not a number of hours"),
        ({"time_of_day": "22:00", "hours": 24}, "hours", "less than 24"),
        ({"time_of_day": "22:00", "hours": "8"}, "hours", "'8'"),
        ({"time_of_day": "22:00", "hours": float("nan")}, "hours", "nan"),
        ({"time_of_day": "22", "hours": 8}, "time_of_day", "'22' is no time of day"),
        ({"time_of_day": "22:00", "hours": 8, "time_zone": "Mars"}, "time_zone", "'Mars' is no time zone"),
        ({"time_of_day": "22:00", "hours": 8, "until": "x"}, "until", "not permitted"),
    ],
)
def test_what_are_no_quiet_hours_is_refused_with_what_would_be(given_, loc, words):
    with pytest.raises(ValidationError) as refused:
        QuietHours.model_validate(given_)

    (error,) = refused.value.errors()
    assert (loc,) == error["loc"]
    assert words in error["msg"]


def test_they_are_given_back_as_they_were_given():
    given_ = {"time_of_day": "22:00", "hours": 8, "time_zone": "Europe/Berlin", "drop": True}

    assert QuietHours.model_validate(given_).model_dump_json() == (
        '{"time_of_day":"22:00","hours":8,"time_zone":"Europe/Berlin","drop":true}'
    )
    assert str(QuietHours.model_validate(given_)) == "22:00 for 8 h Europe/Berlin, dropped"
