"""The daemon's own log as a destination: alerts as lines that whoever watches the log sees."""

from __future__ import annotations

import orjson

from connectors.sdk.declare import Provider, SystemExport, SystemJob
from connectors.sdk.run import Batching, Lease, TriggerRun


class LogSystemEvents(SystemExport):
    """Which system events become lines of the daemon's log."""


async def run(run: TriggerRun[LogSystemEvents]) -> None:
    """Writes a line for each event until cancelled."""

    async def send(lease: Lease) -> None:
        for message in lease.messages:
            facts = orjson.loads(message.body)
            told = {f"of_{name}" if name in ("event", "job", "run") else name: value for name, value in facts.items()}
            run.log.warning("alert_told", **told)

    await run.deliver(send, Batching())


LOG_SYSTEM_EVENTS = SystemJob(
    slug="log_system_events",
    label="Alerts in the log",
    description="Writes a line into the daemon's log when something happens to jobs or authorizations.",
    direction="other",
    config=LogSystemEvents,
    run=run,
)

PROVIDER = Provider(slug="log", label="Log", description="The log of the daemon itself.", jobs=(LOG_SYSTEM_EVENTS,))
