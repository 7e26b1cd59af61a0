"""Changes of definitions: each a step of the loop, ordered with the batches and kept in the history.

A command checks everything first and raises what is wrong; only then it writes into the step. It returns its result
and the definitions that hold once the step is durable, None when they stay.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from daemon.ingest import audience_pass
from daemon.ingest.definitions import (
    Definitions,
    accepted_filter,
    build,
    dependents,
    refuse_cycle,
    slug_of,
)
from daemon.ingest.unit import Unit
from daemon.model.refusal import Conflict, NotFound
from daemon.store import definitions as store
from daemon.store.definitions import AudienceRow, RuleRow
from streams import routing
from streams.ql.errors import Diagnostic, QueryError


class RuleDraft(NamedTuple):
    """What people say of a routing rule."""

    name: str
    priority: int
    input: str
    output: str
    expression: str
    active: bool


async def put_audience(
    unit: Unit, definitions: Definitions, text: str, *, name: str | None, description: str | None
) -> tuple[AudienceRow, Definitions | None]:
    """Stores an audience under its alias; a background pass begins when its text is new. Raises QueryError."""
    tree = accepted_filter(text, definitions)
    slug = slug_of(tree.alias or "")
    if not slug or tree.alias is None:
        raise QueryError([Diagnostic("an audience needs a name: end the statement with ALIAS name", 1, 1)])
    found = definitions.by_name.get(slug)
    old = found.row if found is not None and found.slug == slug else None
    refuse_cycle(tree, text, slug, definitions)
    row = AudienceRow(
        number=unit.head.last_audience + 1 if old is None else old.number,
        id=uuid.uuid4().hex if old is None else old.id,
        slug=slug,
        name=name or (tree.alias if old is None else old.name),
        description=description if description is not None else tree.description,
        text=text,
        version=1 if old is None else old.version + (old.text != text),
        created_us=unit.now_us if old is None else old.created_us,
        updated_us=unit.now_us,
    )
    if old is not None and row == old._replace(updated_us=unit.now_us):
        return old, None
    rows = [each.row for each in definitions.audiences.values() if each.number != row.number]
    after = await _rebuilt(definitions, audiences=sorted([*rows, row]))
    if old is None:
        unit.head.last_audience = row.number
    renamed_only = old is not None and old.text == text
    unit.bundle.work.append(partial(store.describe_audience if renamed_only else store.save_audience, row=row))
    unit.decide("audience", row._asdict())
    if not renamed_only:
        audience_pass.begin(unit, definitions, after)
    return row, after


async def delete_audience(unit: Unit, definitions: Definitions, name: str) -> tuple[None, Definitions]:
    """Deletes an audience. Raises NotFound, and Conflict while audiences include it or a job listens to it."""
    found = definitions.by_name.get(name)
    if found is None:
        raise NotFound(f"there is no audience {name!r}")
    including = dependents(definitions, found.slug)
    if including:
        raise Conflict(f"the audience {found.slug} is included by: {', '.join(including)}")
    rows = [each.row for each in definitions.audiences.values() if each.number != found.number]
    after = await _rebuilt(definitions, audiences=rows)
    unit.bundle.work.append(partial(_delete_unheld, row=found.row, now_us=unit.now_us))
    unit.decide("audience_deleted", {"number": found.number, "slug": found.slug})
    return None, after


def _delete_unheld(db: sqlite3.Connection, row: AudienceRow, now_us: int) -> None:
    # Within the transaction: a job may have come since.
    jobs = store.held_by(db, row.number)
    if jobs:
        raise Conflict(f"the audience {row.slug} is used by the jobs: {', '.join(jobs)}")
    store.delete_audience(db, row.number, now_us)


async def put_rule(
    unit: Unit, definitions: Definitions, draft: RuleDraft, rule_id: int | None
) -> tuple[RuleRow, Definitions]:
    """Stores a routing rule. Raises NotFound, and QueryError for its expression."""
    routing.condition(draft.expression)
    old = next((each for each in definitions.rules if each.id == rule_id), None)
    if rule_id is not None and old is None:
        raise NotFound(f"there is no routing rule {rule_id}")
    number = unit.head.last_rule + 1 if old is None else old.id
    row = RuleRow(number, *draft, unit.now_us if old is None else old.created_us, unit.now_us)
    others = [each for each in definitions.rules if each.id != number]
    after = await _rebuilt(definitions, rules=sorted([*others, row], key=lambda each: (-each.priority, -each.id)))
    if old is None:
        unit.head.last_rule = number
    unit.bundle.work.append(partial(store.save_rule, row=row))
    unit.decide("rule", row._asdict())
    return row, after


async def delete_rule(unit: Unit, definitions: Definitions, rule_id: int) -> tuple[None, Definitions]:
    """Deletes a routing rule. Raises NotFound."""
    others = [each for each in definitions.rules if each.id != rule_id]
    if len(others) == len(definitions.rules):
        raise NotFound(f"there is no routing rule {rule_id}")
    after = await _rebuilt(definitions, rules=others)
    unit.bundle.work.append(partial(store.delete_rule, rule_id=rule_id))
    unit.decide("rule_deleted", {"id": rule_id})
    return None, after


async def _rebuilt(
    definitions: Definitions,
    *,
    audiences: Sequence[AudienceRow] | None = None,
    rules: Sequence[RuleRow] | None = None,
) -> Definitions:
    queries = [each.row for each in definitions.queries.values()]
    if audiences is None:
        audiences = [each.row for each in definitions.audiences.values()]
    return await build(queries, audiences, definitions.rules if rules is None else rules, definitions)
