"""Undoing a stitch: one profile becomes two, each made of the parts that its own home fragments gave.

An event belongs to its home fragment, the key of highest rank in it, and goes where that key goes. So a key that came
only beside a stronger one takes no values with it, and what compaction or a capacity gave up cannot be told apart from
the home fragment any more; `Halves.notes` says so of the split at hand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from streams import stitches
from streams.fragments import CONFLICTS, CREATED, EVENTS, MODIFIED, STREAMS, Part, united_parts
from streams.mapping import Key
from streams.profile import Profile, load
from streams.schema import Schema


class SplitError(ValueError):
    """A split that cannot be made; the message says why, and what would be accepted."""


class Halves(NamedTuple):
    """What a split makes: the profile that keeps its id, the new one, and what could not be told apart, in words."""

    kept: Profile
    made: Profile
    notes: list[str]


def split(
    schema: Schema, profile: Profile, keys: Sequence[Key], new_id: int, at_us: int, *, apart: bool = True
) -> Halves:
    """Gives the two halves of a profile, of which the new one has `keys`; `profile` stays as it is.

    `apart`: neither is stitched to the other again by an event that names keys of both. Raises SplitError when the
    keys are not the profile's, are none, or are all that it has.
    """
    moving = dict.fromkeys(keys)
    mine = dict.fromkeys(profile.all_keys())
    for name, text in moving:
        if (name, text) not in mine:
            known = ", ".join(f"{name}={text}" for name, text in mine)
            raise SplitError(f"{name}={text} is no key of this profile; it has {known[:1000]}")
    staying = [key for key in mine if key not in moving]
    if not moving or not staying:
        told = "name at least one key for the new profile" if not moving else "at least one key must stay"
        raise SplitError(f"{told}; the profile has {len(mine)} keys")
    stored: dict[str, Any] = orjson.loads(profile.dump())
    parts = {(part[0], part[1]): (part[2], part[3]) for part in stored.get("p", ())}
    if not parts and profile.home is not None:
        parts = {profile.home: (stored["f"], stored["m"])}
    stays_memory, goes_memory = stitches.divided(stored.get("s"), moving)
    kept = _half(schema, profile.id, profile, staying, parts, stays_memory, at_us)
    made = _half(schema, new_id, profile, list(moving), parts, goes_memory, at_us)
    kept.meta[CONFLICTS], made.meta[CONFLICTS] = profile.meta[CONFLICTS], 0  # with what is remembered of refusals
    for half in (kept, made):
        stitches.note_origin(half, at_us)
    if apart:
        stitches.note_split(kept, moving, at_us)
        stitches.note_split(made, staying, at_us)
    return Halves(kept, made, _notes(profile, parts, staying, list(moving)))


def _half(
    schema: Schema,
    id: int,  # noqa: A002
    whole: Profile,
    keys: Sequence[Key],
    parts: Mapping[Key, Part],
    memory: stitches.Memory | None,
    at_us: int,
) -> Profile:
    """Makes a profile of some keys and of the parts that they gave."""
    others = {key for key in whole.all_keys() if key not in keys}
    own: dict[Key, Part] = {}
    for home, part in parts.items():
        if home in keys or (home not in others and whole.home in keys):
            fields, meta = orjson.loads(orjson.dumps(part))
            own[home] = (fields, meta)
    given = _texts_of(schema, keys, parts)
    for fields, _ in own.values():
        _take_out(schema, fields, others)
    home = _home(schema, whole, keys, own)
    if given:
        if home not in own:
            own[home] = ({}, [at_us, at_us, 0, 0, []])
        for state_key, state in given.items():
            fields = own[home][0]
            slot = schema.by_key[state_key]
            fields[state_key] = slot.combine(fields[state_key], state) if state_key in fields else state
    fields, meta = united_parts(schema, own.values(), at_us)
    body: dict[str, Any] = {"f": fields, "m": meta, "h": home, "k": {}}
    for name, text in keys:
        body["k"].setdefault(name, []).append(text)
    if own.keys() - {home}:
        body["p"] = [[*key, *part] for key, part in own.items()]
    inside = {*keys}
    links = [each for each in whole.edges or () if {(*each[:2],), (*each[2:4],)} <= inside]
    if links:
        body["e"] = links
    if memory:
        body["s"] = memory
    return load(schema, id, orjson.dumps(body))


def _home(schema: Schema, whole: Profile, keys: Sequence[Key], parts: Collection[Key]) -> Key:
    """Gives the home fragment of a half: the profile's own, else the strongest key with a part, else the strongest."""
    if whole.home in keys and whole.home is not None:
        return whole.home
    ranks = {each.name: each.rank or 0 for each in schema.identities}
    ordered = sorted(keys, key=lambda key: ranks.get(key[0], len(ranks)))
    return next((key for key in ordered if key in parts), ordered[0])


def _texts_of(schema: Schema, keys: Sequence[Key], parts: Mapping[Key, Part]) -> dict[str, dict[str, int]]:
    """Gives the states of identities of several values, of these keys alone, from whichever part has them."""
    found: dict[str, dict[str, int]] = {}
    for name, text in keys:
        slot = schema.slots.get(name)
        if slot is None or name in schema.singles:
            continue
        times = [part[0][slot.key][text] for part in parts.values() if text in _texts(part, slot.key)]
        if times:
            found.setdefault(slot.key, {})[text] = max(times)
    return found


def _take_out(schema: Schema, fields: dict[str, Any], others: Collection[Key]) -> None:
    """Takes the other half's keys out of the states of identities of several values."""
    for name, text in others:
        slot = schema.slots.get(name)
        state = None if slot is None or name in schema.singles else fields.get(slot.key)
        if slot is None or state is None:
            continue
        if isinstance(state, dict):
            state.pop(text, None)
        elif text in state[0]:  # by latest or oldest: one event's list, with its time
            state[0].remove(text)
        if not (state if isinstance(state, dict) else state[0]):
            del fields[slot.key]


def _texts(part: Part, key: str) -> Collection[str]:
    state = part[0].get(key)
    return state if isinstance(state, dict) else ()


def _notes(profile: Profile, parts: Mapping[Key, Part], staying: Sequence[Key], moving: Sequence[Key]) -> list[str]:
    notes = []
    for side, keys in (("the new profile", moving), ("the profile that stays", staying)):
        if not any(key in parts for key in keys):
            told = ", ".join(f"{name}={text}" for name, text in keys[:5])
            notes.append(
                f"{side} has no values: {told} came only beside stronger keys of the other half, and an event belongs "
                "to the strongest key in it"
            )
    lost = (profile.memory or {}).get("c", (0, 0))[0]
    if lost:
        notes.append(f"{lost} keys were given up by compaction; what they gave cannot be told apart and stays at home")
    return notes


def summary(profile: Profile) -> dict[str, Any]:
    """Gives what a half has, for people: keys, and what its meta says."""
    meta = profile.meta
    return {
        "keys": profile.keys, "events": meta[EVENTS], "streams": meta[STREAMS], "created_us": meta[CREATED],
        "modified_us": meta[MODIFIED],
    }  # fmt: skip
