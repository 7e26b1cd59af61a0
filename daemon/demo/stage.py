"""The processes of the demo: the daemon and the receiver. Started so that they outlive the demo, ended by `end`."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from daemon import lock
from daemon.store import tokens

MARKER = "demo.json"
LISTEN = ("127.0.0.1", 8420)
START_S = 60.0
END_S = 15.0
_LOOK_S = 0.05


class StageError(RuntimeError):
    """The demo cannot be set up; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running demo: where everything is. `environment` is what jobs' references are filled from."""

    folder: Path
    address: str
    token: str
    receiver: str
    receiver_pid: int
    environment: dict[str, str]

    @property
    def exports(self) -> Path:
        """The folder of the files that the daemon writes."""
        return self.folder / "exports" / "warehouse"


def begin(folder: Path) -> Stage:
    """Starts receiver and daemon in a fresh data directory; raises StageError.

    What an earlier demo left is replaced, as long as it does not run; any other folder is left alone.
    """
    _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_bytes(b"{}")
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    environment = {"DEMO_WEBHOOK_SECRET": secret}
    receiver_pid, line = _start(
        [sys.executable, "-m", "daemon.demo.receiver"], folder / "receiver.log", environment, "http://"
    )
    try:
        (folder / MARKER).write_bytes(orjson.dumps({"receiver_pid": receiver_pid}))
        environment["DEMO_RECEIVER_URL"] = line.strip()
        with tokens.beside(folder) as db:
            token = tokens.create(db, "admin", "demo")
        command = [*program(), "run", "--data-dir", str(folder), "--listen", _listen()]
        _, ready = _start(command, folder / "daemon.log", environment, '"daemon_ready"')
    except BaseException:
        _signal(receiver_pid, signal.SIGTERM)
        raise
    return Stage(folder, orjson.loads(ready)["address"], token, line.strip(), receiver_pid, environment)


def end(folder: Path) -> bool:
    """Ends the daemon and the receiver of a demo, and waits for them; False when none runs. Raises StageError."""
    try:
        receiver_pid = orjson.loads((folder / MARKER).read_bytes()).get("receiver_pid", 0)
    except (OSError, ValueError) as error:
        raise StageError(f"{folder} is not the folder of a demo") from error
    daemon_pid = lock.holder(folder) or 0
    running = [pid for pid, word in ((daemon_pid, "cohortd"), (receiver_pid, "daemon.demo.receiver")) if _is(pid, word)]
    for pid in running:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    while any(_alive(pid) for pid in running):
        if time.monotonic() > deadline:
            raise StageError(f"process {running} did not end within {END_S:.0f} s")
        time.sleep(_LOOK_S)
    return bool(running)


def program() -> list[str]:
    """Gives the command `cohortd` of this environment."""
    beside = Path(sys.executable).with_name("cohortd")
    return [str(beside)] if beside.exists() else [sys.executable, "-c", "from daemon.cli import main; main()"]


def _clear(folder: Path) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / MARKER).exists():
        raise StageError(f"{folder} is in use and not by a demo; give another folder with --data-dir")
    if (pid := lock.holder(folder)) is not None:
        raise StageError(f"a demo runs in {folder} (process {pid}); end it with: cohortd demo --stop")
    end(folder)
    shutil.rmtree(folder)


def _listen() -> str:
    """The usual address where it is free, else any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(LISTEN)
        except OSError:
            return f"{LISTEN[0]}:0"
    return f"{LISTEN[0]}:{LISTEN[1]}"


def _start(command: list[str], log: Path, environment: dict[str, str], wanted: str) -> tuple[int, str]:
    """Starts a process of its own session, its output in `log`; gives its id and its first line with `wanted`."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  (our own programs)
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_S
    while True:
        ended = process.poll() is not None
        written = log.read_text("utf-8", "replace")
        found = next(
            (line for line in written.splitlines(keepends=True) if wanted in line and line.endswith("\n")), None
        )
        if found is not None:
            return process.pid, found
        if ended or time.monotonic() > deadline:
            process.kill()
            last = written.strip().splitlines()[-1:] or ["it said nothing"]
            raise StageError(f"{Path(command[0]).name} did not start: {last[0][:500]}")
        time.sleep(_LOOK_S)


def _is(pid: int, word: str) -> bool:
    """Says whether the process runs and is the one that was started: ids are given out again."""
    try:
        return pid > 0 and word in Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace")
    except OSError:
        return False


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
