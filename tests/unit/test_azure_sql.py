"""Azure SQL without a server: names, literals, what drivers are told, and what their errors mean."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from connectors.azure.sql import SqlCredentials
from connectors.azure.sql_columns import literal, quoted, table_name
from connectors.azure.sql_driver import AbsentError, Driver, connection_string, told
from connectors.azure.sql_import import AzureSqlImport
from connectors.sdk.errors import AuthError, ConfigError, TransientError

LOGIN = {"server": "s.database.windows.net", "database": "shop", "user": "ann", "password": "hush"}
JOB = {"table": "orders", "timestamp_column": "at"}


@pytest.mark.parametrize(
    ("given", "schema", "name", "shown"),
    [
        ("orders", "dbo", "orders", "dbo.orders"),
        (" sales.orders ", "sales", "orders", "sales.orders"),
        ("[sales].[my.orders]", "sales", "my.orders", "[sales].[my.orders]"),
        ("[a]]b].c d", "a]b", "c d", "[a]]b].[c d]"),
        ("x'; DROP TABLE y --", "dbo", "x'; DROP TABLE y --", "dbo.x'; DROP TABLE y --"),
    ],
)
def test_tables_are_named_with_and_without_brackets(given, schema, name, shown):
    assert (schema, name) == table_name(given)
    assert table_name(given).shown == shown
    assert table_name(shown) == table_name(given)


@pytest.mark.parametrize("given", ["", "a.b.c", "[a", "a]b", "[a]b]", ".a", "a.", "x" * 129, "a\nb"])
def test_what_is_no_name_of_a_table_is_refused(given):
    with pytest.raises(ValueError, match="a name"):
        table_name(given)


def test_names_and_texts_are_quoted():
    assert quoted("a]b") == "[a]]b]"
    assert literal("it's") == "N'it''s'"


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("2026-01-31 12:34:56", "2026-01-31 12:34:56"),
        ("2026-01-31T12:34:56Z", "2026-01-31 12:34:56"),
        ("2026-01-31", "2026-01-31 00:00:00"),
        ("", None),
        (None, None),
    ],
)
def test_moments_are_read_as_the_document_says(given, stored):
    assert AzureSqlImport.model_validate(JOB | {"since_timestamp": given}).since_timestamp == stored


@pytest.mark.parametrize("given", ["31.1.2026", "2026-01-31 25:00:00", "'; DROP TABLE x", "2026-01-31 12:34"])
def test_what_is_no_moment_is_refused(given):
    with pytest.raises(ValidationError, match="yyyy-mm-dd HH:MM:SS"):
        AzureSqlImport.model_validate(JOB | {"since_timestamp": given})


def test_events_have_the_time_of_the_timestamp_column_unless_another_is_named():
    assert AzureSqlImport.model_validate(JOB).timestamp_field == "at"
    assert AzureSqlImport.model_validate(JOB | {"timestamp_field": ""}).timestamp_field == "at"
    assert AzureSqlImport.model_validate(JOB | {"timestamp_field": "sold"}).timestamp_field == "sold"


@pytest.mark.parametrize(
    ("given", "server"),
    [
        ("s.database.windows.net", "s.database.windows.net"),
        ("tcp:db1", "db1"),
        ("10.0.0.1", "10.0.0.1"),
        ("fe80::1", "fe80::1"),
        ("s,1433", None),
        ("s;UID=sa", None),
        ("a b", None),
        ("db\\instance", None),
    ],
)
def test_a_server_is_named_without_its_port(given, server):
    if server is None:
        with pytest.raises(ValidationError, match="its own field"):
            SqlCredentials.model_validate(LOGIN | {"server": given})
        return

    assert SqlCredentials.model_validate(LOGIN | {"server": given}).server == server


@pytest.mark.parametrize("field", ["database", "user", "password"])
def test_a_line_end_in_a_login_is_told(field):
    with pytest.raises(ValidationError, match="control character"):
        SqlCredentials.model_validate(LOGIN | {field: "x\n"})


def told_driver(family, **other):
    values = {"server": "s", "port": 1433, "database": "d", "user": "u", "password": "p", "encrypt": True} | other
    return connection_string(Driver(family, "D"), trust=values.pop("trust", True), **values)


def test_nothing_in_a_login_becomes_a_setting_of_the_driver():
    text = told_driver("microsoft", password="a}b;Encrypt=no;{", database="x;UID=sa")
    free = told_driver("freetds", password="a{b;Encryption=off", user="u;PWD=x")

    assert "PWD={a}}b;Encrypt=no;{}" in text
    assert "DATABASE={x;UID=sa}" in text
    assert "PWD={a{b;Encryption=off}" in free
    assert "UID={u;PWD=x}" in free
    with pytest.raises(ConfigError, match="a }"):
        told_driver("freetds", user="u};PWD={x")


def test_certificates_are_checked_unless_that_is_waived():
    assert "Encrypt={yes};TrustServerCertificate={no}" in told_driver("microsoft", trust=False)
    assert "TrustServerCertificate={yes}" in told_driver("microsoft")
    assert "Encryption={require}" in told_driver("freetds")
    with pytest.raises(ConfigError, match="trust_certificate"):
        told_driver("freetds", trust=False)


class Error(Exception):
    """As pyodbc's: SQLSTATE, and what the driver says."""


MS = "[Microsoft][ODBC Driver 18 for SQL Server]"
SERVER = f"{MS}[SQL Server]"
REFUSED = f"{SERVER}Login failed for user 'ann'. (18456) (SQLDriverConnect)"
SSL = "SSL routines::certificate verify failed:self-signed certificate"


@pytest.mark.parametrize(
    ("state", "words", "kind", "after", "said"),
    [
        ("28000", REFUSED, AuthError, None, "Login failed for user 'ann' (18456)"),
        ("28000", f"{REFUSED}; [28000] {REFUSED}", AuthError, None, "the test: Login failed for user 'ann' (18456)"),
        ("42000", "[FreeTDS][SQL Server]Cannot open x. (4060) (SQLDriverConnect)", AuthError, None, "open x (4060)"),
        ("42000", f"{SERVER}Busy. (40501) (SQLExecDirectW)", TransientError, 10, "Busy"),
        ("42S02", f"{SERVER}Invalid object name 'x'. (208) (SQLExecDirectW)", AbsentError, None, "name 'x' (208)"),
        ("42000", f"{SERVER}SELECT was denied. (229) (SQLExecDirectW)", ConfigError, None, "GRANT SELECT"),
        ("40001", "[FreeTDS][SQL Server]Deadlocked (1205) (SQLFetch)", TransientError, None, "Deadlocked (1205)"),
        ("HYT00", f"{MS}Query timeout expired (0) (SQLExecDirectW)", TransientError, None, "took too long"),
        ("08001", f"{MS}SSL Provider: [error:0A:{SSL}] (-1) (SQLDriverConnect)", AuthError, None, "trust_certificate"),
        (
            "08001",
            f"{MS}Encryption not supported on SQL Server. (20) (SQLDriverConnect)",
            AuthError,
            None,
            "turned off",
        ),
        ("08S01", f"{MS}TCP Provider: Error code 0x68 (104) (SQLExecDirectW)", TransientError, None, "TCP Provider"),
    ],
)
def test_errors_of_drivers_mean_what_the_server_meant(state, words, kind, after, said):
    error = told(Error(state, f"[{state}] {words}"), "the test")

    assert type(error) is kind
    assert getattr(error, "retry_after", None) == after
    assert str(error).startswith("the test")
    assert said in str(error)
    assert "[Microsoft]" not in str(error)
