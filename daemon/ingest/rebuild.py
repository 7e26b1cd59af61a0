"""`replay --query`: a query applied to the past from the log, in the running daemon.

`begin` is a decision: from it on, new events go into the unseen states of the fields too, and the past is what had been
taken by then. `Past` takes it step by step, each a transaction with how far it has come, each in the history. `finish`
is the decision that shows what was made, for all profiles at once; the audiences that read it are evaluated again in
the background, so that only what differs in the end becomes triggers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson

from daemon.ingest import audience_pass
from daemon.ingest.batch import Batch, fetch
from daemon.ingest.cache import Cache, Entry
from daemon.ingest.definitions import Audience, Definitions, build, reads_any
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.timeline import Timeline
from daemon.ingest.unit import Lane, Unit
from daemon.model.refusal import Conflict, NotFound
from daemon.store import rebuilds
from daemon.store.database import Database
from daemon.store.rebuilds import RebuildRow
from streams.guards import Limits
from streams.identity import Resolution, resolve
from streams.mapping import Key, Mapped, Mapper
from streams.ql.nodes import Query
from streams.rebuilding import feeding, fields_to_rebuild, to_resolve
from streams.tombstones import Tombstones

#: Events of the log that are read at a time.
STEP_EVENTS: Final = 2048


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying a query to the past would do.

    `queries`: all that feed one of `fields`, by their versions. `events` are those in the log, of any stream, the
    first of which arrived at `first_us`; `lost` is how many the log does not have any more, at most. `audiences` read
    one of the fields.
    """

    alias: str
    version: int
    fields: tuple[str, ...]
    queries: Mapping[str, int]
    streams: tuple[str, ...]
    events: int
    lost: int
    first_us: int | None
    audiences: tuple[str, ...]


async def plan(
    definitions: Definitions, events: Database, state: Database, cursors: Mapping[Lane, int], alias: str
) -> Plan:
    """Says what applying a query to the past would do. Raises NotFound, and Conflict when it cannot be done."""
    stored = definitions.queries.get(alias)
    if stored is None:
        raise NotFound(f"there is no query {alias[:200]!r}")
    if stored.query is None:
        raise Conflict(f"the query {alias} is not accepted any more: {stored.invalid}")
    timeline = await state.read(partial(Timeline.read, rebuilds=definitions.rebuilds))
    # What an earlier version fed is made again without it, where other queries feed it too.
    names = {column.name for column in stored.query.columns} | timeline.fed_by(alias)
    fields = fields_to_rebuild(definitions.schema, names)
    if not fields:
        raise Conflict(f"the query {alias} feeds identities only; there is no field to make again")
    feeders = feeding(_trees(definitions), fields)
    firsts = await events.read(rebuilds.firsts)
    held = {lane: cursors[lane] - first[0] + 1 for lane, first in firsts.items() if first and first[0] <= cursors[lane]}
    return Plan(
        alias=alias,
        version=stored.row.version,
        fields=fields,
        queries={each.alias: definitions.queries[each.alias].row.version for each in feeders},
        streams=tuple(sorted({each.stream for each in feeders})),
        events=sum(held.values()),
        lost=sum(cursors.values()) - sum(held.values()),
        audiences=tuple(sorted(each.slug for each in definitions.audiences.values() if _reads(each, fields))),
        first_us=min((first[1] for lane, first in firsts.items() if first and lane in held), default=None),
    )


async def begin(
    unit: Unit, definitions: Definitions, events: Database, state: Database, alias: str, *, incomplete: bool
) -> tuple[RebuildRow, Definitions]:
    """Begins to apply a query to the past.

    Raises NotFound; Conflict when one is under way, when it cannot be done, and, unless `incomplete` is accepted, when
    the log has lost a part of the past.
    """
    running = under_way(definitions)
    if running is not None:
        raise Conflict(
            f"the query {running.alias} is being applied to the past; one at a time, wait for it or cancel it"
        )
    found = await plan(definitions, events, state, unit.head.cursors, alias)
    if found.lost and not incomplete:
        raise Conflict(
            f"up to {found.lost} events of the past are not in the log any more (retention): what they gave to "
            f"{', '.join(found.fields)} would be gone; say that an incomplete past is accepted"
        )
    upto = unit.head.cursors
    body: dict[str, Any] = {"alias": alias, "version": found.version, "fields": found.fields}
    body |= {"realtime": upto["realtime"], "bulk": upto["bulk"]}
    unit.decide("rebuild", body)
    row = begun(unit.head.last_history, body, lost=found.lost, now_us=unit.now_us)
    after = await _with(definitions, [*definitions.rebuilds, row])
    unit.bundle.work.append(partial(rebuilds.begin, row=row))
    return row, after


def begun(number: int, body: Mapping[str, Any], *, lost: int, now_us: int) -> RebuildRow:
    """Gives the row of a decision of the history that begins one."""
    return RebuildRow(
        number, body["alias"], body["version"], tuple(body["fields"]), body["realtime"], body["bulk"], 0, 0, 0, lost,
        "running", now_us,
    )  # fmt: skip


async def end(unit: Unit, definitions: Definitions, *, cancelled: bool) -> tuple[RebuildRow, Definitions]:
    """Ends what is under way: shows what was made, or gives it up. Raises NotFound when nothing is under way."""
    running = under_way(definitions)
    if running is None:
        raise NotFound("no query is being applied to the past")
    stands = unit.head.past or running
    row = stands._replace(state="cancelled" if cancelled else "done", ended_us=unit.now_us)
    unit.decide("rebuilt", {"rebuild": row.id, "cancelled": cancelled})
    unit.bundle.work.append(partial(rebuilds.end, number=row.id, state=row.state, now_us=unit.now_us))
    after = await ended(definitions, row)
    audience_pass.begin(unit, definitions, after)
    return row, after


async def ended(definitions: Definitions, row: RebuildRow) -> Definitions:
    """Gives the definitions that hold once one has ended."""
    return await _with(definitions, [each for each in definitions.rebuilds if each.id != row.id] + [row])


def under_way(definitions: Definitions) -> RebuildRow | None:
    """Gives the one under way, as it was when it began; None when there is none."""
    return next((each for each in definitions.rebuilds if each.running), None)


def refuse_meanwhile(before: Definitions, after: Definitions) -> None:
    """Raises Conflict when a change of queries meets fields that are being made again."""
    running = under_way(before)
    if running is None:
        return
    told = f"is being made again by applying the query {running.alias} to the past; wait for it or cancel it"
    for name in running.fields:
        if before.schema.fields.get(name) != after.schema.fields.get(name):
            raise Conflict(f"the field {name} {told}")
    fed = [{each.alias for each in feeding(_trees(one), running.fields)} for one in (before, after)]
    for alias in sorted(fed[0] | fed[1]):
        old, new = before.queries.get(alias), after.queries.get(alias)
        if old is None or new is None or old.row.text != new.row.text:
            raise Conflict(f"the query {alias} feeds what {told}")


async def _with(definitions: Definitions, rows: Sequence[RebuildRow]) -> Definitions:
    return await build(
        [each.row for each in definitions.queries.values()],
        [each.row for each in definitions.audiences.values()],
        definitions.rules,
        definitions,
        rebuilds=rows,
    )


def _reads(audience: Audience, fields: Sequence[str]) -> bool:
    return audience.compiled is not None and reads_any(audience.compiled.fields, fields)


def _trees(definitions: Definitions) -> list[Query]:
    return [each.query for each in definitions.queries.values() if each.query is not None]


class PastMapper:
    """What is asked of the past, the same for all steps while the definitions stay."""

    def __init__(self, definitions: Definitions, row: RebuildRow, timeline: Timeline) -> None:
        queries = feeding(_trees(definitions), row.fields)
        self.streams = tuple(sorted({each.stream for each in queries}))
        self.map = Mapper(definitions.schema, queries, definitions.guards).map
        self.timeline = timeline
        self.definitions = definitions


class Past(Batch):
    """A step: takes events of the past into the states that are being made."""

    def __init__(
        self,
        unit: Unit,
        definitions: Definitions,
        evaluator: Evaluator,
        cache: Cache,
        state: Database,
        limits: Limits,
        tombstones: Tombstones,
        *,
        row: RebuildRow,
        asked: PastMapper,
    ) -> None:
        super().__init__(unit, definitions, evaluator, cache, state, limits, tombstones)
        self._row = row
        self._asked = asked
        self._fed = 0
        #: How many events of the log were looked at.
        self.looked_at = 0

    def reading(self, lane: Lane, limit: int) -> Callable[[sqlite3.Connection], tuple[int, str]]:
        """Gives what reads the next page of the past, for `take_past`."""
        after = self.last or self._row.at(lane)
        return partial(
            rebuilds.past, lane=lane, after=after, upto=self._row.to(lane), limit=limit, streams=self._asked.streams
        )

    async def take_past(self, lane: Lane, upto: int, text: str) -> None:
        """Takes the events of a page (`rebuilds.past`), which goes up to a position."""
        self._lane = lane
        self.looked_at += upto - (self.last or self._row.at(lane))
        self.bytes += len(text)
        rows: list[tuple[int, int, str, int, str | None, dict[str, Any]]] = orjson.loads(text)
        found: list[tuple[list[Mapped], Any]] = []
        unknown: set[Key] = set()
        slices, by_key = self._slices, self._cache.by_key
        for count, event in enumerate(rows):
            _, received_us, stream, event_us, event_id, body = event
            mapped = self._asked.map(stream, body, event_us, event_id, received_us)
            if mapped:
                found.append((mapped, event))
                unknown.update(key for each in mapped for key in each.keys if key not in by_key)
            if not count & 15 and slices.over:
                await slices.turn()
        if unknown:
            await fetch(self._state, self._cache, list(unknown), slices)
        for count, (mapped, event) in enumerate(found):
            self._apply(mapped, event)
            if not count & 7 and slices.over:
                await slices.turn()
        self._fed += len(found)
        self.last = upto

    async def finish(self, lane: Lane) -> None:
        """Notes how far the past is taken, and makes the bundle whole."""
        unit, row, upto = self._unit, self._row, self.last
        unit.decide("rebuild", {"step": row.id, "lane": lane, "upto": upto})
        unit.bundle.work.append(partial(rebuilds.advance, row=row, lane=lane, upto=upto, events=self._fed))
        unit.bundle.origin = orjson.dumps({"lane": lane, "after": row.at(lane), "upto": upto}).decode()
        unit.head.past = row.advanced(lane, upto, self._fed)
        await self._evaluate()

    def _apply(self, mapped: Sequence[Mapped], event: Any) -> None:
        position, received_us, stream, event_us, event_id, body = event
        schema, owner = self._definitions.schema, self._cache.by_key.get
        if self._tombstones:
            # Who was erased does not come back from what is not scrubbed yet.
            marks = self._tombstones.among(key for each in mapped for key in each.keys)
            mapped = self._tombstones.screen(mapped, self._lane, position, marks, owner).mapped
        known = self._asked.timeline.keys(self._lane, position, stream, body, event_us, self._row.id)
        for each in mapped:
            part, resolving = to_resolve(schema, each, known or frozenset(), owner)
            if part is None:
                continue
            if resolving:
                self._received_us = received_us
                resolution = resolve(
                    schema, part, self._owner, self._create, limits=self._limits, windows=self._windows,
                    at_us=received_us,
                )  # fmt: skip
                for (field, _), reason in resolution.refused:
                    self._count_refused(field, reason, 1, position)
            else:
                entry = self._cache.by_key[part.keys[0]]
                resolution = Resolution(self._open(entry), part.keys, (), (), (), part.values)
            profile = resolution.profile
            entry = self._cache.by_id[profile.id]
            self._open(entry)
            if resolution.attach or resolution.absorb:
                self._link(entry, resolution)
            entry.changed |= profile.take_past(
                schema, resolution, event_us=event_us, event_id=event_id, stream=stream, received_us=received_us,
                position=(self._lane, position), counted=known is not None,
            )  # fmt: skip
            if profile.dropped:
                self._drop_keys(entry, profile)

    def _judge(self, entry: Entry) -> None:
        """Evaluates what new keys have changed; what is made unseen changes nothing yet."""
        if entry.id in self._whole:
            self._evaluator.whole(self._unit, entry, "merge" if entry.stored else "replay")
        elif entry.changed:
            self._evaluator.after_change(self._unit, entry, entry.changed, "replay")
