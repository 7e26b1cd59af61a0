"""`/api/entity`: profiles by any identity."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple
from urllib.parse import quote

from aiohttp import web

from daemon import clock
from daemon.ingest.definitions import Audience, Definitions
from daemon.store import erasures, memberships, profiles
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, endpoint
from daemon.web.services import SERVICES
from daemon.web.stitches import stitches_of
from streams.fragments import CONFLICTS
from streams.profile import Profile, load
from streams.profile_view import output
from streams.schema import Schema
from streams.tombstones import Tombstones

TABLE = "user"
QUERY = {
    "fields": "comma-separated names; default: all",
    "segments": "true: add `segments`, the slugs of the audiences that the profile is in",
    "meta": "true: add how it was found",
    "explain": "true: add keys, fragments, links between them, refused keys with their events, each field's queries",
}


class Found(NamedTuple):
    """A profile as read, with its memberships."""

    profile: Profile
    memberships: list[memberships.Membership]
    stored: str


def routes() -> list[web.RouteDef]:
    """Gives the routes of profiles."""
    return [
        web.get("/api/entity/{table}/{value}", get_by_any),
        web.get("/api/entity/{table}/{field}/{value}", get_profile),
    ]


@endpoint("read", tag="profiles", query=QUERY)
async def get_profile(request: web.Request) -> object:
    """Gives the profile that an identity names; 404 when there is none."""
    name, value = request.match_info["field"], request.match_info["value"]
    field = identity_of(request, name)
    return await _reply(request, await found_profile(request, [(field, value)]), field)


@endpoint("read", tag="profiles", query=QUERY)
async def get_by_any(request: web.Request) -> object:
    """Gives the profile that has the value in any of its identities; the strongest identity is tried first."""
    value = request.match_info["value"]
    schema = _schema(request)
    keys = [(field.name, value) for field in schema.identities]
    return await _reply(request, await found_profile(request, keys), None)


def _schema(request: web.Request) -> Schema:
    table = request.match_info.get("table", TABLE)
    if table != TABLE:
        raise ApiError(404, f"there is no table {table[:200]!r}; profiles are in {TABLE!r}")
    return request.app[SERVICES].pipeline.definitions.schema


def identity_of(request: web.Request, name: str) -> str:
    """Gives the identity that a path names, whatever its case; refuses (404) what is none, or of no such table."""
    identities = [field.name for field in _schema(request).identities]
    for each in identities:
        if each == name or each.lower() == name.lower():
            return each
    known = ", ".join(identities) or "none yet: no query has been made"
    raise ApiError(404, f"{name[:200]!r} is no identity; identities are {known}")


async def found_profile(request: web.Request, keys: list[tuple[str, str]]) -> Found:
    """Gives the profile that owns the first of these keys that anybody owns; refuses (404) when nobody does."""
    # What a query makes of a value (an e-mail address in lower case) is what profiles are found by.
    tried = [*keys, *((field, value.lower()) for field, value in keys if value != value.lower())]

    def fetch(db: sqlite3.Connection) -> tuple[int, str, list[memberships.Membership]] | str:
        for field, value in tried:
            profile_id = profiles.find(db, field, value)
            text = None if profile_id is None else profiles.read(db, profile_id)
            if profile_id is not None and text is not None:
                return profile_id, text, memberships.of_profile(db, profile_id)
        return _why_nobody(db, tried)

    services = request.app[SERVICES]
    row = await services.state.read(fetch)
    if isinstance(row, str):
        named = " or ".join(f"{field} = {value[:200]!r}" for field, value in keys) or "this value"
        raise ApiError(404, f"there is no profile with {named}{row}")
    schema = services.pipeline.definitions.schema
    profile = load(schema, row[0], row[1])
    profile.expire(schema, clock.now_us())
    return Found(profile, row[2], row[1])


def _why_nobody(db: sqlite3.Connection, keys: list[tuple[str, str]]) -> str:
    """Says that the person was erased and is kept out, where that is so; else nothing."""
    hashed = Tombstones(erasures.salt(db))
    for key in keys:
        numbers, _ = erasures.buried_with(db, [hashed.hash(key)])
        erasure = erasures.one(db, numbers[0]) if numbers else None
        if erasure is not None:
            day = clock.from_us(erasure.accepted_us).date()
            return (
                f": the person was erased on {day} (erasure {erasure.id}), and is kept out until "
                "`cohortd profile admit` lets them in"
            )
    return ""


async def _reply(request: web.Request, found: Found, field: str | None) -> Reply:
    definitions = request.app[SERVICES].pipeline.definitions
    asked = request.query.get("fields")
    names = [name.strip() for name in asked.split(",") if name.strip()] if asked else None
    data = output(found.profile, definitions.schema, names, stored=found.stored)
    slugs = sorted(
        audience.slug for each in found.memberships if each.member and (audience := _of(definitions, each)) is not None
    )
    if names is None or "_segments" in names:
        data["_segments"] = slugs
    extra: dict[str, Any] = {}
    if _wants(request, "segments") or _wants(request, "allsegments"):
        data["segments"] = slugs
    if _wants(request, "meta"):
        by = [field] if field is not None else [each.name for each in definitions.schema.identities]
        extra["meta"] = {"format": "json", "name": TABLE, "by_fields": by}
    if _wants(request, "explain"):
        stitches = await stitches_of(request.app[SERVICES], found.profile)
        extra["explain"] = _explained(found, definitions.schema) | {"fields": _made(found, definitions)} | stitches
    return Reply(data, extra=extra)


def _of(definitions: Any, membership: memberships.Membership) -> Audience | None:
    found: Audience | None = definitions.audiences.get(membership.audience)
    return found


def _wants(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("true", "1", "t", "yes")


def _made(found: Found, definitions: Definitions) -> dict[str, Any]:
    """Gives for each field that is shown the queries that feed it, by version, and where its events are told."""
    profile, schema = found.profile, definitions.schema
    if not profile.keys:
        return {}
    name, texts = next(iter(profile.keys.items()))
    path = f"/v2/entity/{TABLE}/{quote(name, safe='')}/{quote(texts[0], safe='')}/explain-field/"
    versions = {alias: each.row.version for alias, each in definitions.queries.items()}
    return {
        field: {
            "queries": {alias: versions[alias] for alias in schema.fields[field].queries if alias in versions},
            "events": path + quote(field, safe=""),
        }
        for field in profile.values
        if field in schema.fields
    }


def _explained(found: Found, schema: Schema) -> dict[str, Any]:
    """Gives how a profile hangs together: its keys, each home fragment's own part, and the links with their events."""
    profile = found.profile
    links = profile.edges or []
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    if profile.home is not None and profile.parts is None:
        parts[profile.home] = output(profile, schema, meta=False)
    for home, (fields, meta) in (profile.parts or {}).items():
        own = Profile(profile.id, fields=fields, keys={}, meta=meta)
        for key, state in fields.items():
            slot = schema.by_key.get(key)
            if slot is not None:
                own.values[slot.name] = slot.render(state)
        parts[home] = output(own, schema, meta=False)
    fragments = []
    for name, texts in profile.keys.items():
        for text in texts:
            neighbours = [list(link[2:4]) for link in links if link[:2] == [name, text]]
            neighbours += [list(link[:2]) for link in links if link[2:4] == [name, text]]
            fragments.append({"key": [name, text], "neighbors": neighbours, "fragment": parts.get((name, text), {})})
    return {
        "entity": str(profile.id),
        "keys": profile.keys,
        "fragments": fragments,
        "links": [{"from": link[:2], "to": link[2:4], "lane": link[4], "position": link[5]} for link in links],
        "conflicts": profile.meta[CONFLICTS],
    }
