"""Compiled trees give what a plain walk over the tree gives, with and without known kinds."""

from datetime import UTC, datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.ql import rules
from streams.ql.compiler import MATCH, NO_MATCH, NOT_OK, compile_expression, compile_filter, compile_query
from streams.ql.functions import FUNCTIONS
from streams.ql.lookup import lookup
from streams.ql.missing import MISSING, is_nil
from streams.ql.nodes import (
    Array,
    Between,
    Binary,
    Call,
    Column,
    Conditional,
    Exists,
    Group,
    Ident,
    Include,
    IsNull,
    Literal,
    MatchAll,
    Query,
    Unary,
)
from streams.ql.tree import group

NOW = datetime(2026, 3, 31, 12, 30, 15, 250_000, tzinfo=UTC)


# ---- the reference ---------------------------------------------------------------------------------

# The benchmarks use it too.
_spec = spec_from_file_location("treewalk", Path(__file__).parents[1] / "bench" / "treewalk.py")
_treewalk = module_from_spec(_spec)
_spec.loader.exec_module(_treewalk)
Walker = _treewalk.Walker


def walked(node, data, now=NOW, includes=None):
    value = Walker(data, now, includes or {}, not_reads=False).value(node)
    return MATCH if value is True else NO_MATCH if value is False else NOT_OK


# ---- trees and data ------------------------------------------------------------------------------

KINDS = {
    "visits": "int",
    "spent": "number",
    "city": "string",
    "active": "bool",
    "seen": "date",
    "tags": "[]string",
    "orders": "[]time",
    "hits": "map[string]int",
    "events": "map[string]time",
}

texts = st.sampled_from(["", "Rome", "rome", "5", "5.5", "abc", "a", "now", "true", "2026-03-28", "x*", "$5"])
ints = st.sampled_from([0, 1, 5, -5, 7, 2**62, -2147483648])
floats = st.sampled_from([0.0, 5.5, -1.5, 5.0, 1e300])
moments = st.sampled_from(
    [
        NOW,
        NOW - timedelta(days=3),
        NOW.replace(microsecond=0),
        NOW - timedelta(days=31),
        datetime(2026, 3, 3, 12, 30, 15, tzinfo=UTC),
        datetime(2026, 3, 28, tzinfo=UTC),
        NOW + timedelta(hours=2),
    ]
)
profiles = st.fixed_dictionaries(
    {},
    optional={
        "visits": ints,
        "spent": floats,
        "city": texts,
        "active": st.booleans(),
        "seen": moments,
        "tags": st.lists(texts, max_size=3),
        "orders": st.lists(moments, max_size=3),
        "hits": st.dictionaries(st.sampled_from(["foo", "Rome", "a.b"]), ints, max_size=2),
        "events": st.dictionaries(st.sampled_from(["foo", "bar"]), moments, max_size=2),
    },
)
idents = st.sampled_from(
    [*((name,) for name in KINDS), ("hits.foo",), ("hits", "a.b"), ("events.foo",), ("nope",), ("CITY",), ("Hits.FOO",)]
).map(Ident)
literals = st.one_of(
    texts,
    ints,
    floats,
    st.booleans(),
    st.none(),
    st.sampled_from(["now-3d", "now-1M", "now+2h", "now-3x", "2026-03-03 12:30:15", "12/18/2015"]),
).map(Literal)
arrays = st.lists(literals, max_size=4).map(lambda items: Array(tuple(items)))
wild = st.one_of(idents, literals)


def compound(inner):
    any_value = st.one_of(inner, wild, arrays)
    condition = st.one_of(inner, comparisons)
    return st.one_of(
        st.tuples(st.sampled_from(["and", "or"]), st.lists(condition, min_size=2, max_size=4)).map(
            lambda drawn: Group(drawn[0], tuple(drawn[1]))
        ),
        condition.map(lambda node: Unary("not", node)),
        st.builds(Binary, st.sampled_from(rules.OPERATORS), any_value, any_value),
        st.builds(Conditional, any_value, condition, st.one_of(st.none(), any_value)),
        st.builds(lambda *args: Call("ifcase", args), st.builds(Conditional, any_value, condition), any_value),
        st.builds(lambda arg: Call("tolower", (arg,)), any_value),
        st.builds(lambda arg: Call("toint", (arg,)), any_value),
        any_value.map(Exists),
        any_value.map(IsNull),
        any_value.map(lambda node: Unary("-", node)),
        st.sampled_from(["one", "TWO", "nobody"]).map(Include),
        st.sampled_from(["one", "two", "nobody"]).map(lambda name: Unary("not", Include(name))),
    )


comparisons = st.one_of(
    st.builds(Binary, st.sampled_from(rules.OPERATORS), idents, st.one_of(literals, arrays)),
    st.builds(Binary, st.sampled_from(rules.OPERATORS), literals, idents),
    st.builds(Between, idents, literals, literals),
    st.builds(Between, wild, wild, wild),
    idents,
    idents.map(Exists),
)
trees = st.recursive(comparisons, compound, max_leaves=12)
INCLUDED = {
    "one": Binary(">", Ident(("visits",)), Literal(1)),
    "two": Group("and", (Include("one"), Binary(">", Ident(("seen",)), Literal("now-3d")))),
}


@settings(max_examples=1500, deadline=None)
@given(trees, profiles)
def test_compiled_filters_give_what_a_walk_over_the_tree_gives(tree, profile):
    expected = walked(tree, profile, includes=INCLUDED)

    for kinds in ({}, KINDS):
        compiled = compile_filter(tree, kinds=kinds, includes=lambda name: INCLUDED.get(name.lower()))
        assert expected == compiled.evaluate(profile, NOW), (kinds, compiled.source)


@settings(max_examples=500, deadline=None)
@given(trees, profiles)
def test_compiled_expressions_give_what_a_walk_over_the_tree_gives(tree, profile):
    expected = Walker(profile, NOW, {}).value(tree)

    for kinds in ({}, KINDS):
        compiled = compile_expression(tree, kinds=kinds)
        assert repr(expected) == repr(compiled.evaluate(profile, NOW)), compiled.source


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(trees, st.one_of(st.none(), trees)), min_size=1, max_size=5), profiles)
def test_compiled_queries_give_the_columns_that_have_a_value(columns, event):
    query = Query(
        columns=tuple(Column(expr, f"f{place}", guard=guard) for place, (expr, guard) in enumerate(columns)),
        stream="s",
        table="user",
        by=("f0",),
        alias="q",
    )
    walker = Walker(event, NOW, {})
    expected = [
        (place, value)
        for place, (expr, guard) in enumerate(columns)
        if (guard is None or walker.value(guard) is True) and not is_nil(value := walker.value(expr))
    ]

    assert repr(expected) == repr(compile_query(query).run(event, NOW))


@settings(max_examples=300, deadline=None)
@given(trees, profiles, st.sampled_from(sorted(KINDS)), st.one_of(texts, ints, st.none(), st.just([1, None, "x"])))
def test_a_profile_that_breaks_its_kinds_raises_nothing(tree, profile, name, value):
    compiled = compile_filter(tree, kinds=KINDS)

    match, ok = compiled.evaluate({**profile, name: value}, NOW)

    assert isinstance(match, bool)
    assert isinstance(ok, bool)
    assert ok or not match


SAMPLES = {
    "visits": [0, 5, -5, 2**62],
    "spent": [0.0, 5.5, 5.0],
    "city": ["", "Rome", "5", "true", "2026-03-28", "Romesx", "abc"],
    "active": [True, False],
    "seen": [
        NOW,
        NOW.replace(microsecond=0),
        datetime(2026, 3, 28, 12, 30, 15, tzinfo=UTC),
        datetime(2026, 3, 28, 12, 30, 14, 999_999, tzinfo=UTC),
        datetime(2026, 3, 28, 12, 30, 16, tzinfo=UTC),
        datetime(2026, 3, 28, 12, 30, 15, 999_999, tzinfo=UTC),
        datetime(2026, 3, 28, tzinfo=UTC),
        datetime(2026, 3, 28, 0, 0, 0, 5, tzinfo=UTC),
        datetime(2026, 3, 3, 12, 30, 15, tzinfo=UTC),
    ],
    "tags": [[], ["Rome"], ["abc", "5"], ["", "x"]],
    "orders": [[], [NOW], [NOW - timedelta(days=3), NOW], [datetime(2026, 3, 28, tzinfo=UTC)]],
    "hits": [{}, {"foo": 1}, {"Rome": 5, "foo": 7}],
    "hits.foo": [{}, {"foo": 5}, {"FOO": 5}],
    "events.foo": [{}, {"foo": datetime(2026, 3, 28, 12, 30, 15, 5, tzinfo=UTC)}],
}
CONSTANTS = [
    *map(Literal, ["", "Rome", "rome", "5", "5.5", "abc", "true", "$5", "*o?e", "R%", "2026-03-28", "now-3d"]),
    *map(Literal, ["now-1M", "now", "now-3x", 5, 0, -5, 5.5, 1774656000000, True, False, None]),
    Array((Literal("Rome"), Literal("foo"))),
    Array((Literal("abc"), Literal(5))),
    Array((Literal("2026-03-28"),)),
    Array(()),
]


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_each_written_out_comparison_gives_what_the_table_gives(name):
    ident, field = Ident((name,)), name.partition(".")[0]
    trees = [Binary(op, ident, constant) for op in rules.OPERATORS for constant in CONSTANTS]
    trees += [Binary(op, constant, ident) for op in rules.OPERATORS for constant in CONSTANTS]
    bounds = [Literal(each) for each in ("now-3d", "now", 0, 5, 5.5, "5", "2026-03-28", "abc", None)]
    trees += [Between(ident, low, high) for low in bounds for high in bounds]
    profiles = [{}, *({field: value} for value in SAMPLES[name])]

    for tree in trees:
        compiled = compile_filter(tree, kinds=KINDS)
        careful = compile_filter(tree)
        for profile in profiles:
            expected = walked(tree, profile)
            assert expected == compiled.evaluate(profile, NOW), (tree, profile, compiled.source)
            assert expected == careful.evaluate(profile, NOW), (tree, profile, careful.source)


# ---- single promises --------------------------------------------------------------------------


def test_constants_and_names_never_reach_the_source():
    evil = "'); import os #"
    tree = Group(
        "and",
        (
            Binary("=", Ident((evil,)), Literal(evil)),
            Binary("like", Ident(("city",)), Literal(evil + "*")),
            Binary("in", Ident(("city",)), Array((Literal(evil),))),
            Include(evil),
            Binary("=", Ident((evil, evil)), Literal(123456789)),
        ),
    )

    compiled = compile_filter(tree, kinds={"city": "string", evil: "string"})

    assert "import" not in compiled.source
    assert "123456789" not in compiled.source


def test_a_function_that_trips_is_not_evaluable_and_the_rest_goes_on(monkeypatch):
    def trip(_x):
        raise ZeroDivisionError

    monkeypatch.setitem(
        FUNCTIONS,
        "tolower",
        FUNCTIONS["tolower"].__class__(
            **{
                **{name: getattr(FUNCTIONS["tolower"], name) for name in FUNCTIONS["tolower"].__slots__},
                "impl": trip,
            }
        ),
    )
    tripping = Binary("=", Call("tolower", (Ident(("city",)),)), Literal("rome"))
    fine = Binary(">", Ident(("visits",)), Literal(1))

    data = {"city": "Rome", "visits": 5}

    assert compile_filter(Group("or", (tripping, fine))).evaluate(data, NOW) == MATCH
    assert compile_filter(Group("and", (fine, Unary("not", tripping)))).evaluate(data, NOW) == MATCH
    assert compile_filter(tripping).evaluate(data, NOW) == NO_MATCH  # nothing on its left
    assert compile_expression(Call("tolower", (Ident(("city",)),))).evaluate(data, NOW) is MISSING


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        (("a",), {"a": 1}, 1),
        (("a",), {"A": 1}, 1),
        (("a",), {"A": 1, "a": 2}, 2),
        (("a.b",), {"a.b": 1, "a": {"b": 2}}, 1),
        (("a.b",), {"a": {"b": 2}, "A.B": 3}, 2),
        (("a.b",), {"A.B": 3}, 3),
        (("a.b",), {"A": {"B": 4}}, 4),
        (("a.b.c",), {"a": {"b": {"c": 5}}}, 5),
        (("a.b.c",), {"a.b": {"c": 6}, "a": {"b": {"c": 7}}}, 6),
        (("a.b.c",), {"a": {"b.c": 8}}, 8),
        (("a", "b.c"), {"a": {"b.c": 8}}, 8),
        (("a.b",), {"a": 5}, MISSING),
        (("a.b",), {"a": {"c": 5}}, MISSING),
        (("a",), {}, MISSING),
    ],
)
def test_a_name_is_found_exactly_then_reached_into_then_whatever_its_case(path, data, expected):
    assert expected == lookup(data, path)
    assert expected == compile_expression(Ident(path)).evaluate(data, NOW)
    column = compile_query(Query((Column(Ident(path), "f"),), "s", "user", ("f",), "q"))
    assert ([] if expected is MISSING else [(0, expected)]) == column.run(data, NOW)


def test_the_plans_of_a_query_are_bounded():
    compiled = compile_query(Query((Column(Ident(("a.b",)), "f"),), "s", "user", ("f",), "q"))

    for place in range(2000):
        assert compiled.run({f"k{place}": 1, "a": {"b": place}}, NOW) == [(0, place)] or place == 0

    # The resolver is a cell of the generated function's namespace.
    names = compiled.run.__globals__["plan_of"].__self__
    assert len(names._plans) <= 256


def test_where_drops_the_event():
    query = Query((Column(Ident(("a",)), "f"),), "s", "user", ("f",), "q", where=Binary(">", Ident(("b",)), Literal(1)))

    assert compile_query(query).run({"a": 1, "b": 2}, NOW) == [(0, 1)]
    assert compile_query(query).run({"a": 1, "b": 1}, NOW) is None
    assert compile_query(query).run({"a": 1}, NOW) is None


def test_a_sum_of_zero_is_a_value_of_its_column_and_no_value_elsewhere():
    total = Call("sum", (Ident(("a",)),))
    query = Query((Column(total, "f"), Column(Call("toint", (total,)), "g")), "s", "user", ("f",), "q")

    assert compile_query(query).run({"a": 0}, NOW) == [(0, 0.0)]


# ---- includes --------------------------------------------------------------------------------------


def including(trees):
    return lambda name: trees.get(name.lower())


def test_includes_on_a_cycle_are_not_evaluable():
    trees = {"a": Include("b"), "b": Include("A"), "c": Group("or", (Include("a"), MatchAll()))}

    assert compile_filter(Include("a"), includes=including(trees)).evaluate({}, NOW) == NOT_OK
    assert compile_filter(Unary("not", Include("a")), includes=including(trees)).evaluate({}, NOW) == MATCH
    assert compile_filter(Include("c"), includes=including(trees)).evaluate({}, NOW) == MATCH
    assert compile_filter(Include("nobody")).evaluate({}, NOW) == NOT_OK


def test_a_chain_of_includes_is_evaluated_down_to_its_limit():
    trees = {f"n{place}": Include(f"n{place + 1}") for place in range(200)} | {"n200": MatchAll()}

    assert compile_filter(Include("n110"), includes=including(trees)).evaluate({}, NOW) == MATCH
    assert compile_filter(Include("n50"), includes=including(trees)).evaluate({}, NOW) == NOT_OK


def test_an_audience_included_by_many_ways_is_worked_out_once():
    asked = []
    trees = {f"n{place}": Group("and", (Include(f"n{place + 1}"), Include(f"n{place + 1}"))) for place in range(60)} | {
        "n60": MatchAll()
    }

    compiled = compile_filter(Include("n0"), includes=lambda name: asked.append(name) or trees[name])

    assert compiled.evaluate({}, NOW) == MATCH  # 2 to the power of 60 ways
    assert len(asked) == 61
    assert compiled.includes == frozenset(trees)


# ---- fields, and bounds ------------------------------------------------------------------------------


def test_fields_are_those_of_the_schema_and_of_the_includes():
    tree = Group(
        "and",
        (
            Binary(">", Ident(("Hits.foo",)), Literal(1)),
            Include("one"),
            Binary("=", Ident(("CITY",)), Literal("x")),
            Exists(Ident(("new.name",))),
        ),
    )

    compiled = compile_filter(tree, kinds=KINDS, includes=including(INCLUDED))

    assert compiled.fields == {"hits", "visits", "city", "new.name", "new"}


@pytest.mark.parametrize(
    ("tree", "dependent"),
    [
        (Binary(">", Ident(("seen",)), Literal("now-3d")), True),
        (Binary(">", Ident(("unknown",)), Literal("now-3d")), True),
        (Binary("=", Ident(("city",)), Literal("now-3d")), False),
        (Binary(">", Ident(("seen",)), Literal("2026-01-01")), False),
        (Binary("=", Call("dayofweek", (Ident(("seen",)),)), Literal(1)), False),
        (Binary("=", Call("dayofweek", ()), Literal(1)), True),
        (Binary("<", Ident(("seen",)), Call("now", ())), True),
        (Unary("not", Include("two")), True),
        (Include("one"), False),
    ],
)
def test_only_filters_that_time_can_change_are_time_dependent(tree, dependent):
    assert dependent == compile_filter(tree, kinds=KINDS, includes=including(INCLUDED)).time_dependent


def test_deep_and_wide_trees_compile():
    wide = Group("or", tuple(Binary("=", Ident(("city",)), Literal(f"c{place}")) for place in range(9_000)))
    deep = Binary(">", Ident(("visits",)), Literal(1))
    for place in range(98):
        deep = Unary("not", deep) if place % 3 else Group("and" if place % 2 else "or", (Ident(("active",)), deep))
    total = Ident(("visits",))
    for _ in range(98):
        total = Binary("+", Literal(1), total)
    cases = Call(
        "ifcase",
        (
            *(Conditional(Literal(place), Binary("=", Ident(("visits",)), Literal(place))) for place in range(3_000)),
            Literal(-1),
        ),
    )
    data = {"city": "c8999", "visits": 2_999, "active": True}

    assert compile_filter(wide, kinds=KINDS).evaluate(data, NOW) == MATCH
    assert compile_filter(wide).evaluate(data, NOW) == MATCH
    assert walked(deep, data) == compile_filter(deep).evaluate(data, NOW)
    assert compile_expression(total).evaluate(data, NOW) == 2_999 + 98
    assert compile_expression(cases).evaluate(data, NOW) == 2_999


def test_large_lists_meet_in_time_that_grows_with_their_length():
    data = {"a": list(range(100_000)), "b": [float(place) + 0.5 for place in range(100_000)], "c": ["x"] * 100_000}

    assert compile_filter(Binary("in", Ident(("a",)), Ident(("b",)))).evaluate(data, NOW) == NO_MATCH
    assert compile_filter(Binary("in", Ident(("c",)), Ident(("a",)))).evaluate(data, NOW) == NO_MATCH
    assert compile_filter(Binary("like", Ident(("c",)), Ident(("a",)))).evaluate(data, NOW) == NOT_OK


def test_joins_of_joins_stay_bounded():
    tree = Ident(("a",))
    for _ in range(12):
        tree = Call("join", (tree, tree, Literal("")))

    assert compile_expression(tree).evaluate({"a": "x" * 1_000}, NOW) is MISSING
    assert compile_expression(tree).evaluate({"a": "x"}, NOW) == "x" * 2**12


def test_many_audiences_that_include_one_another_in_any_way_are_told_apart_at_once():
    chain = {f"a{place}": Include(f"a{place + 1}") for place in range(3_000)}
    ring = {f"r{place}": group("or", [Include(f"r{other}") for other in range(100)], 0) for place in range(100)}
    above = {"top": group("or", [Include("r0"), Include("end")], 0), "end": Binary("=", Ident(("n",)), Literal(1))}

    filters = {**chain, **ring, **above}

    assert compile_filter(Include("a0"), includes=filters.get).evaluate({}, NOW) == NOT_OK
    assert compile_filter(Include("r5"), includes=filters.get).evaluate({}, NOW) == NOT_OK
    assert compile_filter(Include("top"), includes=filters.get).evaluate({"n": 1}, NOW) == MATCH


def test_encodings_of_encodings_stay_bounded():
    tree = Ident(("a",))
    for _ in range(90):
        tree = Call("encoding.b64encode", (tree,))

    assert compile_expression(tree).evaluate({"a": "x" * 100}, NOW) is MISSING
