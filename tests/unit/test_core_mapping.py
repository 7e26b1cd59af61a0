"""Mapping: events to keys and typed contributions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from streams import mapping
from streams.guards import NO_GUARDS, Guards, ValueGuard
from streams.mapping import Mapper, Refusal, coercer
from streams.merge import microseconds
from streams.ql.missing import MISSING
from streams.ql.parser import parse_queries
from streams.schema import build_schema

AT = datetime(2026, 1, 15, 12, 30, tzinfo=UTC)


def mapper_for(text: str) -> Mapper:
    queries = parse_queries(text)
    return Mapper(build_schema(queries), queries)


def mapped(text: str, event: dict, stream: str = "web"):
    return mapper_for(text).map(stream, event, microseconds(AT), None, 0)


ORDERS = """
SELECT user_id, email(email) AS email, set(cookie) AS cookies, sum(amount) AS spent, todate(at) AS last, name
FROM web INTO user BY user_id OR email OR cookies ALIAS orders
"""


def test_an_event_gives_keys_in_order_of_rank_and_typed_values():
    (each,) = mapped(
        ORDERS,
        {
            "cookie": ["k1", "k2"],
            "email": "A@X.com",
            "user_id": 17,
            "amount": "5.50",
            "at": "2026-01-01",
            "name": "Ann",
        },
    )

    assert each.keys == (("user_id", "17"), ("email", "a@x.com"), ("cookies", "k1"), ("cookies", "k2"))
    assert each.values == [
        ("cookies", ["k1", "k2"]),
        ("spent", 5.5),
        ("last", datetime(2026, 1, 1, tzinfo=UTC)),
        ("name", "Ann"),
    ]


def test_keys_are_in_order_of_rank_whatever_the_order_of_columns():
    (each,) = mapped("SELECT a, b, c FROM web INTO user BY c OR a OR b ALIAS x", {"a": "1a", "b": "1b", "c": "1c"})

    assert [name for name, _ in each.keys] == ["c", "a", "b"]


def test_an_event_without_a_key_contributes_nothing():
    assert mapped(ORDERS, {"amount": 5}) == []


def test_an_event_of_another_stream_contributes_nothing():
    assert mapped(ORDERS, {"user_id": "u"}, stream="app") == []


@pytest.mark.parametrize(
    "value",
    ["null", "NULL", "undefined", "None", "0", "0000", "00000000-0000-0000-0000-000000000000", "anonymous", " - "],
)
def test_values_that_identify_nobody_are_no_keys(value):
    (each,) = mapped(ORDERS, {"user_id": value, "email": "a@x.com"})

    assert each.keys == (("email", "a@x.com"),)
    assert each.refused == (Refusal(("user_id", value.strip()), "blocked"),)


def test_a_key_has_256_bytes_at_most():
    (each,) = mapped(ORDERS, {"user_id": "é" * 129, "cookie": ["x" * 256, "x" * 257]})

    assert each.keys == (("cookies", "x" * 256),)
    assert {refusal.reason for refusal in each.refused} == {"too_long"}
    assert each.values == [("cookies", ["x" * 256])]


def test_surrounding_spaces_are_no_part_of_a_key():
    (each,) = mapped(ORDERS, {"user_id": " u1 ", "cookie": [" k", "k"]})

    assert each.keys == (("user_id", "u1"), ("cookies", "k"))
    assert each.values == [("cookies", ["k"])]


def test_a_guard_keeps_a_key_away():
    text = "SELECT user_id IF level > 1, email FROM web INTO user BY user_id OR email ALIAS x"
    (each,) = mapped(text, {"user_id": "u", "email": "a@x.com", "level": 1})

    assert each.keys == (("email", "a@x.com"),)


def test_where_drops_the_event_for_its_query_only():
    both = (
        "SELECT user_id, x FROM web INTO user BY user_id WHERE x > 5 ALIAS one;"
        "SELECT user_id, y FROM web INTO user BY user_id ALIAS two"
    )

    assert [each.values for each in mapped(both, {"user_id": "u", "x": 3, "y": "a"})] == [[("y", "a")]]


def test_a_column_outside_of_by_is_no_key_even_if_its_field_is_an_identity():
    both = (
        "SELECT user_id, email FROM web INTO user BY user_id OR email ALIAS one;"
        "SELECT user_id, email FROM app INTO user BY user_id ALIAS two"
    )
    (each,) = mapped(both, {"user_id": "u", "email": "a@x.com"}, stream="app")

    assert each.keys == (("user_id", "u"),)
    assert each.values == [("email", "a@x.com")]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("string", 5, "5"),
        ("string", 2.0, "2"),
        ("string", True, "true"),
        ("string", AT, "2026-01-15T12:30:00Z"),
        ("string", "", MISSING),
        ("string", {"a": 1}, MISSING),
        ("int", "5.75", 5),
        ("int", "$1,200", 1200),
        ("int", 3.0, 3),
        ("int", 2**63, MISSING),
        ("int", "x", MISSING),
        ("number", 3, 3.0),
        ("number", "2.5", 2.5),
        ("number", float("inf"), MISSING),
        ("number", 10**400, MISSING),
        ("bool", "true", True),
        ("bool", 0, False),
        ("date", "2026-01-15T12:30:00Z", AT),
        ("date", 1768480200, AT),
        ("date", "nonsense", MISSING),
        ("[]string", "a", ["a"]),
        ("[]string", ["b", "a", "b", 3, "", None], ["b", "a", "3"]),
        ("[]string", {"k": 1}, ["k"]),
        ("[]string", [], MISSING),
        ("[]time", ["2026-01-15T12:30:00Z", "bad"], [AT]),
        ("[]time", AT, [AT]),
        ("map[string]int", {"a": "3", "b": "x"}, {"a": 3}),
        ("map[string]int", {"b": "x"}, MISSING),
        ("map[string]int", "a", MISSING),
        ("map[string]time", {"a": "2026-01-15T12:30:00Z"}, {"a": AT}),
        ("map[string]value", {"a": [1, {"b": AT}], "c": ""}, {"a": [1, {"b": "2026-01-15T12:30:00Z"}]}),
        ("geolocation", "52.5, 13.4", "52.5,13.4"),
        ("geolocation", {"lat": 52.5, "lng": 13.4}, "52.5,13.4"),
        ("geolocation", [1000, 2], MISSING),
        ("embedding", [1, "2.5"], [1.0, 2.5]),
        ("embedding", [1, "x"], MISSING),
        ("dynamic", {"a": AT}, {"a": "2026-01-15T12:30:00Z"}),
        ("dynamic", 2**70, float(2**70)),
    ],
)
def test_values_become_those_of_their_kind(kind, value, expected):
    got = coercer(kind)(value)

    assert got == expected
    assert type(got) is type(expected)


OTHER = "SELECT user_id, email(mail) AS email, plan KIND string FROM web INTO user BY user_id OR email ALIAS other"


@pytest.mark.parametrize(
    ("changed", "refused", "events"),
    [
        ("SELECT id AS user_id, count(id) AS visits FROM page INTO user BY user_id ALIAS more", (), {"plan": "5"}),
        ("SELECT user_id, plan KIND int FROM page INTO user BY user_id ALIAS more", (), {"plan": 5}),
        ("SELECT user_id, plan MERGEOP count FROM page INTO user BY user_id ALIAS more", (), {"plan": 1}),
        ("", ("nobody",), {}),
    ],
)
def test_what_is_taken_over_compiled_maps_as_if_it_were_compiled_anew(changed, refused, events):
    plain = OTHER.replace(" KIND string", "")
    first = parse_queries(f"{ORDERS}; {plain}")
    before = Mapper(build_schema(first), first)
    queries = [*first, *parse_queries(changed)] if changed else first
    schema, guards = (
        build_schema(queries),
        Guards([ValueGuard(None, each) for each in refused]) if refused else NO_GUARDS,
    )
    event = {"user_id": "nobody" if refused else "u", "mail": "a@x.com", "plan": "5"}

    after = Mapper(schema, queries, guards, before)

    given = after.map("web", event, microseconds(AT), None, 0)
    assert given == Mapper(schema, queries, guards).map("web", event, microseconds(AT), None, 0)
    assert dict(given[-1].values) == ({"plan": "5"} if refused else events)
    assert [key[0] for key in given[-1].keys] == (["email"] if refused else ["user_id", "email"])


def test_only_what_changes_is_compiled_again(monkeypatch):
    first = parse_queries(f"{ORDERS}; {OTHER}")
    before = Mapper(build_schema(first), first)
    asked = []
    whole = mapping.compile_into
    monkeypatch.setattr(mapping, "compile_into", lambda query, sink: (asked.append(query.alias), whole(query, sink))[1])
    queries = [first[0], *parse_queries(OTHER.replace("plan", "plan, toint(n) AS n"))]

    after = Mapper(build_schema(queries), queries, before=before)
    after.map("web", {"user_id": "none", "mail": "null"}, 0)

    assert asked == ["other"]
    assert before.lost == after.lost  # whoever counts them asks either
    assert sum(after.lost.values()) > 0
