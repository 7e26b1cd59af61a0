"""The values of the languages, and how JSON becomes them."""

from __future__ import annotations

from streams.ql.missing import MISSING, Missing, Value, is_nil

__all__ = ["MISSING", "Missing", "Value", "is_nil"]
