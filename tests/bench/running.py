"""The real daemon and its surroundings as processes, for benchmarks: started, asked, measured, ended."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

COHORTD = Path(sys.executable).with_name("cohortd")
HERE = Path(__file__).parent
START_LIMIT_S = 120.0


class Daemon:
    """`cohortd run` on a data directory."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        made = subprocess.run(
            [COHORTD, "token", "create", "--scope", "admin", "--data-dir", data_dir], check=True, capture_output=True
        )
        self.token = made.stdout.decode().split("\n")[-2]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [COHORTD, "run", "--data-dir", data_dir, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        try:
            self.address = self._ready()
            self._wait_until_ready(started)
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        #: Seconds from the process's start until /ready answered 200.
        self.start_s = time.perf_counter() - started

    def _wait_until_ready(self, started: float) -> None:
        while self.status("/ready") != http.client.OK:
            if time.perf_counter() - started > START_LIMIT_S:
                raise TimeoutError("the daemon did not become ready")
            time.sleep(0.002)

    def _ready(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = orjson.loads(line)
            if event["event"] == "daemon_ready":
                os.set_blocking(self.process.stdout.fileno(), False)
                return str(event["address"])
        raise RuntimeError("the daemon ended before it was ready")

    def _request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        if self.process.stdout is not None:
            self.process.stdout.read()  # so that its log never fills the pipe
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=600)
        try:
            connection.request(method, path, body=body, headers={"Authorization": self.token})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self, path: str) -> int:
        return self._request("GET", path)[0]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        status, content = self._request(method, path, body)
        if status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {status} {content[:500]!r}")
        return orjson.loads(content)["data"]

    def define(self, queries: tuple[str, ...], audiences: tuple[str, ...]) -> None:
        for text in queries:
            self.call("POST", "/api/query", text)
        for text in audiences:
            self.call("POST", "/api/segment", text)

    def backlog(self) -> int:
        """Gives how many accepted events are not yet taken in."""
        return sum(self.call("GET", "/v2/status")["lag"].values())

    def settle(self) -> None:
        """Waits until everything accepted is taken in."""
        while self.backlog():
            time.sleep(0.02)

    def memory_bytes(self) -> int:
        """Gives the resident memory now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise LookupError("VmRSS")

    def cpu_s(self) -> float:
        """Gives the CPU time used so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


@contextmanager
def daemon(data_dir: Path, environment: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """Runs a daemon while the block runs."""
    data_dir.mkdir(parents=True, exist_ok=True)
    started = Daemon(data_dir, environment)
    try:
        yield started
    finally:
        started.end()


@contextmanager
def script(name: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Runs a script of this folder that prints its address first, while the block runs."""
    process = subprocess.Popen([sys.executable, HERE / name, *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().decode().strip()
    finally:
        process.kill()
        process.communicate()
