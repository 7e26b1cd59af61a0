"""Schedules: what is refused, and the runs held against a reckoning that only ever reads clocks forward."""

from __future__ import annotations

import calendar
import itertools
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from daemon.cli import main
from daemon.model.schedule import Schedule, next_run, runs

ZONES = (
    "UTC", "Europe/Berlin", "Europe/Dublin", "America/New_York", "America/Sao_Paulo", "America/Havana",
    "Australia/Lord_Howe", "Asia/Kathmandu", "Asia/Tehran", "Africa/Casablanca", "Pacific/Apia",
)  # fmt: skip
#: Ten years with Sao Paulo's and Tehran's last changes, Casablanca's Ramadans and Apia's lost day.
BEGIN, END = datetime(2011, 6, 1, tzinfo=UTC), datetime(2021, 6, 1, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def at(text):
    return datetime.fromisoformat(text)


def listed(after, count=4, **schedule):
    return [each.strftime("%Y-%m-%d %H:%M") for each in runs(Schedule.model_validate(schedule), at(after), count)]


# --- the reckoning


@cache
def spans(zone):
    """The spans of one offset each, (begin, offset), found by reading the zone's clock by the hour, then the minute."""
    info, found, moment = ZoneInfo(zone), [], BEGIN - 90 * DAY
    while moment < END + 900 * DAY:
        offset = moment.astimezone(info).utcoffset()
        if not found or found[-1][1] != offset:
            if found:  # the hour before has the change in it
                moment -= timedelta(hours=1)
                while moment.astimezone(info).utcoffset() == found[-1][1]:
                    moment += MINUTE
                offset = moment.astimezone(info).utcoffset()
            found.append((moment, offset))
        moment += timedelta(hours=1)
    return found


def shown_at(zone, local):
    """The moment at which clocks show the naive `local` first; where they skip it, by the offset before the skip."""
    earlier = spans(zone)[0][1]
    ends = [begin for begin, _ in spans(zone)[1:]] + [datetime.max.replace(tzinfo=UTC)]
    for (begin, offset), end in zip(spans(zone), ends, strict=True):
        moment = (local - offset).replace(tzinfo=UTC)
        if begin <= moment < end:
            return moment
        if moment < begin:  # past it already, and not shown in the span before
            return (local - earlier).replace(tzinfo=UTC)
        earlier = offset
    raise AssertionError(local)


def reckoned(schedule, after, count):
    """Goes from day to day and counts; knows nothing of steps."""
    zone, hour = schedule.time_zone, time.fromisoformat(schedule.time_of_day)
    day, found, first, last_period = after.astimezone(ZoneInfo(zone)).date() - 2 * DAY, [], None, None
    while len(found) < count:
        day += DAY
        moment = shown_at(zone, datetime.combine(day, hour))
        if moment <= (found[-1] if found else after):
            continue
        weekday = schedule.weekday or (first and calendar.day_abbr[first.weekday()].lower())
        if schedule.frequency == "weekly" and weekday and calendar.day_abbr[day.weekday()].lower() != weekday:
            continue
        wanted = schedule.day_of_month or (first and first.day)
        if schedule.frequency == "monthly" and wanted:
            last = (day.replace(day=28) + 4 * DAY).replace(day=1) - DAY
            if day.day != wanted and not (day == last and wanted > day.day):
                continue
        period = {
            "daily": day.toordinal(), "weekly": day.toordinal() // 7, "monthly": day.year * 12 + day.month
        }[schedule.frequency]  # fmt: skip
        if first is None:
            first, first_period = day, period
        if schedule.frequency == "weekly":
            period, first_period = (day - first).days // 7, 0
        if (period - first_period) % schedule.every == 0 and period != last_period:
            found.append(moment)
            last_period = period
    return found


moments = st.integers(0, int((END - BEGIN) / MINUTE)).map(lambda n: BEGIN + n * MINUTE)


@st.composite
def edges(draw):
    """Moments a little before a change of the zone's clocks, and times of day about it: where mistakes are."""
    zone = draw(st.sampled_from([each for each in ZONES if len(spans(each)) > 1]))
    begin = draw(st.sampled_from([each for each, _ in spans(zone)[1:] if each < END]))
    about = (begin + draw(st.integers(-150, 150)) * MINUTE).astimezone(ZoneInfo(zone))
    return zone, begin - draw(st.integers(0, 3 * 24 * 60)) * MINUTE, about.strftime("%H:%M")


anywhere = st.tuples(
    st.sampled_from(ZONES), moments, st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(anywhere, edges()),
    st.sampled_from(["daily", "weekly", "monthly"]),
    st.integers(1, 4),
    st.sampled_from([None, "mon", "sun"]),
    st.sampled_from([None, 1, 28, 29, 30, 31]),
)
def test_runs_are_those_of_the_reckoning(where, frequency, every, weekday, day_of_month):
    zone, after, hour = where
    schedule = Schedule(
        frequency=frequency, every=every, time_of_day=hour, time_zone=zone, weekday=weekday, day_of_month=day_of_month
    )

    assert reckoned(schedule, after, 6) == runs(schedule, after, 6)


@pytest.mark.parametrize("zone", ZONES)
def test_walking_minute_by_minute_over_every_change_meets_each_daily_run(zone):
    info, wanted = ZoneInfo(zone), ("00:00", "00:30", "01:45", "02:00", "02:15", "02:30", "03:00", "23:30")
    schedules = {hour: Schedule(frequency="daily", time_of_day=hour, time_zone=zone) for hour in wanted}
    for change, _ in spans(zone)[1:]:
        if not BEGIN < change < END:
            continue
        walked = [change + n * MINUTE for n in range(-27 * 60, 27 * 60)]
        clocks = [each.astimezone(info).replace(tzinfo=None) for each in walked]
        met = {hour: {} for hour in wanted}
        for before, (moment, clock) in zip([None, *clocks], zip(walked, clocks, strict=True), strict=False):
            skipped = (
                [clock] if before is None else [before + n * MINUTE for n in range(1, 1 + (clock - before) // MINUTE)]
            )
            for late, each in enumerate(skipped):
                hour = each.strftime("%H:%M")
                if hour in met:  # a skipped time is as late after the gap as it was after its begin
                    met[hour].setdefault(each.date(), moment + late * MINUTE if each != clock else moment)
            if len(skipped) > 1 and clock.strftime("%H:%M") in met:
                met[clock.strftime("%H:%M")][clock.date()] = min(
                    moment, met[clock.strftime("%H:%M")].get(clock.date(), moment)
                )
        for hour, schedule in schedules.items():
            expected = sorted({each for each in met[hour].values() if each > walked[60] and each <= walked[-1]})
            actual = [each for each in runs(schedule, walked[60], 4) if each <= walked[-1]]
            assert expected == actual, (zone, change, hour)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ZONES), moments, st.lists(st.integers(0, 40 * 24 * 60), max_size=6), st.integers(1, 3))
def test_however_long_runs_take_the_next_is_one_of_the_row(zone, after, minutes, every):
    schedule = Schedule(frequency="weekly", every=every, time_of_day="02:30", time_zone=zone)
    row = runs(schedule, after, 60)

    ended, first = after, None
    for took in minutes:
        run = next_run(schedule, first=first, ended=ended)
        first = first or run
        assert run == next(each for each in row if each > ended)
        ended = run + took * MINUTE


# --- what users are told


def test_a_time_that_clocks_skip_takes_the_offset_from_before():
    assert listed("2026-03-28T12:00:00Z", 2, frequency="daily", time_of_day="02:30", time_zone="Europe/Berlin") == [
        "2026-03-29 01:30", "2026-03-30 00:30"
    ]  # fmt: skip


def test_a_time_that_comes_twice_runs_once_the_first():
    berlin = listed("2026-10-24T12:00:00Z", 2, frequency="daily", time_of_day="02:30", time_zone="Europe/Berlin")
    lord_howe = listed(
        "2026-04-04T12:00:00Z", 2, frequency="daily", time_of_day="01:45", time_zone="Australia/Lord_Howe"
    )

    assert berlin == ["2026-10-25 00:30", "2026-10-26 01:30"]
    assert lord_howe == ["2026-04-04 14:45", "2026-04-05 15:15"]


def test_a_day_that_a_month_lacks_is_its_last_and_the_day_is_not_forgotten():
    assert listed("2027-12-31T00:00:00Z", 4, frequency="monthly", time_of_day="06:00", day_of_month=31) == [
        "2027-12-31 06:00", "2028-01-31 06:00", "2028-02-29 06:00", "2028-03-31 06:00"
    ]  # fmt: skip
    assert listed("2026-01-31T00:00:00Z", 3, frequency="monthly", time_of_day="06:00") == [
        "2026-01-31 06:00", "2026-02-28 06:00", "2026-03-31 06:00"
    ]  # fmt: skip


def test_a_first_run_on_a_months_last_day_for_want_of_its_own_keeps_its_own_day():
    assert listed("2026-04-02T00:00:00Z", 3, frequency="monthly", time_of_day="06:00", day_of_month=31) == [
        "2026-04-30 06:00", "2026-05-31 06:00", "2026-06-30 06:00"
    ]  # fmt: skip


def test_a_first_run_that_a_gap_moved_to_the_next_day_keeps_its_own():
    friday = {"frequency": "weekly", "time_of_day": "10:00", "time_zone": "Pacific/Apia"}  # Friday the 30th never was

    assert listed("2011-12-30T00:00:00Z", 2, **friday) == ["2011-12-30 20:00", "2012-01-05 20:00"]


def test_weekday_and_every_count_from_the_first_run():
    assert listed("2026-11-21T09:00:00Z", 3, frequency="weekly", every=2, time_of_day="08:00") == [
        "2026-11-22 08:00", "2026-12-06 08:00", "2026-12-20 08:00"
    ]  # fmt: skip
    assert listed("2026-11-21T09:00:00Z", 2, frequency="weekly", every=2, time_of_day="08:00", weekday="sat") == [
        "2026-11-28 08:00", "2026-12-12 08:00"
    ]  # fmt: skip


def test_a_run_is_strictly_after():
    assert listed("2026-11-21T08:00:00Z", 1, frequency="daily", time_of_day="08:00") == ["2026-11-22 08:00"]
    assert listed("2026-11-21T07:59:59Z", 1, frequency="daily", time_of_day="08:00") == ["2026-11-21 08:00"]


def test_minutes_and_hours_count_from_the_end_whatever_the_time_of_day():
    assert listed("2026-03-29T00:50:00Z", 2, frequency="minutes", every=15, time_zone="Europe/Berlin") == [
        "2026-03-29 01:05", "2026-03-29 01:20"
    ]  # fmt: skip
    assert listed("2026-11-21T09:07:00Z", 2, frequency="hourly", every=6, time_of_day="02:00") == [
        "2026-11-21 15:07", "2026-11-21 21:07"
    ]  # fmt: skip


def test_without_a_time_of_day_runs_count_from_the_end_of_the_last():
    schedule = Schedule(frequency="daily", time_zone="Europe/Berlin")
    first = at("2026-03-27T10:00:00Z")

    assert next_run(schedule, first=first, ended=at("2026-03-28T11:20:00Z")) == at("2026-03-29T10:20:00Z")
    assert listed("2026-01-31T10:00:00Z", 2, frequency="monthly") == ["2026-02-28 10:00", "2026-03-28 10:00"]
    assert listed("2026-11-21T10:00:00Z", 2, frequency="weekly", weekday="mon") == [
        "2026-11-23 10:00", "2026-11-30 10:00"
    ]  # fmt: skip


def test_once_runs_once():
    assert listed("2026-11-21T09:00:00Z", 3, frequency="once", time_of_day="08:00", every=5) == ["2026-11-22 08:00"]
    assert runs(Schedule(frequency="once"), at("2026-11-21T09:00:00.5Z"), 3) == [at("2026-11-21T09:00:01Z")]


def test_runs_that_were_missed_are_one():
    schedule = Schedule(frequency="daily", time_of_day="02:00")
    first, missed = at("2026-11-01T02:00:00Z"), at("2026-11-02T02:00:00Z")
    after_the_rest = next_run(schedule, first=first, ended=at("2026-11-07T15:00:00Z"))

    assert next_run(schedule, first=first, ended=at("2026-11-01T02:05:00Z")) == missed
    assert after_the_rest == at("2026-11-08T02:00:00Z")


def test_a_clock_that_is_set_back_does_not_repeat_a_run_but_one_set_right_is_believed():
    schedule = Schedule(frequency="daily", time_of_day="02:00")
    planned = at("2026-11-02T02:00:00Z")

    back = next_run(schedule, first=planned, planned=planned, ended=planned - timedelta(minutes=50))
    right = next_run(schedule, first=planned, planned=at("2031-01-01T02:00:00Z"), ended=at("2026-11-02T02:05:00Z"))

    assert (back, right) == (planned + DAY, planned + DAY)


def test_a_first_run_off_the_schedule_is_what_counting_begins_at():
    schedule = Schedule(frequency="daily", every=2, time_of_day="02:00")

    assert next_run(schedule, first=at("2026-11-02T15:00:00Z"), ended=at("2026-11-02T15:10:00Z")) == at(
        "2026-11-04T02:00:00Z"
    )


def test_a_day_that_a_zone_never_had_is_no_second_run():
    found = listed("2011-12-29T00:00:00Z", 4, frequency="daily", time_of_day="10:00", time_zone="Pacific/Apia")

    assert found == ["2011-12-29 20:00", "2011-12-30 20:00", "2011-12-31 20:00", "2012-01-01 20:00"]


def test_the_end_of_time_is_no_error():
    assert listed("9997-06-01T00:00:00Z", 9, frequency="monthly", every=12, day_of_month=1) == [
        "9997-07-01 00:00", "9998-07-01 00:00", "9999-07-01 00:00"
    ]  # fmt: skip
    assert listed("2026-01-01T00:00:00Z", 2, frequency="hourly", every=1_000_000)[0].startswith("2140")


@pytest.mark.parametrize(
    ("given_", "loc", "words"),
    [
        ({}, "frequency", "required"),
        ({"frequency": "yearly"}, "frequency", "'yearly' is not one of once, minutes, hourly, daily, weekly, monthly"),
        ({"frequency": "daily", "every": 0}, "every", "0 is not a whole number from 1"),
        ({"frequency": "daily", "every": True}, "every", "True"),
        ({"frequency": "daily", "every": "2"}, "every", "'2'"),
        ({"frequency": "daily", "every": 1.5}, "every", "1.5"),
        ({"frequency": "daily", "time_of_day": "2:30"}, "time_of_day", "'2:30' is no time of day: HH:MM"),
        ({"frequency": "daily", "time_of_day": "24:00"}, "time_of_day", "24:00"),
        ({"frequency": "daily", "time_of_day": "12:60"}, "time_of_day", "12:60"),
        ({"frequency": "daily", "time_of_day": "12:30:00"}, "time_of_day", "12:30:00"),
        ({"frequency": "daily", "time_of_day": "١٢:٣٠"}, "time_of_day", "no time of day"),
        ({"frequency": "daily", "time_of_day": 230}, "time_of_day", "230"),
        ({"frequency": "daily", "time_zone": "Europe/Berln"}, "time_zone", "did you mean Europe/Berlin?"),
        ({"frequency": "daily", "time_zone": "Europe"}, "time_zone", "'Europe' is no time zone"),
        ({"frequency": "daily", "time_zone": "right/Europe/Berlin"}, "time_zone", "no time zone"),
        ({"frequency": "daily", "time_zone": "../../etc/passwd"}, "time_zone", "no time zone"),
        ({"frequency": "daily", "time_zone": "a\0b"}, "time_zone", "no time zone"),
        ({"frequency": "daily", "time_zone": None}, "time_zone", "None is no time zone"),
        ({"frequency": "weekly", "weekday": "Monday"}, "weekday", "'Monday' is not one of mon, tue"),
        ({"frequency": "monthly", "day_of_month": 0}, "day_of_month", "0 is not a day from 1 to 31"),
        ({"frequency": "monthly", "day_of_month": 32}, "day_of_month", "32"),
        ({"frequency": "daily", "timezone": "UTC"}, "timezone", "not permitted"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_would_be(given_, loc, words):
    with pytest.raises(ValidationError) as refused:
        Schedule.model_validate(given_)

    (error,) = refused.value.errors()
    assert (loc,) == error["loc"]
    assert words in error["msg"]


def test_a_schedule_says_itself_in_words():
    words = [
        str(Schedule.model_validate(each))
        for each in (
            {"frequency": "once", "time_of_day": "09:00"},
            {"frequency": "minutes"},
            {"frequency": "minutes", "every": 5},
            {"frequency": "weekly", "every": 2, "weekday": "mon", "time_of_day": "08:00", "time_zone": "Europe/Berlin"},
            {"frequency": "monthly", "day_of_month": 31},
        )
    ]

    assert words == [
        "once at 09:00 UTC",
        "every minute",
        "every 5 minutes",
        "every 2 weeks on mon at 08:00 Europe/Berlin",
        "monthly on day 31",
    ]


# --- the command


def ask(*lines):
    text = "\n".join(each if isinstance(each, str) else orjson.dumps(each).decode() for each in lines)
    result = CliRunner().invoke(main, ["schedule", "test"], input=text)
    return result.exit_code, [orjson.loads(line) for line in result.stdout.splitlines()]


def test_every_line_is_answered_with_its_runs_or_why_not(frozen_clock):
    frozen_clock.us = 1_767_225_600_000_000
    daily = {"frequency": "daily", "time_of_day": "02:30", "time_zone": "Europe/Berlin"}
    status, answers = ask(
        {"schedule": daily, "after": "2026-03-28T13:00:00+01:00", "count": 2},
        {"schedule": {"frequency": "hourly"}},
        {"schedule": daily | {"time_of_day": "2", "weekday": "x"}, "after": "2026-03-28T12:00:00Z", "count": 2},
        {"schedule": "daily", "after": "2026-03-28T12:00:00Z", "count": 2},
        {"schedule": daily, "after": "2026-03-28", "count": 2},
        {"schedule": daily, "after": "2026-02-30T00:00:00Z", "count": 2},
        {"schedule": daily, "after": "2026-03-28T12:00:00Z", "count": -1},
        {"schedule": daily, "after": "2026-03-28T12:00:00Z", "count": 0},
        "x",
        [1],
    )

    assert status == 0
    assert answers[0] == {"runs": ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"], "error": None}
    assert answers[1] == {"runs": ["2026-01-01T01:00:00Z"], "error": None}
    assert "schedule.time_of_day: '2' is no time of day" in answers[2]["error"]
    assert "schedule.weekday: 'x' is not one of" in answers[2]["error"]
    assert [each["error"] is None for each in answers] == [True, True, *[False] * 5, True, False, False]
    assert [each["runs"] for each in answers[2:]] == [[]] * 8


def test_spans_are_found_right_for_this_reckoning():
    changes = [begin for begin, _ in spans("Europe/Berlin") if begin.year == 2015]

    assert changes == [datetime(2015, 3, 29, 1, tzinfo=UTC), datetime(2015, 10, 25, 1, tzinfo=UTC)]
    assert list(itertools.islice((o for _, o in spans("Asia/Kathmandu")), 2)) == [timedelta(hours=5, minutes=45)]
    assert date(2011, 12, 30) not in {
        (datetime(2011, 12, 29, tzinfo=UTC) + n * MINUTE * 30).astimezone(ZoneInfo("Pacific/Apia")).date()
        for n in range(200)
    }
