"""What `/metrics` says of jobs and authorizations. Labels are states and outcomes, which are few."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from prometheus_client import Counter, Gauge

from daemon.metrics import REGISTRY
from daemon.model.job import JobState
from daemon.store import auths, jobs
from daemon.store.database import Database

RUNS = Counter("cohortd_job_runs", "Runs of jobs that ended, by how they ended.", ["outcome"], registry=REGISTRY)
DELIVERIES = Counter(
    "cohortd_deliveries", "Attempts at sending, by what became of them.", ["outcome"], registry=REGISTRY
)
API_REQUESTS = Counter("cohortd_api_requests", "Requests that jobs made by authorizations.", registry=REGISTRY)
_JOBS = Gauge("cohortd_jobs", "Jobs, by state.", ["state"], registry=REGISTRY)
_AUTHORIZATIONS = Gauge("cohortd_authorizations", "Authorizations, by health.", ["status"], registry=REGISTRY)


async def refresh(state: Database) -> None:
    """Reads how many jobs and authorizations there are; while the store cannot be read, the last counts stand."""
    with suppress(sqlite3.Error):
        by_state, health = await state.read(lambda db: (jobs.states(db), list(auths.statuses(db).values())))
        for each in JobState:
            _JOBS.labels(each.value).set(by_state.get(each.value, 0))
        for status in ("healthy", "unhealthy", "unknown"):
            _AUTHORIZATIONS.labels(status).set(sum(each == status for each in health))
