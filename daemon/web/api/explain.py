"""`/v2/entity/…/explain`: why a person is, or is not, in an audience (P8)."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import anyio.to_thread
from aiohttp import web

from daemon import clock
from daemon.ingest.definitions import Audience, Definitions
from daemon.ingest.evaluation import Evaluator
from daemon.web.api.entities import found_profile, identity_of
from daemon.web.body import ApiError
from daemon.web.envelope import endpoint
from daemon.web.services import SERVICES
from streams.audience import AudienceSet
from streams.explain import Condition, conditions, flips
from streams.profile import Profile, shown_value
from streams.ql.compiler import compile_filter
from streams.ql.nodes import Node

#: The next flip is looked for over at most so many boundaries: that of keep_days may change nothing.
FLIP_STEPS = 8

CONDITION = {
    "type": "object",
    "properties": {
        "depth": {"type": "integer"},
        "text": {"type": "string"},
        "match": {"type": "boolean"},
        "ok": {"type": "boolean", "description": "false: it cannot be evaluated"},
        "reason": {"type": "string"},
        "values": {"type": "object"},
    },
}
EXPLANATION = {
    "type": "object",
    "properties": {
        "member": {"type": "boolean"},
        "match": {"type": "boolean"},
        "ok": {"type": "boolean"},
        "reason": {"type": "string"},
        "next_flip": {"type": ["string", "null"], "format": "date-time"},
        "next_flip_by": {"type": "array", "items": CONDITION},
        "conditions": {"type": "array", "items": CONDITION},
    },
}


class Told(NamedTuple):
    """A filter's verdict on a profile, and when time alone changes it next: by which conditions, as they are then."""

    match: bool
    ok: bool
    conditions: list[Condition]
    next_flip: datetime | None
    next_flip_by: list[Condition]


def routes() -> list[web.RouteDef]:
    """Gives the routes of explanations."""
    return [web.get("/v2/entity/{table}/{field}/{value}/explain/{slug}", explain_membership)]


@endpoint("read", tag="profiles", reply=EXPLANATION)
async def explain_membership(request: web.Request) -> object:
    """Says why a profile is, or is not, in an audience: each condition with value, verdict and reason, the next flip.

    `conditions` are those of the filter in the order of its text, with those of the audiences that it includes below
    them; `depth` says how deep each stands. `next_flip` is the moment at which time alone changes the verdict, and
    `next_flip_by` has the conditions that are different then.
    """
    definitions = request.app[SERVICES].pipeline.definitions
    audience, where = _audience(definitions, request.match_info["slug"])
    field = identity_of(request, request.match_info["field"])
    found = await found_profile(request, [(field, request.match_info["value"])])
    told = await anyio.to_thread.run_sync(partial(_tell, definitions, audience, where, found.profile, clock.now()))
    member = next((each for each in found.memberships if each.audience == audience.number), None)
    return {
        "profile": str(found.profile.id),
        "audience": audience.slug,
        "member": member is not None and member.member,
        "since": None if member is None else clock.from_us(member.changed_us),
        "transitions": 0 if member is None else member.sequence,
        "match": told.match,
        "ok": told.ok,
        "reason": told.conditions[0].reason,
        "next_flip": told.next_flip,
        "next_flip_by": [_shown(each) for each in told.next_flip_by],
        "conditions": [_shown(each) for each in told.conditions],
    }


def _audience(definitions: Definitions, slug: str) -> tuple[Audience, Node]:
    audience = definitions.audience(slug)
    if audience is None:
        raise ApiError(404, f"there is no audience {slug[:200]!r}; GET /api/segment lists them")
    if audience.filter is None or audience.compiled is None:
        raise ApiError(422, f"audience {audience.slug} is not valid any more: {audience.invalid}")
    return audience, audience.filter.where


def _tell(definitions: Definitions, audience: Audience, where: Node, profile: Profile, now: datetime) -> Told:
    """Works beside the event loop, so with a filter compiled for itself: compiled ones belong to one thread."""
    schema, evaluator = definitions.schema, Evaluator(definitions)
    compiled = compile_filter(where, kinds=schema.kinds, includes=definitions.include)
    alone = AudienceSet({audience.number: compiled}, schema)

    def walked(at: datetime) -> list[Condition]:
        seen = evaluator.at(profile, clock.to_us(at))
        seen.refresh_meta(schema)
        return conditions(where, seen.values, at, kinds=schema.kinds, includes=definitions.include)

    current = walked(now)
    verdict = current[0].match, current[0].ok
    at = now
    for _ in range(FLIP_STEPS):
        next_us = alone.boundary((audience.number,), evaluator.at(profile, clock.to_us(at)), at)
        if next_us is None:
            break
        at = clock.from_us(next_us)
        then = walked(at)
        if (then[0].match, then[0].ok) != verdict:
            return Told(*verdict, current, at, flips(current, then))
    return Told(*verdict, current, None, [])


def _shown(each: Condition) -> dict[str, Any]:
    return {
        "depth": each.depth,
        "text": each.text,
        "match": each.match,
        "ok": each.ok,
        "reason": each.reason,
        "values": {name: shown_value(value) for name, value in each.values.items()},
    }
