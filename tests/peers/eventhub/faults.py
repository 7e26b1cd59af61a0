"""Faults that a test asks for: where, what, how often, after how many that go well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Fault:
    """`on`: attach, cbs, management, send. `kind` says what happens there, `condition` with which AMQP error.

    On send: reject, release, detach, close (the connection), drop (the connection, before storing), store-then-drop,
    silent (no answer), delay (answer after `seconds`). On attach: refuse, silent. On cbs and management: `status`,
    or silent.
    """

    on: str
    kind: str
    condition: str = "amqp:internal-error"
    description: str = "a fault of the test"
    status: int = 500
    times: int = 1
    skip: int = 0
    seconds: float = 0.0
    hit: int = 0


@dataclass
class Faults:
    """Those that are set, in order."""

    faults: list[Fault] = field(default_factory=list)

    def add(self, **facts: Any) -> None:
        """Sets one."""
        self.faults.append(Fault(**facts))

    def take(self, on: str) -> Fault | None:
        """Gives the fault that happens now, if one does."""
        for each in self.faults:
            if each.on == on:
                if each.skip > 0:
                    each.skip -= 1
                    return None
                if each.times > 0:
                    each.times -= 1
                    each.hit += 1
                    return each
        return None
