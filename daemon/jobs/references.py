"""Resolving references to secrets, when a run begins; what they give is not kept."""

from __future__ import annotations

import os
from pathlib import Path

from connectors.sdk.errors import ConfigError
from connectors.sdk.secret import Secret, check_reference

#: More than this is no secret, but a file given by mistake.
LARGEST_BYTES = 64 * 1024


def resolve(reference: str) -> Secret:
    """Gives the secret that `reference` names.

    Raises ConfigError, which names the reference and never what stands behind it.
    """
    try:
        kind, _, name = check_reference(reference).partition(":")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if kind == "env":
        value = os.environ.get(name)
        if not value:
            raise ConfigError(f"the environment variable {name} is not set for the daemon")
        return Secret(value)
    if kind == "credential":
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise ConfigError(
                f"there is no credential {name}: systemd gave the daemon no credentials (LoadCredential=)"
            )
        return _read(Path(directory) / Path(name).name, reference)
    return _read(Path(name), reference)


def _read(path: Path, reference: str) -> Secret:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        text = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(f"{reference} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{reference} is not UTF-8 text") from None
    if len(content) > LARGEST_BYTES:
        raise ConfigError(f"{reference} has more than {LARGEST_BYTES} bytes, which is no secret")
    if not text:
        raise ConfigError(f"{reference} is empty")
    return Secret(text)
