"""Reads request bodies within bounds of size and time, and says what is wrong with one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from connectors.sdk.formats.compression import GZIP_START, PACKINGS, PackingError, Unpacker

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
    return b"".join([piece async for piece in pieces(request, most=most, silence_s=silence_s)])


async def pieces(
    request: web.Request, *, most: int, silence_s: float = SILENCE_S, files: bool = False
) -> AsyncIterator[bytes]:
    """Yields the body as it comes, unpacked in steps; raises as `read` does, and 415 for an unknown Content-Encoding.

    files: a body that is a gzip file by its first bytes is unpacked too, whatever the headers say.
    """
    if request.content_length is not None and request.content_length > most:
        raise _too_large(request.content_length, most)
    packing = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if packing not in PACKINGS:
        raise ApiError(415, f"Content-Encoding {packing[:100]!r}: accepted are gzip and deflate")
    unpacker = Unpacker(packing)
    size = 0
    first = True
    more = True
    try:
        while more:
            async with asyncio.timeout(silence_s):
                chunk = await request.content.readany()
            if first and files and packing in {"", "identity"} and chunk[:2] == GZIP_START:
                unpacker = Unpacker("gzip")
            first = False
            more = bool(chunk)
            for piece in unpacker.feed(chunk) if chunk else unpacker.end():
                size += len(piece)
                if size > most:
                    raise _too_large(size, most)
                yield piece
    except TimeoutError as error:
        raise ApiError(408, f"the body stopped coming for {silence_s:g} s") from error
    except (web.RequestPayloadError, HttpProcessingError, PackingError) as error:
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
