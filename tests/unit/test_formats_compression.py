"""Packing and unpacking in steps."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.formats.compression import (
    STEP_BYTES,
    Packer,
    PackingError,
    Unpacker,
    unpacking_of,
)


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


def zipped(content: bytes, *, method: int = zipfile.ZIP_DEFLATED, names: tuple[str, ...] = ("a.csv",)) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as file:
        for name in names:
            file.writestr(name, b"" if name.endswith("/") else content)
    return sink.getvalue()


def unfile(compression, packed: bytes, size: int) -> bytes:
    unpacking = unpacking_of(compression)
    pieces = []
    for at in range(0, len(packed), size):
        pieces += unpacking.feed(packed[at : at + size])
    return b"".join([*pieces, *unpacking.end()])


@given(st.binary(max_size=500), st.integers(1, 600), st.sampled_from(["none", "gzip", "zip"]))
def test_what_we_pack_others_unpack_and_we_do_too(content, size, compression):
    packer = Packer(compression, "events.csv")
    packed = b"".join([packer.feed(content[:100]), packer.feed(content[100:]), packer.end()])

    assert unfile(compression, packed, size) == content
    if compression == "gzip":
        assert gzip.decompress(packed) == content
    if compression == "zip":
        with zipfile.ZipFile(io.BytesIO(packed)) as file:
            assert file.testzip() is None
            assert file.read("events.csv") == content


@given(st.binary(max_size=500), st.integers(1, 600), st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]))
def test_zip_files_of_others_are_read_as_they_come(content, size, method):
    packed = zipped(content, method=method, names=("folder/", "folder/a.csv", "__MACOSX/._a.csv"))

    assert unfile("zip", packed, size) == content


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (zipped(b"a", names=("a.csv", "b.csv")), "'a.csv' and 'b.csv'; one file is accepted"),
        (zipped(b"", names=("a/",)), "holds no file"),
        (zipped(b"a" * 100)[:40], "not complete"),
        (zipped(b"abc", method=zipfile.ZIP_STORED).replace(b"abc", b"abd"), "check sum"),
        (zipped(b"a", method=zipfile.ZIP_BZIP2), "method 12; accepted is deflate"),
        (b"what is this, then?" * 3, "not zip"),
    ],
    ids=["two", "none", "cut", "damaged", "bzip2", "other"],
)
def test_a_zip_file_that_cannot_be_read_says_why(packed, words):
    with pytest.raises(PackingError, match=words):
        unfile("zip", packed, 5)


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_are_unzipped_or_refused(content):
    for start in (b"", b"PK\x03\x04"):
        try:
            unfile("zip", start + content, 7)
        except PackingError:
            continue


@pytest.mark.parametrize("compression", ["gzip", "zip"])
def test_a_bomb_is_told_from_data(compression):
    packer = Packer(compression, "a")
    bomb = b"".join([*(packer.feed(bytes(1 << 20)) for _ in range(80)), packer.end()])

    with pytest.raises(PackingError, match="no data packs to less"):
        unfile(compression, bomb, 1 << 16)


@pytest.mark.parametrize("compression", ["none", "gzip", "zip"])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_packer_knows_how_large_it_becomes_at_most(compression, sealed):
    class Seal:
        """Holds all back until the end, and adds what encrypting may."""

        def __init__(self):
            self.held = b""

        def feed(self, data):
            self.held += data
            return b""

        def end(self):
            return b"k" * 4096 + self.held + b"l" * (len(self.held) // 512)

        def close(self):
            pass

    noise = random.Random(1)
    for count in (1, 3, 20):
        packer = Packer(compression, "rows.csv", then=Seal() if sealed else None)
        given = b""
        for _ in range(count):
            given += packer.feed(noise.randbytes(noise.randrange(1, 60_000)))
        most = packer.size
        given += packer.end()

        assert len(given) <= most <= len(given) + 200_000
