"""Packs and unpacks as the bytes come, in bounded steps, however much they expand to: gzip, deflate, and zip files.

What a zip file holds is read from its beginning, as it arrives, so that it need not be there whole; it must hold one
file. Nothing here waits for anything: large work belongs into a thread.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from typing import Final, Literal, Protocol

Compression = Literal["none", "gzip", "zip"]

#: Largest piece given at a time, in bytes.
STEP_BYTES: Final = 256 * 1024

#: What Content-Encoding may say; the empty text stands for nothing said.
PACKINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})

#: How a gzip file begins.
GZIP_START = b"\x1f\x8b"

_GZIP = zlib.MAX_WBITS | 16


class PackingError(ValueError):
    """Something that is not packed as was said, is damaged, or is not complete."""


class Unpacking(Protocol):
    """Takes packed bytes piece by piece."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yields what `chunk` brings. Raises PackingError."""

    def end(self) -> Iterator[bytes]:
        """Yields what is left. Raises PackingError when it is not complete."""


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


#: How much more than its packed size something may unpack to, once it is beyond BOMB_BYTES. Text packs to a tenth or
#: a twentieth; a thousand times is what deflate reaches with nothing but zeros.
BOMB_RATIO: Final = 250
BOMB_BYTES: Final = 64 * 1024 * 1024

#: How a zip file begins: with its first file, or with its end when it is empty.
ZIP_STARTS: Final = (b"PK\x03\x04", b"PK\x05\x06")

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_LONGEST_NAME: Final = 4096


def unpacking_of(compression: Compression) -> Unpacking:
    """Gives what unpacks a file packed so, within the bounds of what is no bomb."""
    match compression:
        case "zip":
            return Bounded(Unzipper())
        case "gzip":
            return Bounded(Unpacker("gzip"))
        case "none":
            return Unpacker("")


class Bounded:
    """Refuses what unpacks to unreasonably more than came: PackingError."""

    def __init__(self, inner: Unpacking) -> None:
        self._inner = inner
        self._packed = 0
        self._unpacked = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yields what `chunk` brings."""
        self._packed += len(chunk)
        yield from self._checked(self._inner.feed(chunk))

    def end(self) -> Iterator[bytes]:
        """Yields what is left."""
        yield from self._checked(self._inner.end())

    def _checked(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._unpacked += len(piece)
            if self._unpacked > max(BOMB_BYTES, self._packed * BOMB_RATIO):
                raise PackingError(
                    f"{self._packed} bytes unpack to {self._unpacked} and more: no data packs to less than one part in "
                    f"{BOMB_RATIO}; unpack the file where it comes from, if it is meant so"
                )
            yield piece


class Unzipper:
    """Unpacks the one file that a zip file holds, from the beginning on. Folders, and what macOS adds, are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._state: Literal["head", "body", "left_out", "stored", "mark", "over"] = "head"
        self._packed: zlib._Decompress | None = None
        self._found = ""
        self._taking = False
        self._crc = 0
        self._length = 0
        self._left = 0
        self._head = (0, 0, 0)  # flags, crc, length

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yields what `chunk` brings. Raises PackingError."""
        self._rest += chunk
        moved = True
        while moved:
            match self._state:
                case "head":
                    moved = self._read_head()
                case "body":
                    moved = yield from self._inflate()
                case "stored":
                    moved = yield from self._copy()
                case "mark":
                    moved = self._read_mark()
                case _:
                    self._rest = b""
                    moved = False

    def end(self) -> Iterator[bytes]:
        """Raises PackingError when the file is not complete, or holds nothing."""
        if self._state != "over":
            raise PackingError("the zip file is not complete")
        if not self._found:
            raise PackingError("the zip file holds no file")
        return iter(())

    def _read_head(self) -> bool:
        if len(self._rest) < 4:
            return False
        mark = self._rest[:4]
        if mark in {b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x08", b"PK\x06\x06"}:
            self._state = "over"  # the directory at the end says nothing new
            return True
        if mark != ZIP_STARTS[0]:
            raise PackingError("not zip: a file within it does not begin where it should")
        if len(self._rest) < _LOCAL.size:
            return False
        _, _, flags, method, _, _, crc, packed, length, name_bytes, extra_bytes = _LOCAL.unpack_from(self._rest)
        whole = _LOCAL.size + name_bytes + extra_bytes
        if name_bytes > _LONGEST_NAME:
            raise PackingError("not zip: the name of a file within it is too long")
        if len(self._rest) < whole:
            return False
        name = self._rest[_LOCAL.size : _LOCAL.size + name_bytes].decode("utf-8", "backslashreplace")
        extra = self._rest[_LOCAL.size + name_bytes : whole]
        self._rest = self._rest[whole:]
        self._begin(name, flags, method, (crc, packed, length), extra)
        return True

    def _begin(self, name: str, flags: int, method: int, sizes: tuple[int, int, int], extra: bytes) -> None:
        crc, packed, length = sizes
        if flags & 1:
            raise PackingError(f"{name!r} in the zip file is encrypted; unencrypted ones are accepted")
        if length == 0xFFFFFFFF or packed == 0xFFFFFFFF:
            length, packed = _large_sizes(extra, length, packed)
        self._taking = not name.endswith("/") and not name.startswith("__MACOSX/")
        if self._taking and self._found:
            raise PackingError(f"the zip file holds {self._found!r} and {name!r}; one file is accepted")
        if self._taking:
            self._found = name
        self._head = (flags, crc, length)
        self._crc = self._length = 0
        if method == zipfile.ZIP_DEFLATED:
            self._packed = zlib.decompressobj(-zlib.MAX_WBITS)
            self._state = "body"
        elif method == zipfile.ZIP_STORED and not flags & 8:
            self._left = packed
            self._state = "stored"
        else:
            raise PackingError(f"{name!r} in the zip file is packed by method {method}; accepted is deflate")

    def _inflate(self) -> Generator[bytes, None, bool]:
        packed = self._packed
        assert packed is not None  # noqa: S101  (set with the state)
        while self._rest:
            try:
                piece = packed.decompress(self._rest, STEP_BYTES)
            except zlib.error as error:
                raise PackingError(f"not zip: {error}") from None
            self._rest = packed.unused_data if packed.eof else packed.unconsumed_tail
            if piece:
                self._note(piece)
                if self._taking:
                    yield piece
            if packed.eof:
                self._packed = None
                self._state = "mark"
                return True
            if not piece and not self._rest:
                break
        return False

    def _copy(self) -> Generator[bytes, None, bool]:
        while self._left and self._rest:
            piece = self._rest[: min(self._left, STEP_BYTES)]
            self._rest = self._rest[len(piece) :]
            self._left -= len(piece)
            self._note(piece)
            if self._taking:
                yield piece
        if self._left:
            return False
        self._state = "mark"
        return True

    def _read_mark(self) -> bool:
        """Compares what came with what the file says, in front of it or behind."""
        flags, crc, length = self._head
        if flags & 8:
            # With or without a signature, sizes of 4 or of 8 bytes: what fits what was unpacked.
            if len(self._rest) < 24:
                found = self._mark_size(self._rest + bytes(24))
                if found is None or len(self._rest) < found + 4:  # the next file, or the directory, follows it
                    return False
            found = self._mark_size(self._rest)
            if found is None:
                raise PackingError(f"{self._found!r} in the zip file is damaged: its check sum does not fit")
            self._rest = self._rest[found:]
        elif (crc, length) != (self._crc, self._length):
            raise PackingError(f"{self._found!r} in the zip file is damaged: its check sum does not fit")
        self._state = "head"
        return True

    def _mark_size(self, text: bytes) -> int | None:
        at = 4 if text[:4] == b"PK\x07\x08" else 0
        if struct.unpack_from("<I", text, at)[0] != self._crc:
            return None
        for form, size in (("<4xQQ", 20), ("<4xII", 12)):
            if len(text) >= at + size and struct.unpack_from(form, text, at)[1] == self._length:
                return at + size
        return None

    def _note(self, piece: bytes) -> None:
        self._crc = zlib.crc32(piece, self._crc)
        self._length += len(piece)


class Stage(Protocol):
    """What packed bytes go through before they are written: encryption."""

    def feed(self, data: bytes) -> bytes:
        """Gives what can be written by now."""

    def end(self) -> bytes:
        """Gives the rest."""

    def close(self) -> None:
        """Lets go of what it holds, at any time and from any thread; again, it does nothing."""


#: What a `Packer` may hold back, whatever it was fed, and what its end may add, in bytes.
_HELD: Final = 64 * 1024
_TRAILER: Final = 512
#: What a stage behind it may add: at the ends, and for each piece.
_SEAL: Final = 4096
_SEALED: Final = 512


class Packer:
    """Packs what is fed; `feed` and `end` give what is to be written. `name` is that of the file within a zip file.

    The same content gives the same bytes: no time stands in them. With `then` what is packed goes through that too, and
    `close` must be called at the end, whatever that is.
    """

    def __init__(self, compression: Compression, name: str, then: Stage | None = None) -> None:
        self._then = then
        self._packs = compression != "none"
        self._given = 0  # bytes that came out of packing
        self._fed = 0  # bytes fed of which not all may have come out
        self._gzip = zlib.compressobj(wbits=_GZIP) if compression == "gzip" else None
        self._sink = _Sink()
        self._zip: zipfile.ZipFile | None = None
        if compression == "zip":
            self._zip = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED)
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            self._entry = self._zip.open(entry, "w", force_zip64=True)

    @property
    def passes(self) -> bool:
        """Whether what it is fed passes as it is, in no time."""
        return not self._packs and self._then is None

    @property
    def size(self) -> int:
        """How many bytes all that was fed becomes, at most, if it ends now."""
        size = self._given
        if self._packs and size + self._fed:
            size += min(self._fed, _HELD) + _TRAILER
        if self._then is not None:
            size += _SEAL + size // _SEALED
        return size

    def feed(self, data: bytes) -> bytes:
        """Gives what can be written by now."""
        packed = self._packed(data)
        self._given += len(packed)
        self._fed = len(data) if packed else self._fed + len(data)
        return packed if self._then is None or not packed else self._then.feed(packed)

    def end(self) -> bytes:
        """Gives the rest."""
        rest = self._rest()
        self._given += len(rest)
        return rest if self._then is None else self._then.feed(rest) + self._then.end()

    def close(self) -> None:
        """Lets go of what stands behind it, at any time and from any thread."""
        if self._then is not None:
            self._then.close()

    def _packed(self, data: bytes) -> bytes:
        if self._gzip is not None:
            return self._gzip.compress(data)
        if self._zip is None:
            return data
        self._entry.write(data)
        return self._sink.taken()

    def _rest(self) -> bytes:
        if self._gzip is not None:
            return self._gzip.flush()
        if self._zip is None:
            return b""
        self._entry.close()
        self._zip.close()
        return self._sink.taken()


class _Sink(io.RawIOBase):
    """A file that cannot be sought in, and hands on what was written."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _large_sizes(extra: bytes, length: int, packed: int) -> tuple[int, int]:
    """Reads sizes beyond 4 GB, which stand in an extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1 and size >= 16:
            length, packed = struct.unpack_from("<QQ", extra, at + 4)
            break
        at += 4 + size
    return length, packed
