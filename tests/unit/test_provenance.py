"""What became of each contribution to a field's value."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.merge import make_slot, microseconds
from streams.provenance import Contribution, Provenance, same_shape

AT = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 9)]


def slot(kind, operator, **more):
    return make_slot("field", kind, operator, bit=1, **more)


def contribution(us, value, position=None):
    return Contribution(us, us, "bulk", position or us, "web", None, "web", 1, value)


def told(made, *values, limit=10):
    """(position, outcome, elements) of contributions with times 1, 2, 3 …, the newest first."""
    found = Provenance(made, limit)
    for us, value in enumerate(values, 1):
        found.add(contribution(us, value))
    return [(each.of.position, each.outcome, *each.elements) for each in found.effects()]


@pytest.mark.parametrize(
    ("made", "values", "expected"),
    [
        (slot("string", "latest"), ("a", "b", "c"), [(3, "won"), (2, "lost"), (1, "lost")]),
        (slot("string", "oldest"), ("a", "b"), [(2, "lost"), (1, "won")]),
        (slot("int", "max"), (1, 9, 4), [(3, "lost"), (2, "won"), (1, "lost")]),
        (slot("date", "min"), (AT[1], AT[0], AT[2]), [(3, "lost"), (2, "won"), (1, "lost")]),
        (slot("number", "sum"), (1.0, 2.0), [(2, "added"), (1, "added")]),
        (slot("int", "count"), (1, 1), [(2, "added"), (1, "added")]),
        (slot("[]string", "merge"), (["a", "b"], ["b"], ["c"]), [(3, "won", "c"), (2, "won", "b"), (1, "won", "a")]),
        (slot("[]string", "merge", capacity=1), (["a"], ["b"]), [(2, "won", "b"), (1, "lost")]),
        (slot("[]time", "merge"), ([AT[0]], [AT[0], AT[1]]),
         [(2, "won", microseconds(AT[1])), (1, "won", microseconds(AT[0]))]),
        (slot("map[string]int", "merge"), ({"x": 1, "y": 1}, {"x": 2}), [(2, "won", "x"), (1, "won", "y")]),
        (slot("map[string]int", "oldestmap"), ({"x": 1}, {"x": 2}), [(2, "lost"), (1, "won", "x")]),
        (slot("map[string]int", "sum"), ({"x": 1}, {"x": 2, "y": 1}), [(2, "added", "x", "y"), (1, "added", "x")]),
        (slot("map[string]int", "mapmax"), ({"x": 5}, {"x": 2}), [(2, "lost"), (1, "won", "x")]),
        (slot("map[string]int", "mapmin", capacity=5), ({"x": 5}, {"x": 2}), [(2, "won", "x"), (1, "lost")]),
    ],
)  # fmt: skip
def test_each_operator_says_what_became_of_a_contribution(made, values, expected):
    assert expected == told(made, *values)


def test_only_the_newest_are_kept_with_what_stands_and_all_are_counted():
    found = Provenance(slot("int", "max"), 2)
    for us in range(1, 100):
        found.add(contribution(us, 1000 if us == 5 else us))

    assert 99 == found.count
    assert 1000 == found.value
    assert [(99, "lost"), (98, "lost"), (5, "won")] == [(each.of.position, each.outcome) for each in found.effects()]


@given(st.lists(st.tuples(st.integers(1, 5), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 3), min_size=1))))
def test_what_stands_does_not_depend_on_the_order(events):
    contributions = [contribution(us, value, place) for place, (us, value) in enumerate(events, 1)]
    shuffled = random.Random(1).sample(contributions, len(contributions))
    for operator in ("merge", "oldestmap", "sum", "mapmax"):
        one, other = (Provenance(slot("map[string]int", operator), 100) for _ in range(2))
        for each in contributions:
            one.add(each)
        for each in shuffled:
            other.add(each)

        assert one.value == other.value
        for effect in one.effects():
            if operator == "merge" and effect.outcome == "won":
                assert all(one.value[key] == effect.of.value[key] for key in effect.elements)


def test_a_changed_kind_is_another_shape_and_a_rebuilt_state_is_not():
    assert same_shape(slot("int", "sum"), slot("int", "sum", generation=7))
    assert not same_shape(slot("int", "sum"), slot("int", "max"))
