"""An authorization that was opened for use, and one that was accepted and is not stored yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectors.sdk.declare import AuthMethod
from connectors.sdk.run import Credentials
from connectors.sdk.secret import Secret, hidden
from daemon.jobs.credentials import Given
from daemon.jobs.limiter import Limiter
from daemon.jobs.rotation import place
from daemon.store import auths as stored
from daemon.store.auths import AuthRow, SecretRow
from daemon.vault import Vault


@dataclass(frozen=True, slots=True)
class OpenedAuth:
    """An authorization that may be used: its values, secrets and all, for the one run, check or look-up."""

    id: str
    method: AuthMethod[Any]
    credentials: Credentials = field(repr=False)
    limiter: Limiter = field(repr=False)
    made: Callable[[str], None] = field(repr=False)
    secrets: Sequence[Secret] = field(repr=False)

    async def request(self) -> None:
        """Waits for its turn in the authorization's rate, and counts a request."""
        await self.limiter.turn()
        self.made(self.id)

    def hidden(self, text: str) -> str:
        """Gives `text` without the authorization's secrets."""
        return hidden(text, self.secrets)

    def cleanse(self, error: BaseException) -> None:
        """Takes the authorization's secrets out of what an error, its causes and its parts say."""
        waiting: list[BaseException | None] = [error]
        seen: set[int] = set()
        while waiting:
            each = waiting.pop()
            if each is None or id(each) in seen:
                continue
            seen.add(id(each))
            each.args = tuple(self.hidden(part) if isinstance(part, str) else part for part in each.args)
            waiting += [each.__cause__, each.__context__]
            if isinstance(each, BaseExceptionGroup):
                waiting += each.exceptions


@dataclass(frozen=True, slots=True)
class Prepared:
    """A new authorization, accepted and checked, not stored yet. `insert` stores it, in whoever's transaction."""

    row: AuthRow
    given: Given = field(repr=False)
    vault: Vault = field(repr=False)

    def insert(self, db: sqlite3.Connection) -> None:
        """Seals its secrets and stores it.

        Sealed here, in the writer's turn: a key that is replaced meanwhile seals what comes after it.
        """
        stored.insert(db, self.row, [self._secret(name, value) for name, value in self.given.secrets.items()])

    def _secret(self, name: str, value: Secret | str) -> SecretRow:
        if isinstance(value, str):
            return SecretRow(self.row.id, name, None, None, value)
        sealed = self.vault.seal(value, place(self.row.id, name))
        return SecretRow(self.row.id, name, sealed.key_id, sealed.data, None)
