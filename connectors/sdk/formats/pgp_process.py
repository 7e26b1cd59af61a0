"""The process that works with PGP keys; `connectors.sdk.formats.pgp` starts it, and says what passes through it.

It is a program by itself: `python -I -S pgp_process.py FOLDER`, where FOLDER is the one that holds the library. A
request comes first (a length of 4 bytes, then JSON), then what is to be encrypted or decrypted, which leaves by
standard output. What there is to say leaves by standard error, a line of JSON with `refused`, `crashed` or `done`.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pysequoia import Cert, PyDecryptor, Tsk
    from pysequoia.packet import Packet

_IN, _OUT, _SAID = 0, 1, 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Tags of packets: a session key encrypted for a key, for a password, and what may stand before them.
_FOR_KEY, _FOR_PASSWORD, _MARKER = 1, 3, 10
_ARMOUR = b"-----BEGIN PGP MESSAGE-----"


class RefusedError(Exception):
    """A key that cannot be used, or a message that cannot be read; the text is for people."""


def main() -> int:
    """Answers one request."""
    sys.path.append(sys.argv[1])
    try:
        request = json.loads(_read(int.from_bytes(_read(4), "big")))
        _WORK[request.pop("do")](**request)
    except RefusedError as error:
        _say({"refused": str(error)})
        return 1
    except Exception as error:  # noqa: BLE001  (its text may hold what was given)
        _say({"crashed": type(error).__name__})
        return 3
    _say({"done": True})
    return 0


def check(*, public: str | None, private: str | None, passphrase: str | None, now_us: int) -> None:
    """Says whether the keys can be used, and fit each other where both are given."""
    cert = None if public is None else encrypting_key(public, now_us)
    tsk = None if private is None else decrypting_keys(private, passphrase, now_us)[0]
    if cert is not None and tsk is not None:
        other = tsk.extract_certificate().fingerprint
        if cert.fingerprint != other:
            raise RefusedError(
                f"the public key {_short(cert.fingerprint)} and the private key {_short(other)} are no pair; give each "
                "an authorization of its own"
            )


def encrypt(*, public: str, now_us: int) -> None:
    """Encrypts what comes in."""
    from pysequoia import encrypt_file  # noqa: PLC0415  (found by then)

    cert = encrypting_key(public, now_us)
    encrypt_file(f"/proc/self/fd/{_IN}", f"/proc/self/fd/{_OUT}", [cert], armor=False)


def decrypt(*, private: str, passphrase: str | None, now_us: int, head: str) -> None:
    """Decrypts what comes in; `head` is how that begins, as base64."""
    from pysequoia import decrypt_file  # noqa: PLC0415  (found by then)

    keys = decrypting_keys(private, passphrase, now_us)
    key = _key_for(keys, recipients(base64.b64decode(head)))
    decryptor = opened(key, passphrase)
    try:
        decrypt_file(f"/proc/self/fd/{_IN}", f"/proc/self/fd/{_OUT}", decryptor)
    except (RuntimeError, OSError) as error:
        said = _first_line(error)
        if said == "No key to decrypt message":
            raise RefusedError("the message is not encrypted for the private key") from None
        if "Malformed" in said:
            said += "; or it is packed by bzip2, which is not understood here"
        raise RefusedError(f"the message is damaged, or not complete ({said})") from None


# --- keys


class _Subkey(NamedTuple):
    """A key within a key: the packets that belong to it, whether it is for encryption, until when."""

    packets: list[Packet]
    encrypts: bool
    expires: datetime | None


def encrypting_key(text: str, now_us: int) -> Cert:
    """Gives the public key when it can be encrypted for."""
    from pysequoia import encrypt as encrypt_bytes  # noqa: PLC0415

    cert = _one(text, "public")
    _, subkeys = _subkeys(bytes(cert))
    _check_life(cert, "public", subkeys, now_us)
    try:
        encrypt_bytes(b"", [cert])
    except RuntimeError:
        raise RefusedError(
            f"the public key {_short(cert.fingerprint)} is not for encryption; export one that has a subkey for it"
        ) from None
    return cert


def decrypting_keys(text: str, passphrase: str | None, now_us: int) -> list[Tsk]:
    """Gives the private key, once for each of its subkeys that can decrypt, when it can be opened."""
    from pysequoia import Tsk  # noqa: PLC0415

    cert = _one(text, "private")
    if not cert.has_secret_keys:
        raise RefusedError("it holds a public key alone; a private key is wanted")
    tsk = Tsk.from_bytes(text.encode())
    common, subkeys = _subkeys(bytes(tsk))
    _check_life(cert, "private", subkeys, now_us)
    for_it = [each for each in subkeys if each.encrypts and not _over(each.expires, now_us)]
    keys = [Tsk.from_packets([*common, *each.packets]) for each in for_it] if len(for_it) > 1 else [tsk]
    for key in keys:
        opened(key, passphrase)
    return keys


def opened(key: Tsk, passphrase: str | None) -> PyDecryptor:
    """Gives what decrypts with a key; the passphrase is not asked for where it needs none."""
    try:
        return key.decryptor()
    except (RuntimeError, OSError) as error:
        fingerprint = _short(key.extract_certificate().fingerprint)
        if _first_line(error).startswith("No suitable decryption subkey"):
            raise RefusedError(
                f"the private key {fingerprint} is not for encryption, so that nothing can be decrypted with it"
            ) from None
    if not passphrase:
        raise RefusedError(f"the private key {fingerprint} is protected; give its passphrase")
    try:
        return key.decryptor(passphrase)
    except (RuntimeError, OSError):
        raise RefusedError(f"the passphrase does not open the private key {fingerprint}") from None


def _one(text: str, kind: str) -> Cert:
    from pysequoia import Cert  # noqa: PLC0415

    try:
        certs = Cert.split_bytes(text.encode())
    except (RuntimeError, OSError) as error:
        raise RefusedError(f"no {kind} key can be read from the text: {_first_line(error)}") from None
    if len(certs) != 1:
        raise RefusedError(f"the text of the {kind} key holds {len(certs)} keys; one is accepted")
    return certs[0]


def _check_life(cert: Cert, kind: str, subkeys: Sequence[_Subkey], now_us: int) -> None:
    fingerprint = _short(cert.fingerprint)
    if cert.is_revoked:
        raise RefusedError(f"the {kind} key {fingerprint} was revoked by its owner")
    try:
        expires = cert.expiration
    except (RuntimeError, OSError) as error:
        raise RefusedError(f"the {kind} key {fingerprint} is not accepted: {_first_line(error)}") from None
    if not _over(expires, now_us):
        ends = [each.expires for each in subkeys if each.encrypts]
        if not ends or not all(_over(each, now_us) for each in ends):
            return
        expires = max(each for each in ends if each is not None)
    raise RefusedError(f"the {kind} key {fingerprint} expired on {expires:%Y-%m-%d}; ask its owner to extend it")


def _subkeys(key: bytes) -> tuple[list[Packet], list[_Subkey]]:
    """Gives the packets of a key that are none of a subkey's, and its subkeys."""
    from pysequoia.packet import PacketPile, Tag  # noqa: PLC0415

    groups: list[list[Packet]] = [[]]
    for packet in PacketPile.from_bytes(key):
        if packet.tag in (Tag.PublicSubkey, Tag.SecretSubkey):
            groups.append([])
        groups[-1].append(packet)
    return groups[0], [_subkey(group) for group in groups[1:]]


def _subkey(packets: list[Packet]) -> _Subkey:
    from pysequoia.packet import SignatureType  # noqa: PLC0415

    bindings = [each for each in packets[1:] if each.signature_type == SignatureType.SubkeyBinding]
    revoked = any(each.signature_type == SignatureType.SubkeyRevocation for each in packets[1:])
    if not bindings or revoked:
        return _Subkey(packets, encrypts=False, expires=None)
    newest = max(bindings, key=lambda each: each.signature_created or _EPOCH)
    flags, valid, created = newest.key_flags, newest.key_validity_period, packets[0].key_created
    return _Subkey(
        packets,
        encrypts=flags is not None and (flags.storage_encryption or flags.transport_encryption),
        expires=created + valid if created is not None and valid else None,
    )


def _over(expires: datetime | None, now_us: int) -> bool:
    return expires is not None and expires <= _EPOCH + timedelta(microseconds=now_us)


# --- messages


def recipients(head: bytes) -> list[str]:
    """Gives the ids of the keys that a message is for; one of 16 zeros is for whoever can read it.

    Raises RefusedError for what is no encrypted message.
    """
    found: list[str] = []
    password = False
    for tag, body in _packets(_unarmoured(head)):
        if tag == _FOR_KEY:
            found.append(_recipient(body))
        password = password or tag == _FOR_PASSWORD
    if not found:
        raise RefusedError(
            "the message is encrypted with a password, and not for a key"
            if password
            else "what is there is no encrypted PGP message"
        )
    return found


def _recipient(body: bytes) -> str:
    if body[:1] == b"\x03":
        return body[1:9].hex()
    if body[:1] == b"\x06" and body[1:2] != b"\0":  # a fingerprint: of a key of version 4 its end is the id
        return (body[15:23] if body[2:3] == b"\x04" else body[3:11]).hex()
    return "0" * 16


def _key_for(keys: Sequence[Tsk], ids: Sequence[str]) -> Tsk:
    """Gives the key that one of these ids is of; the first where they do not tell."""
    from pysequoia.packet import PacketPile  # noqa: PLC0415

    own: list[str] = []
    for key in keys:
        these = [each.key_id for each in PacketPile.from_bytes(bytes(key)) if each.key_id is not None]
        if set(these) & set(ids):
            return key
        own += these
    if ids and "0" * 16 not in ids:
        raise RefusedError(
            f"the message is encrypted for {', '.join(ids[:5])}; the private key is {', '.join(dict.fromkeys(own))}"
        )
    return keys[0]


def _packets(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the packets at the beginning that say who can read it, and one after them."""
    at = 0
    while at + 6 < len(message) and message[at] & 0x80:
        first, length = message[at], message[at + 1]
        if first & 0x40:
            tag, size = first & 0x3F, 2
            if 192 <= length < 224:
                length, size = ((length - 192) << 8) + message[at + 2] + 192, 3
            elif length == 255:
                length, size = int.from_bytes(message[at + 2 : at + 6], "big"), 6
        else:
            tag, width = (first >> 2) & 0x0F, (1, 2, 4, 0)[first & 3]
            length, size = int.from_bytes(message[at + 1 : at + 1 + width], "big"), 1 + width
        yield tag, message[at + size : at + size + length]
        if tag not in {_FOR_KEY, _FOR_PASSWORD, _MARKER}:
            return
        at += size + length


def _unarmoured(head: bytes) -> bytes:
    start = head.find(_ARMOUR)
    if start < 0 or head[:1] >= b"\x80":
        return head
    lines = head[start:].replace(b"\r", b"").partition(b"\n\n")[2].splitlines()
    text = b"".join(line for line in lines if not line.startswith((b"=", b"-")))
    try:
        return binascii.a2b_base64(text[: len(text) // 4 * 4])
    except binascii.Error:
        return b""


# --- the pipes


def _read(size: int) -> bytes:
    pieces = b""
    while len(pieces) < size:
        piece = os.read(_IN, size - len(pieces))
        if not piece:
            raise SystemExit(2)
        pieces += piece
    return pieces


def _say(what: dict[str, Any]) -> None:
    os.write(_SAID, json.dumps(what).encode() + b"\n")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _short(fingerprint: str) -> str:
    return fingerprint[-16:].upper()


_WORK: dict[str, Callable[..., None]] = {"check": check, "encrypt": encrypt, "decrypt": decrypt}

if __name__ == "__main__":
    sys.exit(main())
