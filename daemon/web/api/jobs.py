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
from daemon.jobs.jobs import JobConflictError, JobRefusedError, NoSuchJobError
from daemon.model.job import Command, JobState
from daemon.store import subscriptions
from daemon.store.jobs import JobRow
from daemon.web import body
from daemon.web.api.subscriptions import counts
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, endpoint
from daemon.web.services import SERVICES, Services


class NewJob(BaseModel):
    """A job to be created; `config` is what its job type's JSON Schema says."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field("", max_length=200)
    description: str = Field("", max_length=4000)
    auth_id: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    schedule: dict[str, Any] | None = None
    quiet: dict[str, Any] | None = None
    expires_at: datetime | None = None


class JobTexts(BaseModel):
    """What of a job can be changed."""

    model_config = ConfigDict(extra="forbid")

    label: str | None = Field(None, max_length=200)
    description: str | None = Field(None, max_length=4000)
    auth_id: str | None = None


NEW = {"application/json": NewJob}
TEXTS = {"application/json": JobTexts}


def routes() -> list[web.RouteDef]:
    """Gives the routes of jobs."""
    return [
        web.get("/v2/job", list_jobs),
        web.get("/v2/job/{id}", get_job),
        web.patch("/v2/job/{id}", change_job),
        web.delete("/v2/job/{id}", delete_job),
        web.get("/v2/job/{id}/metrics", job_metrics),
        web.post("/v2/job/{job_type}", create_job),
        web.post("/v2/job/{id}/pause", pause_job),
        web.post("/v2/job/{id}/resume", resume_job),
        web.post("/v2/job/{id}/run", run_job),
        web.post("/v2/job/{id}/complete", complete_job),
    ]


@endpoint("read", tag="jobs", query={"state": "only jobs in this state", "job_type": "only jobs of this type"})
async def list_jobs(request: web.Request) -> object:
    """Lists the jobs in the order of their making."""
    services = request.app[SERVICES]
    state, kind = request.query.get("state"), request.query.get("job_type")
    if state is not None and state not in set(JobState):
        raise ApiError(400, f"state: {state[:100]!r} is none of {', '.join(JobState)}")
    rows = [
        _object(services, row)
        for row in await services.jobs.every()
        if state in (None, row.state) and kind in (None, row.job_type)
    ]
    return Reply(rows, total=len(rows))


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
    given = {"schedule": new.schedule, "quiet": new.quiet, "expires_at": new.expires_at}
    refused = [name for name, value in given.items() if value is not None]
    if refused:
        raise ApiError(
            422,
            f"{', '.join(refused)}: exports of triggers run all the time; leave it out",
            errors=[{"loc": [name], "msg": "must be left out or null"} for name in refused],
        )
    with _told():
        row = await services.jobs.create(
            request.match_info["job_type"],
            new.config,
            label=new.label,
            description=new.description,
            auth_id=new.auth_id,
        )
    return _object(services, row)


@endpoint("admin", tag="jobs", body=TEXTS)
async def change_job(request: web.Request) -> object:
    """Changes a job's label and description."""
    services = request.app[SERVICES]
    texts = JobTexts.model_validate(await body.json_object(request))
    if texts.auth_id is not None:
        raise ApiError(
            422, "auth_id: this job takes no authorization", errors=[{"loc": ["auth_id"], "msg": "must be null"}]
        )
    with _told():
        row = await services.jobs.describe(request.match_info["id"], label=texts.label, description=texts.description)
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
    return await _command(request, Command.PAUSE)


@endpoint("admin", tag="jobs")
async def resume_job(request: web.Request) -> object:
    """Resumes a paused, failed or sleeping job where it was."""
    return await _command(request, Command.RESUME)


@endpoint("admin", tag="jobs")
async def run_job(request: web.Request) -> object:
    """Ends a job's sleep."""
    return await _command(request, Command.RUN)


@endpoint("admin", tag="jobs")
async def complete_job(request: web.Request) -> object:
    """Ends a job for good; its audiences are free, its counts stay."""
    return await _command(request, Command.COMPLETE)


@endpoint("read", tag="jobs")
async def job_metrics(request: web.Request) -> object:
    """Counts what a job delivered: enters (added) and exits (removed), and what was omitted, skipped or failed."""
    services = request.app[SERVICES]
    job_id = request.match_info["id"]
    with _told():
        await services.jobs.get(job_id)
    stored = await services.state.read(lambda db: subscriptions.of_job(db, job_id))
    if stored is None:
        raise ApiError(404, f"job {job_id} has no subscription")
    return counts(services.bus.row(stored.id) or stored)


async def _command(request: web.Request, command: Command) -> object:
    services = request.app[SERVICES]
    with _told():
        return _object(services, await services.jobs.command(request.match_info["id"], command))


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


def _object(services: Services, row: JobRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "job_type": row.job_type,
        "provider": services.jobs.catalog.provider_of.get(row.job_type),
        "label": row.label,
        "description": row.description,
        "auth_id": row.auth_id,
        "config": orjson.loads(row.config),
        "schedule": None,
        "quiet": None,
        "expires_at": None,
        "state": row.state,
        "reason": row.reason,
        "sleep_until": clock.from_us(row.sleep_until_us) if row.sleep_until_us is not None else None,
        "sleep_cause": row.sleep_cause,
        "errors": row.errors.count,
        "first_error": clock.from_us(row.errors.first_us) if row.errors.first_us is not None else None,
        "crashes": row.crashes,
        "subscription_id": services.jobs.subscription_of(row.id),
        "created": clock.from_us(row.created_us),
        "updated": clock.from_us(row.updated_us),
    }
