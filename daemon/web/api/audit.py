"""`/v2/audit`: who changed what, and when. `/api/event`: what happened to jobs, authorizations and the daemon."""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import web

from daemon import clock
from daemon.jobs.system import content_of
from daemon.model.codes import VERBS
from daemon.store import audit, system_events
from daemon.web.api.job_journal import PAGED, below_of, moment_of
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, cursor, endpoint, limit_of
from daemon.web.services import SERVICES

TIMES: Final = {"after": "from this moment on (RFC 3339)", "before": "before this moment"}


def routes() -> list[web.RouteDef]:
    """Gives the routes of this module."""
    return [web.get("/v2/audit", list_audit), web.get("/api/event", list_events)]


@endpoint(
    "admin",
    tag="daemon",
    query=PAGED
    | TIMES
    | {
        "subject": "what was changed: the path of the request, such as /v2/job/ID; what is below it too",
        "actor": "id or label of a token; control: over the control socket; local: a command beside the daemon",
        "action": "the name of the change",
    },
)
async def list_audit(request: web.Request) -> object:
    """Gives who changed what, the newest first: jobs, authorizations, definitions, tokens."""
    limit, below = limit_of(request), below_of(request)
    after_us, before_us = moment_of(request, "after", 0), moment_of(request, "before", 2**62)
    asked = {name: request.query.get(name) or None for name in ("subject", "actor", "action")}
    rows = await request.app[SERVICES].state.read(
        lambda db: audit.page(db, below=below, after_us=after_us, before_us=before_us, limit=limit, **asked)
    )
    return Reply([_entry(each) for each in rows], next_cursor=cursor(rows[-1].id) if len(rows) == limit else None)


@endpoint(
    "read",
    tag="daemon",
    query=PAGED
    | TIMES
    | {"type": "job, authorization or daemon", "id": "of this job or authorization", "verb": "created, failed, …"},
)
async def list_events(request: web.Request) -> object:
    """Gives the system events, the newest first: what happened to jobs, authorizations and the daemon."""
    services = request.app[SERVICES]
    limit, below = limit_of(request, default=20), below_of(request)
    subject, verb = request.query.get("type") or None, request.query.get("verb") or None
    if subject is not None and subject not in VERBS:
        raise ApiError(400, f"type: {subject[:50]!r} is none of {', '.join(VERBS)}")
    known = {each for verbs in VERBS.values() for each in verbs}
    if verb is not None and verb not in known:
        raise ApiError(400, f"verb: {verb[:50]!r} is none of {', '.join(sorted(known))}")
    after_us, before_us = moment_of(request, "after", 0), moment_of(request, "before", 2**62)
    await services.journal.settle()
    rows = await services.state.read(
        lambda db: system_events.page(
            db,
            below=below,
            subject=subject,
            subject_id=request.query.get("id") or None,
            verb=verb,
            after_us=after_us,
            before_us=before_us,
            limit=limit,
        )
    )
    told = [{"id": each.uid, **content_of(each)} for each in rows]
    return Reply(told, next_cursor=cursor(rows[-1].id) if len(rows) == limit else None)


def _entry(each: audit.Entry) -> dict[str, Any]:
    return {
        "id": each.id,
        "at": clock.from_us(each.at_us),
        "actor": each.actor,
        "actor_label": each.actor_label,
        "action": each.action,
        "subject": each.subject,
        "facts": orjson.loads(each.facts),
        "request_id": each.request_id,
    }
