"""Audiences: what a change touches, who is a member, when time alone decides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.audience import AudienceSet
from streams.identity import Resolution
from streams.merge import microseconds, moment
from streams.profile import load, new
from streams.profile_view import fields_read, meta_of, output, viewer
from streams.ql.compiler import compile_filter
from streams.ql.parser import parse_filter
from streams.schema import Field, schema_of
from streams.trigger import NEVER, AudienceName, TriggerRow, message

NOW = datetime(2026, 1, 15, 12, 30, tzinfo=UTC)
NOW_US = microseconds(NOW)
DAY = 86_400_000_000
SCHEMA = schema_of(
    [
        Field("user_id", "string", "latest", identity=True, single=True, rank=0),
        Field("Spent", "number", "sum"),
        Field("last", "date", "max"),
        Field("genres", "map[string]int", "sum"),
        Field("tags", "[]string", "merge", keep_days=30),
        Field("seen", "[]time", "merge"),
        Field("visits", "map[string]time", "merge"),
    ]
)


def audiences(*texts: str) -> AudienceSet:
    compiled = [compile_filter(parse_filter(f"FILTER {text}").where, kinds=SCHEMA.kinds) for text in texts]
    return AudienceSet(dict(enumerate(compiled, 1)), SCHEMA)


def profile_of(*contributions, us=NOW_US):
    profile = new(1, NOW_US)
    key = ("user_id", "u1")
    resolution = Resolution(profile, (key,), (key,), (), (), list(contributions))
    profile.apply(
        SCHEMA, resolution, event_us=us, event_id=None, stream="web", received_us=NOW_US, position=("realtime", 1)
    )
    return profile


def touched(known: AudienceSet, *names: str):
    return known.touched(SCHEMA.mask_of(names))


def test_an_event_touches_the_audiences_that_read_what_it_changed():
    known = audiences("Spent > 5", 'last > "now-3d"', "AND (Spent > 1, genres.rock > 1)", "user_id = 5")

    assert touched(known, "Spent") == (1, 3)
    assert touched(known, "genres") == (3,)
    assert touched(known, "last", "tags") == (2,)
    assert touched(known) == ()


def test_names_of_any_case_and_dotted_names_are_found():
    assert fields_read(SCHEMA, ["spent"]) == {"Spent"}
    assert fields_read(SCHEMA, ["GENRES.rock.x", "nothing"]) == {"genres"}
    assert fields_read(SCHEMA, ["_num_EVENTS"]) == {"_num_events"}


def test_every_event_touches_an_audience_that_reads_meta_fields():
    known = audiences("_num_events >= 1", "Spent > 5")
    profile = profile_of(("Spent", 1.0))

    assert touched(known) == (1,)
    assert known.evaluate((1, 2), profile, NOW) == [True, False]


def test_what_cannot_be_evaluated_is_no_member():
    assert audiences("NOT (last)").evaluate((1,), profile_of(), NOW) == [False]


CONDITIONS = (
    "Spent > 2",
    "Spent BETWEEN 1 AND 3",
    'last > "now-3d"',
    'AND (last < "now-1d", Spent >= 1)',
    "genres.rock >= 2",
    'tags INTERSECTS ("a", "c")',
    'NOT tags INTERSECTS ("a")',
    "NOT (last)",
    "Spent / genres > 1",
    'user_id = "u1"',
    "EXISTS nothing",
    "unknown != 5",
    "_num_events > 0",
    "*",
    "Spent = 1",
    "Spent > 3",
    'last < "now-4d"',
    "NOT genres.pop > 1",
)


FUSED = audiences(*CONDITIONS)


@settings(max_examples=60, deadline=None)
@given(
    spent=st.none() | st.integers(0, 4).map(float),
    days=st.none() | st.integers(0, 5),
    genres=st.none() | st.dictionaries(st.sampled_from(["rock", "pop"]), st.integers(1, 3), min_size=1),
    tags=st.none() | st.lists(st.sampled_from("abc"), min_size=1, unique=True),
)
def test_many_filters_in_one_function_say_what_each_says(spent, days, genres, tags):
    last = None if days is None else NOW - timedelta(days=days)
    given_values = {"Spent": spent, "last": last, "genres": genres, "tags": tags}
    profile = profile_of(*((name, value) for name, value in given_values.items() if value is not None))
    known, numbers = FUSED, tuple(FUSED.audiences)
    for _ in range(70):
        one_by_one = [
            number for number, member in zip(numbers, known.evaluate(numbers, profile, NOW), strict=True) if member
        ]
        assert known.matched(numbers, profile, NOW) == sum(1 << number for number in one_by_one)


def test_the_boundary_is_the_earliest_of_those_asked_for():
    known = audiences('last > "now-3d"', 'last > "now-1d"', "Spent > 5")
    profile = profile_of(("last", NOW - timedelta(hours=1)))

    assert known.timed == (1, 2)
    first = moment(known.boundary(known.timed, profile, NOW))
    assert known.evaluate((1, 2), profile, first - timedelta(seconds=1)) == [True, True]
    assert known.evaluate((1, 2), profile, first) == [True, False]
    assert moment(known.boundary((1,), profile, NOW)) > first
    assert known.boundary((3,), profile, NOW) is None


TIMED = audiences(
    'last > "now-3d"',
    'last <= "now-1d"',
    'AND (last > "now-2d", Spent > 2)',
    'last BETWEEN "now-4d" AND "now-1h"',
    'last > "now-1M"',
    'seen > "now-3d"',
    'visits.x > "now-3d"',
    'tags INTERSECTS ("a")',
    'last != "now-1d"',
    "hourofday() > 13",
    "Spent > 1",
)


@settings(max_examples=80, deadline=None)
@given(
    spent=st.integers(0, 4).map(float),
    seconds=st.none() | st.integers(-400_000, 400_000),
    fraction=st.sampled_from([0, 1, 999_999]),
    numbers=st.sets(st.sampled_from(sorted(TIMED.audiences)), min_size=1),
)
def test_the_cheap_bound_is_never_later_than_the_boundary(spent, seconds, fraction, numbers):
    given_values = [("Spent", spent), ("tags", ["a"])]
    if seconds is not None:
        at = NOW - timedelta(seconds=seconds, microseconds=fraction)
        given_values += [("last", at), ("seen", [at]), ("visits", {"x": at})]
    profile = profile_of(*given_values, us=NOW_US - 29 * DAY)
    asked = tuple(sorted(numbers))

    boundary = TIMED.boundary(asked, profile, NOW)
    bound = TIMED.earliest(asked, profile, NOW)

    assert bound is None or bound > NOW_US
    if boundary is not None:
        assert bound is not None
        assert bound <= boundary


def test_what_keep_days_lets_go_has_its_moment():
    known = audiences('tags INTERSECTS ("a")')
    profile = profile_of(("tags", ["a"]), us=NOW_US - 29 * DAY)

    due = known.boundary(known.timed, profile, NOW)
    assert not profile.expire(SCHEMA, due - 1_000_000)
    assert known.evaluate((1,), profile, moment(due)) == [True]
    assert profile.expire(SCHEMA, due) == SCHEMA.mask_of(["tags"])

    assert known.evaluate((1,), profile, moment(due)) == [False]
    assert "tags" not in output(profile, SCHEMA)
    assert known.boundary(known.timed, profile, moment(due)) is None
    assert load(SCHEMA, 1, profile.dump()).values == profile.values


@pytest.mark.parametrize("names", [["user_id", "spent"], list(SCHEMA.fields), ["_num_events", "visits.x"], ["nothing"]])
def test_a_view_has_what_a_loaded_profile_has(names):
    profile = profile_of(
        ("Spent", 2.5),
        ("last", NOW),
        ("genres", {"rock": 2}),
        ("tags", ["b", "a"]),
        ("seen", [NOW]),
        ("visits", {"x": NOW}),
    )

    view = viewer(SCHEMA, names)(1, orjson.loads(profile.dump()))

    everything = profile.values | meta_of(profile)
    wanted = fields_read(SCHEMA, names)
    meta = {name for name in everything if name.startswith("_")} if any(name[0] == "_" for name in names) else set()
    assert view == {name: value for name, value in everything.items() if name in wanted | meta}


def test_output_is_plain_json_with_moments_in_rfc_3339():
    profile = profile_of(("last", NOW), ("seen", [NOW]), ("visits", {"x": NOW}), ("Spent", 2.0))

    assert output(profile, SCHEMA, ["last", "seen", "visits", "_num_events", "_created", "_id", "_streamnames"]) == {
        "last": "2026-01-15T12:30:00Z",
        "seen": ["2026-01-15T12:30:00Z"],
        "visits": {"x": "2026-01-15T12:30:00Z"},
        "_id": "1",
        "_created": "2026-01-15T12:30:00Z",
        "_num_events": 1,
        "_streamnames": ["web"],
    }


def test_what_output_gave_does_not_change_with_the_profile():
    profile = profile_of(("genres", {"rock": 1}))
    shown = output(profile, SCHEMA, ["genres"])
    resolution = Resolution(profile, (("user_id", "u1"),), (), (), (), [("genres", {"rock": 1})])
    profile.apply(SCHEMA, resolution, event_us=1, event_id=None, stream="web", received_us=1, position=("realtime", 2))

    assert shown == {"genres": {"rock": 1}}
    assert profile.values["genres"] == {"rock": 2}


def test_only_fields_whose_value_changed_are_reported():
    profile = profile_of(("Spent", 2.0), ("last", NOW), ("tags", ["a"]), ("genres", {"rock": 1}))
    contributions = [("Spent", 0.0), ("last", NOW - timedelta(days=1)), ("tags", ["a"]), ("genres", {"rock": 1})]
    resolution = Resolution(profile, (("user_id", "u1"),), (), (), (), contributions)

    mask = profile.apply(
        SCHEMA, resolution, event_us=NOW_US + 1, event_id=None, stream="web", received_us=1, position=("realtime", 2)
    )

    assert SCHEMA.names_of(mask) == {"genres"}


def trigger(number: int, kind: str, **more) -> TriggerRow:
    row = TriggerRow(number, 10, 7, 3, kind, 1, NOW_US, NOW_US - DAY, None, "event")
    return row._replace(**more)


def test_a_trigger_message_is_as_the_api_says():
    rows = [trigger(11, "exit"), trigger(12, "enter", audience=4, entered_us=NOW_US, until_us=NOW_US + DAY)]
    names = {3: AudienceName("a" * 32, "demo"), 4: AudienceName("b" * 32, "other")}

    assert message(rows, {"email": "a@x.com"}, names, "sub", NOW_US) == {
        "id": "11",
        "data": {
            "email": "a@x.com",
            "segment_events": [
                {
                    "id": "a" * 32,
                    "slug": "demo",
                    "event": "exit",
                    "enter": "2026-01-14T12:30:00Z",
                    "exit": "2026-01-15T12:30:00Z",
                    "trigger_id": "11",
                },
                {
                    "id": "b" * 32,
                    "slug": "other",
                    "event": "enter",
                    "enter": "2026-01-15T12:30:00Z",
                    "exit": "2026-01-16T12:30:00Z",
                    "trigger_id": "12",
                },
            ],
        },
        "meta": {"object": "user", "subscription_id": "sub", "timestamp": "2026-01-15T12:30:00Z"},
    }


def test_a_membership_without_an_end_ends_in_2099():
    (event,) = message([trigger(11, "enter")], {}, {3: AudienceName("i", "s")}, "sub", NOW_US)["data"]["segment_events"]

    assert event["exit"] == NEVER


def test_the_exit_of_an_absorbed_profile_says_into_which():
    said = message([trigger(11, "exit", merged_into=2)], {}, {}, "sub", NOW_US, all_slugs=["x"])["data"]

    assert said["segment_events"][0]["merged_into"] == "2"
    assert said["segments_all"] == ["x"]
