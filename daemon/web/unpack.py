"""Unpacks gzip and deflate bodies as they come, in bounded steps, however much they expand to."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

#: Largest piece given at a time, in bytes.
STEP_BYTES = 256 * 1024

#: What Content-Encoding may say; the empty text stands for nothing said.
PACKINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})

#: How a gzip file begins.
GZIP_START = b"\x1f\x8b"

_GZIP = zlib.MAX_WBITS | 16


class PackingError(ValueError):
    """A body that is not what its Content-Encoding says, or not complete."""


class Unpacker:
    """Unpacks a body in one of PACKINGS; what is not packed passes as it is."""

    def __init__(self, packing: str) -> None:
        self._packing = packing.removeprefix("x-").replace("identity", "")
        self._packed: zlib._Decompress | None = None
        self._start = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yields what `chunk` brings. Raises PackingError."""
        if not self._packing:
            if chunk:
                yield chunk
            return
        if self._packed is None:
            self._start += chunk
            if len(self._start) < 2:
                return
            chunk, self._start = self._start, b""
            self._packed = zlib.decompressobj(self._window(chunk))
        while chunk:
            try:
                piece = self._packed.decompress(chunk, STEP_BYTES)
            except zlib.error as error:
                raise PackingError(f"not {self._packing}: {error}") from None
            if piece:
                yield piece
            chunk = self._packed.unconsumed_tail
            if self._packed.eof:
                # A gzip file may be several, one after the other, and be filled up with zeros.
                chunk = self._packed.unused_data.lstrip(b"\0") if self._packing == "gzip" else b""
                if chunk:
                    self._packed = zlib.decompressobj(_GZIP)
            elif not piece and not chunk:
                return

    def end(self) -> Iterator[bytes]:
        """Yields what is left. Raises PackingError when the body is not complete."""
        if self._packed is None:
            if self._start:
                raise PackingError(f"the {self._packing} body is not complete")
            return
        while not self._packed.eof:
            try:
                piece = self._packed.decompress(b"", STEP_BYTES)
            except zlib.error as error:
                raise PackingError(f"not {self._packing}: {error}") from None
            if not piece:
                raise PackingError(f"the {self._packing} body is not complete")
            yield piece

    def _window(self, start: bytes) -> int:
        if self._packing == "gzip":
            return _GZIP
        # "deflate" is zlib's form by the standard, and the bare one by what some send.
        wrapped = start[0] & 0x0F == 8 and (start[0] << 8 | start[1]) % 31 == 0
        return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS
