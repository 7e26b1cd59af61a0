"""From bytes to events: what is accepted, and why something is not.

An event is one JSON object. Its text is kept as it came. Refused are: what is not JSON (NaN, Infinity, invalid
UTF-8, lone surrogates, raw control characters), numbers that neither a signed 64-bit integer nor a finite float holds,
the character NUL, objects too large, too deep or with too many keys, and a time or an id that cannot be read. Where a
key stands twice in an object the last one wins.

Reserved keys read here: `_ts`, the event time (epoch milliseconds, or text as `todate` reads it), and `_id`, the event
id. Without a time the time of arrival is the event time; null and empty text are no time and no id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from streams.ql.coerce import to_date

TIME_KEY: Final = "_ts"
ID_KEY: Final = "_id"

#: Characters of what was refused that are kept with the refusal.
SAMPLE_CHARS: Final = 2048

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST_MS: Final = -62_135_596_800_000
_LAST_MS: Final = 253_402_300_799_999
_LONGEST_TIME: Final = 64
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1

# Every digit becomes 0, so that one search finds a run of digits that could exceed 64 bits.
_DIGITS: Final = bytes(48 if 48 <= byte < 58 else 65 for byte in range(256))
_LONG_NUMBER: Final = b"0" * 19
_NUL: Final = b"\\u0000"
SPACE: Final = b" \t\r\n"


class RefusedError(ValueError):
    """An event that is not accepted; the message says what is wrong and what would be accepted."""


class MalformedError(ValueError):
    """A body that is not JSON at all; the message has the position."""


class Event(NamedTuple):
    """An accepted event."""

    event_us: int
    event_id: str | None
    body: str
    data: dict[str, Any]


class Refusal(NamedTuple):
    """One refused event: its index in the request or its line (from 1), why, and how it began."""

    place: int
    reason: str
    sample: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What is accepted as an event; `timestamp_field` names the (dotted) field that has the event time.

    `events`: how many one body may hold that is kept in memory whole.
    """

    event_bytes: int = 32 * 1024
    depth: int = 32
    keys: int = 2000
    id_bytes: int = 256
    timestamp_field: str | None = None
    events: int = 100_000


def read_event(text: bytes, received_us: int, rules: Rules) -> Event:
    """Reads the JSON text of one event. Raises RefusedError."""
    if len(text) > 4 * rules.event_bytes:  # even without white space it could hardly be accepted: not worth parsing
        raise RefusedError(_too_large(len(text), rules))
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"not JSON: {error}") from None
    if text[:1] in SPACE or text[-1:] in SPACE:
        text = text.strip(SPACE)
    return accepted(data, text, received_us, rules)


def read_lines(
    lines: Sequence[bytes], first: int, received_us: int, rules: Rules, *, stop: bool = False
) -> tuple[list[Event], list[Refusal]]:
    """Reads lines of newline-delimited JSON; `first` is the number of the first. Blank lines are nothing.

    With `stop`, reading ends with the first refusal.
    """
    events: list[Event] = []
    refusals: list[Refusal] = []
    whole = b"\n".join(lines)
    plain = not suspicious(whole)
    # No brace but at the start of a line, and no bracket: nothing is nested.
    flat = whole.startswith(b"{") + whole.count(b"\n{") == whole.count(b"{") and b"[" not in whole
    loads, accept, depth = orjson.loads, events.append, rules.depth
    make = tuple.__new__  # what Event does, without its detour
    small = min(rules.event_bytes, rules.keys)  # an object has fewer keys than bytes
    timed = rules.timestamp_field is not None
    for number, line in enumerate(lines, first):
        try:
            # The common case without a call: a small flat object and nothing odd in it.
            if plain and len(line) <= small and (flat or line.count(b"{") + line.count(b"[") <= depth):
                data = loads(line)
                if type(data) is dict:
                    when = received_us if not timed and TIME_KEY not in data else event_time(data, received_us, rules)
                    name = event_id(data, rules) if ID_KEY in data else None
                    accept(make(Event, (when, name, line.decode(), data)))
                    continue
        except (orjson.JSONDecodeError, RefusedError):
            pass  # told below
        if not line.strip(SPACE):
            continue
        try:
            accept(read_event(line, received_us, rules))
        except RefusedError as refusal:
            refusals.append(Refusal(number, str(refusal), sample(line)))
            if stop:
                break
    return events, refusals


def event_time(data: dict[str, Any], received_us: int, rules: Rules) -> int:
    """Gives the event time in microseconds: of the timestamp field, else `_ts`, else the arrival.

    Raises RefusedError.
    """
    field = rules.timestamp_field
    if field is not None:
        value = data.get(field)
        if value is None and "." in field:
            value = _reach(data, field)
        if value is not None and value != "":
            return _date_us(field, value)
    value = data.get(TIME_KEY)
    if value is None or value == "":
        return received_us
    if type(value) is int or type(value) is float:
        if not _FIRST_MS <= value <= _LAST_MS:
            raise RefusedError(f"{TIME_KEY} {value} is out of range; epoch milliseconds are accepted")
        microseconds: int = round(value * 1000)
        return microseconds
    return _date_us(TIME_KEY, value)


def event_id(data: dict[str, Any], rules: Rules) -> str | None:
    """Gives the event id, None without one. Raises RefusedError."""
    value = data.get(ID_KEY)
    if value is None or value == "":
        return None
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise RefusedError(f"{ID_KEY} is {kind_of(value)}; text or a whole number is accepted")
    if len(value) * 4 > rules.id_bytes and len(value.encode()) > rules.id_bytes:
        raise RefusedError(f"{ID_KEY} is longer than {rules.id_bytes} bytes")
    return value


def sample(text: bytes | str) -> str:
    """Gives the beginning of what was refused, readable whatever it was."""
    if isinstance(text, bytes):
        text = text[: SAMPLE_CHARS * 4].decode("utf-8", "backslashreplace")
    return text[:SAMPLE_CHARS].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def accepted(data: Any, text: bytes, received_us: int, rules: Rules) -> Event:
    """Makes an event of a parsed value and its JSON text. Raises RefusedError."""
    if type(data) is not dict:
        raise RefusedError(f"expected an object, got {kind_of(data)}")
    if len(text) > rules.event_bytes:
        text = orjson.dumps(data)  # it may be the white space that is too much
        if len(text) > rules.event_bytes:
            raise RefusedError(_too_large(len(text), rules))
    if text.count(b"{") + text.count(b"[") > rules.depth or text.count(b":") > rules.keys:
        _measure(data, rules)
    if suspicious(text):
        _inspect(text, data)
    return Event(event_time(data, received_us, rules), event_id(data, rules), text.decode(), data)


def _too_large(size: int, rules: Rules) -> str:
    return f"the event has {size} bytes; at most {rules.event_bytes} are accepted"


def suspicious(text: bytes) -> bool:
    """Says whether JSON text could hold NUL or a number beyond 64 bits; quick, and sometimes wrong about it."""
    return _NUL in text or _LONG_NUMBER in text.translate(_DIGITS)


def _inspect(text: bytes, data: object) -> None:
    """Refuses NUL and numbers beyond 64 bits, of a text in which they are possible."""
    if _NUL in text and _has_nul(data):
        raise RefusedError("a text has the character NUL")
    json.loads(text, parse_int=_checked_int)


def _checked_int(digits: str) -> int:
    # Twenty characters hold every 64-bit integer with its sign; int() of a very long text would be slow, or refuse.
    if len(digits) > 20 or not _INT_MIN <= int(digits) <= _INT_MAX:
        raise RefusedError(f"the number {digits[:40]} does not fit 64 bits; write it as text or as a decimal fraction")
    return int(digits)


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(each) for key, each in value.items())
    if isinstance(value, list):
        return any(map(_has_nul, value))
    return False


def _measure(data: dict[str, Any], rules: Rules) -> None:
    keys = 0
    level: list[Any] = [data]
    for depth in range(1, rules.depth + 2):
        if depth > rules.depth:
            raise RefusedError(f"the event is nested deeper than {rules.depth} levels")
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                keys += len(each)
                each = each.values()  # noqa: PLW2901  (a list's elements and an object's values are walked alike)
            below += [value for value in each if isinstance(value, dict | list)]
        if keys > rules.keys:
            raise RefusedError(f"the event has more than {rules.keys} keys")
        if not below:
            return
        level = below


def _reach(data: dict[str, Any], path: str) -> Any:
    value: Any = data
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def _date_us(field: str, value: Any) -> int:
    when = _text_us(value) if type(value) is str and len(value) <= _LONGEST_TIME else _value_us(value)
    if when is None:
        shown = sample(value)[:_LONGEST_TIME] if isinstance(value, str) else kind_of(value)
        raise RefusedError(
            f"{field} {shown!r} is not a time; accepted are epoch milliseconds and text such as 2026-01-31T12:00:00Z"
        )
    return when


@lru_cache(maxsize=4096)
def _text_us(text: str) -> int | None:
    return _value_us(text)


def _value_us(value: Any) -> int | None:
    if isinstance(value, dict | list | bool) or (isinstance(value, str) and len(value) > _LONGEST_TIME):
        return None
    moment = to_date(value)
    if not isinstance(moment, datetime):
        return None
    return (moment - _EPOCH) // _MICROSECOND


def kind_of(value: object) -> str:
    """Names the kind of a JSON value, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case _:
            return "an object"
