"""Messages that are no triggers, lent to a connector as if they were: system events, and the sample of a dry run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Unpack

from connectors.sdk.run import Attempt, Batching, Facts, Leases, Message
from daemon.model.subscription import Outcome

#: Gives the next message and waits for it; asked again only when that before it is settled.
Next = Callable[[], Awaitable[Message]]
Settled = Callable[[Message, Outcome, Attempt], None]


class OneByOne:
    """A `TriggerSource` of single messages, each given out when the one before it is settled."""

    def __init__(self, following: Next, settled: Settled) -> None:
        self._following = following
        self._settled = settled
        self._turn = asyncio.Lock()
        self._ordered = False
        self._free = asyncio.Event()
        self._free.set()

    def leases(self, batching: Batching, *, fields: Sequence[str] | None, ordered: bool) -> Leases:
        """Begins to give them out; batches have one message each."""
        del batching, fields
        self._ordered = ordered  # its leases are settled later than the next is asked for
        return self

    async def next(self, timeout_s: float | None = None) -> OneLease | None:
        """Gives the next message, None after `timeout_s` without one."""
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                if not self._ordered:
                    await self._free.wait()
                message = await self._following()
                self._free.clear()
                return OneLease(message, self._settle)
        except TimeoutError:
            return None

    def _settle(self, message: Message, outcome: Outcome, attempt: Attempt) -> None:
        self._settled(message, outcome, attempt)
        if outcome is not Outcome.FAILED:
            self._free.set()


class OneLease:
    """One message on loan; see `connectors.sdk.run.Lease`."""

    def __init__(self, message: Message, settle: Settled) -> None:
        self._message = message
        self._settle = settle
        self._number = 1
        self._facts: Facts = {}
        self.settled = False

    @property
    def messages(self) -> Sequence[Message]:
        """The message; nothing once settled."""
        return () if self.settled else (self._message,)

    def note(self, **facts: Unpack[Facts]) -> None:
        """Says what is to be written down of the attempt under way."""
        self._facts.update(facts)

    def ack(self, **facts: Unpack[Facts]) -> None:
        """Ends it as delivered."""
        self._end(Outcome.DELIVERED, facts, "")

    def omit(self, reason: str, **facts: Unpack[Facts]) -> None:
        """Ends it as refused for good."""
        self._end(Outcome.OMITTED, facts, reason)

    def failed(self, error: Exception, **facts: Unpack[Facts]) -> None:
        """Notes an attempt that failed."""
        if not self.settled:
            self._settle(self._message, Outcome.FAILED, self._attempt(facts, str(error) or type(error).__name__))
            self._number += 1

    def _end(self, outcome: Outcome, facts: Facts, answer: str) -> None:
        if not self.settled:
            self.settled = True
            self._settle(self._message, outcome, self._attempt(facts, answer))

    def _attempt(self, facts: Facts, answer: str) -> Attempt:
        known = self._facts | facts
        size = known.get("size", len(self._message.body))
        return Attempt(self._number, known.get("to", ""), size, known.get("status"), known.get("answer", answer))
