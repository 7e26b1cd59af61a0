"""Backups: what is in them, what they notice, and that no trigger id is given out twice after a restore."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from daemon.store import backup

MIGRATIONS = Path(backup.__file__).parent / "migrations"


def make_data_dir(folder: Path, *, triggers: int = 3) -> Path:
    folder.mkdir()
    for name in ("events", "state"):
        with closing(sqlite3.connect(folder / f"{name}.db", isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            for script in sorted((MIGRATIONS / name).glob("*.sql")):
                db.executescript(script.read_text(encoding="utf-8"))
            if name == "state":
                db.execute("UPDATE lane_cursor SET position = 41 WHERE lane = 'realtime'")
                for number in range(triggers):
                    add_trigger(db, number)
    return folder


def add_trigger(db: sqlite3.Connection, profile: int) -> int:
    statement = """INSERT INTO trigger (commit_id, profile_id, audience, kind, sequence, at_us, entered_us, cause)
        VALUES (1, ?, 1, 'enter', 1, 0, 0, 'event') RETURNING id"""
    return int(db.execute(statement, (profile,)).fetchone()[0])


def test_a_backup_holds_what_was_committed_beside_an_open_writer(tmp_path: Path) -> None:
    data = make_data_dir(tmp_path / "data")
    with closing(sqlite3.connect(data / "state.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        add_trigger(writer, 99)

        taken = backup.take(data, tmp_path / "backup", now_us=7)

        writer.execute("COMMIT")
    with closing(sqlite3.connect(tmp_path / "backup" / "state.db")) as copy:
        assert copy.execute("SELECT count(*) FROM trigger").fetchone() == (3,)
    assert taken.cursor == {"realtime": 41, "bulk": 0}
    assert backup.verify(tmp_path / "backup") == taken


def test_a_changed_byte_in_a_backup_is_noticed(tmp_path: Path) -> None:
    backup.take(make_data_dir(tmp_path / "data"), tmp_path / "backup", now_us=7)
    path = tmp_path / "backup" / "events.db"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(backup.BackupError, match=r"events\.db is not what manifest\.json says"):
        backup.verify(tmp_path / "backup")


def test_a_folder_without_a_manifest_is_no_backup(tmp_path: Path) -> None:
    backup.take(make_data_dir(tmp_path / "data"), tmp_path / "backup", now_us=7)
    (tmp_path / "backup" / "manifest.json").unlink()

    with pytest.raises(backup.BackupError, match="cut off"):
        backup.restore(tmp_path / "backup", tmp_path / "new")


def test_a_restored_state_gives_no_trigger_id_twice(tmp_path: Path) -> None:
    data = make_data_dir(tmp_path / "data")
    backup.take(data, tmp_path / "backup", now_us=7)
    with closing(sqlite3.connect(data / "state.db", isolation_level=None)) as db:
        given_after = add_trigger(db, 5)

    backup.restore(tmp_path / "backup", tmp_path / "new")

    with closing(sqlite3.connect(tmp_path / "new" / "state.db", isolation_level=None)) as db:
        assert add_trigger(db, 6) > given_after
        assert db.execute("SELECT position FROM lane_cursor WHERE lane = 'realtime'").fetchone() == (41,)


def test_a_restored_state_without_triggers_leaves_the_gap_too(tmp_path: Path) -> None:
    backup.take(make_data_dir(tmp_path / "data", triggers=0), tmp_path / "backup", now_us=7)

    backup.restore(tmp_path / "backup", tmp_path / "new")

    with closing(sqlite3.connect(tmp_path / "new" / "state.db", isolation_level=None)) as db:
        assert add_trigger(db, 6) > backup.TRIGGER_ID_GAP


def test_databases_in_the_way_are_refused_or_moved_aside_with_their_write_ahead_log(tmp_path: Path) -> None:
    backup.take(make_data_dir(tmp_path / "data"), tmp_path / "backup", now_us=7)
    target = make_data_dir(tmp_path / "target", triggers=50)
    (target / "state.db-wal").write_bytes(b"belongs to the old file")

    with pytest.raises(backup.BackupError, match="--replace"):
        backup.restore(tmp_path / "backup", target)
    backup.restore(tmp_path / "backup", target, replace=True)

    assert not (target / "state.db-wal").exists()
    assert (target / "state.db-wal.before-restore").exists()
    with closing(sqlite3.connect(target / "state.db")) as db:
        assert db.execute("SELECT count(*) FROM trigger").fetchone() == (3,)


def test_a_backup_never_goes_over_a_folder_with_something_in_it(tmp_path: Path) -> None:
    data = make_data_dir(tmp_path / "data")
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "mine.txt").write_text("mine")

    with pytest.raises(backup.BackupError, match="not empty"):
        backup.take(data, tmp_path / "backup", now_us=7)
