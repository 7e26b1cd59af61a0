"""AMQP 1.0 bytes, as far as the peer has to touch them itself: lists made whole, and messages taken apart.

proton leaves trailing nulls of a performative's list away, which AMQP allows; the Python SDK indexes every list to its
full length. So each outgoing frame is written anew with all its fields (`Padder`). And proton does not say which
transfers are batches, nor keeps the bytes of a message: `sections` and `batch` read them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES, APPLICATION, DATA = range(0x70, 0x76)
SEQUENCE, VALUE, FOOTER = 0x76, 0x77, 0x78

#: How many fields a described list has, by its descriptor: performatives, terminus, error, outcomes.
FIELDS = {0x10: 10, 0x11: 8, 0x12: 14, 0x13: 11, 0x14: 11, 0x15: 6, 0x16: 3, 0x17: 1, 0x18: 1,
          0x28: 11, 0x29: 7, 0x1D: 3, 0x25: 1}  # fmt: skip

_FIXED = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}


def value_end(data: bytes | memoryview, at: int) -> int:
    """Gives where the value that begins at `at` ends."""
    code = data[at]
    if code == 0:
        return value_end(data, value_end(data, at + 1))
    kind = code >> 4
    if kind in _FIXED:
        return at + 1 + _FIXED[kind]
    if kind in {0xA, 0xC, 0xE}:
        return at + 2 + data[at + 1]
    if kind in {0xB, 0xD, 0xF}:
        return at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
    raise ValueError(f"no AMQP value begins with {code:#x}")


def _list(data: bytes, at: int) -> list[bytes]:
    """Gives the elements of a list, each as its bytes."""
    code = data[at]
    if code == 0x45:
        return []
    if code == 0xC0:
        count, at = data[at + 2], at + 3
    elif code == 0xD0:
        count, at = int.from_bytes(data[at + 5 : at + 9], "big"), at + 9
    else:
        raise ValueError(f"{code:#x} is no list")
    found = []
    for _ in range(count):
        end = value_end(data, at)
        found.append(data[at:end])
        at = end
    return found


def whole(value: bytes) -> bytes:
    """Gives a value with all fields of the lists that are known, also within."""
    if value[0] != 0 or value[1] != 0x53 or value[2] not in FIELDS:
        return value
    elements = [whole(each) for each in _list(value, 3)]
    elements += [b"\x40"] * (FIELDS[value[2]] - len(elements))
    body = b"".join(elements)
    return value[:3] + b"\xd0" + struct.pack(">II", len(body) + 4, len(elements)) + body


class Padder:
    """Takes what proton writes, in any pieces, and gives whole frames with whole lists."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> bytes:
        """Gives what is complete."""
        data = self._left + data
        out = []
        at = 0
        while len(data) - at >= 8:
            if data[at : at + 4] == b"AMQP":
                out.append(data[at : at + 8])
                at += 8
                continue
            size = int.from_bytes(data[at : at + 4], "big")
            if len(data) - at < size:
                break
            out.append(self._frame(data[at : at + size]))
            at += size
        self._left = data[at:]
        return b"".join(out)

    @staticmethod
    def _frame(frame: bytes) -> bytes:
        start = frame[4] * 4
        if frame[5] != 0 or len(frame) == start:  # SASL, or a heartbeat
            return frame
        end = value_end(frame, start)
        body = whole(frame[start:end]) + frame[end:]
        return struct.pack(">I", start + len(body)) + frame[4:start] + body


def sections(message: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Gives kind, beginning and end of each section of an encoded message. Raises ValueError, IndexError."""
    at = 0
    while at < len(message):
        if message[at] != 0 or message[at + 1] != 0x53 or not HEADER <= message[at + 2] <= FOOTER:
            raise ValueError("no section begins here")
        end = value_end(message, at + 3)
        if end > len(message):
            raise ValueError("a section is cut short")
        yield message[at + 2], at, end
        at = end


def binary(message: bytes, at: int) -> bytes:
    """Gives the content of a data section that begins at `at`."""
    if message[at + 3] == 0xA0:
        return message[at + 5 : at + 5 + message[at + 4]]
    return message[at + 8 : at + 8 + int.from_bytes(message[at + 4 : at + 8], "big")]


def batch(message: bytes) -> list[bytes] | None:
    """Gives the messages of a batch: every data section is itself a whole message. None when it is none."""
    found = []
    for kind, start, _ in sections(message):
        if kind == DATA:
            inner = binary(message, start)
            if inner[:2] != b"\x00\x53":
                return None
            try:
                kinds = [each for each, _, _ in sections(inner)]
            except (ValueError, IndexError):
                return None
            if not kinds:
                return None
            found.append(inner)
        elif kind in {SEQUENCE, VALUE}:
            return None
    return found or None


def annotations(message: bytes) -> list[tuple[bytes, bytes]]:
    """Gives the message annotations: each key, plain, with its value as its bytes."""
    for kind, start, _ in sections(message):
        if kind == MESSAGE_ANNOTATIONS:
            values = _map(message, start + 3)
            return [(_text(key), value) for key, value in zip(values[::2], values[1::2], strict=True)]
    return []


def annotated(message: bytes, added: dict[bytes, bytes]) -> bytes:
    """Gives the message with annotations added, their values as bytes; each takes the place of one that was there."""
    kept = [(key, value) for key, value in annotations(message) if key not in added]
    body = b"".join(b"\xa3" + bytes([len(key)]) + key + value for key, value in [*kept, *added.items()])
    count = 2 * (len(kept) + len(added))
    section = b"\x00\x53\x72\xd1" + struct.pack(">II", len(body) + 4, count) + body
    before, after = [], []
    for kind, start, end in sections(message):
        if kind != MESSAGE_ANNOTATIONS:
            (before if kind < MESSAGE_ANNOTATIONS else after).append(message[start:end])
    return b"".join([*before, section, *after])


def text_of(value: bytes) -> str:
    """Gives the text of a string, symbol or binary value."""
    return _text(value).decode()


def string(text: str) -> bytes:
    """Gives a string value."""
    data = text.encode()
    return b"\xb1" + struct.pack(">I", len(data)) + data


def long(number: int) -> bytes:
    """Gives a long value."""
    return b"\x81" + struct.pack(">q", number)


def timestamp(milliseconds: int) -> bytes:
    """Gives a timestamp value."""
    return b"\x83" + struct.pack(">q", milliseconds)


def _map(data: bytes, at: int) -> list[bytes]:
    if data[at] == 0xC1:
        count, at = data[at + 2], at + 3
    else:
        count, at = int.from_bytes(data[at + 5 : at + 9], "big"), at + 9
    found = []
    for _ in range(count):
        end = value_end(data, at)
        found.append(data[at:end])
        at = end
    return found


def _text(value: bytes) -> bytes:
    if value[0] in {0xA0, 0xA1, 0xA3}:
        return value[2:]
    if value[0] in {0xB0, 0xB1, 0xB3}:
        return value[5:]
    raise ValueError(f"{value[0]:#x} is no text")
