"""What the peer keeps: hubs, their partitions and events, and who may come in.

Events are appended to a file before they are acknowledged, so that a peer that is killed and started again still has
them, as the real service would.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from eventhub import wire

PARTITION_KEY = b"x-opt-partition-key"


@dataclass(slots=True)
class Stored:
    """An event of a partition."""

    sequence: int
    offset: int
    at_ms: int
    key: str | None
    message: bytes

    def outgoing(self) -> bytes:
        """Gives the message as receivers get it."""
        added = {
            b"x-opt-sequence-number": wire.long(self.sequence),
            b"x-opt-offset": wire.string(str(self.offset)),
            b"x-opt-enqueued-time": wire.timestamp(self.at_ms),
        }
        if self.key is not None:
            added[PARTITION_KEY] = wire.string(self.key)
        return wire.annotated(self.message, added)


@dataclass
class Hub:
    """One event hub. `sizes` has the bytes of each message that came, `batches` how many events were in it."""

    name: str
    partitions: list[list[Stored]]
    created_ms: int
    sizes: list[int] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    _next: int = 0

    def put(self, message: bytes, partition: int | None) -> tuple[int, list[Stored]]:
        """Takes a message, alone or a batch, into one partition. Raises ValueError, IndexError where it is none."""
        events = wire.batch(message)
        key = _key(message)
        if partition is None:
            if key is None:
                partition = self._next = (self._next + 1) % len(self.partitions)
            else:
                partition = zlib.crc32(key.encode()) % len(self.partitions)
        found = [message] if events is None else events
        self.sizes.append(len(message))
        self.batches.append(len(found))
        return partition, [self._append(partition, each, key) for each in found]

    def _append(self, partition: int, message: bytes, key: str | None) -> Stored:
        stored = self.partitions[partition]
        offset = 0 if not stored else stored[-1].offset + len(stored[-1].message)
        own = _key(message)
        made = Stored(len(stored), offset, int(time.time() * 1000), own if own is not None else key, message)
        stored.append(made)
        return made


def _key(message: bytes) -> str | None:
    for name, value in wire.annotations(message):
        if name == PARTITION_KEY and value != b"\x40":
            return wire.text_of(value)
    return None


class Hubs:
    """All hubs of the namespace, its keys, and the file that keeps the events."""

    def __init__(self, hubs: dict[str, int], keys: dict[str, str], store: Path | None) -> None:
        self.keys = dict(keys)
        self.hubs: dict[str, Hub] = {}
        self._file = None if store is None else store.open("ab+")
        for name, partitions in hubs.items():
            self.create(name, partitions)
        if self._file is not None:
            self._file.seek(0)
            for name, partition, message in _records(self._file.read()):
                if name in self.hubs:
                    self.hubs[name]._append(partition, message, _key(message))

    def create(self, name: str, partitions: int) -> None:
        """Makes a hub."""
        self.hubs[name] = Hub(name, [[] for _ in range(partitions)], int(time.time() * 1000))

    def put(self, name: str, message: bytes, partition: int | None) -> None:
        """Takes a message into a hub and writes it down."""
        where, stored = self.hubs[name].put(message, partition)
        if self._file is not None:
            for each in stored:
                kept = each.message if each.key is None else wire.annotated(
                    each.message, {PARTITION_KEY: wire.string(each.key)}
                )  # fmt: skip
                data = name.encode()
                self._file.write(struct.pack(">HII", len(data), where, len(kept)) + data + kept)
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def refusal(self, token: str, audience: str, now_s: float) -> tuple[int, str] | None:
        """Says with what status and words a token is refused; None when it lets in to the audience."""
        kind, _, rest = token.partition(" ")
        fields = dict(each.partition("=")[::2] for each in rest.split("&"))
        if kind != "SharedAccessSignature" or {"sr", "sig", "se", "skn"} - fields.keys():
            return 401, "InvalidToken: The token is malformed."
        key = self.keys.get(unquote_plus(fields["skn"]))
        signed = f"{fields['sr']}\n{fields['se']}".encode()
        right = base64.b64encode(hmac.new((key or "").encode(), signed, hashlib.sha256).digest()).decode()
        if key is None or not hmac.compare_digest(right, unquote_plus(fields["sig"])):
            return 401, "InvalidSignature: The token has an invalid signature."
        if float(fields["se"]) < now_s:
            return 401, "ExpiredToken: The token has expired."
        if not path_of(audience).startswith(path_of(unquote_plus(fields["sr"])).rstrip("/")):
            return 401, "InvalidAudience: The token is for another resource."
        return None


def path_of(address: str) -> str:
    """Gives the path of an address, whole or not, without the slash before it."""
    return (urlsplit(address).path if "//" in address else address).strip("/")


def _records(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    at = 0
    while at + 10 <= len(data):
        named, partition, size = struct.unpack_from(">HII", data, at)
        if at + 10 + named + size > len(data):
            return  # it was killed in the middle of it
        name = data[at + 10 : at + 10 + named].decode()
        at += 10 + named
        yield name, partition, data[at : at + size]
        at += size


def shown(stored: Stored, partition: int) -> dict[str, Any]:
    """Gives an event as the control port shows it, read by proton's own decoder."""
    from proton import Message  # noqa: PLC0415  (a reader of files alone needs no engine)

    message = Message()
    message.decode(stored.message)
    return {
        "partition": partition,
        "sequence": stored.sequence,
        "key": stored.key,
        "body": base64.b64encode(bytes(message.body)).decode(),
        "properties": {str(name): value for name, value in (message.properties or {}).items()},
        "content_type": message.content_type and str(message.content_type),
        "message_id": message.id and str(message.id),
        "size": len(stored.message),
    }
