"""What imports and exports need of the log and of the profiles, in one place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from structlog.typing import FilteringBoundLogger

from connectors.sdk.declare import AudienceExport, EventsExport, Import
from daemon.jobs.exports import LoggedEvents, Members, Snapshot
from daemon.jobs.imports import ImportedRows, Imports
from daemon.settings import Settings
from daemon.store.collector import Collector
from daemon.store.database import Database


class JobData:
    """See `daemon.jobs.parts.Data`."""

    def __init__(
        self,
        log: Database,
        state: Database,
        collector: Collector,
        definitions: Callable[[], Snapshot],
        settings: Settings,
    ) -> None:
        self._log = log
        self._state = state
        self._definitions = definitions
        self._imports = Imports(log, collector, settings)

    def rows(
        self, job_id: str, config: Import, logger: FilteringBoundLogger
    ) -> AbstractAsyncContextManager[ImportedRows]:
        """Opens the way of one import's rows into the log."""
        return self._imports.rows(job_id, config, logger)

    def members(self, config: AudienceExport) -> Members:
        """Gives the members of an export's audiences."""
        return Members(self._state, self._definitions, config.audiences)

    def events(self, config: EventsExport) -> LoggedEvents:
        """Gives the events of the log."""
        del config
        return LoggedEvents(self._log)

    async def forget(self, job_id: str) -> None:
        """Deletes what is kept for the imports of a job that is deleted."""
        await self._imports.forget(job_id)
