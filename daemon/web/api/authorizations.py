"""`/v2/auth`: what cohortd may do with providers, whether it still works, and how much it is used."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from daemon import clock
from daemon.jobs import credentials
from daemon.jobs.authorizations import View
from daemon.model.authorization import Health, Unit, start_of
from daemon.web import body
from daemon.web.api.shapes import COUNT, WORDS, a_list, an_object
from daemon.web.auth import WHO
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, cursor, endpoint, limit_of
from daemon.web.envelope import start_of as page_start
from daemon.web.services import SERVICES, Services


class NewAuthorization(BaseModel):
    """An authorization to be made; `config` is what its method's JSON Schema says.

    A secret is given in clear, and kept sealed, or as a reference: env:NAME, file:/path, credential:name.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    label: str = Field("", max_length=200)
    description: str = Field("", max_length=4000)
    config: dict[str, Any] = Field(default_factory=dict)


class AuthorizationTexts(BaseModel):
    """What of an authorization can be changed; for other values make a new one, and give its jobs that."""

    model_config = ConfigDict(extra="forbid")

    label: str | None = Field(None, max_length=200)
    description: str | None = Field(None, max_length=4000)


class KeyRotation(BaseModel):
    """How the key is replaced."""

    model_config = ConfigDict(extra="forbid")

    keep: bool = Field(default=False, description="Old keys stay and open, for backups that were made under them.")


NEW = {"application/json": NewAuthorization}
TEXTS = {"application/json": AuthorizationTexts}
ROTATION = {"application/json": KeyRotation}

_TIME = {"type": ["string", "null"], "format": "date-time"}
AUTHORIZATION = an_object(
    id=WORDS,
    provider=WORDS,
    method=WORDS,
    label=WORDS,
    description=WORDS,
    status={"type": "string", "enum": list(Health)},
    reason=WORDS,
    since=_TIME,
    checked=_TIME,
    next_check=_TIME,
    last_used=_TIME,
    config={"type": "object"},
    secrets={
        "type": "object",
        "additionalProperties": an_object(set={"type": "boolean"}, reference={"type": ["string", "null"]}),
    },
    jobs={"type": "object", "additionalProperties": COUNT},
    owner=WORDS,
    created=_TIME,
    modified=_TIME,
)
_COUNTS = a_list(an_object(start=_TIME, requests=COUNT))
METRICS = an_object(now=an_object(hour=COUNT, day=COUNT, week=COUNT), hour=_COUNTS, day=_COUNTS, week=_COUNTS)
ROTATED = an_object(
    key=WORDS,
    resealed=COUNT,
    finished={"type": "boolean"},
    left={"type": "object", "additionalProperties": COUNT},
    dropped=a_list(WORDS),
    unused=a_list(WORDS),
)


def routes() -> list[web.RouteDef]:
    """Gives the routes of authorizations."""
    return [
        web.get("/v2/auth", list_authorizations),
        web.post("/v2/auth/rotate-key", rotate_key),
        web.get("/v2/auth/{id}", get_authorization),
        web.patch("/v2/auth/{id}", change_authorization),
        web.delete("/v2/auth/{id}", delete_authorization),
        web.get("/v2/auth/{id}/metrics", authorization_metrics),
        web.post("/v2/auth/{id}/check", check_authorization),
        web.post("/v2/auth/{provider}/{method}", create_authorization),
    ]


@endpoint(
    "read",
    tag="authorizations",
    query={
        "provider": "only authorizations with this provider",
        "method": "only authorizations by this method",
        "status": "only those that are healthy, unhealthy or unknown",
        "limit": "most authorizations of a page, 100 unless given, at most 1000",
        "start": "where the page begins: `_next` of the page before",
    },
    reply=a_list(AUTHORIZATION),
)
async def list_authorizations(request: web.Request) -> object:
    """Lists the authorizations in the order of their making, in pages; `total` is how many there are in all."""
    services = request.app[SERVICES]
    query = request.query
    status = query.get("status")
    if status is not None and status not in set(Health):
        raise ApiError(400, f"status: {status[:100]!r} is none of {', '.join(Health)}")
    limit = limit_of(request)
    views, total = await services.authorizations.every(
        provider=query.get("provider"),
        method=query.get("method"),
        status=status,
        after=_place(page_start(request)),
        limit=limit,
    )
    following = cursor([views[-1].row.created_us, views[-1].row.id]) if len(views) == limit else None
    return Reply([_object(services, each) for each in views], total=total, next_cursor=following)


@endpoint("read", tag="authorizations", reply=AUTHORIZATION)
async def get_authorization(request: web.Request) -> object:
    """Gives an authorization: whether it works and since when, what is no secret in it, and how many jobs use it.

    Of secrets it says which are set, and where those by reference are found; no secret can be read again.
    """
    services = request.app[SERVICES]
    return _object(services, await services.authorizations.get(request.match_info["id"]))


@endpoint("admin", tag="authorizations", body=NEW, reply=AUTHORIZATION)
async def create_authorization(request: web.Request) -> object:
    """Checks an authorization with its provider, and makes it.

    What the provider refuses is a 422 with the provider's words, and nothing is kept. Without an answer it is made, and
    its status is unknown. Secrets are sealed; those given by reference are looked up at each use.
    """
    services = request.app[SERVICES]
    new = NewAuthorization.model_validate(await body.json_object(request))
    view = await services.authorizations.create(
        request.match_info["provider"],
        request.match_info["method"],
        new.config,
        label=new.label,
        description=new.description,
        owner=request[WHO].id,
    )
    return _object(services, view)


@endpoint("admin", tag="authorizations", body=TEXTS, reply=AUTHORIZATION)
async def change_authorization(request: web.Request) -> object:
    """Changes an authorization's label and description."""
    services = request.app[SERVICES]
    texts = AuthorizationTexts.model_validate(await body.json_object(request))
    view = await services.authorizations.describe(
        request.match_info["id"], label=texts.label, description=texts.description
    )
    return _object(services, view)


@endpoint("admin", tag="authorizations")
async def delete_authorization(request: web.Request) -> object:
    """Deletes an authorization; 409 with `data.jobs` while running, sleeping or paused jobs use it."""
    await request.app[SERVICES].authorizations.delete(request.match_info["id"])
    return Reply(None, message="deleted")


@endpoint("admin", tag="authorizations", reply=AUTHORIZATION)
async def check_authorization(request: web.Request) -> object:
    """Checks an authorization with its provider now; one that cannot be checked keeps its status."""
    services = request.app[SERVICES]
    return _object(services, await services.authorizations.check(request.match_info["id"]))


@endpoint("read", tag="authorizations", reply=METRICS)
async def authorization_metrics(request: web.Request) -> object:
    """Counts the API requests made with an authorization: `now` in this hour, day and week, and of those before.

    Hours, days and weeks (from Monday) are of UTC; those without a request are left out. Kept for 7 days, 3 months and
    2 years.
    """
    counts = await request.app[SERVICES].authorizations.counts(request.match_info["id"])
    now_us = clock.now_us()
    shown: dict[str, Any] = {
        unit: [{"start": _time(start_us), "requests": requests} for start_us, requests in counts[unit]] for unit in Unit
    }
    return {"now": {unit: dict(counts[unit]).get(start_of(unit, now_us), 0) for unit in Unit}} | shown


@endpoint("admin", tag="authorizations", body=ROTATION, reply=ROTATED)
async def rotate_key(request: web.Request) -> object:
    """Replaces the key that authorizations are sealed with, and seals all of them anew.

    Every secret can be read throughout, also when this is cut off; doing it again finishes it. A key that comes from a
    credential or the environment is replaced there first: a new line before the old one, and a restart.
    """
    asked = KeyRotation.model_validate(await body.json_object(request) if request.can_read_body else {})
    return await request.app[SERVICES].authorizations.rotate(keep=asked.keep)


def _object(services: Services, view: View) -> dict[str, Any]:
    row = view.row
    return {
        "id": row.id,
        "provider": row.provider,
        "method": row.method,
        "label": row.label,
        "description": row.description,
        "status": row.status,
        "reason": row.reason,
        "since": _time(row.status_us),
        "checked": _time(row.checked_us),
        "next_check": _time(row.due_us if services.settings.auth.check_every_s else None),
        "last_used": _time(row.used_us),
        "config": orjson.loads(row.config),
        "secrets": {
            **{name: {"set": False, "reference": None} for name in _secret_texts(services, row.provider, row.method)},
            **{name: {"set": True, "reference": reference} for name, reference in view.secrets.items()},
        },
        "jobs": view.jobs,
        "owner": row.owner,
        "created": _time(row.created_us),
        "modified": _time(row.updated_us),
    }


def _secret_texts(services: Services, provider: str, method: str) -> list[str]:
    declared = services.jobs.catalog.providers.get(provider)
    for each in () if declared is None else declared.auths:
        if each.slug == method:
            return [name for name, form in credentials.secret_fields(each.config).items() if form == "text"]
    return []


def _place(start: object) -> tuple[int, str]:
    match start:
        case None:
            return -1, ""
        case [int(created_us), str(auth_id)] if abs(created_us) < 2**63:
            return created_us, auth_id
    raise ApiError(400, "start: is not what a reply gave as _next")


def _time(us: int | None) -> datetime | None:
    return None if us is None else clock.from_us(us)
