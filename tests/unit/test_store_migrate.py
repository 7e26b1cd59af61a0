"""Migrations: whole or not at all, the same from anywhere, and never backwards."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from daemon.store import migrate as module
from daemon.store.migrate import Migration, NewerFileError, migrate, migrations, version

FIRST = Migration(1, "0001_first.sql", "CREATE TABLE a (x INTEGER) STRICT;")
SECOND = Migration(
    2,
    "0002_second.sql",
    """CREATE TABLE b (x TEXT) STRICT;
CREATE TRIGGER a_counts AFTER INSERT ON a BEGIN
    INSERT INTO b VALUES ('a;b');
    INSERT INTO b VALUES ('c');
END;
INSERT INTO a VALUES (1);""",
)
BROKEN = Migration(2, "0002_broken.sql", "CREATE TABLE b (x TEXT) STRICT; INSERT INTO nowhere VALUES (1);")


def database(path):
    return closing(sqlite3.connect(path, isolation_level=None))


def shape(db):
    return db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


@pytest.mark.parametrize("name", ["events", "state"])
def test_a_fresh_file_equals_one_migrated_step_by_step(tmp_path, name):
    steps = migrations(name)
    with database(tmp_path / "fresh.db") as fresh, database(tmp_path / "stepped.db") as stepped:
        migrate(fresh, name)
        for number in range(1, len(steps) + 1):
            migrate(stepped, name, steps[:number])

        assert shape(fresh) == shape(stepped)
        assert version(fresh) == version(stepped) == len(steps)


@pytest.mark.parametrize("name", ["events", "state"])
def test_every_table_is_strict(tmp_path, name):
    with database(tmp_path / "x.db") as db:
        migrate(db, name)
        loose = db.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict AND name NOT LIKE 'sqlite%'"
        ).fetchall()

    assert loose == []


def test_a_step_with_a_trigger_runs_whole(tmp_path):
    with database(tmp_path / "x.db") as db:
        migrate(db, "state", [FIRST, SECOND])

        assert db.execute("SELECT x FROM b").fetchall() == [("a;b",), ("c",)]
        assert version(db) == 2


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path):
    with database(tmp_path / "x.db") as db:
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            migrate(db, "state", [FIRST, BROKEN])

        assert [name for _, name, _ in shape(db)] == ["a"]
        assert version(db) == 1
        assert not db.in_transaction
        migrate(db, "state", [FIRST, SECOND])
        assert version(db) == 2


def test_a_file_of_a_newer_program_is_refused_and_untouched(tmp_path):
    with database(tmp_path / "x.db") as db:
        migrate(db, "state", [FIRST, SECOND])

        with pytest.raises(NewerFileError, match="version 2, this cohortd knows up to 1"):
            migrate(db, "state", [FIRST])
        assert version(db) == 2


def test_a_step_that_another_process_took_first_is_not_taken_twice(tmp_path, monkeypatch):
    with database(tmp_path / "x.db") as db, database(tmp_path / "x.db") as other:
        looks = []

        def late(connection):
            looks.append(version(connection))
            if len(looks) == 1:  # between our look and our lock
                migrate_now(other)
            return looks[-1]

        def migrate_now(connection):
            monkeypatch.undo()
            migrate(connection, "state", [FIRST, SECOND])
            monkeypatch.setattr(module, "version", late)

        monkeypatch.setattr(module, "version", late)
        migrate(db, "state", [FIRST, SECOND])

        assert looks[0] == 0
        assert db.execute("SELECT count(*) FROM a").fetchone() == (1,)
        assert version(db) == 2
