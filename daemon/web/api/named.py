"""Definitions by the names in a path; a name that there is none of is refused with the one that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.ingest.definitions import Audience, Definitions, StoredQuery
from daemon.web.body import ApiError
from streams.ql.checker import nearest


def audience_named(definitions: Definitions, name: str) -> Audience:
    """Gives the audience with a slug, id or name; refuses (404) what is none."""
    found = definitions.audience(name)
    if found is None:
        slugs = [each.slug for each in definitions.audiences.values()]
        raise ApiError(404, f"there is no audience {name[:200]!r}; {meant(name, slugs)}GET /api/segment lists them")
    return found


def query_named(definitions: Definitions, alias: str) -> StoredQuery:
    """Gives the query with an alias; refuses (404) what is none."""
    queries = definitions.queries
    found = queries.get(alias) or queries.get(alias.lower())
    if found is None:
        raise ApiError(404, f"there is no query {alias[:200]!r}; {meant(alias, queries)}GET /api/query lists them")
    return found


def meant(name: str, names: Iterable[str]) -> str:
    """Gives a question for the name that was probably meant, with a blank behind it; else nothing."""
    hint = nearest(name, names)
    return f"{hint} " if hint else ""
