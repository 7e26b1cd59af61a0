"""Tables and columns of an SQL Server: names put into statements safely, and what becomes of values of each type.

The server converts: what comes over the wire is whole numbers, floats, text and bytes, whichever driver brings it, and
no digit is lost. The table of types stands in the README.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from connectors.azure.sql import SqlCredentials, connected
from connectors.azure.sql_driver import AbsentError
from connectors.azure.sql_session import Session
from connectors.sdk.declare import Choice, Choosing
from connectors.sdk.errors import AuthError, ConfigError

#: A value of a type without a bound is cut after so many bytes, and its row refused.
LONGEST_BYTES: Final = 1_048_576
#: Tables that are looked at for choices, and named where one is missing.
TABLES: Final = 5000
NAMED: Final = 50

_PLAIN: Final = "{0}"
#: How a column of each type is selected. A type that is not here is selected as text.
CONVERSIONS: Final = {
    "bit": _PLAIN, "tinyint": _PLAIN, "smallint": _PLAIN, "int": _PLAIN, "bigint": _PLAIN, "real": _PLAIN,
    "float": _PLAIN, "varchar": _PLAIN, "nvarchar": _PLAIN, "binary": _PLAIN, "varbinary": _PLAIN, "sysname": _PLAIN,
    "char": "RTRIM({0})",
    "nchar": "RTRIM({0})",
    "text": "CONVERT(varchar(max), {0})",
    "ntext": "CONVERT(nvarchar(max), {0})",
    "image": "CONVERT(varbinary(max), {0})",
    "decimal": "CONVERT(varchar(41), {0})",
    "numeric": "CONVERT(varchar(41), {0})",
    "money": "CONVERT(varchar(24), {0}, 2)",
    "smallmoney": "CONVERT(varchar(24), {0}, 2)",
    "date": "CONVERT(varchar(10), {0}, 23)",
    "time": "CONVERT(varchar(16), {0})",
    "datetime": "CONVERT(varchar(23), {0}, 126) + 'Z'",
    "smalldatetime": "CONVERT(varchar(23), {0}, 126) + 'Z'",
    "datetime2": "CONVERT(varchar(27), {0}, 126) + 'Z'",
    "datetimeoffset": "CONVERT(varchar(27), CAST(SWITCHOFFSET({0}, '+00:00') AS datetime2(7)), 126) + 'Z'",
    "uniqueidentifier": "CONVERT(char(36), {0})",
    "rowversion": "CONVERT(bigint, {0})",
    "timestamp": "CONVERT(bigint, {0})",
    "sql_variant": "CONVERT(nvarchar(4000), {0})",
    "hierarchyid": "{0}.ToString()",
    "geography": "{0}.ToString()",
    "geometry": "{0}.ToString()",
    "xml": "CONVERT(nvarchar(max), {0})",
    "json": "CONVERT(nvarchar(max), {0})",
    "vector": "CONVERT(nvarchar(max), {0})",
}  # fmt: skip
_ANY: Final = "CONVERT(nvarchar(max), {0})"
#: Types of timestamp columns, and what a text is cast to that is compared with one.
MOMENTS: Final = {
    "date": "date",
    "smalldatetime": "smalldatetime",
    "datetime": "datetime",
    "datetime2": "datetime2(7)",
    "datetimeoffset": "datetimeoffset(7)",
}
_BYTES: Final = frozenset(("binary", "varbinary", "image"))
_VALUES: Final = frozenset(("json", "vector"))
_SIZED: Final = frozenset(("char", "varchar", "nchar", "nvarchar", "binary", "varbinary", "sysname"))
_NAME: Final = r"(?:\[((?:[^\]]|\]\])+)\]|([^.\[\]]+))"
_TABLE: Final = re.compile(rf"(?:{_NAME}\.)?{_NAME}")


class Column(NamedTuple):
    """A column: its name, its type in lower case, and the most bytes of a value (-1: no bound)."""

    name: str
    kind: str
    size: int

    @property
    def selected(self) -> str:
        """What stands in a SELECT for it."""
        return CONVERSIONS.get(self.kind, _ANY).format(quoted(self.name))

    @property
    def reader(self) -> Callable[[Any], object] | None:
        """What makes the event's value of what was selected; None where it is that itself."""
        if self.kind in _BYTES:
            return lambda value: base64.b64encode(value).decode()
        return _value if self.kind in _VALUES else None

    def cut_at(self, most: int) -> int:
        """Gives how long the event's text is where the server sent `most` bytes of a value."""
        if self.kind in _BYTES:
            return 4 * ((most + 2) // 3)
        return most if self.kind in {"varchar", "text"} else most // 2


class TableName(NamedTuple):
    """A table's schema and name."""

    schema: str
    name: str

    def __str__(self) -> str:
        """Gives it quoted, for a statement."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def shown(self) -> str:
        """Gives it as a configuration names it: quoted only where it must be."""
        plain = all(re.fullmatch(r"[^.\[\]]+", each) for each in self)
        return f"{self.schema}.{self.name}" if plain else str(self)


def quoted(name: str) -> str:
    """Quotes a name for a statement, whatever is in it."""
    return "[" + name.replace("]", "]]") + "]"


def literal(text: str) -> str:
    """Quotes a text for a statement."""
    return "N'" + text.replace("'", "''") + "'"


def table_name(text: str) -> TableName:
    """Reads `orders`, `sales.orders`, or `[sales].[my.orders]`. Raises ValueError."""
    found = _TABLE.fullmatch(text.strip())
    if found is None:
        raise ValueError("a name such as orders, sales.orders or [sales].[my.orders] is accepted")
    schema = (found[1] or "").replace("]]", "]") or found[2] or "dbo"
    name = (found[3] or "").replace("]]", "]") or found[4]
    if len(schema) > 128 or len(name) > 128 or any(ord(sign) < 32 for sign in schema + name):
        raise ValueError("a name has at most 128 characters, and none that controls")
    return TableName(schema, name)


async def columns_of(session: Session, table: TableName, seconds: float) -> list[Column]:
    """Gives the columns of a table or view, in order. Raises ConfigError that names the tables that there are."""
    rows = await session.rows(
        "SELECT COLUMN_NAME, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH FROM INFORMATION_SCHEMA.COLUMNS WHERE"  # noqa: S608
        f" TABLE_SCHEMA = {literal(table.schema)} AND TABLE_NAME = {literal(table.name)} ORDER BY ORDINAL_POSITION",
        seconds,
        f"the columns of {table.shown}",
    )
    if not rows:
        raise await absent(session, table, seconds)
    return [Column(name, kind.lower(), _size(kind.lower(), length)) for name, kind, length in rows]


async def absent(session: Session, table: TableName, seconds: float) -> ConfigError:
    """Says that a table is not there, and which are."""
    found = [each.value for each in await _tables(session, seconds)]
    there = "the user sees no table at all" if not found else f"there are {', '.join(found[:NAMED])}"
    more = " …" if len(found) > NAMED else ""
    return AbsentError(f"there is no table {table.shown}, or the user may not see it; {there}{more}")


async def find_tables(choosing: Choosing) -> Sequence[Choice]:
    """Gives the tables and views that the user sees."""
    seconds = choosing.network.deadline_s
    async with connected(_credentials(choosing), choosing.network) as session:
        found = await _tables(session, seconds)
    wanted = choosing.search.lower()
    return [each for each in found if wanted in each.value.lower()][: choosing.limit]


async def find_columns(choosing: Choosing) -> Sequence[Choice]:
    """Gives the columns of the table that the form names."""
    return await _columns(choosing, lambda _: True)


async def find_moments(choosing: Choosing) -> Sequence[Choice]:
    """Gives those of the columns that hold moments."""
    return await _columns(choosing, lambda column: column.kind in MOMENTS)


async def _columns(choosing: Choosing, wanted: Callable[[Column], bool]) -> Sequence[Choice]:
    try:
        table = table_name(str(choosing.config.get("table") or ""))
    except ValueError:
        return []  # none is chosen yet
    async with connected(_credentials(choosing), choosing.network) as session:
        columns = await columns_of(session, table, choosing.network.deadline_s)
    search = choosing.search.lower()
    found = [each for each in columns if search in each.name.lower() and wanted(each)]
    return [Choice(each.name, hint=each.kind) for each in found[: choosing.limit]]


async def _tables(session: Session, seconds: float) -> list[Choice]:
    rows = await session.rows(
        f"SELECT TOP ({TABLES}) TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE"  # noqa: S608  (a number of ours)
        " FROM INFORMATION_SCHEMA.TABLES ORDER BY TABLE_SCHEMA, TABLE_NAME",
        seconds,
        "the tables of the database",
    )
    return [
        Choice(TableName(schema, name).shown, hint="view" if kind == "VIEW" else "table") for schema, name, kind in rows
    ]


def _credentials(choosing: Choosing) -> SqlCredentials:
    if not isinstance(choosing.auth, SqlCredentials):
        raise AuthError("choose an authorization of Azure SQL first")
    return choosing.auth


def _size(kind: str, length: int | None) -> int:
    if kind in _SIZED:
        if length is None or length < 0:
            return -1
        return length * (2 if kind.startswith(("n", "s")) else 1)
    return 64 if kind in CONVERSIONS and "max" not in CONVERSIONS[kind] and "ToString" not in CONVERSIONS[kind] else -1


def _value(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
