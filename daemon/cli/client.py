"""Talks to a running daemon: over the control socket of its data directory, or over HTTP with a token.

Small on purpose: the standard library's HTTP client starts in milliseconds, and a command makes a few requests.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

import click
import orjson

TIMEOUT_S = 60.0
#: Longest silence within a download: a large log may be searched for the next piece.
DOWNLOAD_S = 3600.0


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; opened relative to its folder, because a socket's path may have 107 bytes only."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


class Refused(click.ClickException):
    """The daemon answered with an error; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """One daemon to talk to. `call` gives the reply's `data`; errors end the command with the daemon's own words."""

    def __init__(
        self, data_dir: Path, url: str | None = None, token: str | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.data_dir = data_dir
        self.url = url
        self.token = token
        self.timeout_s = timeout_s

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        if self.url is None:
            return _UnixConnection(self.data_dir / "control.sock", self.timeout_s), ""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise click.BadParameter(f"{self.url!r} is not an address; give http://HOST:PORT or https://HOST:PORT")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname, parts.port, timeout=self.timeout_s), parts.path.rstrip("/")

    def exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Makes one request and gives the whole reply; an error status raises `Refused`."""
        connection, prefix = self._connection()
        asked = {name: value for name, value in (params or {}).items() if value is not None}
        target = prefix + path + (f"?{urlencode(asked)}" if asked else "")
        headers = {"Content-Type": content_type} if body is not None else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise click.ClickException(self._unreachable(error)) from error
        finally:
            connection.close()
        try:
            reply: dict[str, Any] = orjson.loads(content) if content else {}
        except ValueError:
            reply = {"message": content[:500].decode("utf-8", "replace")}
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise Refused(_words(reply, response.status), response.status)
        return reply

    def download(self, path: str, file: BinaryIO) -> int:
        """Writes what a GET replies to a file, piece by piece; gives the bytes. An error status raises `Refused`."""
        connection, prefix = self._connection()
        connection.timeout = DOWNLOAD_S
        size = 0
        try:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            connection.request("GET", prefix + path, headers=headers)
            response = connection.getresponse()
            if response.status >= http.HTTPStatus.BAD_REQUEST:
                raise Refused(_words(orjson.loads(response.read()), response.status), response.status)
            while piece := response.read(1 << 16):
                size += file.write(piece)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise click.ClickException(self._unreachable(error)) from error
        finally:
            connection.close()
        return size

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: object = None,
        text: str | None = None,
    ) -> Any:
        """Makes one request with a JSON or text body and gives the reply's `data`."""
        if text is not None:
            return self.exchange(method, path, params=params, body=text.encode(), content_type="text/plain").get("data")
        body = None if json is None else orjson.dumps(json)
        return self.exchange(method, path, params=params, body=body).get("data")

    def pages(self, path: str, *, limit: int | None = None, params: Mapping[str, object] | None = None) -> list[Any]:
        """Gives a list whole, following `_next`, at most `limit` rows."""
        rows: list[Any] = []
        start: str | None = None
        while limit is None or len(rows) < limit:
            reply = self.exchange("GET", path, params={**(params or {}), "start": start})
            rows += reply.get("data") or []
            start = reply.get("_next")
            if not start:
                break
        return rows[:limit]

    def _unreachable(self, error: Exception) -> str:
        if self.url is not None:
            return f"no answer from {self.url}: {error}"
        return (
            f"no daemon answers in {self.data_dir} ({error}); start one with `cohortd run --data-dir {self.data_dir}`, "
            "or name another with --data-dir or --url"
        )


def segment(text: str) -> str:
    """Gives `text` as one segment of a path."""
    return quote(text, safe="")


def _words(reply: Mapping[str, Any], status: int) -> str:
    words = [str(reply.get("message") or f"HTTP status {status}")]
    for error in reply.get("errors") or ():
        place = error.get("loc")
        place = ".".join(str(part) for part in place) if isinstance(place, list) else str(place or "")
        line = f"{place}: {error.get('msg')}" if place else str(error.get("msg"))
        if str(error.get("msg")) not in words[0]:
            words.append(f"  {line}")
    return "\n".join(words)
