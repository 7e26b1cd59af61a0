"""GnuPG as the other side of our PGP: makes keys, encrypts, decrypts. Every home has an agent, ended with it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


class Gpg:
    """A home of its own. Keys without a passphrase unless told otherwise; names are those of the users."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str, given: bytes = b"", passphrase: str = "") -> bytes:
        """Runs gpg and gives what it wrote."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--quiet", "--no-tty"]
        command += ["--pinentry-mode", "loopback", "--trust-model", "always", "--passphrase", passphrase, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def make(self, name: str, *, kind: str = "future-default", expires: str = "never", passphrase: str = "") -> str:
        """Makes a key and gives its fingerprint."""
        usage = ["default"] if kind == "future-default" else ["sign"]
        self("--quick-gen-key", name, kind, *usage, expires, passphrase=passphrase)
        listed = self("--with-colons", "--list-keys", name).decode().splitlines()
        fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr"))
        if kind.startswith("rsa"):
            self("--quick-add-key", fingerprint, kind, "encrypt", expires, passphrase=passphrase)
        return fingerprint

    def public(self, name: str) -> str:
        return self("--armor", "--export", name).decode()

    def private(self, name: str, passphrase: str = "") -> str:
        return self("--armor", "--export-secret-keys", name, passphrase=passphrase).decode()

    def decrypt(self, message: bytes, passphrase: str = "") -> bytes:
        return self("--decrypt", given=message, passphrase=passphrase)

    def encrypt(self, content: bytes, *names: str, armour: bool = False, more: tuple[str, ...] = ()) -> bytes:
        wanted = [part for name in names for part in ("--recipient", name)]
        return self(*(["--armor"] if armour else []), *more, *wanted, "--encrypt", given=content)


@contextlib.contextmanager
def gpg_home() -> Iterator[Gpg]:
    """Opens a home in a short path (the agent's socket has one of at most 107 characters)."""
    home = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
    try:
        yield Gpg(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)
