"""T-SQL to DuckDB's SQL, by sqlglot, with the types that T-SQL has and DuckDB has not kept beside the tables.

It is no oracle of T-SQL: what is not in `tests/integration/test_tds_peer.py` is not promised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from tds.wire import Kind

#: How T-SQL's types are stored; what is not here is stored as text.
STORED = {
    "bit": "BOOLEAN", "tinyint": "UTINYINT", "smallint": "SMALLINT", "int": "INTEGER", "bigint": "BIGINT",
    "money": "DECIMAL(19,4)", "smallmoney": "DECIMAL(10,4)", "float": "DOUBLE", "real": "FLOAT", "binary": "BLOB",
    "varbinary": "BLOB", "image": "BLOB", "rowversion": "BIGINT", "timestamp": "BIGINT", "date": "DATE", "time": "TIME",
    "datetime": "TIMESTAMP", "smalldatetime": "TIMESTAMP", "datetime2": "TIMESTAMP", "datetimeoffset": "TIMESTAMPTZ",
    "uniqueidentifier": "UUID",
}  # fmt: skip
#: What DuckDB's own types are for T-SQL.
_NATIVE = {
    "BOOLEAN": Kind("bit"), "UTINYINT": Kind("tinyint"), "TINYINT": Kind("smallint"), "SMALLINT": Kind("smallint"),
    "INTEGER": Kind("int"), "BIGINT": Kind("bigint"), "HUGEINT": Kind("bigint"), "DOUBLE": Kind("float"),
    "FLOAT": Kind("real"), "VARCHAR": Kind("nvarchar", 4000), "BLOB": Kind("varbinary", -1), "DATE": Kind("date"),
    "TIME": Kind("time", 0, 7), "TIMESTAMP": Kind("datetime2", 0, 7), "UUID": Kind("uniqueidentifier"),
    "TIMESTAMP WITH TIME ZONE": Kind("datetimeoffset", 0, 7), "TIMESTAMP WITH TIMEZONE": Kind("datetimeoffset", 0, 7),
}  # fmt: skip
#: Functions of T-SQL as macros of DuckDB, made in every database.
MACROS = """
CREATE OR REPLACE MACRO ms_datetime(x) AS make_timestamp(
    CAST(round(round(epoch_us(CAST(x AS TIMESTAMP)) * 3 / 10000.0) * 10000 / 3.0) AS BIGINT));
CREATE OR REPLACE MACRO ms_small(x) AS date_trunc('minute', CAST(x AS TIMESTAMP) + INTERVAL 30 SECONDS);
CREATE OR REPLACE MACRO ms_text_datetime(x) AS
    CASE WHEN round((epoch_us(x) % 1000000) / 1000.0) = 0 THEN strftime(x, '%Y-%m-%dT%H:%M:%S')
    ELSE strftime(make_timestamp(CAST(round(epoch_us(x) / 1000.0) * 1000 AS BIGINT)), '%Y-%m-%dT%H:%M:%S.%g') END;
CREATE OR REPLACE MACRO ms_text_datetime2(x) AS
    CASE WHEN epoch_us(x) % 1000000 = 0 THEN strftime(x, '%Y-%m-%dT%H:%M:%S')
    ELSE strftime(x, '%Y-%m-%dT%H:%M:%S.%f') || '0' END;
CREATE OR REPLACE MACRO ms_text_time(x) AS strftime(CAST(DATE '2000-01-01' + x AS TIMESTAMP), '%H:%M:%S.%f') || '0';
CREATE OR REPLACE MACRO ms_utc(x) AS CAST(x AT TIME ZONE 'UTC' AS TIMESTAMP);
CREATE OR REPLACE MACRO ms_number(x) AS CAST(('0x' || right(hex(x), 16)) AS BIGINT);
"""


class RefusedError(Exception):
    """An error as SQL Server numbers it."""

    def __init__(self, number: int, words: str, severity: int = 16) -> None:
        super().__init__(words)
        self.number = number
        self.severity = severity


@dataclass
class Statement:
    """One statement, ready for DuckDB. `types`: of its columns, where T-SQL knows them better."""

    sql: str = ""
    returns: bool = False
    types: list[Kind | None] = field(default_factory=list)
    made: tuple[str, str] | None = None  # a table that it makes: schema and name
    columns: list[tuple[str, Kind]] = field(default_factory=list)  # of that table
    dropped: tuple[str, str] | None = None
    index_on: str | None = None
    text_size: int | None = None


#: Gives the types of a table's columns by their names in lower case; None when there is no such table.
Known = Callable[[str, str], "Mapping[str, Kind] | None"]


def native(type_name: str) -> Kind:
    """Gives T-SQL's type for one of DuckDB's."""
    found = re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", type_name)
    if found:
        return Kind("decimal", int(found[1]), int(found[2]))
    return _NATIVE.get(type_name, Kind("nvarchar", -1))


def statements(text: str, known: Known, values: Mapping[str, Any]) -> Iterable[Statement]:
    """Translates a batch, one statement after the other. `values`: parameters and functions of the session, by name.

    Raises RefusedError.
    """
    sizes = re.findall(r"(?i)\bset\s+textsize\s+(-?\d+)", text)
    if re.fullmatch(r"(?is)(\s*\b(set\s+\w+(\s+\w+)*?\s+(on|off|-?\d+|\w+|N?'[^']*')|use\s+\S+)\s*;?)+\s*", text):
        yield Statement(text_size=int(sizes[-1]) if sizes else None)
        return
    control = re.fullmatch(
        r"(?is)\s*(if\s+@@trancount\s*>\s*0\s+)?(begin|commit|rollback)(\s+tran(saction)?)?\s*;?\s*", text
    )
    if control:
        yield Statement(sql=control[2].upper() + "?")
        return
    try:
        parsed = sqlglot.parse(_prepared(text), read="tsql")
    except SqlglotError as error:
        raise RefusedError(102, f"Incorrect syntax: {str(error).splitlines()[0][:200]}", 15) from error
    for tree in parsed:
        if tree is None:
            continue
        if isinstance(tree, exp.Set | exp.Use | exp.Command):
            words = tree.sql("tsql").lower()
            if words.split()[:1] not in (["set"], ["use"]):
                raise RefusedError(102, f"Incorrect syntax near {words[:40]!r}.", 15)
            yield Statement(text_size=int(sizes[-1]) if "textsize" in words and sizes else None)
            continue
        yield _Translation(known, values).statement(tree, text)


def _prepared(text: str) -> str:
    return re.sub(r"(?i)\breal\b", "float(24)", text)


class _Translation:
    def __init__(self, known: Known, values: Mapping[str, Any]) -> None:
        self._known = known
        self._values = values
        self._tables: dict[str, Mapping[str, Kind]] = {}

    def statement(self, tree: exp.Expression, text: str) -> Statement:
        """Translates one statement."""
        for table in tree.find_all(exp.Table):
            self._table(table)
        match tree:
            case exp.Create(kind="SCHEMA"):
                return Statement(sql=f"CREATE SCHEMA IF NOT EXISTS {_quoted(tree.this.db or tree.this.name)}")
            case exp.Create(kind=str() as kind) if kind.endswith("INDEX"):
                return Statement(index_on=tree.this.args["table"].name)
            case exp.Create(kind="TABLE"):
                return self._create(tree, text)
            case exp.Drop(kind="TABLE"):
                (table,) = tree.find_all(exp.Table)
                sql = "DROP TABLE " + ("IF EXISTS " if tree.args.get("exists") else "") + table.sql("duckdb")
                return Statement(sql=sql, dropped=(table.db, table.name))
        into = tree.args.get("into")
        into_table = into.this if into is not None else None
        if into is not None:
            into.pop()
        types = [self._kind(each) for each in tree.expressions] if isinstance(tree, exp.Select) else []
        names = [each.alias_or_name for each in tree.expressions] if isinstance(tree, exp.Select) else []
        if isinstance(tree, exp.Select) and any(isinstance(each, exp.Star) for each in tree.expressions):
            types, names = self._starred(tree)
        tree = tree.transform(self._rewritten)
        sql = tree.sql("duckdb")
        if into_table is None:
            returns = isinstance(tree, exp.Query)
            if isinstance(tree, exp.Insert):
                self._cast_inserted(tree)
                sql = tree.sql("duckdb")
            return Statement(sql=sql, returns=returns, types=types)
        temporary = "TEMPORARY " if into_table.name.startswith("#") else ""
        sql = f"CREATE {temporary}TABLE {into_table.sql('duckdb')} AS {sql}"
        columns = [(name, kind or Kind("")) for name, kind in zip(names, types, strict=True)]
        return Statement(sql=sql, made=(into_table.db, into_table.name), columns=columns)

    def _table(self, table: exp.Table) -> None:
        identifier = table.this
        if isinstance(identifier, exp.Identifier) and identifier.args.get("temporary"):
            identifier.replace(exp.to_identifier("#" + identifier.name, quoted=True))
        table.set("catalog", None)
        if table.db.lower() == "information_schema":
            table.set("db", exp.to_identifier("tds"))
        elif not table.db and not table.name.startswith("#") and isinstance(table.this, exp.Identifier):
            table.set("db", exp.to_identifier("dbo"))
        found = self._known(table.db, table.name) if isinstance(table.this, exp.Identifier) else None
        if found is not None:
            self._tables[table.alias_or_name.lower()] = found

    def _create(self, tree: exp.Create, text: str) -> Statement:
        table = tree.this.this
        raw = _raw_types(text)
        columns, defined = [], []
        for each in tree.this.find_all(exp.ColumnDef):
            kind = raw[each.name.lower()]
            columns.append((each.name, kind))
            stored = STORED.get(kind.name, "VARCHAR")
            if kind.name in {"decimal", "numeric"}:
                stored = f"DECIMAL({kind.size},{kind.scale})"
            must = any(isinstance(one.kind, exp.NotNullColumnConstraint) for one in each.args.get("constraints") or ())
            defined.append(f"{_quoted(each.name)} {stored}{' NOT NULL' if must else ''}")
        temporary = "TEMPORARY " if table.name.startswith("#") else ""
        sql = f"CREATE {temporary}TABLE {table.sql('duckdb')} ({', '.join(defined)})"
        return Statement(sql=sql, made=(table.db, table.name), columns=columns)

    def _starred(self, tree: exp.Select) -> tuple[list[Kind | None], list[str]]:
        types: list[Kind | None] = []
        names: list[str] = []
        for each in tree.expressions:
            if isinstance(each, exp.Star):
                for columns in self._tables.values():
                    types += columns.values()
                    names += columns
            else:
                types.append(self._kind(each))
                names.append(each.alias_or_name)
        return types, names

    def _kind(self, each: exp.Expression) -> Kind | None:
        """Gives the type of an expression in T-SQL, None where DuckDB knows it as well."""
        match each:
            case exp.Alias():
                return self._kind(each.this)
            case exp.Column():
                tables = [self._tables.get(each.table.lower(), {})] if each.table else list(self._tables.values())
                return next((columns[each.name.lower()] for columns in tables if each.name.lower() in columns), None)
            case exp.Convert():
                return _kind_of(each.this)
            case exp.Cast():
                return _kind_of(each.to)
            case exp.Add():
                left = self._kind(each.this)
                if left is not None and left.size > 0 and self._is_text(each):
                    return Kind(left.name, left.size + len(each.expression.name))
                return left
            case exp.Count():
                return Kind("bigint" if each.args.get("big_int") else "int")
        return None

    def _rewritten(self, each: exp.Expression) -> exp.Expression:
        match each:
            case exp.Convert():
                style = each.args.get("style")
                return self._cast(each.expression, each.this, 0 if style is None else int(style.name))
            case exp.Cast():
                return self._cast(each.this, each.to, 0)
            case exp.Dot(expression=exp.Anonymous(this=str() as name)) if name.lower() == "tostring":
                return exp.column(each.this.copy() if isinstance(each.this, exp.Identifier) else each.this.this.copy())
            case exp.Parameter() | exp.SessionParameter():
                name = each.name.upper()
                if name not in self._values:
                    raise RefusedError(137, f'Must declare the scalar variable "@{name}".', 15)
                return _literal(self._values[name])
            case exp.Anonymous() if f"{each.name.upper()}()" in self._values:
                return _literal(self._values[f"{each.name.upper()}()"])
            case exp.CurrentUser():
                return _literal(self._values["SUSER_SNAME()"])
            case exp.National():
                return exp.Literal.string(each.name)
            case exp.Add() if self._is_text(each):
                return exp.DPipe(this=each.this.transform(self._rewritten), expression=each.expression.copy())
            case exp.HexString():
                return exp.func("unhex", exp.Literal.string(each.name.removeprefix("0x")))
        return each

    def _is_text(self, each: exp.Add) -> bool:
        right = each.expression
        return isinstance(right, exp.Literal) and right.is_string

    def _cast(self, value: exp.Expression, to: exp.DataType, style: int) -> exp.Expression:
        """Casts as T-SQL does; formats and roundings of times are its own."""
        kind = _kind_of(to)
        of = self._kind(value)
        if isinstance(value, exp.Anonymous) and value.name.upper() == "SWITCHOFFSET":
            return exp.func("ms_utc", value.expressions[0].transform(self._rewritten))
        if isinstance(value, exp.Cast) and isinstance(value.this, exp.Anonymous):
            of = _kind_of(value.to)
        inner = value.transform(self._rewritten)
        match kind.name, "" if of is None else of.name:
            case "datetime", _:
                return exp.func("ms_datetime", inner)
            case "smalldatetime", _:
                return exp.func("ms_small", inner)
            case "varchar" | "nvarchar" | "char" | "nchar", "datetime" | "smalldatetime" if style in {126, 127}:
                return exp.func("ms_text_datetime", inner)
            case "varchar" | "nvarchar" | "char" | "nchar", "datetime2" if style in {126, 127}:
                return exp.func("ms_text_datetime2", inner)
            case "varchar" | "nvarchar", "time":
                return exp.func("ms_text_time", inner)
            case "varchar" | "nvarchar" | "char" | "nchar", "uniqueidentifier":
                return exp.func("upper", _as(inner, "VARCHAR"))
            case "bigint", "rowversion" | "timestamp":
                return inner
            case "datetimeoffset", _:
                return _as(inner, "TIMESTAMPTZ")
        stored = STORED.get(kind.name, "VARCHAR")
        if kind.name in {"decimal", "numeric"}:
            stored = f"DECIMAL({kind.size},{kind.scale})"
        return _as(inner, stored)

    def _cast_inserted(self, tree: exp.Insert) -> None:
        """Rounds what is put into columns of datetime and smalldatetime, as SQL Server does when it stores."""
        schema = tree.this
        table = schema.this if isinstance(schema, exp.Schema) else schema
        columns = self._known(table.db, table.name) or {}
        named = [each.name.lower() for each in schema.expressions] if isinstance(schema, exp.Schema) else list(columns)
        macros = {"datetime": "ms_datetime", "smalldatetime": "ms_small"}
        wanted = [macros.get(columns.get(name, Kind("")).name) for name in named]
        rows = tree.expression.expressions if isinstance(tree.expression, exp.Values) else []
        selected = tree.expression.selects if isinstance(tree.expression, exp.Select) else []
        for row in [each.expressions for each in rows] + ([selected] if selected else []):
            for value, macro in zip(list(row), wanted, strict=True):
                if macro is not None:
                    bare = value.this if isinstance(value, exp.Alias) else value
                    bare.replace(exp.func(macro, bare.copy()))


def _as(value: exp.Expression, stored: str) -> exp.Expression:
    return exp.Cast(this=value, to=exp.DataType.build(stored, dialect="duckdb"))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Any) -> exp.Expression:
    if value is None:
        return exp.null()
    if isinstance(value, bytes):
        return exp.func("unhex", exp.Literal.string(value.hex()))
    if isinstance(value, bool | int | float):
        return exp.convert(value)
    return exp.Literal.string(str(value))


def _kind_of(to: exp.DataType) -> Kind:
    words = to.sql("tsql")
    found = re.fullmatch(r"(?s)\[?([\w ]+?)\]?\s*(?:\((.*)\))?", words)
    assert found is not None, words
    return _kind(found[1], found[2] or "")


def _kind(name: str, arguments: str) -> Kind:
    name = name.lower()
    given = [-1 if each.strip().lower() == "max" else int(each) for each in arguments.split(",") if each.strip()]
    match name:
        case "integer":
            return Kind("int")
        case "decimal" | "numeric" | "dec":
            size, scale = (*(given or [18]), 0)[:2]
            return Kind("numeric" if name == "numeric" else "decimal", size, scale)
        case "float":
            return Kind("real") if given and given[0] <= 24 else Kind("float")
        case "datetime2" | "datetimeoffset" | "time":
            return Kind(name, 0, given[0] if given else 7)
        case "char" | "nchar" | "varchar" | "nvarchar" | "binary" | "varbinary":
            return Kind(name, given[0] if given else 30)
        case "vector" | "sysname" | "xml" | "json":
            return Kind(name)
    return Kind(name)


def _raw_types(text: str) -> dict[str, Kind]:
    """Reads the types of a CREATE TABLE's columns as they are written: sqlglot takes some for others."""
    body = text[text.index("(") + 1 : text.rindex(")")]
    found = {}
    pattern = r"\s*(?:\[((?:[^\]]|\]\])+)\]|\"([^\"]+)\"|(\w+))\s+\[?(\w+)\]?\s*(?:\(([^)]*)\))?"
    for part in _split(body):
        each = re.match(pattern, part)
        if each is None or (each[3] or "").lower() in {"constraint", "primary", "unique", "index", "foreign", "check"}:
            continue
        name = (each[1] or "").replace("]]", "]") or each[2] or each[3]
        found[name.lower()] = _kind(each[4], each[5] or "")
    return found


def _split(body: str) -> Sequence[str]:
    parts, depth, inside, start = [], 0, "", 0
    for at, sign in enumerate(body):
        if inside:
            inside = "" if sign == inside else inside
        elif sign in "'\"[":
            inside = "]" if sign == "[" else sign
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "," and depth == 0:
            parts.append(body[start:at])
            start = at + 1
    return [*parts, body[start:]]
