"""Databases of Azure SQL, and any SQL Server: how to be let in."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from pydantic import Field, SecretStr, field_validator

from connectors.azure.sql_driver import connection_string, find_driver
from connectors.azure.sql_session import Session, opened
from connectors.sdk.declare import AuthCheck, AuthMethod
from connectors.sdk.run import Credentials, Network

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class SqlCredentials(Credentials):
    """Which database, and as whom."""

    server: str = Field(
        min_length=1,
        max_length=253,
        description="Name or address of the server, such as myserver.database.windows.net.",
    )
    port: int = Field(1433, ge=1, le=65_535, description="Port of the server.")
    database: str = Field(min_length=1, max_length=128, description="Name of the database.")
    user: str = Field(min_length=1, max_length=128, description="Name of the user.")
    password: SecretStr = Field(min_length=1, max_length=128, description="The user's password.")
    encrypt: bool = Field(default=True, description="Encrypts what is sent; Azure accepts nothing else.")
    trust_certificate: bool = Field(
        default=False, description="Accepts any certificate of the server: for servers in networks of your own."
    )
    driver: Literal["auto", "microsoft", "freetds"] = Field(
        "auto", description="The ODBC driver; auto: Microsoft's where there is one, else FreeTDS."
    )

    @field_validator("server")
    @classmethod
    def _plain_name(cls, server: str) -> str:
        server = server.strip().removeprefix("tcp:")
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", server):
            raise ValueError("a name such as myserver.database.windows.net is accepted; the port has its own field")
        return server

    @field_validator("database", "user")
    @classmethod
    def _readable(cls, text: str) -> str:
        if _CONTROL.search(text):
            raise ValueError("there is a control character in it")
        return text

    @field_validator("password")
    @classmethod
    def _typeable(cls, password: SecretStr) -> SecretStr:
        if _CONTROL.search(password.get_secret_value()):
            raise ValueError("there is a control character in it; was the end of a line copied along?")
        return password


@asynccontextmanager
async def connected(credentials: SqlCredentials, network: Network) -> AsyncIterator[Session]:
    """Opens a connection to the database; closed on leaving, without waiting.

    Raises ConfigError where there is no driver or the address may not be reached, AuthError where it is not let in,
    TransientError otherwise.
    """
    text = connection_string(
        find_driver(credentials.driver),
        server=credentials.server,
        port=credentials.port,
        database=credentials.database,
        user=credentials.user,
        password=credentials.password.get_secret_value(),
        encrypt=credentials.encrypt,
        trust=credentials.trust_certificate,
    )
    async with opened(credentials.server, credentials.port, network, text) as session:
        yield session


async def check(check: AuthCheck[SqlCredentials]) -> None:
    """Logs in and asks for something."""
    async with connected(check.config, check.network) as session:
        await session.rows("SELECT 1", check.network.deadline_s, f"a query of {check.config.database}")


AZURE_SQL = AuthMethod(
    "azure_sql",
    "Azure SQL Database",
    SqlCredentials,
    check,
    "Reads tables of an Azure SQL Database, or of any SQL Server. If it has a firewall, let this host's address in.",
)
