"""Profiles in memory, bounded by count and bytes.

An entry is what the loop knows of a profile, newer than the database while a bundle is on its way: an entry that a
read under way might not see yet is never dropped. Entries stand in the order of the step that last touched them.

Between steps a profile is kept as its stored text: a tenth of the memory of its objects, and parsing it costs less than
the processor waits for objects that lie all over the memory. A step opens it, and stores or rests it in the end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, TypeAlias

import orjson

from streams.mapping import Key
from streams.profile import Profile, load
from streams.schema import Schema

#: By audience: how many transitions there were, and the time of the last enter.
Memberships: TypeAlias = Mapping[int, tuple[int, int]]

#: What an entry takes in memory besides its text, by measurement.
ENTRY_BYTES: Final = 1000
#: What one is taken for until it is stored for the first time.
NEW_BYTES: Final = 6000


class Entry:
    """A profile with its memberships and its timer.

    `text` is its stored form; `profile` its open form, None between steps. `keys` are those that it is found by.
    `members` has a bit for each audience number that it is a member of now. `ledger` is the JSON text of
    `[[audience, sequence, entered_us], …]`, a text because it is only read when a membership moves. `unit` is the last
    step of ingest that changed it. `due_us` is the stored timer. `stored` says whether the database has ever had it.
    `waiting` belongs to the batch under way: events that are to be merged into it; `changed` are the bits of the fields
    that the batch has changed so far.
    """

    __slots__ = (
        "changed", "due_us", "id", "keys", "ledger", "members", "profile", "size", "stored", "text", "unit", "waiting"
    )  # fmt: skip

    def __init__(
        self,
        id: int,  # noqa: A002  (the name of the column)
        text: str = "",
        ledger: str = "[]",
        members: int = 0,
        due_us: int | None = None,
        *,
        profile: Profile | None = None,
        keys: tuple[Key, ...] = (),
        stored: bool = True,
    ) -> None:
        self.id = id
        self.text = text
        self.profile = profile
        self.keys = keys
        self.ledger = ledger
        self.members = members
        self.due_us = due_us
        self.size = ENTRY_BYTES + len(text) if stored else NEW_BYTES
        self.stored = stored
        self.unit = 0
        self.waiting: list[Any] | None = None
        self.changed = 0

    def open(self, schema: Schema) -> Profile:
        """Gives the profile in its open form, the same until `rest`."""
        profile = self.profile
        if profile is None:
            profile = self.profile = load(schema, self.id, self.text)
        return profile

    def read(self, schema: Schema) -> Profile:
        """Gives the profile as it is stored; the entry stays closed."""
        return load(schema, self.id, self.text)

    def rest(self) -> None:
        """Closes the profile; what was changed since it was opened and not stored as `text` is forgotten."""
        self.profile = None

    def memberships(self) -> dict[int, tuple[int, int]]:
        """Gives what is known of the memberships, former ones too."""
        return {number: (sequence, entered_us) for number, sequence, entered_us in orjson.loads(self.ledger)}

    def keep(self, memberships: Memberships) -> None:
        """Takes memberships as they are now."""
        self.ledger = orjson.dumps([(number, *each) for number, each in memberships.items()]).decode()


class Cache:
    """Entries by profile id, and by key."""

    __slots__ = ("_max_bytes", "_max_count", "by_id", "by_key", "bytes", "gone")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self.bytes = 0
        #: In the order in which they are dropped. A plain dict is slow there: finding its first entry walks over the
        #: gaps of all that were taken from its front.
        self.by_id: OrderedDict[int, Entry] = OrderedDict()
        self.by_key: dict[Key, Entry] = {}
        #: Profiles that are no more, by the step that took them away: a read under way may still bring them.
        self.gone: dict[int, int] = {}

    def add(self, entry: Entry) -> None:
        """Takes an entry in, with all its keys."""
        self.by_id[entry.id] = entry
        self.bytes += entry.size
        by_key = self.by_key
        for key in entry.keys:
            by_key[key] = entry

    def keep(self, entry: Entry, text: str) -> None:
        """Takes an open profile's stored form, and closes it."""
        entry.text = text
        entry.profile = None
        size = ENTRY_BYTES + len(text)
        self.bytes += size - entry.size
        entry.size = size

    def forget(self, entry: Entry, unit: int) -> None:
        """Drops the entry of a profile that the step `unit` takes away; its keys may have a new owner already."""
        self._drop(entry)
        self.gone[entry.id] = unit

    def touch(self, entry: Entry, unit: int) -> None:
        """Notes that the step `unit` changes an entry: it is now the last to be dropped."""
        entry.unit = unit
        self.by_id.move_to_end(entry.id)

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
        del self.by_id[entry.id]
        self.bytes -= entry.size
        by_key = self.by_key
        for key in entry.keys:
            if by_key.get(key) is entry:
                del by_key[key]
