"""The delimiter of a CSV file, as its owner writes it down."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def delimiter_of(text: str) -> str:
    """Gives the delimiter meant: the first character counts, `t` alone is the tab, and nothing is the comma.

    Raises ValueError for what cannot divide values.
    """
    if text in {"t", "\\t"}:
        return "\t"
    found = text[:1] or ","
    if found in '"\r\n\0':
        raise ValueError(f"{found!r} cannot stand between values; one other character can, and t for the tab")
    return found


def _check(text: str) -> str:
    delimiter_of(text)
    return text


#: A delimiter in a configuration, as it was written.
Delimiter = Annotated[str, AfterValidator(_check)]
