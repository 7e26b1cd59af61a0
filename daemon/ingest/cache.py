"""Profiles in memory, bounded by count and bytes.

An entry is what the loop knows of a profile, newer than the database while a bundle is on its way: an entry that a
read under way might not see yet is never dropped. Entries stand in the order of the step that last touched them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice
from typing import Final, TypeAlias

import orjson

from streams.mapping import Key
from streams.profile import Profile

#: By audience: how many transitions there were, and the time of the last enter.
Memberships: TypeAlias = Mapping[int, tuple[int, int]]

#: What a profile takes in memory, by measurement: this much by itself, and a multiple of its stored text.
ENTRY_BYTES: Final = 1500
TEXT_FACTOR: Final = 7
#: What one is taken for until it is stored for the first time.
NEW_BYTES: Final = 6000


class Entry:
    """A profile with its memberships and its timer.

    `members` has a bit for each audience number that it is a member of now. `ledger` is the JSON text of
    `[[audience, sequence, entered_us], …]`, a text because it is only read when a membership moves. `unit` is the last
    step of ingest that changed it. `due_us` is the stored timer. `stored` says whether the database has ever had it.
    """

    __slots__ = ("due_us", "ledger", "members", "profile", "size", "stored", "unit")

    def __init__(
        self,
        profile: Profile,
        ledger: str = "[]",
        members: int = 0,
        due_us: int | None = None,
        size: int = ENTRY_BYTES,
        *,
        stored: bool = True,
    ) -> None:
        self.profile = profile
        self.ledger = ledger
        self.members = members
        self.due_us = due_us
        self.size = size
        self.stored = stored
        self.unit = 0

    def memberships(self) -> dict[int, tuple[int, int]]:
        """Gives what is known of the memberships, former ones too."""
        return {number: (sequence, entered_us) for number, sequence, entered_us in orjson.loads(self.ledger)}

    def keep(self, memberships: Memberships) -> None:
        """Takes memberships as they are now."""
        self.ledger = orjson.dumps([(number, *each) for number, each in memberships.items()]).decode()


class Cache:
    """Entries by profile id, and their profiles by key."""

    __slots__ = ("_max_bytes", "_max_count", "by_id", "by_key", "bytes", "gone")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self.bytes = 0
        #: In the order in which they are dropped. A plain dict is slow there: finding its first entry walks over the
        #: gaps of all that were taken from its front.
        self.by_id: OrderedDict[int, Entry] = OrderedDict()
        self.by_key: dict[Key, Profile] = {}
        #: Profiles that are no more, by the step that took them away: a read under way may still bring them.
        self.gone: dict[int, int] = {}

    def add(self, entry: Entry) -> None:
        """Takes an entry in, with all keys of its profile."""
        profile = entry.profile
        self.by_id[profile.id] = entry
        self.bytes += entry.size
        by_key = self.by_key
        for field, values in profile.keys.items():
            for value in values:
                by_key[field, value] = profile

    def resize(self, entry: Entry, text_bytes: int) -> None:
        """Notes how long the profile's stored text is now."""
        size = ENTRY_BYTES + TEXT_FACTOR * text_bytes
        self.bytes += size - entry.size
        entry.size = size

    def forget(self, entry: Entry, unit: int) -> None:
        """Drops the entry of a profile that the step `unit` takes away; its keys may have a new owner already."""
        profile = entry.profile
        self._drop(entry)
        self.gone[profile.id] = unit

    def touch(self, entry: Entry, unit: int) -> None:
        """Notes that the step `unit` changes an entry: it is now the last to be dropped."""
        entry.unit = unit
        self.by_id.move_to_end(entry.profile.id)

    def beyond(self, share: float) -> bool:
        """Says whether the bytes are beyond their bound by more than this share of it."""
        return self.bytes > self._max_bytes * (1 + share)

    def evict(self, seen_unit: int, at_most: int) -> bool:
        """Drops up to `at_most` entries beyond the bounds; says whether there may be more to drop.

        Only entries last touched by step `seen_unit` or before: all reads under way see those.
        """
        if self.gone:
            self.gone = {each: unit for each, unit in self.gone.items() if unit > seen_unit}
        if len(self.by_id) <= self._max_count and self.bytes <= self._max_bytes:
            return False
        for entry in list(islice(self.by_id.values(), at_most)):
            if entry.unit > seen_unit:
                return False  # and so are all behind it
            self._drop(entry)
            if len(self.by_id) <= self._max_count and self.bytes <= self._max_bytes:
                return False
        return True

    def empty(self, at_most: int) -> bool:
        """Drops up to `at_most` entries, whatever they are; says whether there are more."""
        for entry in list(islice(self.by_id.values(), at_most)):
            self._drop(entry)
        if not self.by_id:
            self.by_key.clear()
            self.gone.clear()
            self.bytes = 0
        return bool(self.by_id)

    def _drop(self, entry: Entry) -> None:
        profile = entry.profile
        del self.by_id[profile.id]
        self.bytes -= entry.size
        by_key = self.by_key
        for field, values in profile.keys.items():
            for value in values:
                if by_key.get((field, value)) is profile:
                    del by_key[field, value]
