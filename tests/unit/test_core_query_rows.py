"""`cohortd query test`: LQL and events in, profiles out."""

from __future__ import annotations

import pytest

from streams.query_rows import query_row

NOW = "2026-01-15T12:30:00Z"
ORDERS = """
SELECT user_id, email(email) AS email, sum(amount) AS spent, count(amount) AS orders, set(tag) AS tags, name
FROM web INTO user BY user_id OR email ALIAS orders
"""


def row(query: str, *events: dict, now: str | None = NOW):
    return query_row({"query": query, "events": list(events), "now": now})


def profiles(query: str, *events: dict):
    answer = row(query, *events)
    assert answer["error"] is None
    return sorted(answer["profiles"], key=str)


def test_events_become_profiles():
    assert profiles(
        ORDERS,
        {"user_id": "u1", "amount": 5, "tag": "b", "_ts": 2000, "name": "new"},
        {"user_id": "u1", "email": "A@x.com", "amount": "2.5", "tag": "a", "_ts": 1000, "name": "old"},
        {"email": "a@x.com", "amount": 1},
        {"user_id": "u2"},
    ) == [
        {
            "user_id": "u1",
            "email": "a@x.com",
            "spent": 8.5,
            "orders": 3,
            "tags": ["a", "b"],
            "name": "new",
        },
        {"user_id": "u2"},
    ]


def test_profiles_are_stitched_by_an_event_with_both_ids():
    found = profiles(
        ORDERS, {"user_id": "u1", "amount": 1}, {"email": "a@x.com", "amount": 2}, {"user_id": "u1", "email": "a@x.com"}
    )

    assert found == [{"user_id": "u1", "email": "a@x.com", "spent": 3.0, "orders": 2}]


def test_a_second_value_of_an_identity_is_refused():
    found = profiles(ORDERS, {"user_id": "u1", "email": "a@x.com"}, {"user_id": "u2", "email": "a@x.com"})

    assert found == [{"user_id": "u1", "email": "a@x.com"}, {"user_id": "u2"}]


def test_a_later_statement_with_the_same_alias_replaces_the_earlier():
    text = "SELECT id, a FROM web INTO user BY id ALIAS q; SELECT id, b FROM web INTO user BY id ALIAS q"

    assert profiles(text, {"id": "i1", "a": "A", "b": "B"}) == [{"id": "i1", "b": "B"}]


def test_several_statements_feed_the_same_profiles():
    text = "SELECT id, a FROM web INTO user BY id ALIAS p; SELECT id, b FROM web INTO user BY id ALIAS q"

    assert profiles(text, {"id": "i1", "a": "A", "b": "B"}) == [{"id": "i1", "a": "A", "b": "B"}]


def test_an_event_may_name_its_stream():
    text = "SELECT id, a FROM web INTO user BY id ALIAS p; SELECT id, b FROM app INTO user BY id ALIAS q"

    assert profiles(text, {"id": "i1", "a": "A", "b": "B", "_stream": "app"}) == [{"id": "i1", "b": "B"}]


def test_a_repeated_event_id_counts_once():
    assert profiles(ORDERS, {"user_id": "u1", "amount": 1, "_id": "e"}, {"user_id": "u1", "amount": 1, "_id": "e"}) == [
        {"user_id": "u1", "spent": 1.0, "orders": 1}
    ]


def test_now_is_the_time_of_events_without_their_own():
    text = "SELECT id, now() AS at KIND date, hourofday() AS hour FROM web INTO user BY id ALIAS q"

    assert profiles(text, {"id": "i1"}) == [{"id": "i1", "at": NOW, "hour": 12}]


def test_elements_past_their_days_are_gone_at_now():
    text = "SELECT id, tag AS tags KIND []string KEEP_DAYS 3 FROM web INTO user BY id ALIAS q"
    old = {"id": "i1", "tag": "old", "_ts": "2026-01-10T00:00:00Z"}

    assert profiles(text, old, {"id": "i1", "tag": "new"}) == [{"id": "i1", "tags": ["new"]}]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"query": "SELECT x FROM", "events": []}, "line 1"),
        ({"query": "SELECT x FROM web INTO user BY y ALIAS q", "events": []}, "BY names y"),
        ({"query": "SELECT nofunction(x) AS x FROM web INTO user BY x ALIAS q", "events": []}, "nofunction"),
        ({"query": "SELECT x KIND int, x KIND date FROM web INTO user BY x ALIAS q", "events": []}, "x is int"),
        ({"query": 5, "events": []}, "query must be LQL text"),
        ({"query": ORDERS, "events": {}}, "events must be a list"),
        ({"query": ORDERS, "events": [{}], "now": "yesterday"}, "now must be RFC 3339"),
        ({"query": ORDERS, "events": [{}]}, "event 0 has no _ts"),
        ({"query": ORDERS, "events": [{"_ts": "gibberish"}], "now": NOW}, "event 0"),
        ("text", "JSON object"),
    ],
)
def test_what_is_refused_is_the_row_s_error(given, told):
    answer = query_row(given)

    assert answer["profiles"] == []
    assert told in answer["error"]
