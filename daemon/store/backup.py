"""Backups of a data directory: online, checked, and restored without giving a trigger id out twice.

A backup is a folder with `state.db`, `events.db` and `manifest.json` (format, times, cursor, SHA-256 of both files).
The state is copied first: its cursor over the log then never stands behind an event that the copy of the log lacks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import orjson

FILES = ("state.db", "events.db")
MANIFEST = "manifest.json"
FORMAT = 1
PAGES_A_STEP = 1024

#: A restored state may bring forth triggers whose ids were already given to others after the backup was taken, and a
#: receiver that drops repeats would drop them: ids go on this far ahead.
TRIGGER_ID_GAP = 1_000_000

Progress = Callable[[str, int, int], None]


class BackupError(Exception):
    """A backup that cannot be made or restored; the message says which file, and what to do."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds. Sizes in bytes; `cursor` is the last log position taken in, by lane."""

    taken_us: int
    cursor: dict[str, int]
    sizes: dict[str, int]


def take(data_dir: Path, target: Path, *, now_us: int, progress: Progress | None = None) -> Backup:
    """Copies the databases of `data_dir` into the new folder `target`, also beside a running daemon.

    The copies are checked whole before the manifest is written: a folder without one is no backup.
    `progress(file, pages done, pages in all)` is called between steps.
    """
    for name in FILES:
        if not (data_dir / name).exists():
            raise BackupError(f"{data_dir / name} does not exist: {data_dir} is no data directory of cohortd")
    if target.exists() and any(target.iterdir()):
        raise BackupError(f"{target} exists and is not empty; name a new folder")
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    hashes: dict[str, str] = {}
    for name in FILES:
        _copy(data_dir / name, target / name, progress)
        _check(target / name)
        hashes[name] = _digest(target / name)
    taken = Backup(now_us, _cursor(target / "state.db"), {name: (target / name).stat().st_size for name in FILES})
    manifest = {"format": FORMAT, "taken_us": now_us, "cursor": taken.cursor, "sizes": taken.sizes, "sha256": hashes}
    _write(target / MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    return taken


def verify(source: Path) -> Backup:
    """Checks a backup against its manifest, byte for byte, and each database for integrity."""
    try:
        manifest = orjson.loads((source / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise BackupError(f"{source} has no {MANIFEST}: it is no backup, or one that was cut off") from error
    except ValueError as error:
        raise BackupError(f"{source / MANIFEST} is damaged: {error}") from error
    if manifest.get("format") != FORMAT:
        raise BackupError(f"{source} has format {manifest.get('format')!r}; this program reads format {FORMAT}")
    for name in FILES:
        if not (source / name).exists():
            raise BackupError(f"{source / name} is missing")
        if _digest(source / name) != manifest["sha256"][name]:
            raise BackupError(f"{source / name} is not what {MANIFEST} says: it was changed or damaged")
        _check(source / name)
    return Backup(manifest["taken_us"], manifest["cursor"], manifest["sizes"])


def restore(source: Path, data_dir: Path, *, replace: bool = False) -> Backup:
    """Puts a verified backup into `data_dir`; the caller holds the directory's lock.

    With `replace`, databases that are there are moved aside to `*.before-restore` first, else they are a refusal.
    """
    backup = verify(source)
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    present = [data_dir / name for name in FILES if (data_dir / name).exists()]
    if present and not replace:
        raise BackupError(f"{present[0]} exists; restore into an empty directory, or replace it with --replace")
    for name in FILES:
        shutil.copyfile(source / name, data_dir / f"{name}.restoring")
    with closing(sqlite3.connect(data_dir / "state.db.restoring", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE").fetchall()
        moved = db.execute(
            "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'trigger'", (TRIGGER_ID_GAP,)
        ).rowcount
        if not moved:
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('trigger', ?)", (TRIGGER_ID_GAP,))
    for name in FILES:
        _sync(data_dir / f"{name}.restoring")
    for path in present:
        # The write-ahead log belongs to its file: left behind, it would be replayed into the restored one.
        for suffix in ("", "-wal", "-shm"):
            old = path.with_name(path.name + suffix)
            if old.exists():
                old.rename(path.with_name(f"{path.name}{suffix}.before-restore"))
    for name in FILES:
        (data_dir / f"{name}.restoring").rename(data_dir / name)
    _sync(data_dir)
    return backup


def _copy(source: Path, target: Path, progress: Progress | None) -> None:
    def step(_: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(source.name, total - remaining, total)

    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        # One read transaction around it: else a busy daemon's writes would start the copy over and over.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reader.backup(writer, pages=PAGES_A_STEP, progress=step)
        reader.rollback()
        writer.execute("PRAGMA journal_mode = DELETE").fetchall()
    target.chmod(0o600)
    _sync(target)


def _check(path: Path) -> None:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            found = db.execute("PRAGMA integrity_check(3)").fetchall()
        except sqlite3.DatabaseError as error:
            raise BackupError(f"{path} is damaged: {error}") from error
    if found != [("ok",)]:
        raise BackupError(f"{path} is damaged: {'; '.join(row[0] for row in found)}")


def _cursor(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT lane, position FROM lane_cursor").fetchall())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _sync(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
