"""The C library's heap: one for all threads, which gives memory back in large pieces only."""

from __future__ import annotations

import ctypes
from typing import Final

#: `mallopt`'s parameters, by their numbers in glibc's malloc.h, and what they are set to: one heap; how many free bytes
#: at its end are kept; how many more than needed it asks for. Without the last two each batch of rows gives the heap's
#: end back and asks for it again, page by page, which is a fifth of what an import costs.
_OPTIONS: Final = {-8: 1, -1: 32 * 1024 * 1024, -2: 1024 * 1024}  # M_ARENA_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def use_one_heap() -> bool:
    """Lets all threads share one heap from now on; says whether the C library can do that (glibc can).

    Otherwise each thread gets one of its own, up to eight a core, and what one of them frees the others cannot use:
    a tenth of the daemon's memory after a million events. Call it before threads are started.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(option, value) for option, value in _OPTIONS.items())
