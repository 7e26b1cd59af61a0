"""The vault: seals secrets under a key that is never in the database.

A key is 32 random bytes, written as base64 (or 64 hexadecimal digits), one a line; the first seals, all of them open,
so that both are there while one replaces the other. The first place that has one is taken: the systemd credential
`cohortd-key`, the file `vault.key_file`, the setting `vault.key` (`COHORTD_VAULT_KEY`), else `vault.key` in the data
directory, made on the first start. Keys of that last file open in any case.

AES-256-GCM with a random nonce for each value. What a value is for (its row and field) goes in as associated data: a
sealed value that is moved elsewhere does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connectors.sdk.secret import Secret
from daemon import log
from daemon.settings import Settings

KEY_BYTES = 32
NONCE_BYTES = 12
CREDENTIAL = "cohortd-key"
FILE = "vault.key"
#: More than this is no file of keys.
LARGEST_BYTES = 64 * 1024
#: A key that is not known is looked for again this often at most, in seconds.
LOOK_AGAIN_S = 1.0

_HEADER = "# cohortd: key of the sealed authorizations. The first line that is a key seals, all of them open.\n"


class VaultError(Exception):
    """A secret that cannot be sealed or opened; the message says why, and what to do."""


class Sealed(NamedTuple):
    """A sealed value: which key, then the nonce and what AES-GCM made."""

    key_id: str
    data: bytes


@final
class Key:
    """A key, shown by its id: eight digits of a hash of it."""

    __slots__ = ("content", "id")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.id = hashlib.blake2b(content, digest_size=4, person=b"cohortd-key-id").hexdigest()

    def __repr__(self) -> str:
        return f"Key({self.id})"


class Vault:
    """The keys of one daemon. Opened by `open`; without a key it seals nothing, and `problem` says why.

    `place` names what a value is for, and must be the same when it is opened.
    """

    def __init__(self, data_dir: Path, settings: Settings) -> None:
        self._own = data_dir / FILE
        self._settings = settings.vault
        self._keys: dict[str, Key] = {}
        self._current: Key | None = None
        self._looked_at = float("-inf")
        self._makes = True
        self.path: Path | None = None
        self.source = ""
        self.problem = ""

    @classmethod
    def open(cls, data_dir: Path, settings: Settings) -> Vault:
        """Reads the keys; makes one, in the data directory, when none is given. Never raises."""
        self = cls(data_dir, settings)
        self.look()
        if self.problem:
            log.get().error("vault_key_refused", source=self.source, error=self.problem)
        else:
            log.get().info("vault_opened", source=self.source, key=self.key_id, older=self.older)
        for path in dict.fromkeys((self._own, *((self.path,) if self.path is not None else ()))):
            _tell_exposed(path)
        return self

    @classmethod
    def seen(cls, data_dir: Path, settings: Settings) -> Vault:
        """Reads the keys and makes none; for whoever only looks."""
        self = cls(data_dir, settings)
        self._makes = False
        self.look()
        return self

    @property
    def key_id(self) -> str:
        """The id of the key that seals, "" when there is none."""
        return self._current.id if self._current is not None else ""

    @property
    def known(self) -> list[str]:
        """The ids of all keys, the one that seals first."""
        return list(self._keys)

    @property
    def older(self) -> list[str]:
        """The ids of the keys that only open."""
        return self.known[1:]

    # --- sealing

    def seal(self, secret: Secret, place: str) -> Sealed:
        """Seals a value for `place`. Raises VaultError without a key."""
        if self._current is None:
            raise VaultError(self.problem)
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self._current.content).encrypt(nonce, secret.reveal().encode(), place.encode())
        return Sealed(self._current.id, nonce + sealed)

    def unseal(self, sealed: Sealed, place: str) -> Secret:
        """Opens a value. Raises VaultError for a key that is not known, and for a value that is not as it was sealed.

        A key that is not known is looked for again first, so that one put back is found without a restart.
        """
        key = self._keys.get(sealed.key_id)
        if key is None:
            self.look_again()
            key = self._keys.get(sealed.key_id)
        if key is None:
            raise VaultError(self.missing(sealed.key_id))
        nonce, data = sealed.data[:NONCE_BYTES], sealed.data[NONCE_BYTES:]
        try:
            return Secret(AESGCM(key.content).decrypt(nonce, data, place.encode()).decode())
        except (InvalidTag, ValueError):
            raise VaultError(
                f"a secret sealed with key {key.id} is damaged, or was moved here: make the authorization anew"
            ) from None

    def missing(self, key_id: str) -> str:
        """Says what to do about a key that is not known."""
        have = f"this daemon has {', '.join(self.known)}" if self._keys else f"this daemon has none ({self.problem})"
        return (
            f"sealed with another key ({key_id}; {have}): add that key as a line to {self.source}, "
            "or make the authorization anew"
        )

    # --- the keys

    def look_again(self) -> None:
        """Reads the keys once more, unless that was done just now."""
        if time.monotonic() - self._looked_at >= LOOK_AGAIN_S:
            self.look()

    def look(self) -> None:
        """Reads the keys. What cannot be read becomes `problem`; keys known so far are then kept."""
        self._looked_at = time.monotonic()
        try:
            keys = self._read()
            if self.path != self._own and self._own.exists():
                with suppress(VaultError):  # it is not what was asked for; a secret that needs it says so
                    keys += _parse(_content(self._own), str(self._own))
        except VaultError as error:
            self.problem = str(error)
            return
        self.problem = ""
        self._current = keys[0]
        self._keys = {key.id: key for key in keys}

    def add(self) -> str:
        """Makes a new key that seals from now on; the others still open. Gives its id.

        It is on the disk, beside the others, before this returns. Raises VaultError when the key is not in a file that
        this daemon can write.
        """
        path = self._writable()
        new = Key(secrets.token_bytes(KEY_BYTES))
        _write(path, [new, *_parse(_content(path), str(path))])
        self.look()
        return new.id

    def drop(self, keep: Collection[str]) -> list[str]:
        """Takes all keys out of the file but the one that seals and those in `keep`; gives the ids of those gone."""
        path = self._writable()
        keys = _parse(_content(path), str(path))
        kept = [key for number, key in enumerate(keys) if not number or key.id in keep]
        if len(kept) < len(keys):
            _write(path, kept)
            self.look()
        return [key.id for key in keys if key not in kept]

    @property
    def writable(self) -> bool:
        """Whether a new key can be made here; else whoever gives it, gives a new one."""
        return self.path is not None and not self.problem

    def _writable(self) -> Path:
        if self.path is None or self.problem:
            raise VaultError(
                self.problem
                or f"the key comes from {self.source}, which cohortd cannot write: put a new key before the present "
                "one there, restart, and do this again"
            )
        return self.path

    def _read(self) -> list[Key]:
        """Gives the keys of the first place that has any."""
        self.path = None
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory and (credential := Path(directory) / CREDENTIAL).exists():
            self.source = f"the systemd credential {CREDENTIAL}"
            return _parse(_content(credential), self.source)
        if self._settings.key_file is not None:
            self.path = self._settings.key_file
            self.source = str(self.path)
            return _parse(_content(self.path), self.source)
        if self._settings.key is not None:
            self.source = "the setting vault.key (COHORTD_VAULT_KEY)"
            return _parse(self._settings.key.get_secret_value(), self.source)
        self.path = self._own
        self.source = str(self._own)
        if not self._own.exists() and self._makes:
            _write(self._own, [Key(secrets.token_bytes(KEY_BYTES))])
            log.get().warning("vault_key_made", path=str(self._own))
        return _parse(_content(self._own), self.source)


def _tell_exposed(path: Path) -> None:
    with suppress(OSError):  # not there
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            log.get().warning("vault_key_exposed", path=str(path), mode=f"{mode:o}")


def _parse(text: str, source: str) -> list[Key]:
    """Reads keys; an error names the line, never what stands there."""
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            continue
        for word in line.replace(",", " ").split():  # several in one line: an environment variable has but one
            content = _decode(word)
            if content is None or len(content) != KEY_BYTES:
                raise VaultError(
                    f"{source}, line {number}: not a key; a key is {KEY_BYTES} bytes as base64, as `openssl rand "
                    f"-base64 {KEY_BYTES}` prints them"
                )
            keys.append(Key(content))
    if not keys:
        raise VaultError(f"{source}: there is no key in it; `openssl rand -base64 {KEY_BYTES}` prints one")
    return list({key.id: key for key in keys}.values())


def _decode(word: str) -> bytes | None:
    if len(word) == KEY_BYTES * 2:
        try:
            return bytes.fromhex(word)
        except ValueError:
            return None
    try:
        return base64.b64decode(word.translate({ord("-"): "+", ord("_"): "/"}), validate=True)
    except binascii.Error:
        return None


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise VaultError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) > LARGEST_BYTES:
        raise VaultError(f"{path} has more than {LARGEST_BYTES} bytes, which is no file of keys")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise VaultError(f"{path} is not text") from None


def _write(path: Path, keys: Iterable[Key]) -> None:
    """Replaces the file in one step: whoever reads it, also after a power cut, finds the old keys or the new ones."""
    text = _HEADER + "".join(f"{base64.b64encode(key.content).decode()}\n" for key in keys)
    path = path.resolve()  # a link stays one
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise VaultError(f"{path} cannot be written: {error.strerror or error}") from error
