"""Two schemas side by side, property by property: what a change of queries does to the fields.

An item (a field, a mapping of a query to a field, a query) is `new`, `modified`, `deleted` or `unmodified`. Its
properties are plain JSON values, named as the API names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from streams.ql.nodes import Query
from streams.ql.printer import print_node, print_query
from streams.schema import Field, Schema, stated_operator

Status: TypeAlias = Literal["new", "modified", "deleted", "unmodified"]
#: What becomes of the values that profiles hold of a field: there are none yet (a field that comes back shows what it
#: had); they stay and merge on; they are hidden; they are kept but not shown, and the field begins anew.
Values: TypeAlias = Literal["empty", "kept", "hidden", "begun_anew"]
Properties: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One property that differs; None where the item is not there, or has none."""

    property: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One item on both sides, `before` or `after` None where it is not there."""

    name: str
    status: Status
    before: Properties | None
    after: Properties | None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field on both sides, with the queries that feed it; modified also where only these differ."""

    item: Difference
    mappings: tuple[Difference, ...]
    values: Values

    @property
    def name(self) -> str:
        """The field's name."""
        return self.item.name

    @property
    def status(self) -> Status:
        """Whether the field, or anything about it, differs."""
        if self.item.status == "unmodified" and any(each.status != "unmodified" for each in self.mappings):
            return "modified"
        return self.item.status


@dataclass(frozen=True, slots=True)
class SchemaDiff:
    """All items of both sides: fields in the order of the later side, then those that are no more; likewise queries."""

    fields: tuple[FieldDifference, ...]
    queries: tuple[Difference, ...]

    @property
    def changed(self) -> frozenset[str]:
        """The names of the fields that are not unmodified."""
        return frozenset(each.name for each in self.fields if each.status != "unmodified")


@dataclass(frozen=True, slots=True)
class Document:
    """A schema and the queries that it is made of, as items with properties."""

    schema: Schema
    fields: Mapping[str, Properties]
    #: By field, then by query. What a query does not state (kind, operator, …) is None here, not in the field.
    mappings: Mapping[str, Mapping[str, Properties]]
    queries: Mapping[str, Properties]


EMPTY: Final[Properties] = {}


@dataclass(frozen=True, slots=True)
class QueryItem:
    """A query's own properties, and those of its mappings by field."""

    properties: Properties
    mappings: Mapping[str, Properties]


def query_item(query: Query) -> QueryItem:
    """Makes the item of a query."""
    mappings = {
        column.name: {
            "stream": query.stream,
            "expr": print_node(column.expr),
            "guard_expr": None if column.guard is None else print_node(column.guard),
            "by": column.name in query.by,
            "kind": column.kind,
            "merge_op": stated_operator(column),
            "capacity": column.capacity,
            "keep_days": column.keep_days,
        }
        for column in query.columns
    }
    return QueryItem(_query_properties(query), mappings)


def document(queries: Mapping[str, QueryItem], schema: Schema) -> Document:
    """Makes the document of queries, by alias, and of the schema that was built of them."""
    mappings: dict[str, dict[str, Properties]] = {name: {} for name in schema.fields}
    for alias, item in queries.items():
        for name, properties in item.mappings.items():
            mappings[name][alias] = properties
    return Document(
        schema,
        {name: field_properties(each) for name, each in schema.fields.items()},
        mappings,
        {alias: item.properties for alias, item in queries.items()},
    )


def field_properties(field: Field) -> dict[str, Any]:
    """Gives what a schema says of a field, without its name."""
    return {
        "kind": field.kind,
        "merge_op": field.merge_op,
        "is_identifier": field.identity,
        "single": field.single,
        "rank": field.rank,
        "capacity": field.capacity,
        "keep_days": field.keep_days,
        "shortdesc": field.shortdesc,
        "longdesc": field.longdesc,
        "queries": list(field.queries),
    }


def _query_properties(query: Query) -> dict[str, Any]:
    return {
        "from": query.stream,
        "into": query.table,
        "by_fields": list(query.by),
        "where": None if query.where is None else print_node(query.where),
        "text": print_query(query),
    }


def compare(before: Document, after: Document) -> SchemaDiff:
    """Compares two documents."""
    fields = []
    for name in _names(before.fields, after.fields):
        item = difference(name, before.fields.get(name), after.fields.get(name))
        old, new = before.mappings.get(name, EMPTY), after.mappings.get(name, EMPTY)
        mappings = tuple(difference(alias, old.get(alias), new.get(alias)) for alias in _names(old, new))
        fields.append(FieldDifference(item, mappings, _values(name, before.schema, after.schema)))
    queries = [
        difference(alias, before.queries.get(alias), after.queries.get(alias))
        for alias in _names(before.queries, after.queries)
    ]
    return SchemaDiff(tuple(fields), tuple(queries))


def difference(name: str, before: Properties | None, after: Properties | None) -> Difference:
    """Compares one item, of which one side may be None."""
    if before is None or after is None:
        status: Status = "new" if before is None else "deleted"
        return Difference(name, status, before, after)
    changes = tuple(
        Change(each, before.get(each), after.get(each))
        for each in _names(before, after)
        if before.get(each) != after.get(each)
    )
    return Difference(name, "modified" if changes else "unmodified", before, after, changes)


def _names(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [*after, *(name for name in before if name not in after)]


def _values(name: str, before: Schema, after: Schema) -> Values:
    old, new = before.fields.get(name), after.fields.get(name)
    if old is None:
        return "empty"
    if new is None:
        return "hidden"
    if before.slots[name].key == after.slots[name].key or (old.single and new.single):
        return "kept"
    return "begun_anew"
