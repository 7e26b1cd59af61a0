"""`/v2/job/{id}/{logs,runs,deliveries,metrics}` and `…/redeliver`: what a job did, and doing it again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from daemon import clock
from daemon.bus import redelivery
from daemon.jobs.asked import NoSuchJobError
from daemon.model import codes
from daemon.model.codes import LEVELS
from daemon.model.job import JobState
from daemon.store import deliveries, journal, subscriptions
from daemon.store.deliveries import Delivery, Sent
from daemon.store.jobs import JobRow
from daemon.store.journal import LogLine, RunRow
from daemon.store.subscriptions import SubscriptionRow
from daemon.web import body
from daemon.web.api.subscriptions import counts
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, cursor, endpoint, limit_of, start_of
from daemon.web.services import SERVICES, Services

OUTCOMES: Final = ("delivered", "omitted", "failed")
SPANS: Final[dict[str, int]] = {"hour": 48, "day": 30, "week": 12}
PAGED: Final = {"start": "go on: `_next` of the reply before", "limit": "how many, at most 1000; default 100"}


class Again(BaseModel):
    """What is to be sent again. One of: `deliveries`; a range of trigger ids; `outcomes` and times."""

    model_config = ConfigDict(extra="forbid")

    deliveries: list[Annotated[int, Field(ge=1, lt=2**63)]] = Field(
        default_factory=list, max_length=1000, description="ids of deliveries"
    )
    outcomes: list[Literal["delivered", "omitted", "failed"]] = Field(
        default_factory=list, description="deliveries that ended so, and that no later one delivered"
    )
    after: datetime | None = Field(None, description="deliveries from this moment on")
    before: datetime | None = Field(None, description="deliveries before this moment")
    first_trigger: int | None = Field(None, ge=1, lt=2**63, description="triggers from this id on")
    last_trigger: int | None = Field(None, ge=1, lt=2**63, description="triggers up to this id")
    dryrun: bool = Field(default=False, description="only count")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        timed = bool(self.outcomes) or self.after is not None or self.before is not None
        ranged = self.first_trigger is not None or self.last_trigger is not None
        if [bool(self.deliveries), timed, ranged].count(True) != 1:
            raise ValueError(
                "give one of: deliveries (ids); first_trigger and last_trigger; outcomes (omitted, failed, delivered)"
                " with or without after and before"
            )
        if ranged and self.first_trigger is None:
            raise ValueError("first_trigger is missing: from which trigger id on")
        for moment in (self.after, self.before):
            if moment is not None and moment.tzinfo is None:
                raise ValueError("after and before need a time zone, as in 2026-11-21T09:00:00Z")
        return self

    def chosen(self) -> redelivery.Chosen:
        """Gives it as the bus takes it."""
        outcomes: Sequence[str] = self.outcomes or OUTCOMES
        return redelivery.Chosen(
            deliveries=self.deliveries,
            outcomes=outcomes,
            after_us=0 if self.after is None else clock.to_us(self.after),
            before_us=2**62 if self.before is None else clock.to_us(self.before),
            first_trigger=self.first_trigger,
            last_trigger=self.last_trigger,
        )


AGAIN = {"application/json": Again}


def routes() -> list[web.RouteDef]:
    """Gives the routes of this module."""
    return [
        web.get("/v2/job/logs", all_logs),
        web.get("/v2/job/{id}/logs", job_logs),
        web.get("/v2/job/{id}/runs", job_runs),
        web.get("/v2/job/{id}/deliveries", job_deliveries),
        web.get("/v2/job/{id}/metrics", job_metrics),
        web.post("/v2/job/{id}/redeliver", redeliver),
    ]


@endpoint("read", tag="jobs", query=PAGED | {"level": "debug, info, warning or error: this level and graver"})
async def all_logs(request: web.Request) -> object:
    """Gives the newest lines of all jobs' logs."""
    return await _logs(request, None)


@endpoint(
    "read",
    tag="jobs",
    query=PAGED | {"level": "debug, info, warning or error: this level and graver", "run": "of this run alone"},
)
async def job_logs(request: web.Request) -> object:
    """Gives a job's log, the newest line first: what happened, with a code, and what to do about it."""
    return await _logs(request, (await _job(request)).id)


@endpoint("read", tag="jobs", query=PAGED)
async def job_runs(request: web.Request) -> object:
    """Gives a job's runs, the newest first: when, how each ended, why, and what it did."""
    services = request.app[SERVICES]
    job = await _job(request)
    limit, below = limit_of(request), below_of(request)
    await services.journal.settle()
    rows = await services.state.read(lambda db: journal.runs(db, job.id, below, limit))
    return Reply([_run(each) for each in rows], next_cursor=cursor(rows[-1].id) if len(rows) == limit else None)


@endpoint(
    "read",
    tag="jobs",
    query=PAGED
    | {
        "outcome": "delivered, omitted or failed; several with commas",
        "after": "from this moment on (RFC 3339)",
        "before": "before this moment",
    },
)
async def job_deliveries(request: web.Request) -> object:
    """Gives what a job sent, omitted, or failed to send, the newest first: when, to whom, size, answer, attempt.

    Each is an attempt, with up to 100 of its messages: the profile, the message's id and its last trigger id.
    """
    services = request.app[SERVICES]
    job = await _job(request)
    limit, below = limit_of(request), below_of(request)
    outcomes = [each.strip() for each in request.query.get("outcome", "").split(",") if each.strip()]
    unknown = [each for each in outcomes if each not in OUTCOMES]
    if unknown:
        raise ApiError(400, f"outcome: {unknown[0][:50]!r} is none of {', '.join(OUTCOMES)}")
    after_us, before_us = moment_of(request, "after", 0), moment_of(request, "before", 2**62)
    found = await services.state.read(
        lambda db: deliveries.page(
            db, job.id, outcomes=outcomes, below=below, after_us=after_us, before_us=before_us, limit=limit
        )
    )
    following = cursor(found[-1][0].id) if len(found) == limit else None
    return Reply([delivery_object(*each) for each in found], next_cursor=following)


@endpoint(
    "read",
    tag="jobs",
    query={"by": "hour, day or week (UTC; a week begins on Monday)", "spans": "how many of them, at most 1000"},
)
async def job_metrics(request: web.Request) -> object:
    """Counts what a job did in all, and its activity by hour, day or week.

    added: enters delivered, rows imported; removed: exits delivered; omitted: refused by the destination for good;
    failed: attempts that failed; skipped: given up by retention.
    """
    services = request.app[SERVICES]
    job = await _job(request)
    by = request.query.get("by", "hour")
    if by not in SPANS:
        raise ApiError(400, f"by: {by[:50]!r} is none of {', '.join(SPANS)}")
    span: journal.Span = by  # type: ignore[assignment]
    spans = _number(request, "spans", SPANS[by])
    width = {"hour": journal.HOUR_US, "day": journal.DAY_US, "week": journal.WEEK_US}[by]
    end_us = journal.start_of(clock.now_us(), span) + width
    await services.journal.settle()
    rows = await services.state.read(lambda db: journal.activity(db, job.id, span, end_us - spans * width, end_us))
    stored = await services.state.read(lambda db: subscriptions.of_job(db, job.id))
    sums = {"added": 0, "removed": 0, "omitted": 0, "failed": 0, "skipped": 0}
    if stored is not None:
        sums = counts(services.bus.row(stored.id) or stored)
    else:  # an import, or an export of what is there: all that the days have which are kept
        days = await services.state.read(lambda db: journal.activity(db, job.id, "day", 0, end_us))
        for each in days:
            sums = sums | {name: sums[name] + count for name, count in _counts(each).items()}
    activity = [{"start": clock.from_us(each.start_us), **_counts(each)} for each in rows]
    return sums | {"by": by, "activity": activity}


@endpoint("admin", tag="jobs", body=AGAIN)
async def redeliver(request: web.Request) -> object:
    """Sends messages of a job again: some deliveries, those that were omitted or failed, or a range.

    They go the way of all messages, in order for each person, as soon as the job runs, made anew: the profile as it is
    now, the job's configuration of now. What was followed by something newer for the same person and audience is not
    sent again (`superseded`); what the job has still to come to is sent anyway (`waiting`).
    """
    services = request.app[SERVICES]
    job = await _job(request)
    given = Again.model_validate(await body.json_object(request))
    row = await _subscription(services, job)
    if job.state is JobState.COMPLETED:
        raise ApiError(409, f"job {job.id} is completed and sends nothing more; copy it, or create a new one")
    await services.bus.flush(every=True)
    asked = await redelivery.ask(services.state, services.bus, row, given.chosen(), dry=given.dryrun)
    if asked.queued and not given.dryrun:
        words = f"{asked.queued} messages are to be sent again"
        services.journal.job_event(
            job.id, None, "info", codes.REDELIVERY, words, queued=asked.queued, superseded=asked.superseded
        )
    begins = asked.log_begins_at
    return {
        "dryrun": given.dryrun,
        "queued": asked.queued,
        "repeated": asked.repeated,
        "superseded": asked.superseded,
        "waiting": asked.waiting,
        "complete": asked.complete,
        "log_begins_at": None if begins is None else str(begins),
        "statement": _statement(job, asked),
        "configuration": {
            "job": orjson.loads(job.config),
            "as_of": clock.from_us(job.updated_us),
            "profiles": "as they are when they are sent",
        },
    }


def delivery_object(each: Delivery, messages: Sequence[Sent]) -> dict[str, Any]:
    """Gives an attempt as the API shows it."""
    return {
        "id": each.id,
        "run": each.run_id or None,
        "at": clock.from_us(each.at_us),
        "outcome": each.outcome,
        "attempt": each.attempt,
        "to": each.receiver,
        "bytes": each.bytes,
        "status": each.status,
        "answer": each.answer,
        "message_count": each.messages,
        "again": each.again,
        "messages": [
            {"profile": str(sent.profile_id), "id": str(sent.first_id), "last_trigger_id": str(sent.last_id)}
            for sent in messages
        ],
        "sample": None if each.sample is None else orjson.loads(each.sample),
    }


def moment_of(request: web.Request, name: str, default: int) -> int:
    """Gives a moment of the query in microseconds since the epoch."""
    text = request.query.get(name, "")
    if not text:
        return default
    try:
        return clock.to_us(datetime.fromisoformat(text))
    except (ValueError, TypeError, OverflowError) as error:  # TypeError: it has no time zone
        raise ApiError(400, f"{name}: {text[:50]!r} is no RFC 3339 moment, such as 2026-11-21T09:00:00Z") from error


def _statement(job: JobRow, asked: redelivery.Asked) -> str:
    parts = [f"{asked.queued} messages are sent again with the job's present configuration and today's profiles"]
    if asked.queued and job.state not in (JobState.RUNNING, JobState.SLEEPING):
        parts.append(f"once the job, which is {job.state}, is resumed")
    elif asked.queued and job.state is JobState.SLEEPING:
        parts.append("when the job wakes")
    if asked.superseded:
        parts.append(f"{asked.superseded} are not, since something newer followed for the same person and audience")
    if asked.waiting:
        parts.append(f"{asked.waiting} the job has still to come to, and sends anyway")
    if asked.repeated:
        parts.append(f"{asked.repeated} were asked for already")
    if not asked.complete:
        parts.append(f"the rest has to wait: at most {redelivery.MOST} may be under way")
    if asked.log_begins_at is not None:
        parts.append(f"triggers before {asked.log_begins_at} are not in the log any more")
    return "; ".join(parts)


async def _job(request: web.Request) -> JobRow:
    try:
        return await request.app[SERVICES].jobs.get(request.match_info["id"])
    except NoSuchJobError as error:
        raise ApiError(404, str(error)) from error


async def _subscription(services: Services, job: JobRow) -> SubscriptionRow:
    row = await services.state.read(lambda db: subscriptions.of_job(db, job.id))
    if row is None:
        raise ApiError(422, f"job {job.id} of type {job.job_type} sends no triggers; run it again instead")
    return row


async def _logs(request: web.Request, job_id: str | None) -> object:
    services = request.app[SERVICES]
    limit, below = limit_of(request), below_of(request)
    level = request.query.get("level", "debug")
    if level not in LEVELS:
        raise ApiError(400, f"level: {level[:50]!r} is none of {', '.join(LEVELS)}")
    levels = LEVELS[LEVELS.index(level) :]
    run_id = request.query.get("run")
    await services.journal.settle()
    rows = await services.state.read(
        lambda db: journal.lines(db, job_id, levels=levels, below=below, limit=limit, run_id=run_id)
    )
    return Reply([_line(each) for each in rows], next_cursor=cursor(rows[-1].id) if len(rows) == limit else None)


def _line(each: LogLine) -> dict[str, Any]:
    known = codes.CODES.get(each.code)
    return {
        "id": each.id,
        "job_id": each.job_id,
        "run": each.run_id,
        "timestamp": clock.from_us(each.at_us),
        "level": each.level,
        "code": each.code,
        "message": each.message,
        "means": None if known is None else known.means,
        "context": orjson.loads(each.facts),
    }


def _run(each: RunRow) -> dict[str, Any]:
    return {
        "run": each.run_id,
        "began": clock.from_us(each.began_us),
        "ended": None if each.ended_us is None else clock.from_us(each.ended_us),
        "outcome": each.outcome,
        "reason": each.reason,
        **_counts(each),
        "checkpoint": None if each.checkpoint is None else orjson.loads(each.checkpoint),
    }


def _counts(each: RunRow | journal.Activity) -> dict[str, int]:
    return {"added": each.added, "removed": each.removed, "omitted": each.omitted, "failed": each.failed}


def below_of(request: web.Request) -> int:
    """Gives the id below which the page of a reply begins."""
    position = start_of(request)
    if position is None:
        return 2**62
    if isinstance(position, bool) or not isinstance(position, int):
        raise ApiError(400, "start: is not what a reply gave as _next")
    return min(max(position, 0), 2**62)


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= 1000:
        raise ApiError(400, f"{name}: {text[:50]!r} is not a whole number from 1 to 1000")
    return int(text)
