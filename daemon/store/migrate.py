"""Forward-only migrations: `migrations/{events,state}/NNNN_words.sql`, each whole in one transaction.

The number of the last one applied is the file's `user_version`, set in the same transaction.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from importlib import resources
from typing import Literal, NamedTuple

Name = Literal["events", "state"]

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

# Fails, and with it the whole script, when another process applied the migration between our look and our lock.
_SCRIPT = """
BEGIN IMMEDIATE;
CREATE TEMP TABLE expected_version (version INTEGER CHECK (version = {before:d}));
INSERT INTO temp.expected_version SELECT user_version FROM pragma_user_version;
DROP TABLE temp.expected_version;
{text}
PRAGMA user_version = {number:d};
COMMIT;
"""


class NewerFileError(RuntimeError):
    """A database that a newer cohortd has written; this one must not touch it."""


class Migration(NamedTuple):
    """One step: from version `number - 1` to `number`."""

    number: int
    name: str
    text: str


def migrations(database: Name) -> list[Migration]:
    """Gives the steps of a database in their order, numbered from 1 without a gap."""
    folder = resources.files("daemon.store").joinpath("migrations", database)
    found = sorted(
        Migration(int(match[1]), entry.name, entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if (match := _FILE.fullmatch(entry.name))
    )
    numbers = [each.number for each in found]
    if numbers != list(range(1, len(found) + 1)):
        raise RuntimeError(f"migrations of {database} are not numbered 1, 2, 3 …: {numbers}")
    return found


def version(db: sqlite3.Connection) -> int:
    """Gives the number of the last migration applied; 0 for an empty file."""
    (number,) = db.execute("PRAGMA user_version").fetchone()
    return int(number)


def migrate(db: sqlite3.Connection, database: Name, steps: Sequence[Migration] | None = None) -> None:
    """Brings a file to the newest version.

    A step that fails leaves the file as it was before that step. Two processes may do this at once. Raises
    NewerFileError when the file is ahead of this program.
    """
    steps = migrations(database) if steps is None else steps
    newest = steps[-1].number if steps else 0
    while (now := version(db)) < newest:
        step = steps[now]
        try:
            db.executescript(_SCRIPT.format(before=now, text=step.text, number=step.number))
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if version(db) != now:
                continue
            raise
    if now > newest:
        raise NewerFileError(
            f"{database}.db has version {now}, this cohortd knows up to {newest}: run the newer program, or restore "
            "a backup made by this one"
        )
