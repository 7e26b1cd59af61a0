"""The audit log of requests: every change that a request made is noted, with who asked for it."""

from __future__ import annotations

from aiohttp import web

from daemon import clock
from daemon.store import audit
from daemon.web import auth
from daemon.web.services import SERVICES

#: Facts that a handler adds to the entry of its request; never a secret.
FACTS = web.RequestKey("FACTS", dict[str, object])
#: What of a reply tells what was changed.
_SHOWN = ("id", "slug", "alias", "label", "state", "job_type", "provider", "method", "version", "queued", "dryrun")


def note(request: web.Request, **facts: object) -> None:
    """Adds facts to the audit entry of a request."""
    request[FACTS] = request.get(FACTS, {}) | facts


async def keep(request: web.Request, action: str, request_id: str, data: object) -> None:
    """Writes down that a request changed something."""
    subject = _subject(request)
    facts = dict(request.get(FACTS, {}))
    if isinstance(data, dict):
        facts = {name: data[name] for name in _SHOWN if data.get(name) not in (None, "")} | facts
        if isinstance(data.get("id"), str) and not request.match_info.get("id"):
            subject = f"{subject}/{data['id']}"
    who = request[auth.WHO]
    await request.app[SERVICES].state.write(
        lambda db: audit.add(
            db, clock.now_us(), who.id, action, subject, facts, label=who.id, request_id=request_id[:128]
        )
    )


def _subject(request: web.Request) -> str:
    """Gives the path of a request, without the keys of people in it: they may be erased, and this stays."""
    resource = request.match_info.route.resource
    if resource is None:
        return request.path
    path = resource.canonical.replace("/{job_type}", "")
    for name, value in request.match_info.items():
        path = path.replace("{" + name + "}", "…" if name == "value" else value)
    return path
