"""A container as a shelf of files: each is read range by range, of one ETag alone, and decrypted where it is encrypted.

Of a plain blob the next range is on its way while the one before becomes rows. One that is encrypted with PGP is
decrypted whole, into a file without a name, before its first row is given: until then nobody knows that it is genuine.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import anyio

from connectors.azure.blobs import Blobs
from connectors.azure.listing import Blob
from connectors.azure.refusals import BlobChangedError, BlobMissingError
from connectors.azure.storage import StorageCredentials
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.files.source import Found, Identity, TouchedError
from connectors.sdk.formats.pgp import Decryptor, PgpError, ProcessEndedError, check_keys
from connectors.sdk.threads import Threaded

#: Bytes asked for at a time; of one blob there are twice as many in memory at most.
RANGE_BYTES: Final = 2 * 1024 * 1024
#: Bytes that are asked for first: what a blob begins with, and all of a small one.
FIRST_BYTES: Final = 64 * 1024
#: Bytes that become rows at a time.
PIECE_BYTES: Final = 256 * 1024
#: How long a request that nobody waits for any more may take to end, in seconds.
END_S: Final = 1.0
#: How often it is told how much is decrypted, in bytes.
TELL_BYTES: Final = 32 * 1024 * 1024

T = TypeVar("T")

#: An encrypted message: armoured, or with the packet of a session key at its start (RFC 9580, 4.2, 5.1 and 5.3).
_ARMOUR: Final = b"-----BEGIN PGP MESSAGE-----"
_LENGTH: Final = rb"(?:[\x00-\xbf]|[\xc0-\xdf].|\xff.{4})"
_SESSION_KEY: Final = re.compile(
    rb"(?:\x84.|\x85..|\x86.{4}|\xc1" + _LENGTH + rb")[\x03\x06]"
    rb"|(?:\x8c.|\x8d..|\x8e.{4}|\xc3" + _LENGTH + rb")[\x04\x05\x06]",
    re.DOTALL,
)


class ContainerShelf:
    """The blobs of a container; see `connectors.sdk.files.source.Shelf`.

    spool: folder for what is decrypted. tell: shows how far that is.
    """

    def __init__(
        self,
        blobs: Blobs,
        container: str,
        auth: StorageCredentials,
        *,
        spool: Path,
        now_us: Callable[[], int],
        tell: Callable[[str], Awaitable[None]],
    ) -> None:
        self._blobs = blobs
        self._container = container
        self._auth = auth
        self._spool = spool
        self._now_us = now_us
        self._tell = tell
        self._looked_at: Blob | None = None

    @property
    def where(self) -> str:
        """The container."""
        return f"container {self._container} of {self._blobs.account}"

    async def pages(self, prefix: str) -> AsyncIterator[Sequence[str]]:
        """Yields the names of blobs that begin so."""
        async for page in self._blobs.blobs(self._container, prefix):
            yield [each.name for each in page]

    async def look(self, name: str) -> Found:
        """Looks at a blob. Raises FileNotFoundError."""
        blob = self._looked_at = await self._properties(name)
        return Found(_identity(blob), blob.size, blob.modified_us / 1e6)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[OpenBlob | OpenMessage]:
        """Opens a blob, decrypted if need be. Raises FileNotFoundError, TouchedError."""
        blob, self._looked_at = self._looked_at, None
        if blob is None or blob.name != name:
            blob = await self._properties(name)
        opened = OpenBlob(self._blobs, self._container, blob)
        try:
            await opened.open()
            if not is_encrypted(opened.first):
                yield opened
                return
            async with self._decrypted(opened, name) as message:
                yield message
        finally:
            await opened.end()

    @asynccontextmanager
    async def _decrypted(self, opened: OpenBlob, name: str) -> AsyncIterator[OpenMessage]:
        auth = self._auth
        if auth.pgp_private_key is None:
            raise ConfigError(f"{name} is encrypted with PGP; put the private key into the authorization")
        key = auth.pgp_private_key.get_secret_value()
        passphrase = None if auth.pgp_passphrase is None else auth.pgp_passphrase.get_secret_value()
        try:
            await check_keys(private=key, passphrase=passphrase, now_us=self._now_us())
        except PgpError as error:
            raise AuthError(f"the PGP key of the authorization cannot decrypt: {error}") from None
        except ProcessEndedError as error:
            raise TransientError(f"{name}: {error}") from error
        message = OpenMessage(opened, Decryptor(key, passphrase, self._spool, now_us=self._now_us()), name, self._tell)
        try:
            await message.open()
            yield message
        finally:
            message.end()

    async def _properties(self, name: str) -> Blob:
        try:
            return await self._blobs.properties(self._container, name)
        except BlobMissingError as error:
            raise FileNotFoundError(str(error)) from error


class OpenBlob:
    """One state of a blob, as it lies there; see `connectors.sdk.files.source.Opened`."""

    seekable = True

    def __init__(self, blobs: Blobs, container: str, blob: Blob) -> None:
        self._blobs = blobs
        self._container = container
        self._blob = blob
        self._range = b""
        self._at = 0  # in the range
        self._next = 0  # where the next range begins
        self._coming: asyncio.Task[bytes] | None = None
        self.identity: Identity = _identity(blob)
        #: The first FIRST_BYTES.
        self.first = b""

    @property
    def size(self) -> int:
        """Its bytes."""
        return self._blob.size

    @property
    def head(self) -> bytes:
        """How it begins."""
        return self.first[:4]

    async def open(self) -> None:
        """Reads how it begins. Raises FileNotFoundError, TouchedError."""
        if self.size:
            self.first = await self._fetch(0, min(FIRST_BYTES, self.size))

    def begin(self, at: int, compared: int) -> None:
        """Says from where on it is read."""
        del compared  # whether it has grown or is another one is not told: an ETag of its own is another blob
        if at < len(self.first):
            self._range, self._at, self._next = self.first, at, len(self.first)
        else:
            self._range, self._at, self._next = b"", 0, at
        self._ask()

    async def read(self) -> bytes:
        """Gives the next piece, nothing at the end. Raises FileNotFoundError, TouchedError."""
        if self._at >= len(self._range):
            coming, self._coming = self._coming, None
            if coming is None:
                return b""
            self._range, self._at = await _result(coming), 0
            self._ask()
        piece = self._range[self._at : self._at + PIECE_BYTES]
        self._at += len(piece)
        return piece

    async def end(self) -> None:
        """Ends the request that is under way."""
        coming, self._coming = self._coming, None
        if coming is not None:
            await _ended(coming)

    def _ask(self) -> None:
        """Begins to fetch the next range, if there is one."""
        if self._next < self.size:
            length = min(RANGE_BYTES, self.size - self._next)
            self._coming = asyncio.ensure_future(self._fetch(self._next, length))
            self._next += length

    async def _fetch(self, offset: int, length: int) -> bytes:
        name = self._blob.name
        try:
            content = await self._blobs.read(self._container, name, offset, length, self._blob.etag)
        except BlobChangedError:
            raise TouchedError from None
        except BlobMissingError as error:
            raise FileNotFoundError(str(error)) from error
        if len(content) != length:
            raise TransientError(f"{name}: of {length} bytes asked for only {len(content)} came")
        return content


class OpenMessage:
    """The clear text of an encrypted blob; see `connectors.sdk.files.source.Opened`."""

    seekable = False

    def __init__(
        self, opened: OpenBlob, decryptor: Decryptor, name: str, tell: Callable[[str], Awaitable[None]]
    ) -> None:
        self._opened = opened
        self._decryptor = decryptor
        self._name = name
        self._tell = tell
        self._threads = Threaded(decryptor.close)
        self._pieces: Iterator[bytes] = iter(())
        self._first: bytes | None = None

    @property
    def identity(self) -> Identity:
        """That of the encrypted blob."""
        return self._opened.identity

    @property
    def head(self) -> bytes:
        """How the clear text begins."""
        return (self._first or b"")[:4]

    async def open(self) -> None:
        """Decrypts all of it. Raises PgpError, and what reading the blob raises."""
        done = told = 0
        self._opened.begin(0, 0)
        while piece := await self._opened.read():
            await self._call(lambda piece=piece: self._decryptor.feed(piece))  # type: ignore[misc]  # mypy infers no bound piece
            done += len(piece)
            if done - told >= TELL_BYTES:
                told = done
                await self._tell(f"decrypts {self._name}: {done:,} of {self._opened.size:,} bytes")
        self._pieces = await self._call(self._decryptor.end)
        self._first = await self._next()

    def begin(self, at: int, compared: int) -> None:
        """It is read from its beginning."""

    async def read(self) -> bytes:
        """Gives the next piece, nothing at the end."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._next()

    def end(self) -> None:
        """Ends the process, and lets go of the clear text."""
        self._decryptor.stop()
        self._threads.end()

    async def _next(self) -> bytes:
        return await self._call(lambda: next(self._pieces, b""))

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await self._threads.call(work)
        except OSError as error:  # of the process, or of the disk
            raise TransientError(f"{self._name}: {error}") from error


def is_encrypted(start: bytes) -> bool:
    """Says by how a file begins whether it is a message encrypted with PGP."""
    return start.lstrip().startswith(_ARMOUR) or _SESSION_KEY.match(start) is not None


def _identity(blob: Blob) -> Identity:
    return (blob.etag, blob.size)


async def _result(task: asyncio.Task[bytes]) -> bytes:
    """Gives what a task comes to; it does not outlive who waits for it."""
    try:
        return await task
    except asyncio.CancelledError:
        await _ended(task)
        raise


async def _ended(task: asyncio.Task[bytes]) -> None:
    task.cancel()
    with anyio.move_on_after(END_S, shield=True):
        await asyncio.wait([task])
    if task.done() and not task.cancelled():
        task.exception()  # nobody else asks for it
