"""Cuts a stream of bytes into lines, in bounded memory."""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class Lines:
    """Cuts what is fed at newlines; `number` is the number (from 1) of the line that comes next.

    A line longer than `longest` bytes is given cut to one byte more than that, so that its reader can tell; the rest of
    it is skipped. A byte order mark at the start is left out. Carriage returns are left to the reader.
    """

    def __init__(self, longest: int) -> None:
        self.number = 1
        self._longest = longest
        self._rest = b""
        self._skipping = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Gives the lines that end within `chunk`; afterwards `number` counts them."""
        if not self._begun:
            chunk = self._rest + chunk
            self._rest = b""
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._rest = chunk
                return []
            self._begun = True
            chunk = chunk.removeprefix(_BOM)
        if self._skipping:
            end = chunk.find(b"\n")
            if end < 0:
                return []
            self._skipping = False
            chunk = self._rest + chunk[end:]
        elif self._rest:
            chunk = self._rest + chunk
        lines = chunk.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > self._longest:
            self._rest = self._rest[: self._longest + 1]
            self._skipping = True
        self.number += len(lines)
        return lines

    def end(self) -> list[bytes]:
        """Gives the last line where it does not end in a newline."""
        rest, self._rest = self._rest, b""
        if not rest:
            return []
        self.number += 1
        return [rest.removeprefix(_BOM) if not self._begun else rest]
