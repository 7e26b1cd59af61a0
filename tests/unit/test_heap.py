"""One heap for all threads. In a process of its own: what was set cannot be taken back."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from daemon.heap import use_one_heap

if sys.argv[1] == "one" and not use_one_heap():
    sys.exit(77)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
there = threading.Barrier(9)

def work():
    libc.malloc(100_000)
    there.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for each in threads:
    each.start()
there.wait()
stdout = ctypes.c_void_p.in_dll(libc, "stdout")
libc.malloc_info(0, stdout)
libc.fflush(stdout)
for each in threads:
    each.join()
"""


@pytest.mark.parametrize(("how", "one"), [("one", True), ("as it is", False)])
def test_threads_share_one_heap(how, one):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 77 or "<malloc" not in done.stdout:
        pytest.skip("this C library has one heap, or does not tell")

    assert one == (len(re.findall("<heap nr=", done.stdout)) == 1)
