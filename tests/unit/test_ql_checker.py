"""What the grammar alone does not say."""

from __future__ import annotations

import time

import pytest

from streams.merge import allowed_operators
from streams.ql.checker import CAST_TYPES, MERGE_OPERATORS, check_filter, check_query
from streams.ql.errors import Diagnostic, QueryError
from streams.ql.fingerprint import fingerprint
from streams.ql.functions import FUNCTIONS
from streams.ql.jsonform import from_json, to_json
from streams.ql.kinds import Kind
from streams.ql.missing import MISSING
from streams.ql.parser import parse_filter, parse_query

KINDS = {
    "email": "string",
    "visits": "int",
    "last_visit": "date",
    "pages": "map[string]int",
    "Company": "string",
    "seen": "[]time",
}


def in_filter(text: str, audiences: set[str] | None = None) -> list[Diagnostic]:
    return check_filter(parse_filter(text), text, kinds=KINDS, audiences=audiences)


def in_query(text: str) -> list[Diagnostic]:
    return check_query(parse_query(text), text)


def column(text: str) -> list[Diagnostic]:
    return in_query(f"SELECT id, {text} FROM s INTO user BY id ALIAS q")


@pytest.mark.parametrize(
    "text",
    [
        'FILTER email = "x" AND company != "y" AND COMPANY = NULL',
        "FILTER pages.home > 3 AND `pages`.`a b` > 1 AND _num_events > 5",
        'FILTER last_visit > "now-3d" AND last_visit < "2026-01-31" AND seen > "NOW-1M"',
        'FILTER exists(email) AND hasprefix(email, "a") AND NOT (visits = 5)',
        'FILTER last_visit CONTAINS "2026" AND visits > "5" AND email > 5',
        'SELECT email FROM user.changes FILTER entered("x")',
        "FILTER oneof(visits, 1) > 0",
        "FILTER visits",
        "FILTER true",
    ],
)
def test_nothing_is_said_about_a_good_filter(text: str) -> None:
    assert in_filter(text, {"a"}) == []


@pytest.mark.parametrize(
    ("text", "column", "message", "hint"),
    [
        ("FILTER emial = 5", 8, "no query feeds the field emial", "did you mean email?"),
        ("FILTER zzz = 5", 8, "no query feeds the field zzz", ""),
        ("SELECT emails FROM user FILTER *", 8, "no query feeds the field emails", "email"),
        ('FILTER last_visit > "now-3D"', 21, "'now-3D' is no moment", "y M w d h m s"),
        ('FILTER last_visit > "now-3d-1h"', 21, "is no moment", ""),
        ('FILTER last_visit BETWEEN "yesterday" AND "now"', 27, "is a date, and 'yesterday' is none", "2026"),
        ('FILTER "soon" < last_visit', 8, "is a date, and 'soon' is none", ""),
        ('FILTER email > "a"', 16, "text has no order", ""),
        ("FILTER visits * 5", 8, "this is no condition", "compare"),
        ("FILTER len(email)", 8, "this is no condition", ""),
        ('FILTER "x"', 8, "this is no condition", ""),
    ],
)
def test_what_is_doubtful_is_a_warning(text: str, column: int, message: str, hint: str) -> None:
    (found,) = in_filter(text)

    assert (found.severity, found.line, found.column) == ("warning", 1, column)
    assert message in found.message
    assert hint in found.hint


def test_an_unknown_audience_is_an_error() -> None:
    (found,) = in_filter("FILTER NOT INCLUDE byers", {"buyers", "Other Name"})

    assert (found.severity, found.column, found.hint) == ("error", 12, "did you mean buyers?")
    assert in_filter("FILTER INCLUDE BUYERS AND INCLUDE `other name`", {"buyers", "Other Name"}) == []
    assert in_filter("FILTER INCLUDE nobody", None) == []


def test_a_flood_of_unknown_names_is_answered_soon() -> None:
    text = "FILTER AND (" + ", ".join(f"field_{number}" for number in range(8000)) + ")"
    kinds = {f"other_{number}": "int" for number in range(2000)}
    started = time.process_time()

    found = check_filter(parse_filter(text), text, kinds=kinds, audiences=None)

    assert len(found) == 50
    assert time.process_time() - started < 10
    with pytest.raises(QueryError) as caught:
        parse_filter("FILTER AND (" + "tostrng(a), " * 8000 + ")")
    assert len(caught.value.diagnostics) == 50
    assert time.process_time() - started < 20


def test_without_known_fields_names_are_not_checked() -> None:
    text = "FILTER anything > 5"

    assert check_filter(parse_filter(text), text, kinds=None, audiences=None) == []


def test_a_tree_from_json_is_checked_too() -> None:
    tree = parse_filter("FILTER tostring(email) = 5")
    again = from_json(to_json(tree.where))

    assert check_filter(tree, "", kinds=None, audiences=None) == []
    assert again == tree.where


@pytest.mark.parametrize(
    "text",
    [
        "count(x) AS n",
        "count(x) AS n MERGEOP count",
        "count(*) AS n",
        "count(x) AS n MERGEOP sum",
        "sum(toint(x)) AS n MERGEOP sum",
        "set(x) AS n MERGEOP merge",
        "valuect(x) AS n KIND map[string]intsum",
        "x AS n KIND ts[]string MERGEOP capped CAPACITY 5 KEEP_DAYS 30",
        "x AS n KIND time",
        "min(x) AS n IF exists(x)",
    ],
)
def test_nothing_is_said_about_a_good_column(text: str) -> None:
    assert column(text) == []


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("x KIND strin", 12, "unknown kind strin", "did you mean string?"),
        ("x KIND zzzzzz", 12, "unknown kind zzzzzz", "one of "),
        ("x MERGEOP newest", 12, "unknown merge operator newest", "latest"),
        ("toint(sum(x)) AS n", 18, "sum() stands only around a whole column", ""),
        ("sum(count(x)) AS n", 16, "count() stands only around a whole column", ""),
        ("x IF count(y) = 1", 17, "count() stands only around a whole column", ""),
        ("count(x) IF a ELSE 0 AS n", 12, "count() stands only around a whole column", ""),
        ("sum(x) AS n MERGEOP latest", 12, "sum() merges by sum, so n cannot have MERGEOP latest", ""),
        ("count(x) AS n MERGEOP latest", 12, "cannot have MERGEOP latest", ""),
        ("x KEEP_DAYS 99999999999", 12, "KEEP_DAYS 99999999999 of x is too large", ""),
        ("x IF INCLUDE y", 17, "INCLUDE is for filters", ""),
    ],
)
def test_a_wrong_column_is_an_error(text: str, place: int, message: str, hint: str) -> None:
    (found,) = column(text)

    assert (found.severity, found.column) == ("error", place)
    assert message in found.message
    assert hint in found.hint


def test_by_names_columns_once() -> None:
    found = in_query("SELECT email, b FROM s INTO user BY emial OR email OR email ALIAS q")

    assert [(each.column, each.hint) for each in found] == [(37, "did you mean email?"), (55, "")]


def test_aggregates_are_refused_in_where() -> None:
    (found,) = in_query("SELECT a FROM s INTO user BY a WHERE count(x) = 1 ALIAS q")

    assert found.column == 38


def test_all_findings_come_in_the_order_of_the_text() -> None:
    found = in_query("SELECT a KIND x, b KIND y FROM s INTO user BY c OR a WHERE sum(a) > 1 ALIAS q")

    assert [each.column for each in found] == sorted(each.column for each in found)
    assert len(found) == 4


def test_the_merge_operators_are_those_that_fields_can_have() -> None:
    assert set().union(*(allowed_operators(kind) for kind in Kind)) == MERGE_OPERATORS


@pytest.mark.parametrize("name", sorted(CAST_TYPES))
def test_every_type_of_cast_is_one_that_cast_knows(name: str) -> None:
    assert any(FUNCTIONS["cast"].impl(value, name) is not MISSING for value in ("5", "true", "2026-01-31"))


# --- fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("FILTER visit_ct > 74", "FILTER visit_ct > 101"),
        ('FILTER a IN ("x", 1) LIMIT 5', "FILTER  a  IN (2.5, NULL) LIMIT 6"),
        (
            'FILTER AND ( a = "x", b BETWEEN 1 AND 2 ) WITH c = 1',
            'FILTER a = 5 AND b BETWEEN 3 AND "now" WITH c = true',
        ),
        ("FILTER cast(a AS int) > -1", "FILTER cast(a AS int) > 1"),
    ],
)
def test_equal_up_to_constants_is_equal_in_fingerprint(one: str, other: str) -> None:
    assert fingerprint(parse_filter(one)) == fingerprint(parse_filter(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("FILTER a > 1", "FILTER b > 1"),
        ("FILTER a > 1", "FILTER a >= 1"),
        ("FILTER a > 1", "FILTER a > 1 FROM content"),
        ("FILTER a > 1 ALIAS x", "FILTER a > 1 ALIAS y"),
        ("FILTER INCLUDE x", "FILTER INCLUDE y"),
        ("FILTER cast(a AS int) > 1", "FILTER cast(a AS number) > 1"),
        ("FILTER a IN (1)", "FILTER a IN (1, 2)"),
        ("SELECT a FROM user FILTER *", "SELECT b FROM user FILTER *"),
    ],
)
def test_other_differences_show_in_the_fingerprint(one: str, other: str) -> None:
    assert fingerprint(parse_filter(one)) != fingerprint(parse_filter(other))
