"""Why a condition holds, fails or cannot be evaluated (P8)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.explain import conditions, flips
from streams.ql.compiler import compile_filter
from streams.ql.nodes import Node
from streams.ql.parser import parse_filter

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
KINDS = {
    "orders": "int", "plan": "string", "last": "date", "tags": "[]string", "genres": "map[string]int",
    "active": "bool", "seen": "[]time", "name": "string", "country": "string", "zip": "int", "empty": "string",
}  # fmt: skip
VALUES = {
    "orders": 3,
    "plan": "pro",
    "last": datetime(2026, 10, 20, 10, tzinfo=UTC),
    "tags": ["a", "b"],
    "genres": {"rock": 3},
    "active": False,
    "name": "anna",
    "zip": 5,
    "empty": "",
}
INCLUDED = {
    "big": "FILTER orders >= 5",
    "small": "FILTER NOT INCLUDE big",
    "round": "FILTER INCLUDE round",
    "deep": 'FILTER AND ( plan = "pro", INCLUDE big )',
}


def include(name: str) -> Node | None:
    text = INCLUDED.get(name)
    return None if text is None else parse_filter(text).where


def walked(text, values=VALUES, now=NOW):
    return conditions(parse_filter(f"FILTER {text}").where, values, now, kinds=KINDS, includes=include)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("orders >= 5", "orders is 3; 3 >= 5 is false"),
        ("orders < 5", "orders is 3; 3 < 5 is true"),
        ('country = "DE"', "the profile has no `country`; = of what is missing is false"),
        ('country != "DE"', "the profile has no `country`; != of what is missing is true"),
        ('plan > "a"', 'plan is "pro"; "pro" > "a" is not evaluable: text cannot be ordered'),
        (
            'last > "now-30d"',
            ("last is 2026-10-20T10:00:00Z; now-30d is 2026-10-22T12:30:00Z; "
            "2026-10-20T10:00:00Z > 2026-10-22T12:30:00Z is false"),
        ),
        ('tags = "a"', 'tags is ["a", "b"]; ["a", "b"] = "a" is false'),
        (
            'tags != "a"',
            ('tags is ["a", "b"]; ["a", "b"] != "a" is not evaluable: a list is not compared by !=; '
            "IN and INTERSECTS look for an element"),
        ),
        ('tags INTERSECTS ("b", "c")', 'tags is ["a", "b"]; ["a", "b"] INTERSECTS ["b", "c"] is true'),
        ("orders BETWEEN 3 AND 9", "orders is 3; 3 BETWEEN 3 AND 9 (both ends excluded) is false"),
        ("country BETWEEN 3 AND 9", "the profile has no `country`; BETWEEN of what is missing is not evaluable"),
        ('plan NOT IN ("pro")', 'plan is "pro"; "pro" IN ["pro"] is true, so NOT of it is false'),
        ("EXISTS country", "the profile has no `country`"),
        ("EXISTS empty", "empty is empty"),
        ("EXISTS plan", 'plan is "pro"'),
        ("active", "active is false"),
        ("zip", "zip is 5; 5 is no truth value, so it is not evaluable"),
        ("NOT country", "the profile has no `country`; what is missing is not evaluable, and so is NOT of it"),
        ("len(name) > 5", 'name is "anna"; len(name) is 4; 4 > 5 is false'),
        ("orders / 0 > 1", "orders is 3; orders / 0 has no value; > of what is missing is false"),
        ("genres.rock > 2", "genres.rock is 3; 3 > 2 is true"),
        ('last = "soon"', ('last is 2026-10-20T10:00:00Z; 2026-10-20T10:00:00Z = "soon" is not evaluable: '
         '"soon" is no time')),
        ("*", "everybody matches"),
        ("INCLUDE big", "audience big is false: orders is 3; 3 >= 5 is false"),
        ("INCLUDE nobody", "not evaluable: there is no audience nobody"),
        ("NOT INCLUDE big", "INCLUDE big is false, so NOT of it is true"),
        ('AND ( orders > 1, country = "DE", plan = "x" )',
         "condition 2 of 3 is false: the profile has no `country`; = of what is missing is false"),
        ('AND ( orders > 1, plan = "pro" )', "all 2 conditions hold"),
        ('OR ( plan > "a", orders > 1 )', "condition 2 of 2 holds: orders is 3; 3 > 1 is true"),
        ('OR ( plan > "a", orders > 5 )', "none of 2 conditions holds; 1 not evaluable"),
    ],
)  # fmt: skip
def test_the_reason_shows_what_was_compared(text, reason):
    assert reason == walked(text)[0].reason


def test_the_verdicts_are_those_of_the_compiled_filter():
    for text in ("orders / 0 > 1", 'plan > "a"', "NOT INCLUDE nobody", "INCLUDE round", "INCLUDE deep"):
        where = parse_filter(f"FILTER {text}").where
        compiled = compile_filter(where, kinds=KINDS, includes=include)

        head = walked(text)[0]

        assert compiled.evaluate(VALUES, NOW) == (head.match, head.ok), text


def test_includes_are_opened_once_around_and_said_to_be_round():
    told = walked("INCLUDE round")

    assert [each.depth for each in told] == [0, 1]
    assert told[1].reason == "not evaluable: audience round includes itself"


def test_values_are_cut_to_a_line():
    values = {**VALUES, "plan": "x" * 500, "tags": [f"tag {each}" for each in range(1000)]}

    reasons = [walked('plan = "y"', values)[0].reason, walked('tags IN ("y")', values)[0].reason]

    assert all(len(reason) < 400 for reason in reasons)
    assert "(1,000 in all)" in reasons[1]


def test_the_conditions_that_flip_are_named():
    text = 'AND ( orders > 1, last > "now-33d" )'
    later = NOW + timedelta(days=2)

    flipped = flips(walked(text), walked(text, now=later))

    assert [(each.text, each.match) for each in flipped] == [('last > "now-33d"', False)]


LEAVES = st.sampled_from(
    ["orders >= 5", "orders < 5", 'plan > "a"', "EXISTS country", "NOT country", "INCLUDE big", "INCLUDE round",
     'last > "now-40d"', "zip", "*", "NOT INCLUDE nobody", 'tags != "a"'],
)  # fmt: skip
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(lambda items: f"AND ( {', '.join(items)} )"),
        st.lists(inner, min_size=2, max_size=4).map(lambda items: f"OR ( {', '.join(items)} )"),
        inner.map(lambda item: f"NOT ({item})"),
    ),
    max_leaves=8,
)


@given(FILTERS)
def test_every_condition_has_a_reason_that_agrees_with_its_verdict(text):
    for each in walked(text):
        assert each.reason
        if not each.ok:
            assert "not evaluable" in each.reason or "no truth value" in each.reason, each
