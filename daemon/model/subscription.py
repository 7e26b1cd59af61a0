"""Which triggers a subscription wants, and how far it is done with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum


class Events(StrEnum):
    """Which kinds of trigger a subscription takes."""

    BOTH = "both"
    ENTERS = "enters"
    EXITS = "exits"

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in the trigger log that it takes."""
        return {"both": ("enter", "exit"), "enters": ("enter",), "exits": ("exit",)}[self.value]


class Outcome(StrEnum):
    """What became of a message that was handed to a destination."""

    DELIVERED = "delivered"
    OMITTED = "omitted"
    FAILED = "failed"
    DROPPED = "dropped"  # never handed over: it came in quiet hours


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filter of a subscription: audiences by number, and kinds."""

    audiences: frozenset[int]
    events: Events


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is done beyond the two cursors: first trigger ids of live messages, profiles of the backfill."""

    live: frozenset[int] = frozenset()
    backfill: frozenset[int] = frozenset()

    def dump(self) -> str:
        """Gives it as JSON text."""
        parts = {"live": sorted(self.live), "backfill": sorted(self.backfill)}
        return json.dumps({name: ids for name, ids in parts.items() if ids}, separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> Ahead:
        """Reads what `dump` gave."""
        parts = json.loads(text)
        return cls(frozenset(parts.get("live", ())), frozenset(parts.get("backfill", ())))
