"""Merging: whatever the order of arrival, the values are the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import reduce

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.merge import Slot, allowed_operators, default_operator, make_slot, microseconds, moment
from streams.ql.kinds import Kind, element, is_map

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
TEXTS = st.sampled_from(["", "a", "b", "c", "é", "a b", "0"]).filter(bool)
DATES = st.integers(0, 5).map(lambda days: NOON + timedelta(days=days, microseconds=days))
SCALARS = {
    Kind.INT: st.integers(-3, 3) | st.sampled_from([2**62, -(2**62)]),
    Kind.NUMBER: st.integers(-3, 3).map(float),
    Kind.BOOL: st.booleans(),
    Kind.DATE: DATES,
    Kind.STRING: TEXTS,
    Kind.DYNAMIC: st.one_of(st.integers(-2, 2), st.booleans(), TEXTS, st.lists(TEXTS, min_size=1, max_size=2)),
    Kind.GEOLOCATION: st.sampled_from(["1.0,2.0", "3.0,4.0"]),
}
NUMBERS = st.integers(-3, 3) | st.integers(-3, 3).map(float)


def values(kind: str, operator: str):
    of = element(kind)
    if operator == "count":
        return st.just(1)
    if is_map(kind):
        items = NUMBERS if of == Kind.DYNAMIC and operator == "sum" else SCALARS[of]
        return st.dictionaries(st.sampled_from("xyz"), items, min_size=1)
    if of is not None:
        elements = st.integers(-2, 2).map(float) if of == Kind.NUMBER else SCALARS[of]
        return st.lists(elements, min_size=1, max_size=3, unique_by=str)
    return SCALARS[kind]


FIELDS = [
    (kind, operator, capacity)
    for kind in Kind
    for operator in sorted(allowed_operators(kind))
    for capacity in ((0, 2) if operator in {"merge", "capped"} else (0,))
]


@st.composite
def contributions(draw, kind: str, operator: str):
    one = st.tuples(values(kind, operator), st.integers(1, 4), st.sampled_from(["", "", "e1", "e2"]))
    return draw(st.lists(one, min_size=1, max_size=8))


def merged(slot: Slot, events) -> tuple[dict, dict]:
    states: dict = {}
    view: dict = {}
    for value, us, event_id in events:
        before = orjson.dumps(view.get(slot.name), option=orjson.OPT_SORT_KEYS)
        changed = slot.merge(states, view, value, us, event_id)
        states = orjson.loads(orjson.dumps(states)) if slot.expression != "s" else states
        after = orjson.dumps(view.get(slot.name), option=orjson.OPT_SORT_KEYS)
        assert changed in {0, slot.bit}
        if slot.kind != Kind.DYNAMIC and before != after:
            assert changed == slot.bit
        if before == after:
            assert changed == 0
    return states, view


def comparable(slot: Slot, states: dict):
    return orjson.dumps(slot.render(states[slot.key]), option=orjson.OPT_SORT_KEYS)


def small(events) -> bool:
    """Sums that are cut at 64 bits depend on the order; all others do not."""
    return all(abs(number) < 2**60 for value, _, _ in events for number in _numbers(value))


def _numbers(value):
    if isinstance(value, dict):
        return [each for item in value.values() for each in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize(("kind", "operator", "capacity"), FIELDS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_order_of_arrival_does_not_show(kind, operator, capacity, data):
    slot = make_slot("f", kind, operator, bit=4, capacity=capacity)
    events = data.draw(contributions(kind, operator))
    if operator == "sum":
        events = [each for each in events if small([each])] or [
            (data.draw(values(kind, "sum").filter(lambda v: small([(v, 0, "")]))), 1, "")
        ]
    shuffled = data.draw(st.permutations(events))

    states, view = merged(slot, events)
    again, again_view = merged(slot, shuffled)

    assert comparable(slot, states) == comparable(slot, again)
    assert view == {"f": slot.render(states[slot.key])}
    assert again_view == {"f": slot.render(again[slot.key])}


@pytest.mark.parametrize(("kind", "operator", "capacity"), FIELDS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_stitching_commutes_with_merging(kind, operator, capacity, data):
    slot = make_slot("f", kind, operator, bit=1, capacity=capacity)
    events = data.draw(st.lists(contributions(kind, operator), min_size=2, max_size=4))
    if operator == "sum":
        events = [group for each in events if (group := [one for one in each if small([one])])] or [
            [({"x": 1} if is_map(kind) else 1, 1, "")]
        ]

    whole, _ = merged(slot, [each for group in events for each in group])
    groups = [orjson.loads(orjson.dumps(merged(slot, group)[0]))[slot.key] for group in events]
    copies = orjson.loads(orjson.dumps(groups))
    forward = reduce(slot.combine, groups)
    backward = reduce(slot.combine, reversed(copies))

    assert comparable(slot, {slot.key: forward}) == comparable(slot, whole)
    assert comparable(slot, {slot.key: backward}) == comparable(slot, whole)


@given(st.datetimes(timezones=st.just(UTC)))
def test_microseconds_and_moments_are_each_other_s_inverse(at):
    assert at == moment(microseconds(at))


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_a_default_operator_that_it_allows(kind):
    assert default_operator(kind) in allowed_operators(kind)


def test_latest_goes_by_event_time_then_event_id_then_canonical_json():
    slot = make_slot("f", "string", "latest", bit=1)

    _, late = merged(slot, [("new", 9, ""), ("old", 3, "z")])
    _, by_id = merged(slot, [("b", 3, "2"), ("z", 3, "1"), ("zz", 3, "")])
    _, by_value = merged(slot, [("b", 3, ""), ("c", 3, ""), ("a", 3, "")])

    assert late == {"f": "new"}
    assert by_id == {"f": "b"}
    assert by_value == {"f": "c"}


def test_a_set_keeps_the_newest_of_its_capacity():
    slot = make_slot("f", "ts[]string", "merge", bit=1, capacity=2)

    _, view = merged(slot, [(["a"], 1, ""), (["b"], 2, ""), (["a"], 3, ""), (["c"], 4, "")])

    assert view == {"f": ["a", "c"]}


def test_a_time_ordered_set_is_in_the_order_of_the_newest_times():
    slot = make_slot("f", "ts[]string", "merge", bit=1)

    _, view = merged(slot, [(["z"], 5, ""), (["a"], 9, ""), (["m"], 1, "")])

    assert view == {"f": ["m", "z", "a"]}


def test_intsum_adds_per_key():
    slot = make_slot("f", "map[string]intsum", default_operator("map[string]intsum"), bit=1)

    _, view = merged(slot, [({"a": 1}, 1, ""), ({"a": 2, "b": 5}, 2, "")])

    assert view == {"f": {"a": 3, "b": 5}}


def test_latest_of_a_map_keeps_one_event_s_content_and_latestmap_decides_per_key():
    events = [({"a": 1, "b": 1}, 1, ""), ({"a": 2}, 2, "")]

    _, whole = merged(make_slot("f", "map[string]int", "latest", bit=1), events)
    _, keyed = merged(make_slot("f", "map[string]int", "latestmap", bit=1), events)
    _, first = merged(make_slot("f", "map[string]int", "oldestmap", bit=1), events)

    assert whole == {"f": {"a": 2}}
    assert keyed == {"f": {"a": 2, "b": 1}}
    assert first == {"f": {"a": 1, "b": 1}}


def test_a_sum_never_leaves_what_json_can_hold():
    slot = make_slot("f", "int", "sum", bit=1)
    numbers = make_slot("f", "number", "sum", bit=1)

    _, view = merged(slot, [(2**63 - 1, 1, ""), (2**63 - 1, 2, "")])
    _, floats = merged(numbers, [(1.7e308, 1, ""), (1.7e308, 1, "")])

    assert view == {"f": 2**63 - 1}
    assert floats["f"] < float("inf")


def test_elements_older_than_keep_days_expire():
    slot = make_slot("f", "[]string", "merge", bit=1, keep_days=1)
    states, _ = merged(slot, [(["a"], 10, ""), (["b"], 20, "")])

    assert slot.oldest(states[slot.key]) == 10
    assert slot.expire(states[slot.key], 15)
    assert slot.render(states[slot.key]) == ["b"]
    assert not slot.expire(states[slot.key], 20)


def test_a_bounded_map_of_sums_drops_the_key_not_seen_for_longest():
    slot = make_slot("f", "map[string]intsum", "sum", bit=1, capacity=2)

    _, view = merged(slot, [({"a": 1}, 1, ""), ({"b": 1}, 2, ""), ({"a": 1}, 3, ""), ({"c": 1}, 4, "")])

    assert view == {"f": {"a": 2, "c": 1}}


@pytest.mark.parametrize(
    ("kind", "operator", "make"),
    [
        ("[]string", "merge", lambda number: [str(number)]),
        ("[]time", "merge", lambda number: [NOON + timedelta(seconds=number)]),
        ("map[string]string", "merge", lambda number: {str(number): "x"}),
        ("map[string]int", "sum", lambda number: {str(number): 1}),
        ("map[string]int", "mapmax", lambda number: {str(number): 1}),
    ],
)
def test_a_collection_cannot_grow_without_end(kind, operator, make):
    slot = make_slot("f", kind, operator, bit=1)
    states: dict = {}
    view: dict = {}
    for number in range(10_030):
        slot.merge(states, view, make(number), number, "")

    assert len(view["f"]) == len(slot.render(states[slot.key])) == 10_000
