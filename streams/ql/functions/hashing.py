"""Hashes and encodings."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from streams.ql.coerce import to_text
from streams.ql.functions.registry import example, function
from streams.ql.missing import MISSING, Missing, Value, is_nil
from streams.ql.siphash import siphash

#: The longest text that is encoded: encodings of encodings must not grow into gigabytes.
_LONGEST = 1_000_000


@function(
    "hash",
    "hash.sip",
    returns="int",
    examples=[
        example("http://www.google.com?q=123", gives=5673948842516703987),
        example("www.getlytics.com/blog/post/intent_through_content", gives=-3435113786560588929),
        example("", gives=MISSING),
    ],
)
def hash_sip(x: Value) -> int | Missing:
    """Gives SipHash-2-4 of the text as a signed 64-bit number; a list gives that of its first element."""
    text = to_text(x) if isinstance(x, str | list) else MISSING
    return siphash(_bytes(text)) if isinstance(text, str) and text else MISSING


@function(
    "hash.md5",
    returns="string",
    examples=[example("hello", gives="5d41402abc4b2a76b9719d911017c592"), example("", gives=MISSING)],
)
def hash_md5(x: Value) -> str | Missing:
    """Gives MD5 of the text in hexadecimal digits."""
    return _digest(x, hashlib.md5)


@function(
    "hash.sha1",
    returns="string",
    examples=[example("hello", gives="aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"), example("", gives=MISSING)],
)
def hash_sha1(x: Value) -> str | Missing:
    """Gives SHA-1 of the text in hexadecimal digits."""
    return _digest(x, hashlib.sha1)


@function(
    "hash.sha256",
    returns="string",
    examples=[
        example("hello", gives="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        example("", gives=MISSING),
    ],
)
def hash_sha256(x: Value) -> str | Missing:
    """Gives SHA-256 of the text in hexadecimal digits."""
    return _digest(x, hashlib.sha256)


@function(
    "hash.sha512",
    returns="string",
    examples=[
        example(
            "hello",
            gives="9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7"
            "2323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043",
        ),
        example("", gives=MISSING),
    ],
)
def hash_sha512(x: Value) -> str | Missing:
    """Gives SHA-512 of the text in hexadecimal digits."""
    return _digest(x, hashlib.sha512)


@function(
    "encoding.b64encode",
    returns="string",
    examples=[example("hello world", gives="aGVsbG8gd29ybGQ="), example("", gives=MISSING)],
)
def b64encode(x: Value) -> str | Missing:
    """Gives the text in base64."""
    text = _some(x)
    if isinstance(text, Missing) or len(text) > _LONGEST:
        return MISSING
    return base64.b64encode(_bytes(text)).decode()


@function(
    "encoding.b64decode",
    returns="string",
    examples=[
        example("aGVsbG8gd29ybGQ=", gives="hello world"),
        example("xx", gives=MISSING),
        example("", gives=MISSING),
    ],
)
def b64decode(x: Value) -> str | Missing:
    """Gives the text that was put into base64; bytes that are no UTF-8 become U+FFFD."""
    text = _some(x)
    if isinstance(text, Missing):
        return MISSING
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return MISSING


@function(
    "uuid",
    returns="string",
    examples=[example(gives="80140440-7b1f-87c5-b823-d259059febb8", event={"_id": "1"})],
)
def uuid(now: datetime, event: Mapping[str, Value]) -> str:
    """Gives a UUID (version 8) made of the event and its time: the same whenever the event is mapped again."""
    content = orjson.dumps([now, event], default=repr, option=orjson.OPT_SORT_KEYS)
    return str(_version_8(content))


def _version_8(content: bytes) -> UUID:
    bits = int.from_bytes(hashlib.sha256(content).digest()[:16])
    bits = bits & ~(0xF << 76) | 8 << 76
    return UUID(int=bits & ~(0x3 << 62) | 0x2 << 62)


def _digest(x: Value, algorithm: Callable[..., Any]) -> str | Missing:
    text = _some(x)
    if isinstance(text, Missing):
        return MISSING
    return str(algorithm(_bytes(text), usedforsecurity=False).hexdigest())


def _some(x: Value) -> str | Missing:
    return MISSING if is_nil(x) else to_text(x)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
