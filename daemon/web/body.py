"""Reads request bodies within bounds of size and time, and says what is wrong with one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

#: Largest body of a request to the API (definitions, jobs), in bytes.
API_BODY_BYTES = 1_000_000

#: Longest silence within a body, in seconds, where the caller does not say.
SILENCE_S = 60.0


class ApiError(Exception):
    """A request that is refused: the HTTP status, the words for its sender, and `errors` of {loc, msg}."""

    def __init__(
        self,
        status: int,
        message: str,
        errors: Sequence[object] | None = None,
        *,
        retry_after: int | None = None,
        data: object = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors
        self.retry_after = retry_after
        self.data = data


async def read(request: web.Request, *, most: int = API_BODY_BYTES, silence_s: float = SILENCE_S) -> bytes:
    """Reads the whole body.

    Raises ApiError: 413 above `most` bytes, 408 when the sender is silent for `silence_s`, 400 when it is damaged.
    """
    if request.content_length is not None and request.content_length > most:
        raise _too_large(request.content_length, most)
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            async with asyncio.timeout(silence_s):
                part = await request.content.readany()
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > most:
                raise _too_large(size, most)
    except TimeoutError as error:
        raise ApiError(408, f"the body stopped coming for {silence_s:g} s") from error
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise ApiError(400, f"the body is damaged: {error}") from error


async def text(request: web.Request, *, most: int = API_BODY_BYTES) -> str:
    """Reads the body as UTF-8 text; 400 when it is not."""
    try:
        return (await read(request, most=most)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8 text: byte {error.start}") from error


async def json(request: web.Request, *, most: int = API_BODY_BYTES) -> Any:
    """Reads the body as JSON; 400 with the position when it is not."""
    content = await read(request, most=most)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error


async def json_object(request: web.Request, *, most: int = API_BODY_BYTES) -> dict[str, Any]:
    """Reads the body as a JSON object; 400 when it is something else."""
    value = await json(request, most=most)
    if not isinstance(value, dict):
        raise ApiError(400, "the body is JSON, but not an object")
    return value


def _too_large(size: int, most: int) -> ApiError:
    return ApiError(413, f"the body has {size} bytes or more; at most {most} are accepted")
