"""`cohortd doctor`: what could keep a daemon from running well here, in words that say what to do."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

import click
import orjson

from daemon import clock, lock
from daemon import settings as settings_module
from daemon.cli import options
from daemon.settings import Settings
from daemon.store import auths, migrate
from daemon.vault import Vault

Verdict = Literal["ok", "warning", "failed"]

#: Since 3.38 JSON is always there; `RETURNING`, `STRICT` and `json_each` over arrays are older.
SQLITE_LEAST = (3, 38, 0)
FREE_BYTES = 1_000_000_000
FREE_BYTES_LEAST = 100_000_000
FSYNC_S = 0.05
FILES_LEAST = 1024

#: No clock that is right is before this program was written.
WRITTEN_US = 1_767_225_600_000_000


class Finding(NamedTuple):
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str


@click.command()
@options.with_settings
@options.as_json
def doctor(config: Path | None, data_dir: Path | None, *, json_: bool) -> None:
    """Check settings, data directory, SQLite, disk and clock; the status is 1 when something keeps it from running."""
    findings = list(examine(options.load(config, data_dir)))
    if json_:
        click.echo(orjson.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            click.echo(f"{finding.verdict:8} {finding.subject:16} {finding.text}")
    if any(finding.verdict == "failed" for finding in findings):
        raise SystemExit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Yields what is found, the outermost first; reads only, but for a probe file that it removes."""
    yield from _environment()
    yield from _sqlite()
    yield from _directory(settings.data_dir)
    yield _vault(settings)
    yield from _clock()
    yield from _listeners(settings)


def _environment() -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("python", "ok", version)
    unknown = settings_module.unknown_environment()
    if unknown:
        yield Finding("settings", "warning", f"in the environment, but no setting: {', '.join(unknown)}")
    else:
        yield Finding("settings", "ok", "accepted")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= files < FILES_LEAST:
        yield Finding("open files", "warning", f"at most {files} for this user; connections need more: ulimit -n 65536")
    else:
        yield Finding("open files", "ok", f"up to {files}")


def _sqlite() -> Iterator[Finding]:
    if sqlite3.sqlite_version_info < SQLITE_LEAST:
        least = ".".join(str(part) for part in SQLITE_LEAST)
        yield Finding("sqlite", "failed", f"{sqlite3.sqlite_version}; at least {least} is needed")
    else:
        yield Finding("sqlite", "ok", sqlite3.sqlite_version)


def _directory(directory: Path) -> Iterator[Finding]:
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    try:
        yield from _mode(directory) if directory.exists() else _parent(directory, there)
        yield from _disk(there)
    except OSError as error:
        yield Finding("data directory", "failed", f"{directory}: {error.strerror or error}")
        return
    process = lock.holder(directory)
    yield Finding("daemon", "ok", f"runs as process {process}" if process else "does not run")
    yield _database(directory / "events.db", "events")
    yield _database(directory / "state.db", "state")


def _vault(settings: Settings) -> Finding:
    """Looks for the key of the sealed authorizations, and whether it opens them."""
    vault = Vault.seen(settings.data_dir, settings)
    path = settings.data_dir / "state.db"
    used: dict[str, int] = {}
    try:
        if path.exists():
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                used = auths.keys_used(db)
    except sqlite3.Error:
        pass  # of an older version: no authorizations yet; what else is wrong with it, the line about it says
    missing = {key: count for key, count in used.items() if key not in vault.known}
    if missing:
        keys = ", ".join(f"{count} under key {key}" for key, count in missing.items())
        return Finding("vault", "warning", f"secrets that cannot be opened: {keys}; put the key back: {vault.source}")
    if vault.key_id:
        return Finding("vault", "ok", f"key {vault.key_id} of {vault.source} opens {sum(used.values())} secrets")
    if vault.path is not None and not vault.path.exists() and settings.vault.key_file is None:
        return Finding("vault", "ok", f"no key yet; the first start makes {vault.path}")
    return Finding("vault", "warning", vault.problem)


def _parent(directory: Path, there: Path) -> Iterator[Finding]:
    if os.access(there, os.W_OK | os.X_OK):
        yield Finding("data directory", "ok", f"{directory} is not there yet; the first start makes it")
    else:
        yield Finding("data directory", "failed", f"{directory} is not there, and {there} cannot be written")


def _mode(directory: Path) -> Iterator[Finding]:
    status = directory.stat()
    mode = status.st_mode & 0o777
    if status.st_uid != os.geteuid():
        yield Finding("data directory", "warning", f"{directory} belongs to another user (uid {status.st_uid})")
    elif mode & 0o077:
        yield Finding("data directory", "warning", f"{directory} is open to others ({mode:o}): chmod 700 it")
    else:
        yield Finding("data directory", "ok", str(directory.absolute()))


def _disk(directory: Path) -> Iterator[Finding]:
    usage = shutil.disk_usage(directory)
    text = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB"
    if usage.free < FREE_BYTES_LEAST:
        yield Finding("disk", "failed", f"{text}; less than {FREE_BYTES_LEAST / 1e6:.0f} MB is no room to work in")
    else:
        yield Finding("disk", "warning" if usage.free < FREE_BYTES else "ok", text)
    with tempfile.NamedTemporaryFile(dir=directory, prefix="doctor-") as probe:
        times = []
        for _ in range(10):
            probe.write(b"x" * 4096)
            probe.flush()
            started = time.perf_counter()
            os.fdatasync(probe.fileno())
            times.append(time.perf_counter() - started)
    median = sorted(times)[len(times) // 2]
    text = f"{median * 1000:.2f} ms each; an event is answered after one"
    yield Finding("disk flush", "warning" if median > FSYNC_S else "ok", text)


def _database(path: Path, name: migrate.Name) -> Finding:
    if not path.exists():
        return Finding(path.name, "ok", "not there yet; the first start makes it")
    newest = len(migrate.migrations(name))
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            version = migrate.version(db)
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return Finding(path.name, "failed", str(error))
    if version > newest:
        return Finding(path.name, "failed", f"version {version} is of a newer cohortd; this one knows up to {newest}")
    if verdict != "ok":
        return Finding(path.name, "failed", f"damaged: {verdict}; restore a backup (`cohortd restore`)")
    size = path.stat().st_size
    return Finding(path.name, "ok", f"{size / 1e6:.1f} MB, version {version} of {newest}")


def _clock() -> Iterator[Finding]:
    now_us = clock.now_us()
    verdict: Verdict = "ok" if now_us > WRITTEN_US else "failed"
    text = f"{clock.from_us(now_us):%Y-%m-%dT%H:%M:%SZ}"
    yield Finding("clock", verdict, text if verdict == "ok" else f"{text} is wrong: memberships by time follow it")


def _listeners(settings: Settings) -> Iterator[Finding]:
    for path in (settings.server.tls_certificate, settings.server.tls_key):
        if path is not None and not os.access(path, os.R_OK):
            yield Finding("tls", "failed", f"{path} cannot be read")
    host = settings.server.listen.rpartition(":")[0]
    if settings.server.tls_certificate is None and host not in ("127.0.0.1", "[::1]", "localhost"):
        yield Finding(
            "listen", "warning", f"{settings.server.listen} takes tokens in the clear: set server.tls_certificate"
        )
    else:
        yield Finding("listen", "ok", settings.server.listen)
