"""Addresses: e-mail, hosts, paths, query parameters."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, quote_plus, unquote, unquote_plus

from publicsuffixlist import PublicSuffixList

from streams.ql.coerce import first, texts, to_text
from streams.ql.functions.registry import Constant, example, function
from streams.ql.functions.text import found, pattern_error
from streams.ql.missing import MISSING, Missing, Value

_LONGEST_EMAIL = 500
_LONGEST_URL = 8_192
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_QUOTED = r'"(?:[^"\\\r\n]|\\[^\r\n])*"'
_ADDRESS = rf"(?:{_ATOM}(?:\.{_ATOM})*|{_QUOTED})@(?:{_ATOM}(?:\.{_ATOM})*|\[[^\[\]\\\s]+\])"
#: RFC 5322: an address alone, or a name and the address in angle brackets; a comment may follow, which is the name
#: where there is no other.
_MAILBOX = re.compile(
    rf'\s*(?:(?P<address>{_ADDRESS})|(?P<name>(?:{_QUOTED}|[^<>"@,;:()\[\]\\])*)<\s*(?P<angle>{_ADDRESS})\s*>)'
    r"\s*(?:\((?P<comment>[^()]*)\)\s*)?"
)
_NAME_WORD = re.compile(rf'{_QUOTED}|[^\s"]+')
#: The usual form, which needs no second look.
_PLAIN_ADDRESS = re.compile(r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_URL = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s%\\^`{|}\[\]:]*)(?::[0-9]*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MANY = range(1, 100)


class _Url(NamedTuple):
    scheme: str
    host: str
    path: str
    query: str


@function(
    "email",
    returns="string",
    examples=[
        example("Bob <Bob@Bob.com>", gives="bob@bob.com"),
        example("Bob@Bob.com", gives="bob@bob.com"),
        example("Bob <bob>", gives=MISSING),
        example(["a@example.com", "b@example.com"], gives="a@example.com"),
    ],
)
def email(x: Value) -> str | Missing:
    """Gives the address of a mailbox (RFC 5322) in lower case; a list gives that of its first element."""
    if x.__class__ is str and len(x) <= _LONGEST_EMAIL and _PLAIN_ADDRESS.fullmatch(x):
        return x
    mailbox = _mailbox(x)
    return mailbox if isinstance(mailbox, Missing) else mailbox[1].lower()


@function(
    "emailname",
    returns="string",
    examples=[example("Bob<bob@bob.com>", gives="Bob"), example("Bob <bob@good", gives=MISSING)],
)
def emailname(x: Value) -> str | Missing:
    """Gives the name of a mailbox, empty when it has none."""
    mailbox = _mailbox(x)
    return mailbox if isinstance(mailbox, Missing) else mailbox[0]


@function(
    "emaildomain",
    returns="string",
    examples=[example("Bob <bob@Gmail.com>", gives="gmail.com"), example("bob", gives=MISSING)],
)
def emaildomain(x: Value) -> str | Missing:
    """Gives what stands behind the @ of a mailbox, in lower case."""
    mailbox = _mailbox(x)
    return mailbox if isinstance(mailbox, Missing) else mailbox[1].rpartition("@")[2].lower()


@function(
    "domain",
    returns="string",
    examples=[
        example("https://www.Google.com/search?q=golang", gives="google.com"),
        example("www.books.amazon.co.uk", gives="amazon.co.uk"),
        example(["Google.com/search", "www.ign.com"], gives="google.com"),
        example("http://", gives=MISSING),
    ],
)
def domain(x: Value) -> str | Missing:
    """Gives the registrable domain of a URL or host by the public suffix list, in lower case."""
    url = _text(x)
    return _domain(url) if url else MISSING


@function(
    "domains",
    returns="[]string",
    examples=[
        example("https://www.Google.com/search", "http://www.ign.com", gives=["google.com", "ign.com"]),
        example(["abc", "def"], gives=MISSING),
    ],
)
def domains(x: Value, *more: Value) -> list[str] | Missing:
    """Gives the registrable domains of all URLs among the arguments and their lists."""
    urls = [url for each in (x, *more) for url in texts(each) if len(url) >= 4]
    return [name for name in map(_domain, urls) if isinstance(name, str)] or MISSING


@function(
    "host",
    returns="string",
    examples=[
        example("https://www.Google.com/search?q=golang", gives="www.google.com"),
        example("www.Google.com/?q=golang", gives="www.google.com"),
        example("a b c", gives=MISSING),
    ],
)
def host(x: Value) -> str | Missing:
    """Gives the host of a URL in lower case, with the port where there is one."""
    text = _text(x)
    url = _parse(_with_scheme(text.lower())) if text else None
    return url.host if url is not None and url.host else MISSING


@function(
    "hosts",
    returns="[]string",
    examples=[
        example("www.Google.com/?q=golang", "www.golang.org/", gives=["www.google.com", "www.golang.org"]),
        example("", gives=MISSING),
    ],
)
def hosts(x: Value, *more: Value) -> list[str] | Missing:
    """Gives the hosts of all URLs among the arguments and their lists."""
    found_hosts = [host(url) for each in (x, *more) for url in texts(each)]
    return [each for each in found_hosts if isinstance(each, str)] or MISSING


@function(
    "path",
    returns="string",
    examples=[
        example("https://www.Google.com/Blog/hello.html?q=1", gives="/blog/hello.html"),
        example("/home/aaron/vm", gives="/home/aaron/vm"),
        example("http://192.168.0.%31:8080/", gives=MISSING),
    ],
)
def path(x: Value) -> str | Missing:
    """Gives the path of a URL in lower case."""
    text = _text(x)
    url = _parse(_guessed(text.lower())) if text else None
    return MISSING if url is None else unquote(url.path)


@function(
    "urlmain",
    returns="string",
    examples=[
        example("http://www.Google.com/search?q1=golang", gives="www.Google.com/search"),
        example("", gives=MISSING),
    ],
)
def urlmain(x: Value) -> str | Missing:
    """Gives host and path of a URL, without scheme and query."""
    text = _text(x)
    url = _parse(text) if text else None
    return MISSING if url is None else url.host + unquote(url.path)


@function(
    "urlminusqs",
    returns="string",
    examples=[
        example(
            "http://www.Google.com/search?q1=golang&q2=github", "q1", gives="http://www.Google.com/search?q2=github"
        ),
        example("go.gl/?q=abc", "q", gives="http://go.gl/"),
        example("http://go.gl/", "", gives=MISSING),
    ],
)
def urlminusqs(x: Value, parameter: Value) -> str | Missing:
    """Gives the URL without one query parameter."""
    text, name = _text(x), to_text(parameter)
    url = _parse(_guessed(text)) if text else None
    if url is None or isinstance(name, Missing) or not name:
        return MISSING
    pairs = _pairs(url.query)
    kept = [pair for pair in pairs if pair[0] != name]
    query = url.query if len(kept) == len(pairs) else _encoded(kept)
    front = f"{url.scheme}://{url.host}" if url.scheme else url.host
    return front + url.path + (f"?{query}" if query else "")


def _check_patterns(arguments: Sequence[Constant]) -> str | None:
    return next((error for each in arguments[1:] if (error := pattern_error(each)) is not None), None)


@function(
    "url.matchqs",
    returns="string",
    literal_args=_MANY,
    check=_check_patterns,
    examples=[
        example("http://www.google.com/blog?mc_eid=123&pid=1", gives="www.google.com/blog"),
        example(
            "http://www.google.com/blog?mc_eid=123&mc_id=1&pid=1",
            "mc_*",
            gives="www.google.com/blog?mc_eid=123&mc_id=1",
        ),
        example("http://not a url", gives=MISSING),
    ],
)
def matchqs(x: Value, *patterns: Value) -> str | Missing:
    """Gives host and path of a URL, and those query parameters whose names match one of the patterns (RE2)."""
    text = _text(x)
    url = _parse(text) if text else None
    if url is None:
        return MISSING
    kept = [pair for pair in _pairs(url.query) if any(found(str(each), pair[0]) for each in patterns)]
    return url.host + url.path + (f"?{_encoded(kept)}" if kept else "")


@function(
    "qs",
    "qsl",
    returns="string",
    examples=[
        example("http://go.gl/?Q=GOLANG", "q", gives="golang"),
        example("www.Google.com/?q=golang", "q", gives="golang"),
        example("http://go.gl/?q=golang", "other", gives=MISSING),
    ],
)
def qs(x: Value, parameter: Value) -> str | Missing:
    """Gives a query parameter of a URL, all of which is put into lower case first."""
    return _parameter(_text(x).lower(), parameter)


@function(
    "qs2",
    returns="string",
    examples=[
        example("http://go.gl/?q=GOLANG", "q", gives="GOLANG"),
        example("http://go.gl/?Q=golang", "q", gives=MISSING),
    ],
)
def qs2(x: Value, parameter: Value) -> str | Missing:
    """Gives a query parameter of a URL, in its own case."""
    return _parameter(_text(x), parameter)


@function(
    "urldecode",
    returns="string",
    examples=[
        example("hello+world", gives="hello world"),
        example("https%3A%2F%2Fwww.google.com", gives="https://www.google.com"),
        example(["a%20b", "c"], gives="a b"),
        example("%zz", gives=MISSING),
    ],
)
def urldecode(x: Value) -> str | Missing:
    """Gives text with percent escapes and pluses undone."""
    text = _text(x)
    return MISSING if not text or _BAD_ESCAPE.search(text) else unquote_plus(text)


def _text(x: Value) -> str:
    """The text of a value or of a list's first element; "" for anything else."""
    value = first(x)
    return value if isinstance(value, str) and len(value) <= _LONGEST_URL else ""


def _mailbox(x: Value) -> tuple[str, str] | Missing:
    """Name and address."""
    text = _text(x)
    mailbox = _MAILBOX.fullmatch(text) if 3 <= len(text) <= _LONGEST_EMAIL else None
    if mailbox is None:
        return MISSING
    name = mailbox["comment"] or "" if mailbox["address"] else mailbox["name"]
    words = (word[1:-1] if word[0] == '"' else word for word in _NAME_WORD.findall(name))
    name = re.sub(r"\\(.)", r"\1", " ".join(words))
    if "=?" in name:
        with suppress(HeaderParseError, LookupError, ValueError):  # what only looks encoded stays as written
            name = str(make_header(decode_header(name)))
    return name, mailbox["address"] or mailbox["angle"]


def _parse(text: str) -> _Url | None:
    """Takes a URL apart as Go does; None where Go sees an error."""
    if _CONTROL.search(text):
        return None
    parts = _URL.fullmatch(text)
    if parts is None:
        return None
    scheme, authority, where, query = parts[1] or "", parts[2], parts[3], parts[4] or ""
    if authority is None and not where.startswith("/"):
        if scheme:  # "mailto:a@b": nothing that has a host or a path
            return _Url(scheme, "", "", query)
        if ":" in where.partition("/")[0]:
            return None
    name = (authority or "").rpartition("@")[2]
    if not _HOST.fullmatch(name) or _BAD_ESCAPE.search(where):
        return None
    return _Url(scheme.lower(), name, where, query)


def _with_scheme(text: str) -> str:
    return text if text.startswith("http") else f"http://{text}"


def _guessed(text: str) -> str:
    """Text that is long enough and does not begin as a path is taken for a host."""
    return _with_scheme(text) if len(text) > 6 and "/" not in text[:5] else text


def _domain(text: str) -> str | Missing:
    url = _parse(_with_scheme(text.lower()))
    if url is None or len(url.host) <= 2 or url.host.startswith("["):
        return MISSING
    name = url.host.partition(":")[0].rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return _suffixes().privatesuffix(name) or MISSING
    return MISSING


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def _encoded(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(pairs, key=lambda pair: pair[0]))


def _parameter(text: str, parameter: Value) -> str | Missing:
    name = to_text(parameter)
    url = _parse(_guessed(text)) if text else None
    if url is None or isinstance(name, Missing) or not name:
        return MISSING
    return next((value for key, value in _pairs(url.query) if key == name and value), MISSING)
