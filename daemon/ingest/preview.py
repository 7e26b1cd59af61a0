"""Who would enter and exit if definitions changed: a pass over all profiles that changes nothing.

Profiles are seen as the changed schema would show them: values are kept, of a field that begins anew there are none,
and nothing is mapped again. What is found is against the members now, so moves that are under way anyway (a
background pass, a timer that is due) are in it.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeAlias

import orjson

from daemon import clock
from daemon.ingest.definitions import Definitions
from daemon.ingest.slices import Slices
from daemon.store import profiles
from daemon.store.database import Database
from streams.audience import AudienceSet
from streams.profile import Profile, load, new
from streams.profile_view import fields_read, viewer

PAGE: Final = 2048
#: Profiles evaluated before the clock is looked at.
SLICE: Final = 64
#: Profiles named in each sample.
SAMPLE: Final = 10
#: All ids: SQLite's largest.
LAST_ID: Final = 2**63 - 1
#: Combinations of memberships that are counted before they are summed up.
_ALIKE: Final = 4096
#: Spreads a sample over all ids; the golden ratio, as in Fibonacci hashing.
_SPREAD: Final = 0x9E3779B97F4A7C15

#: The keys of a profile: identity field to its values.
Keys: TypeAlias = Mapping[str, list[str]]


@dataclass(slots=True)
class Sample:
    """Some of the profiles that are added, spread over all ids; the same for the same profiles."""

    _kept: list[tuple[int, int, Keys]] = field(default_factory=list)

    def add(self, profile_id: int, keys: Keys) -> None:
        """Takes a profile, or leaves it."""
        place = profile_id * _SPREAD % 2**64
        if len(self._kept) < SAMPLE:
            heapq.heappush(self._kept, (place, profile_id, keys))
        elif place > self._kept[0][0]:
            heapq.heapreplace(self._kept, (place, profile_id, keys))

    @property
    def profiles(self) -> list[tuple[int, Keys]]:
        """The profiles, by their ids."""
        return sorted((profile_id, keys) for _, profile_id, keys in self._kept)


@dataclass(slots=True)
class Moves:
    """What would become of one audience: its members now, its size then, and who moves."""

    members: int = 0
    size: int = 0
    enters: int = 0
    exits: int = 0
    sample_enters: Sample = field(default_factory=Sample)
    sample_exits: Sample = field(default_factory=Sample)


@dataclass(slots=True)
class Preview:
    """What was found: how many `profiles` were looked at, and the moves of each audience by its number."""

    profiles: int = 0
    audiences: dict[int, Moves] = field(default_factory=dict)


async def preview(
    state: Database, after: Definitions, numbers: Collection[int], stored: Collection[int], now: datetime
) -> Preview:
    """Evaluates audiences of the definitions `after` over all profiles as of `now`; those in `stored` have members.

    Reads in pages, each of one moment: profiles that change meanwhile are counted as they were when their page was
    read. Memory is bounded by the page.
    """
    wanted = tuple(sorted(number for number in set(numbers) if number in after.audience_set.audiences))
    found = Preview(audiences={number: Moves() for number in wanted})
    asked = [number for number in wanted if number in stored]
    look = _Look(after, wanted, now)
    counted = _Count(found)
    slices = Slices()
    last = 0
    while True:
        got = await state.read(partial(_page, after=last, audiences=asked))
        if got is None:
            counted.sum()
            return found
        last, pages = got
        for texts in pages:
            members: dict[int, int] = {}
            for profile_id, number, sequence, _ in orjson.loads(texts.memberships):
                members[profile_id] = members.get(profile_id, 0) | (sequence & 1) << number
            rows: list[tuple[int, dict[str, Any]]] = orjson.loads(texts.bodies)
            for start in range(0, len(rows), SLICE):
                for profile_id, body in rows[start : start + SLICE]:
                    counted.add(profile_id, body["k"], look.matched(profile_id, body), members.get(profile_id, 0))
                if slices.over:
                    await slices.turn()


def _page(db: sqlite3.Connection, after: int, audiences: list[int]) -> tuple[int, list[profiles.Slice]] | None:
    return profiles.in_range(db, after, LAST_ID, PAGE, audiences)


class _Look:
    """Stored profiles, seen with no more of them than the audiences read."""

    def __init__(self, definitions: Definitions, numbers: tuple[int, ...], now: datetime) -> None:
        known = definitions.audience_set.audiences
        self._schema = definitions.schema
        # Its own, so that asking does not fill what the loop keeps ready.
        self._set = AudienceSet({number: known[number] for number in numbers}, self._schema)
        self._numbers = numbers
        self._now = now
        self._now_us = clock.to_us(now)
        names = {name for number in numbers for name in known[number].fields}
        self._view = viewer(self._schema, names)
        read = fields_read(self._schema, names)
        self._expiring = any(slot.name in read for slot in self._schema.expiring)
        self._seen = new(0, 0)

    def matched(self, profile_id: int, body: dict[str, Any]) -> int:
        """Gives the bit of each audience that the profile would be in."""
        if self._expiring:
            profile = load(self._schema, profile_id, body)
            profile.expire(self._schema, self._now_us)
        else:
            profile = self._seen
            profile.id, profile.meta, profile.keys = profile_id, body["m"], body["k"]
            profile.values = self._view(profile_id, body)
        try:
            return self._set.matched(self._numbers, profile, self._now)
        except Exception:  # noqa: BLE001  (a defect in one filter: it has no members, the others are asked)
            return sum(1 << number for number in self._numbers if self._one(number, profile))

    def _one(self, number: int, profile: Profile) -> bool:
        try:
            return self._set.evaluate((number,), profile, self._now)[0]
        except Exception:  # noqa: BLE001  (see above)
            return False


class _Count:
    """Counts who is in what, and who moves. Profiles with the same memberships are counted together."""

    def __init__(self, found: Preview) -> None:
        self._found = found
        self._alike: dict[tuple[int, int], int] = {}

    def add(self, profile_id: int, keys: Keys, matched: int, members: int) -> None:
        """Counts a profile by the bits of the audiences that it would be in, and is in."""
        alike = self._alike
        each = (matched, members)
        alike[each] = alike.get(each, 0) + 1
        moved = matched ^ members
        while moved:
            number = moved.bit_length() - 1
            moved ^= 1 << number
            moves = self._found.audiences[number]
            (moves.sample_enters if matched >> number & 1 else moves.sample_exits).add(profile_id, keys)
        if len(alike) > _ALIKE:
            self.sum()

    def sum(self) -> None:
        """Takes what was counted into the result."""
        for (matched, members), count in self._alike.items():
            self._found.profiles += count
            for number, moves in self._found.audiences.items():
                is_in, was_in = matched >> number & 1, members >> number & 1
                moves.size += count * is_in
                moves.members += count * was_in
                moves.enters += count * (is_in > was_in)
                moves.exits += count * (was_in > is_in)
        self._alike.clear()
