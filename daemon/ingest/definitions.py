"""What queries, audiences and rules say together, compiled: a frozen snapshot, and how the next one is made.

Batches, the web and the bus read the current snapshot without locks; a change makes a new one and takes its place
between two batches. What a change does not touch is taken over compiled.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from daemon import log
from daemon.store.definitions import AudienceRow, QueryRow, RuleRow
from daemon.store.guards import GuardRow, guards_of
from daemon.store.rebuilds import RebuildRow, generations
from streams.audience import AudienceSet
from streams.guards import NO_GUARDS, Guards
from streams.mapping import Mapper
from streams.ql import reading
from streams.ql.compiler import CompiledFilter, compile_filter
from streams.ql.errors import QueryError, diagnostic
from streams.ql.nodes import Filter, Include, Node, Query
from streams.ql.parser import parse_filter, parse_query
from streams.ql.tree import walk
from streams.rebuilding import with_generations
from streams.schema import Schema, build_schema


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """A query: its row, and its tree where the text is (still) accepted, else why it is not."""

    row: QueryRow
    query: Query | None
    invalid: str = ""


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience: its row, its tree and its compiled filter; `invalid` says why there are none."""

    row: AudienceRow
    filter: Filter | None
    compiled: CompiledFilter | None
    invalid: str = ""

    @property
    def number(self) -> int:
        """What tables and bundles call it."""
        return self.row.number

    @property
    def id(self) -> str:
        """What clients call it: 32 hexadecimal digits."""
        return self.row.id

    @property
    def slug(self) -> str:
        """What people call it."""
        return self.row.slug


@dataclass(frozen=True, slots=True)
class Definitions:
    """A snapshot. `audiences` by number, `by_name` by slug, id and lower-cased name.

    `rebuilds`: queries that were or are applied to the past; how far one under way has come is not kept current here.
    """

    schema: Schema
    queries: Mapping[str, StoredQuery]
    audiences: Mapping[int, Audience]
    rules: tuple[RuleRow, ...]
    mapper: Mapper
    audience_set: AudienceSet
    guard_rows: tuple[GuardRow, ...] = ()
    guards: Guards = NO_GUARDS
    rebuilds: tuple[RebuildRow, ...] = ()
    by_name: Mapping[str, Audience] = field(default_factory=dict)

    def audience(self, name: str) -> Audience | None:
        """Finds an audience by slug, id or name."""
        return self.by_name.get(name) or self.by_name.get(name.lower())

    def include(self, name: str) -> Node | None:
        """Gives the filter that INCLUDE `name` stands for; None when there is none."""
        found = self.audience(name)
        return None if found is None or found.filter is None else found.filter.where


async def build(
    queries: Sequence[QueryRow],
    audiences: Sequence[AudienceRow],
    rules: Sequence[RuleRow],
    previous: Definitions | None = None,
    *,
    guards: Sequence[GuardRow] | None = None,
    mapping: bool = True,
    rebuilds: Sequence[RebuildRow] | None = None,
) -> Definitions:
    """Makes a snapshot of stored rows, taking over from `previous` what is the same; also the guards, without any.

    A text that this program does not accept any more is left out, loudly: the rest goes on. Gives the loop its turn
    between two compilations of filters, and does beside it what goes through all queries at once: collection waits for
    none of it. Without `mapping` its mapper knows no queries: a snapshot to ask, not to ingest by.

    Raises:
        QueryError: the queries, each by itself accepted, disagree about a field.
    """
    stored = {row.alias: _stored_query(row, previous) for row in queries}
    trees = [each.query for each in stored.values() if each.query is not None]
    if rebuilds is None:
        rebuilds = () if previous is None else previous.rebuilds
    schema = with_generations(await asyncio.to_thread(build_schema, trees), generations(rebuilds))
    if previous is not None and _alike(schema, previous.schema):
        schema = previous.schema  # profiles in memory stay as they are
    drafts = {row.number: _stored_audience(row, previous) for row in audiences}
    by_name = _names(drafts.values())

    def include(name: str) -> Node | None:
        found = by_name.get(name) or by_name.get(name.lower())
        return None if found is None or found.filter is None else found.filter.where

    texts = {each.number: each.row.text for each in drafts.values()}
    moved: set[str] = set()
    if previous is not None and schema is not previous.schema:
        kinds, before = schema.kinds, previous.schema.kinds
        moved = {name for name in {*kinds, *before} if kinds.get(name) != before.get(name)}
    compiled: dict[int, Audience] = {}
    for draft in drafts.values():
        if draft.filter is None:
            compiled[draft.number] = draft
            continue
        old = previous.audiences.get(draft.number) if previous is not None else None
        if old is not None and previous is not None and _same(old, draft, moved, previous, texts):
            compiled[draft.number] = Audience(draft.row, old.filter, old.compiled)
            continue
        done = compile_filter(draft.filter.where, kinds=schema.kinds, includes=include)
        compiled[draft.number] = Audience(draft.row, draft.filter, done)
        await asyncio.sleep(0)
    guard_rows = tuple(guards if guards is not None else previous.guard_rows if previous is not None else ())
    same_guards = previous is not None and previous.guard_rows == guard_rows
    made_guards = previous.guards if previous is not None and same_guards else guards_of(guard_rows)
    runnable = {number: each.compiled for number, each in compiled.items() if each.compiled is not None}
    if previous is not None and same_guards and schema is previous.schema and _same_queries(stored, previous):
        mapper = previous.mapper
    else:
        known = previous.mapper if previous is not None else None
        mapper = await asyncio.to_thread(Mapper, schema, trees if mapping else [], made_guards, known)
    audience_set = await asyncio.to_thread(AudienceSet, runnable, schema)
    return Definitions(
        schema=schema,
        queries=stored,
        audiences=compiled,
        rules=tuple(rules),
        mapper=mapper,
        audience_set=audience_set,
        guard_rows=guard_rows,
        guards=made_guards,
        rebuilds=tuple(rebuilds),
        by_name=_names(compiled.values()),
    )


def _same_queries(stored: Mapping[str, StoredQuery], previous: Definitions) -> bool:
    """Says whether the same queries stand in the same order."""
    now, before = list(stored.values()), list(previous.queries.values())
    return len(now) == len(before) and all(one.query is other.query for one, other in zip(now, before, strict=True))


def _alike(one: Schema, other: Schema) -> bool:
    return one.fields == other.fields and one.generations == other.generations


def _same(old: Audience, new: Audience, moved: set[str], previous: Definitions, texts: Mapping[int, str]) -> bool:
    """Says whether the compiled filter still holds: same text, kinds, and texts of all that it includes.

    `moved`: the fields of which the kind is another.
    """
    if old.compiled is None or old.row.text != new.row.text or reads_any(old.compiled.fields, moved):
        return False
    for name in old.compiled.includes:
        included = previous.audience(name)
        if included is None or texts.get(included.number) != included.row.text:
            return False
    return True


def _names(audiences: Iterable[Audience]) -> dict[str, Audience]:
    """Audiences by name, id and slug; a slug or id wins over another's name."""
    ordered = list(audiences)
    names = {each.row.name.lower(): each for each in ordered}
    names.update((each.id, each) for each in ordered)
    names.update((each.slug, each) for each in ordered)
    return names


def _stored_query(row: QueryRow, previous: Definitions | None) -> StoredQuery:
    old = previous.queries.get(row.alias) if previous is not None else None
    if old is not None and old.row.text == row.text:
        return StoredQuery(row, old.query, old.invalid)
    try:
        query = parse_query(row.text)
    except QueryError as error:
        log.get().error("definition_refused", query=row.alias, error=str(error))
        return StoredQuery(row, None, str(error))
    return StoredQuery(row, query)


def _stored_audience(row: AudienceRow, previous: Definitions | None) -> Audience:
    old = previous.audiences.get(row.number) if previous is not None else None
    if old is not None and old.row.text == row.text:
        return Audience(row, old.filter, None, old.invalid)
    try:
        tree = parse_filter(row.text)
    except QueryError as error:
        log.get().error("definition_refused", audience=row.slug, error=str(error))
        return Audience(row, None, None, str(error))
    return Audience(row, tree, None)


# --- what may be stored


def accepted_filter(text: str, definitions: Definitions, slug: str | None = None) -> Filter:
    """Gives the tree of a filter that may be stored (as `slug`); raises QueryError with everything against it."""
    names = {*definitions.by_name, *([slug] if slug else [])}
    return reading.accepted_filter(text, kinds=definitions.schema.kinds, audiences=names)


def refuse_cycle(tree: Filter, text: str, slug: str, definitions: Definitions) -> None:
    """Raises QueryError, at its place in `text`, when an audience would include itself, however many steps away."""
    seen = {slug}
    pending: deque[tuple[Node, Include | None, tuple[str, ...]]] = deque([(tree.where, None, (slug,))])
    while pending:
        where, first, path = pending.popleft()
        for node in walk(where):
            if not isinstance(node, Include):
                continue
            found = definitions.audience(node.name)
            target = found.slug if found is not None else slug_of(node.name)
            begun = first or node
            if target == slug:
                told = " includes ".join([*path, slug])
                raise QueryError([diagnostic(text, begun.at, f"an audience cannot include itself: {told}")])
            if target not in seen and found is not None and found.filter is not None:
                seen.add(target)
                pending.append((found.filter.where, begun, (*path, target)))


def dependents(definitions: Definitions, slug: str) -> list[str]:
    """Gives the slugs of the audiences that include this one, directly or through others."""
    target = definitions.audience(slug)
    if target is None:
        return []
    result = []
    for each in definitions.audiences.values():
        if each.compiled is None or each.number == target.number:
            continue
        included = (definitions.audience(name) for name in each.compiled.includes)
        if any(one is not None and one.number == target.number for one in included):
            result.append(each.slug)
    return sorted(result)


def slug_of(alias: str) -> str:
    """Gives the slug of an ALIAS: lower case, `_` for runs of anything but letters and digits."""
    plain = unicodedata.normalize("NFKC", alias).lower()
    return re.sub(r"[^\w]+", "_", plain).strip("_")


def touched_audiences(before: Definitions, after: Definitions) -> list[int]:
    """Gives the audiences whose members may differ though no event came: another text, include, kind or operator."""
    old, new = before.schema.fields, after.schema.fields
    fields = {name for name in {*old, *new} if _state_of(old.get(name)) != _state_of(new.get(name))}
    result = []
    for number, each in after.audiences.items():
        was = before.audiences.get(number)
        if each.compiled is None and (was is None or was.compiled is None):
            continue
        changed = was is None or was.compiled is not each.compiled
        if changed or (each.compiled is not None and reads_any(each.compiled.fields, fields)):
            result.append(number)
    return result


def reads_any(names: Iterable[str], fields: Iterable[str]) -> bool:
    """Says whether an expression with these names may read one of the fields: `profile_view.fields_read`."""
    lowered = {name.lower() for name in fields}
    return bool(lowered) and any(not lowered.isdisjoint(_meanings(name.lower())) for name in names)


def _meanings(name: str) -> list[str]:
    pieces = name.split(".")
    return [".".join(pieces[:end]) for end in range(1, len(pieces) + 1)]


def _state_of(one: object) -> tuple[object, ...]:
    if one is None:
        return ()
    names = ("kind", "merge_op", "capacity", "keep_days", "identity", "single", "generation")
    return tuple(getattr(one, name) for name in names)
