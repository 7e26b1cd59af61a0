"""`/v2/subscription`: how far each destination is, and what became of its triggers."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from daemon import clock
from daemon.store import subscriptions
from daemon.store.subscriptions import SubscriptionRow
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, endpoint
from daemon.web.services import SERVICES, Services


def routes() -> list[web.RouteDef]:
    """Gives the routes of subscriptions."""
    return [web.get("/v2/subscription", list_subscriptions), web.get("/v2/subscription/{id}", get_subscription)]


@endpoint("read", tag="jobs")
async def list_subscriptions(request: web.Request) -> object:
    """Lists the subscriptions with their cursors and how far they are behind."""
    services = request.app[SERVICES]
    rows = [await _object(services, each) for each in await services.state.read(subscriptions.every)]
    return Reply(rows, total=len(rows))


@endpoint("read", tag="jobs")
async def get_subscription(request: web.Request) -> object:
    """Gives a subscription with its cursor, and how far it is behind, in triggers and seconds."""
    services = request.app[SERVICES]
    wanted = request.match_info["id"]
    row = await services.state.read(lambda db: subscriptions.one(db, wanted))
    if row is None:
        raise ApiError(404, f"there is no subscription {wanted[:100]!r}; GET /v2/subscription lists them")
    return await _object(services, row)


def counts(row: SubscriptionRow) -> dict[str, int]:
    """Gives what became of a subscription's triggers: enters and exits delivered, and what was not."""
    done = row.progress
    return {
        "added": done.added,
        "removed": done.removed,
        "omitted": done.omitted,
        "failed": done.failed,
        "skipped": done.skipped,
    }


async def _object(services: Services, stored: SubscriptionRow) -> dict[str, Any]:
    row = services.bus.row(stored.id) or stored  # the bus is ahead of what is stored
    lag = await services.bus.lag(row.id)
    done = row.progress
    known = services.pipeline.definitions.audiences
    return {
        "id": row.id,
        "job_id": row.job_id,
        "audiences": [known[number].slug for number in sorted(row.wanted.audiences) if number in known],
        "events": row.wanted.events,
        "position": str(done.position),
        "lag_triggers": lag.triggers if lag is not None else 0,
        "lag_seconds": lag.seconds if lag is not None else 0.0,
        "backfilling": done.backfill_trigger is not None,
        "counts": counts(row),
        "created": clock.from_us(row.created_us),
        "acked": clock.from_us(done.acked_us) if done.acked_us is not None else None,
    }
