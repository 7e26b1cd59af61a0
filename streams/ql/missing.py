"""What a value is when there is none.

A leaf of the language core: `values` and `coerce` both build on it.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Final, TypeAlias, final

#: The value of a missing integer in the public code; data that passed through it still carries it.
NIL_INT: Final = -2147483648
#: The zero time of the systems that cohortd follows: no time at all.
_NO_YEAR: Final = 1


@final
class Missing:
    """The type of MISSING: absent, or not evaluable. There is one of it, and it is false."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"

    def __copy__(self) -> Missing:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Missing:
        return self

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()

#: str, int, float, bool, aware UTC datetime, list, dict with text keys, None (nil), or MISSING.
Value: TypeAlias = Any


def is_nil(value: Value) -> bool:
    """Says whether functions skip `value` as they skip a missing one (FACTS 2.3).

    True for MISSING, None, "", an empty list or map, NaN, the zero time and int -2147483648.
    """
    if value is None or value is MISSING:
        return True
    kind = type(value)
    if kind is str or kind is list or kind is dict:
        return not value
    if kind is float:
        return math.isnan(value)
    if kind is int:
        return bool(value == NIL_INT)
    if isinstance(value, datetime):
        return value.year == _NO_YEAR
    return False
