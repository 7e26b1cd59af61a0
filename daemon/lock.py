"""One daemon a data directory: an advisory lock on a file in it, which the kernel gives back however we end."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = "cohortd.lock"
ATTEMPTS = 10


class LockedError(RuntimeError):
    """Another daemon holds the data directory; the message names it."""


@contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Holds the data directory (made, private to its owner, where absent) while the block runs.

    Raises LockedError, naming the holder's process, when a daemon has it.
    """
    make(data_dir)
    descriptor = os.open(data_dir / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, data_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(data_dir: Path) -> int | None:
    """Gives the process id of the daemon that holds the data directory; None when none does."""
    try:
        descriptor = os.open(data_dir / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 100, 0).decode("utf-8", "replace").strip()
        return int(text) if text.isdecimal() else 0
    finally:
        os.close(descriptor)
    return None


def _take(descriptor: int, data_dir: Path) -> None:
    # `holder` takes the lock for an instant to see whether it is free, so one refusal proves nothing.
    for _ in range(ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return
    process = os.pread(descriptor, 100, 0).decode("utf-8", "replace").strip() or "unknown"
    raise LockedError(
        f"the data directory {data_dir} is held by another cohortd, process {process}: stop that one, or give this "
        "one a directory of its own with --data-dir"
    )


def make(data_dir: Path) -> None:
    """Makes the data directory, readable for its owner only, where there is none."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
