"""Tokens: only hashes are stored; the command works without and beside a daemon; a revoked one ends."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import orjson
import pytest
from click.testing import CliRunner

from daemon import lock
from daemon.cli import main
from daemon.store import tokens
from daemon.store.database import Database
from daemon.store.tokens import Token, Tokens


def command(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)


def test_create_makes_the_directory_and_prints_the_token_alone_on_the_last_line(tmp_path):
    result = command("token", "create", "--data-dir", tmp_path / "new" / "place", "--scope", "data")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("cohortd_")
    made = tmp_path / "new" / "place"
    assert [oct(path.stat().st_mode & 0o777) for path in (made, *made.glob("*.db*"))] == ["0o700", "0o600"]


def test_the_token_itself_is_nowhere_in_the_files(tmp_path):
    token = command("token", "create", "--data-dir", tmp_path, "--scope", "admin").stdout.split()[-1]

    assert [path for path in tmp_path.iterdir() if token.encode() in path.read_bytes()] == []


def test_list_shows_what_is_known_and_what_was_revoked(tmp_path, frozen_clock):
    with tokens.beside(tmp_path) as db:
        first = tokens.create(db, "data", "web site", "shop")
        frozen_clock.us += 1
        tokens.create(db, "read")
    assert command("token", "revoke", "--data-dir", tmp_path, first).exit_code == 0

    rows = orjson.loads(command("token", "list", "--data-dir", tmp_path, "--json").stdout)
    table = command("token", "list", "--data-dir", tmp_path).stdout

    assert [(row["scope"], row["label"], row["stream"], row["revoked"]) for row in rows] == [
        ("data", "web site", "shop", "2026-01-01T00:00:00Z"),
        ("read", "", None, None),
    ]
    assert rows[0]["id"] in table
    assert first not in table


def test_revoking_what_is_not_live_fails(tmp_path):
    token = command("token", "create", "--data-dir", tmp_path, "--scope", "read").stdout.split()[-1]
    command("token", "revoke", "--data-dir", tmp_path, token)

    assert command("token", "revoke", "--data-dir", tmp_path, token).exit_code == 1
    assert command("token", "create", "--data-dir", tmp_path, "--scope", "all").exit_code == 2


@pytest.mark.parametrize(
    ("scope", "needed", "allowed"),
    [
        ("admin", "admin", True),
        ("admin", "read", True),
        ("admin", "data", True),
        ("read", "read", True),
        ("read", "data", False),
        ("read", "admin", False),
        ("data", "read", False),
    ],
)
def test_admin_includes_the_others_and_nothing_else_does(scope, needed, allowed):
    assert Token("x", scope).allows(needed) is allowed


async def test_a_running_daemon_finds_a_token_made_beside_it_and_drops_a_revoked_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "REFRESH_S", 0.01)
    with tokens.beside(tmp_path) as db:
        first = tokens.create(db, "read")
    async with Database.open(tmp_path / tokens.FILE) as state, Tokens.open(state) as live:
        assert live.check(first).scope == "read"
        with tokens.beside(tmp_path) as db:
            second = tokens.create(db, "data", stream="shop")
        found = await live.find(second)
        assert (found.scope, found.stream) == ("data", "shop")
        assert await live.find("cohortd_unknown") is None

        with tokens.beside(tmp_path) as db:
            tokens.revoke(db, first)
        while live.check(first) is not None:
            await live.find("cohortd_unknown")


def test_a_file_of_another_version_is_left_alone_while_a_daemon_runs(tmp_path):
    with tokens.beside(tmp_path) as db:
        db.execute("COMMIT")
        db.execute("PRAGMA user_version = 9999")
        db.execute("BEGIN")

    with (
        lock.hold(tmp_path),
        pytest.raises(RuntimeError, match="another version runs as process"),
        tokens.beside(tmp_path),
    ):
        pass


def test_a_failure_within_keeps_nothing(tmp_path):
    def fail():
        with tokens.beside(tmp_path) as db:
            tokens.create(db, "read")
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with closing(sqlite3.connect(tmp_path / tokens.FILE)) as db:
        assert db.execute("SELECT count(*) FROM token").fetchone() == (0,)
