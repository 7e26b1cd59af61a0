"""What a change of definitions, jobs or profiles may be refused with; the web replies 409, 404 and 422."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Conflict(Exception):  # noqa: N818  (says what it is, as the web replies it)
    """A change that something else stands against; the message says what, `data` names it for programs."""

    def __init__(self, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.data = data


class NotFound(Exception):  # noqa: N818  (says what it is, as the web replies it)
    """There is no such definition or profile; the message names it."""


class Refused(ValueError):  # noqa: N818  (says what it is, as the web replies it)
    """Something that is not accepted as asked; `errors` has {loc, msg} for each finding."""

    def __init__(self, errors: Sequence[Mapping[str, Any]], message: str | None = None) -> None:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors)
        super().__init__(found if message is None else message)
        self.errors = list(errors)
