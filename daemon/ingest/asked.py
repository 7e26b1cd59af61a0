"""What others ask of the loop: changes of definitions, of identity and of single profiles, each one of its steps.

A command is ordered with the batches, kept in the history, and durable when the call returns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from daemon import log
from daemon.ingest import commands, erase, identity_commands, query_commands, rebuild
from daemon.ingest.cache import Cache
from daemon.ingest.definitions import Definitions
from daemon.ingest.evaluation import Evaluator
from daemon.ingest.identity_commands import GuardChange, Split
from daemon.ingest.query_commands import QueryChange
from daemon.ingest.rebuild import Plan
from daemon.ingest.unit import Head, Lane, Unit
from daemon.store.database import Database
from daemon.store.definitions import AudienceRow, QueryRow, RuleRow
from daemon.store.erasures import Erasure
from daemon.store.guards import GuardRow
from daemon.store.rebuilds import RebuildRow
from streams.mapping import Key
from streams.tombstones import Tombstones

T = TypeVar("T")


class Closed(Exception):  # noqa: N818  (says what happened)
    """The loop has ended; the command was not carried out."""


@dataclass(slots=True)
class Command(Generic[T]):
    """A step that somebody has asked for; it gives its result, and the definitions that hold then (None: the same)."""

    run: Callable[[Unit], Awaitable[tuple[T, Definitions | None]]]
    done: asyncio.Future[T]


@dataclass(slots=True)
class Drain:
    """Somebody who waits until all up to some positions and a moment is done."""

    heads: Mapping[Lane, int]
    at_us: int
    done: asyncio.Future[None]


class Asked:
    """The commands of the loop. What it does with them is `Pipeline`'s."""

    definitions: Definitions
    _cache: Cache
    _committed: dict[Lane, int]
    _evaluator: Evaluator
    _head: Head
    _tombstones: Tombstones

    def __init__(self, events: Database, state: Database) -> None:
        self._events = events
        self._state = state
        self._wake = asyncio.Event()
        self._commands: deque[Command[Any]] = deque()
        self._drains: list[Drain] = []
        self._closed = False

    async def put_query(self, text: str) -> QueryRow:
        """Stores a query under its ALIAS; holds for all events after this. Raises QueryError."""
        (row,) = await self.change_queries(QueryChange(put=[text]))
        return row

    async def delete_query(self, alias: str) -> None:
        """Deletes a query; what it made stays, hidden. Raises NotFound."""
        await self.change_queries(QueryChange(delete=[alias]))

    async def change_queries(self, change: QueryChange) -> list[QueryRow]:
        """Stores and deletes queries as one version of the schema; gives those stored. Raises as `draft` does."""
        before = self.definitions.queries
        rows = await self._command(lambda unit: query_commands.change(unit, self.definitions, change))
        if self.definitions.queries is not before:
            stored = [row.alias for row in rows]
            log.get().info("schema_changed", stored=stored, deleted=list(change.delete), why=change.description)
        return rows

    async def revert_schema(self, number: int, description: str = "") -> bool:
        """Makes the queries those of a version again, as a new version; False when they are already.

        Raises NotFound, QueryError.
        """
        changed = await self._command(
            lambda unit: query_commands.revert(unit, self.definitions, self._state, number, description)
        )
        if changed:
            log.get().info("schema_reverted", version=number, why=description)
        return changed

    async def put_audience(self, text: str, *, name: str | None = None, description: str | None = None) -> AudienceRow:
        """Stores an audience under its ALIAS; existing profiles are evaluated in the background.

        Storing what is stored already changes nothing. Raises QueryError.
        """
        return await self._command(
            lambda unit: commands.put_audience(unit, self.definitions, text, name=name, description=description)
        )

    async def delete_audience(self, name: str) -> None:
        """Deletes an audience by slug or id. Raises NotFound, and Conflict while something depends on it."""
        await self._command(lambda unit: commands.delete_audience(unit, self.definitions, name))

    async def put_rule(
        self, *, rule_id: int | None = None, name: str, priority: int, input: str, output: str,  # noqa: A002
        expression: str, active: bool,
    ) -> RuleRow:  # fmt: skip
        """Stores a routing rule, a new one without `rule_id`. Raises NotFound, QueryError."""
        draft = commands.RuleDraft(name, priority, input, output, expression, active)
        return await self._command(lambda unit: commands.put_rule(unit, self.definitions, draft, rule_id))

    async def delete_rule(self, rule_id: int) -> None:
        """Deletes a routing rule. Raises NotFound."""
        await self._command(lambda unit: commands.delete_rule(unit, self.definitions, rule_id))

    async def plan_rebuild(self, alias: str) -> Plan:
        """Says what applying a query to the past would do. Raises NotFound, and Conflict when it cannot be done."""
        return await rebuild.plan(self.definitions, self._events, self._state, self._committed, alias)

    async def rebuild(self, alias: str, *, incomplete: bool = False) -> RebuildRow:
        """Begins to apply a query to the past, in the background. Raises as `rebuild.begin` does."""
        row = await self._command(
            lambda unit: rebuild.begin(unit, self.definitions, self._events, self._state, alias, incomplete=incomplete)
        )
        log.get().info("query_replay_begun", query=row.alias, fields=list(row.fields), lost=row.lost)
        return row

    async def cancel_rebuild(self) -> RebuildRow:
        """Gives up what `rebuild` began; its fields stay as they are. Raises NotFound when nothing is under way."""
        row = await self._command(lambda unit: rebuild.end(unit, self.definitions, cancelled=True))
        log.get().info("query_replay_cancelled", query=row.alias)
        return row

    def rebuilding(self) -> RebuildRow | None:
        """Gives the query that is being applied to the past and how far it has come; None when there is none."""
        return self._head.past

    async def erase(self, field: str, value: str, *, allow_return: bool = False) -> Erasure:
        """Erases the profile that owns a key. Raises NotFound.

        Exits carry the last fields. Events that name the person change nothing from then on, nor do those that are in
        the log already; with `allow_return`, those that come later make a new profile. `to_scrub` is set.
        """
        return await self._command(
            lambda unit: erase.erase(
                unit, self.definitions, self._events, self._state, self._cache, self._tombstones, field, value,
                allow_return=allow_return,
            )
        )  # fmt: skip

    async def admit(self, keys: list[Key]) -> list[int]:
        """Lets the people come back who were erased with any of these keys; gives the erasures. Raises NotFound."""
        return await self._command(lambda unit: erase.admit(unit, self._events, self._state, self._tombstones, keys))

    def tombstones_passed(self) -> list[bytes]:
        """Forgets the tombstones that hold for no event any more; gives their hashes."""
        return self._tombstones.passed(self._committed)

    async def put_guards(self, drafts: Sequence[GuardRow]) -> GuardChange:
        """Stores merge guards (their ids and times are given here); they hold for all events after this.

        Raises Conflict when there would be too many.
        """
        return await self._command(
            lambda unit: identity_commands.put_guards(unit, self.definitions, self._state, drafts)
        )

    async def delete_guard(self, guard_id: int) -> None:
        """Deletes a merge guard. Raises NotFound."""
        await self._command(lambda unit: identity_commands.delete_guard(unit, self.definitions, guard_id))

    async def split(self, key: Key, keys: Sequence[Key], *, apart: bool = True, dry_run: bool = False) -> Split:
        """Gives `keys` of the profile that owns `key` to a new profile, and evaluates both; a dry run only tells.

        `apart`: events that name keys of both do not stitch them again, until `forget_split`. Raises NotFound, and
        SplitError when the keys are not its own, or are all that it has.
        """
        return await self._command(
            lambda unit: identity_commands.split_profile(
                unit, self.definitions, self._evaluator, self._state, self._cache, key, keys,
                apart=apart, dry_run=dry_run,
            )
        )  # fmt: skip

    async def forget_split(self, key: Key) -> bool:
        """Lets a profile be stitched again with what it was split from; says whether it was. Raises NotFound."""
        return await self._command(
            lambda unit: identity_commands.forget_split(unit, self.definitions, self._state, self._cache, key)
        )

    async def _command(self, run: Callable[[Unit], Awaitable[tuple[T, Definitions | None]]]) -> T:
        if self._closed:
            raise Closed("the daemon is stopping")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        command = Command(run, done)
        self._commands.append(command)
        self._wake.set()
        return await done

    def _refuse_commands(self) -> None:
        waiting: list[Command[Any] | Drain] = [*self._commands, *self._drains]
        self._commands.clear()
        self._drains.clear()
        for each in waiting:
            if not each.done.done():
                each.done.set_exception(Closed("the daemon is stopping"))
