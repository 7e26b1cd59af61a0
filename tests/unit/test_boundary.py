"""A boundary is the first whole second at which evaluating again gives another result, and never another."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.ql.compiler import compile_filter
from streams.ql.datemath import SECOND, anchor, date_maths
from streams.ql.missing import MISSING
from streams.ql.nodes import Between, Binary, Call, Exists, Group, Ident, Literal, Unary

KINDS = {"a": "date", "b": "date", "times": "[]time", "city": "string"}


def found_by_looking(compiled, data, moments):
    """The moments at which the result differs from that of the moment before."""
    results = [compiled.evaluate(data, moment) for moment in moments]
    return [moment for moment, before, after in zip(moments[1:], results, results[1:], strict=False) if before != after]


def found_by_boundary(compiled, data, start, end):
    flips = []
    moment = compiled.boundary(data, start)
    while moment is not None and moment <= end:
        assert not flips or moment > flips[-1]
        flips.append(moment)
        moment = compiled.boundary(data, moment)
    return flips


def conditions(texts, dates):
    idents = st.sampled_from([Ident(("a",)), Ident(("b",)), Ident(("times",))])
    operators = st.sampled_from(["=", "!=", ">", ">=", "<", "<="])
    relative = st.one_of(texts.map(Literal), st.just(Call("now", ())))
    terms = st.one_of(
        st.builds(Binary, operators, idents, relative),
        st.builds(Binary, operators, relative, idents),
        st.builds(Between, idents, st.one_of(relative, dates), st.one_of(relative, dates)),
        st.builds(Between, st.just(Call("now", ())), idents, idents),
        st.builds(Exists, idents),
        st.builds(
            lambda count, days: Call("timewindow", (Ident(("times",)), Literal(count), Literal(days))),
            st.integers(0, 3),
            st.sampled_from([0.0005, 0.001, 1, 30, 60]),
        ),
    )
    return st.recursive(
        terms,
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)).map(
                lambda drawn: Group(drawn[0], tuple(drawn[1]))
            ),
            inner.map(lambda node: Unary("not", node)),
        ),
        max_leaves=5,
    )


def profiles(moments):
    return st.fixed_dictionaries({}, optional={"a": moments, "b": moments, "times": st.lists(moments, max_size=3)})


START = datetime(2026, 1, 15, 12, 0, 0, 400_000, tzinfo=UTC)
near = st.integers(-90_000, 90_000).map(lambda tenths: START + timedelta(milliseconds=tenths))
near_texts = st.builds(
    "now{}{}{}".format, st.sampled_from("+-"), st.integers(0, 60), st.sampled_from("s")
) | st.sampled_from(["now", "now-1m", "now+1m", "now-1h", "now-5x"])


@settings(max_examples=400, deadline=None)
@given(conditions(near_texts, st.just(Literal("2026-01-15T12:00:30Z"))), profiles(near), st.booleans())
def test_evaluating_at_every_second_flips_exactly_at_the_boundaries(tree, profile, known):
    compiled = compile_filter(tree, kinds=KINDS if known else {})
    seconds = [START, *(START.replace(microsecond=0) + place * SECOND for place in range(1, 200))]

    assert found_by_looking(compiled, profile, seconds) == found_by_boundary(compiled, profile, START, seconds[-1])


DAY = datetime(2028, 1, 20, tzinfo=UTC)  # a leap year
far = st.integers(-90 * 8, 100 * 8).map(lambda parts: DAY + timedelta(hours=3 * parts))
far_texts = st.builds(
    "now{}{}{}".format, st.sampled_from("+-"), st.integers(0, 3), st.sampled_from("Mdw")
) | st.sampled_from(["now-1y", "now+1y", "now-12M", "now-30d"])


@settings(max_examples=150, deadline=None)
@given(conditions(far_texts, st.just(Literal("2028-02-29"))), profiles(far))
def test_calendar_steps_flip_exactly_at_the_boundaries_though_they_go_back(tree, profile):
    # Every date lies on a multiple of three hours, so that flips are on one of them or a second later.
    compiled = compile_filter(tree, kinds=KINDS)
    grid = [
        DAY + timedelta(hours=3 * place, seconds=second)
        for place in range(100 * 8)
        for second in (0, 1, 42, 43, 44, 86, 87, 88)  # timewindow of 0.0005 and 0.001 days
    ]

    assert found_by_looking(compiled, profile, grid) == found_by_boundary(compiled, profile, DAY, grid[-1])


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("now", "2026-01-31T10:00:00", "2026-01-31T10:00:00"),
        ("NOW-1d", "2026-01-31T10:00:00", "2026-01-30T10:00:00"),
        ("now+1M", "2026-01-31T10:00:00", "2026-03-03T10:00:00"),
        ("now+1M", "2028-01-31T10:00:00", "2028-03-02T10:00:00"),
        ("now-1M", "2026-03-31T10:00:00", "2026-03-03T10:00:00"),
        ("now-1M", "2026-04-01T10:00:00", "2026-03-01T10:00:00"),
        ("now-1m", "2026-03-31T10:00:00", "2026-03-31T09:59:00"),
        ("now+1y", "2028-02-29T10:00:00", "2029-03-01T10:00:00"),
        ("now-2w", "2026-01-31T10:00:00", "2026-01-17T10:00:00"),
        ("now-14M", "2026-01-15T10:00:00", "2024-11-15T10:00:00"),
        ("now+0s", "2026-01-31T10:00:00", "2026-01-31T10:00:00"),
    ],
)
def test_date_maths_steps_as_go_does(text, now, expected):
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)

    assert datetime.fromisoformat(expected).replace(tzinfo=UTC) == date_maths(text, moment)


@pytest.mark.parametrize("text", ["now-3", "now3d", "now-3D", "now-1d/d", "now-1d+2h", "now -1d", "-3d", "nowhere", ""])
def test_other_text_is_no_date_maths(text):
    assert anchor(text) is None
    assert date_maths(text, START) is MISSING


@pytest.mark.parametrize("text", ["now-1M", "now+1M", "now-3M", "now-1y", "now+1y", "now-13M", "now-12M"])
@pytest.mark.parametrize("operator", ["=", "!=", ">", ">=", "<", "<="])
def test_calendar_steps_that_go_back_flip_again(text, operator):
    # Noon of each day around the ends of months; the grid has midnights, noons and the seconds after them.
    compiled = compile_filter(Binary(operator, Ident(("a",)), Literal(text)), kinds=KINDS)
    start = datetime(2028, 1, 15, tzinfo=UTC)
    grid = [start + timedelta(hours=12 * place, seconds=second) for place in range(2 * 140) for second in (0, 1)]
    shift = anchor(text).at(start) - start
    days = [start + shift + timedelta(days=place, hours=12) for place in range(-40, 170)]
    days = [day for day in days if day.day in {1, 2, 3, 28, 29, 30, 31}]

    for date in days:
        data = {"a": date}
        assert found_by_looking(compiled, data, grid) == found_by_boundary(compiled, data, start, grid[-1]), date


def test_date_maths_beyond_the_calendar_stays_comparable():
    old = compile_filter(Binary(">", Ident(("a",)), Literal("now-100000y")), kinds=KINDS)
    late = compile_filter(Binary("<", Ident(("a",)), Literal("now+999999999999999999w")), kinds=KINDS)

    assert old.evaluate({"a": START}, START) == (True, True)
    assert late.evaluate({"a": START}, START) == (True, True)
    assert old.boundary({"a": START}, START) is None
    assert late.boundary({"a": START}, START) is None


def test_a_month_is_not_a_minute():
    compiled = compile_filter(Binary(">", Ident(("a",)), Literal("now-1M")), kinds=KINDS)

    assert compiled.boundary({"a": START}, START) == datetime(2026, 2, 15, 12, 0, 0, tzinfo=UTC)


def test_functions_of_the_clock_flip_at_their_hour():
    tree = Group("and", (Exists(Ident(("city",))), Binary("=", Call("hourofday", ()), Literal(9))))
    compiled = compile_filter(tree, kinds=KINDS)

    assert compiled.time_dependent
    assert compiled.boundary({"city": "x"}, START) == datetime(2026, 1, 16, 9, tzinfo=UTC)
    assert compiled.boundary({"city": "x"}, datetime(2026, 1, 16, 9, tzinfo=UTC)) == datetime(
        2026, 1, 16, 10, tzinfo=UTC
    )
    assert compiled.boundary({}, START) is None


def test_arithmetic_with_the_clock_flips_at_its_second():
    tree = Binary(">", Binary("-", Call("epochms", ()), Call("epochms", (Ident(("a",)),))), Literal(12_345_000))
    compiled = compile_filter(tree, kinds=KINDS)
    a = START.replace(microsecond=0)

    assert compiled.boundary({"a": a}, START) == a + timedelta(seconds=12_346)


def test_a_window_shorter_than_a_second_ends_within_the_second_of_now():
    tree = Call("timewindow", (Ident(("times",)), Literal(1), Literal(0.3 / 86400)))
    data = {"times": [START - timedelta(milliseconds=200)]}
    compiled = compile_filter(tree, kinds=KINDS)

    assert compiled.evaluate(data, START) == (True, True)
    assert compiled.boundary(data, START) == START.replace(microsecond=0) + SECOND


def test_a_window_over_many_times_looks_only_at_the_seconds_that_count():
    tree = Call("timewindow", (Ident(("times",)), Literal(5_000), Literal(30)))
    data = {"times": [START - timedelta(seconds=place) for place in range(20_000)]}
    compiled = compile_filter(Unary("not", tree), kinds=KINDS)

    assert compiled.evaluate(data, START) == (False, True)
    # The 5,000th newest leaves, in whole seconds.
    leaves = data["times"][4_999] + timedelta(days=30)
    assert compiled.boundary(data, START) == leaves.replace(microsecond=0) + SECOND


def test_a_term_that_does_not_decide_gives_no_boundary():
    tree = Group("or", (Exists(Ident(("city",))), Binary(">", Ident(("a",)), Literal("now-1d"))))
    compiled = compile_filter(tree, kinds=KINDS)

    assert compiled.boundary({"city": "x", "a": START}, START) is None
    assert compiled.boundary({"a": START}, START) == START.replace(microsecond=0) + timedelta(days=1)
