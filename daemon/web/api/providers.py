"""`/v2/provider`: what this installation can connect to, each configuration with its JSON Schema."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from connectors.sdk.declare import AuthMethod, JobType, Provider
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, endpoint
from daemon.web.services import SERVICES


def routes() -> list[web.RouteDef]:
    """Gives the routes of providers."""
    return [web.get("/v2/provider", list_providers), web.get("/v2/provider/{slug}", get_provider)]


@endpoint("read", tag="providers")
async def list_providers(request: web.Request) -> object:
    """Lists the providers with their authorization methods and job types."""
    rows = [_object(each) for each in request.app[SERVICES].jobs.catalog.providers.values()]
    return Reply(rows, total=len(rows))


@endpoint("read", tag="providers")
async def get_provider(request: web.Request) -> object:
    """Gives a provider."""
    known = request.app[SERVICES].jobs.catalog
    slug = request.match_info["slug"]
    provider = known.providers.get(slug)
    if provider is None:
        library = known.missing.get(slug)
        if library is not None:
            raise ApiError(404, f"provider {slug} needs the library {library}; install cohortd[{slug}]")
        raise ApiError(404, f"there is no provider {slug!r}; there are {', '.join(known.providers)}")
    return _object(provider)


def _object(provider: Provider) -> dict[str, Any]:
    return {
        "id": provider.slug,
        "slug": provider.slug,
        "label": provider.label,
        "description": provider.description,
        "auth_methods": [_method(each) for each in provider.auths],
        "job_types": [_job_type(each) for each in provider.jobs],
    }


def _method(method: AuthMethod[Any]) -> dict[str, Any]:
    return {"slug": method.slug, "label": method.label, "schema": method.config.model_json_schema()}


def _job_type(kind: JobType[Any]) -> dict[str, Any]:
    return {
        "slug": kind.slug,
        "label": kind.label,
        "description": kind.description,
        "direction": kind.direction,
        "auth_methods": [each.slug for each in kind.auths],
        "schema": kind.config.model_json_schema(),
    }
