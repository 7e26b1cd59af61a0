"""What a change of definitions, jobs or profiles may be refused with; the web replies 409 and 404."""

from __future__ import annotations


class Conflict(Exception):  # noqa: N818  (says what it is, as the web replies it)
    """A change that something else stands against; the message says what."""


class NotFound(Exception):  # noqa: N818  (says what it is, as the web replies it)
    """There is no such definition or profile; the message names it."""
