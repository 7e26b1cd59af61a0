"""Erasing a person, and letting one in again: steps of the loop, kept in the history (P10).

The step takes the profile, its keys and memberships away, writes the exits, and leaves a tombstone on each key. What
stands of the person in the log is searched for afterwards, in the background (`daemon.ingest.erasing`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from daemon.ingest.batch import fetch
from daemon.ingest.cache import Cache, Entry
from daemon.ingest.definitions import Definitions
from daemon.ingest.slices import Slices
from daemon.ingest.unit import Unit
from daemon.model.refusal import NotFound
from daemon.store import erasures
from daemon.store import events as event_log
from daemon.store.database import Database
from daemon.store.erasures import Erasure
from streams.mapping import Key
from streams.person import keys_of
from streams.stitches import origins
from streams.tombstones import Bounds, Erased, Tombstones

_NOWHERE: Final[dict[event_log.Lane, int]] = {"realtime": 0, "bulk": 0}


async def erase(
    unit: Unit, definitions: Definitions, events: Database, state: Database, cache: Cache, tombstones: Tombstones,
    field: str, value: str, *, allow_return: bool,
) -> tuple[Erasure, None]:  # fmt: skip
    """Erases the profile that owns a key: exits with its last fields, then nothing of it. Raises NotFound."""
    if (field, value) not in cache.by_key:
        await fetch(state, cache, [(field, value)], Slices())
    entry = cache.by_key.get((field, value))
    if entry is None:
        raise NotFound(f"there is no profile with {field} {value!r}")
    keys = await _all_keys(definitions, state, cache, entry)
    splits = origins(entry.read(definitions.schema))
    heads = await events.read(event_log.heads)
    number = await state.read(erasures.last_id) + 1
    bounds = dict(heads) if allow_return else None
    erase_profile(unit, definitions, cache, entry.id)
    hashes = [tombstones.hash(key) for key in keys]
    unit.decide(
        "erase",
        {
            "profile": entry.id, "erasure": number, "hashes": [each.hex() for each in hashes], "upto": bounds,
            "splits": splits, "scrubbed": False,
        },
    )  # fmt: skip
    erasure = Erasure(
        number, "scrubbing", unit.now_us, None, allow_return, None, tuple(keys), (entry.id,),
        unit.head.last_trigger, unit.head.last_history, dict(unit.head.cursors), heads, dict(_NOWHERE),
        0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    unit.bundle.work.append(partial(erasures.add, erasure=erasure, hashes=hashes, bounds=bounds))
    tombstones.put(hashes, bounds)
    unit.to_scrub = True
    return erasure, None


async def _all_keys(definitions: Definitions, state: Database, cache: Cache, entry: Entry) -> list[Key]:
    """Gives the profile's keys, and the former ones that nobody else has taken."""
    profile = entry.read(definitions.schema)
    keys = keys_of(profile)
    own = profile.all_keys()
    former = keys[len(own) :]
    if former:
        await fetch(state, cache, former, Slices())
    return [*own, *(key for key in former if cache.by_key.get(key) in (None, entry))]


async def admit(
    unit: Unit, events: Database, state: Database, tombstones: Tombstones, keys: list[Key]
) -> tuple[list[int], None]:
    """Lets the people come back who were erased with any of these keys; gives their erasures. Raises NotFound.

    What is in the log by now stays out.
    """
    asked = [tombstones.hash(key) for key in keys]
    ids, hashes = await state.read(partial(erasures.buried_with, hashes=asked))
    if not ids:
        field, value = keys[0]
        raise NotFound(f"nobody with {field} {value!r} was erased and is kept out")
    heads = await events.read(event_log.heads)
    unit.decide("erase", {"admitted": ids, "hashes": [each.hex() for each in hashes], "upto": heads})
    unit.bundle.work.append(
        partial(erasures.bound, hashes=hashes, bounds=heads, erasures=ids, now_us=unit.now_us)
    )  # fmt: skip
    tombstones.put(hashes, dict(heads))
    return ids, None


def erase_profile(unit: Unit, definitions: Definitions, cache: Cache, profile_id: int) -> None:
    """Takes a cached profile away, with everything that is known of it."""
    entry = cache.by_id[profile_id]
    profile = entry.read(definitions.schema)
    known = definitions.audiences
    memberships = {number: each for number, each in entry.memberships().items() if number in known}
    unit.leave_for_good(profile.id, memberships, "erase", profile.dump())
    unit.bundle.gone.append(profile.id)
    unit.bundle.keys_gone += profile.all_keys()
    cache.forget(entry, unit.number)


def erased(sequence: int, body: dict[str, Any]) -> Erased | None:
    """Gives the erasure that a decision of the history tells of; None for one that lets people in again."""
    if "erasure" not in body:
        return None
    return Erased(sequence, body["erasure"], tuple(bytes.fromhex(each) for each in body["hashes"]))


def play(tombstones: Tombstones, body: dict[str, Any]) -> None:
    """Makes a decision of kind `erase` hold over the tombstones."""
    bounds: Bounds = body["upto"]
    tombstones.put([bytes.fromhex(each) for each in body["hashes"]], bounds)
