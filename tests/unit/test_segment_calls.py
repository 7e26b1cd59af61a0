"""Calls of the Segment API into events."""

from __future__ import annotations

import pytest

from streams.event import RefusedError, Rules
from streams.segment import read_call

NOW = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
RULES = Rules()


def read(item, call=None, batch=None):
    return read_call(call, item, batch or {}, NOW, RULES)


def test_a_call_keeps_its_fields_and_gets_type_id_and_time():
    event = read(
        {"userId": "u", "event": "Bought", "properties": {"price": 5}, "messageId": "m", "writeKey": "k"}, "track"
    )

    assert event.data == {
        "userId": "u",
        "event": "Bought",
        "properties": {"price": 5},
        "messageId": "m",
        "type": "track",
        "_ts": NOW // 1000,
        "_id": "m",
    }
    assert event.event_id == "m"
    assert event.event_us == NOW


def test_what_the_batch_says_is_merged_into_each_call():
    batch = {"context": {"ip": "1.2.3.4", "app": {"name": "a", "build": "1"}}, "integrations": {"All": True}}
    event = read({"type": "identify", "anonymousId": "a", "context": {"app": {"build": "2"}}}, batch=batch)

    assert event.data["context"] == {"ip": "1.2.3.4", "app": {"name": "a", "build": "2"}}
    assert event.data["integrations"] == {"All": True}


@pytest.mark.parametrize(
    ("times", "expected_us"),
    [
        ({}, NOW),
        # received - (sentAt - originalTimestamp): called ten seconds before it was sent, by a clock an hour slow
        ({"originalTimestamp": "2025-12-31T22:59:50Z", "sentAt": "2025-12-31T23:00:00Z"}, NOW - 10_000_000),
        ({"originalTimestamp": "2025-12-31T22:59:50Z"}, NOW - 3_610_000_000),
        ({"timestamp": "2025-12-31T22:59:50Z", "sentAt": "2025-12-31T23:00:00Z"}, NOW - 10_000_000),
        # a right clock: the timestamp as it is
        ({"timestamp": "2025-12-31T23:59:50Z", "sentAt": "2025-12-31T23:59:59.500Z"}, NOW - 10_000_000),
        # history
        ({"timestamp": "1997-01-01T00:00:00Z"}, 852_076_800_000_000),
        ({"timestamp": "1997-01-01T00:00:00Z", "sentAt": "2026-01-01T00:00:00Z"}, 852_076_800_000_000),
        ({"timestamp": "1997-01-01T00:00:00Z", "sentAt": "1997-01-01T00:00:01Z"}, 852_076_800_000_000),
        ({"timestamp": "1997-01-01T00:00:00Z", "originalTimestamp": "2020-01-01T00:00:00Z", "sentAt": "2020-01-01"},
         852_076_800_000_000),
    ],
)  # fmt: skip
def test_the_time_is_corrected_by_the_senders_clock(times, expected_us):
    event = read({"type": "page", "userId": "u"} | times)

    assert expected_us == event.event_us
    assert expected_us // 1000 == event.data["_ts"]


def test_the_batchs_sent_at_holds_for_its_calls():
    event = read(
        {"type": "page", "userId": "u", "originalTimestamp": "2025-12-31T22:59:50Z"},
        batch={"sentAt": "2025-12-31T23:00:00Z"},
    )

    assert NOW - 10_000_000 == event.event_us


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (3, "expected an object"),
        ({"type": "delete", "userId": "u"}, "type 'delete' is none of"),
        ({"type": "track", "event": "x"}, "neither userId nor anonymousId"),
        ({"type": "track", "userId": "u"}, "needs event"),
        ({"type": "group", "userId": "u"}, "needs groupId"),
        ({"type": "alias", "userId": "u"}, "needs previousId"),
        ({"type": "page", "userId": "u", "timestamp": "soon"}, "timestamp 'soon' is not a time"),
        ({"type": "page", "userId": "u", "messageId": ["m"]}, "_id is an array"),
    ],
)
def test_calls_that_are_refused(item, told):
    with pytest.raises(RefusedError, match=told):
        read(item)
