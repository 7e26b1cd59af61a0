"""Quiet hours: the part of a day in which a job does not send."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from daemon.model.schedule import TimeOfDay, TimeZone, at, read_time, shown, zone_named

_DAY = timedelta(days=1)


def _hours(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 24:
        raise ValueError(f"{shown(value)} is not a number of hours, more than 0 and less than 24")
    return value


class QuietHours(BaseModel):
    """Quiet hours, as the API, files and the command line write them: from a time of day, so many hours of the clock.

    Both ends are times on the clock: 22:00 for 8 hours ends at 06:00, also in the nights in which clocks change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_of_day: TimeOfDay = Field(description="When they begin: HH:MM on the clocks of `time_zone`.")
    hours: Annotated[int | float, BeforeValidator(_hours)] = Field(
        gt=0, lt=24, description="How long they last: hours on the clock, less than 24."
    )
    time_zone: TimeZone = Field("UTC", description="IANA name of the time zone.", examples=["Europe/Berlin"])
    drop: bool = Field(default=False, description="Whether what comes in them is dropped; else it waits for their end.")

    def __str__(self) -> str:
        """Gives them in words: `22:00 for 8 h Europe/Berlin, dropped`."""
        return f"{self.time_of_day} for {self.hours:g} h {self.time_zone}{', dropped' if self.drop else ''}"


def quiet_until(quiet: QuietHours, now: datetime) -> datetime | None:
    """Gives the moment, in UTC, at which the quiet hours that hold at `now` end; None when none hold.

    They hold at their first moment and no more at their last. A begin or end that clocks skip is as late after the gap
    as it was after its begin; one that comes twice is the first.
    """
    zone = zone_named(quiet.time_zone)
    begin = read_time(quiet.time_of_day)
    today = now.astimezone(zone).date()
    ends = []
    for day in (today - 2 * _DAY, today - _DAY, today, today + _DAY):
        end = datetime.combine(day, begin) + timedelta(hours=quiet.hours)
        if at(day, begin, zone) <= now < (until := at(end.date(), end.time(), zone)):
            ends.append(until)
    return max(ends, default=None)
