"""Blobs that appear in a container whole: staged block by block, and committed at once.

A block goes up while the next one is made, and no more than these two are in memory. Blocks have names of the run's
own: what a run left behind, or what is still on its way when the next one begins, is never part of a later blob; Azure
forgets it after a week. Blocks grow with the file, so that it never needs more of them than Azure takes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from connectors.azure.blobs import Blobs
from connectors.sdk.errors import ConfigError, TransientError, gravest
from connectors.sdk.formats.compression import Packer
from connectors.sdk.formats.pgp import Encryptor, PgpError
from connectors.sdk.threads import Threaded

#: Bytes of a block: of the first ones, and of the largest.
BLOCK_BYTES: Final = 1024 * 1024
LARGEST_BLOCK: Final = 16 * 1024 * 1024
#: A file has about so many blocks before they grow: 512 GB are about 36,000 blocks of the 50,000 that a blob may have.
GROW_AFTER: Final = 1024
#: The largest blob that is written.
LARGEST_BLOB: Final = 512 * 1024**3

_TYPES: Final = {
    ".csv": "text/csv; charset=utf-8",
    ".ndjson": "application/x-ndjson",
    ".gz": "application/gzip",
    ".zip": "application/zip",
    Encryptor.ENDING: "application/pgp-encrypted",
}


@asynccontextmanager
async def opened_output(blobs: Blobs, container: str) -> AsyncIterator[BlobOutput]:
    """Opens a container to write into, and lets go of what is not finished on leaving. ConfigError: it is not there."""
    if await blobs.exists(container) is False:
        raise ConfigError(await blobs.without(container))
    try:
        async with asyncio.TaskGroup() as group:
            output = BlobOutput(blobs, container, group)
            try:
                yield output
            finally:
                output.discard()
    except BaseExceptionGroup as errors:
        raise gravest(errors) from None


class BlobOutput:
    """A container and the blob that is being written into it; see `connectors.sdk.files.output.Output`.

    Made by `opened_output`. Packing is in threads, one at a time.
    """

    def __init__(self, blobs: Blobs, container: str, group: asyncio.TaskGroup) -> None:
        self._blobs = blobs
        self._container = container
        self._group = group
        self._run = secrets.token_hex(8)
        self._packer = Packer("none", "")
        self._threads = Threaded(self._close)
        self._writing = False
        self._buffer = bytearray()
        self._blocks: list[str] = []
        self._staged = 0  # bytes
        self._under_way: asyncio.Task[None] | None = None
        self.name = ""

    @property
    def size(self) -> int:
        """Bytes of the blob if it were finished now, at most."""
        return self._packer.size

    @property
    def writing(self) -> bool:
        """Whether a blob was begun and is not finished."""
        return self._writing

    @property
    def busy(self) -> bool:
        """Whether a thread is at work that nobody waits for."""
        return self._threads.busy

    async def prepare(self) -> None:
        """Does nothing: the container was looked for, and what a crash left is never seen."""

    async def begin(self, name: str, packer: Packer | None = None) -> None:
        """Begins the blob that will be called `name`; `packer` packs what is written."""
        self.name, self._packer = name, packer or Packer("none", name)
        self._buffer.clear()
        self._blocks, self._staged, self._writing = [], 0, True

    async def write(self, content: bytes | Callable[[], bytes]) -> None:
        """Appends to the blob, what is there or what is made in the thread."""

        def pack() -> bytes:
            return self._packer.feed(content if isinstance(content, bytes) else content())

        if isinstance(content, bytes) and self._packer.passes:
            self._buffer += self._packer.feed(content)
        else:
            self._buffer += await self._packed(pack)
        await self._stage_whole()

    async def finish(self) -> tuple[str, int]:
        """Makes the blob appear, whole and durable, in place of one of the same name; gives its name and size."""
        self._buffer += await self._packed(self._packer.end)
        await self._stage_whole()  # what encrypts gives some megabytes at a time
        if self._buffer:
            await self._stage(bytes(self._buffer))
            self._buffer.clear()
        await self._arrived()
        await self._blobs.commit(self._container, self.name, self._blocks, _type_of(self.name))
        self._packer.close()
        self._writing = False
        return self.name, self._staged

    def discard(self) -> None:
        """Lets go of a blob that was not finished; its blocks are never seen."""
        self._packer.close()
        self._threads.end()
        if self._under_way is not None:
            self._under_way.cancel()

    @property
    def _block_bytes(self) -> int:
        return min(max(BLOCK_BYTES, self._staged // GROW_AFTER), LARGEST_BLOCK)

    async def _packed(self, work: Callable[[], bytes]) -> bytes:
        try:
            return await self._threads.call(work)
        except PgpError as error:
            raise ConfigError(f"pgp_public_key: {error}") from error
        except OSError as error:
            raise TransientError(f"{self.name} could not be packed: {error}") from error

    async def _stage_whole(self) -> None:
        """Sends off what fills blocks."""
        while len(self._buffer) >= (size := self._block_bytes):
            block = bytes(memoryview(self._buffer)[:size])
            del self._buffer[:size]
            await self._stage(block)

    async def _stage(self, content: bytes) -> None:
        """Sends a block off, when the one before has arrived."""
        await self._arrived()
        block = f"{self._run}-{len(self._blocks):06d}"
        self._blocks.append(block)
        self._staged += len(content)
        self._under_way = self._group.create_task(self._blobs.stage(self._container, self.name, block, content))

    async def _arrived(self) -> None:
        """Waits for the block that is on its way. What goes wrong with it ends the scope of `opened_output`."""
        if self._under_way is not None:
            await self._under_way
            self._under_way = None

    def _close(self) -> None:
        self._buffer.clear()


def _type_of(name: str) -> str:
    return next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), "application/octet-stream")
