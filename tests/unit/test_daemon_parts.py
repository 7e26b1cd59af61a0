"""The lock, what systemd is told, and the settings."""

from __future__ import annotations

import asyncio
import os
import socket

import anyio
import orjson
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from daemon import lock, settings
from daemon.cli import COMMANDS, GROUPS, main
from daemon.sdnotify import Notifier


def test_the_data_directory_is_held_once_and_given_back(tmp_path):
    with lock.hold(tmp_path / "new"):
        assert lock.holder(tmp_path / "new") == os.getpid()
        with pytest.raises(lock.LockedError, match=f"process {os.getpid()}"), lock.hold(tmp_path / "new"):
            pass

    assert lock.holder(tmp_path / "new") is None
    with lock.hold(tmp_path / "new"):
        pass


def test_nobody_holds_a_directory_that_is_not_there(tmp_path):
    assert lock.holder(tmp_path / "none") is None


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "n"))
        receiver.settimeout(5)
        yield receiver, {"NOTIFY_SOCKET": str(tmp_path / "n")}


def test_systemd_hears_ready_status_and_stopping(manager):
    receiver, environment = manager
    notifier = Notifier(environment)
    notifier.ready("serving")
    notifier.status("busy")
    notifier.stopping("SIGTERM")

    heard = [receiver.recv(1000) for _ in range(3)]
    assert heard == [b"READY=1\nSTATUS=serving", b"STATUS=busy", b"STOPPING=1\nSTATUS=SIGTERM"]


def test_the_abstract_namespace_is_understood():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0cohortd-test-{os.getpid()}")
        receiver.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@cohortd-test-{os.getpid()}"}).status("x")

        assert receiver.recv(100) == b"STATUS=x"


def test_without_systemd_or_with_a_dead_one_nothing_happens(tmp_path):
    Notifier({}).ready("x")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")


async def test_signs_of_life_come_at_half_the_interval_and_only_while_the_loop_turns(manager):
    receiver, environment = manager
    receiver.setblocking(False)
    loop = asyncio.get_running_loop()
    notifier = Notifier(environment | {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": str(os.getpid())})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(notifier.watchdog)
        started = loop.time()
        for _ in range(4):
            assert await loop.sock_recv(receiver, 100) == b"WATCHDOG=1"
        elapsed = loop.time() - started
        tasks.cancel_scope.cancel()

    assert elapsed >= 0.14


@pytest.mark.parametrize("extra", [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}])
async def test_no_watchdog_is_asked_of_another_process_or_at_all(manager, extra):
    _, environment = manager
    await Notifier(environment | extra).watchdog()


def test_flags_outweigh_the_environment_and_that_the_file(tmp_path, monkeypatch):
    file = tmp_path / "c.toml"
    file.write_text('data_dir = "/file"\n[server]\nkeep_alive_s = 1\nbody_timeout_s = 1\nstop_s = 1\n')
    monkeypatch.setenv("COHORTD_SERVER_KEEP_ALIVE_S", "2")
    monkeypatch.setenv("COHORTD_SERVER_BODY_TIMEOUT_S", "2")
    monkeypatch.setenv("COHORTD_SERVER_TRUSTED_PROXIES", '["10.0.0.0/8"]')

    found = settings.load(file, {"server": {"keep_alive_s": 3}})

    assert (found.server.keep_alive_s, found.server.body_timeout_s, found.server.stop_s) == (3, 2, 1)
    assert found.server.trusted_proxies == ("10.0.0.0/8",)
    assert str(found.data_dir) == "/file"


@pytest.mark.parametrize(
    ("environment", "flags", "expected"),
    [
        ({}, {}, "var"),
        ({"STATE_DIRECTORY": "/s:/t"}, {}, "/s"),
        ({"STATE_DIRECTORY": "/s", "COHORTD_DATA_DIR": "/e"}, {}, "/e"),
        ({"STATE_DIRECTORY": "/s", "COHORTD_DATA_DIR": "/e"}, {"data_dir": "/f"}, "/f"),
    ],
)
def test_the_data_directory_is_flag_environment_state_directory_var(monkeypatch, environment, flags, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert str(settings.load(flags=flags).data_dir) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server]\nlisten = 'x'", "server.listen: 'x' is not HOST:PORT"),
        ("[server]\nlistenn = 'x'", "server.listenn: there is no such setting"),
        ("[nothing]\nx = 1", "nothing: there is no such setting"),
        ("[collect]\nevent_bytes = -1", "collect.event_bytes: Input should be greater than 0"),
        ("[server]\ntls_key = 'k'", "server: tls_certificate and tls_key are given together"),
        ("[server]\ntrusted_proxies = ['x']", "server.trusted_proxies.0: 'x' does not appear to be an IPv4"),
        ("[server", "not a TOML file"),
    ],
)
def test_what_is_refused_is_named_with_what_would_be_accepted(tmp_path, text, told):
    (tmp_path / "c.toml").write_text(text)

    with pytest.raises(settings.SettingsError) as refused:
        settings.load(tmp_path / "c.toml")

    assert told in str(refused.value)


@pytest.mark.parametrize("text", ['["10.0.0.0/8", "::1"]', "10.0.0.0/8, ::1"])
def test_a_list_in_the_environment_is_json_or_has_commas(monkeypatch, text):
    monkeypatch.setenv("COHORTD_SERVER_TRUSTED_PROXIES", text)

    assert settings.load().server.trusted_proxies == ("10.0.0.0/8", "::1")


def test_a_file_that_is_named_must_be_there(tmp_path, monkeypatch):
    with pytest.raises(settings.SettingsError, match="No such file"):
        settings.load(tmp_path / "none.toml")
    monkeypatch.setenv("COHORTD_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(settings.SettingsError, match="No such file"):
        settings.load()


def test_config_show_shows_what_holds_and_refused_settings_are_wrong_usage(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORTD_SERVER_STOP_S", "3")
    shown = CliRunner().invoke(main, ["config", "show", "--json", "--data-dir", str(tmp_path)])
    monkeypatch.setenv("COHORTD_SERVER_STOP_S", "x")
    refused = CliRunner().invoke(main, ["config", "show"])

    assert orjson.loads(shown.stdout)["server"]["stop_s"] == 3
    assert orjson.loads(shown.stdout)["data_dir"] == str(tmp_path)
    assert refused.exit_code == 2
    assert "server.stop_s" in refused.stderr


def test_secrets_are_masked():
    class Part(settings.Section):
        password: SecretStr = settings.setting(SecretStr("hunter2"), "a secret")

    assert settings.masked(Part()) == {"password": "********"}


def test_every_setting_says_what_it_does():
    assert [name for name, _, _, description in settings.describe() if not description] == []


def test_every_command_can_be_imported_and_helps():
    runner = CliRunner()
    assert runner.invoke(main, ["--help"]).exit_code == 0
    for words in (*GROUPS, *COMMANDS):
        result = runner.invoke(main, [*words.split(), "--help"])
        assert result.exit_code == 0, words


def test_a_name_in_the_environment_that_is_no_setting_is_noticed(monkeypatch):
    monkeypatch.setenv("COHORTD_SEVER_LISTEN", "x")
    monkeypatch.setenv("COHORTD_URL", "x")

    assert settings.unknown_environment() == ["COHORTD_SEVER_LISTEN"]
