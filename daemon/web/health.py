"""`/health`, `/ready` and `/metrics`: is it alive, can it be used, what does it do."""

from __future__ import annotations

from aiohttp import web
from prometheus_client.exposition import generate_latest as plain
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from daemon.jobs import metrics as job_metrics
from daemon.metrics import REGISTRY
from daemon.web import auth
from daemon.web.body import ApiError
from daemon.web.envelope import endpoint
from daemon.web.services import SERVICES


def routes() -> list[web.RouteDef]:
    """Gives the routes of this module."""
    return [web.get("/health", health), web.get("/ready", ready), web.get("/metrics", metrics)]


@endpoint(None, tag="daemon", reply={"type": "object", "properties": {"alive": {"type": "boolean"}}})
async def health(request: web.Request) -> object:
    """Says that the daemon's event loop answers."""
    del request
    return {"alive": True}


@endpoint(None, tag="daemon", reply={"type": "object", "properties": {"ready": {"type": "boolean"}}})
async def ready(request: web.Request) -> object:
    """Says whether collection, definitions and jobs can be used.

    200 also with a backlog; 503 while the daemon starts or stops.
    """
    services = request.app[SERVICES]
    if services.stopping.is_set():
        raise ApiError(503, "the daemon is stopping", retry_after=5)
    if not services.ready:
        raise ApiError(503, "the daemon is starting", retry_after=1)
    return {"ready": True}


@endpoint(None, tag="daemon")
async def metrics(request: web.Request) -> object:
    """Gives the metrics in Prometheus' text format, or as OpenMetrics to a client that accepts it.

    Needs scope `read`, unless the setting `server.metrics_public` is on.
    """
    if not request.app[SERVICES].settings.server.metrics_public:
        await auth.require(request, "read")
    await job_metrics.refresh(request.app[SERVICES].state)
    if "application/openmetrics-text" in request.headers.get("Accept", ""):
        return web.Response(
            body=openmetrics(REGISTRY),  # type: ignore[no-untyped-call]  # as the library has it
            headers={"Content-Type": OPENMETRICS},
        )
    return web.Response(body=plain(REGISTRY), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
