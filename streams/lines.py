"""Cuts a stream of bytes into lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

_BOM = b"\xef\xbb\xbf"


class Lines:
    """Cuts what is fed at newlines; `number` is the number (from 1) of the line that comes next.

    A line longer than `longest` bytes is given cut to one byte more than that, so that its reader can tell; the rest of
    it is skipped. A byte order mark at the start is left out. Carriage returns are left to the reader.
    """

    def __init__(self, longest: int) -> None:
        self.number = 1
        #: Bytes of what was fed up to the end of the last line that was given.
        self.consumed = 0
        self._fed = 0
        self._longest = longest
        self._rest = b""
        self._skipping = False
        self._begun = False

    @property
    def skipping(self) -> bool:
        """Whether what was fed last is within a line that is too long."""
        return self._skipping

    def feed(self, chunk: bytes) -> list[bytes]:
        """Gives the lines that end within `chunk`; afterwards `number` counts them."""
        self._fed += len(chunk)
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
        if lines:
            self.consumed = self._fed - len(self._rest)
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
        self.consumed = self._fed
        return [rest.removeprefix(_BOM) if not self._begun else rest]


def slice_end(lines: Sequence[bytes], at: int, most_lines: int, most_bytes: int) -> int:
    """Gives the end of a slice of lines from `at` with so many lines and about so many bytes, of one line at least."""
    end = min(at + most_lines, len(lines))
    if sum(map(len, lines[at:end])) <= most_bytes:
        return end
    size = 0
    for index in range(at, end):
        size += len(lines[index])
        if size > most_bytes:
            return index + 1
    return end
