"""A file that holds disk space back: on a full disk SQLite cannot even delete, so this is given up first."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: Of a small disk the reserve takes at most this share.
_SHARE = 16


class Reserve:
    """`size_bytes` of disk beside the databases, less on a small disk."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._folder = folder
        self._path = folder / "reserve"
        disk = os.statvfs(folder)
        self.size_bytes = min(size_bytes, disk.f_blocks * disk.f_frsize // _SHARE)

    @property
    def held(self) -> bool:
        """Whether the space is held back now."""
        return self._path.exists()

    def room_bytes(self) -> int:
        """Gives what the disk has free for us, the reserve not counted."""
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def take(self) -> bool:
        """Holds the space back, when the disk has twice as much; says whether it is held."""
        if self.held:
            return True
        if self.room_bytes() < 2 * self.size_bytes:
            return False
        temporary = self._path.with_suffix(".new")
        try:
            with temporary.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, self.size_bytes))
            temporary.rename(self._path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return False
        return True

    def give_up(self) -> bool:
        """Frees the space; says whether there was some."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
