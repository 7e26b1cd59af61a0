"""`/v2/status`: how far ingest is behind, what the disk holds, and what stands in the way."""

from __future__ import annotations

from importlib.metadata import version

from aiohttp import web

from daemon.store import profiles
from daemon.web.envelope import endpoint
from daemon.web.services import SERVICES


def routes() -> list[web.RouteDef]:
    """Gives the route of the status."""
    return [web.get("/v2/status", status)]


@endpoint("read", tag="daemon", query={"count": "true: also count the profiles, which reads the whole index"})
async def status(request: web.Request) -> object:
    """Says how many accepted events wait to be taken in, by lane, the bytes of the files, and what is wrong."""
    services = request.app[SERVICES]
    disk = await services.collector.disk()
    path = services.state.path
    disk["state_bytes"] = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
    found: dict[str, object] = {
        "version": version("cohortd"),
        "lag": {"realtime": services.collector.lag("realtime"), "bulk": services.collector.lag("bulk")},
        "trouble": services.collector.trouble,
        "disk": disk,
    }
    if request.query.get("count") == "true":
        found["profiles"] = await services.state.read(profiles.count)
    return found
