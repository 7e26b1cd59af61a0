"""What an operator is told of refused and given-up keys: counts always, a line in the log now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter

from daemon import log
from daemon.ingest.unit import Lane
from daemon.metrics import REGISTRY

#: At most a line in so many seconds for each field and reason: a bad client sends a million such events.
EVERY_S: Final = 60.0

_REFUSED = Counter(
    "cohortd_identity_refused_keys",
    "Keys of events that were not taken, by field and reason.",
    ["field", "reason"],
    registry=REGISTRY,
)
_COMPACTED = Counter("cohortd_identity_compacted_keys", "Keys that profiles gave up by compaction.", registry=REGISTRY)


@dataclass(slots=True)
class Refusals:
    """Gathers what batches tell; use `told` once a batch is on its way."""

    _waiting: dict[tuple[str, str], int] = field(default_factory=dict)
    _said_at: dict[tuple[str, str], float] = field(default_factory=dict)
    _compacted: int = 0
    _compacted_at: float | None = None

    def told(self, lane: Lane, refused: Mapping[tuple[str, str], tuple[int, int]], compacted: int) -> None:
        """Counts what one batch refused and gave up, and logs it unless it was logged lately."""
        now = time.monotonic()
        for what, (count, position) in refused.items():
            name, reason = what
            _REFUSED.labels(name, reason).inc(count)
            waiting = self._waiting.get(what, 0) + count
            if now - self._said_at.get(what, -EVERY_S) < EVERY_S:
                self._waiting[what] = waiting
                continue
            self._waiting.pop(what, None)
            self._said_at[what] = now
            facts = {"lane": lane, "position": position} if position else {}
            log.get().warning("keys_refused", field=name, reason=reason, count=waiting, **facts)
        if compacted:
            _COMPACTED.inc(compacted)
            self._compacted += compacted
            if self._compacted_at is None or now - self._compacted_at >= EVERY_S:
                log.get().info("keys_compacted", count=self._compacted)
                self._compacted, self._compacted_at = 0, now
