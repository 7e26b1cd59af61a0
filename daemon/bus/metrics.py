"""What `/metrics` says of the bus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from daemon.metrics import REGISTRY
from daemon.model.subscription import Outcome

_TRIGGERS = Counter(
    "cohortd_triggers",
    "Triggers handed to destinations, by what became of them.",
    ["job", "outcome"],
    registry=REGISTRY,
)


def count(job_id: str, outcome: Outcome, triggers: int) -> None:
    """Counts triggers that were delivered or omitted, or an attempt that failed."""
    _TRIGGERS.labels(job_id, outcome).inc(triggers)


def forget(job_id: str) -> None:
    """Takes a job's counts away."""
    for outcome in Outcome:
        _TRIGGERS.remove(job_id, outcome)


class _Lag(Collector):
    def __init__(self, behind: Callable[[], Mapping[str, int]]) -> None:
        self._behind = behind

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "cohortd_subscription_behind_triggers",
            "Triggers of the log behind a job's cursor, those that it does not want among them.",
            labels=["job"],
        )
        for job_id, triggers in self._behind().items():
            family.add_metric([job_id], triggers)
        yield family


@contextmanager
def showing_lag(behind: Callable[[], Mapping[str, int]]) -> Iterator[None]:
    """Shows by job how far its cursor is behind, until left."""
    lag = _Lag(behind)
    REGISTRY.register(lag)
    try:
        yield
    finally:
        REGISTRY.unregister(lag)
