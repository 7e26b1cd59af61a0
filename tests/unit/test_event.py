"""What is accepted as an event, and why something is not."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.body import is_lines, read_body
from streams.event import Event, MalformedError, Refusal, RefusedError, Rules, read_event, read_lines

RULES = Rules()
NOW = 1_767_225_600_000_000

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts.filter(lambda key: key not in ("_ts", "_id")), values, max_size=6)


def read(body: bytes, rules: Rules = RULES, **options: bool) -> tuple[list[Event], list[Refusal]]:
    found = [each for each in read_body(body, NOW, rules, **options) if each is not None]
    return [each for each in found if isinstance(each, Event)], [each for each in found if isinstance(each, Refusal)]


@given(st.lists(objects, max_size=5))
def test_an_array_gives_its_objects_in_order(given_objects):
    events, refusals = read(orjson.dumps(given_objects))

    assert [event.data for event in events] == given_objects
    assert [orjson.loads(event.body) for event in events] == given_objects
    assert refusals == []


@given(st.lists(objects, min_size=2, max_size=5))
def test_an_object_a_line_gives_its_objects_in_order(given_objects):
    events, refusals = read(b"\r\n".join(map(orjson.dumps, given_objects)))

    assert [event.data for event in events] == given_objects
    assert refusals == []


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_refused_or_malformed_and_never_an_exception(body):
    for lines in (False, True):
        try:
            events, refusals = read(body, lines=lines)
        except MalformedError:
            continue
        assert all(isinstance(orjson.loads(event.body), dict) for event in events)
        assert all(refusal.reason and len(refusal.sample) <= 2048 for refusal in refusals)


@given(
    st.lists(st.one_of(objects.map(orjson.dumps), st.sampled_from([b'{"a":NaN}', b"3", b'{"a":"\xff"}'])), max_size=6)
)
def test_one_bad_element_is_told_by_its_index_and_the_rest_is_kept(elements):
    events, refusals = read(b"[" + b",".join(elements) + b"]")

    bad = {index for index, element in enumerate(elements) if element in (b'{"a":NaN}', b"3", b'{"a":"\xff"}')}
    assert {refusal.place for refusal in refusals} == bad
    assert len(events) == len(elements) - len(bad)


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":Infinity}', "not JSON"),
        (b'{"a":1e999}', "not JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "not JSON"),
        (b'{"a":9223372036854775808}', "9223372036854775808 does not fit 64 bits"),
        (b'{"a":[{"b":-9223372036854775809}]}', "does not fit 64 bits"),
        (b'{"a":"\xff\xfe"}', "not valid UTF-8"),
        (b'{"a":"\\ud800"}', "not JSON"),
        (b'{"a":"x\\u0000y"}', "NUL"),
        (b'{"\\u0000":1}', "NUL"),
        (b'{"a":"' + b"x" * 40_000 + b'"}', "at most 32768"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "deeper than 32"),
        (b"{" + b",".join(b'"k%d":1' % n for n in range(2001)) + b"}", "more than 2000 keys"),
        (b"[1]", "expected an object, got an array"),
        (b"null", "expected an object, got null"),
        (b'{"_ts":"yesterday-ish"}', "is not a time"),
        (b'{"_ts":true}', "is not a time"),
        (b'{"_ts":1e18}', "out of range"),
        (b'{"_id":{"a":1}}', "_id is an object"),
        (b'{"_id":"' + b"x" * 257 + b'"}', "longer than 256 bytes"),
    ],
)
def test_hostile_events_are_refused_with_the_reason(element, reason):
    events, refusals = read(b'[{"fine":1},' + element + b',{"fine":2}]')

    assert [event.data for event in events] == [{"fine": 1}, {"fine": 2}]
    assert [refusal.place for refusal in refusals] == [1]
    assert reason in refusals[0].reason


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"nope", "line 1 column 1"),
        (b'"text"', "the body is text"),
        (b'{"a":1', "line 1 column 7"),
        (b'{"a":NaN}', "line 1 column 6"),
        (b'[{"a":1},', "line 1 column 10"),
        (b'[{"a":1}\n{"b":2}]', "line 2 column 1"),
        (b'[{"a":1}] trailing', "something follows"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":1} {"b":2}', "line 1 column 9"),
    ],
)
def test_a_body_that_is_no_json_is_malformed_with_the_position(body, told):
    with pytest.raises(MalformedError, match=told):
        read(body)


def test_of_a_key_that_stands_twice_the_last_value_wins():
    (event,), _ = read(b'{"a":1,"a":2}')

    assert event.data == {"a": 2}


def test_text_with_the_letters_of_an_escaped_nul_is_accepted():
    (event,), refusals = read(rb'{"a":"\\u0000", "n":"12345678901234567890123"}')

    assert event.data == {"a": r"\u0000", "n": "12345678901234567890123"}
    assert refusals == []


def test_an_object_over_several_lines_is_one_event_and_white_space_does_not_count():
    body = json.dumps({"a": [1] * 3000}, indent=8).encode()
    assert len(body) > RULES.event_bytes

    (event,), refusals = read(body)

    assert event.data == {"a": [1] * 3000}
    assert refusals == []


def test_a_broken_line_among_lines_is_told_by_its_number_also_the_first():
    events, refusals = read(b'{broken\n{"a":1}\n\n{"b":2}\n3')

    assert [event.data for event in events] == [{"a": 1}, {"b": 2}]
    assert [refusal.place for refusal in refusals] == [1, 5]


def test_lines_are_told_from_one_value():
    assert is_lines(b'{"a":1}\n{"b":2}')
    assert not is_lines(b'{"a":1}')
    assert not is_lines(b'{"a":1}\n')
    assert not is_lines(b'{\n"a":{}\n}')
    assert not is_lines(b'[{"a":1},\n{"b":2}]')


def test_a_large_array_gives_way_between_its_elements():
    body = orjson.dumps([{"n": number, "text": "x" * 100} for number in range(5000)])

    found = list(read_body(body, NOW, RULES))

    assert sum(each is None for each in found) >= len(body) // (64 * 1024)
    assert sum(isinstance(each, Event) for each in found) == 5000


def test_one_deep_line_among_many_is_refused():
    deep = b'{"a":' * 40 + b"1" + b"}" * 40

    events, refusals = read_lines([b'{"b":1}', deep, *[b"3"] * 98, b'{"c":2}'], 1, NOW, RULES)

    assert [event.data for event in events] == [{"b": 1}, {"c": 2}]
    assert "deeper than 32" in refusals[0].reason


def test_with_stop_nothing_behind_the_first_refusal_is_read():
    events, refusals = read_lines([b'{"a":1}', b"x", b'{"b":2}', b"y"], 7, NOW, RULES, stop=True)

    assert [event.data for event in events] == [{"a": 1}]
    assert [refusal.place for refusal in refusals] == [8]


@pytest.mark.parametrize(
    ("data", "field", "expected_us"),
    [
        ({}, None, NOW),
        ({"_ts": None}, None, NOW),
        ({"_ts": ""}, None, NOW),
        ({"_ts": 1000}, None, 1_000_000),
        ({"_ts": 852076800000}, None, 852_076_800_000_000),
        ({"_ts": 1700000000000.25}, None, 1_700_000_000_000_250),
        ({"_ts": "1997-01-01"}, None, 852_076_800_000_000),
        ({"_ts": "2026-01-31T12:00:00+01:00"}, None, 1_769_857_200_000_000),
        ({"when": "1997-01-01"}, "when", 852_076_800_000_000),
        ({"a": {"when": 852076800}}, "a.when", 852_076_800_000_000),
        ({"a.when": "1997-01-01"}, "a.when", 852_076_800_000_000),
        ({"when": "", "_ts": 1000}, "when", 1_000_000),
        ({"other": 1}, "when", NOW),
    ],
)
def test_the_event_time(data, field, expected_us):
    event = read_event(orjson.dumps(data), NOW, Rules(timestamp_field=field))

    assert expected_us == event.event_us


def test_a_timestamp_field_that_is_no_time_is_refused():
    with pytest.raises(RefusedError, match=r"when 'soon' is not a time"):
        read_event(b'{"when":"soon"}', NOW, Rules(timestamp_field="when"))


@pytest.mark.parametrize(("given_id", "expected"), [("a", "a"), (5, "5"), ("", None), (None, None)])
def test_the_event_id(given_id, expected):
    assert expected == read_event(orjson.dumps({"_id": given_id}), NOW, RULES).event_id
