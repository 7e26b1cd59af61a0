"""The bytes of TDS 7.4: packets, the login, tokens, and values of SQL Server's types (MS-TDS).

Values are encoded by functions made once for a result's columns: the peer must not be slower than what it measures.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

BATCH, RPC, REPLY, ATTENTION, MANAGER, LOGIN, PRELOGIN = 1, 3, 4, 6, 14, 16, 18
DONE, DONE_PROC, DONE_IN_PROC = 0xFD, 0xFE, 0xFF
MORE, FAILED, COUNTED, ATTENDED = 0x01, 0x02, 0x10, 0x20
ENCRYPT_OFF, ENCRYPT_ON, ENCRYPT_NOT, ENCRYPT_MUST = 0, 1, 2, 3

_COLLATION = b"\x09\x04\xd0\x00\x34"  # SQL_Latin1_General_CP1_CI_AS
_NOTHING = 0xFFFFFFFFFFFFFFFF
_UNKNOWN = 0xFFFFFFFFFFFFFFFE
_EPOCH = date(1900, 1, 1)
_FIRST = date(1, 1, 1)
_TICKS = {0: 3, 1: 3, 2: 3, 3: 4, 4: 4, 5: 5, 6: 5, 7: 5}


class Kind(NamedTuple):
    """A type of T-SQL: its name, and length (-1: max) or precision and scale."""

    name: str
    size: int = 0
    scale: int = 0


@dataclass(frozen=True)
class Login:
    """What a client says of itself."""

    user: str
    password: str
    database: str
    app: str
    server: str


def prelogin_options(payload: bytes) -> dict[int, bytes]:
    """Reads the options of a PRELOGIN."""
    options, at = {}, 0
    while payload[at] != 0xFF:
        token, offset, size = struct.unpack_from(">BHH", payload, at)
        options[token] = payload[offset : offset + size]
        at += 5
    return options


def prelogin_reply(encryption: int) -> bytes:
    """Answers a PRELOGIN: version 16, what is encrypted, no instance, no thread, no MARS."""
    values = [(0, bytes((16, 0, 0x10, 0, 0, 0))), (1, bytes((encryption,))), (2, b"\0"), (3, b""), (4, b"\0")]
    head, body = b"", b""
    start = 5 * len(values) + 1
    for token, value in values:
        head += struct.pack(">BHH", token, start + len(body), len(value))
        body += value
    return head + b"\xff" + body


def login_of(payload: bytes) -> Login:
    """Reads a LOGIN7."""

    def text(place: int) -> str:
        offset, count = struct.unpack_from("<HH", payload, place)
        return payload[offset : offset + 2 * count].decode("utf-16-le")

    offset, count = struct.unpack_from("<HH", payload, 44)
    hidden = bytes(each ^ 0xA5 for each in payload[offset : offset + 2 * count])
    password = bytes((each >> 4) | ((each & 15) << 4) for each in hidden).decode("utf-16-le")
    return Login(text(40), password, text(68), text(48), text(52))


def short_text(value: str) -> bytes:
    """Writes a text behind the number of its characters, one byte."""
    return bytes((len(value),)) + value.encode("utf-16-le")


def long_text(value: str) -> bytes:
    """Writes a text behind the number of its characters, two bytes."""
    return struct.pack("<H", len(value)) + value.encode("utf-16-le")


def message(token: int, number: int, words: str, severity: int = 14, state: int = 1) -> bytes:
    """Makes an ERROR (0xAA) or INFO (0xAB) token."""
    body = struct.pack("<iBB", number, state, severity) + long_text(words) + short_text("peer") + short_text("")
    body += struct.pack("<i", 1)
    return struct.pack("<BH", token, len(body)) + body


def changed(kind: int, new: bytes, old: bytes) -> bytes:
    """Makes an ENVCHANGE token."""
    body = bytes((kind,)) + new + old
    return struct.pack("<BH", 0xE3, len(body)) + body


def welcome(database: str, packet: int) -> bytes:
    """Makes the answer to a login that was accepted."""
    acknowledged = b"\x01\x74\x00\x00\x04" + short_text("Microsoft SQL Server") + bytes((16, 0, 0x10, 0))
    return b"".join(
        (
            changed(1, short_text(database), short_text("master")),
            message(0xAB, 5701, f"Changed database context to '{database}'.", 0, 2),
            changed(7, b"\x05" + _COLLATION, b"\x00"),
            struct.pack("<BH", 0xAD, len(acknowledged)) + acknowledged,
            changed(4, short_text(str(packet)), short_text("4096")),
            done(DONE, 0, 0),
        )
    )


def done(token: int, status: int, count: int, command: int = 0xC1) -> bytes:
    """Makes one of the three DONE tokens."""
    return struct.pack("<BHHQ", token, status, command, count)


def returned(handle: int) -> bytes:
    """Makes the RETURNVALUE of a prepared statement's handle."""
    return (
        struct.pack("<BH", 0xAC, 0)
        + b"\x00\x01"
        + struct.pack("<IH", 0, 0)
        + b"\x26\x04\x04"
        + struct.pack("<i", handle)
    )


# --- types


def described(columns: Sequence[tuple[str, Kind]]) -> bytes:
    """Makes the COLMETADATA token."""
    out = [struct.pack("<BH", 0x81, len(columns))]
    out += [
        struct.pack("<IH", 0x50 if kind.name == "rowversion" else 0, 0x09) + _info(kind) + short_text(name)
        for name, kind in columns
    ]
    return b"".join(out)


_INTEGERS = {"tinyint": (1, "<BB"), "smallint": (2, "<Bh"), "int": (4, "<Bi"), "bigint": (8, "<Bq")}
#: Types that this peer sends as others, as SQL Server does to clients that do not know them.
_SENT_AS = {
    "text": Kind("varchar", -1),
    "ntext": Kind("nvarchar", -1),
    "image": Kind("varbinary", -1),
    "xml": Kind("nvarchar", -1),
    "json": Kind("nvarchar", -1),
    "vector": Kind("nvarchar", -1),
    "sql_variant": Kind("nvarchar", 4000),
    "hierarchyid": Kind("nvarchar", 4000),
    "geography": Kind("nvarchar", -1),
    "geometry": Kind("nvarchar", -1),
    "sysname": Kind("nvarchar", 128),
    "numeric": Kind("decimal"),
    "timestamp": Kind("rowversion"),
}


def sent_as(kind: Kind) -> Kind:
    """Gives the type in which values of another travel."""
    sent = _SENT_AS.get(kind.name, kind)
    return Kind("decimal", kind.size, kind.scale) if sent.name == "decimal" else sent


def _info(kind: Kind) -> bytes:
    kind = sent_as(kind)
    match kind.name:
        case "bit":
            return b"\x68\x01"
        case "tinyint" | "smallint" | "int" | "bigint":
            return bytes((0x26, _INTEGERS[kind.name][0]))
        case "real":
            return b"\x6d\x04"
        case "float":
            return b"\x6d\x08"
        case "smallmoney":
            return b"\x6e\x04"
        case "money":
            return b"\x6e\x08"
        case "smalldatetime":
            return b"\x6f\x04"
        case "datetime":
            return b"\x6f\x08"
        case "decimal":
            return bytes((0x6A, _digits(kind.size), kind.size, kind.scale))
        case "uniqueidentifier":
            return b"\x24\x10"
        case "date":
            return b"\x28"
        case "time":
            return bytes((0x29, kind.scale))
        case "datetime2":
            return bytes((0x2A, kind.scale))
        case "datetimeoffset":
            return bytes((0x2B, kind.scale))
        case "rowversion":
            return b"\xad\x08\x00"
        case "binary" | "varbinary":
            return bytes((0xAD if kind.name == "binary" else 0xA5,)) + _length(kind.size)
        case "char" | "varchar":
            return bytes((0xAF if kind.name == "char" else 0xA7,)) + _length(kind.size) + _COLLATION
        case "nchar" | "nvarchar":
            size = kind.size if kind.size < 0 else 2 * kind.size
            return bytes((0xEF if kind.name == "nchar" else 0xE7,)) + _length(size) + _COLLATION
        case _:
            raise ValueError(f"type {kind.name} cannot be sent")


def _length(size: int) -> bytes:
    return struct.pack("<H", 0xFFFF if size < 0 else size)


def _digits(precision: int) -> int:
    return next(size for most, size in ((9, 5), (19, 9), (28, 13), (38, 17)) if precision <= most)


Encode = Callable[[Any], bytes]


def row_writer(kinds: Sequence[Kind], most: int) -> Callable[[Sequence[Sequence[Any]]], bytes]:
    """Makes what encodes rows of these types; values of unbounded types are cut at `most` bytes, as TEXTSIZE says."""
    names = [f"e{number}" for number in range(len(kinds))]
    scope: dict[str, Any] = {name: _encoder(sent_as(kind), most) for name, kind in zip(names, kinds, strict=True)}
    values = ", ".join(f"v{number}" for number in range(len(kinds)))
    calls = "".join(
        f", b'{_null(sent_as(kind))}' if v{number} is None else e{number}(v{number})"
        for number, kind in enumerate(kinds)
    )
    source = (
        "def write(rows):\n    out = []\n    add = out.extend\n"
        f"    for {values}{',' if len(kinds) == 1 else ''} in rows:\n"
        f"        add((b'\\xd1'{calls}))\n    return b''.join(out)\n"
    )
    exec(source, scope)  # noqa: S102  (names and types of our own)
    return scope["write"]  # type: ignore[no-any-return]


def _null(kind: Kind) -> str:
    if kind.name in {"char", "varchar", "nchar", "nvarchar", "binary", "varbinary", "rowversion"}:
        return r"\xff" * (8 if kind.size < 0 else 2)
    return r"\x00"


def _encoder(kind: Kind, most: int) -> Encode:
    match kind.name:
        case "bit":
            return lambda value: b"\x01\x01" if value else b"\x01\x00"
        case "tinyint" | "smallint" | "int" | "bigint":
            size, form = _INTEGERS[kind.name]
            pack = struct.Struct(form).pack
            return lambda value: pack(size, value)
        case "real":
            pack = struct.Struct("<Bf").pack
            return lambda value: pack(4, value)
        case "float":
            pack = struct.Struct("<Bd").pack
            return lambda value: pack(8, value)
        case "smallmoney":
            return lambda value: struct.pack("<Bi", 4, int(value.scaleb(4)))
        case "money":
            return _money
        case "decimal":
            return _decimal(kind)
        case "uniqueidentifier":
            return lambda value: b"\x10" + (value if isinstance(value, UUID) else UUID(str(value))).bytes_le
        case "date":
            return lambda value: b"\x03" + _days(value)
        case "smalldatetime":
            return _small
        case "datetime":
            return _datetime
        case "time":
            return _sized(lambda value: _clock(value, kind.scale))
        case "datetime2":
            return _sized(lambda value: _clock(value.time(), kind.scale) + _days(value.date()))
        case "datetimeoffset":
            return _sized(lambda value: _offset(value, kind.scale))
        case "rowversion":
            return lambda value: struct.pack("<H", 8) + int(value).to_bytes(8, "big")
        case _:
            return _text(kind, most)


def _text(kind: Kind, most: int) -> Encode:
    pack = struct.Struct("<H").pack
    many = struct.Struct("<QI").pack
    wide = kind.name in {"nchar", "nvarchar"}
    plain = kind.name in {"binary", "varbinary"}

    def content(value: Any) -> bytes:
        if plain:
            return bytes(value)
        return str(value).encode("utf-16-le") if wide else str(value).encode("cp1252", "replace")

    if kind.size < 0:

        def endless(value: Any) -> bytes:
            found = content(value)[:most]
            return many(len(found), len(found)) + found + b"\0\0\0\0" if found else struct.pack("<QI", 0, 0)

        return endless
    if wide and kind.name == "nvarchar":

        def usual(value: Any) -> bytes:
            found = value.encode("utf-16-le")
            return pack(len(found)) + found

        return usual
    fill = {"char": b" ", "binary": b"\0", "nchar": b" \0"}.get(kind.name, b"")
    width = kind.size * (2 if wide else 1)

    def bounded(value: Any) -> bytes:
        found = content(value)
        if fill and len(found) < width:
            found += fill * ((width - len(found)) // len(fill))
        return pack(len(found)) + found

    return bounded


def _sized(encode: Encode) -> Encode:
    def sized(value: Any) -> bytes:
        found = encode(value)
        return bytes((len(found),)) + found

    return sized


def _money(value: Decimal) -> bytes:
    whole = int(value.scaleb(4))
    return struct.pack("<BiI", 8, whole >> 32, whole & 0xFFFFFFFF)


def _decimal(kind: Kind) -> Encode:
    size = _digits(kind.size)

    def encode(value: Decimal | int) -> bytes:
        number = Decimal(value)
        sign, digits, exponent = number.as_tuple()
        whole = int("".join(map(str, digits)) or "0") * 10 ** (kind.scale + int(exponent))
        return bytes((size, 0 if sign else 1)) + whole.to_bytes(size - 1, "little")

    return encode


def _days(value: date) -> bytes:
    return (value - _FIRST).days.to_bytes(3, "little")


def _clock(value: time, scale: int) -> bytes:
    micros = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    units = micros * 10 // 10 ** (7 - scale)
    return units.to_bytes(_TICKS[scale], "little")


def _offset(value: datetime, scale: int) -> bytes:
    moment = value.astimezone(UTC)
    return _clock(moment.time(), scale) + _days(moment.date()) + struct.pack("<h", 0)


def _small(value: datetime) -> bytes:
    return struct.pack("<BHH", 4, (value.date() - _EPOCH).days, value.hour * 60 + value.minute)


def _datetime(value: datetime) -> bytes:
    micros = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    return struct.pack("<BiI", 8, (value.date() - _EPOCH).days, round(micros * 3 / 10_000))


# --- parameters of an RPC


class Reader:
    """Reads a message from its beginning."""

    def __init__(self, payload: bytes, at: int = 0) -> None:
        self._payload = payload
        self.at = at

    @property
    def ended(self) -> bool:
        return self.at >= len(self._payload)

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self._payload, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def bytes(self, size: int) -> bytes:
        self.at += size
        return self._payload[self.at - size : self.at]

    def short_text(self) -> str:
        return self.bytes(2 * self.take("B")).decode("utf-16-le")

    def value(self) -> Any:
        """Reads the type and the value of a parameter."""
        token = self.take("B")
        match token:
            case 0x26 | 0x68 | 0x6D | 0x6E | 0x6F | 0x24:
                self.take("B")
                return self._fixed(token, self.bytes(self.take("B")))
            case 0x6A | 0x6C:
                _, _, scale = self.bytes(3)
                found = self.bytes(self.take("B"))
                number = Decimal(int.from_bytes(found[1:], "little")).scaleb(-scale)
                return None if not found else number if found[0] else -number
            case 0x28:
                found = self.bytes(self.take("B"))
                return _FIRST + timedelta(int.from_bytes(found, "little")) if found else None
            case 0x29 | 0x2A | 0x2B:
                scale = self.take("B")
                found = self.bytes(self.take("B"))
                return _moment(token, scale, found) if found else None
            case 0x63 | 0x23:  # ntext, text
                self.bytes(9)
                size = self.take("i")
                return None if size < 0 else self.bytes(size).decode("utf-16-le" if token == 0x63 else "cp1252")
            case 0xE7 | 0xEF | 0xA7 | 0xAF:
                most = self.take("H")
                self.bytes(5)
                found = self._sized(most)
                return None if found is None else found.decode("utf-16-le" if token in {0xE7, 0xEF} else "cp1252")
            case 0xA5 | 0xAD:
                return self._sized(self.take("H"))
            case 0x1F:
                return None
            case _:
                raise ValueError(f"a parameter of type {token:#x} cannot be read")

    def _sized(self, most: int) -> bytes | None:
        if most != 0xFFFF:
            size = self.take("H")
            return None if size == 0xFFFF else self.bytes(size)
        if self.take("Q") == _NOTHING:
            return None
        found = b""
        while size := self.take("I"):
            found += self.bytes(size)
        return found

    @staticmethod
    def _fixed(token: int, found: bytes) -> Any:
        if not found:
            return None
        match token:
            case 0x68:
                return found != b"\0"
            case 0x6D:
                return struct.unpack("<f" if len(found) == 4 else "<d", found)[0]
            case 0x24:
                return str(UUID(bytes_le=found))
            case 0x6F if len(found) == 8:
                days, ticks = struct.unpack("<iI", found)
                return datetime(1900, 1, 1) + timedelta(days=days, microseconds=round(ticks * 10_000 / 3))  # noqa: DTZ001
            case _:
                return int.from_bytes(found, "little", signed=len(found) > 1)


def _moment(token: int, scale: int, found: bytes) -> Any:
    size = _TICKS[scale]
    micros = int.from_bytes(found[:size], "little") * 10 ** (7 - scale) // 10
    since = timedelta(microseconds=micros)
    if token == 0x29:
        return (datetime(1, 1, 1) + since).time()  # noqa: DTZ001  (without a zone, as it is)
    day = datetime(1, 1, 1) + timedelta(days=int.from_bytes(found[size : size + 3], "little")) + since  # noqa: DTZ001
    return day if token == 0x2A else day.replace(tzinfo=UTC)
