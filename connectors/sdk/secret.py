"""Secrets by reference: a configuration holds where a secret is, never the secret.

`env:NAME` is an environment variable of the daemon, `file:/path` the content of a file without its last line end,
`credential:name` a systemd credential. They are resolved when a run begins, and what they gave is not kept.
"""

from __future__ import annotations

import re
from typing import Annotated, final

from pydantic import AfterValidator, WithJsonSchema

PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+|credential:[A-Za-z0-9._-]+)$"
_REFERENCE = re.compile(PATTERN)
_LOOKS_LIKE = ("env:", "file:", "credential:")


def is_reference(text: str) -> bool:
    """Tells whether `text` is meant as a reference, well-formed or not."""
    return text.startswith(_LOOKS_LIKE)


def check_reference(text: str) -> str:
    """Gives `text` back when it is a reference, else raises ValueError, without repeating what may be a secret."""
    if not _REFERENCE.match(text):
        raise ValueError("a secret is given by reference: env:NAME, file:/path or credential:name")
    return text


SecretReference = Annotated[
    str,
    AfterValidator(check_reference),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "format": "secret-reference"}),
]


@final
class Secret:
    """A secret's text. It shows itself as asterisks; `reveal` gives the text to the one place that uses it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Gives the secret itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(********)"

    __str__ = __repr__
