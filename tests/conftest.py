"""What tests start: a daemon in this process (`open_daemon`), or the real one beside it (`start_cohortd`).

Use them with `async with` inside the test: a task group opened in a fixture fails at teardown and hides a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import orjson
import pytest
from sockets import left_open, tcp_sockets

from daemon import clock
from daemon import settings as settings_module
from daemon.store import tokens

COHORTD = Path(sys.executable).with_name("cohortd")


@dataclass(frozen=True)
class Answer:
    """A reply: `data`, `message` and `errors` of the envelope, and the rest."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return orjson.loads(self.content)

    @property
    def data(self) -> Any:
        return self.body["data"]

    @property
    def message(self) -> str:
        return self.body["message"]

    @property
    def errors(self) -> Any:
        return self.body["errors"]


class Client:
    """Asks a daemon, with an admin token unless told otherwise."""

    def __init__(self, address: str, token: str, session: aiohttp.ClientSession) -> None:
        self.address = address
        self.token = token
        self.session = session

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        ok: bool = False,
    ) -> Answer:
        """Makes a request. `token` "": none. `ok`: fails the test unless the status is 2xx."""
        sent = dict(headers or {})
        if token is None:
            token = self.token
        if token:
            sent.setdefault("Authorization", token)
        if json is not None:
            data = orjson.dumps(json)
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, self.address + path, data=data, params=params, headers=sent, skip_auto_headers=("Content-Type",)
        ) as response:
            answer = Answer(response.status, response.headers.copy(), await response.read())
        if ok:
            assert 200 <= answer.status < 300, answer.content.decode()
        return answer

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> Answer:
        return await self.call("POST", path, json=json, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.call("DELETE", path, **options)


@dataclass
class Opened(Client):
    """A daemon in this process, and a client of it."""

    daemon: Any
    address: str
    token: str
    session: aiohttp.ClientSession


@asynccontextmanager
async def _open_daemon(data_dir: Path, **sections: Any) -> AsyncIterator[Opened]:
    from daemon import app  # noqa: PLC0415  (here, so that a unit test does not import the whole daemon)

    flags = {"data_dir": data_dir} | sections
    flags["server"] = {"listen": "127.0.0.1:0"} | sections.get("server", {})
    token = new_token(data_dir)
    async with app.opened(settings_module.load(flags=flags)) as daemon, aiohttp.ClientSession() as session:
        yield Opened(daemon, daemon.address, token, session)


def new_token(data_dir: Path, scope: tokens.Scope = "admin") -> str:
    with tokens.beside(data_dir) as db:
        return tokens.create(db, scope)


@dataclass
class Cohortd:
    """The real process `cohortd run`, its log, and a client of it. Killed when the test ends, if it still runs."""

    data_dir: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    token: str
    session: aiohttp.ClientSession
    address: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def client(self) -> Client:
        return Client(self.address, self.token, self.session)

    async def start(self) -> None:
        """Starts it and waits for `daemon_ready`; again on the same address after the first time."""
        listen = self.address.removeprefix("http://") or "127.0.0.1:0"
        self.log.clear()
        self.process = await asyncio.create_subprocess_exec(
            str(COHORTD),
            "run",
            "--data-dir",
            str(self.data_dir),
            "--listen",
            listen,
            *self.arguments,
            stdout=subprocess.PIPE,
            env={**os.environ, **self.environment},
            limit=16 * 1024 * 1024,
        )
        self._reader = asyncio.create_task(self._read(self.process))
        self.address = (await self.logged("daemon_ready"))["address"]

    async def logged(self, event: str, **facts: Any) -> dict[str, Any]:
        """Waits for a log line of that name with those facts; fails when the process ends before it."""
        seen = 0
        while True:
            self._grown.clear()
            for line in self.log[seen:]:
                if line.get("event") == event and facts.items() <= line.items():
                    return line
            seen = len(self.log)
            assert self._reader is not None
            if self._reader.done():
                raise AssertionError(f"it ended without {event}: {self.log[-5:]}")
            await self._grown.wait()

    async def kill(self) -> None:
        """Ends it by SIGKILL, in the middle of whatever it does."""
        await self._end(signal.SIGKILL)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it by a signal and gives its exit status."""
        return await self._end(number)

    async def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        status = await self.process.wait()
        if self._reader is not None:
            await self._reader
        return status

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.log.append(orjson.loads(line) if line.startswith(b"{") else {"event": "", "text": line.decode()})
            self._grown.set()
        self._grown.set()


@asynccontextmanager
async def _start_cohortd(
    data_dir: Path, *arguments: str, environment: Mapping[str, str] | None = None, start: bool = True
) -> AsyncIterator[Cohortd]:
    token = new_token(data_dir)
    async with aiohttp.ClientSession() as session:
        cohortd = Cohortd(data_dir, arguments, environment or {}, token, session)
        try:
            if start:
                await cohortd.start()
            yield cohortd
        finally:
            if cohortd.process is not None and cohortd.process.returncode is None:
                await cohortd.kill()


class Receiver:
    """A webhook receiver: `messages` in the order of their coming, `status` what it answers."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.requests: list[aiohttp.web.BaseRequest] = []
        self.status = 200
        self.address = ""
        self._grown = asyncio.Event()

    @property
    def events(self) -> list[tuple[str, str]]:
        """(slug, enter or exit) of every trigger that came."""
        found = (each["data"]["segment_events"] for each in self.messages)
        return [(event["slug"], event["event"]) for events in found for event in events]

    @property
    def trigger_ids(self) -> list[int]:
        found = (each["data"]["segment_events"] for each in self.messages)
        return [int(event["trigger_id"]) for events in found for event in events]

    async def until(self, holds: Any) -> None:
        """Waits until `holds(self)` after some message; fails after 20 s, with what came."""
        try:
            async with asyncio.timeout(20):
                while not holds(self):
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            pytest.fail(f"waited in vain; these came: {self.events}, {len(self.requests)} requests")

    async def _answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        content = orjson.loads(await request.read())
        self.requests.append(request)
        if self.status < 300:
            self.messages += content if isinstance(content, list) else [content]
        self._grown.set()
        return aiohttp.web.Response(status=self.status)


@asynccontextmanager
async def _open_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(receiver._answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.address = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
def open_receiver() -> Any:
    """`async with open_receiver() as receiver`: a webhook receiver at `receiver.address`.

    `await receiver.until(lambda it: len(it.messages) == 3)`; `receiver.events`, `receiver.status`.
    """
    return _open_receiver


@pytest.fixture
def open_daemon() -> Any:
    """`async with open_daemon(tmp_path, collect={…}) as opened`: a daemon in this process, on a free port.

    `opened.get/post/delete/call` ask it; `opened.daemon.services` are its parts; keywords are sections of settings.
    """
    return _open_daemon


@pytest.fixture
def start_cohortd() -> Any:
    """`async with start_cohortd(tmp_path, *arguments, environment={…}) as cohortd`: the real process.

    `cohortd.client` asks it; `await cohortd.kill()`, `.start()` (same address), `.stop()`, `.logged(event)`.
    """
    return _start_cohortd


@pytest.fixture(scope="session")
def azurite(tmp_path_factory) -> Any:
    """A blob store that all tests of the process share: make containers of your own, and do not stop it."""
    from azurite import azurite as running  # noqa: PLC0415  (here, so that other tests need no Node)

    with running(tmp_path_factory.mktemp("azurite")) as peer:
        yield peer


@pytest.fixture(scope="session")
def sql_peer(tmp_path_factory) -> Any:
    """A database server that all tests of the process share: make tables of your own, and do not stop it."""
    from tds.running import serving  # noqa: PLC0415  (here, so that other tests need no DuckDB)

    with serving(tmp_path_factory.mktemp("tds")) as peer:
        yield peer


@pytest.fixture(scope="session")
def eventhub(tmp_path_factory) -> Any:
    """An Event Hubs namespace that all tests of the process share: make hubs of your own, and do not stop it."""
    from eventhub.started import running  # noqa: PLC0415  (here, so that other tests need no AMQP engine)

    with running(tmp_path_factory.mktemp("eventhub")) as peer:
        yield peer


@pytest.fixture
def make_token() -> Any:
    """`make_token(data_dir, scope)` gives a new token, as `cohortd token create` does."""
    return new_token


_SOCKETS = pytest.StashKey[dict[str, str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_SOCKETS] = tcp_sockets()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Last of all, when the test's event loop is closed too: looks for what it forgot."""
    left = left_open(item.stash[_SOCKETS])
    if left:
        pytest.fail(f"the test left TCP sockets open: {', '.join(left)}", pytrace=False)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("COHORTD_") or name in ("STATE_DIRECTORY", "CONFIGURATION_DIRECTORY", "NOTIFY_SOCKET"):
            monkeypatch.delenv(name)


@pytest.fixture
def frozen_clock() -> Any:
    """A clock that stands still: `frozen_clock.us` is its time in microseconds, to be set at will."""

    class Frozen:
        us = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z

    frozen = Frozen()
    clock.freeze(lambda: frozen.us)
    yield frozen
    clock.freeze(None)
