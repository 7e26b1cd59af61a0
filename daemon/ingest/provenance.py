"""The events and the queries that made the value of one field of one profile (P8).

The person's events are found by a walk over the log (`person`), each mapped by the queries that held when it came; what
a query was applied to later (`rebuild`) by that query as it was then. Nothing of this is kept: it costs who asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from time import monotonic
from typing import Final

from daemon import clock
from daemon.ingest.definitions import Definitions
from daemon.ingest.person import Event, PersonEvents
from daemon.ingest.timeline import Held, Timeline, compiled
from daemon.store import rebuilds
from daemon.store.database import Database
from daemon.store.events import LANES, Lane
from daemon.store.rebuilds import RebuildRow
from streams.fragments import CREATED
from streams.mapping import Key, Mapper
from streams.merge import Slot
from streams.person import keys_of
from streams.profile import Profile
from streams.provenance import Contribution, Effect, Provenance, same_shape
from streams.rebuilding import feeding

#: How long the walk rests between pages, as a share of the work.
REST: Final = 0.2


@dataclass(slots=True)
class Found:
    """What was found. `count` contributions in all, of `events` events of the person; `effects` has the newest.

    `value` is what they make together. `whole`: the walk came to its end; `lost`: the log does not go back to the
    profile's first event; `log_since_us` is its first event of now. `unmade` are earlier contributions that a change
    of kind or operator has left behind. `rebuilt`: the query that was applied to the past and made the field.
    """

    value: object = None
    count: int = 0
    events: int = 0
    unmade: int = 0
    whole: bool = True
    lost: bool = False
    log_since_us: int | None = None
    rebuilt: RebuildRow | None = None
    effects: list[Effect] = field(default_factory=list)


async def provenance(
    events: Database, state: Database, definitions: Definitions, committed: Mapping[Lane, int], profile: Profile,
    name: str, *, limit: int, seconds: float,
) -> Found:  # fmt: skip
    """Finds what made a field, which must be one of the schema's; keeps `limit` contributions, and what stands.

    Walks over the log for so many seconds at most.
    """
    slot = definitions.schema.slots[name]
    keys = frozenset(keys_of(profile))
    timeline = await state.read(partial(Timeline.read, rebuilds=definitions.rebuilds))
    found = Found(rebuilt=_made_by(definitions, name))
    made = Provenance(slot, limit)
    walk = await PersonEvents.open(events, state, keys.__contains__)
    firsts = await events.read(rebuilds.firsts)
    arrivals = [first[1] for first in firsts.values() if first is not None]
    found.log_since_us = min(arrivals, default=None)
    found.lost = any(_lost(firsts[lane], committed[lane], profile) for lane in LANES)
    end = monotonic() + seconds
    for lane in LANES:
        async for page, at in walk.pages(lane, 0, committed[lane], rest=REST):
            for each in page:
                if each.own:
                    found.events += 1
                    _take(made, found, timeline, each.event, name, keys)
            if monotonic() > end and at < committed[lane]:
                found.whole = False
                break
    made.expire(clock.now_us())
    found.value, found.count, found.effects = made.value, made.count, made.effects()
    return found


def _take(made: Provenance, found: Found, timeline: Timeline, event: Event, name: str, keys: frozenset[Key]) -> None:
    row = found.rebuilt
    past = row is not None and event.position <= row.to(event.lane)
    held = timeline.as_of(row.id) if row is not None and past else timeline.at(event.lane, event.position)
    if held is None:
        return
    for alias, version, mapper, slot in _mappers(held, name):
        for mapped in mapper.map(event.stream, event.body, event.event_us, event.event_id, event.received_us):
            if mapped.keys[0] not in keys:
                continue
            for field_name, value in mapped.values:
                if field_name != name:
                    continue
                if not same_shape(slot, made.slot):
                    found.unmade += 1
                    continue
                made.add(
                    Contribution(
                        event.event_us, event.received_us, event.lane, event.position, event.stream, event.event_id,
                        alias, version, value,
                    )
                )  # fmt: skip


@lru_cache(maxsize=64)
def _mappers(held: Held, name: str) -> list[tuple[str, int, Mapper, Slot]]:
    """The queries that fed the field: alias, version, mapper, and the field's slot as it was."""
    whole = compiled(held.rows)
    versions = {row.alias: row.version for row in held.rows}
    return [
        (each.alias, versions[each.alias], Mapper(whole.schema, [each]), whole.schema.slots[name])
        for each in feeding(whole.queries, (name,))
    ]


def _made_by(definitions: Definitions, name: str) -> RebuildRow | None:
    done = [each for each in definitions.rebuilds if each.state == "done" and name in each.fields]
    return done[-1] if done else None


def _lost(first: tuple[int, int] | None, committed: int, profile: Profile) -> bool:
    """Says whether a lane may have had events of the profile that it does not have any more."""
    if first is None:
        return committed > 0
    return first[0] > 1 and first[1] > profile.meta[CREATED]
