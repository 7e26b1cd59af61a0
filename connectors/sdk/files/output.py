"""Where exports write files: each appears whole and under its name, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from connectors.sdk.formats.compression import Compression, Packer, Stage
from connectors.sdk.formats.pgp import Encryptor

#: The largest file, in bytes, when nobody says.
LARGEST_FILE: Final = 5_368_709_120
#: Endings of files' names.
ENDINGS: Final[Mapping[Compression, str]] = {"none": "", "gzip": ".gz", "zip": ".zip"}


class Output(Protocol):
    """A store of files and the one that is being written into it; one call at a time.

    What it raises is told in its own words: ConfigError where it cannot be written to, TransientError otherwise.
    """

    @property
    def name(self) -> str:
        """The name of the file under way, or of the last one, as the store has it."""

    @property
    def size(self) -> int:
        """Bytes of the file so far, as they will lie in the store: never less than it has if it were finished now."""

    @property
    def writing(self) -> bool:
        """Whether a file was begun and is not finished."""

    @property
    def busy(self) -> bool:
        """Whether something is at work that nobody waits for any more."""

    async def prepare(self) -> None:
        """Makes sure that files can be written, and removes what a crash left unfinished."""

    async def begin(self, name: str, packer: Packer | None = None) -> None:
        """Begins the file that will be called `name`; `packer` packs what is written."""

    async def write(self, content: bytes | Callable[[], bytes]) -> None:
        """Appends to the file, what is there or what is made in a thread."""

    async def finish(self) -> tuple[str, int]:
        """Makes the file appear, whole and durable, in place of one of the same name; gives its name and size."""

    def discard(self) -> None:
        """Lets go of a file that was not finished, and of the store. Returns at once; again, it does nothing."""


def packed(name: str, compression: Compression, seal: Callable[[], Stage] | None = None) -> tuple[str, Packer]:
    """Gives a file's whole name and what packs it: compressed, then encrypted by what `seal` makes, if anything."""
    inner = name.rpartition("/")[2]
    if seal is None:
        return name + ENDINGS[compression], Packer(compression, inner)
    return name + ENDINGS[compression] + Encryptor.ENDING, Packer(compression, inner, then=seal())
