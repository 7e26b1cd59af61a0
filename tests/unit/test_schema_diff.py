"""Two schemas side by side: what is new, modified or deleted, and what becomes of the values that profiles hold."""

from __future__ import annotations

import pytest

from streams.ql.parser import parse_queries
from streams.schema import build_schema
from streams.schema_diff import compare, document, query_item


def documented(*texts):
    queries = [each for text in texts for each in parse_queries(text)]
    return document({query.alias: query_item(query) for query in queries}, build_schema(queries))


def columns(*columns, alias="one", by="id", stream="web", where=""):
    return f"SELECT id, {', '.join(columns)} FROM {stream} INTO user BY {by} {where} ALIAS {alias}"


def changed(diff):
    return {
        each.name: (each.status, {one.property: (one.before, one.after) for one in each.item.changes})
        for each in diff.fields
        if each.status != "unmodified"
    }


def test_a_schema_does_not_differ_from_itself():
    text = columns("x KIND int IF y > 3", "sum(z) AS z")

    diff = compare(documented(text), documented(text))

    assert {each.status for each in diff.fields} == {"unmodified"}
    assert {each.status for each in diff.queries} == {"unmodified"}
    assert diff.changed == frozenset()


def test_fields_come_and_go():
    diff = compare(documented(columns("x", "y")), documented(columns("y", "z")))

    assert [(each.name, each.status, each.values) for each in diff.fields] == [
        ("id", "unmodified", "kept"),
        ("y", "unmodified", "kept"),
        ("z", "new", "empty"),
        ("x", "deleted", "hidden"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "changes", "values"),
    [
        ("x KIND int", "x KIND number", {"kind": ("int", "number")}, "begun_anew"),
        ("x", "x MERGEOP oldest", {"merge_op": ("latest", "oldest")}, "kept"),
        ("x KIND int", "x KIND int MERGEOP sum", {"merge_op": ("latest", "sum")}, "begun_anew"),
        ("set(x) AS x", "set(x) AS x CAPACITY 5", {"capacity": (0, 5)}, "kept"),
        ("set(x) AS x", "set(x) AS x KEEP_DAYS 5", {"keep_days": (0, 5)}, "kept"),
        ("x", 'x SHORTDESC "A"', {"shortdesc": ("", "A")}, "kept"),
        ("x", "y AS x", {}, "kept"),
        ("x", "x IF x > 3", {}, "kept"),
    ],
)
def test_properties_of_a_field_are_told_one_by_one(before, after, changes, values):
    diff = compare(documented(columns(before)), documented(columns(after)))

    found = {each.name: each for each in diff.fields}["x"]
    assert changed(diff) == {"x": ("modified", changes)}
    assert found.values == values


def test_an_expression_that_differs_is_told_with_its_query():
    diff = compare(documented(columns("x")), documented(columns("tolower(y) AS x IF y != 3", stream="app")))

    (mapping,) = {each.name: each for each in diff.fields}["x"].mappings
    assert (mapping.name, mapping.status) == ("one", "modified")
    assert {each.property: (each.before, each.after) for each in mapping.changes} == {
        "stream": ("web", "app"),
        "expr": ("x", "tolower(y)"),
        "guard_expr": (None, "y != 3"),
    }


def test_identities_and_their_ranks_are_properties():
    before = documented(columns("email", by="id"))
    after = documented(columns("email", by="email OR id"))

    assert changed(compare(before, after)) == {
        "id": ("modified", {"rank": (0, 1)}),
        "email": ("modified", {"is_identifier": (False, True), "single": (False, True), "rank": (None, 0)}),
    }


def test_a_second_query_of_a_field_is_told():
    before = documented(columns("x"))
    after = documented(columns("x"), columns("x", alias="two", stream="app", where="WHERE x > 3"))

    diff = compare(before, after)
    field = {each.name: each for each in diff.fields}["x"]

    assert [(each.name, each.status) for each in field.mappings] == [("one", "unmodified"), ("two", "new")]
    assert [(each.name, each.status) for each in diff.queries] == [("one", "unmodified"), ("two", "new")]
    assert diff.queries[1].after["where"] == "x > 3"
