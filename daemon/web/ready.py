"""A reply that is ready as bytes, for the path of every event: made and sent in a few microseconds."""

from __future__ import annotations

import itertools
import secrets

from aiohttp import web
from aiohttp.client_exceptions import ClientConnectionResetError
from aiohttp.helpers import rfc822_formatted_time

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: %s\r\nContent-Length: %d\r\nDate: %s\r\n\r\n"
)

# Ids of requests that brought none: unlike any other process's, and counted within this one.
_PREFIX = secrets.token_hex(6)
_NUMBERS = itertools.count(1)


class Ready(web.StreamResponse):
    """A 200 of JSON. `template` has one `%s`, the place of the request's id.

    Only for HTTP/1.1 requests that keep their connection. Its headers are written with its body and cannot be looked at
    or changed: what aiohttp does for them costs more than all else that a single event needs.
    """

    _keep_alive = True
    _status = 200
    _reason = "OK"

    def __init__(self, template: bytes, request: web.Request) -> None:
        request_id = f"{_PREFIX}{next(_NUMBERS):08x}".encode()
        body = template % request_id
        self._content = _HEAD % (request_id, len(body), rfc822_formatted_time().encode()) + body
        self._transport = request.transport

    async def prepare(self, request: web.BaseRequest) -> None:
        """Does nothing: head and body are sent together."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Sends the reply."""
        del data
        if self._eof_sent:
            return
        if self._transport is None or self._transport.is_closing():
            raise ClientConnectionResetError("the client is gone")
        self._transport.write(self._content)
        self._eof_sent = True
