"""What is shown of a profile's refused stitches: which key, why, by which event, and whose it is."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import orjson

from daemon import clock
from daemon.store import event_reader, profiles
from daemon.web.services import Services
from streams.mapping import Key, Mapper
from streams.profile import Profile
from streams.stitches import mark

WHY: Final = {
    "blocked": "it identifies nobody: built in, or a merge guard says so",
    "too_long": "it is longer than 256 bytes",
    "conflict": "it leads to a profile that has another value of an identity of which a person has one",
    "limit": "the profile would be known by too many keys",
    "window": "it, or a key beside it, had been stitched as often as its limit allows",
    "split": "the two were taken apart by a split",
}


async def stitches_of(services: Services, profile: Profile) -> dict[str, Any]:
    """Gives the refused keys of a profile, the newest last, with what else is remembered of its stitches.

    The profile remembers a key of somebody else by a hash alone: its value is read from the event that named it, and
    is null once the log does not have that any more.
    """
    memory = profile.memory or {}
    refused = memory.get("r", {"n": {}, "l": []})
    rows = refused["l"]
    places = list(dict.fromkeys((row[3], row[4]) for row in rows))
    named = await _keys_named(services, places)
    keys = [(row[1], _value(named.get((row[3], row[4]), []), row[1], row[2])) for row in rows]
    owners = await _owners(services, keys)
    shown = []
    for (reason, name, _, lane, position, received_us, times), (_, value) in zip(rows, keys, strict=True):
        shown.append(
            {
                "key": [name, value],
                "reason": reason,
                "why": WHY.get(reason, reason),
                "owner": owners.get((name, value)),
                "lane": lane,
                "position": position,
                "received": clock.from_us(received_us),
                "times": times,
            }
        )
    told: dict[str, Any] = {"refusals": refused["n"], "refused": shown}
    if "c" in memory:
        told["compacted"] = {"keys": memory["c"][0], "last": clock.from_us(memory["c"][1])}
    if "x" in memory:
        told["splits"] = [{"at": clock.from_us(at_us), "keys_of_the_other": len(marks)} for at_us, marks in memory["x"]]
    return told


async def _keys_named(services: Services, places: list[tuple[str, int]]) -> dict[tuple[str, int], list[Key]]:
    """Gives the keys, taken or not, of events at these places of the log."""
    if not places:
        return {}

    def read(db: sqlite3.Connection) -> list[tuple[tuple[str, int], str]]:
        found = []
        for lane, position in places:
            pages = event_reader.read(db, "bulk" if lane == "bulk" else "realtime", position - 1, 1, 1, position)
            found += [((lane, position), page.text) for page in pages]
        return found

    mapper = services.pipeline.definitions.mapper
    return {place: _keys_of(mapper, text) for place, text in await services.events.read(read)}


def _keys_of(mapper: Mapper, text: str) -> list[Key]:
    keys: list[Key] = []
    for _, received_us, stream, event_us, event_id, event in orjson.loads(text):
        for mapped in mapper.map(stream, event, event_us, event_id, received_us):
            keys += mapped.keys
            keys += [refusal.key for refusal in mapped.refused]
    return keys


def _value(keys: list[Key], name: str, which: str) -> str | None:
    return next((text for field, text in keys if field == name and mark((field, text)) == which), None)


async def _owners(services: Services, keys: list[tuple[str, str | None]]) -> dict[tuple[str, str | None], str]:
    def read(db: sqlite3.Connection) -> dict[tuple[str, str | None], str]:
        found = {}
        for name, value in keys:
            owner = None if value is None else profiles.find(db, name, value)
            if owner is not None:
                found[name, value] = str(owner)
        return found

    return await services.state.read(read) if keys else {}
