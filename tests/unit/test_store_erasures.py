"""What is erased cannot be read in the file."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest

from daemon.store import erasures
from daemon.store.database import prepare_connection
from daemon.store.erasures import Erasure
from daemon.store.migrate import migrate

NOWHERE = {"realtime": 0, "bulk": 0}


def erasure_of(number, profile):
    return Erasure(
        number, "scrubbing", 0, None, False, None, (("email", f"key{profile}@example.com"),), (profile,), 0, 0,
        NOWHERE, NOWHERE, NOWHERE, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def searched_and_delivered(db, erasure):
    erasures.searched(db, erasure, 0)
    erasures.delivered(db, erasure)


@pytest.mark.parametrize("seed", [1])
def test_of_profiles_that_have_grown_no_byte_is_left(tmp_path, seed):
    chance = random.Random(seed)
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        prepare_connection(db)
        migrate(db, "state")
        db.execute("BEGIN")
        for number in range(1, 3001):
            body = f"person{number}@example.com {'x' * chance.randrange(100, 600)}"
            db.execute("INSERT INTO profile (id, body) VALUES (?, ?)", (number, body))
        for _ in range(6000):
            more = "x" * chance.randrange(10, 400)
            db.execute("UPDATE profile SET body = body || ? WHERE id = ?", (more, chance.randrange(1, 3001)))
        whom = chance.sample(range(1, 3001), 400)
        gone = [erasure_of(number, profile) for number, profile in enumerate(whom, 1)]
        for each in gone:
            db.execute("DELETE FROM profile WHERE id = ?", each.profiles)
            erasures.add(db, each, [], None)
        for each in gone:
            searched_and_delivered(db, each)
        left = dict(db.execute("SELECT id, body FROM profile").fetchall())
        for each in gone:
            erasures.smooth(db, each)
        db.execute("COMMIT")
        assert erasures.truncate(db)

        assert dict(db.execute("SELECT id, body FROM profile").fetchall()) == left
        assert db.execute("SELECT count(*) FROM erasure WHERE state = 'cleaning'").fetchone() == (400,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        content = path.read_bytes()
        readable = [each for each in whom if f"person{each}@".encode() in content or f"key{each}@".encode() in content]
        assert readable == []


def test_the_write_ahead_log_is_not_emptied_under_a_reader(tmp_path):
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db, closing(sqlite3.connect(path)) as reader:
        prepare_connection(db)
        migrate(db, "state")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM profile").fetchone()
        db.execute("INSERT INTO profile (body) VALUES ('{}')")

        assert not erasures.truncate(db)
        reader.execute("ROLLBACK")
        assert erasures.truncate(db)
        assert (tmp_path / "state.db-wal").stat().st_size == 0
