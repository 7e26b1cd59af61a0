"""What a fragment of a profile holds, and how fragments become one: field states and meta.

Meta is `[created_us, modified_us, events, conflicts, [stream, …]]`, times in microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import orjson

from streams.merge import State
from streams.schema import Schema

#: A fragment's own states and meta.
Part: TypeAlias = tuple[dict[str, State], list[Any]]

CREATED: Final = 0
MODIFIED: Final = 1
EVENTS: Final = 2
CONFLICTS: Final = 3
STREAMS: Final = 4


def count_event(meta: list[Any], stream: str, received_us: int) -> None:
    """Counts an event in."""
    meta[EVENTS] += 1
    meta[MODIFIED] = max(meta[MODIFIED], received_us)
    if stream not in meta[STREAMS]:
        meta[STREAMS].append(stream)


def merge_meta(mine: list[Any], other: list[Any]) -> None:
    """Takes the meta of another into `mine`."""
    mine[CREATED] = min(mine[CREATED], other[CREATED])
    mine[MODIFIED] = max(mine[MODIFIED], other[MODIFIED])
    mine[EVENTS] += other[EVENTS]
    mine[CONFLICTS] += other[CONFLICTS]
    mine[STREAMS] += [stream for stream in other[STREAMS] if stream not in mine[STREAMS]]


def merge_states(schema: Schema, mine: dict[str, State], other: dict[str, State]) -> None:
    """Merges the states of `other` into `mine`; a state that the schema does not know is kept from whoever has it."""
    for key, state in other.items():
        old = mine.get(key)
        slot = schema.states.get(key)
        if old is None:
            mine[key] = state
        elif slot is not None:
            mine[key] = slot.combine(old, state)


def united_parts(schema: Schema, parts: Iterable[Part], at_us: int) -> Part:
    """Gives what fragments gave together; `at_us` is the time of a profile that none gave anything to."""
    fields: dict[str, State] = {}
    meta: list[Any] | None = None
    for part in parts:
        its_fields, its_meta = orjson.loads(orjson.dumps(part))
        merge_states(schema, fields, its_fields)
        if meta is None:
            meta = its_meta
        else:
            merge_meta(meta, its_meta)
    return fields, [at_us, at_us, 0, 0, []] if meta is None else meta
