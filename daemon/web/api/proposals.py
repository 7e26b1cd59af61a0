"""What is asked before it is saved, and how the difference that it makes is told: for `schemas` and `previews`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from daemon import clock
from daemon.ingest.definitions import Audience, Definitions
from daemon.ingest.proposal import Proposed, WantedFilter, document_of, propose
from daemon.ingest.query_commands import QueryChange
from daemon.ingest.readers import Reader, Readers, filter_includes, filter_reads, merged
from daemon.store.listeners import Listener
from daemon.web import body
from daemon.web.body import ApiError
from streams.profile_view import fields_read
from streams.ql.parser import parse_queries
from streams.ql.printer import print_filter, print_query
from streams.schema import Schema
from streams.schema_diff import Difference, SchemaDiff, compare, difference

_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
CHANGE: Final = {
    "query": {"type": "string", "description": "LQL, one statement or several"},
    "queries": {**_TEXTS, "description": "LQL, a text a query"},
    "delete": {**_TEXTS, "description": "aliases of queries to delete"},
}
PROPOSAL: Final[dict[str, Any]] = {
    **CHANGE,
    "filters": {**_TEXTS, "description": "FilterQL, a text an audience, known by its ALIAS"},
}
LQL: Final = {"text/plain": {"type": "string", "description": "LQL"}}


def accepted(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the bodies of an endpoint that takes LQL, or a JSON object with these keys."""
    return {**LQL, "application/json": {"type": "object", "properties": dict(properties)}}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request proposes; `rest` has the other keys of its JSON object. `listed`: it gave queries as a list."""

    change: QueryChange = field(default_factory=QueryChange)
    filters: tuple[WantedFilter, ...] = ()
    listed: bool = False
    rest: Mapping[str, Any] = field(default_factory=dict)


async def read(request: web.Request, keys: Iterable[str]) -> Asked:
    """Reads a body of LQL, or of a JSON object with some of `keys`; `?delete=` names queries to delete as well."""
    deleted = tuple(request.query.getall("delete", ()))
    content = await body.read(request)
    if not content.lstrip().startswith(b"{"):  # LQL, whatever the content type says
        return Asked(QueryChange(_statements(_decoded(content)), deleted))
    try:
        row = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is neither LQL nor JSON: {error}") from error
    unknown = set(row) - set(keys)
    if unknown:
        raise ApiError(400, f"unknown key {min(unknown)!r}; accepted are {', '.join(sorted(keys))}")
    texts = [*_statements(_text(row, "query")), *(each for text in _list(row, "queries") for each in _statements(text))]
    filters = tuple(WantedFilter(text) for text in _list(row, "filters"))
    known = {*PROPOSAL, "description"}
    change = QueryChange(tuple(texts), (*deleted, *_list(row, "delete")), _text(row, "description"))
    rest = {name: value for name, value in row.items() if name not in known}
    return Asked(change, filters, listed="queries" in row, rest=rest)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8 text: byte {error.start}") from error


def _statements(text: str) -> list[str]:
    """Gives the statements of a text, each as written where there is one alone."""
    if not text.strip():
        return []
    statements = parse_queries(text)
    return [text] if len(statements) == 1 else [print_query(each) for each in statements]


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ApiError(400, f"{name} must be text")
    return value


def _list(row: Mapping[str, Any], name: str) -> list[str]:
    value = row.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ApiError(400, f"{name} must be a list of texts")
    return value


async def proposed(asked: Asked, definitions: Definitions) -> Proposed:
    """Works out what is asked against a snapshot."""
    return await propose(definitions, asked.change, asked.filters, clock.now_us())


# --- how it is told


class Teller:
    """Tells differences with who reads what: audiences by their readers, jobs by the audiences that they send."""

    def __init__(self, before: Definitions, after: Definitions, listeners: Sequence[Listener]) -> None:
        self._before = before
        self._after = after
        self._listeners = listeners
        self._readers_before = Readers(before)
        self._readers_after = Readers(after) if after is not before else self._readers_before
        self._audiences = {**before.audiences, **after.audiences}

    def schema(self, diff: SchemaDiff, before: Schema, after: Schema, *, whole: bool = False) -> dict[str, Any]:
        """Gives a difference of schemas; items that are unmodified only when it is to be `whole`."""
        fields = [each for each in diff.fields if whole or each.status != "unmodified"]
        names = [each.name for each in fields]
        readers = merged(self._readers_before.of(before, names), self._readers_after.of(after, names))
        statuses = [each.status for each in diff.fields]
        told = []
        for each in fields:
            item = _item(each.item) | {"status": each.status, "values": each.values}
            item["mappings"] = [
                _item(one) | {"query": one.name}
                for one in each.mappings
                if whole or one.status != "unmodified" or each.status in ("new", "deleted")
            ]
            item["audiences"] = [self._reader(one) for one in readers[each.name]]
            item["jobs"] = self.jobs({one.number for one in readers[each.name]})
            told.append(item)
        reading = {one.number for name in diff.changed for one in readers[name]}
        return {
            "summary": {status: statuses.count(status) for status in ("new", "modified", "deleted", "unmodified")},
            "fields": told,
            "queries": [
                _item(one) | {"alias": one.name} for one in diff.queries if whole or one.status != "unmodified"
            ],
            "audiences": [self.audience(number) for number in sorted(reading)],
            "jobs": self.jobs(reading),
        }

    def filters(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        """Gives the differences of filters: text, what they read and include, and who includes and sends them."""
        told = []
        for number in numbers:
            old, new = self._before.audiences.get(number), self._after.audiences[number]
            item = difference(new.slug, self._filter(old, self._before), self._filter(new, self._after))
            including = self._readers_after.including(number)
            told.append(
                _item(item)
                | {
                    "slug": new.slug,
                    "unknown_fields": self._unknown(new),
                    "included_by": [self._audiences[each].slug for each in including],
                    "jobs": self.jobs({number, *including}),
                }
            )
        return told

    def _filter(self, audience: Audience | None, definitions: Definitions) -> dict[str, Any] | None:
        if audience is None or audience.filter is None:
            return None
        return {
            "text": print_filter(audience.filter),
            "fields": sorted(fields_read(definitions.schema, filter_reads(audience))),
            "includes": filter_includes(audience),
        }

    def _unknown(self, audience: Audience) -> list[str]:
        schema = self._after.schema
        return sorted(name for name in filter_reads(audience) if not fields_read(schema, [name]))

    def _reader(self, reader: Reader) -> dict[str, Any]:
        return self.audience(reader.number) | {"via": list(reader.via)}

    def audience(self, number: int) -> dict[str, Any]:
        """Gives what an audience is known by."""
        found = self._audiences[number]
        return {"id": found.id, "slug": found.slug, "name": found.row.name}

    def jobs(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        """Gives the jobs that send any of these audiences."""
        wanted = frozenset(numbers)
        return [self.job(each, wanted) for each in self._listeners if each.audiences & wanted]

    def job(self, listener: Listener, numbers: frozenset[int]) -> dict[str, Any]:
        """Gives a job with those of the audiences that it sends."""
        sent = sorted(listener.audiences & numbers & self._audiences.keys())
        return {
            "id": listener.job,
            "label": listener.label,
            "job_type": listener.job_type,
            "state": listener.state,
            "events": listener.events.value,
            "audiences": [self._audiences[number].slug for number in sent],
        }


def _item(item: Difference) -> dict[str, Any]:
    return {
        "name": item.name,
        "status": item.status,
        "changes": [{"property": each.property, "before": each.before, "after": each.after} for each in item.changes],
        "before": item.before,
        "after": item.after,
    }


async def proposal_object(asked: Proposed, listeners: Sequence[Listener]) -> dict[str, Any]:
    """Gives the difference that a proposal makes: of the schema, and of each filter in it."""
    diff = compare(await document_of(asked.before), await document_of(asked.after))
    teller = Teller(asked.before, asked.after, listeners)
    told = teller.schema(diff, asked.before.schema, asked.after.schema)
    return told | {"filters": teller.filters(asked.filters)}
