"""`/v2/entity/…/explain`: why a person is, or is not, in an audience; what made a field's value (P8)."""

from __future__ import annotations

import math
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import anyio.to_thread
from aiohttp import web

from daemon import clock
from daemon.ingest.definitions import Audience, Definitions
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.provenance import Found, provenance
from daemon.web.api.entities import TABLE, found_profile, identity_of
from daemon.web.api.named import audience_named, meant
from daemon.web.body import ApiError
from daemon.web.envelope import endpoint
from daemon.web.membership_history import history_of
from daemon.web.services import SERVICES
from streams.audience import AudienceSet
from streams.explain import Condition, conditions, flips
from streams.profile import Profile
from streams.profile_view import META_NAMES, shown_value
from streams.provenance import Effect
from streams.ql.compiler import compile_filter
from streams.ql.nodes import Node
from streams.schema import Field, Schema

#: The next flip is looked for over at most so many boundaries: that of keep_days may change nothing.
FLIP_STEPS = 8

#: Transitions of one answer.
TRANSITIONS = 20
MOST_TRANSITIONS = 200

QUERY = {
    "history": f"how many transitions to tell, the newest first; default {TRANSITIONS}, at most {MOST_TRANSITIONS}",
    "before": "tell those before this trigger id, as `history_before` of the reply before names it",
}
#: Contributions of one answer, and seconds of one walk over the log.
CONTRIBUTIONS = 20
MOST_CONTRIBUTIONS = 1000
WALK_S = 30
MOST_WALK_S = 600

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
        "history": {"type": "array", "items": {"type": "object"}},
        "history_complete": {"type": "boolean", "description": "back to the first enter"},
        "history_lost": {"type": "boolean", "description": "older transitions are not in the log any more"},
        "history_before": {"type": ["string", "null"], "description": "to go on from, as `before`"},
    },
}


FIELD = {
    "type": "object",
    "properties": {
        "value": {},
        "agrees": {"type": "boolean"},
        "contributions": {"type": "integer"},
        "effects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "position": {"type": "integer"},
                    "query": {"type": "string"},
                    "version": {"type": "integer"},
                    "outcome": {"type": "string", "enum": ["won", "lost", "added", "dropped"]},
                },
            },
        },
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
    return [
        web.get("/v2/entity/{table}/{field}/{value}/explain/{slug}", explain_membership),
        web.get("/v2/entity/{table}/{field}/{value}/explain-field/{name}", explain_field),
    ]


@endpoint("read", tag="profiles", reply=EXPLANATION, query=QUERY)
async def explain_membership(request: web.Request) -> object:
    """Says why a profile is, or is not, in an audience: each condition with value, verdict and reason, the next flip.

    `conditions` are those of the filter in the order of its text, with those of the audiences that it includes below
    them; `depth` says how deep each stands. `next_flip` is the moment at which time alone changes the verdict, and
    `next_flip_by` has the conditions that are different then. `history` tells when the membership changed, by which
    events, definitions or other causes, and which jobs are done with the trigger.
    """
    limit = _count(request, "history", TRANSITIONS, MOST_TRANSITIONS)
    before = _count(request, "before", 0, (1 << 63) - 1) or None
    definitions = request.app[SERVICES].pipeline.definitions
    audience, where = _audience(definitions, request.match_info["slug"])
    field = identity_of(request, request.match_info["field"])
    found = await found_profile(request, [(field, request.match_info["value"])])
    told = await anyio.to_thread.run_sync(partial(_tell, definitions, audience, where, found.profile, clock.now()))
    member = next((each for each in found.memberships if each.audience == audience.number), None)
    past = await history_of(request.app[SERVICES], found.profile, member, limit, before)
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
        "history": past.entries,
        "history_complete": past.complete,
        "history_lost": past.lost,
        "history_before": None if past.before is None else str(past.before),
    }


def _count(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not 0 <= int(text) <= most:
        raise ApiError(400, f"{name}={text[:50]!r} is refused; accepted is a whole number from 0 to {most}")
    return int(text)


@endpoint(
    "read",
    tag="profiles",
    reply=FIELD,
    query={
        "limit": f"contributions to tell, the newest first; default {CONTRIBUTIONS}, at most {MOST_CONTRIBUTIONS}",
        "seconds": f"how long to walk over the log; default {WALK_S}, at most {MOST_WALK_S}",
    },
)
async def explain_field(request: web.Request) -> object:
    """Says which events made the value of a profile's field, by which queries, and what became of each.

    The person's events are found by a walk over the whole log, each mapped by the queries that held when it came (or
    by a query that was applied to the past since). `agrees` is false when they do not make the value that the profile
    has; `notes` says why that may be. `contributions` counts all, `effects` has the newest, and whatever stands.
    """
    services = request.app[SERVICES]
    definitions = services.pipeline.definitions
    name = _field(definitions.schema, request.match_info["name"])
    limit = _count(request, "limit", CONTRIBUTIONS, MOST_CONTRIBUTIONS)
    seconds = _count(request, "seconds", WALK_S, MOST_WALK_S)
    key = identity_of(request, request.match_info["field"])
    profile = (await found_profile(request, [(key, request.match_info["value"])])).profile
    found = await provenance(
        services.events, services.state, definitions, services.pipeline.committed(), profile, name,
        limit=limit, seconds=seconds,
    )  # fmt: skip
    field = definitions.schema.fields[name]
    value = profile.values.get(name)
    agrees = field.single or (found.whole and _close(shown_value(found.value), shown_value(value)))
    return {
        "profile": str(profile.id),
        "field": name,
        "kind": field.kind,
        "merge_op": field.merge_op,
        "value": shown_value(value),
        "agrees": agrees,
        "made": shown_value(found.value),
        "contributions": found.count,
        "events": found.events,
        "whole": found.whole,
        "lost": found.lost,
        "log_since": None if found.log_since_us is None else clock.from_us(found.log_since_us),
        "notes": _notes(found, field, agrees=agrees),
        "effects": [_effect(each) for each in found.effects],
    }


def _field(schema: Schema, name: str) -> str:
    for each in schema.fields:
        if each == name or each.lower() == name.lower():
            return each
    if name in META_NAMES:
        raise ApiError(404, f"{name} is kept by the daemon itself, no query makes it")
    raise ApiError(404, f"{name[:200]!r} is no field; {meant(name, schema.fields)}GET /v2/schema/{TABLE} lists them")


def _effect(each: Effect) -> dict[str, Any]:
    of = each.of
    shown: dict[str, Any] = {
        "lane": of.lane,
        "position": of.position,
        "stream": of.stream,
        "id": of.event_id,
        "time": clock.from_us(of.event_us),
        "received": clock.from_us(of.received_us),
        "query": of.query,
        "version": of.version,
        "value": shown_value(of.value),
        "outcome": "dropped" if each.dropped else each.outcome,
    }
    if each.elements:
        shown["stands"] = [clock.from_us(one) if isinstance(one, int) else one for one in each.elements]
    return shown


def _notes(found: Found, field: Field, *, agrees: bool) -> list[str]:
    notes = []
    if not found.whole:
        notes.append("the walk over the log was broken off; ask with more seconds")
    if found.lost:
        notes.append("the log does not go back to this profile's first event (retention): earlier ones are missing")
    if found.rebuilt is not None:
        row = found.rebuilt
        notes.append(f"made again from the past by replaying version {row.version} of query {row.alias}")
    if found.unmade:
        notes.append(
            f"{found.unmade} contributions came while the field had another kind or operator; they are not in the value"
        )
    if field.single:
        notes.append("an identity of one value: the profile shows the key that it is found by")
    if found.whole and not agrees:
        notes.append(
            "the events found do not make this value: some are not in the log any more, a stitch was undone, keys were "
            "given up, or keep_days let elements go"
        )
    return notes


def _close(one: Any, other: Any) -> bool:
    """Whether values are the same; sums of floats agree up to rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(one[name], other[name]) for name in one)
    return bool(one == other)


def _audience(definitions: Definitions, slug: str) -> tuple[Audience, Node]:
    audience = audience_named(definitions, slug)
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
