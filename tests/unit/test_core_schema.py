"""Schemas: what queries say about fields, alone and together."""

from __future__ import annotations

import pytest

from streams.profile import forget_outlived
from streams.ql.errors import QueryError
from streams.ql.parser import parse_queries
from streams.rebuilding import with_generations
from streams.schema import Field, build_schema, schema_of


def schema_for(*columns: str, by: str = "id", more: str = ""):
    text = f"SELECT id, {', '.join(columns)} FROM web INTO user BY {by} ALIAS one"
    return build_schema(parse_queries(f"{text}; {more}" if more else text))


@pytest.mark.parametrize(
    ("column", "kind", "operator"),
    [
        ("x", "string", "latest"),
        ("x KIND int", "int", "latest"),
        ("x MERGEOP oldest", "string", "oldest"),
        ("x KIND int MERGEOP max", "int", "max"),
        ("x MERGEOP count", "int", "count"),
        ("x MERGEOP sum", "number", "sum"),
        ("count(a) AS x", "int", "count"),
        ("count(a) AS x MERGEOP count", "int", "count"),
        ("sum(a) AS x", "number", "sum"),
        ("sum(a) AS x KIND int", "int", "sum"),
        ("max(a) AS x", "number", "max"),
        ("min(todate(a)) AS x", "date", "min"),
        ("valuect(a) AS x", "map[string]int", "sum"),
        ("set(a) AS x", "[]string", "merge"),
        ("set(a) AS x KIND ts[]string", "ts[]string", "merge"),
        ("todate(a) AS x", "date", "latest"),
        ("email(a) AS x", "string", "latest"),
        ("a > 3 AS x", "bool", "latest"),
        ("a * 2.5 AS x", "number", "latest"),
        ('"yes" AS x', "string", "latest"),
        ("7 AS x", "int", "latest"),
        ('"new" IF a > 1 ELSE "old" AS x', "string", "latest"),
        ("map(a, 5) AS x", "map[string]int", "merge"),
        ("map(a, todate(b)) AS x", "map[string]time", "merge"),
        ("x KIND map[string]intsum", "map[string]intsum", "sum"),
        ("x KIND map[string]number MERGEOP mapmax", "map[string]number", "mapmax"),
        ("x MERGEOP latestmap", "map[string]value", "latestmap"),
        ("x KIND []time", "[]time", "merge"),
        ("x KIND []string MERGEOP latest", "[]string", "latest"),
        ("x KIND dynamic", "dynamic", "latest"),
    ],
)
def test_kind_and_operator_follow_from_what_is_written(column, kind, operator):
    field = schema_for(column).fields["x"]

    assert (field.kind, field.merge_op) == (kind, operator)


def test_identities_are_ranked_as_named_in_by():
    schema = schema_for("email", "set(cookie) AS cookies", by="email OR id OR cookies")

    assert [(each.name, each.rank, each.single) for each in schema.identities] == [
        ("email", 0, True),
        ("id", 1, True),
        ("cookies", 2, False),
    ]


def test_ranks_that_are_given_come_first():
    queries = parse_queries("SELECT a, b, c FROM web INTO user BY a OR b OR c ALIAS x")

    assert [each.name for each in build_schema(queries, ranks=["c", "b", "zzz"]).identities] == ["c", "b", "a"]


def test_what_one_query_states_holds_for_all():
    schema = schema_for("x", more="SELECT id, y AS x KIND int MERGEOP max FROM app INTO user BY id ALIAS two")

    assert schema.fields["x"].kind == "int"
    assert schema.fields["x"].merge_op == "max"
    assert schema.fields["x"].queries == ("one", "two")


@pytest.mark.parametrize(
    ("columns", "more", "told"),
    [
        (
            ["x KIND int"],
            "SELECT id, x KIND date FROM app INTO user BY id ALIAS two",
            "x is int in one, but date in two",
        ),
        (
            ["sum(a) AS x"],
            "SELECT id, max(a) AS x FROM app INTO user BY id ALIAS two",
            "by sum in one, but by max in two",
        ),
        (["x KIND string MERGEOP sum"], "", "cannot merge by sum"),
        (["x KIND int MERGEOP latestmap"], "", "cannot merge by latestmap"),
        (["x"], "SELECT id FROM app INTO content BY id ALIAS two", "one table"),
        (["x"], "SELECT id, d KIND date FROM app INTO user BY id OR d ALIAS two", "d stands in BY"),
        (["x"], "SELECT id, sum(d) AS d FROM app INTO user BY id OR d ALIAS two", "d stands in BY"),
    ],
)
def test_what_does_not_go_together_is_refused_and_says_what(columns, more, told):
    with pytest.raises(QueryError, match=told):
        schema_for(*columns, more=more)


def test_masks_and_names_are_each_other_s_inverse():
    schema = schema_for("x", "y", "z")

    assert schema.names_of(schema.mask_of(["x", "z", "unknown"])) == {"x", "z"}


def test_a_field_that_is_made_again_has_an_unseen_state_until_the_end():
    plain = schema_of([Field("spent", "number", "sum"), Field("plan", "string", "latest")])
    making = with_generations(plain, {"spent": (0, 7)})
    made = with_generations(plain, {"spent": (7, 0)})
    states: dict = {}
    view: dict = {}

    making.merges["spent"](states, view, 5.0, 1, "")
    making.shadows["spent"].merge(states, {}, 10.0, 1, "")

    assert {"spent:nn": 5.0, "spent:nn@7": 15.0} == states
    assert {"spent": 5.0} == view
    assert {"spent:nn@7", "plan:ts"} == {slot.key for slot in made.slots.values()}
    assert making.states.keys() == {"spent:nn", "spent:nn@7", "plan:ts"}


@pytest.mark.parametrize(
    ("generations", "left"),
    [
        ({}, {"spent:nn", "spent:nn@3", "spent:nn@7", "plan:ts"}),
        ({"spent": (3, 7)}, {"spent:nn@3", "spent:nn@7", "plan:ts"}),
        ({"spent": (7, 0)}, {"spent:nn@7", "plan:ts"}),
        ({"spent": (0, 0)}, {"spent:nn", "plan:ts"}),
    ],
)
def test_states_of_other_generations_are_forgotten(generations, left):
    schema = with_generations(schema_of([Field("spent", "number", "sum")]), generations)
    states = dict.fromkeys(["spent:nn", "spent:nn@3", "spent:nn@7", "plan:ts"], 1.0)

    forget_outlived(schema, states)

    assert left == states.keys()
