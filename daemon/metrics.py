"""The registry of all metrics. Names begin with `cohortd_`; labels never hold anything of a person."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, ProcessCollector

REGISTRY = CollectorRegistry()
ProcessCollector(namespace="cohortd", registry=REGISTRY)
