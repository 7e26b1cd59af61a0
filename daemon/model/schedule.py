"""When a job runs: a schedule as users write it (API.md), and the next run after a moment.

Times are read in the schedule's zone as RFC 5545 reads them: a time that clocks skip takes the offset from before the
gap (02:30 becomes 03:30), a time that comes twice is its first, and a day that a month lacks is its last.
"""

from __future__ import annotations

import difflib
from calendar import monthrange
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

Frequency = Literal["once", "minutes", "hourly", "daily", "weekly", "monthly"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

_WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
#: `every` beyond this is a slip: it would be longer than anybody lives in all units but minutes (two years).
LARGEST_EVERY = 1_000_000
#: Of a refused value a message repeats so many characters.
LONGEST_SHOWN = 80
#: Files that are no zones of IANA's: they differ by machine, or count leap seconds.
_NO_ZONES = ("posix/", "right/", "posixrules", "localtime", "Factory")
_DAY = timedelta(days=1)
_TIME_PATTERN = "^([01][0-9]|2[0-3]):[0-5][0-9]$"


def zone_named(name: str) -> ZoneInfo:
    """Gives the time zone of an IANA name; raises ValueError, with the nearest names, for another."""
    if isinstance(name, str) and not name.startswith(_NO_ZONES):
        try:
            return ZoneInfo(name)
        except (OSError, ValueError, KeyError):  # a folder, a name that leaves the database, an unknown name
            pass
    near = difflib.get_close_matches(str(name), _zone_names(), 1, 0.8)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{shown(name)} is no time zone: give an IANA name as Europe/Berlin or UTC{hint}")


def shown(value: object) -> str:
    """Gives a refused value as a message repeats it: cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _one_of(known: Iterable[object]) -> BeforeValidator:
    words = tuple(known)

    def check(value: object) -> object:
        if value not in words:
            accepted = ", ".join("null" if word is None else str(word) for word in words)
            raise ValueError(f"{shown(value)} is not one of {accepted}")
        return value

    return BeforeValidator(check)


def _every(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_EVERY:
        raise ValueError(f"{shown(value)} is not a whole number from 1 to {LARGEST_EVERY}")
    return value


def _day(value: object) -> object:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 31):
        raise ValueError(f"{shown(value)} is not a day from 1 to 31")
    return value


def read_time(value: object) -> time:
    """Reads HH:MM, 00:00 to 23:59; raises ValueError for anything else."""
    text = value if isinstance(value, str) else ""
    hours, minutes = text[:2], text[3:]
    if len(text) == 5 and text[2] == ":" and text.isascii() and hours.isdigit() and minutes.isdigit():
        try:
            return time(int(hours), int(minutes))
        except ValueError:
            pass
    raise ValueError(f"{shown(value)} is no time of day: HH:MM from 00:00 to 23:59")


def _time_of_day(value: object) -> object:
    if value is not None:
        read_time(value)
    return value


def _zone(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no time zone: give an IANA name as Europe/Berlin or UTC")  # noqa: TRY004 (pydantic)
    zone_named(value)
    return value


#: A field that holds a time of day, HH:MM.
TimeOfDay = Annotated[
    str,
    BeforeValidator(_time_of_day),
    WithJsonSchema({"type": "string", "pattern": _TIME_PATTERN, "examples": ["02:30"]}),
]
#: A field that holds the IANA name of a time zone.
TimeZone = Annotated[str, BeforeValidator(_zone)]


class Schedule(BaseModel):
    """When a job runs, as the API, files and the command line write it.

    What a frequency has no use for is not looked at: `every` for once, `time_of_day` for minutes and hourly, `weekday`
    for all but weekly, `day_of_month` for all but monthly.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    frequency: Annotated[Frequency, _one_of(get_args(Frequency))] = Field(description="How often the job runs.")
    every: Annotated[int, BeforeValidator(_every)] = Field(
        1,
        ge=1,
        le=LARGEST_EVERY,
        description="Every so many minutes, hours, days …, from the first run.",
    )
    time_of_day: TimeOfDay | None = Field(
        None, description="HH:MM on the clocks of `time_zone`; without one, runs count from the end of the last."
    )
    time_zone: TimeZone = Field("UTC", description="IANA name of the time zone.", examples=["Europe/Berlin"])
    weekday: Annotated[Weekday | None, _one_of((*_WEEKDAYS, None))] = Field(
        None, description="For weekly; that of the first run when not given."
    )
    day_of_month: Annotated[int | None, BeforeValidator(_day)] = Field(
        None,
        ge=1,
        le=31,
        description="For monthly; that of the first run when not given. A day that a month lacks is its last.",
    )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return zone_named(self.time_zone)

    def __str__(self) -> str:
        """Gives it in words: `daily at 02:30 Europe/Berlin`, `every 2 weeks on mon at 08:00 UTC`."""
        if self.frequency == "once":
            words = "once"
        elif self.every == 1 and self.frequency != "minutes":
            words = self.frequency
        else:
            unit = {"minutes": "minute", "hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month"}
            words = f"every {self.every} {unit[self.frequency]}s" if self.every > 1 else "every minute"
        if self.frequency == "weekly" and self.weekday is not None:
            words += f" on {self.weekday}"
        if self.frequency == "monthly" and self.day_of_month is not None:
            words += f" on day {self.day_of_month}"
        if self.time_of_day is not None and self.frequency not in ("minutes", "hourly"):
            words += f" at {self.time_of_day} {self.time_zone}"
        return words


def next_run(
    schedule: Schedule, *, first: datetime | None, ended: datetime, planned: datetime | None = None
) -> datetime | None:
    """Gives the next run, in UTC, strictly after `ended`; None when there is none any more.

    `ended` is the end of the last run, or where the job begins. `first` is the moment of the first run, None when there
    was none yet: `every`, and the weekday or day that is not given, count from it; it need not be one of the schedule.
    `planned` is the moment for which the last run was planned: when the clock was set back by up to a day since, it is
    not planned again. Runs that were missed are one: who asks after it has run gets one that is still to come.
    """
    after = ended.astimezone(UTC)
    if planned is not None and timedelta(0) < planned - after <= _DAY:
        after = planned.astimezone(UTC)
    try:
        return _next(schedule, first, after)
    except OverflowError:  # beyond the year 9999
        return None


def runs(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """Gives the first `count` runs of a job that begins at `after`, each ending at once; fewer if there are no more."""
    found: list[datetime] = []
    while len(found) < count:
        moment = next_run(schedule, first=found[0] if found else None, ended=found[-1] if found else after)
        if moment is None:
            break
        found.append(moment)
    return found


def at(day: date, clock: time, zone: tzinfo) -> datetime:
    """Gives the moment, in UTC, when clocks show `clock` on `day`: the first of two; in a gap by the offset before."""
    return datetime.combine(day, clock.replace(fold=0), tzinfo=zone).astimezone(UTC)


def _next(schedule: Schedule, first: datetime | None, after: datetime) -> datetime | None:
    match schedule.frequency:
        case "minutes":
            return after + timedelta(minutes=schedule.every)
        case "hourly":
            return after + timedelta(hours=schedule.every)
        case "once" if first is not None:
            return None
        case "once" if schedule.time_of_day is None:
            return after.replace(microsecond=0) + timedelta(seconds=1)
        case _:
            return _next_on_calendar(schedule, first, after)


def _next_on_calendar(schedule: Schedule, first: datetime | None, after: datetime) -> datetime:
    zone = schedule.zone
    local = after.astimezone(zone)
    fixed = schedule.time_of_day is not None
    clock = read_time(schedule.time_of_day) if fixed else local.time()
    if not fixed and _given_day(schedule) is None:
        return _counted(schedule, local, clock, zone, after)
    if first is None:  # the first day of the schedule's whose time is still to come
        day = local.date() - _DAY
        while not (_fits(schedule, day) and at(day, clock, zone) > after):
            day += _DAY
        return at(day, clock, zone)
    start = _day_of(first.astimezone(UTC), clock if fixed else None, zone)
    while not _fits(schedule, start):
        start += _DAY
    steps = max(0, _steps_between(schedule, start, local.date()) - 1)
    while (moment := at(_stepped(schedule, start, steps), clock, zone)) <= after:
        steps += 1
    return moment


def _counted(schedule: Schedule, local: datetime, clock: time, zone: tzinfo, after: datetime) -> datetime:
    """Gives the moment `every` days, weeks or months after, at the same time on the clock."""
    steps = 1
    while (moment := at(_stepped(schedule, local.date(), steps), clock, zone)) <= after:
        steps += 1
    return moment


def _given_day(schedule: Schedule) -> object:
    """Gives the day that the schedule itself names, None where it is that of the first run, or all are the same."""
    return {"weekly": schedule.weekday, "monthly": schedule.day_of_month}.get(schedule.frequency)


def _fits(schedule: Schedule, day: date) -> bool:
    if schedule.frequency == "weekly" and schedule.weekday is not None:
        return _WEEKDAYS[day.weekday()] == schedule.weekday
    if schedule.frequency == "monthly" and schedule.day_of_month is not None:
        return day.day == min(schedule.day_of_month, monthrange(day.year, day.month)[1])
    return True


def _day_of(moment: datetime, clock: time | None, zone: tzinfo) -> date:
    """Gives the day whose run `moment` is: a gap over midnight can have moved it to the next."""
    day = moment.astimezone(zone).date()
    if clock is not None and at(day - _DAY, clock, zone) == moment:
        return day - _DAY
    return day


def _steps_between(schedule: Schedule, start: date, day: date) -> int:
    """Gives how many whole periods, at least, lie between two days; 0 when `day` is before."""
    if schedule.frequency == "monthly":
        return ((day.year - start.year) * 12 + day.month - start.month) // schedule.every
    return (day - start).days // (schedule.every * (7 if schedule.frequency == "weekly" else 1))


def _stepped(schedule: Schedule, start: date, steps: int) -> date:
    """Gives the day `steps` periods after `start`; raises OverflowError beyond the year 9999."""
    count = steps * schedule.every
    if schedule.frequency != "monthly":
        return start + timedelta(days=count * (7 if schedule.frequency == "weekly" else 1))
    years, month = divmod(start.month - 1 + count, 12)
    year = start.year + years
    if year > date.max.year:
        raise OverflowError(f"year {year}")
    wanted = schedule.day_of_month or start.day
    return date(year, month + 1, min(wanted, monthrange(year, month + 1)[1]))


@lru_cache(maxsize=1)
def _zone_names() -> tuple[str, ...]:
    return tuple(sorted(available_timezones()))
