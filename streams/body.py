"""From a request's body to its events: one object, an array, or an object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Final

import orjson

from streams.event import (
    SPACE,
    Event,
    MalformedError,
    Refusal,
    RefusedError,
    Rules,
    accepted,
    kind_of,
    read_event,
    read_lines,
    sample,
    suspicious,
)

#: Bytes up to which a body is parsed in one go; larger ones are taken element by element.
WHOLE_BYTES: Final = 64 * 1024

#: Elements after which the caller may let others run.
_REST: Final = 64

_BOM: Final = b"\xef\xbb\xbf"

# Finds where a value ends; whole numbers are not converted, however long.
_scan: Final[Callable[[str, int], tuple[object, int]]] = json.JSONDecoder(strict=False, parse_int=str).scan_once  # type: ignore[attr-defined]


def read_body(body: bytes, received_us: int, rules: Rules, *, lines: bool = False) -> Iterator[Event | Refusal | None]:
    """Reads a body: one object, an array of objects, or newline-delimited objects (always so with `lines`).

    Yields events and refusals, each kind in order, and None about every 64 KB, so that the caller may let others run.
    A refusal's place is an index from 0 in the first two cases, a line from 1 in the third (`is_lines` says which).
    Raises MalformedError, before the first event, when the body is none of these.
    """
    body = body.removeprefix(_BOM).strip(SPACE)
    if not body:
        raise MalformedError("the body is empty; expected a JSON object, an array of objects, or an object a line")
    if lines or is_lines(body):
        yield from _each_line(body, received_us, rules)
        return
    if body[:1] == b"[":
        yield from _each_element(body, received_us, rules)
        return
    if len(body) <= 4 * rules.event_bytes:
        try:
            data = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise MalformedError(f"the body is not JSON: {error}") from None
        if type(data) is not dict:
            raise MalformedError(
                f"the body is {kind_of(data)}; expected a JSON object, an array of objects, or an object a line"
            )
    elif body[:1] != b"{":
        raise MalformedError("the body is not JSON: expected '{' or '[': line 1 column 1 (char 0)")
    yield _element(body, 0, received_us, rules)


def is_lines(body: bytes) -> bool:
    """Says whether a body holds an object a line, rather than one value."""
    body = body.removeprefix(_BOM).strip(SPACE)
    if body[:1] != b"{" or b"\n" not in body:
        return False
    # A value that ends with its line, and more behind it. A broken first line is told by the others.
    start = 0
    for _ in range(8):
        end = body.find(b"\n", start)
        line = body[start : end if end >= 0 else len(body)].strip(SPACE)
        if line[:1] == b"{" and line[-1:] == b"}" and len(line) <= 16 * WHOLE_BYTES:
            try:
                orjson.loads(line)
            except orjson.JSONDecodeError:
                pass
            else:
                return not (start == 0 and end < 0)
        if end < 0:
            return False
        start = end + 1
    return False


def _each_line(body: bytes, received_us: int, rules: Rules) -> Iterator[Event | Refusal | None]:
    if body.count(b"\n") >= rules.events:
        raise _too_many(rules)
    start, number = 0, 1
    while start < len(body):
        lines: list[bytes] = []
        size = 0
        while len(lines) < 64 and size < WHOLE_BYTES and start < len(body):
            end = body.find(b"\n", start)
            end = len(body) if end < 0 else end
            lines.append(body[start:end])
            size += end - start
            start = end + 1
        events, refusals = read_lines(lines, number, received_us, rules)
        number += len(lines)
        yield from events
        yield from refusals
        yield None


def _each_element(body: bytes, received_us: int, rules: Rules) -> Iterator[Event | Refusal | None]:
    if len(body) <= WHOLE_BYTES and not suspicious(body):
        try:
            elements = orjson.loads(body)
        except orjson.JSONDecodeError:
            pass  # one element may be at fault: told below
        else:
            for index, element in enumerate(elements):
                if not index % _REST:
                    yield None
                text = orjson.dumps(element)
                try:
                    yield accepted(element, text, received_us, rules)
                except RefusedError as refusal:
                    yield Refusal(index, str(refusal), sample(text))
            return
    whole = body.decode("utf-8", "surrogateescape")
    spans: list[tuple[int, int]] = []
    rested = 0
    for start, end in _spans(whole):
        spans.append((start, end))
        if len(spans) > rules.events:
            raise _too_many(rules)
        if end - rested > WHOLE_BYTES:
            rested = end
            yield None
    rested = 0
    for index, (start, end) in enumerate(spans):
        yield _element(whole[start:end].encode("utf-8", "surrogateescape"), index, received_us, rules)
        if end - rested > WHOLE_BYTES:
            rested = end
            yield None


def _element(text: bytes, index: int, received_us: int, rules: Rules) -> Event | Refusal:
    try:
        return read_event(text, received_us, rules)
    except RefusedError as refusal:
        return Refusal(index, str(refusal), sample(text))


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yields where each element of an array stands. Laxer than JSON within the elements, which are read again."""
    at = _skip(text, 1)
    if text[at : at + 1] == "]":
        _must_end(text, at + 1)
        return
    while True:
        start = at
        try:
            _, end = _scan(text, start)
        except StopIteration as stop:
            raise _malformed(text, "expected a value", int(stop.value)) from None
        except json.JSONDecodeError as error:
            raise _malformed(text, error.msg, error.pos) from None
        except RecursionError:
            raise _malformed(text, "a value nested too deeply", start) from None
        yield start, end
        at = _skip(text, end)
        match text[at : at + 1]:
            case ",":
                at = _skip(text, at + 1)
            case "]":
                _must_end(text, at + 1)
                return
            case "":
                raise _malformed(text, "the array is not closed", at)
            case _:
                raise _malformed(text, "expected ',' or ']'", at)


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in {" ", "\t", "\r", "\n"}:
        at += 1
    return at


def _must_end(text: str, at: int) -> None:
    if at != len(text):
        raise _malformed(text, "something follows the array", at)


def _too_many(rules: Rules) -> MalformedError:
    return MalformedError(f"the body has more than {rules.events} events; /collect/bulk takes any number")


def _malformed(text: str, message: str, at: int) -> MalformedError:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    return MalformedError(f"the body is not JSON: {message}: line {line} column {column} (char {at})")
