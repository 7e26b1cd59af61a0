"""All that is wrong with a text is told at once, each thing once and at its place, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.ql.errors import QueryError
from streams.ql.limits import MAX_DIAGNOSTICS
from streams.ql.reading import accepted_filter, accepted_query, read_filters, read_queries

KINDS = {"country": "string", "amount": "int", "seen": "date"}


def told(found):
    return [(each.line, each.column, each.message) for each in found]


def test_mistakes_of_grammar_calls_kinds_and_names_are_told_together():
    text = """SELECT
  user_id,
  emial(email) AS email,
  toint(amount, 5) AS amount,
  regex.match(url, "(") AS buyer,
  name KIND strng,
  tier MERGEOP lates,
  len(count(x)) AS n
FROM orders INTO user BY user_id OR mail ALIAS orders"""

    _, found = read_queries(text)

    assert told(found) == [
        (3, 3, "there is no function emial"),
        (4, 3, "toint() takes 1 argument, not 2"),
        (5, 20, "'(' is not RE2 syntax: missing ): ("),
        (6, 3, "name has the unknown kind strng"),
        (7, 3, "tier has the unknown merge operator lates"),
        (8, 7, "count() stands only around a whole column"),
        (9, 37, "BY names mail, which is none of the columns"),
    ]
    assert [each.hint for each in found][3:5] == ["did you mean string?", "did you mean latest?"]


def test_what_could_not_be_read_is_not_called_missing():
    text = "SELECT user_id, a b AS mail, name KIND strng FROM orders INTO user BY mail ALIAS o"

    _, found = read_queries(text)

    messages = [each.message for each in found]
    assert "name has the unknown kind strng" in messages
    assert not [message for message in messages if message.startswith("BY names")]


def test_a_call_whose_arguments_are_broken_is_not_told_to_lack_them():
    _, found = read_filters("FILTER AND ( contains(=, country), amont > 3 )", kinds=KINDS, audiences=())

    assert told(found) == [
        (1, 23, "expected a value, found ="),
        (1, 36, "no query feeds the field amont"),
    ]


def test_a_filter_tells_fields_audiences_and_moments_beside_its_grammar():
    text = """FILTER AND (
  contry = "DE"
  INCLUDE bigspendr
  seen > "now-1x"
  amount 5
  tolowr(country) = "x"
)"""

    _, found = read_filters(text, kinds=KINDS, audiences=("bigspender",))

    assert [(each.line, each.column, each.severity, each.hint) for each in found] == [
        (2, 3, "warning", "did you mean country?"),
        (3, 3, "error", "did you mean bigspender?"),
        (4, 10, "warning", "now, or now-3d: a whole number and one of y M w d h m s"),
        (5, 10, "error", ""),
        (6, 3, "error", "did you mean tolower?"),
    ]


def test_several_statements_are_told_together():
    text = """SELECT id, a KIND x FROM s INTO user BY id ALIAS one;
SELECT id b FROM s INTO user BY id ALIAS two;
SELECT id, lenn(a) AS n FROM s INTO user BY id ALIAS three"""

    _, found = read_queries(text)

    assert [each.line for each in found] == [1, 2, 3]


def test_what_is_accepted_has_warnings_at_most():
    assert accepted_query("SELECT id FROM s INTO user BY id ALIAS a").alias == "a"
    assert accepted_filter("FILTER nobody_feeds = 1", kinds=KINDS, audiences=()).alias is None
    for refused in ("", "SELECT id FROM s INTO user BY id ALIAS a; SELECT id FROM s INTO user BY id ALIAS b"):
        with pytest.raises(QueryError, match="expected"):
            accepted_query(refused)
    with pytest.raises(QueryError, match="expected one statement, found 2"):
        accepted_filter("FILTER *; FILTER *", kinds=None, audiences=None)


PIECES = """SELECT |FILTER |AND ( |OR ( |a| = |5|, |) |len(|foo(|count(|cast(x AS y)|"x" | IF | ELSE | KIND zz |
 MERGEOP q | FROM s | INTO user | BY id | OR | ALIAS a |;|INCLUDE x |BETWEEN |ifcase(|[|] |`b` |"|-|*|id, """
pieces = st.sampled_from(PIECES.split("|"))


@given(st.lists(pieces, max_size=25).map("".join))
def test_no_text_makes_reading_raise_or_tell_a_thing_twice(text):
    for _, found in (read_queries(text), read_filters(text, kinds=KINDS, audiences=("a",))):
        assert len(set(told(found))) == len(found) <= MAX_DIAGNOSTICS
        assert told(found) == sorted(told(found))
