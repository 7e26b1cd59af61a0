"""What every provider holds to, over all of `catalog()`. A job type needs a case here: where it works, what arrived.

The cases stand at the end. Everything outside is real (folders, a server); what the daemon offers is played here, so
that it can break off at any moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import threading
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp.web
import orjson
import pytest
import structlog
from pydantic import SecretStr, TypeAdapter, ValidationError
from structlog.testing import capture_logs
from tds import running as tds

from connectors.azure.hub import EventHubCredentials
from connectors.azure.sql import SqlCredentials
from connectors.azure.storage import StorageCredentials
from connectors.sdk.catalog import catalog
from connectors.sdk.declare import AudienceJob, AuthCheck, Choices, EventsJob, ImportJob, SystemJob, TriggerJob
from connectors.sdk.errors import AuthError, ConfigError, NotYetError, TransientError
from connectors.sdk.exports import AudienceRun, ChangePage, EventPage, EventsRun, Line, LogPlace, Member, StoredEvent
from connectors.sdk.imports import MOST_ROWS, Emitted, ImportRun, Stored
from connectors.sdk.run import Message, Network, Patience, TriggerRun
from connectors.sdk.secret import Secret

KNOWN = catalog()
KINDS = {TriggerJob: "export", ImportJob: "import", AudienceJob: "export", EventsJob: "export"}
SECRET = "hush-0123456789-hush"
COUNT = 600
NOW_US = 1_800_000_000_000_000
#: How long a run may take to end when it is cancelled, in seconds: half of what the daemon waits.
ENDS_S = 1.5

job_types = pytest.mark.parametrize("slug", sorted(KNOWN.job_types))
methods = pytest.mark.parametrize(
    ("provider", "method"), [(each.slug, way.slug) for each in KNOWN.providers.values() for way in each.auths]
)


class CutError(BaseException):
    """The process ended here."""


# --- declarations


@pytest.mark.parametrize("slug", sorted(KNOWN.providers))
def test_a_provider_declares_itself_completely(slug):
    provider = KNOWN.providers[slug]

    assert re.fullmatch(r"[a-z][a-z0-9_]*", slug)
    assert provider.label
    assert re.search(r"[.…]$", provider.description)
    assert provider.jobs or provider.auths
    assert len({each.slug for each in provider.auths}) == len(provider.auths)
    for way in provider.auths:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", way.slug)
        assert way.label
        assert way.config.model_config["extra"] == "forbid"
        assert all(each.description for each in way.config.model_fields.values()), way.slug


@job_types
def test_a_job_type_declares_itself_completely(slug):
    kind = KNOWN.job_types[slug]
    provider = KNOWN.providers[KNOWN.provider_of[slug]]

    assert slug.startswith(f"{provider.slug}_")
    assert kind.label
    assert re.search(r"[.…]$", kind.description)
    assert kind.direction == KINDS.get(type(kind), kind.direction)
    assert set(kind.auths) <= set(provider.auths)
    assert kind.auths or not kind.auth_required
    assert kind.config.model_config["extra"] == "forbid"
    assert kind.config.model_config["frozen"]
    for name, each in kind.config.model_fields.items():
        assert each.description, name
        assert each.annotation is not SecretStr, f"{name}: secrets belong into an authorization"


@job_types
def test_its_schema_and_its_configuration_survive_json(slug, tmp_path):
    kind = KNOWN.job_types[slug]
    config = kind.config.model_validate(CASES[slug].config(tmp_path, "http://127.0.0.1:1"))
    schema = kind.config.model_json_schema()

    assert orjson.loads(orjson.dumps(schema)) == schema
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert kind.config.model_validate_json(config.model_dump_json()) == config
    assert kind.config.model_validate(orjson.loads(orjson.dumps(config.model_dump(mode="json")))) == config
    assert set(config.model_dump(mode="json")) == set(schema["properties"])
    with pytest.raises(ValidationError):
        kind.config.model_validate(config.model_dump() | {"no_such_field": 1})


@job_types
def test_what_can_be_chosen_stands_in_its_schema(slug):
    kind = KNOWN.job_types[slug]
    found = [
        mark.name
        for each in kind.config.model_fields.values()
        for mark in _marks(each.annotation, each.metadata)
        if isinstance(mark, Choices)
    ]

    text = json.dumps(kind.config.model_json_schema())
    assert all(f'"x-choices": "{name}"' in text for name in found)


def _marks(annotation: Any, metadata: Sequence[Any]) -> list[Any]:
    marks = [*metadata, *getattr(annotation, "__metadata__", ())]
    for inner in getattr(annotation, "__args__", ()):
        marks += _marks(inner, ())
    return marks


# --- authorizations


@methods
def test_no_secret_of_an_authorization_shows(provider, method):
    way = next(each for each in KNOWN.providers[provider].auths if each.slug == method)
    config = way.config.model_validate(LOGINS[provider, method]("http://127.0.0.1:1"))

    shown = [repr(config), str(config), f"{config!r:s}", config.model_dump_json(), repr(config.model_dump())]
    with capture_logs() as logs:
        structlog.get_logger().info("shown", config=config)
    shown.append(repr(logs))
    with pytest.raises(ValidationError) as refused:
        way.config.model_validate(LOGINS[provider, method]("http://127.0.0.1:1") | {"no_such_field": 1})
    shown.append(json.dumps(refused.value.errors(include_input=False, include_url=False), default=str))

    assert SECRET in repr([secret.reveal() for secret in config.secrets()] if hasattr(config, "secrets") else SECRET)
    assert not [text for text in shown if SECRET in text]


@methods
async def test_a_refused_login_is_an_authorization_error_without_the_secret(provider, method):
    way = next(each for each in KNOWN.providers[provider].auths if each.slug == method)
    async with served() as receiver:
        receiver.status = 401
        config = way.config.model_validate(LOGINS[provider, method](receiver.address))
        if way.check is None or not way.can_check(config):
            pytest.skip("it cannot be checked")
        check = AuthCheck(config=config, network=Network(5), log=structlog.get_logger(), now_us=lambda: NOW_US)
        with pytest.raises((AuthError, ConfigError)) as told:
            await way.check(check)

    assert str(told.value)
    assert SECRET not in repr(told.value)


# --- runs


class Log:
    """The log of a run."""

    def __init__(self, lines):
        self._lines = lines

    def info(self, event, **facts):
        self._lines.append({"event": event} | facts)

    debug = warning = error = exception = info

    def bind(self, **_):
        return self


@dataclass
class Daemon:
    """What a run is offered, by a daemon that can end at any of its calls (`cut_at`); what it keeps, it keeps."""

    cut_at: int = 0
    calls: int = 0
    checkpoint: Any = None
    rows: list[Any] = field(default_factory=list)
    logged: list[Any] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)
    lent: int = 0
    all_settled: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self) -> None:
        self.calls += 1
        if self.calls == self.cut_at:
            raise CutError

    # control, and the sink of rows

    async def save(self, checkpoint):
        self.step()
        self.checkpoint = orjson.loads(orjson.dumps(checkpoint))

    async def request(self):
        self.step()

    def count(self, **_):
        pass

    async def tell(self, reason):
        pass

    def finish(self):
        pass

    async def hand_over(self, rows, checkpoint, *, lines=(), refused=()):
        self.step()
        assert len(rows) <= MOST_ROWS
        assert not lines or len(lines) == len(rows)
        self.rows += rows
        self.checkpoint = orjson.loads(orjson.dumps(checkpoint))
        await asyncio.sleep(0)
        return Stored(Emitted(len(rows), len(refused), 0))

    @asynccontextmanager
    async def difference(self, _name):
        yield self

    # members

    def columns(self):
        return ["email", "n"]

    async def moment(self):
        return 7

    async def members(self, _moment, *, fields, after):
        for first in range(after, COUNT, 50):
            self.step()
            await asyncio.sleep(0)
            every = [{"email": f"p{n}@example.org", "n": n} for n in range(first + 1, min(first + 51, COUNT + 1))]
            shown = [{k: v for k, v in each.items() if fields is None or k in fields} for each in every]
            yield [Member(each["n"], row, ["vip"]) for each, row in zip(every, shown, strict=True)]

    async def member_lines(self, moment, line, *, fields, after):
        async for page in self.members(moment, fields=fields, after=after):
            yield [Line(each.profile, line(each.fields)) for each in page]

    async def changes(self, _after, upto, **_):
        yield ChangePage([], upto)

    # events

    async def place(self):
        return LogPlace(COUNT, 0)

    async def events(self, _streams, *, after, upto, **_):
        for first in range(after.realtime, upto.realtime, 50):
            self.step()
            await asyncio.sleep(0)
            last = min(first + 50, upto.realtime)
            page = [StoredEvent("web", NOW_US, NOW_US, {"n": n}) for n in range(first + 1, last + 1)]
            yield EventPage(page, LogPlace(last, 0))

    # triggers

    def leases(self, batching, *, ordered, **_):
        return Leases(self, batching, ordered)


class Leases:
    def __init__(self, daemon, batching, ordered):
        self._daemon = daemon
        self._count = min(batching.count, 100)
        self._ordered = ordered
        self._next = [n for n in range(1, COUNT + 1) if n not in daemon.settled]
        self._given: list[Lease] = []

    async def next(self, timeout_s=None):
        self._daemon.step()
        await asyncio.sleep(0)
        if not self._next:
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.Event().wait()
            except TimeoutError:
                return None
        numbers, self._next = self._next[: self._count], self._next[self._count :]
        lease = Lease(self._daemon, numbers, self._given if self._ordered else [])
        self._given.append(lease)
        return lease


class Lease:
    def __init__(self, daemon, numbers, before):
        self._daemon = daemon
        self._numbers = numbers
        self._before = before
        self.settled = False
        self.messages = [Message(str(n), orjson.dumps({"id": str(n), "data": {"n": n}}), 1, 0) for n in numbers]

    def note(self, **_):
        pass

    def ack(self, **_):
        for each in [*self._before, self]:
            each.settled = True
            self._daemon.settled.update(each._numbers)
        if len(self._daemon.settled) == COUNT:
            self._daemon.all_settled.set()

    def omit(self, reason, **_):
        raise AssertionError(f"omitted: {reason}")

    def failed(self, error, **_):
        pass


async def go(slug: str, daemon: Daemon, folder: Path, address: str, auth: Any = None) -> None:
    """Runs a job once as the daemon does; a run of triggers is ended when all are settled."""
    kind = KNOWN.job_types[slug]
    auth = CASES[slug].auth(address) if auth is None else auth
    common = {
        "job": "job1",
        "config": kind.config.model_validate(CASES[slug].config(folder, address)),
        "log": Log(daemon.logged),
        "secret": lambda _: Secret(SECRET),
        "exports": folder / "exports",
        "imports": folder / "imports",
        "now_us": lambda: NOW_US,
        "control": daemon,
        "network": Network(5),
        "patience": Patience(total_s=0),
        "checkpoint": daemon.checkpoint,
        "auth": auth,
    }
    match kind:
        case ImportJob():
            await kind.run(ImportRun(sink=daemon, **common))
        case AudienceJob():
            await kind.run(AudienceRun(source=daemon, **common))
        case EventsJob():
            await kind.run(EventsRun(source=daemon, **common))
        case TriggerJob() | SystemJob():
            running = asyncio.ensure_future(kind.run(TriggerRun(source=daemon, **common)))
            settling = asyncio.ensure_future(daemon.all_settled.wait())
            try:
                await asyncio.wait([running, settling], return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
            finally:
                for each in (running, settling):
                    each.cancel()
                await asyncio.wait([running, settling])


@pytest.fixture
def case(slug: str, request: pytest.FixtureRequest) -> Any:
    """The job type's case, with the peer that it needs, if any: a fixture of that name."""
    found = CASES[slug]
    if found.peer_name:
        found.peer = request.getfixturevalue(found.peer_name)
    return found


@job_types
async def test_wherever_it_is_cut_off_it_goes_on_and_all_arrives(slug, case, tmp_path):
    async with served() as receiver:
        case.prepare(tmp_path)
        daemon = Daemon()
        cuts = 0
        while True:
            daemon.calls, daemon.cut_at = 0, 3 + cuts % 4  # each time it comes a little further
            try:
                await go(slug, daemon, tmp_path, receiver.address)
            except CutError:
                cuts += 1
                assert cuts < 100, "it comes no further"
                if cuts % 4 == 0:
                    daemon.cut_at = 0
                    await go(slug, daemon, tmp_path, receiver.address)
                    break
                continue
            break
        arrived = case.arrived(tmp_path, receiver, daemon)

    assert cuts >= 2
    assert set(arrived) >= set(range(1, COUNT + 1)), "at least once"
    if case.once:
        assert sorted(arrived) == list(range(1, COUNT + 1))


@job_types
async def test_cancelled_at_any_moment_it_ends_soon_and_leaks_nothing(slug, case, tmp_path):
    async with served() as receiver:
        case.prepare(tmp_path)
        await _cancelled(slug, tmp_path, receiver.address, 1)  # what libraries keep for good is there from now on
        tasks, files = _tasks(), _open_files(tmp_path)
        threads = threading.active_count()
        for turns in (0, 1, 3, 10, 30, 100, 300):
            await _cancelled(slug, tmp_path, receiver.address, turns)

            assert _tasks() == tasks
            async with asyncio.timeout(5):  # a thread that nobody waits for closes its file when it comes back
                while _open_files(tmp_path) != files:
                    await asyncio.sleep(0.01)
    assert threading.active_count() <= threads + 8  # those of the pool are used again


async def _cancelled(slug, folder, address, turns):
    daemon = Daemon()
    running = asyncio.ensure_future(go(slug, daemon, folder, address))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=ENDS_S)
    assert done, f"it did not end within {ENDS_S} s"
    if not running.cancelled() and (error := running.exception()) is not None:
        assert isinstance(error, NotYetError), error


def _tasks() -> set[Any]:
    """The tasks that there are, without those of the server."""
    return {
        each for each in asyncio.all_tasks() if "accept_connection" not in repr(each) and "aiohttp" not in repr(each)
    }


def _open_files(folder: Path) -> list[str]:
    found = []
    for each in os.listdir("/proc/self/fd"):  # noqa: PTH208  (names, not files)
        try:
            found.append(os.readlink(f"/proc/self/fd/{each}"))  # noqa: PTH115
        except OSError:
            continue
    return sorted(each for each in found if each.startswith(str(folder)))


@job_types
async def test_where_its_login_is_refused_the_authorization_is_blamed(slug, case, tmp_path):
    kind = KNOWN.job_types[slug]
    if not kind.auths:
        pytest.skip("it needs no authorization")
    provider = KNOWN.provider_of[slug]
    async with served() as receiver:
        receiver.status = 401
        case.prepare(tmp_path)
        for way in kind.auths:
            auth = way.config.model_validate(LOGINS[provider, way.slug](receiver.address))
            daemon = Daemon()
            with pytest.raises(AuthError) as told:
                await go(slug, daemon, tmp_path, receiver.address, auth)

            assert SECRET not in repr((told.value, daemon.logged))


@job_types
async def test_what_cannot_be_reached_now_is_no_bug(slug, tmp_path):
    """A destination or a source that is not there is waited for or said, and never an exception of another kind."""
    told = "written, or told: nothing to say"
    try:
        await go(slug, Daemon(), tmp_path, "http://127.0.0.1:1/none")
    except (TransientError, NotYetError, ConfigError) as error:
        told = str(error)

    assert len(told) > 10


class Peer:
    """A server that answers everything with `status`, and keeps what it accepted."""

    def __init__(self):
        self.status = 200
        self.messages: list[Any] = []
        self.address = ""

    async def answer(self, request):
        content = await request.read()
        if self.status < 300 and content:
            given = orjson.loads(content)
            self.messages += given if isinstance(given, list) else [given]
        return aiohttp.web.Response(status=self.status, text=f"you sent {request.headers.get('Authorization', '')}")


@asynccontextmanager
async def served():
    peer = Peer()
    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(peer.answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        peer.address = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield peer
    finally:
        await runner.cleanup()


# --- the cases: what is known of each job type, and how to log in where


class Case:
    """What all cases have: whether each row arrives once, which peer is needed beside the server, how it lets in."""

    once = True
    peer_name = ""
    peer: Any = None

    def auth(self, _address):
        return None


class FileCase(Case):
    """Folders of this host."""

    def __init__(self, **config):
        self._config = config

    def config(self, folder, _address):
        del folder
        return self._config

    def prepare(self, folder):
        (folder / "imports").mkdir(exist_ok=True)
        path = folder / "imports" / "rows.csv"
        path.write_text("n,text\n" + "".join(f"{n},{'x' * 2000}\n" for n in range(1, COUNT + 1)))
        os.utime(path, (NOW_US / 1e6 - 100, NOW_US / 1e6 - 100))

    def arrived(self, folder, _receiver, daemon):
        if daemon.rows:
            return [int(row["n"]) for row in daemon.rows]
        files = [each for each in (folder / "exports").rglob("*") if each.is_file() and not each.name.startswith(".")]
        found = []
        for path in files:
            for line in path.read_text().splitlines():
                if line.startswith("{"):
                    found.append(json.loads(line)["data"]["n"])
                elif line.split(",")[-1].isdecimal():
                    found.append(int(line.split(",")[-1]))
        return found


class HookCase(Case):
    """A server of this host; what was not acknowledged comes again."""

    once = False

    def config(self, _folder, address):
        return {"url": address, "audiences": ["vip"], "batch_size": 50}

    def prepare(self, folder):
        pass

    def arrived(self, _folder, receiver, _daemon):
        return [int(each["id"]) for each in receiver.messages]


class AlertCase(HookCase):
    """The same server, told one event after the other."""

    def config(self, _folder, address):
        return {"url": address, "batch_size": 50}


class LogCase(HookCase):
    """The log of the run."""

    def config(self, _folder, _address):
        return {}

    def arrived(self, _folder, _receiver, daemon):
        return [int(each["id"]) for each in daemon.logged if each["event"] == "alert_told"]


class BlobCase(Case):
    """A container of Azurite, named after the test's folder."""

    peer_name = "azurite"

    def __init__(self, **config):
        self._config = config

    def config(self, folder, _address):
        return self._config | {"container": self._container(folder)}

    def auth(self, address):
        gone = address.startswith("http://127.0.0.1:1/")
        string = LOGINS["azure", "azure_storage"](address)["connection_string"] if gone else self.peer.connection_string
        return StorageCredentials.model_validate({"connection_string": string})

    def prepare(self, folder):
        self.peer.create(self._container(folder))

    def arrived(self, folder, _receiver, _daemon):
        container = self._container(folder)
        lines = [line for name in self.peer.names(container) for line in self.peer.read(container, name).splitlines()]
        return [
            json.loads(line)["n"] if line.startswith(b"{") else int(line.rsplit(b",")[-1])
            for line in lines
            if line.startswith(b"{") or line.rsplit(b",")[-1].isdigit()
        ]

    def _container(self, folder):
        return "c" + hashlib.sha256(str(folder).encode()).hexdigest()[:30]


class BlobRowsCase(BlobCase):
    """A file of rows in a container."""

    def prepare(self, folder):
        super().prepare(folder)
        rows = "n,text\n" + "".join(f"{n},{'x' * 2000}\n" for n in range(1, COUNT + 1))
        self.peer.put(self._container(folder), "rows.csv", rows.encode())

    def arrived(self, _folder, _receiver, daemon):
        return [int(row["n"]) for row in daemon.rows]


class SqlCase(Case):
    """A table of a database server."""

    peer_name = "sql_peer"

    def auth(self, address):
        port = 1 if address.startswith("http://127.0.0.1:1/") else self.peer.port
        return SqlCredentials.model_validate(sql_login(port, tds.PASSWORD))

    def config(self, _folder, _address):
        return {"table": "numbers", "timestamp_column": "changed"}

    def prepare(self, folder):
        del folder
        rows = ", ".join(f"({n}, '2026-01-01T00:00:{n % 60:02d}', '{'x' * 100}')" for n in range(1, COUNT + 1))
        self.peer.sql("DROP TABLE IF EXISTS numbers")
        self.peer.sql("CREATE TABLE numbers (n int, changed datetime2(0), text varchar(200))")
        self.peer.sql(f"INSERT INTO numbers VALUES {rows}")

    def arrived(self, _folder, _receiver, daemon):
        return [row["n"] for row in daemon.rows]


def sql_login(port, password):
    login = {"server": "127.0.0.1", "port": port, "database": tds.DATABASE, "user": tds.USER, "password": password}
    return login | {"encrypt": False}


class EventHubCase(Case):
    """A hub of the peer; what was not acknowledged comes again."""

    once = False
    peer_name = "eventhub"
    _hub = "none"

    def config(self, _folder, _address):
        return {"audiences": ["vip"], "flush_seconds": 0}

    def auth(self, address):
        port = 1 if address.startswith("http://127.0.0.1:1/") else None
        return EventHubCredentials(connection_string=STARTED["eventhub"].connection(self._hub, port=port))

    def prepare(self, folder):
        self._hub = "h" + hashlib.sha256(str(folder).encode()).hexdigest()[:30]
        self.peer.ask_now("create", hub=self._hub, partitions=1)

    def arrived(self, _folder, _receiver, _daemon):
        return [int(each["message_id"]) for each in self.peer.ask_now("events", hub=self._hub)]


CASES = {
    "azure_blob_export_audience_csv": BlobCase(
        audiences=["vip"], one_time=True, user_fields=["email", "n"], max_file_bytes=2000
    ),
    "azure_blob_export_audience_json": BlobCase(audiences=["vip"], one_time=True, max_file_bytes=2000),
    "azure_blob_export_events": BlobCase(),
    "azure_blob_import": BlobRowsCase(stream="web", file="rows.csv"),
    "azure_sql_import": SqlCase(),
    "azure_eventhub_export": EventHubCase(),
    "files_import": FileCase(stream="web", folder=".", file="rows.csv"),
    "files_export_audience": FileCase(
        audiences=["vip"], folder="out", one_time=True, format="csv", user_fields=["email", "n"], max_file_bytes=2000
    ),
    "files_export_events": FileCase(folder="out"),
    "files_export_triggers": FileCase(audiences=["vip"], folder="out", rotate_bytes=2000, rotate_seconds=0.01),
    "log_system_events": LogCase(),
    "webhook_system_events": AlertCase(),
    "webhook_triggers": HookCase(),
}
#: Methods of logging in that need a peer of their own, and those that run.
PEERS = {"azure_sql": "sql_peer", "azure_eventhub": "eventhub"}
STARTED: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _peer_of_a_login(request):
    named = getattr(request.node, "callspec", None)
    given = {} if named is None else named.params
    slugs = [given.get("method"), *(way.slug for way in getattr(KNOWN.job_types.get(given.get("slug")), "auths", ()))]
    for name in {PEERS[slug] for slug in slugs if slug in PEERS}:
        STARTED[name] = request.getfixturevalue(name)


LOGINS = {
    ("azure", "azure_storage"): lambda url: {
        "connection_string": f"BlobEndpoint={url};SharedAccessSignature=sv=2025-11-05&ss=b&srt=sco&sp=rwl&sig={SECRET}"
    },
    ("azure", "azure_sql"): lambda _url: sql_login(STARTED["sql_peer"].port, SECRET),
    ("azure", "azure_eventhub"): lambda _url: {"connection_string": STARTED["eventhub"].connection(key=SECRET)},
    ("webhook", "bearer"): lambda url: {"token": SECRET, "check_url": url},
    ("webhook", "basic"): lambda url: {"user": "ann", "password": SECRET, "check_url": url},
    ("webhook", "headers"): lambda url: {"headers": {"X-Key": SECRET}, "check_url": url},
    ("webhook", "signature"): lambda _url: {"signing_secret": SECRET},
}


def test_every_job_type_and_every_login_has_a_case():
    assert sorted(CASES) == sorted(KNOWN.job_types)
    assert sorted(LOGINS) == sorted((each.slug, way.slug) for each in KNOWN.providers.values() for way in each.auths)
    assert TypeAdapter(dict).validate_python(CASES)
