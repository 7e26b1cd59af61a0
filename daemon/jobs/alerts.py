"""What a job of alerts is given: the system events that its owner chose, from where it was."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson

from connectors.sdk.declare import SystemExport
from connectors.sdk.run import Attempt, Message
from daemon.jobs.lent import OneByOne
from daemon.jobs.system import SystemEvent
from daemon.model.subscription import Outcome


class Source(Protocol):
    """Where system events come from."""

    async def head(self) -> int:
        """Gives the number of the last one."""

    def events(self, after: int) -> AsyncIterator[Sequence[SystemEvent]]:
        """Gives pages of them behind `after`, and waits for more."""


def wanted(config: SystemExport, event: SystemEvent, job_id: str) -> bool:
    """Says whether a job of alerts tells of an event; never of itself, which would have no end."""
    if event.subject_id == job_id or (config.verbs and event.verb not in config.verbs):
        return False
    if event.verb == "heartbeat" and "heartbeat" not in config.verbs:
        return False
    if event.subject not in config.subjects:
        return False
    match event.subject:
        case "job":
            return not config.jobs or event.subject_id in config.jobs
        case "authorization":
            return not config.authorizations or event.subject_id in config.authorizations
    return True


async def source(
    job_id: str,
    config: SystemExport,
    checkpoint: Any,
    events: Source,
    save: Callable[[object], Awaitable[None]],
    count: Callable[[Outcome, Attempt], None],
) -> OneByOne:
    """Gives the events behind the checkpoint one by one; a new job has one from its creation on."""
    after = checkpoint["after"] if isinstance(checkpoint, dict) else await events.head()
    if not isinstance(checkpoint, dict):
        await save({"after": after})
    pages = events.events(after)
    waiting: deque[SystemEvent] = deque()
    given = after

    async def following() -> Message:
        nonlocal given
        if given > after:  # that before it is settled
            await save({"after": given})
        while True:
            while not waiting:
                page = await anext(pages)
                waiting.extend(each for each in page if wanted(config, each, job_id))
            event = waiting.popleft()
            given = event.number
            body = orjson.dumps({"id": event.id, **event.content}, default=str)
            return Message(event.id, body, 0, 0)

    def settled(_: Message, outcome: Outcome, attempt: Attempt) -> None:
        count(outcome, attempt)

    return OneByOne(following, settled)
