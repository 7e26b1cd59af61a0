"""An SQL Server as far as its protocol goes: TDS 7.4 over DuckDB, with faults at will.

    python -m tds.server --database FILE [--port N] [--certificate FILE --key FILE] [--user NAME --password WORDS]

Prints its ports as a line of JSON. The second port takes lines of JSON: `{"sql": …}` runs T-SQL, `{"duck": …}` DuckDB's
own SQL, `{"fault": {…}}` adds a fault, `{"clear": true}` removes them, `{"stats": true}` tells what clients did,
`{"drop": true}` resets all connections. A fault: `match` (a piece of the statement, in any case; "" any; "login"; "rows
of …"), `kind` (error, drop, hang, delay), `number`, `words`, `after` (rows), `seconds`, `times`, `skip`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import duckdb
from tds import wire
from tds.dialect import MACROS, RefusedError, Statement, native, statements
from tds.wire import Kind

PACKET = 32_767
ROWS = 1000
_PROCEDURES = {10: "sp_executesql", 11: "sp_prepare", 12: "sp_execute", 13: "sp_prepexec", 15: "sp_unprepare"}
_COLUMNS = """
CREATE SCHEMA IF NOT EXISTS tds;
CREATE SCHEMA IF NOT EXISTS dbo;
CREATE TABLE IF NOT EXISTS tds.made (
    table_schema VARCHAR, table_name VARCHAR, column_name VARCHAR, ordinal_position INTEGER, data_type VARCHAR,
    size INTEGER, scale INTEGER);
CREATE OR REPLACE VIEW tds.columns AS
    SELECT *, CASE WHEN data_type IN ('decimal', 'numeric') THEN CAST(size AS UTINYINT) END AS numeric_precision,
        CASE WHEN data_type LIKE '%char' OR data_type LIKE '%binary' THEN size END AS character_maximum_length
    FROM tds.made;
CREATE OR REPLACE VIEW tds.tables AS
    SELECT DISTINCT table_schema, table_name, 'BASE TABLE' AS table_type FROM tds.made;
"""


@dataclass
class Fault:
    """Something that goes wrong."""

    match: str = ""
    kind: str = "error"
    number: int = 50000
    words: str = "made up"
    severity: int = 16
    after: int | None = None
    seconds: float = 0.0
    times: int = 1
    skip: int = 0

    def fits(self, text: str) -> bool:
        """Tells whether it is this fault's turn, and counts."""
        if not self.times or self.match.lower() not in text.lower():
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Stats:
    """What clients did."""

    logins: int = 0
    refused: int = 0
    open: int = 0
    running: int = 0
    attentions: int = 0
    encrypted: int = 0
    statements: list[str] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)
    indexed: list[str] = field(default_factory=list)
    password_shown: bool = False


class Dropped(Exception):  # noqa: N818  (no error: what was asked for)
    """The connection is to be reset."""


class Server:
    """The engine, and what all sessions share."""

    def __init__(self, database: str, user: str, password: str, name: str, tls: ssl.SSLContext | None) -> None:
        self.engine = duckdb.connect(database)
        self.engine.execute("SET TimeZone = 'UTC'; SET threads = 1; SET preserve_insertion_order = true")
        self.engine.execute(MACROS + _COLUMNS)
        self.user, self.password, self.name, self.tls = user, password, name, tls
        self.faults: list[Fault] = []
        self.stats = Stats()
        self.sessions: set[Session] = set()

    def fault(self, text: str) -> Fault | None:
        return next((each for each in self.faults if each.fits(text)), None)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        session = Session(self, reader, writer)
        self.sessions.add(session)
        try:
            await session.serve()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass  # the client went, or the peer ends
        except Dropped:
            writer.transport.abort()
        finally:
            self.sessions.discard(session)
            session.close()
            writer.close()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves whoever makes the faults."""
        engine = Engine(self)
        try:
            while line := await reader.readline():
                try:
                    answer = await self._ordered(engine, json.loads(line))
                except (RefusedError, duckdb.Error, TypeError, ValueError, KeyError) as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                writer.write(json.dumps(answer, default=str).encode() + b"\n")
                await writer.drain()
        except (asyncio.CancelledError, ConnectionError):
            pass  # whoever orders went, or the peer ends
        finally:
            engine.close()
            writer.close()

    async def _ordered(self, engine: Engine, order: Mapping[str, Any]) -> Any:
        if "sql" in order:
            results = await asyncio.to_thread(lambda: [list(result.rows()) for result in engine.run(order["sql"], {})])
            return {"rows": results[-1] if results else []}
        if "duck" in order:
            rows = await asyncio.to_thread(lambda: engine.cursor.execute(order["duck"]).fetchall())
            return {"rows": rows}
        if "fault" in order:
            self.faults.append(Fault(**order["fault"]))
        if "password" in order:
            self.password = order["password"]
        if order.get("clear"):
            self.faults.clear()
        if order.get("drop"):
            for each in list(self.sessions):
                each.writer.transport.abort()
        return {"stats": asdict(self.stats)}


@dataclass
class Result:
    """What a statement gave: rows of columns, or a number of rows."""

    columns: list[tuple[str, Kind]]
    cursor: duckdb.DuckDBPyConnection | None
    count: int = 0

    def rows(self) -> Any:
        """Gives all rows."""
        return [] if self.cursor is None else self.cursor.fetchall()


class Engine:
    """One session's connection to DuckDB; temporary tables are its own."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.cursor = server.engine.cursor()
        self.cursor.execute("SET TimeZone = 'UTC'")
        self.temporary: dict[str, list[tuple[str, Kind]]] = {}
        self.text_size = 2**31 - 1
        self.in_transaction = False
        self._lock = threading.Lock()  # a statement may still run when its client is gone
        self._closed = False

    def known(self, schema: str, name: str) -> Mapping[str, Kind] | None:
        """Gives the types of a table's columns."""
        if name.startswith("#"):
            columns = self.temporary.get(name.lower())
            return None if columns is None else {column.lower(): kind for column, kind in columns}
        if schema.lower() == "tds":
            return None
        rows = self.cursor.execute(
            "SELECT column_name, data_type, size, scale FROM tds.made WHERE lower(table_schema) = lower(?)"
            " AND lower(table_name) = lower(?) ORDER BY ordinal_position",
            (schema or "dbo", name),
        ).fetchall()
        return {column.lower(): Kind(kind, size, scale) for column, kind, size, scale in rows} or None

    def run(self, text: str, values: Mapping[str, Any], *, scoped: bool = False) -> Any:
        """Runs a batch, and gives a Result each statement. `scoped`: temporary tables made in it end with it."""
        before = set(self.temporary)
        try:
            for statement in statements(text, self.known, values):
                with self._lock:
                    if self._closed:
                        raise RefusedError(0, "the session is over")
                    result = self._one(statement)
                yield result
        finally:
            if scoped and not self._closed:
                for name in set(self.temporary) - before:
                    self.cursor.execute(f'DROP TABLE IF EXISTS "{name}"')
                    del self.temporary[name]
                    self._server.stats.temporary.remove(name)

    def _one(self, statement: Statement) -> Result:
        if statement.text_size is not None:
            self.text_size = statement.text_size if statement.text_size > 0 else 4096
        if statement.index_on is not None:
            if statement.index_on.lower() not in self.temporary:
                raise RefusedError(1088, f'Cannot find the object "{statement.index_on}".')
            self._server.stats.indexed.append(statement.index_on)
        if statement.sql.endswith("?"):
            self._transaction(statement.sql[:-1])
            return Result([], None)
        if not statement.sql:
            return Result([], None)
        try:
            done = self.cursor.execute(statement.sql)
        except duckdb.Error as error:
            raise told(error) from error
        if statement.dropped is not None and self.temporary.pop(statement.dropped[1].lower(), None) is not None:
            self._server.stats.temporary.remove(statement.dropped[1].lower())
        if statement.dropped is not None:
            schema, name = statement.dropped
            self.cursor.execute(
                "DELETE FROM tds.made WHERE lower(table_schema) = lower(?) AND lower(table_name) = lower(?)",
                (schema or "dbo", name),
            )
        if statement.made is not None:
            return Result([], None, self._made(statement, done))
        if not statement.returns:
            row = done.fetchone() if done.description else None
            return Result([], None, row[0] if row and isinstance(row[0], int) else 0)
        kinds = [native(str(each[1])) for each in done.description]
        if len(statement.types) == len(kinds):
            kinds = [better or kind for better, kind in zip(statement.types, kinds, strict=True)]
        columns = [(each[0], kind) for each, kind in zip(done.description, kinds, strict=True)]
        return Result(columns, done)

    def _made(self, statement: Statement, done: duckdb.DuckDBPyConnection) -> int:
        assert statement.made is not None
        schema, name = statement.made
        row = done.fetchone() if done.description else None
        columns = statement.columns
        if any(not kind.name for _, kind in columns):
            stored = self.cursor.execute(f'DESCRIBE "{name}"').fetchall()
            columns = [
                (column, kind if kind.name else native(each[1]))
                for (column, kind), each in zip(columns, stored, strict=True)
            ]
        if name.startswith("#"):
            self.temporary[name.lower()] = columns
            self._server.stats.temporary.append(name.lower())
        else:
            self.cursor.executemany(
                "INSERT INTO tds.made VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(schema or "dbo", name, column, place + 1, *kind) for place, (column, kind) in enumerate(columns)],
            )
        return int(row[0]) if row and isinstance(row[0], int) else 0

    def _transaction(self, word: str) -> None:
        if (word == "BEGIN") != self.in_transaction:
            self.cursor.execute(word)
            self.in_transaction = word == "BEGIN"

    def close(self) -> None:
        """Ends the session: what is temporary goes with it."""
        self.cursor.interrupt()
        with self._lock:
            self._closed = True
            for name in self.temporary:
                self._server.stats.temporary.remove(name)
            self.temporary.clear()
            self.cursor.close()


def told(error: duckdb.Error) -> Exception:
    """Gives DuckDB's error as SQL Server would say it."""
    words = str(error).splitlines()[0]
    if isinstance(error, duckdb.InterruptException):
        return error
    if isinstance(error, duckdb.CatalogException):
        name = words.split("name ", 1)[-1].split(" does", 1)[0]
        return RefusedError(2714 if "already exists" in words else 208, f"Invalid object name '{name}'. ({words})")
    if isinstance(error, duckdb.BinderException) and "column" in words.lower():
        return RefusedError(207, f"Invalid column name. ({words})")
    if isinstance(error, duckdb.ConversionException):
        return RefusedError(241, f"Conversion failed. ({words})")
    return RefusedError(50000, words)


class Session:
    """One connection of a client."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self.writer = writer
        self._engine: Engine | None = None
        self._packet = 4096
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._sealed = False
        self._decoded = bytearray()
        self._values: dict[str, Any] = {}
        self._prepared: dict[int, str] = {}
        self._stop: Callable[[], None] = lambda: None
        self._stopped = threading.Event()
        self._attended = False
        self._left = b""
        self._lock = threading.Lock()

    # --- packets

    async def _bytes(self, size: int) -> bytes:
        if not self._sealed:
            return await self._reader.readexactly(size)
        assert self._tls is not None
        while len(self._decoded) < size:
            try:
                self._decoded += self._tls.read(65_536)
            except ssl.SSLWantReadError:
                found = await self._reader.read(65_536)
                if not found:
                    raise asyncio.IncompleteReadError(b"", size) from None
                self._incoming.write(found)
        found = bytes(self._decoded[:size])
        del self._decoded[:size]
        return found

    async def _read(self) -> tuple[int, bytes]:
        payload = b""
        while True:
            kind, status, size = struct.unpack(">BBH", (await self._bytes(8))[:4])
            payload += await self._bytes(size - 8)
            if status & 1:
                return kind, payload

    def _send(self, payload: bytes, *, last: bool, kind: int = wire.REPLY) -> bytes:
        """Puts whole packets on their way; gives what is left over for the next. The last one is never empty."""
        room = self._packet - 8
        out = []
        while len(payload) > room or (last and payload):
            piece, payload = payload[:room], payload[room:]
            end = last and not payload
            out.append(struct.pack(">BBHHBB", kind, end, len(piece) + 8, 1, 1, 0) + piece)
        data = b"".join(out)
        if data:
            if self._sealed:
                assert self._tls is not None
                self._tls.write(data)
                data = self._outgoing.read()
            self.writer.write(data)
        return payload

    async def _reply(self, payload: bytes) -> None:
        self._send(payload, last=True)
        await self.writer.drain()

    # --- login

    async def serve(self) -> None:
        """Lets the client in, then runs what it sends."""
        _, payload = await self._read()
        wanted = wire.prelogin_options(payload).get(1, b"\x02")[0]
        offered = self._encryption(wanted)
        await self._reply(wire.prelogin_reply(offered))
        if offered in {wire.ENCRYPT_ON, wire.ENCRYPT_OFF, wire.ENCRYPT_MUST}:
            await self._shake_hands()
            self._server.stats.encrypted += 1
        kind, payload = await self._read()
        if offered == wire.ENCRYPT_OFF:
            self._sealed = False  # the login alone was encrypted
        assert kind == wire.LOGIN
        login = wire.login_of(payload)
        refusal = await self._refusal(login)
        if refusal is not None:
            self._server.stats.refused += 1
            await self._reply(refusal + wire.done(wire.DONE, wire.FAILED, 0))
            return
        self._server.stats.logins += 1
        self._engine = Engine(self._server)
        self._server.stats.open += 1
        self._values = {
            "VERSION": "Microsoft SQL Server 2022 - a peer of cohortd's tests",
            "SPID": 51,
            "TRANCOUNT": 0,
            "SERVERNAME": "peer",
            "MICROSOFTVERSION": 0x10000000,
            "DB_NAME()": self._server.name,
            "SUSER_SNAME()": login.user,
        }
        packet = PACKET if not self._sealed else 16_192
        await self._reply(wire.welcome(self._server.name, packet))
        self._packet = packet
        await self._serve_requests()

    def _encryption(self, wanted: int) -> int:
        if self._server.tls is None:
            return wire.ENCRYPT_NOT
        return (
            wire.ENCRYPT_NOT
            if wanted == wire.ENCRYPT_NOT
            else wire.ENCRYPT_OFF
            if wanted == wire.ENCRYPT_OFF
            else wire.ENCRYPT_ON
        )

    async def _shake_hands(self) -> None:
        assert self._server.tls is not None
        self._tls = self._server.tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                if found := self._outgoing.read():
                    self._send(found, last=True, kind=wire.PRELOGIN)
                    await self.writer.drain()
                _, payload = await self._read()
                self._incoming.write(payload)
            else:
                break
        if found := self._outgoing.read():
            self._send(found, last=True, kind=wire.PRELOGIN)
        self._sealed = True

    async def _refusal(self, login: wire.Login) -> bytes | None:
        fault = self._server.fault("login")
        if fault is not None:
            if fault.kind == "drop":
                raise Dropped
            if fault.kind == "hang":
                await asyncio.Event().wait()
            if fault.kind == "delay":
                await asyncio.sleep(fault.seconds)
            if fault.kind == "error":
                return wire.message(0xAA, fault.number, fault.words, fault.severity)
        if (login.user.split("@")[0], login.password) != (self._server.user, self._server.password):
            return wire.message(0xAA, 18456, f"Login failed for user '{login.user}'.", 14)
        if login.database and login.database.lower() != self._server.name.lower():
            words = f'Cannot open database "{login.database}" requested by the login. The login failed.'
            return wire.message(0xAA, 4060, words, 11) + wire.message(
                0xAA, 18456, f"Login failed for user '{login.user}'.", 14
            )
        return None

    # --- requests

    async def _serve_requests(self) -> None:
        reading = asyncio.ensure_future(self._read())
        try:
            while True:
                kind, payload = await reading
                if kind == wire.ATTENTION:  # nothing runs
                    self._server.stats.attentions += 1
                    await self._attend(b"", late=True)
                    reading = asyncio.ensure_future(self._read())
                    continue
                self._stopped.clear()
                self._attended = False
                self._left = b""
                reading = asyncio.ensure_future(self._read())
                answering = asyncio.ensure_future(self._answer(kind, payload))
                try:
                    await asyncio.wait([reading, answering], return_when=asyncio.FIRST_COMPLETED)
                    if reading.done() and not answering.done():
                        attention = reading.exception() is None and reading.result()[0] == wire.ATTENTION
                        self._interrupt()
                        if not attention:
                            answering.cancel()
                            await asyncio.wait([answering])
                            reading.result()
                            raise Dropped
                        self._server.stats.attentions += 1
                        await asyncio.wait([answering])
                        if not self._attended:  # the answer was on its way already
                            await self._attend(b"", late=True)
                        reading = asyncio.ensure_future(self._read())
                    answering.result()
                finally:
                    if not answering.done():
                        answering.cancel()
                        await asyncio.wait([answering])
        finally:
            reading.cancel()
            with suppress(BaseException):
                await reading

    def _interrupt(self) -> None:
        self._stopped.set()
        with self._lock:
            self._stop()
        if self._engine is not None:
            self._engine.cursor.interrupt()

    async def _answer(self, kind: int, payload: bytes) -> None:
        assert self._engine is not None
        engine, scoped, rpc = self._engine, False, False
        head, tail = b"", b""
        text, values = "", dict(self._values)
        if kind == wire.BATCH:
            (skip,) = struct.unpack_from("<I", payload)
            text = payload[skip:].decode("utf-16-le")
        elif kind == wire.MANAGER:
            await self._reply(self._managed(payload))
            return
        elif kind == wire.RPC:
            scoped = rpc = True
            try:
                text, more, tail = self._called(payload)
            except ValueError as error:
                await self._reply(self._failed(error, rpc=True))
                return
            values |= more
        self._server.stats.running += 1
        try:
            left = await self._run(engine, text, values, head, scoped=scoped, rpc=rpc)
        except (RefusedError, duckdb.Error, ValueError, TypeError, ArithmeticError) as error:
            if self._stopped.is_set():
                await self._attend(self._left)
            else:
                await self._reply(self._left + self._failed(error, rpc=rpc))
            return
        finally:
            self._server.stats.running -= 1
        if self._stopped.is_set():
            await self._attend(left)
        elif rpc:
            await self._reply(left + b"\x79\0\0\0\0" + tail + wire.done(wire.DONE_PROC, 0, 0, 0xE0))
        else:
            await self._reply(left)

    async def _attend(self, left: bytes, *, late: bool = False) -> None:
        """Says that a request was broken off, if it was, and that the attention was heard."""
        broken = b"" if late else wire.done(wire.DONE, wire.FAILED | wire.MORE, 0)
        self._attended = True
        await self._reply(left + broken + wire.done(wire.DONE, wire.ATTENDED, 0, 0xFD))

    def _failed(self, error: Exception, *, rpc: bool) -> bytes:
        number, severity = (error.number, error.severity) if isinstance(error, RefusedError) else (50000, 16)
        token = wire.message(0xAA, number, str(error)[:2000], severity)
        return token + wire.done(wire.DONE_PROC if rpc else wire.DONE, wire.FAILED, 0)

    async def _run(
        self, engine: Engine, text: str, values: dict[str, Any], head: bytes, *, scoped: bool, rpc: bool
    ) -> bytes:
        """Runs a batch and sends what it gives but for its last packet."""
        self._server.stats.statements.append(text[:4000])
        if self._server.password in text:
            self._server.stats.password_shown = True
        fault = self._server.fault(text)
        if fault is not None and fault.after is None:
            await self._faulty(fault)
        left = head
        batch = engine.run(text, values, scoped=scoped)
        pending: bytes | None = None
        try:
            while (result := await asyncio.to_thread(next, batch, None)) is not None:
                if pending is not None:
                    left += self._done(pending, rpc=rpc, more=True)
                if result.cursor is not None:
                    left += wire.described(result.columns)
                    left, count = await self._rows(engine, result, left, fault)
                    pending = struct.pack("<Q", count)
                else:
                    pending = struct.pack("<Q", result.count)
                if self._stopped.is_set():
                    return left
        finally:
            await asyncio.to_thread(batch.close)
        if pending is None and not rpc:
            pending = bytes(8)
        return left + (b"" if pending is None else self._done(pending, rpc=rpc, more=rpc))

    @staticmethod
    def _done(count: bytes, *, rpc: bool, more: bool) -> bytes:
        status = wire.COUNTED | (wire.MORE if more else 0)
        return wire.done(wire.DONE_IN_PROC if rpc else wire.DONE, status, struct.unpack("<Q", count)[0])

    async def _rows(self, engine: Engine, result: Result, left: bytes, fault: Fault | None) -> tuple[bytes, int]:
        assert result.cursor is not None
        cursor = result.cursor
        write = wire.row_writer([kind for _, kind in result.columns], engine.text_size)
        count = 0

        def some() -> tuple[bytes, int]:
            rows = cursor.fetchmany(ROWS)
            return write(rows), len(rows)

        coming = asyncio.ensure_future(asyncio.to_thread(some))
        try:
            while True:
                self._left = left  # should it end here, this goes before whatever is said of that
                found, number = await coming
                if not number or self._stopped.is_set():
                    return left, count
                count += number
                coming = asyncio.ensure_future(asyncio.to_thread(some))
                left = self._send(left + found, last=False)
                await self.writer.drain()
                self._left = left
                if fault is not None and fault.after is not None and count >= fault.after:
                    await self._faulty(fault)
        finally:
            with suppress(duckdb.Error):
                await coming

    async def _faulty(self, fault: Fault) -> None:
        match fault.kind:
            case "drop":
                raise Dropped
            case "delay":
                await asyncio.sleep(fault.seconds)
            case "hang":  # as a query that takes long: an attention ends it
                loop = asyncio.get_running_loop()
                ended = asyncio.Event()
                with self._lock:
                    self._stop = lambda: loop.call_soon_threadsafe(ended.set)
                if not self._stopped.is_set():
                    await ended.wait()
                raise RefusedError(0, "interrupted")
            case _:
                raise RefusedError(fault.number, fault.words, fault.severity)

    # --- remote procedures and transactions

    def _called(self, payload: bytes) -> tuple[str, dict[str, Any], bytes]:
        """Reads an RPC: the statement, its parameters by name, and what follows the rows."""
        (skip,) = struct.unpack_from("<I", payload)
        reader = wire.Reader(payload, skip)
        size = reader.take("H")
        name = _PROCEDURES.get(reader.take("H"), "") if size == 0xFFFF else reader.bytes(2 * size).decode("utf-16-le")
        reader.take("H")
        given: list[tuple[str, Any]] = []
        while not reader.ended:
            called = reader.short_text()
            reader.take("B")
            given.append((called.lstrip("@"), reader.value()))
        match name.lower():
            case "sp_executesql":
                return given[0][1], self._bound(given[1][1] if len(given) > 1 else "", given[2:]), b""
            case "sp_prepexec":
                handle = self._keep(given[2][1])
                return given[2][1], self._bound(given[1][1] or "", given[3:]), wire.returned(handle)
            case "sp_prepare":
                return "", {}, wire.returned(self._keep(given[2][1]))
            case "sp_execute":
                text = self._prepared[given[0][1]]
                names = [f"P{number}" for number in range(1, len(given))]
                return text, dict(zip(names, (value for _, value in given[1:]), strict=True)), b""
            case "sp_unprepare":
                self._prepared.pop(given[0][1], None)
                return "", {}, b""
        raise ValueError(f"Could not find stored procedure '{name}'.")

    def _keep(self, text: str) -> int:
        handle = len(self._prepared) + 1
        self._prepared[handle] = text
        return handle

    @staticmethod
    def _bound(declared: str, given: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [each.split()[0].lstrip("@").upper() for each in declared.split(",@") if each.strip()]
        return {(name or names[at]).upper(): value for at, (name, value) in enumerate(given)}

    def _managed(self, payload: bytes) -> bytes:
        assert self._engine is not None
        (skip,) = struct.unpack_from("<I", payload)
        (request,) = struct.unpack_from("<H", payload, skip)
        number = struct.pack("<BQ", 8, 1)
        words = {5: ("BEGIN", 8, number, b"\0"), 7: ("COMMIT", 9, b"\0", number), 8: ("ROLLBACK", 10, b"\0", number)}
        if request not in words:
            return self._failed(RefusedError(50000, f"request {request} is not known"), rpc=False)
        word, kind, new, old = words[request]
        self._engine._transaction(word)
        return wire.changed(kind, new, old) + wire.done(wire.DONE, 0, 0)

    def close(self) -> None:
        """Ends the session."""
        if self._engine is not None:
            self._server.stats.open -= 1
            self._engine.close()


async def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", default=":memory:")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control", type=int, default=0)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--user", default="lab")
    parser.add_argument("--password", default="")
    parser.add_argument("--name", default="shop")
    flags = parser.parse_args()
    tls = None
    if flags.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.maximum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(flags.certificate, flags.key)
    server = Server(flags.database, flags.user, flags.password, flags.name, tls)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_reader(sys.stdin.fileno(), ended.set)  # whoever started it has ended
    serving = await asyncio.start_server(server.accept, "127.0.0.1", flags.port, limit=1 << 20)
    controlling = await asyncio.start_server(server.control, "127.0.0.1", flags.control, limit=1 << 26)
    ports = [each.sockets[0].getsockname()[1] for each in (serving, controlling)]
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await ended.wait()
    for each in list(server.sessions):
        each.writer.transport.abort()
    server.engine.close()


if __name__ == "__main__":
    asyncio.run(main())
