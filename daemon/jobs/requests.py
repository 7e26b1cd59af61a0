"""What is noted of authorizations between two writes: requests made, when each was used, and when it last worked."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import prometheus_client
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from daemon import clock
from daemon.metrics import REGISTRY
from daemon.model.authorization import Health
from daemon.store import auths
from daemon.store.database import Database

_REQUESTS = prometheus_client.Counter(
    "cohortd_authorization_requests",
    "API requests made with an authorization.",
    ["authorization"],
    registry=REGISTRY,
)


class _Statuses(Collector):
    def __init__(self, health: Mapping[str, Health]) -> None:
        self._health = health

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "cohortd_authorizations", "Authorizations, by what was last found out of them.", labels=["status"]
        )
        counts = Counter(self._health.values())
        for health in Health:
            family.add_metric([health], counts[health])
        yield family


@contextmanager
def showing_statuses(health: Mapping[str, Health]) -> Iterator[None]:
    """Shows in `/metrics` how many authorizations are in which status, until left."""
    statuses = _Statuses(health)
    REGISTRY.register(statuses)
    try:
        yield
    finally:
        REGISTRY.unregister(statuses)


class Noted(NamedTuple):
    """What is to be written, by authorization: requests, and moments in microseconds since the epoch."""

    requests: Mapping[str, int]
    used: Mapping[str, int]
    worked: Mapping[str, int]


class Requests:
    """Counts in memory; `flush` writes. A process that is killed loses what it counted since the last one."""

    def __init__(self, state: Database) -> None:
        self._state = state
        self._requests: Counter[str] = Counter()
        self._used: dict[str, int] = {}
        self._worked: dict[str, int] = {}

    def made(self, auth_id: str) -> None:
        """Counts one API request."""
        self._requests[auth_id] += 1
        self._used[auth_id] = clock.now_us()
        _REQUESTS.labels(auth_id).inc()

    def used(self, auth_id: str) -> None:
        """Notes that it was opened for use."""
        self._used[auth_id] = clock.now_us()

    def worked(self, auth_id: str) -> None:
        """Notes that the provider accepted it, as it did before."""
        self._worked[auth_id] = clock.now_us()

    def forget(self, auth_id: str) -> None:
        """Takes the counts of one that was deleted away."""
        for each in (self._requests, self._used, self._worked):
            each.pop(auth_id, None)
        if (auth_id,) in _REQUESTS._metrics:  # noqa: SLF001  (the library raises where there is none)
            _REQUESTS.remove(auth_id)

    async def flush(self) -> None:
        """Writes what was noted; what cannot be written stays noted."""
        if not (self._requests or self._used or self._worked):
            return
        noted = Noted(dict(self._requests), dict(self._used), dict(self._worked))
        now_us = clock.now_us()

        def write(db: sqlite3.Connection) -> None:
            auths.count(db, noted.requests, noted.used, noted.worked, now_us)

        await self._state.write(write)
        self._requests.subtract(noted.requests)
        self._requests += Counter()  # leaves those above zero
        for now, written in ((self._used, noted.used), (self._worked, noted.worked)):
            for auth_id, moment_us in written.items():
                if now.get(auth_id) == moment_us:
                    del now[auth_id]
