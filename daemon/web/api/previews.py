"""What a change would do before it is saved: who would enter and exit, and which jobs would send it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from aiohttp import web

from daemon import clock
from daemon.ingest.event_preview import FieldPreview, QueryPreview, preview_events
from daemon.ingest.preview import Moves, Preview, Sample, preview
from daemon.ingest.proposal import Proposed, WantedFilter, propose
from daemon.ingest.query_commands import QueryChange
from daemon.model.subscription import Events
from daemon.store import schema_versions as versions
from daemon.store.listeners import Listener, listeners
from daemon.web import body
from daemon.web.api.named import audience_named
from daemon.web.api.proposals import PROPOSAL, Asked, Teller, accepted, proposal_object, proposed, read
from daemon.web.api.queries import TEXT
from daemon.web.api.shapes import MOVES, PREVIEW, PROPOSAL_DIFF, WORDS, a_list, extended
from daemon.web.body import ApiError
from daemon.web.envelope import endpoint
from daemon.web.services import SERVICES, Services

#: Last events of a stream that are mapped at most.
MOST_EVENTS: Final = 1000
_KEYS: Final[dict[str, Any]] = {
    **PROPOSAL,
    "audiences": {"type": "array", "items": {"type": "string"}, "description": "slugs to look at besides"},
    "events": {"type": "integer", "maximum": MOST_EVENTS, "description": "map so many last events, too"},
}
#: States in which a job sends nothing until it is resumed.
_HELD: Final = frozenset({"paused", "failed"})


def routes() -> list[web.RouteDef]:
    """Gives the routes of previews."""
    return [
        web.get("/v2/segment/{slug}/preview", preview_audience),
        web.post("/v2/segment/{slug}/preview", preview_audience),
        web.post("/api/query/_preview", preview_query),
    ]


@endpoint("read", tag="definitions", body=TEXT, reply=extended(PREVIEW, slug=WORDS, **MOVES["properties"]))
async def preview_audience(request: web.Request) -> object:
    """Says who would enter and exit if the audience had the filter of the body, and which jobs would send it.

    Without a body: with the filter that it has, which is who would move if all were evaluated now. Audiences that
    include it move as well and are in `audiences`, after it. Counts are exact as of the moment when each profile was
    looked at; `sample_enters` and `sample_exits` name some by id and keys. Of a job, `enters` and `exits` are what it
    would send; a paused or failed one sends them once it is resumed.
    """
    services = request.app[SERVICES]
    definitions = services.pipeline.definitions
    audience = audience_named(definitions, request.match_info["slug"])
    text = await body.text(request) if request.method == "POST" else ""
    filters = [WantedFilter(text, audience.slug)] if text.strip() else []
    if not filters and audience.compiled is None:
        raise ApiError(422, f"audience {audience.slug} is not valid any more: {audience.invalid}")
    made = await propose(definitions, QueryChange(), filters, clock.now_us())
    found, heard = await _previewed(services, made, [audience.number])
    told = _moves(made, found, heard, first=audience.number)
    own = told["audiences"][0]
    return {**{name: own[name] for name in own if name not in ("id", "name")}, **told}


@endpoint(
    "read",
    tag="definitions",
    body=accepted(_KEYS),
    query={
        "delete": "alias of a query to delete; may be repeated",
        "audience": "slug of an audience to look at besides those whose fields change; may be repeated",
        "events": f"also map so many last events of each stream, before and after; at most {MOST_EVENTS}",
    },
    reply=extended(PREVIEW, schema=PROPOSAL_DIFF, events=a_list({"type": "object"})),
)
async def preview_query(request: web.Request) -> object:
    """Says what queries (and filters) would do if they were saved now: to fields, to audiences, to jobs, to events.

    The body is LQL, or a JSON object: `query` or `queries` to store, `delete`, `filters`, `audiences`, `events`.
    `schema` is what `POST /v2/schema/{table}/diff` says. `audiences` are those that read a field that changes, those
    whose filter does, and those asked for: profiles keep their values and are not mapped again, so members move by
    fields that are hidden, come back, or begin anew. `events` shows what the last events of a stream give, and would.
    """
    services = request.app[SERVICES]
    definitions = services.pipeline.definitions
    asked = await read(request, _KEYS)
    if not (asked.change.put or asked.change.delete or asked.filters):
        raise ApiError(422, f"nothing is proposed; expected LQL, or a JSON object with {', '.join(PROPOSAL)}")
    chosen = [audience_named(definitions, slug).number for slug in _chosen(request, asked)]
    events = _events(request, asked)
    made = await proposed(asked, definitions)
    found, heard = await _previewed(services, made, chosen)
    newest = await services.state.read(versions.newest)
    told: dict[str, Any] = {"schema": {"from": newest, "to": None} | await proposal_object(made, heard)}
    told |= _moves(made, found, heard)
    if events:
        queries = await preview_events(services.events, made, events)
        told["events"] = [_query_object(each) for each in queries]
    return told


async def _previewed(services: Services, made: Proposed, chosen: Iterable[int]) -> tuple[Preview, Sequence[Listener]]:
    numbers = {*made.touched, *made.filters, *chosen}
    found = await preview(services.state, made.after, numbers, made.before.audiences.keys(), clock.now())
    return found, await services.state.read(listeners)


def _moves(made: Proposed, found: Preview, heard: Sequence[Listener], first: int | None = None) -> dict[str, Any]:
    """Gives what the audiences would do, the `first` before the others, and the jobs that would hear of it."""
    teller = Teller(made.before, made.after, heard)
    numbers = sorted(found.audiences, key=lambda number: (number != first, number))
    audiences = [teller.audience(number) | _moves_object(found.audiences[number]) for number in numbers]
    jobs = []
    for each in heard:
        if each.audiences & found.audiences.keys():
            sent = [found.audiences[number] for number in each.audiences & found.audiences.keys()]
            jobs.append(teller.job(each, frozenset(found.audiences)) | _sends(each, sent))
    return {"profiles": found.profiles, "audiences": audiences, "jobs": jobs}


def _moves_object(moves: Moves) -> dict[str, Any]:
    return {
        "members": moves.members,
        "size": moves.size,
        "enters": moves.enters,
        "exits": moves.exits,
        "sample_enters": _sample(moves.sample_enters),
        "sample_exits": _sample(moves.sample_exits),
    }


def _sample(sample: Sample) -> list[dict[str, Any]]:
    return [{"id": str(profile_id), "keys": keys} for profile_id, keys in sample.profiles]


def _sends(listener: Listener, moves: Sequence[Moves]) -> dict[str, Any]:
    enters = sum(each.enters for each in moves) if listener.events is not Events.EXITS else 0
    exits = sum(each.exits for each in moves) if listener.events is not Events.ENTERS else 0
    return {"enters": enters, "exits": exits, "sends": "when resumed" if listener.state in _HELD else "at once"}


def _query_object(found: QueryPreview) -> dict[str, Any]:
    return {
        "query": found.alias,
        "streams": list(found.streams),
        "events": found.events,
        "mapped_before": found.mapped_before,
        "mapped_after": found.mapped_after,
        "differing": found.differing,
        "fields": [_field_object(name, each) for name, each in found.fields.items()],
    }


def _field_object(name: str, found: FieldPreview) -> dict[str, Any]:
    return {
        "name": name,
        "new": found.new,
        "modified": found.modified,
        "deleted": found.deleted,
        "unmodified": found.unmodified,
        "sample": [
            {
                "lane": each.event.lane,
                "position": each.event.position,
                "time": clock.from_us(each.event.event_us),
                "before": each.before,
                "after": each.after,
            }
            for each in found.sample
        ],
    }


def _chosen(request: web.Request, asked: Asked) -> list[str]:
    given = asked.rest.get("audiences") or []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ApiError(400, "audiences must be a list of slugs")
    return [*given, *request.query.getall("audience", ())]


def _events(request: web.Request, asked: Asked) -> int:
    given = asked.rest.get("events")
    text = request.query.get("events")
    if text is not None and text.isascii() and text.isdecimal() and len(text) < 10:
        given = int(text)
    elif text is not None:
        given = text
    if given is None:
        return 0
    if type(given) is not int or not 0 <= given <= MOST_EVENTS:
        raise ApiError(400, f"events: {str(given)[:100]!r} is not a whole number from 0 to {MOST_EVENTS}")
    return given
