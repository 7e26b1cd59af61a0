"""The unit is one that systemd takes without a word, and a tight one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "cohortd.service"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (package systemd)"
)


@needs_systemd
def test_verify_says_nothing():
    # An unknown key is a line on standard error with status 0, so the status alone proves nothing.
    result = subprocess.run(["systemd-analyze", "verify", UNIT], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
def test_the_exposure_is_at_most_2():
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", UNIT],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-500:]


def test_the_unit_notifies_watches_and_takes_credentials_by_name_only():
    lines = UNIT.read_text().splitlines()
    credentials = [line.partition("=")[2] for line in lines if line.startswith("LoadCredential=")]

    assert {"Type=notify", "WatchdogSec=30", "StateDirectory=cohortd", "User=cohortd"} <= set(lines)
    assert credentials
    # With a path that is not there the unit would not start.
    assert [name for name in credentials if ":" in name] == []
