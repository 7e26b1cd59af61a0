"""The C library's heaps: one for all threads."""

from __future__ import annotations

import ctypes
from typing import Final

#: `mallopt`'s parameter for the number of heaps, from glibc's malloc.h.
_M_ARENA_MAX: Final = -8


def use_one_heap() -> bool:
    """Lets all threads share one heap from now on; says whether the C library can do that (glibc can).

    Otherwise each thread gets one of its own, up to eight a core, and what one of them frees the others cannot use:
    a tenth of the daemon's memory after a million events. Call it before threads are started.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_ARENA_MAX, 1))
