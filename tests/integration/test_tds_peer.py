"""The database server that tests use, proven with clients of three makes: Microsoft's driver, FreeTDS, and pymssql."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pymssql
import pyodbc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tds.running import DATABASE, PASSWORD, USER, serving

from connectors.azure.sql_driver import connection_string, find_driver

EVERY = ("microsoft", "freetds", "pymssql")
ODBC = EVERY[:2]


def connect(peer, client, *, password=PASSWORD, encrypt=False, trust=True, database=DATABASE):
    if client == "pymssql":
        return pymssql.connect(
            server="127.0.0.1", port=str(peer.port), user=USER, password=password, database=database,
            tds_version="7.4", autocommit=True, login_timeout=5, encryption="require" if encrypt else "off",
        )  # fmt: skip
    text = connection_string(
        find_driver(client), server="127.0.0.1", port=peer.port, database=database, user=USER, password=password,
        encrypt=encrypt, trust=trust,
    )  # fmt: skip
    return pyodbc.connect(text, autocommit=True, timeout=5)


COLUMNS = {
    "a": ("bit", "1", True), "b": ("money", "-12.3456", Decimal("-12.3456")),
    "c": ("smallmoney", "1.5", Decimal("1.5000")), "d": ("datetime2(7)", "'2026-01-31T12:00:00.123456'", None),
    "e": ("datetime", "'2026-01-31T12:00:00.127'", None), "f": ("smalldatetime", "'2026-01-31T12:00:31'", None),
    "g": ("uniqueidentifier", "'6F9619FF-8B86-D011-B42D-00C04FC964FF'", "6F9619FF-8B86-D011-B42D-00C04FC964FF"),
    "h": ("varbinary(max)", "0x00ff", b"\x00\xff"), "i": ("nvarchar(max)", "N'ümläut € 😀'", "ümläut € 😀"),
    "j": ("nvarchar(50)", "N'short'", "short"), "k": ("varchar(20)", "'é'", "é"), "l": ("real", "1.5", 1.5),
    "m": ("float", "2.25", 2.25), "n": ("decimal(18,2)", "-12345.67", Decimal("-12345.67")),
    "o": ("numeric(38,0)", "12345678901234567890123456789012345678", Decimal(12345678901234567890123456789012345678)),
    "p": ("time(7)", "'12:34:56.123456'", time(12, 34, 56, 123456)), "q": ("tinyint", "255", 255),
    "r": ("smallint", "-32768", -32768), "s": ("bigint", "9223372036854775807", 2**63 - 1),
    "t": ("char(3)", "'ab'", "ab "), "u": ("nchar(4)", "N'ü'", "ü   "), "v": ("binary(4)", "0x01020304", b"\1\2\3\4"),
    "w": ("date", "'0001-01-01'", date(1, 1, 1)),
}  # fmt: skip
MOMENTS = {"d": "12:00:00.123456", "e": "12:00:00.127", "f": "12:01:00"}


@pytest.fixture(scope="module")
def types(sql_peer):
    sql_peer.sql(f"CREATE TABLE types (id int NOT NULL, {', '.join(f'{n} {k}' for n, (k, _, _) in COLUMNS.items())})")
    sql_peer.sql(f"INSERT INTO types VALUES (1, {', '.join(value for _, value, _ in COLUMNS.values())})")
    sql_peer.sql("INSERT INTO types (id) VALUES (2)")
    return sql_peer


@pytest.mark.parametrize("client", EVERY)
def test_clients_of_all_makes_read_the_same_values(types, client):
    with closing(connect(types, client)) as db, closing(db.cursor()) as cursor:
        cursor.execute(f"SELECT {', '.join(COLUMNS)} FROM types ORDER BY id")
        first, second = (tuple(row) for row in cursor.fetchall())

    for name, value in zip(COLUMNS, first, strict=True):
        expected = COLUMNS[name][2]
        if name in MOMENTS:
            expected = datetime.fromisoformat(f"2026-01-31T{MOMENTS[name]}")
        assert expected == (str(value).upper() if isinstance(value, UUID) else value), name
    assert set(second) == {None}


@pytest.mark.parametrize("client", EVERY)
def test_a_temporary_table_lives_as_long_as_its_connection(types, client):
    with closing(connect(types, client)) as db, closing(connect(types, client)) as other:
        cursor = db.cursor()
        cursor.execute("SELECT ROW_NUMBER() OVER (ORDER BY [id] DESC) AS n, [id] INTO [#TMP_aa_1] FROM [dbo].[types]")
        cursor.execute("CREATE UNIQUE CLUSTERED INDEX [i] ON [#TMP_aa_1] ([n])")
        cursor.execute("SELECT [id] FROM [#TMP_aa_1] WHERE [n] > 0 AND [n] <= 10 ORDER BY [n]")
        rows = [tuple(row) for row in cursor.fetchall()]
        with pytest.raises((pyodbc.Error, pymssql.Error), match="208"):
            other.cursor().execute("SELECT [id] FROM [#TMP_aa_1]")

    assert rows == [(2,), (1,)]


@pytest.mark.parametrize("client", ODBC)
def test_a_temporary_table_made_with_parameters_is_gone_at_once_as_on_a_real_server(types, client):
    with closing(connect(types, client)) as db, closing(db.cursor()) as cursor:
        cursor.execute("SELECT id INTO #made FROM types WHERE id < ?", 2)
        with pytest.raises(pyodbc.Error, match="208"):
            cursor.execute("SELECT id FROM #made")
        cursor.execute("SELECT id FROM types WHERE j = ? AND id < ?", "short", 5)

        assert [1] == [row[0] for row in cursor.fetchall()]


@pytest.mark.parametrize("client", EVERY)
def test_many_rows_come_whole_and_in_order(sql_peer, client):
    sql_peer.duck(f"CREATE TABLE dbo.many_{client} AS SELECT i AS n, 'row ' || i AS t FROM range(30000) t(i)")
    with closing(connect(sql_peer, client)) as db, closing(db.cursor()) as cursor:
        cursor.execute(f"SELECT n, t FROM many_{client} ORDER BY n")
        found = []
        while rows := cursor.fetchmany(700):
            found += [tuple(row) for row in rows]

    assert [(n, f"row {n}") for n in range(30_000)] == found


@pytest.mark.parametrize("client", ODBC)
def test_a_query_that_is_cancelled_ends_on_the_server_and_the_connection_stays(sql_peer, client):
    sql_peer.fault(match="no_end", kind="hang")
    before = sql_peer.stats["attentions"]
    with closing(connect(sql_peer, client)) as db, closing(db.cursor()) as cursor:
        refused = []

        def run():
            try:
                cursor.execute("SELECT 1 AS no_end")
            except pyodbc.Error as error:
                refused.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while thread.is_alive():  # again: a driver that is not quite there yet cancels nothing
            if sql_peer.stats["running"]:
                cursor.cancel()
            thread.join(0.05)
        cursor.execute("SELECT 2")

        assert [2] == [row[0] for row in cursor.fetchall()]
    assert len(refused) == 1
    assert before + 1 <= sql_peer.stats["attentions"]


@pytest.mark.parametrize("client", EVERY)
@pytest.mark.parametrize("number", [18456, 40613])
def test_refused_logins_have_the_servers_number(sql_peer, client, number):
    sql_peer.fault(match="login", number=number, words="made up by the test")
    with pytest.raises((pyodbc.Error, pymssql.Error), match="18456" if client == "pymssql" else str(number)):
        connect(sql_peer, client)


@pytest.mark.parametrize("client", ODBC)
def test_errors_and_resets_in_the_middle_of_rows_are_told(sql_peer, client):
    sql_peer.duck(f"CREATE TABLE dbo.broken_{client} AS SELECT i AS n, 'some text ' || i AS t FROM range(20000) t(i)")
    sql_peer.fault(match=f"broken_{client}", number=1205, words="deadlock victim", after=3000)
    sql_peer.fault(match=f"broken_{client}", kind="drop", after=3000)
    for _ in range(2):
        with closing(connect(sql_peer, client)) as db, pytest.raises(pyodbc.Error):
            db.execute(f"SELECT n, t FROM broken_{client}").fetchall()


# --- encryption


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A peer with a certificate that nobody has reason to trust."""
    folder = tmp_path_factory.mktemp("sealed")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with serving(folder, (folder / "certificate.pem", folder / "key.pem")) as peer:
        yield peer


@pytest.mark.parametrize("client", EVERY)
def test_everything_is_encrypted_where_that_is_asked_for(sealed, client):
    before = sealed.stats["encrypted"]
    with closing(connect(sealed, client, encrypt=True)) as db, closing(db.cursor()) as cursor:
        cursor.execute("SELECT 'ü', 1 UNION ALL SELECT 'ö', 2")
        rows = sorted(tuple(row) for row in cursor.fetchall())

    assert [("ö", 2), ("ü", 1)] == rows
    assert before + 1 == sealed.stats["encrypted"]


def test_a_certificate_that_nobody_vouches_for_is_refused(sealed):
    with pytest.raises(pyodbc.Error, match="certificate verify failed"):
        connect(sealed, "microsoft", encrypt=True, trust=False)


async def test_several_connections_are_served_at_once(sql_peer):
    sql_peer.fault(match="no_end", kind="delay", seconds=0.5)
    order = []

    def ask(sql):
        with closing(connect(sql_peer, "microsoft")) as db, closing(db.cursor()) as cursor:
            cursor.execute(sql)
            order.append(cursor.fetchall()[0][0])

    await asyncio.gather(*(asyncio.to_thread(ask, sql) for sql in ("SELECT 1 AS no_end", "SELECT 2")))

    assert order == [2, 1]
