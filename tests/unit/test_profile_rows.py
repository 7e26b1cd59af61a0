"""Profiles shown straight from their stored texts: always what a loaded profile shows, in the same order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import profile_rows
from streams.identity import Resolution
from streams.merge import microseconds, moment
from streams.profile import load, new
from streams.profile_rows import showing, text_of_us
from streams.profile_view import META_NAMES, SHOWN_META_NAMES, output
from streams.ql.coerce import text_of_date
from streams.schema import Field, schema_of

NOW = datetime(2026, 1, 15, 12, 30, tzinfo=UTC)
NOW_US = microseconds(NOW)
SCHEMA = schema_of(
    [
        Field("user_id", "string", "latest", identity=True, single=True, rank=0),
        Field("account", "int", "latest", identity=True, single=True, rank=1),
        Field("email", "string", "latest", identity=True, rank=2),
        Field("spent", "number", "sum"),
        Field("visits", "int", "count"),
        Field("name", "string", "latest"),
        Field("first", "date", "min"),
        Field("last", "date", "latest"),
        Field("vip", "bool", "latest"),
        Field("genres", "map[string]int", "sum"),
        Field("prices", "map[string]number", "latest"),
        Field("words", "map[string]string", "latest"),
        Field("flags", "map[string]bool", "latest"),
        Field("when", "map[string]time", "merge"),
        Field("anything", "map[string]value", "latest"),
        Field("tags", "[]string", "merge"),
        Field("seen", "[]time", "merge"),
    ]
)
OTHER = schema_of([Field("user_id", "string", "latest", identity=True, single=True, rank=0)])
NAMES = [*SCHEMA.fields, *META_NAMES, *SHOWN_META_NAMES, "nothing"]

_texts = st.text(max_size=5)
_numbers = st.integers(-(2**40), 2**40)
_floats = st.floats(allow_nan=False, allow_infinity=False, width=32)
_moments = st.integers(-(2**51), 2**52).map(moment)
_values = {
    "spent": _floats,
    "visits": st.just(1),
    "name": _texts,
    "first": _moments,
    "last": _moments,
    "vip": st.booleans(),
    "genres": st.dictionaries(_texts, st.integers(1, 9), min_size=1, max_size=3),
    "prices": st.dictionaries(_texts, _floats, min_size=1, max_size=3),
    "words": st.dictionaries(_texts, _texts, min_size=1, max_size=3),
    "flags": st.dictionaries(_texts, st.booleans(), min_size=1, max_size=3),
    "when": st.dictionaries(_texts, _moments, min_size=1, max_size=3),
    "anything": st.dictionaries(_texts, _texts | _numbers | _floats, min_size=1, max_size=3),
    "tags": st.lists(_texts, min_size=1, max_size=3),
    "seen": st.lists(_moments, min_size=1, max_size=3),
}
_contributions = st.fixed_dictionaries({}, optional=_values)
_keys = st.lists(
    st.sampled_from([("user_id", "ü1"), ("account", "17"), ("email", "a@b.c"), ("email", "b@b.c")]),
    min_size=1,
    unique=True,
)


def stored(keys: list[tuple[str, str]], contributions: dict[str, object], us: int) -> str:
    profile = new(1, us)
    resolution = Resolution(profile, tuple(keys), tuple(keys), (), (), list(contributions.items()))
    profile.apply(
        SCHEMA, resolution, event_us=us, event_id=None, stream="web", received_us=us, position=("realtime", 1)
    )
    return profile.dump()


@settings(max_examples=300, deadline=None)
@given(_keys, _contributions, st.integers(0, 10**15), st.none() | st.sets(st.sampled_from(NAMES)))
def test_what_is_shown_of_a_stored_profile_is_what_a_loaded_one_shows(keys, contributions, us, names):
    text = stored(keys, contributions, us)

    expected = output(load(SCHEMA, 1, text), SCHEMA, names, stored=text)
    assert list(expected.items()) == list(showing(SCHEMA, names)(1, text).items())


def test_fields_that_the_schema_does_not_have_any_more_are_not_shown():
    text = stored([("user_id", "u1")], {"name": "ann", "spent": 2.0}, NOW_US)

    assert {"user_id": "u1"} == showing(OTHER, ["user_id", "name", "spent"])(1, text)


def test_what_a_rebuilding_replaced_is_neither_shown_nor_counted():
    text = stored([("user_id", "u1")], {"name": "ann", "spent": 2.0}, NOW_US)
    rebuilt = schema_of(SCHEMA.fields.values(), {"spent": (1, 0)})

    shown = showing(rebuilt)(1, text)

    assert output(load(rebuilt, 1, text), rebuilt, stored=text) == shown
    assert "spent" not in shown
    assert shown["_cust_sz"] < showing(SCHEMA)(1, text)["_cust_sz"]


def test_many_sets_of_fields_are_shown_too(monkeypatch):
    monkeypatch.setattr(profile_rows, "MOST_SHAPES", 1)
    show = showing(SCHEMA, ["name", "vip"])
    texts = [stored([("user_id", "u1")], given, NOW_US) for given in ({"name": "ann"}, {"vip": True})]

    assert [{"name": "ann"}, {"vip": True}, {"name": "ann"}] == [show(1, text) for text in (*texts, texts[0])]


@pytest.mark.parametrize(
    "at",
    [
        NOW,
        NOW + timedelta(microseconds=1),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_990, tzinfo=UTC),
        datetime(2024, 2, 29, tzinfo=UTC),
    ],
)
def test_a_moment_is_written_the_same_way(at):
    us = microseconds(at)

    assert text_of_date(moment(us)) == text_of_us(us)
