"""What `cohortd query test` does with a line (API.md): events through LQL, and the profiles that come of them.

The same mapping, identity and merging as in the daemon. A row never raises: what is refused is the row's `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import count
from typing import Any, Final, NamedTuple

from streams.event import RefusedError, Rules, event_id, event_time
from streams.identity import resolve
from streams.mapping import Key, Mapper
from streams.merge import microseconds
from streams.profile import Profile, new
from streams.profile_view import output
from streams.ql.coerce import to_date
from streams.ql.errors import QueryError
from streams.ql.nodes import Query
from streams.ql.reading import read_queries
from streams.schema import Schema, build_schema

_LONGEST_ERROR: Final = 2000
#: An event may name its stream by this key; without it, it goes to every statement.
STREAM_KEY: Final = "_stream"
_RULES: Final = Rules()


class _RowError(ValueError):
    """A line that is not of the form that API.md gives."""


class _Timed(NamedTuple):
    event_us: int
    name: str | None
    tie: str | None
    event: dict[str, Any]


def query_row(row: Any, now: datetime | None = None) -> dict[str, Any]:
    """Maps `{query, events, now}` to `{profiles, error}`.

    Several statements are separated by `;`, a later one with the same ALIAS replaces the earlier. Events are taken in
    their order; one with an `_id` that its stream has had is a duplicate, as in the daemon. Of events without `_ts`,
    which all happen at `now`, a later one counts as newer, as it does when it arrives later. `now` is for lines
    without one; it is needed only where an event has no `_ts`.
    """
    try:
        text, events = _read(row)
        profiles = _profiles(_queries(text), text, events, _moment_us(row, now))
    except (QueryError, RefusedError, _RowError) as error:
        return {"profiles": [], "error": str(error)[:_LONGEST_ERROR]}
    return {"profiles": profiles, "error": None}


def _read(row: Any) -> tuple[str, list[dict[str, Any]]]:
    if not isinstance(row, Mapping):
        raise _RowError("a line must be a JSON object")
    text, events = row.get("query"), row.get("events")
    if not isinstance(text, str):
        raise _RowError("query must be LQL text")
    if events is None:
        return text, []
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise _RowError("events must be a list of objects")
    return text, events


def _queries(text: str) -> list[Query]:
    statements, found = read_queries(text)
    errors = [each for each in found if each.severity == "error"]
    if errors:
        raise QueryError(errors)
    queries = {query.alias: query for query in statements}
    if not queries:
        raise _RowError("query has no statement; one is written as SELECT … FROM … INTO … BY … ALIAS …")
    return list(queries.values())


def _moment_us(row: Mapping[str, Any], now: datetime | None) -> int | None:
    given = row.get("now")
    if given is not None:
        at = to_date(given) if isinstance(given, str) else None
        if not isinstance(at, datetime):
            raise _RowError(f"now must be RFC 3339 text like 2026-01-15T12:30:00Z, not {str(given)[:100]!r}")
        now = at
    return None if now is None else microseconds(now)


def _profiles(
    queries: list[Query], text: str, events: list[dict[str, Any]], now_us: int | None
) -> list[dict[str, Any]]:
    """Gives the profiles of all tables; statements that feed different tables know nothing of one another."""
    timed: list[_Timed] = []
    for place, event in enumerate(events):
        try:
            event_us = event_time(event, -1 if now_us is None else now_us, _RULES)
            name = event_id(event, _RULES)
        except RefusedError as error:
            raise _RowError(f"event {place}: {error}") from None
        if event_us == -1 and now_us is None:
            raise _RowError(f"event {place} has no _ts, and there is no now to take instead")
        # Equal times are decided by the event id.
        tie = name if event.get("_ts") is not None else f"{place:012}"
        timed.append(_Timed(event_us, name, tie, event))
    tables: dict[str, list[Query]] = {}
    for query in queries:
        tables.setdefault(query.table.lower(), []).append(query)
    # All before any is run: a mistake in one is told whatever the others do.
    schemas = [build_schema(each, changed={query.alias: text for query in each}) for each in tables.values()]
    found = zip(tables.values(), schemas, strict=True)
    return [profile for each, schema in found for profile in _table(each, schema, timed, now_us)]


def _table(queries: list[Query], schema: Schema, events: list[_Timed], now_us: int | None) -> list[dict[str, Any]]:
    mapper = Mapper(schema, queries)
    owners: dict[Key, Profile] = {}
    profiles: dict[int, Profile] = {}
    ids = count(1)
    seen: set[tuple[str, str]] = set()
    for place, (event_us, name, tie, event) in enumerate(events):
        named = event.get(STREAM_KEY)
        streams = [named] if isinstance(named, str) else list(dict.fromkeys(query.stream for query in queries))
        for stream in streams:
            if name is not None:
                if (stream, name) in seen:
                    continue
                seen.add((stream, name))
            for mapped in mapper.map(stream, event, event_us, name, event_us):
                resolution = resolve(schema, mapped, owners.get, lambda: new(next(ids), event_us))  # noqa: B023  (called at once)
                profile = resolution.profile
                profile.apply(
                    schema,
                    resolution,
                    event_us=event_us,
                    event_id=tie,
                    stream=stream,
                    received_us=event_us,
                    position=("realtime", place),
                )
                for absorbed in resolution.absorb:
                    del profiles[absorbed.id]
                if resolution.attach or resolution.absorb:
                    owners.update(dict.fromkeys(profile.all_keys(), profile))
                for key in profile.dropped:  # one that this event brought is not there yet
                    owners.pop(key, None)
                profile.dropped.clear()
                profiles[profile.id] = profile
    at_us = max((event.event_us for event in events), default=0) if now_us is None else now_us
    for profile in profiles.values():
        profile.expire(schema, at_us)
    return [output(profile, schema, meta=False) for profile in profiles.values()]
