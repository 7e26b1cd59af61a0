"""`/v2/job/{job_type}/dryrun`: what a job would send, before there is one."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from connectors.sdk.declare import AudienceExport, Config, JobType, SystemJob, TriggerExport
from connectors.sdk.errors import ConfigError, TransientError
from connectors.sdk.run import Message
from daemon.bus.messages import Builder
from daemon.jobs import dryrun, glance
from daemon.jobs.asked import JobRefusedError, NoSuchJobError, accepted_config
from daemon.jobs.opening import OpenedAuth
from daemon.store import memberships, profiles
from daemon.store.memberships import Membership
from daemon.web import body
from daemon.web.body import ApiError
from daemon.web.envelope import endpoint
from daemon.web.services import SERVICES, Services
from streams.trigger import TriggerRow


class Dryrun(BaseModel):
    """A job that might be created."""

    model_config = ConfigDict(extra="ignore")

    config: dict[str, Any] = Field(default_factory=dict)
    auth_id: str | None = None


BODY = {"application/json": Dryrun}


def routes() -> list[web.RouteDef]:
    """Gives the routes of this module."""
    return [web.post("/v2/job/{job_type}/dryrun", dry_run)]


@endpoint("admin", tag="jobs", body=BODY, query={"send": "1: send the one message that is shown, once"})
async def dry_run(request: web.Request) -> object:
    """Shows what a job of this configuration would send or import, with real data as the example; sends nothing.

    Of an import, and of an export of members or events, `rows` has the first rows. Of what sends messages, `message`
    is one of them; with `send=1` it is sent by the job type's own code, and the destination's answer shown. No job is
    made, nothing is counted or retried, and no subscription moves.
    """
    services = request.app[SERVICES]
    given = Dryrun.model_validate(await body.json_object(request))
    sending = request.query.get("send", "") in ("1", "true")
    try:
        kind = services.jobs.job_type(request.match_info["job_type"])
        accepted = accepted_config(kind, given.config)
        await services.jobs.check_authorization(kind, given.auth_id)
    except NoSuchJobError as error:
        raise ApiError(404, str(error)) from error
    except JobRefusedError as error:
        raise ApiError(422, str(error), errors=list(error.errors)) from error
    if not isinstance(accepted, TriggerExport):
        if sending:
            raise ApiError(422, f"send: {kind.slug} sends no messages; leave it out to see its first rows")
        return await _rows(services, kind, accepted, given.auth_id)
    message, counts = await _example(services, accepted)
    told: dict[str, Any] = {
        "job_type": kind.slug,
        "members": counts,
        "existing_users": accepted.existing_users,
        "would_send_now": sum(counts.values()) if accepted.existing_users and accepted.events != "exits" else 0,
        "message": None if message is None else orjson.loads(message.body),
        "sent": None,
    }
    if not sending:
        return told
    if message is None:
        raise ApiError(409, f"nobody is in {', '.join(accepted.audiences)}: there is nothing to send as a sample")
    opened = await _opened(services, given.auth_id)
    sample = await dryrun.send(kind, accepted, opened, message, services.settings)
    told["sent"] = {
        "outcome": sample.outcome,
        "to": sample.attempt.to,
        "status": sample.attempt.status,
        "bytes": sample.attempt.bytes,
        "answer": sample.error or sample.attempt.answer,
    }
    return told


async def _opened(services: Services, auth_id: str | None) -> OpenedAuth | None:
    if auth_id is None:
        return None
    try:
        return await services.authorizations.opened(auth_id)
    except (ConfigError, TransientError) as error:
        raise ApiError(409, str(error)) from error


async def _rows(services: Services, kind: JobType[Any], config: Config, auth_id: str | None) -> dict[str, Any]:
    """Gives the first rows of a job that sends no messages."""
    if isinstance(kind, SystemJob):
        raise ApiError(422, f"{kind.slug} has no dry run: what it tells has not happened yet")
    opened = await _opened(services, auth_id)
    found = await glance.look(kind, config, opened, services.job_data, services.settings)
    if found.error and isinstance(config, AudienceExport):
        raise ApiError(422, found.error, errors=[{"loc": ["config", "audiences"], "msg": found.error}])
    return {
        "job_type": kind.slug,
        "rows": found.rows,
        "refused": [{"line": each.place, "msg": each.reason} for each in found.refused],
        "error": found.error or None,
    }


async def _example(services: Services, config: TriggerExport) -> tuple[Message | None, dict[str, int]]:
    """Gives the message of one member of the audiences, and how many members each has."""
    definitions = services.pipeline.definitions
    found = {slug: definitions.audience(slug) for slug in config.audiences}
    unknown = [slug for slug, audience in found.items() if audience is None]
    if unknown:
        place = ["config", "audiences", config.audiences.index(unknown[0])]
        words = f"there is no audience {unknown[0]!r}"
        raise ApiError(422, f"config.audiences: {words}", errors=[{"loc": place, "msg": words}])
    numbers = {audience.number: audience.slug for audience in found.values() if audience is not None}

    def read(db: Any) -> tuple[dict[int, int], int | None, list[Membership], str | None]:
        sizes = memberships.sizes(db)
        first = next((ids[0] for number in numbers if (ids := memberships.members(db, number, 0, 1))), None)
        if first is None:
            return sizes, None, [], None
        mine = [each for each in memberships.of_profile(db, first) if each.member and each.audience in numbers]
        return sizes, first, mine, profiles.read(db, first)

    sizes, profile_id, mine, text = await services.state.read(read)
    counts = {slug: sizes.get(number, 0) for number, slug in numbers.items()}
    if profile_id is None or text is None:
        return None, counts
    kind = "exit" if config.events == "exits" else "enter"
    rows = [_row(profile_id, each, kind) for each in sorted(mine, key=lambda each: each.trigger_id)]
    builder = Builder(lambda: services.pipeline.definitions, "dryrun", config.user_fields)
    return builder.build(rows, text, backfill=kind == "enter"), counts


def _row(profile_id: int, of: Membership, kind: str) -> TriggerRow:
    return TriggerRow(
        id=of.trigger_id,
        commit_id=of.trigger_id,
        profile_id=profile_id,
        audience=of.audience,
        kind=kind,
        sequence=of.sequence,
        at_us=of.changed_us,
        entered_us=of.entered_us,
        until_us=None,
        cause="event",
    )
