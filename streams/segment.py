"""The Segment tracking API's calls into events.

An event keeps the fields of its call and gets `type`, `_id` (the messageId) and `_ts` (the time, corrected by the
sender's clock). What a batch says of `context` and `integrations` holds for each of its calls that does not say
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from streams.event import ID_KEY, TIME_KEY, Event, RefusedError, Rules, accepted, kind_of
from streams.ql.coerce import to_date

CALLS: Final = ("identify", "track", "page", "screen", "group", "alias")

#: What a call must have besides the user.
_NEEDED: Final = {"track": "event", "group": "groupId", "alias": "previousId"}

#: A `timestamp` is corrected when the sender's clock is wrong by more than the first and by no more than the second.
#: Less is the way through the network; more is a replay of old calls, whose timestamps are meant.
_CLOCK_RIGHT_US: Final = 5_000_000
_CLOCK_WRONG_US: Final = 86_400_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def read_call(call: str | None, item: object, batch: Mapping[str, Any], received_us: int, rules: Rules) -> Event:
    """Makes an event of one call; `call` None takes its `type`. Raises RefusedError."""
    if not isinstance(item, dict):
        raise RefusedError(f"expected an object, got {kind_of(item)}")
    kind = call or item.get("type")
    if kind not in CALLS:
        raise RefusedError(f"type {kind!r:.100} is none of {', '.join(CALLS)}")
    if not any(_is_id(item.get(name)) for name in ("userId", "anonymousId")):
        raise RefusedError("neither userId nor anonymousId is given")
    needed = _NEEDED.get(kind)
    if needed is not None and not _is_id(item.get(needed)):
        raise RefusedError(f"a {kind} call needs {needed}")
    data = {key: value for key, value in item.items() if key != "writeKey"}
    for name in ("context", "integrations"):
        if isinstance(shared := batch.get(name), dict):
            own = data.get(name)
            data[name] = _merged(shared, own) if isinstance(own, dict) else shared
    data["type"] = kind
    when_us = event_us(item, batch.get("sentAt"), received_us)
    data[TIME_KEY] = when_us // 1000
    if (message_id := item.get("messageId")) is not None:
        data[ID_KEY] = message_id
    event = accepted(data, orjson.dumps(data), received_us, rules)
    return event._replace(event_us=when_us)


def event_us(item: Mapping[str, Any], batch_sent_at: object, received_us: int) -> int:
    """Gives the time of a call in microseconds. Raises RefusedError for a time that is none.

    With `originalTimestamp` and `sentAt` it is `received - (sentAt - originalTimestamp)`. `timestamp` wins: alone it is
    taken as it is, but for the error of a sender's clock that `sentAt` shows.
    """
    sent_us = _time_us("sentAt", item.get("sentAt") or batch_sent_at)
    stamped_us = _time_us("timestamp", item.get("timestamp"))
    original_us = _time_us("originalTimestamp", item.get("originalTimestamp"))
    if stamped_us is None:
        if original_us is None:
            return received_us
        return original_us if sent_us is None else received_us - (sent_us - original_us)
    if original_us is None and sent_us is not None:
        error_us = received_us - sent_us
        if _CLOCK_RIGHT_US < abs(error_us) <= _CLOCK_WRONG_US:
            return stamped_us + error_us
    return stamped_us


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**shared, **own}
    for key, value in own.items():
        before = shared.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[key] = {**before, **value}
    return merged


def _is_id(value: object) -> bool:
    return (isinstance(value, str) and value != "") or (isinstance(value, int) and not isinstance(value, bool))


def _time_us(name: str, value: object) -> int | None:
    if value is None or value == "":
        return None
    moment = to_date(value) if isinstance(value, str | int | float) else None
    if not isinstance(moment, datetime):
        raise RefusedError(f"{name} {value!r:.100} is not a time; text such as 2026-01-31T12:00:00.000Z is accepted")
    return (moment - _EPOCH) // _MICROSECOND
