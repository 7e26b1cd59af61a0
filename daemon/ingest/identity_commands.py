"""Commands on identity: merge guards, and undoing a stitch; each a step of the loop, kept in the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from daemon import log
from daemon.ingest.batch import fetch
from daemon.ingest.cache import Cache, Entry
from daemon.ingest.definitions import Definitions, build
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.slices import Slices
from daemon.ingest.unit import Unit
from daemon.model.refusal import Conflict, NotFound
from daemon.store import guards as store
from daemon.store.database import Database
from daemon.store.guards import GuardRow
from streams import stitches
from streams.guards import MOST_GLOBS, MOST_GUARDS
from streams.mapping import Key
from streams.profile import Profile
from streams.split import Halves, split

#: Owners that the reply to a new guard names.
_NAMED_OWNERS = 100


@dataclass(frozen=True, slots=True)
class GuardChange:
    """What came of a change of guards: the rows asked for as they stand now, and who is known by a guarded value."""

    rows: list[GuardRow]
    owners: list[tuple[str, str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Split:
    """What a split did or would do. Members are bits by audience number: before, and of each half after it."""

    kept: Profile
    made: Profile
    notes: list[str]
    before: int
    kept_members: int
    made_members: int


async def put_guards(
    unit: Unit, definitions: Definitions, state: Database, drafts: Sequence[GuardRow]
) -> tuple[GuardChange, Definitions | None]:
    """Stores guards, whose ids and times are given here; of two about the same the later holds. Raises Conflict."""
    rows = {row.subject: row for row in definitions.guard_rows}
    last = max((row.id for row in rows.values()), default=0)
    added: dict[tuple[object, ...], GuardRow] = {}
    for draft in drafts:
        old = rows.get(draft.subject)
        if old is None:
            last += 1
            row = draft._replace(id=last, created_us=unit.now_us)
        else:
            row = draft._replace(id=old.id, created_us=old.created_us)
        if row != old:
            added[row.subject] = rows[row.subject] = row
    globs = sum(row.glob for row in rows.values())
    if len(rows) > MOST_GUARDS or globs > MOST_GLOBS:
        raise Conflict(
            f"there would be {len(rows)} merge guards, {globs} of them globs; at most {MOST_GUARDS} and {MOST_GLOBS} "
            "are kept"
        )
    result = GuardChange([rows[draft.subject] for draft in drafts], await _owners(definitions, state, drafts))
    if not added:
        return result, None
    return result, await _changed(unit, definitions, list(added.values()), [])


async def delete_guard(unit: Unit, definitions: Definitions, guard_id: int) -> tuple[None, Definitions | None]:
    """Deletes a guard; from then on its value can be a key again. Raises NotFound."""
    if all(row.id != guard_id for row in definitions.guard_rows):
        raise NotFound(f"there is no merge guard {guard_id}")
    return None, await _changed(unit, definitions, [], [guard_id])


async def _changed(
    unit: Unit, definitions: Definitions, added: Sequence[GuardRow], removed: Sequence[int]
) -> Definitions:
    after = await with_guards(definitions, added, removed)
    unit.bundle.work.append(partial(store.change, added=added, removed=removed))
    unit.decide("merge_guard", {"added": [row._asdict() for row in added], "removed": list(removed)})
    return after


async def with_guards(definitions: Definitions, added: Sequence[GuardRow], removed: Sequence[int]) -> Definitions:
    """Gives the definitions with other guards."""
    rows = {row.id: row for row in definitions.guard_rows if row.id not in removed}
    rows |= {row.id: row for row in added}
    queries = sorted((each.row for each in definitions.queries.values()), key=lambda row: (row.created_us, row.alias))
    audiences = [each.row for each in definitions.audiences.values()]
    return await build(queries, audiences, definitions.rules, definitions, guards=sorted(rows.values()))


async def _owners(definitions: Definitions, state: Database, drafts: Sequence[GuardRow]) -> list[tuple[str, str, int]]:
    names = [each.name for each in definitions.schema.identities]
    found: list[tuple[str, str, int]] = []
    texts = [draft.value for draft in drafts if draft.value is not None and not draft.glob]
    values = [*dict.fromkeys(each for text in texts for each in (text.strip(), text.strip().lower()))]
    if names and values:
        rows = await state.read(partial(store.owners, fields=names, values=values, limit=_NAMED_OWNERS))
        found = [(name, value, profile_id) for name, value, profile_id in rows]
    return found


async def split_profile(
    unit: Unit,
    definitions: Definitions,
    evaluator: Evaluator,
    state: Database,
    cache: Cache,
    key: Key,
    keys: Sequence[Key],
    *,
    apart: bool,
    dry_run: bool,
) -> tuple[Split, None]:
    """Gives `keys` of the profile that owns `key` to a new profile. Raises NotFound, and SplitError."""
    entry = await _entry(state, cache, key)
    if dry_run:
        schema = definitions.schema
        halves = split(schema, entry.read(schema), keys, unit.head.last_profile + 1, unit.now_us, apart=apart)
        matched = partial(_matched, unit, evaluator)
        return _told(halves, entry.members, matched(halves.kept), matched(halves.made)), None
    before = entry.members
    halves, made = divide(unit, definitions, evaluator, cache, entry, keys, unit.now_us, apart=apart)
    body = {
        "profile": entry.id, "into": made.id, "keys": [list(each) for each in keys], "apart": apart,
        "at_us": unit.now_us, "upto": dict(unit.head.cursors), "halves": [halves.kept.dump(), halves.made.dump()],
    }  # fmt: skip
    unit.decide("split", body)
    log.get().info("profile_split", profile=entry.id, into=made.id, keys=len(keys), apart=apart)
    return _told(halves, before, entry.members, made.members), None


def _matched(unit: Unit, evaluator: Evaluator, profile: Profile) -> int:
    return evaluator.matched(evaluator.at(profile, unit.now_us), evaluator.numbers, unit.now)


def _told(halves: Halves, before: int, kept: int, made: int) -> Split:
    return Split(halves.kept, halves.made, halves.notes, before, kept, made)


def divide(
    unit: Unit,
    definitions: Definitions,
    evaluator: Evaluator,
    cache: Cache,
    entry: Entry,
    keys: Sequence[Key],
    at_us: int,
    *,
    apart: bool,
) -> tuple[Halves, Entry]:
    """Makes two profiles of a cached one within a step, and evaluates both; gives them, and the new one's entry."""
    halves = split(
        definitions.schema, entry.read(definitions.schema), keys, unit.head.last_profile + 1, at_us, apart=apart
    )
    unit.head.last_profile += 1
    entry.profile = halves.kept
    entry.keys = tuple(halves.kept.all_keys())
    made = Entry(halves.made.id, profile=halves.made, keys=tuple(halves.made.all_keys()), stored=False)
    cache.add(made)  # which takes its keys from the other
    for name, text in halves.made.all_keys():
        unit.bundle.identities += (name, text, halves.made.id)
    for each, profile in ((entry, halves.kept), (made, halves.made)):
        evaluator.whole(unit, each, "split")
        store_entry(unit, cache, each, profile)
    return halves, made


def store_entry(unit: Unit, cache: Cache, entry: Entry, profile: Profile) -> None:
    """Writes a profile that a command has changed."""
    cache.touch(entry, unit.number)
    text = profile.dump()
    unit.bundle.profiles += (entry.id, text)
    cache.keep(entry, text)
    entry.stored = True


async def forget_split(
    unit: Unit, definitions: Definitions, state: Database, cache: Cache, key: Key
) -> tuple[bool, None]:
    """Lets a profile be stitched again with what it was split from; says whether it was. Raises NotFound."""
    entry = await _entry(state, cache, key)
    if not forget(unit, definitions, cache, entry):
        return False, None
    unit.decide("split", {"profile": entry.id, "keys": [list(key)], "forget": True})
    return True, None


def forget(unit: Unit, definitions: Definitions, cache: Cache, entry: Entry) -> bool:
    """Forgets what a cached profile was split from, within a step."""
    profile = entry.read(definitions.schema)
    if not stitches.forget_split(profile):
        return False
    store_entry(unit, cache, entry, profile)
    return True


async def _entry(state: Database, cache: Cache, key: Key) -> Entry:
    entry = await owner_of(state, cache, key)
    if entry is None:
        raise NotFound(f"there is no profile with {key[0]} {key[1]!r}")
    return entry


async def owner_of(state: Database, cache: Cache, key: Key) -> Entry | None:
    """Gives the cached entry of the profile that owns a key, read where it is not in memory."""
    if key not in cache.by_key:
        await fetch(state, cache, [key], Slices())
    return cache.by_key.get(key)
