"""What is asked of a new job, checked: its configuration and its times; and how a refusal is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from connectors.sdk.declare import AudienceExport, Config, JobType, TriggerExport
from daemon import clock
from daemon.jobs.supervisor import Timing
from daemon.model.quiet import QuietHours
from daemon.model.schedule import Schedule
from daemon.store.jobs import JobRow
from daemon.store.subscriptions import UnknownAudienceError

T = TypeVar("T", bound=BaseModel)


class NoSuchJobError(LookupError):
    """There is no job, or no job type, of that name."""


class JobConflictError(Exception):
    """The job's state does not allow it; the message says which would."""


class JobRefusedError(ValueError):
    """A job that cannot be created as asked; `errors` has {loc, msg} for each finding."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors))
        self.errors = errors


class Timed(NamedTuple):
    """When a new job is to run, as its owner gave it; not checked."""

    schedule: Mapping[str, Any] | None = None
    quiet: Mapping[str, Any] | None = None
    expires_at: datetime | None = None


class NewAuthorization(NamedTuple):
    """An authorization that is to be made together with its job; not checked."""

    method: str
    config: Mapping[str, Any]
    label: str = ""
    description: str = ""


class Asked(NamedTuple):
    """A job as it was asked for, without what names it."""

    config: Mapping[str, Any]
    timed: Timed

    @classmethod
    def of(cls, row: JobRow) -> Asked:
        """Gives what a stored job was asked for as."""
        return cls(
            orjson.loads(row.config),
            Timed(
                None if row.schedule is None else orjson.loads(row.schedule),
                None if row.quiet is None else orjson.loads(row.quiet),
                None if row.expires_us is None else clock.from_us(row.expires_us),
            ),
        )


def accepted_config(kind: JobType[Any], config: Mapping[str, Any]) -> Config:
    """Gives the configuration as its model. Raises JobRefusedError with every finding."""
    try:
        accepted: Config = kind.config.model_validate(config)
    except ValidationError as error:
        raise JobRefusedError(findings(error, "config")) from None  # the cause would repeat what was given
    return accepted


def accepted_timing(kind: JobType[Any], timed: Timed) -> Timing:
    """Gives schedule, quiet hours and expiry. Raises JobRefusedError with every finding."""
    refused: list[Mapping[str, Any]] = []
    given = timed.schedule
    if given is not None and kind.frequency is not None:
        given = {"frequency": kind.frequency} | dict(given)
    schedule = _read(Schedule, given, "schedule", refused)
    quiet = _read(QuietHours, timed.quiet, "quiet", refused)
    if schedule is not None and kind.schedule == "never":
        refused.append({"loc": ["schedule"], "msg": f"{kind.slug} runs all the time; leave the schedule out"})
    expires_us = None
    if timed.expires_at is not None:
        if timed.expires_at.tzinfo is None:
            refused.append({"loc": ["expires_at"], "msg": "has no time zone; give RFC 3339, as 2027-01-31T00:00:00Z"})
        elif (expires_us := clock.to_us(timed.expires_at)) <= clock.now_us():
            refused.append({"loc": ["expires_at"], "msg": "is past already; give a time to come"})
    if refused:
        raise JobRefusedError(refused)
    return Timing(schedule, quiet, expires_us)


def known_audiences(config: Config, error: UnknownAudienceError) -> JobRefusedError:
    """Gives the refusal of a configuration that names audiences which there are not."""
    slugs = config.audiences if isinstance(config, TriggerExport | AudienceExport) else ()
    return JobRefusedError(
        [
            {"loc": ["config", "audiences", slugs.index(slug)], "msg": f"there is no audience {slug!r}"}
            for slug in error.slugs
        ]
    )


def findings(error: ValidationError, where: str) -> list[dict[str, Any]]:
    """Gives what a model refused, as {loc, msg}, without the values, which may be secret."""
    return [
        {"loc": [where, *each["loc"]], "msg": each["msg"].removeprefix("Value error, ")}
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def unknown_job(job_id: str) -> NoSuchJobError:
    """Gives the error for a job that there is not."""
    return NoSuchJobError(f"there is no job {job_id[:100]!r}")


def _read(model: type[T], given: Mapping[str, Any] | None, where: str, refused: list[Mapping[str, Any]]) -> T | None:
    if given is None:
        return None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        refused += findings(error, where)
        return None
