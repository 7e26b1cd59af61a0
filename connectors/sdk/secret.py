"""Secrets by reference: a configuration holds where a secret is, never the secret.

`env:NAME` is an environment variable of the daemon, `file:/path` the content of a file without its last line end,
`credential:name` a systemd credential. They are resolved when a run begins, and what they gave is not kept.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, final
from urllib.parse import quote

from pydantic import AfterValidator, WithJsonSchema

PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+|credential:[A-Za-z0-9._-]+)$"
_REFERENCE = re.compile(PATTERN)
_LOOKS_LIKE = ("env:", "file:", "credential:")

HIDDEN = "********"
#: A line of a secret of several lines (a private key) is kept out of texts from this length on.
LEAST_LINE = 16
#: So much of a secret's beginning is taken for it at the end of a text, which may have been cut there.
LEAST_BEGINNING = 4


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


def hidden(text: str, secrets: Iterable[Secret]) -> str:
    """Gives `text` with asterisks for every secret in it, also as base64, in an address, or within JSON.

    Call it before a text is shortened; what was cut off within a secret is found at the end alone.
    """
    forms = sorted({form for secret in secrets for form in _forms(secret.reveal())}, key=len, reverse=True)
    for form in forms:
        text = text.replace(form, HIDDEN)
    for form in forms:
        for size in range(len(form) - 1, LEAST_BEGINNING - 1, -1):
            if text.endswith(form[:size]):
                return text[:-size] + HIDDEN
    return text


def _forms(secret: str) -> Iterator[str]:
    if not secret:
        return
    content = secret.encode("utf-8", "surrogatepass")
    yield secret
    yield quote(secret, safe="", errors="replace")
    yield base64.b64encode(content).decode()
    yield base64.urlsafe_b64encode(content).decode().rstrip("=")
    yield secret.encode("unicode_escape").decode()
    yield repr(secret)[1:-1]
    yield " ".join(secret.split())  # as a text is shown in one line
    yield from (line for line in secret.splitlines() if len(line) >= LEAST_LINE)
