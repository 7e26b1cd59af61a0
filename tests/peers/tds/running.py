"""Starts the peer as a process of its own, and orders what goes wrong in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
USER, PASSWORD, DATABASE = "lab", "hush-0123;{4'=56789-hush", "shop"


class Peer:
    """A peer. Made by `serving`; `database` stays when it is killed and started again, on the same port."""

    def __init__(self, database: Path, certificate: tuple[Path, Path] | None = None) -> None:
        self._database = database
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None
        self._control = 0
        self.port = 0

    def start(self) -> None:
        """Starts it and waits until it can be reached."""
        order = [sys.executable, "-m", "tds.server", "--database", str(self._database), "--port", str(self.port)]
        order += ["--user", USER, "--password", PASSWORD, "--name", DATABASE]
        if self._certificate is not None:
            order += ["--certificate", str(self._certificate[0]), "--key", str(self._certificate[1])]
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the peer did not start"
        self.port, self._control = json.loads(line)

    def order(self, **words: Any) -> Any:
        """Orders something, and gives the answer."""
        with socket.create_connection(("127.0.0.1", self._control)) as control, control.makefile("rb") as lines:
            control.sendall(json.dumps(words).encode() + b"\n")
            answer = json.loads(lines.readline())
        assert "error" not in answer, answer
        return answer

    def sql(self, text: str) -> list[list[Any]]:
        """Runs T-SQL; gives the rows of its last statement."""
        return list(self.order(sql=text)["rows"])

    def duck(self, text: str) -> list[list[Any]]:
        """Runs DuckDB's own SQL."""
        return list(self.order(duck=text)["rows"])

    def fault(self, **fault: Any) -> None:
        """Adds a fault; see `tds.server`."""
        self.order(fault=fault)

    def clear(self) -> None:
        """Removes all faults."""
        self.order(clear=True)

    @property
    def stats(self) -> dict[str, Any]:
        """What clients did."""
        return dict(self.order(stats=True)["stats"])

    def send(self, number: signal.Signals) -> None:
        """Sends a signal: SIGSTOP is a server that hangs."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None

    def again(self) -> None:
        """Kills it and starts it again: all connections are gone, what was committed is there."""
        self.end(signal.SIGKILL)
        self.start()


@contextmanager
def serving(folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[Peer]:
    """Starts a peer with its database in a folder; ends it on leaving."""
    peer = Peer(folder / "peer.duckdb", certificate)
    peer.start()
    try:
        yield peer
    finally:
        peer.end()
