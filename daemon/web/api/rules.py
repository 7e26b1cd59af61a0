"""`/v2/stream/rule`: which stream an event goes to."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from daemon import clock
from daemon.store.definitions import RuleRow
from daemon.web import body
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, endpoint
from daemon.web.services import SERVICES


class Rule(BaseModel):
    """A routing rule: events of `input` for which `expression` holds go to `output`."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=200)
    input: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="stream that the rule reads")
    output: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="stream that matching events go to")
    expression: str = Field("true", min_length=1, description="LQL condition; `true` is every event")
    priority: int = Field(0, ge=-(2**31), lt=2**31, description="higher is tried first, the newest among equals")
    active: bool = True


BODY = {"application/json": Rule}


def routes() -> list[web.RouteDef]:
    """Gives the routes of routing rules."""
    return [
        web.get("/v2/stream/rule", list_rules),
        web.post("/v2/stream/rule", make_rule),
        web.get(r"/v2/stream/rule/{id:\d{1,18}}", get_rule),
        web.put(r"/v2/stream/rule/{id:\d{1,18}}", replace_rule),
        web.delete(r"/v2/stream/rule/{id:\d{1,18}}", delete_rule),
    ]


@endpoint("read", tag="streams")
async def list_rules(request: web.Request) -> object:
    """Lists the routing rules in the order in which they are tried; the first that holds decides."""
    rows = [_object(each) for each in request.app[SERVICES].pipeline.definitions.rules]
    return Reply(rows, total=len(rows))


@endpoint("admin", tag="streams", body=BODY)
async def make_rule(request: web.Request) -> object:
    """Makes a routing rule; it applies to events from now on."""
    return await _put(request, None)


@endpoint("read", tag="streams")
async def get_rule(request: web.Request) -> object:
    """Gives a routing rule."""
    return _object(_find(request))


@endpoint("admin", tag="streams", body=BODY)
async def replace_rule(request: web.Request) -> object:
    """Replaces a routing rule."""
    return await _put(request, _find(request).id)


@endpoint("admin", tag="streams")
async def delete_rule(request: web.Request) -> object:
    """Deletes a routing rule."""
    await request.app[SERVICES].pipeline.delete_rule(_find(request).id)
    return Reply(None, message="deleted")


async def _put(request: web.Request, rule_id: int | None) -> object:
    rule = Rule.model_validate(await body.json_object(request))
    row = await request.app[SERVICES].pipeline.put_rule(rule_id=rule_id, **rule.model_dump())
    return _object(row)


def _find(request: web.Request) -> RuleRow:
    rule_id = int(request.match_info["id"])
    for each in request.app[SERVICES].pipeline.definitions.rules:
        if each.id == rule_id:
            return each
    raise ApiError(404, f"there is no routing rule {rule_id}; GET /v2/stream/rule lists them")


def _object(row: RuleRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "input": row.input,
        "output": row.output,
        "expression": row.expression,
        "priority": row.priority,
        "active": row.active,
        "created": clock.from_us(row.created_us),
        "updated": clock.from_us(row.updated_us),
    }
