"""Making fields again from the events of the past, beside what is shown of them.

A rebuilding gives each of its fields a second state, of a new generation: unseen, because no slot of that generation is
shown. The events of the past go into the unseen states alone, those that come meanwhile into both; merging is
commutative, so it does not matter which comes first. When the past is through, the generation becomes the one that is
shown, for all profiles at once; what it replaces is forgotten as profiles are loaded.

An event of the past is resolved by the keys that are new in it: what the queries of its time found in it has been
resolved then, and may have been undone since (a split, compaction).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from streams.mapping import Key, Mapped, Mapper
from streams.ql.nodes import Column, Query
from streams.schema import Schema, schema_of

Owner = TypeVar("Owner")


def with_generations(schema: Schema, generations: Mapping[str, tuple[int, int]]) -> Schema:
    """Gives the schema with the generations of its fields' states, see `Schema.generations`."""
    return schema_of(schema.fields.values(), dict(generations)) if generations else schema


def fields_to_rebuild(schema: Schema, names: Iterable[str]) -> tuple[str, ...]:
    """Gives those of the names that are fields with states of their own; identities are resolved, not rebuilt."""
    return tuple(sorted(name for name in {*names} if name in schema.fields and not schema.fields[name].identity))


def feeding(queries: Iterable[Query], fields: Collection[str]) -> list[Query]:
    """Gives the queries that feed any of the fields, with the columns of these fields and of the identities alone."""
    found = []
    for query in queries:
        columns = tuple(each for each in query.columns if each.name in fields or each.name in query.by)
        if any(each.name in fields for each in columns):
            found.append(replace(query, columns=columns))
    return found


def identifying(queries: Iterable[Query]) -> list[Query]:
    """Gives the queries with the columns of their identities alone."""
    return [replace(query, columns=tuple(filter(_in(query.by), query.columns))) for query in queries]


def _in(names: Collection[str]) -> Callable[[Column], bool]:
    return lambda column: column.name in names


def mapper_of(schema: Schema, queries: Sequence[Query]) -> Mapper:
    """Gives the mapper of queries that were cut down by the above."""
    return Mapper(schema, queries)


def to_resolve(
    schema: Schema, mapped: Mapped, known: Collection[Key], owner: Callable[[Key], Owner | None]
) -> tuple[Mapped | None, bool]:
    """Gives what of a past event is to be resolved, and whether it has to be: it may attach keys or join profiles.

    `known` are the keys that the queries of its time found in it. Of these the strongest that still belongs to
    somebody stands for the event; None when there is neither such a key nor a new one. Texts of known keys are no
    contributions again: they may have gone to another profile since.
    """
    fresh = [key for key in mapped.keys if key not in known]
    old = next((key for key in mapped.keys if key in known and owner(key) is not None), None)
    if old is None and not fresh:
        return None, False
    kept = {*fresh, old}
    values = []
    for name, value in mapped.values:
        if name in schema.shadows:
            values.append((name, value))
        elif isinstance(value, list):
            texts = [text for text in value if (name, text) in fresh]
            if texts:
                values.append((name, texts))
    keys = tuple(key for key in mapped.keys if key in kept)
    return Mapped(keys, values, ()), bool(fresh)
