"""`/v2/schema`: the fields that profiles have, the versions of that, and what differs between two or would."""

from __future__ import annotations

from functools import partial
from typing import Any

from aiohttp import web

from daemon import clock
from daemon.ingest.definitions import Definitions, StoredQuery
from daemon.ingest.proposal import document_of, document_of_rows
from daemon.store import schema_versions as versions
from daemon.store.listeners import listeners
from daemon.store.schema_versions import SchemaVersion
from daemon.web import body
from daemon.web.api.proposals import PROPOSAL, Teller, accepted, proposal_object, proposed, read
from daemon.web.api.shapes import PROPOSAL_DIFF, SCHEMA, SCHEMA_DIFF, VERSION, WORDS, a_list, an_object, extended
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, cursor, endpoint, limit_of, start_of
from daemon.web.services import SERVICES, Services
from streams.profile_view import META_NAMES, SHOWN_META_NAMES
from streams.schema_diff import Document, compare

TABLE = "user"
#: Above every version.
_NEWEST = 1 << 62


def routes() -> list[web.RouteDef]:
    """Gives the routes of the schema."""
    return [
        web.get("/v2/schema/{table}", get_schema),
        web.get("/v2/schema/{table}/version", list_versions),
        web.get("/v2/schema/{table}/version/{version}", get_version),
        web.post("/v2/schema/{table}/version/{version}/revert", revert),
        web.get("/v2/schema/{table}/diff", diff_versions),
        web.post("/v2/schema/{table}/diff", diff_proposal),
    ]


@endpoint("read", tag="definitions", reply=SCHEMA)
async def get_schema(request: web.Request) -> object:
    """Gives the schema that holds, with its version: fields, kinds, merge operators, identities with ranks.

    `mappings` of a field are the queries that feed it: the stream, the expression and its guard.
    """
    services = _services(request)
    newest = await services.state.read(partial(versions.page, below=_NEWEST, limit=1))
    definitions = services.pipeline.definitions
    about = _about(newest[0]) if newest else {"version": 0, "cause": None, "at": None, "description": ""}
    return about | schema_object(await document_of(definitions))


@endpoint(
    "read",
    tag="definitions",
    query={"start": "what the last reply gave as _next", "limit": "versions a page, at most 1,000"},
    reply=a_list(VERSION),
)
async def list_versions(request: web.Request) -> object:
    """Lists the versions of the schema, the newest first: when and by what each came to be.

    Every change of queries makes one: `stored` and `deleted` are the queries that it changed.
    """
    services = _services(request)
    start, limit = start_of(request), limit_of(request)
    if start is not None and type(start) is not int:
        raise ApiError(400, "start is not what a reply gave as _next")
    below = _NEWEST if start is None else start
    found = await services.state.read(lambda db: (versions.page(db, below, limit), versions.newest(db)))
    page, total = found
    more = bool(page) and page[-1].number > 1
    return Reply([_about(each) for each in page], total=total, next_cursor=cursor(page[-1].number) if more else None)


@endpoint("read", tag="definitions", reply=extended(SCHEMA, query_texts=a_list({"type": "object"})))
async def get_version(request: web.Request) -> object:
    """Gives a version of the schema whole, as it was, with the text of each query."""
    services = _services(request)
    number = _number(request.match_info["version"], "version")
    document, queries = await _document(services, number)
    found = await services.state.read(partial(versions.page, below=number + 1, limit=1))
    about = _about(found[0]) if found else {"version": 0, "cause": None, "at": None, "description": ""}
    texts = [
        {
            "alias": each.row.alias,
            "version": each.row.version,
            "text": each.row.text,
            "created": clock.from_us(each.row.created_us),
            "updated": clock.from_us(each.row.updated_us),
            "invalid_reason": each.invalid,
        }
        for each in queries
    ]
    return about | schema_object(document) | {"query_texts": texts}


@endpoint(
    "read",
    tag="definitions",
    query={
        "from": "a version; default: the one before `to`. 0 is the schema before the first query",
        "to": "a version; default: the one that holds",
        "unmodified": "true: list what does not differ, too",
    },
    reply=SCHEMA_DIFF,
)
async def diff_versions(request: web.Request) -> object:
    """Says what differs between two versions of the schema, property by property.

    Fields and queries are `new`, `modified` or `deleted`; each field comes with the audiences that read it now, also
    through what they include (`via`), and the jobs that send those audiences.
    """
    services = _services(request)
    newest = await services.state.read(versions.newest)
    to = _number(request.query.get("to", str(newest)), "to")
    origin = _number(request.query.get("from", str(max(0, to - 1))), "from")
    before, _ = await _document(services, origin)
    after, _ = await _document(services, to)
    found = await services.state.read(listeners)
    definitions = services.pipeline.definitions
    teller = Teller(definitions, definitions, found)
    whole = request.query.get("unmodified") == "true"
    told = teller.schema(compare(before, after), before.schema, after.schema, whole=whole)
    return {"from": origin, "to": to} | told


@endpoint(
    "read",
    tag="definitions",
    body=accepted(PROPOSAL),
    query={"delete": "alias of a query to delete; may be repeated"},
    reply=PROPOSAL_DIFF,
)
async def diff_proposal(request: web.Request) -> object:
    """Says what queries and filters would change if they were saved, and changes nothing.

    The body is LQL, or a JSON object: `query` or `queries` to store, `delete` (aliases), `filters` (FilterQL with its
    ALIAS). What would be refused is refused here. `values` of a field: they are `kept`; there are none yet (`empty`);
    they are `hidden` until the field comes back; or the field begins anew with the next event (`begun_anew`).
    """
    services = _services(request)
    asked = await read(request, PROPOSAL)
    if not (asked.change.put or asked.change.delete or asked.filters):
        raise ApiError(422, f"nothing is proposed; expected LQL, or a JSON object with {', '.join(PROPOSAL)}")
    made = await proposed(asked, services.pipeline.definitions)
    found = await services.state.read(lambda db: (versions.newest(db), listeners(db)))
    return {"from": found[0], "to": None} | await proposal_object(made, found[1])


@endpoint(
    "admin",
    tag="definitions",
    body={"application/json": an_object(description=WORDS)},
    reply=extended(SCHEMA, changed={"type": "boolean"}),
)
async def revert(request: web.Request) -> object:
    """Makes the queries those of an earlier version again; that is a new version.

    Profiles keep what they have. Events from now on are mapped as then, and audiences whose fields changed are
    evaluated again in the background. With the queries of that version already in place, nothing happens.
    """
    services = _services(request)
    number = _number(request.match_info["version"], "version")
    row = await body.json_object(request) if request.can_read_body else {}
    description = row.get("description", "")
    if set(row) - {"description"} or not isinstance(description, str):
        raise ApiError(400, "the body is a JSON object with description (text), or empty")
    changed = await services.pipeline.revert_schema(number, description)
    newest = await services.state.read(partial(versions.page, below=_NEWEST, limit=1))
    message = "success" if changed else f"the queries are those of version {number} already"
    told = schema_object(await document_of(services.pipeline.definitions))
    return Reply((_about(newest[0]) if newest else {"version": 0}) | {"changed": changed} | told, message=message)


# --- parts of the above


def schema_object(document: Document) -> dict[str, Any]:
    """Gives a schema as clients see it."""
    return {
        "table": TABLE,
        "fields": [
            {
                "name": name,
                **properties,
                "mappings": [{"query": alias, **each} for alias, each in document.mappings[name].items()],
            }
            for name, properties in document.fields.items()
        ],
        "identities": [
            {"field": each.name, "rank": each.rank, "single": each.single} for each in document.schema.identities
        ],
        "meta_fields": [*META_NAMES, *SHOWN_META_NAMES],
        "queries": list(document.queries),
    }


def _about(version: SchemaVersion) -> dict[str, Any]:
    return {
        "version": version.number,
        "at": clock.from_us(version.at_us),
        "cause": version.cause,
        "description": version.description,
        "stored": list(version.stored),
        "deleted": list(version.deleted),
        "reverted_to": version.reverted_to,
        "decision": version.sequence,
    }


def _services(request: web.Request) -> Services:
    table = request.match_info["table"]
    if table != TABLE:
        raise ApiError(404, f"there is no table {table[:200]!r}; profiles are in {TABLE!r}")
    return request.app[SERVICES]


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 18):
        raise ApiError(
            400, f"{name}: {text[:100]!r} is not the number of a version; /v2/schema/{TABLE}/version lists them"
        )
    return int(text)


async def _document(services: Services, number: int) -> tuple[Document, list[StoredQuery]]:
    rows = await services.state.read(partial(versions.queries_of, number=number))
    if rows is None:
        raise ApiError(404, f"there is no version {number} of the schema; /v2/schema/{TABLE}/version lists them")
    definitions: Definitions = services.pipeline.definitions
    return await document_of_rows(rows, definitions)
