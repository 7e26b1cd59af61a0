"""Trigger messages as events of a hub: their bytes, the partition of each, and what is left out of one too large.

Events are encoded here and not by the SDK, which takes some 300 µs for each with its properties, and the daemon's loop
waits meanwhile; this takes 5.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from connectors.sdk.run import Message

#: What an event carries beyond its body and its text properties, in bytes, at most.
OVERHEAD = 256
#: So many bytes of names stand in the properties `audience` and `omitted_fields`; names beyond are not in them.
AUDIENCE_NAMES = 16_000
OMITTED_NAMES = 2000
#: Fields of the message that are never left out.
KEPT = frozenset({"_id", "_created", "_modified", "segment_events"})

_MASK = 0xFFFFFFFF


def encoded(message: Message, body: bytes, omitted: Sequence[str] = ()) -> bytes:
    """Gives the event of a message as AMQP 1.0 bytes, with its partition key and its properties.

    `event` is enter, exit, or both where one commit did both; `audience` names the audiences, separated by commas;
    `id` is the message's. `omitted_fields` stands there where fields were left out.
    """
    names = {
        "event": "both" if message.enters and message.exits else "exit" if message.exits else "enter",
        "audience": _joined(message.audiences, AUDIENCE_NAMES),
        "id": message.id,
    }
    if omitted:
        names["omitted_fields"] = _joined(omitted, OMITTED_NAMES - 100)
    properties = b"".join(_text(name) + _text(value) for name, value in names.items())
    about = _text(message.id) + b"@@@@@\xa3\x10application/json"  # between the two: five that are null
    key = b"\xa3\x13x-opt-partition-key" + _text(message.profile)
    return b"".join(
        (
            b"\x00\x53\x72" + _compound(0xC1, 2, key),
            b"\x00\x53\x73" + _compound(0xC0, 7, about),
            b"\x00\x53\x74" + _compound(0xC1, 2 * len(names), properties),
            b"\x00\x53\x75\xb0" + struct.pack(">I", len(body)),
            body,
        )
    )


def reduced(body: bytes, most: int) -> tuple[bytes, list[str]]:
    """Leaves fields of the profile out until a message has at most `most` bytes: the largest ones first.

    Of fields of one size the one whose name comes first goes. Gives the message and the names of what it lost. What
    happened (`segment_events`), whose it is (`_id`, `_created`, `_modified`) and `meta` stay; where they alone are too
    large, the message is larger than asked for.
    """
    message: dict[str, Any] = json.loads(body)  # whole numbers may have more than 64 bits
    data: dict[str, Any] = message["data"]
    sizes = {name: len(_json({name: value})) for name, value in data.items() if name not in KEPT}
    omitted: list[str] = []
    size = len(body)
    for name in sorted(sizes, key=lambda each: (-sizes[each], each)):
        if size <= most:
            break
        del data[name]
        omitted.append(name)
        size -= sizes[name] - 1  # without its braces, with its comma
    return _json(message), omitted


class Partitions:
    """Which partition a key belongs to: the one that Event Hubs itself would choose for it.

    Events of one key are sent to its partition and carry the key, as the SDK's buffered producer does it: so a batch
    has events of many people, and each person's stay in order, also beside those that others send with this key.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def of(self, key: str) -> str:
        """Gives the id of the partition."""
        high, low = _lookup3(key.encode())
        number = (high ^ low) & 0xFFFF
        if number >= 0x8000:
            number -= 0x10000
        return self._ids[number % len(self._ids)]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _joined(names: Sequence[str], most: int) -> str:
    text = ",".join(names)
    if len(text) * 4 <= most or len(data := text.encode()) <= most:
        return text
    return data[: most + 1].rpartition(b",")[0].decode()


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return b"\xa1" + bytes((len(data),)) + data if len(data) < 256 else b"\xb1" + struct.pack(">I", len(data)) + data


def _compound(small: int, count: int, content: bytes) -> bytes:
    """Gives a list or a map; `small` is its code where it is short."""
    if len(content) < 255:
        return bytes((small, len(content) + 1, count)) + content
    return bytes((small + 0x10,)) + struct.pack(">II", len(content) + 4, count) + content


def _lookup3(data: bytes) -> tuple[int, int]:
    """Bob Jenkins' hashlittle2, which Event Hubs assigns partitions with (it is in all SDKs)."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    at = 0
    while len(data) - at > 12:
        x, y, z = struct.unpack_from("<III", data, at)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
        at += 12
    if at == len(data):
        return c, b
    x, y, z = struct.unpack("<III", data[at:].ljust(12, b"\0"))
    return _final((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _turned(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a, c = (a - c & _MASK) ^ _turned(c, 4), c + b & _MASK
    b, a = (b - a & _MASK) ^ _turned(a, 6), a + c & _MASK
    c, b = (c - b & _MASK) ^ _turned(b, 8), b + a & _MASK
    a, c = (a - c & _MASK) ^ _turned(c, 16), c + b & _MASK
    b, a = (b - a & _MASK) ^ _turned(a, 19), a + c & _MASK
    c, b = (c - b & _MASK) ^ _turned(b, 4), b + a & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> tuple[int, int]:
    c = (c ^ b) - _turned(b, 14) & _MASK
    a = (a ^ c) - _turned(c, 11) & _MASK
    b = (b ^ a) - _turned(a, 25) & _MASK
    c = (c ^ b) - _turned(b, 16) & _MASK
    a = (a ^ c) - _turned(c, 4) & _MASK
    b = (b ^ a) - _turned(a, 14) & _MASK
    c = (c ^ b) - _turned(b, 24) & _MASK
    return c, b
