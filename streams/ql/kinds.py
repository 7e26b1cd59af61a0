"""The kinds of fields (FACTS 2.2), by the names that queries and schemas use.

A kind says how a JSON value becomes a value of the language, how a field merges by default, and what the
compiler may take for granted. The names are text in schemas and on the wire; `Kind` is a `StrEnum`, so both
compare equal.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """A kind by its name on the wire."""

    INT = "int"
    NUMBER = "number"
    BOOL = "bool"
    DATE = "date"
    STRING = "string"
    STRINGS = "[]string"
    TIMES = "[]time"
    TS_STRINGS = "ts[]string"
    MAP_INT = "map[string]int"
    MAP_NUMBER = "map[string]number"
    MAP_STRING = "map[string]string"
    MAP_TIME = "map[string]time"
    MAP_BOOL = "map[string]bool"
    MAP_VALUE = "map[string]value"
    MAP_INTSUM = "map[string]intsum"
    TIMEBUCKETS = "[]timebucket"
    MEMBERSHIP = "membership"
    GEOLOCATION = "geolocation"
    EMBEDDING = "embedding"
    DYNAMIC = "dynamic"
    FLOWS = "flows"


SCALARS: Final = frozenset({Kind.INT, Kind.NUMBER, Kind.BOOL, Kind.DATE, Kind.STRING})

_ELEMENTS: Final[dict[str, Kind]] = {
    Kind.STRINGS: Kind.STRING,
    Kind.TS_STRINGS: Kind.STRING,
    Kind.MEMBERSHIP: Kind.STRING,
    Kind.TIMES: Kind.DATE,
    Kind.TIMEBUCKETS: Kind.DATE,
    Kind.EMBEDDING: Kind.NUMBER,
    Kind.MAP_INT: Kind.INT,
    Kind.MAP_INTSUM: Kind.INT,
    Kind.MAP_NUMBER: Kind.NUMBER,
    Kind.MAP_STRING: Kind.STRING,
    Kind.MAP_TIME: Kind.DATE,
    Kind.MAP_BOOL: Kind.BOOL,
    Kind.MAP_VALUE: Kind.DYNAMIC,
    Kind.FLOWS: Kind.DYNAMIC,
}
_MAPS: Final = frozenset(
    {
        Kind.MAP_INT,
        Kind.MAP_INTSUM,
        Kind.MAP_NUMBER,
        Kind.MAP_STRING,
        Kind.MAP_TIME,
        Kind.MAP_BOOL,
        Kind.MAP_VALUE,
        Kind.FLOWS,
    }
)
_LISTS: Final = frozenset(
    {Kind.STRINGS, Kind.TS_STRINGS, Kind.TIMES, Kind.TIMEBUCKETS, Kind.MEMBERSHIP, Kind.EMBEDDING}
)
_OTHER_SPELLINGS: Final = {
    "time": Kind.DATE,
    "datetime": Kind.DATE,
    "timestamp": Kind.DATE,
    "text": Kind.STRING,
    "float": Kind.NUMBER,
}


def kind_named(name: str) -> Kind | None:
    """Gives the kind of a name, whatever its case, or None when there is no such kind.

    `time`, `datetime` and `timestamp` are taken for `date`, `text` for `string`, `float` for `number`.
    """
    lowered = name.strip().lower()
    if lowered in _OTHER_SPELLINGS:
        return _OTHER_SPELLINGS[lowered]
    try:
        return Kind(lowered)
    except ValueError:
        return None


def is_map(kind: str) -> bool:
    """Says whether values of this kind are maps with text keys."""
    return kind in _MAPS


def is_list(kind: str) -> bool:
    """Says whether values of this kind are lists."""
    return kind in _LISTS


def element(kind: str) -> Kind | None:
    """Gives the kind of a list's elements or of a map's values; None for a kind that has none."""
    return _ELEMENTS.get(kind)
