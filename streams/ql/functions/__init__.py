"""The functions of the languages, by name.

Each module declares the functions of one area; importing this package registers them all.
"""

from __future__ import annotations

from streams.ql.functions import agents, formats, hashing, lists, logic, numbers, text, times, urls
from streams.ql.functions.registry import FUNCTIONS, Constant, Example, Function, example, function

__all__ = [
    "FUNCTIONS",
    "Constant",
    "Example",
    "Function",
    "agents",
    "example",
    "formats",
    "function",
    "hashing",
    "lists",
    "logic",
    "numbers",
    "text",
    "times",
    "urls",
]
