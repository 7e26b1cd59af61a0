"""What the grammar alone does not say: functions and their arguments, kinds, merge operators, names."""

from __future__ import annotations

from difflib import get_close_matches

from streams.ql.nodes import Call


def call_problems(call: Call) -> list[tuple[int, str, str]]:
    """Gives what is wrong with one call by itself: place, message, hint. Arguments are not descended into."""
    return []
