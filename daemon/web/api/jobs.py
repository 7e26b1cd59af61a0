"""`/v2/job`: what is sent where, its state, and the commands that change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from daemon import clock
from daemon.jobs.asked import JobConflictError, JobRefusedError, NewAuthorization, NoSuchJobError, Timed
from daemon.model.job import JobState, Message
from daemon.store.jobs import JobRow, Wanted
from daemon.web import body
from daemon.web.auth import WHO
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, cursor, endpoint, limit_of, start_of
from daemon.web.services import SERVICES, Services


class JobAuthorization(BaseModel):
    """An authorization that is made together with its job; `config` is what its method's JSON Schema says."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    method: str
    label: str = Field("", max_length=200)
    description: str = Field("", max_length=4000)
    config: dict[str, Any] = Field(default_factory=dict)


class NewJob(BaseModel):
    """A job to be created; `config` is what its job type's JSON Schema says."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field("", max_length=200)
    description: str = Field("", max_length=4000)
    auth_id: str | None = None
    authorization: JobAuthorization | None = Field(
        None, description="Or an authorization to be made with the job: it is checked, and kept only with the job."
    )
    config: dict[str, Any] = Field(default_factory=dict)
    schedule: dict[str, Any] | None = Field(
        None, description="When it runs; an import or export without one runs once."
    )
    quiet: dict[str, Any] | None = Field(None, description="Hours of the day in which it does not run.")
    expires_at: datetime | None = Field(None, description="From then on it is completed.")


class JobTexts(BaseModel):
    """What of a job can be changed."""

    model_config = ConfigDict(extra="forbid")

    label: str | None = Field(None, max_length=200)
    description: str | None = Field(None, max_length=4000)
    auth_id: str | None = Field(None, description="An authorization by a method that enables the job's type.")


class CopyTexts(BaseModel):
    """What a copy is called."""

    model_config = ConfigDict(extra="forbid")

    label: str | None = Field(None, max_length=200)


NEW = {"application/json": NewJob}
TEXTS = {"application/json": JobTexts}
COPY = {"application/json": CopyTexts}


def routes() -> list[web.RouteDef]:
    """Gives the routes of jobs."""
    return [
        web.get("/v2/job", list_jobs),
        web.get("/v2/job/{id}", get_job),
        web.patch("/v2/job/{id}", change_job),
        web.delete("/v2/job/{id}", delete_job),
        web.post("/v2/job/{job_type}", create_job),
        web.post("/v2/job/{id}/copy", copy_job),
        web.post("/v2/job/{id}/pause", pause_job),
        web.post("/v2/job/{id}/resume", resume_job),
        web.post("/v2/job/{id}/run", run_job),
        web.post("/v2/job/{id}/complete", complete_job),
    ]


@endpoint(
    "read",
    tag="jobs",
    query={
        "state": "only jobs in this state",
        "job_type": "only jobs of this type",
        "provider": "only jobs of this provider",
        "auth_id": "only jobs with this authorization",
        "text": "only jobs with this in their label or description",
        "limit": "most jobs of a page, 100 unless given, at most 1000",
        "start": "where the page begins: `_next` of the page before",
    },
)
async def list_jobs(request: web.Request) -> object:
    """Lists the jobs in the order of their making, in pages.

    `total` is how many there are in all, `states` how many in each state.
    """
    services = request.app[SERVICES]
    query = request.query
    state = query.get("state")
    if state is not None and state not in set(JobState):
        raise ApiError(400, f"state: {state[:100]!r} is none of {', '.join(JobState)}")
    wanted = Wanted(
        None if state is None else JobState(state),
        query.get("auth_id"),
        _types(services, query.get("job_type"), query.get("provider")),
        query.get("text"),
    )
    limit = limit_of(request)
    rows, states = await services.jobs.page(wanted, _place(start_of(request)), limit)
    following = cursor([rows[-1].created_us, rows[-1].id]) if len(rows) == limit else None
    return Reply(
        [_object(services, row) for row in rows],
        total=sum(states.values()),
        next_cursor=following,
        extra={"states": states},
    )


@endpoint("read", tag="jobs")
async def get_job(request: web.Request) -> object:
    """Gives a job: its state, why it is in it, and until when it sleeps."""
    services = request.app[SERVICES]
    with _told():
        return _object(services, await services.jobs.get(request.match_info["id"]))


@endpoint("admin", tag="jobs", body=NEW)
async def create_job(request: web.Request) -> object:
    """Creates a job and starts it; every trigger that is committed after the reply is delivered.

    Secrets in its configuration are references (env:NAME, file:/path, credential:name); nothing else is kept.
    """
    services = request.app[SERVICES]
    new = NewJob.model_validate(await body.json_object(request))
    with _told():
        row = await services.jobs.create(
            request.match_info["job_type"],
            new.config,
            label=new.label,
            description=new.description,
            auth_id=new.auth_id,
            authorization=_authorization(new.authorization),
            timed=Timed(new.schedule, new.quiet, new.expires_at),
            owner=request[WHO].id,
        )
    return _object(services, row)


@endpoint("admin", tag="jobs", body=COPY)
async def copy_job(request: web.Request) -> object:
    """Creates a job as this one is, and starts it: same configuration, authorization and schedule.

    The body may be left out; `label` names the copy.
    """
    services = request.app[SERVICES]
    texts = CopyTexts.model_validate(await body.json_object(request) if request.can_read_body else {})
    with _told():
        row = await services.jobs.copy(request.match_info["id"], label=texts.label, owner=request[WHO].id)
    return _object(services, row)


@endpoint("admin", tag="jobs", body=TEXTS)
async def change_job(request: web.Request) -> object:
    """Changes a job's label, description and authorization; for anything else, create a new job."""
    services = request.app[SERVICES]
    texts = JobTexts.model_validate(await body.json_object(request))
    with _told():
        row = await services.jobs.edit(
            request.match_info["id"], label=texts.label, description=texts.description, auth_id=texts.auth_id
        )
    return _object(services, row)


@endpoint("admin", tag="jobs")
async def delete_job(request: web.Request) -> object:
    """Ends a job and deletes it with its subscription."""
    with _told():
        await request.app[SERVICES].jobs.delete(request.match_info["id"])
    return Reply(None, message="deleted")


@endpoint("admin", tag="jobs")
async def pause_job(request: web.Request) -> object:
    """Pauses a job; its subscription keeps its place."""
    return await _command(request, Message.PAUSE)


@endpoint("admin", tag="jobs")
async def resume_job(request: web.Request) -> object:
    """Resumes a paused, failed or sleeping job where it was."""
    return await _command(request, Message.RESUME)


@endpoint("admin", tag="jobs")
async def run_job(request: web.Request) -> object:
    """Ends a job's sleep."""
    return await _command(request, Message.RUN)


@endpoint("admin", tag="jobs")
async def complete_job(request: web.Request) -> object:
    """Ends a job for good; its audiences are free, its counts stay."""
    return await _command(request, Message.COMPLETE)


async def _command(request: web.Request, command: Message) -> object:
    services = request.app[SERVICES]
    with _told():
        return _object(services, await services.jobs.command(request.match_info["id"], command))


def _authorization(given: JobAuthorization | None) -> NewAuthorization | None:
    if given is None:
        return None
    return NewAuthorization(given.method, given.config, given.label, given.description)


@contextmanager
def _told() -> Iterator[None]:
    """Says what jobs refuse in the words of HTTP."""
    try:
        yield
    except NoSuchJobError as error:
        raise ApiError(404, str(error)) from error
    except JobConflictError as error:
        raise ApiError(409, str(error)) from error
    except JobRefusedError as error:
        raise ApiError(422, str(error), errors=list(error.errors)) from error


def _types(services: Services, job_type: str | None, provider: str | None) -> list[str] | None:
    """Gives the job types that a list is of; None: all."""
    if provider is None:
        return None if job_type is None else [job_type]
    of = services.jobs.catalog.provider_of
    return [slug for slug, each in of.items() if each == provider and job_type in (None, slug)]


def _place(start: object) -> tuple[int, str]:
    match start:
        case None:
            return -1, ""
        case [int(created_us), str(job_id)] if abs(created_us) < 2**63:
            return created_us, job_id
    raise ApiError(400, "start: is not what a reply gave as _next")


def _object(services: Services, row: JobRow) -> dict[str, Any]:
    kind = services.jobs.catalog.job_types.get(row.job_type)
    return {
        "id": row.id,
        "job_type": row.job_type,
        "provider": services.jobs.catalog.provider_of.get(row.job_type),
        "direction": None if kind is None else kind.direction,
        "label": row.label,
        "description": row.description,
        "auth_id": row.auth_id,
        "config": orjson.loads(row.config),
        "schedule": None if row.schedule is None else orjson.loads(row.schedule),
        "quiet": None if row.quiet is None else orjson.loads(row.quiet),
        "expires_at": _time(row.expires_us),
        "state": row.state,
        "reason": row.reason,
        "since": _time(row.state_us),
        "sleep_until": _time(row.sleep_until_us),
        "sleep_cause": row.sleep_cause,
        "errors": row.errors.count,
        "first_error": _time(row.errors.first_us),
        "crashes": row.crashes,
        "runs": row.runs,
        "last_run": _time(row.run_us),
        "subscription_id": services.jobs.subscription_of(row.id),
        "owner": row.owner,
        "created": _time(row.created_us),
        "modified": _time(row.modified_us),
        "updated": _time(row.updated_us),
    }


def _time(us: int | None) -> datetime | None:
    return None if us is None else clock.from_us(us)
