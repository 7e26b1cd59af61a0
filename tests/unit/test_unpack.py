"""Bodies unpacked in steps."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.web.unpack import STEP_BYTES, PackingError, Unpacker


def unpack(packing: str, content: bytes, size: int) -> bytes:
    unpacker = Unpacker(packing)
    pieces = []
    for at in range(0, len(content), size):
        pieces += unpacker.feed(content[at : at + size])
    pieces += unpacker.end()
    assert all(0 < len(piece) <= max(STEP_BYTES, size) for piece in pieces)
    return b"".join(pieces)


def bare(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


WAYS = [("", bytes), ("identity", bytes), ("gzip", gzip.compress), ("x-gzip", gzip.compress)]
WAYS += [("deflate", zlib.compress), ("deflate", bare)]


@given(st.binary(max_size=500), st.integers(1, 600), st.sampled_from(WAYS))
def test_what_was_packed_comes_out_however_it_is_cut(content, size, way):
    packing, pack = way

    assert unpack(packing, pack(content), size) == content


@given(st.binary(min_size=1, max_size=200), st.integers(1, 300), st.sampled_from(WAYS[2:]))
def test_a_body_that_is_not_complete_is_told(content, size, way):
    packing, pack = way
    packed = pack(content)

    with pytest.raises(PackingError):
        unpack(packing, packed[:-1], size)


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_unpacked_or_refused(content):
    for packing in ("gzip", "deflate"):
        try:
            unpack(packing, content, 7)
        except PackingError:
            continue


def test_files_one_after_the_other_are_one_body():
    assert unpack("gzip", gzip.compress(b"a") + gzip.compress(b"b") + bytes(10), 3) == b"ab"


def test_what_expands_a_thousandfold_comes_in_steps():
    content = bytes(10 * STEP_BYTES)

    assert unpack("gzip", gzip.compress(content), 1 << 20) == content
