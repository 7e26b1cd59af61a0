"""The unit under a real systemd: a container booted over this host's files, with the program in a place of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = Path("/usr/bin/python3")
PLACE = Path("/opt/cohortd-boot-test")

PROBE = f"""#!/bin/bash
exec > /out/report 2>&1
export PATH={PLACE}/bin:$PATH
systemd-sysusers && systemd-tmpfiles --create
token=$(runuser -u cohortd -- cohortd token create --data-dir /var/lib/cohortd --scope admin | tail -1)
systemctl start cohortd && echo "started $(systemctl show cohortd -p StatusText --value)"
echo "ready $(curl -s -o /dev/null -w '%{{http_code}}' 127.0.0.1:8420/ready)"
echo "stored $(curl -s -H "Authorization: $token" -H 'Content-Type: application/json' -d '{{"a":1}}' \
  -o /dev/null -w '%{{http_code}}' 127.0.0.1:8420/collect/json/s)"
echo "memory $(curl -s -H "Authorization: $token" 127.0.0.1:8420/metrics | grep -c ^cohortd_process_resident_memory)"
main=$(systemctl show cohortd -p MainPID --value)
echo "user $(stat -c %U /proc/$main)"
echo "credential $(cat /proc/$main/root/run/credentials/cohortd.service/webhook-secret)"
sed -i s/WatchdogSec=30/WatchdogSec=2/ /etc/systemd/system/cohortd.service
systemctl daemon-reload && systemctl restart cohortd
kill -STOP $(systemctl show cohortd -p MainPID --value)
until [ "$(systemctl show cohortd -p NRestarts --value)" = 1 ] && systemctl is-active -q cohortd; do sleep 0.2; done
echo "after the watchdog $(curl -s -o /dev/null -w '%{{http_code}}' 127.0.0.1:8420/ready)"
systemctl stop cohortd && echo "stopped $(systemctl show cohortd -p Result --value)"
systemctl poweroff
"""


def lacking() -> str | None:
    """What this needs and is not here."""
    if os.geteuid() != 0:
        return "it needs root"
    missing = [tool for tool in ("systemd-nspawn", "curl", "runuser") if shutil.which(tool) is None]
    if missing or not PYTHON.exists():
        return f"not installed: {', '.join(missing) or PYTHON} (packages systemd-container, python3-venv, curl)"
    return None


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """This host's files under a layer of our own, with the program installed for everybody to execute."""
    with ExitStack() as stack:
        run("mount", "-t", "tmpfs", "tmpfs", tmp_path)
        stack.callback(run, "umount", tmp_path)
        for name in ("upper", "work", "root", "out"):
            (tmp_path / name).mkdir()
        upper, root = tmp_path / "upper", tmp_path / "root"
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={tmp_path / 'work'}", root)
        stack.callback(run, "umount", root)
        stack.callback(shutil.rmtree, PLACE, ignore_errors=True)
        run(PYTHON, "-m", "venv", PLACE)
        run(PLACE / "bin" / "pip", "install", "-q", "-c", ROOT / "constraints.txt", ROOT)
        yield root


@pytest.mark.scale
@pytest.mark.timeout(600)
@pytest.mark.skipif(lacking() is not None, reason=lacking() or "")
def test_the_unit_starts_serves_is_watched_and_stops(root: Path) -> None:
    unit = (ROOT / "systemd" / "cohortd.service").read_text().replace("PATH=", f"PATH={PLACE}/bin:")
    files = {
        "etc/systemd/system/cohortd.service": unit,
        "usr/lib/sysusers.d/cohortd.conf": (ROOT / "systemd" / "cohortd.sysusers.conf").read_text(),
        "usr/lib/tmpfiles.d/cohortd.conf": (ROOT / "systemd" / "cohortd.tmpfiles.conf").read_text(),
        "etc/credstore/webhook-secret": "from-the-credstore",
        "etc/systemd/system/probe.service": "[Service]\nType=oneshot\nExecStart=/usr/local/bin/probe\n",
        "etc/systemd/system/probe.target": "[Unit]\nRequires=basic.target dbus.service probe.service\n",
        "usr/local/bin/probe": PROBE,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "usr/local/bin/probe").chmod(0o755)
    out = root.parent / "out"
    booted = subprocess.run(
        [
            "systemd-nspawn",
            "-q",
            "-D",
            root,
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--console=pipe",
            f"--bind={out}:/out",
            "-b",
            "systemd.unit=probe.target",
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    report = (out / "report").read_text() if (out / "report").exists() else booted.stdout + booted.stderr
    assert report.splitlines() == [
        "started serving on http://127.0.0.1:8420",
        "ready 200",
        "stored 200",
        "memory 1",
        "user cohortd",
        "credential from-the-credstore",
        "after the watchdog 200",
        "stopped success",
    ]
