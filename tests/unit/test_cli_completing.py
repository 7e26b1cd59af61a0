"""Shell completion: words, options and values, quick, and silent where there is no daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli import COMMANDS, DEFAULTS, GROUPS, main
from daemon.cli.completing import SHELLS

COHORTD = Path(sys.executable).with_name("cohortd")


def complete(*words, **environment):
    given = {
        "COMP_WORDS": " ".join(["cohortd", *words]),
        "COMP_CWORD": str(len(words)),
        "_COHORTD_COMPLETE": "bash_complete",
    }
    result = subprocess.run([COHORTD], env={**os.environ, **given, **environment}, capture_output=True, check=True)
    assert result.stderr == b""
    return [line.removeprefix("plain,") for line in result.stdout.decode().split()]


def test_every_word_is_offered_after_those_before_it():
    top = {words.partition(" ")[0] for words in (*COMMANDS, *GROUPS)}

    assert complete("") == sorted(top)
    assert complete("audie") == ["audience"]
    for group in ("job", *DEFAULTS):
        assert complete(group, "") == sorted(words.split()[1] for words in COMMANDS if words.startswith(f"{group} "))


def test_options_and_their_values_are_offered():
    assert complete("job", "list", "--st") == ["--state"]
    assert complete("job", "list", "--state", "pa") == ["paused"]
    assert complete("completion", "") == list(SHELLS)


def test_without_a_daemon_nothing_is_offered_and_nothing_said(tmp_path):
    assert complete("job", "show", "", COHORTD_DATA_DIR=str(tmp_path)) == []
    assert complete("job", "show", "--url", "http://127.0.0.1:9", "") == []
    assert complete("job", "show", "--url", "nonsense", "") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_that_asks_cohortd(shell):
    result = CliRunner().invoke(main, ["completion", shell])

    assert result.exit_code == 0
    assert f"_COHORTD_COMPLETE={shell}_complete" in result.stdout


def test_completing_a_word_imports_no_command():
    code = "import sys, daemon.cli as c; c.main.shell_complete(c.click.Context(c.main), ''); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()

    assert not {name for name in loaded if name.startswith(("daemon.cli.", "daemon.settings", "pydantic"))}
