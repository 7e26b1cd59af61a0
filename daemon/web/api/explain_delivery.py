"""`/v2/job/{id}/explain/{field}/{value}`: why a person was, or was not, sent to a job's destination (P8)."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson
from aiohttp import web

from daemon.jobs.asked import NoSuchJobError
from daemon.store import deliveries, subscriptions
from daemon.store.deliveries import Delivery, Sent
from daemon.web import delivery_story
from daemon.web.api.entities import found_profile, identity_of
from daemon.web.api.job_journal import delivery_object
from daemon.web.body import ApiError
from daemon.web.delivery_story import ATTEMPTS, Known
from daemon.web.envelope import endpoint
from daemon.web.services import SERVICES


def routes() -> list[web.RouteDef]:
    """Gives the routes of this module."""
    return [web.get("/v2/job/{id}/explain/{field}/{value}", explain_delivery)]


@endpoint("read", tag="jobs", query={"audience": "slug: of this audience alone; else of all that the job follows"})
async def explain_delivery(request: web.Request) -> object:
    """Says why a person was, or was not, sent by a job, and what to do about it.

    The walk: is the person in the audience, does the job want that, did it begin in time, what became of each attempt,
    how far is its subscription, in which state is it. One answer for each audience, `verdict` for programs, `because`
    and `do` for people.
    """
    services = request.app[SERVICES]
    try:
        job = await services.jobs.get(request.match_info["id"])
    except NoSuchJobError as error:
        raise ApiError(404, str(error)) from error
    await services.bus.flush(every=True)
    stored = await services.state.read(lambda db: subscriptions.of_job(db, job.id))
    if stored is None:
        raise ApiError(422, f"job {job.id} of type {job.job_type} sends no triggers; its runs say what it did")
    row = services.bus.row(stored.id) or stored
    lag = await services.bus.lag(row.id)
    definitions = services.pipeline.definitions
    present = definitions.audiences
    followed = {present[each].slug: each for each in row.wanted.audiences if each in present}
    slug = request.query.get("audience")
    if slug:
        audience = definitions.audience(slug)
        if audience is None or audience.number not in row.wanted.audiences:
            there = ", ".join(sorted(followed)) or "none that there is any more"
            raise ApiError(404, f"the job does not follow {slug[:200]!r}; it follows {there}")
        followed = {audience.slug: audience.number}
    name = identity_of(request, request.match_info["field"])
    key = (name, request.match_info["value"])
    found = await found_profile(request, [key])

    def read(db: sqlite3.Connection) -> list[tuple[Delivery, Sent]]:
        return deliveries.of_person(db, job.id, found.profile.id, ATTEMPTS)

    attempts = await services.state.read(read)
    existing = bool(orjson.loads(job.config).get("existing_users"))
    members = {each.audience: each for each in found.memberships}
    answers: list[dict[str, Any]] = []
    for each, number in sorted(followed.items()):
        known = Known(job, row, lag, each, key, members.get(number), existing, attempts)
        answers.append(delivery_story.shown(known, delivery_story.tell(known)))
    return {
        "job": job.id,
        "label": job.label,
        "state": job.state,
        "reason": job.reason,
        "profile": str(found.profile.id),
        "audiences": answers,
        "attempts": [delivery_object(attempt, [sent]) for attempt, sent in attempts],
    }
