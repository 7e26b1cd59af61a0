"""Reading what was printed gives the same tree; so does the JSON form. And nothing but QueryError for any text."""

from __future__ import annotations

import sys

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.ql.errors import Diagnostic, QueryError
from streams.ql.jsonform import from_json, to_json
from streams.ql.lexer import escape, tokenize
from streams.ql.nodes import (
    Array,
    Between,
    Binary,
    Call,
    Column,
    Conditional,
    Exists,
    Filter,
    Group,
    Ident,
    Include,
    IsNull,
    Literal,
    MatchAll,
    Node,
    Query,
    Unary,
)
from streams.ql.parser import parse_expression, parse_filter, parse_filters, parse_queries, parse_query
from streams.ql.printer import print_filter, print_node, print_query
from streams.ql.tokens import RESERVED
from streams.ql.tree import default_name, group

names = st.one_of(
    st.text(min_size=1, max_size=6),
    st.text("ab_.@-0 `'\"[]", min_size=1, max_size=5),
    st.sampled_from([*sorted(RESERVED), "email", "a.b", "_ts", "@@x", "Ünïcode", "1e5", "3d42", "x-y"]),
)
texts = st.one_of(st.text(max_size=6), st.text('\\"a\n', max_size=7))
integers = st.integers(-(2**63) + 1, 2**63 - 1)
numbers = st.one_of(integers, st.floats(allow_nan=False, allow_infinity=False))
literals = st.builds(Literal, st.one_of(st.none(), st.booleans(), numbers, texts))
idents = st.builds(Ident, st.lists(names, min_size=1, max_size=3).map(tuple))


def not_all(strategy: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return strategy.filter(lambda node: not isinstance(node, MatchAll))


def compounds(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    many = st.lists(not_all(inner), max_size=3).map(tuple)
    arrays = st.builds(Array, many)
    calls = st.one_of(
        st.builds(lambda arg: Call("tostring", (arg,)), not_all(inner)),
        st.builds(lambda args: Call("any", args), st.lists(not_all(inner), min_size=1, max_size=3).map(tuple)),
        st.builds(lambda arg: Call("cast", (arg, Literal("int"))), not_all(inner)),
    )
    operators = st.sampled_from(["=", "!=", ">", ">=", "<", "<=", "like", "contains", "+", "-", "*", "/", "%"])
    return st.one_of(
        arrays,
        calls,
        st.builds(
            lambda op, items: group(op, items, 0),
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=4),
        ),
        st.builds(Unary, st.sampled_from(["not", "-"]), inner),
        st.builds(Binary, operators, inner, inner),
        st.builds(Binary, st.just("in"), inner, st.one_of(arrays, calls, idents, st.builds(Literal, texts))),
        st.builds(Binary, st.just("intersects"), inner, st.one_of(arrays, calls, idents)),
        st.builds(Between, inner, inner, inner),
        st.builds(IsNull, inner),
        st.builds(Conditional, inner, inner, st.one_of(st.none(), inner)),
    )


leaves = st.one_of(literals, idents, st.builds(Include, names), st.just(MatchAll()))
# EXISTS with parentheses is the function in LQL, so expressions of LQL hold the operator before names only.
expressions = st.recursive(st.one_of(leaves, st.builds(Exists, idents)), compounds, max_leaves=12)
conditions = st.recursive(leaves, lambda inner: st.one_of(compounds(inner), st.builds(Exists, inner)), max_leaves=12)

scalars = st.one_of(st.booleans(), numbers, texts)
options = st.lists(st.tuples(names, st.one_of(scalars, st.lists(scalars, max_size=2).map(tuple))), max_size=3).map(
    tuple
)
counts = st.one_of(st.none(), st.integers(0, 10**9))
kinds = st.sampled_from([None, "int", "[]string", "map[string]intsum", "ts[]string"])


@st.composite
def columns(draw: st.DrawFn) -> Column:
    expr = draw(not_all(expressions))
    name = draw(st.one_of(names, st.just(default_name(expr) or "named")))
    return Column(
        expr,
        name,
        draw(st.one_of(st.none(), expressions)),
        draw(kinds),
        draw(st.sampled_from([None, "latest", "sum"])),
        draw(st.one_of(st.none(), texts)),
        draw(st.one_of(st.none(), texts)),
        draw(counts),
        draw(counts),
    )


filters = st.builds(
    Filter, conditions, names, counts, options, st.one_of(st.none(), names.map(str.lower)), st.just(""), st.just(())
)
queries = st.builds(
    Query,
    st.lists(columns(), min_size=1, max_size=3).map(tuple),
    names,
    names,
    st.lists(names, min_size=1, max_size=3).map(tuple),
    names,
    st.one_of(st.none(), expressions),
    options,
)


@given(expressions)
@example(Unary("-", Literal(5)))
@example(Binary("-", Literal(-1), Literal(-0.0)))
@example(Conditional(Ident(("a",)), Ident(("b",)), Conditional(Ident(("c",)), Ident(("d",)))))
@example(Literal(1e16))
def test_an_expression_printed_is_read_as_the_same_tree(node: Node) -> None:
    text = print_node(node)

    assert parse_expression(text) == node
    assert print_node(parse_expression(text)) == text


@given(filters)
@example(Filter(Array((Include("]."),))))
def test_a_filter_printed_is_read_as_the_same_tree(statement: Filter) -> None:
    assert parse_filter(print_filter(statement)) == statement


@given(queries)
def test_a_query_printed_is_read_as_the_same_tree(query: Query) -> None:
    assert parse_query(print_query(query)) == query


@given(conditions)
def test_the_json_form_gives_the_same_tree_back(node: Node) -> None:
    form = orjson.loads(orjson.dumps(to_json(node)))

    assert from_json(form) == node


@given(texts)
def test_any_text_can_be_written_as_a_string(text: str) -> None:
    tokens, _ = tokenize(f'"{escape(text)}" x')

    assert [token.value for token in tokens] == [text, "x", ""]


pieces = st.sampled_from(
    [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ";",
        ".",
        ":",
        "=",
        "!=",
        "<",
        "AND",
        "OR",
        "NOT",
        "IN",
        "LIKE",
        "BETWEEN",
        "IS",
        "NULL",
        "EXISTS",
        "INCLUDE",
        "IF",
        "ELSE",
        "AS",
        "FILTER",
        "SELECT",
        "FROM",
        "INTO",
        "BY",
        "WITH",
        "ALIAS",
        "WHERE",
        "LIMIT",
        "KIND",
        "CAPACITY",
        "a",
        "b_c",
        "`d",
        "e`",
        '"x"',
        "'y'",
        "1",
        "2.5",
        "-",
        "+",
        "*",
        "/",
        "%",
        "--",
        "//",
        "#",
        "/*",
        "*/",
        "\n",
        "\\",
        '"',
        "`",
        "~",
        "cast(",
        "len(",
        "now(",
    ]
)
fragments = st.one_of(st.lists(pieces, max_size=25).map(" ".join), st.text(max_size=40))


@given(fragments)
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    for read in (parse_filters, parse_queries, parse_expression, lambda text: parse_filter("FILTER " + text)):
        found: tuple[Diagnostic, ...] = ()
        try:
            read(text)
        except QueryError as error:
            found = error.diagnostics
        for each in found:
            assert each.message
            assert 1 <= each.line <= text.count("\n") + 1
            assert 1 <= each.column <= len(each.source_line) + 1


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["op", "args", "ident", "val", "seg"]), inner, max_size=3),
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["and", "=", "in", "not", "expr", "include", "if", "*"]),
                "args": st.lists(inner, max_size=3),
            }
        ),
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_read_or_refused(form: object) -> None:
    try:
        node = from_json(form)
    except QueryError:
        return
    assert from_json(to_json(node)) == node


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20_000,
        "(" * 20_000 + "a" + ")" * 20_000,
        "NOT " * 20_000 + "a",
        "- " * 20_000 + "1",
        "!" * 50_000 + "a",
        "AND (" * 15_000 + "a",
        "AND ( a, OR ( b, " * 3_000,
        "len(" * 20_000,
        "[" * 50_000,
        "a IN (" * 10_000,
        "a IN (" * 10_000 + "1" + ")" * 10_000,
        "a = (" * 10_000,
        "EXISTS " * 10_000 + "a",
        "cast(" * 10_000,
        "cast(" * 5_000 + "a" + " AS int)" * 5_000,
        "a IF (" * 10_000,
        "a IF b ELSE " * 7_000 + "c",
        "1+" * 40_000 + "1",
        "a BETWEEN (" * 5_000,
        "a." * 40_000 + "b",
        "`a`." * 20_000 + "`b`",
        "\\" * 100_000,
        '"' + "\\" * 100_000,
        '"' * 99_999,
        "a-" * 50_000,
        "/*" * 50_000,
        "a AND " * 16_000 + "a",
        "AND ( " + "a, " * 30_000 + "b )",
        "AND ( " + "a = , " * 15_000 + "b )",
        "a" * 200_000,
    ],
)
def test_hostile_texts_are_answered_without_recursion(text: str) -> None:
    for read in (
        parse_expression,
        lambda text: parse_filter("FILTER " + text),
        lambda text: parse_query("SELECT " + text),
    ):
        refusal = ""
        try:
            read(text)
        except QueryError as error:
            refusal = str(error)
        assert len(refusal) < 50_000


def test_a_deep_caller_still_gets_a_query_error() -> None:
    text = "NOT (" * 90 + "a" + ")" * 90

    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            parse_expression(text)

    with pytest.raises(QueryError, match="nested too deeply"):
        deeper(sys.getrecursionlimit() - 300)


def test_the_deepest_trees_can_be_printed_and_read_again() -> None:
    shapes = [
        lambda inner: Unary("not", inner),
        lambda inner: Binary("=", Ident(("a",)), inner),
        lambda inner: Binary("-", Literal(1), inner),
        lambda inner: Between(Ident(("a",)), Literal(1), inner),
        lambda inner: Call("tostring", (inner,)),
        lambda inner: Array((inner,)),
        lambda inner: Binary("in", Ident(("a",)), Array((inner,))),
        lambda inner: Conditional(Ident(("a",)), inner),
        lambda inner: Conditional(inner, Ident(("a",))),
        lambda inner: Unary("-", inner),
        IsNull,
        lambda inner: group(
            "or" if isinstance(inner, Group) and inner.op == "and" else "and", [Ident(("a",)), inner], 0
        ),
    ]
    for shape in shapes:
        node: Node = Literal("x")
        for _ in range(49 if shape is shapes[6] else 99):
            node = shape(node)

        assert parse_expression(print_node(node)) == node
