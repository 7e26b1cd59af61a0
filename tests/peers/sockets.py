"""Which TCP sockets this process has open: a test that leaves one behind fails itself, not whichever comes later."""

from __future__ import annotations

import gc
import os
import socket
import warnings
from pathlib import Path


def tcp_sockets() -> dict[str, str]:
    """Gives the open TCP sockets: what the system calls them, and where they lead."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
            if not target.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as each:
                if each.family in (socket.AF_INET, socket.AF_INET6) and each.type == socket.SOCK_STREAM:
                    found[target] = repr(each)
        except OSError:  # closed meanwhile, by a thread
            continue
    return found


def left_open(before: dict[str, str]) -> list[str]:
    """Gives those that were opened since and that nobody closed, not even the garbage collection."""
    if tcp_sockets().keys() <= before.keys():
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return [each for target, each in tcp_sockets().items() if target not in before]
