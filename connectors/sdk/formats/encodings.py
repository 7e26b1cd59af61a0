"""Text of any encoding into UTF-8, as it comes. A byte order mark says more than what was configured."""

from __future__ import annotations

import codecs
from typing import Final

#: Marks at the start of a text; the longer ones first, since one begins like another.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST: Final = 4


class EncodingError(ValueError):
    """Bytes that are no text of the encoding."""


def encoding_of(name: str) -> str:
    """Gives the encoding's usual name. Raises ValueError for one that there is not, or that is none of text."""
    try:
        found = codecs.lookup(name)
        "a".encode(name)
    except (LookupError, UnicodeError, ValueError):
        raise ValueError(
            f"encoding {name[:100]!r} is not known; for example utf-8, utf-16, latin-1, windows-1252 are"
        ) from None
    return found.name


def mark_of(start: bytes) -> tuple[bytes, str] | None:
    """Gives the byte order mark at the start of a text (its first 4 bytes at least), and the encoding it stands for."""
    return next((each for each in _MARKS if start.startswith(each[0])), None)


class Transcoder:
    """Gives UTF-8, without a mark at its start, of bytes in `encoding`.

    What claims to be UTF-8 passes as it is, valid or not: its reader can say which row is not.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._start: bytes | None = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def feed(self, chunk: bytes, *, last: bool = False) -> bytes:
        """Gives what `chunk` brings. Raises EncodingError."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < _LONGEST and not last:
                self._start = chunk
                return b""
            self._start = None
            chunk = self._begin(chunk)
        if self._decoder is None:
            return chunk
        try:
            text = self._decoder.decode(chunk, last)
            return text.encode("utf-8", "surrogateescape")
        except UnicodeError as error:
            raise EncodingError(f"the text is not valid {self._encoding}: {error}") from None

    def _begin(self, chunk: bytes) -> bytes:
        if found := mark_of(chunk):
            mark, self._encoding = found
            chunk = chunk[len(mark) :]
        if self._encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(self._encoding)("surrogateescape")
        return chunk
