"""Compaction: a profile gives up the keys that it does not need any more, by their number or by their age.

Keys of identities with several values only (device ids, cookies, e-mail addresses): those of one value are values of
the profile too. Never given up is what says who a known person is, the keys of the strongest identity that the profile
has; of somebody who is known by the weakest identity alone, the key named last stays. Links to what is given up go; all
merged values stay. It happens when an event is applied, as of its arrival, so that a replay comes out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streams.guards import Limits
from streams.mapping import Key
from streams.merge import DAY_US
from streams.profile import Profile
from streams.schema import Schema


class Compaction:
    """Compacts the profiles of one schema by the limits that hold; make one where `limits.compacting`."""

    def __init__(self, schema: Schema, limits: Limits) -> None:
        self._schema = schema
        self._keys = limits.compact_keys
        self._days = limits.compact_us // DAY_US
        self._since = limits.since_us // DAY_US
        self._ranks = {each.name: each.rank or 0 for each in schema.identities}
        self._many = frozenset(each.name for each in schema.identities if not each.single)
        self._weakest = max(self._ranks.values(), default=0)

    def after_event(self, profile: Profile, named: Sequence[Key], received_us: int) -> int:
        """Notes the keys that an event named, and gives up what is too much or too old; returns how many keys.

        They stand in `profile.dropped` then, for their identity rows.
        """
        day = received_us // DAY_US
        memory = profile.memory
        if memory is None:
            memory = profile.memory = {}
        moved = False
        for name, text in named:
            if name in self._many:
                seen = memory.setdefault("t", {}).setdefault(name, {})
                if seen.get(text, -1) < day:
                    seen[text] = day
                    moved = True
        gone: list[Key] = []
        excess = profile.key_count() - self._keys if self._keys else 0
        if excess > 0 or (self._days and memory.get("d", -1) < day):
            if self._days:
                memory["d"] = day
                moved = True
            gone = self._chosen(profile, memory, named, excess, day - self._days if self._days else None)
        if gone:
            profile.let_go(self._schema, gone)
            memory["c"] = [memory.get("c", (0, 0))[0] + len(gone), received_us]
        if moved or gone:
            profile.remember(memory)
        return len(gone)

    def _chosen(
        self, profile: Profile, memory: dict[str, Any], named: Sequence[Key], excess: int, floor: int | None
    ) -> list[Key]:
        """Gives the keys to be given up: all from before the day `floor`, and the oldest `excess` in any case."""
        seen = memory.get("t", {})
        kept = {*named, *self._kept(profile, seen)}
        able = [
            (seen.get(name, {}).get(text, self._since), name, text)
            for name, texts in profile.keys.items()
            if name in self._many
            for text in texts
            if (name, text) not in kept
        ]
        able.sort(key=lambda each: each[0])  # of one day, those first that came first
        return [
            (name, text)
            for place, (day, name, text) in enumerate(able)
            if place < excess or (floor is not None and day < floor)
        ]

    def _kept(self, profile: Profile, seen: dict[str, dict[str, int]]) -> list[Key]:
        """Gives the keys that say who this is."""
        ranks = self._ranks
        strongest = min(
            (name for name, texts in profile.keys.items() if texts and name in ranks), key=ranks.__getitem__
        )
        keys = [(strongest, text) for text in profile.keys[strongest]]
        if ranks[strongest] < self._weakest or strongest not in self._many:
            return keys
        times = seen.get(strongest, {})
        return [max(reversed(keys), key=lambda key: times.get(key[1], self._since))]
