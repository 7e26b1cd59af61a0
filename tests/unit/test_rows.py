"""The rows of `filter test` and `expr test`: what is refused, how kinds apply, and that nothing is ever raised."""

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.ql.rows import expr_row, filter_row

NOW = "2026-01-15T12:30:00Z"


def filtered(text, profile=None, **more):
    return filter_row({"filter": text, "profile": profile or {}, "now": NOW} | more)


def valued(text, data=None, **more):
    return expr_row({"expr": text, "data": data or {}, "now": NOW} | more)


@pytest.mark.parametrize(
    "row",
    [
        {"filter": "FILTER a >", "now": NOW},
        {"filter": "FILTER nope(a)", "now": NOW},
        {"filter": "FILTER tolower(a, b) = 1", "now": NOW},
        {"filter": "", "now": NOW},
        {"filter": 5, "now": NOW},
        {"now": NOW},
        {"filter": "FILTER a = 1", "now": "yesterday"},
        {"filter": "FILTER a = 1", "now": 5},
        {"filter": "FILTER a = 1"},
        {"filter": "FILTER a = 1", "now": NOW, "kinds": {"a": "integer?"}},
        {"filter": "FILTER a = 1", "now": NOW, "kinds": []},
        {"filter": "FILTER a = 1", "now": NOW, "profile": [1]},
        {"filter": "FILTER INCLUDE x", "now": NOW, "includes": {"x": "FILTER ("}},
        {"filter": "FILTER INCLUDE x", "now": NOW, "includes": {"x": 5}},
        [],
        None,
        "x",
    ],
)
def test_what_is_refused_has_an_error_and_no_match(row):
    answer = filter_row(row)

    assert answer.pop("error")
    assert answer == {"match": False, "ok": False, "boundary": None}


@pytest.mark.parametrize("text", ["a +", "nope(1)", "todate(1, 2, 3)", "", "a b", 'todatein(a, "no zone")'])
def test_a_refused_expression_has_an_error_and_no_value(text):
    answer = valued(text)

    assert answer["error"]
    assert (answer["value"], answer["ok"]) == (None, False)


@pytest.mark.parametrize(
    ("text", "data", "value", "kind"),
    [
        ("9223372036854775807", {}, 9223372036854775807, "int"),
        ("a + 1", {"a": 9007199254740993}, 9007199254740994, "int"),
        ("a", {"a": 1.0}, 1.0, "number"),
        ("a", {"a": ""}, "", "string"),
        ("a", {"a": True}, True, "bool"),
        ("A.B", {"a": {"b": [1, "x"]}}, [1, "x"], "[]value"),
        ("a", {"a": {"x": 1}}, {"x": 1}, "map[string]int"),
        ("a", {"a": {"x": 1, "y": "z"}}, {"x": 1, "y": "z"}, "map[string]value"),
        ('split("a,b", ",")', {}, ["a", "b"], "[]string"),
        ("now()", {}, NOW, "date"),
        ('todate("now-3d")', {}, "2026-01-12T12:30:00Z", "date"),
        ("a", {"a": "2026-01-01"}, "2026-01-01", "string"),
        ("x > 1", {"x": 5}, True, "bool"),
        ('ifcase("big" IF x > 3, "small")', {"x": 5}, "big", "string"),
    ],
)
def test_a_value_is_written_with_its_kind(text, data, value, kind):
    assert valued(text, data) == {"value": value, "kind": kind, "ok": True, "error": None}


@pytest.mark.parametrize(
    ("text", "data"),
    [("missing", {}), ("a", {"a": None}), ('"x" > "a"', {}), ("NULL", {}), ("1 / 0", {}), ('"abc" + 1', {})],
)
def test_what_has_no_value_is_not_ok_and_no_error(text, data):
    assert valued(text, data) == {"value": None, "kind": "nil", "ok": False, "error": None}


def test_kinds_make_values_of_json():
    profile = {"seen": 1768480200, "N": "5", "tags": "vip", "user": {"born": "2026-01-15"}, "bad": "x"}
    kinds = {"seen": "date", "n": "int", "tags": "[]string", "user.born": "date", "bad": "int"}

    def verdict(text):
        answer = filtered(text, profile, kinds=kinds)
        return answer["match"], answer["ok"]

    assert verdict('FILTER seen = "2026-01-15T12:30:00Z"') == (True, True)
    assert verdict("FILTER n = 5") == (True, True)
    assert verdict('FILTER tags IN ("vip")') == (True, True)
    assert verdict('FILTER user.born > "now-1d"') == (True, True)
    assert verdict("FILTER EXISTS bad") == (False, True)  # a value that is none of its kind is no value
    assert profile["user"] == {"born": "2026-01-15"}  # the line itself is left alone


def test_a_line_without_now_takes_the_callers():
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert expr_row({"expr": "now()"}, now)["value"] == "2026-01-01T00:00:00Z"
    assert filter_row({"filter": "FILTER *"}, now)["match"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["a", "A", "b", "a.b", "", ".", "hits"])
snippets = st.sampled_from(
    [
        "FILTER a > 5",
        'FILTER a > "now-1d"',
        'FILTER a BETWEEN "now-1M" AND b',
        "FILTER a + b * 2 > 1",
        "FILTER a IN b",
        "FILTER a CONTAINS b",
        "FILTER a LIKE b",
        "FILTER a % b = 1",
        "FILTER a.b = 1 AND a.b.c != 2",
        "FILTER timewindow(a, 2, b)",
        "FILTER toint(a) = 5 OR email(b) = a",
        "FILTER -a < todate(b)",
        "FILTER NOT (a = b) AND a IS NULL",
        'FILTER hits.a > "now-1y" AND hits IN ("a", "b")',
        "FILTER now() BETWEEN a AND b",
    ]
)
kinds = st.sampled_from(["int", "number", "bool", "date", "string", "[]string", "[]time", "map[string]time", "dynamic"])


@settings(max_examples=400, deadline=None)
@given(snippets, st.dictionaries(names, json_values, max_size=5), st.dictionaries(names, kinds, max_size=3))
def test_no_data_makes_a_row_raise_or_give_what_is_no_json(text, profile, known):
    answer = filtered(text, profile, kinds=known)

    assert answer["error"] is None
    assert answer["ok"] or not answer["match"]
    orjson.dumps(answer)


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="FILTER AND()\"',.=<>!ab1 -+*/%\n`[]NOT", max_size=60))
def test_no_text_makes_a_row_raise(text):
    for answer in (filtered(text), filtered("FILTER " + text), valued(text)):
        orjson.dumps(answer)


@pytest.mark.parametrize("text", ["[1*1F,)", "f(%]", "a IN (1, (2]", "f([a)", "AND (a = [1*1F ,)"])
def test_brackets_that_do_not_fit_are_refused_at_once(text):
    assert filtered("FILTER " + text)["error"]
    assert valued(text)["error"]
