"""The JSON form of FACTS 3.1."""

from __future__ import annotations

from typing import Any

import pytest

from streams.ql.errors import QueryError
from streams.ql.jsonform import from_json, to_json
from streams.ql.nodes import Group, Ident, Include, Literal, MatchAll
from streams.ql.parser import parse_expression, parse_filter


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (
            'AND ( a = "x", NOT EXISTS `b c`, INCLUDE d )',
            {
                "op": "and",
                "args": [
                    {"op": "=", "args": [{"ident": "a"}, {"val": "x"}]},
                    {"op": "not", "args": [{"op": "exists", "args": [{"ident": "`b c`"}]}]},
                    {"op": "include", "args": [{"seg": "d"}]},
                ],
            },
        ),
        ("a IN (1, 2.5)", {"op": "in", "args": [{"ident": "a"}, {"args": [{"val": 1}, {"val": 2.5}]}]}),
        ("a BETWEEN 1 AND 2", {"op": "between", "args": [{"ident": "a"}, {"val": 1}, {"val": 2}]}),
        ("a.`b.c` != NULL", {"op": "!=", "args": [{"ident": "`a`.`b.c`"}, {"val": None}]}),
        ("len(a) > -1", {"op": ">", "args": [{"op": "expr", "args": [{"ident": "len"}, {"ident": "a"}]}, {"val": -1}]}),
        ("a IS NULL", {"op": "is null", "args": [{"ident": "a"}]}),
        ("*", {"ident": "*"}),
        ("`*`", {"ident": "`*`"}),
    ],
)
def test_a_condition_as_json(text: str, form: dict[str, Any]) -> None:
    node = parse_filter(f"FILTER {text}").where

    assert to_json(node) == form
    assert from_json(form) == node


@pytest.mark.parametrize(
    ("form", "node"),
    [
        ({"op": "AND", "args": [{"ident": "a"}]}, Ident(("a",))),
        ({"op": "||", "args": [{"ident": "a"}, {"ident": "b"}]}, Group("or", (Ident(("a",)), Ident(("b",))))),
        ({"op": "==", "args": [{"ident": "a"}, {"val": "5"}]}, parse_expression('a = "5"')),
        ({"ident": "first name"}, Ident(("first name",))),
        ({"ident": "a.b"}, Ident(("a.b",))),
        ({"ident": "match_all"}, MatchAll()),
        ({"op": "*"}, MatchAll()),
        ({"seg": "x"}, Include("x")),
        ({"op": "include", "args": [{"ident": "my list"}]}, Include("my list")),
        ({"val": True}, Literal(True)),
        ({"op": "-", "args": [{"ident": "a"}]}, parse_expression("-a")),
    ],
)
def test_other_spellings_are_read(form: dict[str, Any], node: object) -> None:
    assert from_json(form) == node


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (5, "$: expected an object"),
        ({}, "none of op, ident, val, seg and args"),
        ({"op": "nand", "args": []}, "unknown op 'nand'"),
        ({"op": "and", "args": []}, "and has no arguments"),
        ({"op": "=", "args": [{"val": 1}]}, "= cannot have 1 arguments"),
        ({"op": "and", "args": [{"ident": "a"}, {"op": "between", "args": []}]}, "$.args[1]: between cannot have 0"),
        ({"op": "in", "args": [{"ident": "a"}, {"val": 5}]}, "in needs a list"),
        ({"op": "intersects", "args": [{"ident": "a"}, {"val": "x"}]}, "intersects needs a list"),
        ({"op": "expr", "args": [{"ident": "nonsense"}]}, "no function nonsense"),
        ({"op": "expr", "args": [{"ident": "len"}]}, "len() takes 1 argument, not 0"),
        ({"op": "expr", "args": []}, "the function's name"),
        ({"op": "include", "args": []}, "the name of one audience"),
        ({"ident": ""}, "not empty"),
        ({"val": [1]}, "expected a constant"),
        ({"val": 2**63}, "expected a constant"),
        ({"op": 5}, "op is no text"),
        ({"op": "and", "args": {}}, "args is no list"),
    ],
)
def test_what_is_no_expression_is_refused_with_its_path(form: object, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        from_json(form)

    assert message in caught.value.diagnostics[0].message


def test_limits() -> None:
    deep: dict[str, Any] = {"ident": "a"}
    for _ in range(5000):
        deep = {"op": "not", "args": [deep]}

    with pytest.raises(QueryError, match="nested too deeply"):
        from_json(deep)
    with pytest.raises(QueryError, match="more than 20000 parts"):
        from_json({"op": "or", "args": [{"ident": "a"}] * 20_001})
