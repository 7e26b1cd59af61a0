"""`azure_sql_import` against a server that speaks TDS, by Microsoft's driver and by FreeTDS; alone and in a daemon."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import orjson
import pymssql
import pytest
import structlog
from chaos import chaos
from structlog.testing import capture_logs
from tds.running import DATABASE, PASSWORD, USER, serving

from connectors.azure import sql_driver, sql_import, sql_rows, sql_session
from connectors.azure.sql import AZURE_SQL, SqlCredentials
from connectors.azure.sql_columns import CONVERSIONS, find_columns, find_moments, find_tables
from connectors.azure.sql_import import AzureSqlImport
from connectors.sdk.declare import AuthCheck, Choosing
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.imports import MOST_ROWS, Emitted, ImportRun, Stored
from connectors.sdk.run import Network

NOW_US = 1_800_000_000_000_000
DRIVERS = ("microsoft", "freetds")
drivers = pytest.mark.parametrize("driver", DRIVERS)
_names = itertools.count()


@pytest.fixture(autouse=True)
def _faults_end(request):
    yield
    if "sql_peer" in request.fixturenames:
        request.getfixturevalue("sql_peer").clear()


class CutError(Exception):
    """The process ended here."""


class Daemon:
    """What the daemon is to an import: rows and checkpoint together. `cut_at`: ends it at that emission."""

    def __init__(self, checkpoint=None):
        self.rows = []
        self.lines = []
        self.refused = []
        self.checkpoint = checkpoint
        self.told = []
        self.requests = 0
        self.emissions = 0
        self.cut_at = None
        self.before_emit = lambda: None

    async def hand_over(self, rows, checkpoint, *, lines=(), refused=()):
        assert len(rows) <= MOST_ROWS
        assert len(rows) == len(lines)
        self.emissions += 1
        self.before_emit()
        if self.emissions == self.cut_at:
            raise CutError
        self.rows += rows
        self.lines += lines
        self.refused += refused
        self.checkpoint = orjson.loads(orjson.dumps(checkpoint))
        return Stored(Emitted(len(rows), len(refused), 0))

    async def request(self):
        self.requests += 1

    def count(self, **_):
        pass

    async def tell(self, reason):
        self.told.append(reason)


def login(peer, **other):
    return {
        "server": "127.0.0.1", "port": peer.port, "database": DATABASE, "user": USER, "password": PASSWORD,
        "encrypt": False,
    } | other  # fmt: skip


def made(peer, columns, *rows):
    """Makes a table of a name of its own, and gives that."""
    name = f"t{next(_names)}_{os.getpid()}"
    peer.sql(f"CREATE TABLE {name} ({columns})")
    if rows:
        peer.sql(f"INSERT INTO {name} VALUES {', '.join(rows)}")
    return name


async def imported(peer, daemon=None, *, driver="auto", seconds=5.0, repeats=False, auth=None, **config):
    """Runs the import once."""
    daemon = daemon or Daemon()
    run = ImportRun(
        job="ab" * 16,
        config=AzureSqlImport.model_validate(config),
        log=structlog.get_logger(),
        secret=lambda _: None,
        exports=Path(),
        now_us=lambda: NOW_US,
        control=daemon,
        network=Network(seconds),
        sink=daemon,
        repeats=repeats,
        checkpoint=daemon.checkpoint,
        auth=SqlCredentials.model_validate(login(peer, driver=driver) | (auth or {})),
    )
    await sql_import.run(run)
    return daemon


async def until(holds, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


async def threads_are_gone():
    await until(lambda: not [each for each in threading.enumerate() if each.name.startswith("azure sql")])


# --- the authorization


async def check(**values):
    config = SqlCredentials.model_validate(values)
    await AZURE_SQL.check(
        AuthCheck(config=config, network=Network(3), log=structlog.get_logger(), now_us=lambda: NOW_US)
    )


@drivers
async def test_the_check_tells_what_is_wrong_apart(sql_peer, driver):
    here = login(sql_peer, driver=driver)
    await check(**here)
    cases = [
        (here | {"password": "hush, another one"}, {}, AuthError, "Login failed for user 'lab'"),
        (here | {"database": "other"}, {}, AuthError, "other" if driver == "microsoft" else "Login failed"),
        (here, {"number": 40615, "words": "Client with IP address '1.2.3.4' is not allowed"}, AuthError, "1.2.3.4"),
        (here, {"number": 40613, "words": "Database is not currently available"}, TransientError, "not currently"),
        (here | {"port": 1}, {}, TransientError, "127.0.0.1:1"),
        (here | {"server": "no-such.invalid"}, {}, TransientError, "is the name right"),
        (here, {"kind": "hang"}, TransientError, "took too long"),
    ]
    for values, fault, kind, words in cases:
        if fault:
            sql_peer.fault(match="login", **fault)
        with pytest.raises(kind, match=words) as told:
            await check(**values)

        assert type(told.value) is kind, values
        assert PASSWORD not in str(told.value)
        assert "hush" not in repr(told.value)
    await threads_are_gone()


async def test_a_certificate_is_checked_and_freetds_says_that_it_cannot(sql_peer):
    with pytest.raises((AuthError, TransientError)):
        await check(**login(sql_peer, encrypt=True, driver="microsoft"))  # the server has none
    with pytest.raises(ConfigError, match="does not check whom it talks to"):
        await check(**login(sql_peer, encrypt=True, driver="freetds"))
    with pytest.raises(ConfigError, match="Microsoft's driver"):
        await check(**login(sql_peer, password="a}b", driver="freetds"))


async def test_an_address_that_is_not_allowed_is_refused_before_anything_is_sent(sql_peer):
    config = SqlCredentials.model_validate(login(sql_peer))
    network = Network(3, allow_loopback=False)
    before = sql_peer.stats["logins"]
    with pytest.raises(ConfigError, match="allow_loopback"):
        await AZURE_SQL.check(
            AuthCheck(config=config, network=network, log=structlog.get_logger(), now_us=lambda: NOW_US)
        )

    assert before == sql_peer.stats["logins"]


@pytest.mark.parametrize(
    ("drivers", "wanted", "found"),
    [
        (["FreeTDS", "ODBC Driver 17 for SQL Server", "ODBC Driver 18 for SQL Server"], "auto", "ODBC Driver 18"),
        (["FreeTDS", "ODBC Driver 17 for SQL Server"], "auto", "ODBC Driver 17"),
        (["FreeTDS"], "auto", "libmsodbcsql"),
        (["FreeTDS"], "freetds", "FreeTDS"),
    ],
)
def test_the_driver_is_found_microsofts_first(monkeypatch, drivers, wanted, found):
    monkeypatch.setattr(sql_driver, "pyodbc", lambda: SimpleNamespace(drivers=lambda: drivers))

    assert found in sql_driver.find_driver(wanted).name


def test_where_there_is_no_driver_it_says_what_to_install(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sql_driver, "pyodbc", lambda: SimpleNamespace(drivers=list))
        patch.setattr(sql_driver.importlib.util, "find_spec", lambda _: None)
        for wanted in ("auto", "microsoft", "freetds"):
            with pytest.raises(ConfigError, match=r"msodbcsql18.*mssql-python-odbc.*tdsodbc"):
                sql_driver.find_driver(wanted)
    for error, words in ((ModuleNotFoundError("pyodbc"), r"cohortd\[azuresql\]"), (ImportError("libodbc"), "unixodbc")):

        def missing(_name, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(sql_driver.importlib, "import_module", missing)
            with pytest.raises(ConfigError, match=words):
                sql_driver.find_driver("auto")


# --- rows

TYPES = {
    "bit": ("1", True), "tinyint": ("255", 255), "smallint": ("-32768", -32768), "int": ("7", 7),
    "bigint": ("9223372036854775807", 2**63 - 1), "real": ("1.5", 1.5), "float": ("2.25", 2.25),
    "decimal(38,10)": ("-1234567890123456789012345678.0123456789", "-1234567890123456789012345678.0123456789"),
    "numeric(5,1)": ("1.5", "1.5"), "money": ("-12.3456", "-12.3456"), "smallmoney": ("1.5", "1.5000"),
    "char(10)": ("'ab'", "ab"), "nchar(10)": ("N'ü'", "ü"), "varchar(20)": ("'é'", "é"),
    "nvarchar(20)": ("N'ümläut € 😀'", "ümläut € 😀"), "nvarchar(max)": ("N'ümläut'", "ümläut"), "text": ("'t'", "t"),
    "ntext": ("N'ü'", "ü"), "sysname": ("N'name'", "name"), "xml": ("N'<a/>'", "<a/>"),
    "json": ("""N'{"a": [1, null]}'""", {"a": [1, None]}), "vector(2)": ("N'[1.5,2]'", [1.5, 2]),
    "binary(4)": ("0x01020304", "AQIDBA=="), "varbinary(max)": ("0x00ff", "AP8="), "image": ("0x01", "AQ=="),
    "uniqueidentifier": ("'6F9619FF-8B86-D011-B42D-00C04FC964FF'", "6F9619FF-8B86-D011-B42D-00C04FC964FF"),
    "date": ("'0001-01-01'", "0001-01-01"), "time(7)": ("'12:34:56.123456'", "12:34:56.1234560"),
    "datetime": ("'2026-01-31T12:00:00.127'", "2026-01-31T12:00:00.127Z"),
    "smalldatetime": ("'2026-01-31T12:00:31'", "2026-01-31T12:01:00Z"),
    "datetime2(7)": ("'2026-01-31T12:00:00.123456'", "2026-01-31T12:00:00.1234560Z"),
    "datetimeoffset(3)": ("'2026-01-31T12:00:00.123+02:00'", "2026-01-31T10:00:00.1230000Z"),
    "rowversion": ("2001", 2001), "sql_variant": ("'v'", "v"), "hierarchyid": ("'/1/2/'", "/1/2/"),
    "geography": ("'POINT (1 2)'", "POINT (1 2)"), "geometry": ("'POINT (3 4)'", "POINT (3 4)"),
}  # fmt: skip


@drivers
async def test_values_of_every_type_arrive_as_the_readme_says(sql_peer, driver):
    columns = ", ".join(f"[c {place}] {kind}" for place, kind in enumerate(TYPES))
    values = ", ".join(value for value, _ in TYPES.values())
    table = made(sql_peer, f"at datetime2(7), {columns}", f"('2026-01-01', {values})")
    sql_peer.sql(f"INSERT INTO {table} (at) VALUES ('2026-01-02')")
    daemon = await imported(sql_peer, driver=driver, table=table, timestamp_column="at")

    first, second = daemon.rows
    assert first.pop("at") == "2026-01-01T00:00:00Z"
    assert dict(zip(TYPES, first.values(), strict=True)) == {kind: value for kind, (_, value) in TYPES.items()}
    assert second == {"at": "2026-01-02T00:00:00Z"}
    assert {kind.partition("(")[0] for kind in TYPES} == CONVERSIONS.keys() - {"timestamp"}


def test_the_readme_has_every_type():
    readme = (Path(sql_import.__file__).parent / "README.md").read_text("utf-8")
    table = readme[readme.index("| Type of T-SQL") :]

    assert [kind for kind in CONVERSIONS if f"`{kind}`" not in table] == []


@drivers
async def test_rows_come_oldest_first_from_one_temporary_table_that_nobody_else_sees(sql_peer, driver, monkeypatch):
    monkeypatch.setattr(sql_import, "PAGE_ROWS", 700)
    table = made(sql_peer, "id int, at datetime2(3)")
    sql_peer.duck(
        f"INSERT INTO dbo.{table} SELECT i, TIMESTAMP '2026-01-01' + INTERVAL ((i * 7919) % 3000) SECOND"
        " FROM range(3000) t(i)"
    )
    before = len(sql_peer.stats["statements"])
    daemon = await imported(sql_peer, driver=driver, table=table, timestamp_column="at")
    await threads_are_gone()
    stats = sql_peer.stats
    said = stats["statements"][before:]

    times = [row["at"] for row in daemon.rows]
    assert sorted(row["id"] for row in daemon.rows) == list(range(3000))
    assert times == sorted(times)
    assert daemon.lines == list(range(1, 3001))
    temporary = f"[#TMP_{'ab' * 16}_{NOW_US}000]"
    (into,) = [text for text in said if "INTO" in text]
    assert f"INTO {temporary} FROM [dbo].[{table}]" in into
    assert temporary.strip("[]") in stats["indexed"]
    assert len([text for text in said if f"FROM {temporary}" in text and "ORDER BY [n]" in text]) == 5
    assert (stats["temporary"], stats["open"]) == ([], 0)
    assert daemon.requests >= 5 + 3
    assert daemon.told[-1] == ""


async def test_since_streams_fields_and_times_of_events_are_as_configured(sql_peer):
    table = made(
        sql_peer,
        "id int, at datetime, happened nvarchar(30), x int",
        "(1, '2026-01-30T23:59:59', N'2020-01-01', 1)",
        "(2, '2026-01-31T00:00:00', N'2020-01-02', 1)",
        "(3, NULL, N'2020-01-03', 1)",
        "(4, '2026-02-01T00:00:00', N'2020-01-04', 1)",
    )
    config = {"table": table, "timestamp_column": "at", "timestamp_field": "happened", "fields": ["id"]}
    since = await imported(sql_peer, since_timestamp="2026-01-31 00:00:00", **config)
    everything = await imported(sql_peer, **config)
    plain = AzureSqlImport.model_validate({"table": table, "timestamp_column": "at"})

    assert since.rows == [{"id": 2, "happened": "2020-01-02"}, {"id": 4, "happened": "2020-01-04"}]
    assert [row["id"] for row in everything.rows] == [3, 1, 2, 4]
    assert (plain.stream, plain.timestamp_field) == ("azuresql_activity", "at")


@pytest.mark.parametrize("kind", ["date", "smalldatetime", "datetime", "datetime2(7)", "datetimeoffset(7)"])
async def test_rows_that_share_a_timestamp_across_the_cut_are_neither_lost_nor_doubled(sql_peer, kind):
    day = ["2026-01-01", "2026-01-02", "2026-01-03"]
    last = day[1] if kind == "date" else f"{day[1]}T10:00:00" if kind == "smalldatetime" else f"{day[1]}T10:00:00.127"
    table = made(
        sql_peer, f"id int, at {kind}", f"(1, '{day[0]}')", f"(2, '{last}')", f"(3, '{last}')", f"(3, '{last}')"
    )
    config = {"table": table, "timestamp_column": "at"}
    with capture_logs() as logs:
        daemon = await imported(sql_peer, repeats=True, **config)
        await imported(sql_peer, daemon, repeats=True, **config)
        again = len(daemon.rows)
        sql_peer.sql(f"INSERT INTO {table} VALUES (4, '{last}'), (3, '{last}'), (5, '{day[2]}'), (0, '{day[0]}')")
        await imported(sql_peer, daemon, repeats=True, **config)

    assert again == 4
    assert sorted(row["id"] for row in daemon.rows) == [1, 2, 3, 3, 3, 4, 5]
    done = [each for each in logs if each["event"] == "table_imported"]
    assert [4, 0, 3] == [each["rows"] for each in done]
    assert all("with an earlier at" in each["unseen"] for each in done)


@drivers
@pytest.mark.parametrize("shared", [1, 40, 10_000])
async def test_cut_off_anywhere_it_goes_on_and_every_row_comes_once(sql_peer, driver, shared):
    table = made(sql_peer, "id int, at datetime2(0)")
    sql_peer.duck(
        f"INSERT INTO dbo.{table} SELECT i, TIMESTAMP '2026-01-01' + INTERVAL (i // {shared}) SECOND"
        " FROM range(3500) t(i)"
    )
    daemon = Daemon()
    cuts = 0
    while True:
        daemon.emissions, daemon.cut_at = 0, 2 + cuts % 2
        try:
            await imported(sql_peer, daemon, driver=driver, table=table, timestamp_column="at")
        except CutError:
            cuts += 1
            sql_peer.sql(f"INSERT INTO {table} VALUES ({10_000 + cuts}, '2027-01-01')")
            continue
        break

    assert cuts >= 2
    assert sorted(row["id"] for row in daemon.rows) == [*range(3500), *range(10_001, 10_001 + cuts)]


async def test_where_more_rows_share_a_timestamp_than_hashes_are_kept_the_log_knows_them_again(sql_peer, monkeypatch):
    for module in (sql_rows, sql_import):
        monkeypatch.setattr(module, "MOST_HASHES", 100)
    table = made(sql_peer, "id int, at datetime2(0)")
    sql_peer.duck(f"INSERT INTO dbo.{table} SELECT i, TIMESTAMP '2026-01-01' FROM range(2500) t(i)")
    daemon = Daemon()
    daemon.cut_at = 3
    with capture_logs() as logs:
        with pytest.raises(CutError):
            await imported(sql_peer, daemon, table=table, timestamp_column="at")
        daemon.cut_at = None
        await imported(sql_peer, daemon, table=table, timestamp_column="at")
    ids = [row["_id"] for row in daemon.rows if "_id" in row]

    assert [each["hashes"] for each in logs if each["event"] == "timestamp_crowded"] == [100]
    assert {row["id"] for row in daemon.rows} == set(range(2500))
    assert len(daemon.rows) - len(ids) == 100
    assert len(set(ids)) == 2400  # what came twice has the same id both times
    assert len(daemon.checkpoint["taken"]) == 100


async def test_names_are_quoted_whatever_is_in_them(sql_peer):
    sql_peer.sql("CREATE SCHEMA [odd.schema]")
    name = "x]; DROP TABLE orders; --'"
    table = f"[odd.schema].[{name.replace(']', ']]')}]"
    sql_peer.sql(f"CREATE TABLE {table} ([a]]b] int, [at ' time] datetime2(0), [select] int)")
    sql_peer.sql(f"INSERT INTO {table} VALUES (1, '2026-01-01', 2)")
    daemon = await imported(sql_peer, table=table, timestamp_column="at ' time")
    choosing = {"network": Network(5), "log": None, "limit": 50, "auth": SqlCredentials(**login(sql_peer))}
    tables = await find_tables(Choosing(config={}, search="odd", **choosing))
    columns = await find_columns(Choosing(config={"table": table}, search="", **choosing))
    moments = await find_moments(Choosing(config={"table": table}, search="", **choosing))
    none = await find_columns(Choosing(config={}, search="", **choosing))

    assert daemon.rows == [{"a]b": 1, "at ' time": "2026-01-01T00:00:00Z", "select": 2}]
    assert [each.value for each in tables] == [table]
    assert [(each.value, each.hint) for each in columns] == [
        ("a]b", "int"),
        ("at ' time", "datetime2"),
        ("select", "int"),
    ]
    assert [each.value for each in moments] == ["at ' time"]
    assert none == []


async def test_what_is_not_there_is_told_with_what_is(sql_peer):
    table = made(sql_peer, "id int, at datetime2(0), number int", "(1, '2026-01-01', 1)")
    cases = [
        ({"table": "absent", "timestamp_column": "at"}, f"no table dbo.absent.*dbo.{table}"),
        ({"table": table, "timestamp_column": "when"}, "no column 'when'.*id, at, number"),
        ({"table": table, "timestamp_column": "number"}, "of type int; one of date.*here at"),
        ({"table": table, "timestamp_column": "at", "timestamp_field": "x"}, "timestamp_field.*no column 'x'"),
        ({"table": table, "timestamp_column": "at", "fields": ["id", "y"]}, "no column 'y'"),
    ]
    for config, words in cases:
        with pytest.raises(ConfigError, match=words):
            await imported(sql_peer, **config)
    sql_peer.fault(match="INTO [#TMP", number=208, words="Invalid object name")  # it was dropped in that moment
    with pytest.raises(ConfigError, match=f"no table.*there are.*dbo.{table}"):
        await imported(sql_peer, table=table, timestamp_column="at")


async def test_a_value_that_is_too_long_is_refused_and_not_cut(sql_peer, monkeypatch):
    monkeypatch.setattr(sql_import, "LONGEST_BYTES", 5000)
    monkeypatch.setattr(sql_rows, "LONGEST_BYTES", 5000)
    table = made(sql_peer, "id int, at datetime2(0), a nvarchar(max), b varchar(max), c varbinary(max)")
    sql_peer.sql(
        f"INSERT INTO {table} VALUES (1, '2026-01-01', N'{'ü' * 2499}', 'x', NULL),"
        f" (2, '2026-01-02', N'{'ü' * 2600}', 'x', NULL), (3, '2026-01-03', NULL, '{'x' * 5200}', NULL),"
        f" (4, '2026-01-04', NULL, NULL, 0x{'ab' * 5100}), (5, '2026-01-05', NULL, '{'x' * 4999}', 0x00)"
    )
    daemon = await imported(sql_peer, table=table, timestamp_column="at")

    assert [row["id"] for row in daemon.rows] == [1, 5]
    assert [(each.place, each.reason) for each in daemon.refused] == [
        (2, "a is longer than 5000 bytes"), (3, "b is longer than 5000 bytes"), (4, "c is longer than 5000 bytes")
    ]  # fmt: skip


# --- what goes wrong


def thousands(peer, count=20_000):
    table = made(peer, "id int, at datetime2(0), text varchar(100)")
    peer.duck(
        f"INSERT INTO dbo.{table} SELECT i, TIMESTAMP '2026-01-01' + INTERVAL (i // 7) SECOND, 'some text ' || i"
        f" FROM range({count}) t(i)"
    )
    return table


@drivers
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"match": "INTO [#TMP", "kind": "drop"}, TransientError),
        ({"match": "INTO [#TMP", "number": 1205, "words": "deadlock victim"}, TransientError),
        ({"match": "INTO [#TMP", "number": 229, "words": "SELECT permission was denied"}, ConfigError),
        ({"match": "ORDER BY [n]", "kind": "drop", "after": 2000}, TransientError),
        ({"match": "ORDER BY [n]", "number": 40197, "words": "error processing", "after": 2000}, TransientError),
        ({"match": "ORDER BY [n]", "number": 40501, "words": "The service is busy"}, TransientError),
        ({"match": "login", "number": 18456, "words": "Login failed"}, AuthError),
    ],
)
async def test_what_the_server_refuses_is_told_and_the_next_run_goes_on(sql_peer, driver, fault, kind):
    table = thousands(sql_peer)
    config = {"driver": driver, "table": table, "timestamp_column": "at"}
    daemon = Daemon()
    sql_peer.fault(**fault)
    with pytest.raises(kind) as told:
        await imported(sql_peer, daemon, **config)
    before = len(daemon.rows)
    await imported(sql_peer, daemon, **config)

    assert type(told.value) is kind
    assert fault.get("words", "") in str(told.value)
    assert getattr(told.value, "retry_after", None) == (10 if fault.get("number") == 40501 else None)
    assert before < 20_000
    assert sorted(row["id"] for row in daemon.rows) == list(range(20_000))
    await threads_are_gone()


@drivers
async def test_whatever_the_network_does_each_row_comes_once(sql_peer, driver):
    table = thousands(sql_peer)
    daemon = Daemon()
    cuts = 0
    async with chaos(sql_peer.port) as proxy:
        config = {"driver": driver, "auth": {"port": proxy.port}, "table": table, "timestamp_column": "at"}
        proxy.delay_s = 0.002
        while True:
            proxy.cut_back_after = 300_000
            try:
                await imported(sql_peer, daemon, **config)
            except TransientError:
                cuts += 1
                continue
            break
        proxy.clear()
        proxy.silent = True
        with pytest.raises(TransientError, match="too long"):
            await imported(sql_peer, daemon, seconds=1, **config)
        proxy.clear()
        proxy.drop()
        await threads_are_gone()

    assert cuts >= 2
    assert sorted(row["id"] for row in daemon.rows) == list(range(20_000))


@drivers
async def test_a_query_that_takes_too_long_is_cancelled_on_the_server(sql_peer, driver, monkeypatch):
    monkeypatch.setattr(sql_session, "GRACE_S", 0.2)
    table = thousands(sql_peer, 10)
    before = sql_peer.stats["attentions"]
    sql_peer.fault(match="ORDER BY [n]", kind="hang")
    with pytest.raises(TransientError, match=r"too long|took longer"):
        await imported(sql_peer, driver=driver, table=table, timestamp_column="at", seconds=1)
    await threads_are_gone()

    stats = sql_peer.stats
    assert stats["attentions"] > before
    assert (stats["running"], stats["open"]) == (0, 0)


@drivers
async def test_the_selection_may_take_as_long_as_configured(sql_peer, driver, monkeypatch):
    monkeypatch.setattr(sql_session, "GRACE_S", 0.2)
    table = thousands(sql_peer, 10)
    sql_peer.fault(match="INTO [#TMP", kind="delay", seconds=1.5)
    daemon = await imported(sql_peer, driver=driver, table=table, timestamp_column="at", seconds=1)
    monkeypatch.setattr(sql_import, "MINUTE_S", 1.0)
    sql_peer.fault(match="INTO [#TMP", kind="hang")
    with pytest.raises(TransientError, match=r"too long|took longer"):
        await imported(sql_peer, driver=driver, table=table, timestamp_column="at", query_timeout_minutes=1)
    await threads_are_gone()

    assert len(daemon.rows) == 10
    assert sql_peer.stats["running"] == 0


@drivers
async def test_a_run_that_is_cancelled_ends_its_query_on_the_server(sql_peer, driver):
    table = thousands(sql_peer, 10)
    sql_peer.fault(match="INTO [#TMP", kind="hang")
    running = asyncio.ensure_future(imported(sql_peer, driver=driver, table=table, timestamp_column="at"))
    await until(lambda: sql_peer.stats["running"] == 1)
    began = time.monotonic()
    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    assert time.monotonic() - began < 2
    await until(lambda: (sql_peer.stats["running"], sql_peer.stats["open"]) == (0, 0))
    await threads_are_gone()


# --- in a daemon


async def authorized(client, peer, **other):
    answer = await client.post("/v2/auth/azure/azure_sql", {"label": "shop", "config": login(peer, **other)}, ok=True)
    return str(answer.data["id"])


async def create(client, auth, table, **options):
    config = {"table": table, "timestamp_column": "at"} | options.pop("config", {})
    body = {"label": "orders", "auth_id": auth, "config": config} | options
    return str((await client.post("/v2/job/azure_sql_import", body, ok=True)).data["id"])


async def job_until(client, job, holds):
    async with asyncio.timeout(40):
        while not holds(found := (await client.get(f"/v2/job/{job}", ok=True)).data):
            await asyncio.sleep(0.05)
    return found


def state(*wanted):
    return lambda job: job["state"] in wanted


def logged(folder):
    with closing(sqlite3.connect(folder / "events.db")) as db:
        return [json.loads(body) for (body,) in db.execute("SELECT body FROM event_bulk ORDER BY position")]


def count(folder):
    with closing(sqlite3.connect(folder / "events.db")) as db:
        return db.execute("SELECT count(*) FROM event_bulk").fetchone()[0]


def independently(peer, table):
    """Reads the rows with another driver, in order."""
    db = pymssql.connect("127.0.0.1", USER, PASSWORD, DATABASE, port=str(peer.port), tds_version="7.4")
    with closing(db), closing(db.cursor(as_dict=True)) as cursor:
        cursor.execute(f"SELECT id, at, text FROM {table} ORDER BY at, id")
        return [row | {"at": row["at"].isoformat() + "Z"} for row in cursor.fetchall()]


async def test_an_import_killed_again_and_again_brings_each_row_once(tmp_path, start_cohortd, sql_peer):
    table = thousands(sql_peer)
    kills = 0
    async with start_cohortd(tmp_path) as cohortd:
        job = await create(cohortd.client, await authorized(cohortd.client, sql_peer), table)
        while kills < 2:
            before = count(tmp_path)
            await until(lambda before=before: count(tmp_path) > before)
            if (await cohortd.client.get(f"/v2/job/{job}")).data["state"] == "completed":
                break
            await cohortd.kill()
            kills += 1
            await cohortd.start()
        await job_until(cohortd.client, job, state("completed"))
        stats = (await cohortd.client.get("/v2/stream/azuresql_activity/stats", ok=True)).data
        await cohortd.kill()

    rows = logged(tmp_path)
    assert kills >= 2
    assert stats
    assert sorted(rows, key=lambda row: row["id"]) == independently(sql_peer, table)
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)


async def test_a_server_that_is_killed_and_comes_back_loses_and_doubles_nothing(tmp_path, open_daemon):
    with serving(tmp_path) as peer:
        table = thousands(peer, 15_000)
        async with open_daemon(tmp_path / "data", jobs={"back_off_s": 0.2, "request_timeout_s": 5}) as opened:
            job = await create(opened, await authorized(opened, peer), table)
            for _ in range(3):
                before = count(tmp_path / "data")
                await until(lambda before=before: count(tmp_path / "data") > before)
                peer.again()
                if (await opened.get(f"/v2/job/{job}")).data["state"] == "completed":
                    break
            await job_until(opened, job, state("completed"))
        expected = independently(peer, table)

    assert sorted(logged(tmp_path / "data"), key=lambda row: row["id"]) == expected


async def test_a_server_that_hangs_keeps_neither_a_job_from_being_paused_nor_the_daemon_from_ending(
    tmp_path, start_cohortd
):
    with serving(tmp_path) as peer:
        table = thousands(peer, 15_000)
        async with start_cohortd(tmp_path / "data") as cohortd:
            auth = await authorized(cohortd.client, peer)
            first = await create(cohortd.client, auth, table)
            await until(lambda: count(tmp_path / "data") > 0)
            peer.send(signal.SIGSTOP)
            began = time.monotonic()
            await cohortd.client.post(f"/v2/job/{first}/pause", ok=True)
            paused_s = time.monotonic() - began
            second = await create(cohortd.client, auth, table)
            async with asyncio.timeout(10):
                status = await cohortd.stop()
            peer.send(signal.SIGCONT)
            await until(lambda: peer.stats["open"] == 0)
            await cohortd.start()
            paused = (await cohortd.client.get(f"/v2/job/{first}", ok=True)).data
            await job_until(cohortd.client, second, state("completed"))
            await cohortd.client.post(f"/v2/job/{first}/resume", ok=True)
            await job_until(cohortd.client, first, state("completed"))
            await cohortd.kill()

    assert paused_s < 3
    assert status == 0
    assert paused["state"] == "paused"
    found = [row["id"] for row in logged(tmp_path / "data")]
    assert sorted(found) == sorted([*range(15_000)] * 2)


async def test_a_password_that_is_changed_in_mid_life_makes_the_authorization_unhealthy(tmp_path, open_daemon):
    with serving(tmp_path) as peer:
        table = thousands(peer, 10)
        async with open_daemon(tmp_path / "data", jobs={"back_off_s": 60}) as opened:
            auth = await authorized(opened, peer)
            job = await create(opened, auth, table, schedule={"frequency": "daily"})
            await job_until(opened, job, lambda it: it["state"] == "sleeping" and it["runs"] == 1)
            peer.order(password="another")
            await opened.post(f"/v2/job/{job}/run", ok=True)
            found = await job_until(opened, job, lambda it: it["runs"] == 2 and it["state"] == "sleeping")
            status = (await opened.get(f"/v2/auth/{auth}", ok=True)).data["status"]
            logs = json.dumps((await opened.get(f"/v2/job/{job}/logs", ok=True)).data)
            peer.order(password=PASSWORD)
            await opened.post(f"/v2/auth/{auth}/check", ok=True)
            healthy = (await opened.get(f"/v2/auth/{auth}", ok=True)).data["status"]
            peer.sql(f"DROP TABLE {table}")
            await opened.post(f"/v2/job/{job}/run", ok=True)
            failed = await job_until(opened, job, state("failed"))
        shown = peer.stats["password_shown"]

    assert "Login failed for user 'lab'" in found["reason"]
    assert (status, healthy) == ("unhealthy", "healthy")
    assert f"no table dbo.{table}" in failed["reason"]
    assert PASSWORD not in logs
    assert not shown


async def test_a_schedule_brings_what_came_since_and_choices_and_dry_runs_work_over_the_api(
    tmp_path, open_daemon, sql_peer
):
    table = thousands(sql_peer, 30)
    async with open_daemon(tmp_path) as opened:
        auth = await authorized(opened, sql_peer)
        asked = {"auth_id": auth, "job_type": "azure_sql_import", "config": {"table": table}, "search": ""}
        tables = (await opened.post("/v2/provider/azure/sql_tables", asked | {"search": table}, ok=True)).data
        columns = (await opened.post("/v2/provider/azure/sql_columns", asked, ok=True)).data
        moments = (await opened.post("/v2/provider/azure/sql_timestamps", asked, ok=True)).data
        config = {"table": table, "timestamp_column": "at", "timestamp_field": None}
        dry = (await opened.post("/v2/job/azure_sql_import/dryrun", {"auth_id": auth, "config": config}, ok=True)).data
        job = await create(opened, auth, table, schedule={"frequency": "hourly"}, config={"stream": "orders"})
        await job_until(opened, job, lambda it: it["runs"] == 1 and it["state"] == "sleeping")
        sql_peer.sql(
            f"INSERT INTO {table} VALUES (100, '2026-01-01T00:00:04', 'same second'), (101, '2027-01-01', 'x')"
        )
        await opened.post(f"/v2/job/{job}/run", ok=True)
        await job_until(opened, job, lambda it: it["runs"] == 2 and it["state"] == "sleeping")
        await opened.post(f"/v2/job/{job}/pause", ok=True)
        await opened.post(f"/v2/job/{job}/resume", ok=True)
        await job_until(opened, job, lambda it: it["runs"] == 3 and it["state"] == "sleeping")
        with closing(sqlite3.connect(tmp_path / "events.db")) as db:
            times = db.execute("SELECT stream, event_us FROM event_bulk ORDER BY position DESC LIMIT 1").fetchall()

    assert [each["value"] for each in tables] == [f"dbo.{table}"]
    assert [each["value"] for each in columns] == ["id", "at", "text"]
    assert [each["value"] for each in moments] == ["at"]
    assert (10, None) == (len(dry["rows"]), dry["error"])
    assert sorted(row["id"] for row in logged(tmp_path)) == [*range(30), 100, 101]
    assert times == [("orders", 1_798_761_600_000_000)]
