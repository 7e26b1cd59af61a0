"""`/v2/provider`: what this installation can connect to, each configuration with its JSON Schema, and its choices."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from connectors.sdk.declare import AuthMethod, JobType, Provider
from daemon.jobs import credentials
from daemon.jobs.choosing import Asked, UnavailableError, choices_of, choose
from daemon.web import body
from daemon.web.api.shapes import WORDS, a_list, an_object
from daemon.web.body import ApiError
from daemon.web.envelope import RETRY_S, Reply, endpoint
from daemon.web.services import SERVICES


class Unsaved(BaseModel):
    """The values of an authorization that is not stored."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    method: str
    config: dict[str, Any] = Field(default_factory=dict)


class Choosing(BaseModel):
    """What choices are asked for with."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    auth_id: str | None = Field(None, description="An authorization that is stored.")
    authorization: Unsaved | None = Field(None, description="Or the values of one that is being made.")
    job_type: str | None = Field(None, description="Of two job types with choices of the same name, this one's.")
    config: dict[str, Any] = Field(default_factory=dict, description="What the form holds so far.")
    search: str = Field("", max_length=500, description="Only those with this in them, where the provider can search.")
    limit: int = Field(100, ge=1, le=1000)


CHOOSING = {"application/json": Choosing}
CHOICES = a_list(an_object(value=WORDS, label=WORDS, hint=WORDS))


def routes() -> list[web.RouteDef]:
    """Gives the routes of providers."""
    return [
        web.get("/v2/provider", list_providers),
        web.get("/v2/provider/{slug}", get_provider),
        web.post("/v2/provider/{slug}/{choices}", find_choices),
    ]


@endpoint("read", tag="providers")
async def list_providers(request: web.Request) -> object:
    """Lists the providers with their authorization methods and job types."""
    rows = [_object(each) for each in request.app[SERVICES].jobs.catalog.providers.values()]
    return Reply(rows, total=len(rows))


@endpoint("read", tag="providers")
async def get_provider(request: web.Request) -> object:
    """Gives a provider.

    Each authorization method says which job types it enables, and each job type by which methods it is; a field of a
    JSON Schema with `x-choices` has values that POST /v2/provider/{slug}/{choices} looks up.
    """
    known = request.app[SERVICES].jobs.catalog
    slug = request.match_info["slug"]
    provider = known.providers.get(slug)
    if provider is None:
        library = known.missing.get(slug)
        if library is not None:
            raise ApiError(404, f"provider {slug} needs the library {library}; install cohortd[{slug}]")
        raise ApiError(404, f"there is no provider {slug!r}; there are {', '.join(known.providers)}")
    return _object(provider)


@endpoint("admin", tag="providers", body=CHOOSING, reply=CHOICES)
async def find_choices(request: web.Request) -> object:
    """Looks up the values that a field may have (containers, files, columns …), where needed with an authorization.

    What the provider refuses is a 422 with its words; without an answer in time it is a 503.
    """
    services = request.app[SERVICES]
    asked = Choosing.model_validate(await body.json_object(request))
    if asked.auth_id is not None and asked.authorization is not None:
        raise ApiError(422, "auth_id and authorization: give one of them", errors=[_both("auth_id")])
    unsaved = asked.authorization
    try:
        found = await choose(
            services.jobs.catalog,
            services.authorizations,
            services.settings,
            request.match_info["slug"],
            request.match_info["choices"],
            Asked(
                asked.auth_id,
                None if unsaved is None else unsaved.method,
                {} if unsaved is None else unsaved.config,
                asked.job_type,
                asked.config,
                asked.search,
                asked.limit,
            ),
        )
    except UnavailableError as error:
        raise ApiError(503, str(error), retry_after=math.ceil(error.retry_after or RETRY_S)) from error
    return Reply([asdict(each) for each in found], total=len(found))


def _both(name: str) -> dict[str, Any]:
    return {"loc": [name], "msg": "must be null when the other is given"}


def _object(provider: Provider) -> dict[str, Any]:
    return {
        "id": provider.slug,
        "slug": provider.slug,
        "label": provider.label,
        "description": provider.description,
        "auth_methods": [_method(provider, each) for each in provider.auths],
        "job_types": [_job_type(each) for each in provider.jobs],
    }


def _method(provider: Provider, method: AuthMethod[Any]) -> dict[str, Any]:
    return {
        "slug": method.slug,
        "label": method.label,
        "description": method.description,
        "job_types": [kind.slug for kind in provider.jobs if method in kind.auths],
        "checked": method.check is not None,
        "rate": None if method.rate is None else {"requests": method.rate.requests, "per_s": method.rate.per_s},
        "secrets": list(credentials.secret_fields(method.config)),
        "choices": sorted(choices_of(method.config)),
        "schema": method.config.model_json_schema(),
    }


def _job_type(kind: JobType[Any]) -> dict[str, Any]:
    return {
        "slug": kind.slug,
        "label": kind.label,
        "description": kind.description,
        "direction": kind.direction,
        "auth_methods": [each.slug for each in kind.auths],
        "auth_required": kind.auth_required,
        "schedule": kind.schedule,
        "frequency": kind.frequency,
        "choices": sorted(choices_of(kind.config)),
        "schema": kind.config.model_json_schema(),
    }
