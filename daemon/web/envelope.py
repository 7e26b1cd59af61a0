"""What every API handler has in common: who may call it, the reply's envelope, and errors as JSON.

`endpoint(scope, …)` wraps a handler: it checks the token, runs it, and turns what it returns or raises into
`{"status", "message", "request_id", "data"}`. Its arguments and the handler's docstring are what `/openapi.json`
says of it. Collection has its own fast path and uses `describe` alone.
"""

from __future__ import annotations

import base64
import functools
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from daemon import log
from daemon.ingest.asked import Closed
from daemon.model.refusal import Conflict, NotFound, Refused
from daemon.store.tokens import Scope
from daemon.vault import VaultError
from daemon.web import audited, auth
from daemon.web.body import ApiError
from streams.ql.errors import QueryError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: How long a client waits before it asks again while the disk is full or the daemon stops, in seconds.
RETRY_S = 5

#: Requests by these change nothing.
_LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})

_REQUEST_ID = web.RequestKey("_REQUEST_ID", str)

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that is more than its data. `total` and `next_cursor` (made by `cursor`) are for lists."""

    data: object = None
    message: str = "success"
    status: int = 200
    total: int | None = None
    next_cursor: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: What stands beside `data` in the envelope.
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """What `/openapi.json` says of a handler."""

    scope: Scope | None
    tag: str
    summary: str
    description: str
    query: Mapping[str, str]
    body: Mapping[str, object]
    reply: object
    enveloped: bool


def endpoint(
    scope: Scope | None,
    *,
    tag: str,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, object] | None = None,
    reply: object = None,
) -> Callable[[Callable[[web.Request], Awaitable[object]]], Handler]:
    """Makes an aiohttp handler of a coroutine function that returns data, a `Reply`, or a response of its own.

    scope: what the token must allow; None: no token needed.
    query: parameters and what each does. body: what is accepted, by content type, as a pydantic model or JSON Schema.
    reply: the data's model or JSON Schema. The docstring's first line is the summary.
    """

    def wrap(handler: Callable[[web.Request], Awaitable[object]]) -> Handler:
        @functools.wraps(handler)
        async def answer(request: web.Request) -> web.StreamResponse:
            request_id = request_id_of(request)
            try:
                if scope is not None:
                    request[auth.WHO] = await auth.require(request, scope)
                result = await handler(request)
                if scope == "admin" and request.method not in _LOOKING:
                    data = result.data if isinstance(result, Reply) else result
                    await audited.keep(request, handler.__name__, request_id, data)
            except Exception as error:  # noqa: BLE001  (a handler's error is the client's answer)
                return refusal(request, error)
            if isinstance(result, web.StreamResponse):
                if not result.prepared:
                    result.headers["X-Request-Id"] = request_id
                return result
            return respond(request_id, result if isinstance(result, Reply) else Reply(result))

        return describe(scope, tag=tag, query=query, body=body, reply=reply, enveloped=True)(answer)

    return wrap


def describe(
    scope: Scope | None,
    *,
    tag: str,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, object] | None = None,
    reply: object = None,
    enveloped: bool = False,
) -> Callable[[Handler], Handler]:
    """Notes what `/openapi.json` says of a handler, and changes nothing else about it."""

    def note(handler: Handler) -> Handler:
        summary, _, rest = (handler.__doc__ or "").strip().partition("\n")
        text = "\n".join(line.strip() for line in rest.strip().splitlines())
        operation = Operation(scope, tag, summary, text, query or {}, body or {}, reply, enveloped)
        handler.operation = operation  # type: ignore[attr-defined]
        return handler

    return note


def respond(request_id: str, reply: Reply) -> web.Response:
    """Puts a reply into its envelope."""
    content: dict[str, Any] = {"status": reply.status, "message": reply.message, "request_id": request_id}
    if reply.total is not None:
        content["total"] = reply.total
    if reply.next_cursor is not None:
        content["_next"] = reply.next_cursor
    content["data"] = reply.data
    content |= reply.extra
    response = web.Response(
        body=orjson.dumps(content, default=_plain, option=_OPTIONS),
        status=reply.status,
        content_type="application/json",
        headers=reply.headers,
    )
    response.headers["X-Request-Id"] = request_id
    return response


def refusal(request: web.Request, error: Exception) -> web.Response:
    """Gives the reply to a request that failed with `error`; what nobody foresaw is logged and a 500."""
    request_id = request_id_of(request)
    match error:
        case ApiError():
            return refused(request_id, error)
        case QueryError():
            places = [{"loc": [each.line, each.column], "msg": each.message} for each in error.diagnostics]
            return refused(request_id, ApiError(422, str(error), errors=places))
        case ValidationError():
            return refused(request_id, invalid(error))
        case Conflict():
            return refused(request_id, ApiError(409, str(error), data=error.data))
        case NotFound():
            return refused(request_id, ApiError(404, str(error)))
        case Refused():
            return refused(request_id, ApiError(422, str(error), errors=error.errors))
        case VaultError():
            return refused(request_id, ApiError(503, f"no secret can be kept now: {error}", retry_after=RETRY_S))
        case Closed():
            return refused(request_id, ApiError(503, str(error), retry_after=RETRY_S))
        case web.HTTPException():
            return refused(request_id, _of_aiohttp(request, error), error.headers.get("Allow"))
        case sqlite3.OperationalError():
            log.get().warning("database_refused", request_id=request_id, path=request.path, error=str(error))
            return refused(request_id, ApiError(503, f"the store cannot do this now: {error}", retry_after=RETRY_S))
        case ConnectionError():
            raise error  # the client is gone; aiohttp closes the connection
    log.get().error("request_failed", request_id=request_id, method=request.method, path=request.path, exc_info=error)
    return refused(request_id, ApiError(500, f"cohortd failed; its log says why, under {request_id}"))


def refused(request_id: str, error: ApiError, allow: str | None = None) -> web.Response:
    """Gives the reply of an `ApiError`."""
    content: dict[str, Any] = {"status": error.status, "message": error.message, "request_id": request_id}
    content["data"] = error.data
    if error.errors is not None:
        content["errors"] = error.errors
    response = web.Response(
        body=orjson.dumps(content, default=_plain, option=_OPTIONS),
        status=error.status,
        content_type="application/json",
    )
    response.headers["X-Request-Id"] = request_id
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == web.HTTPUnauthorized.status_code:
        response.headers["WWW-Authenticate"] = 'Bearer realm="cohortd"'
    if allow:
        response.headers["Allow"] = allow
    return response


def invalid(error: ValidationError, within: Sequence[str | int] = ()) -> ApiError:
    """Gives the 422 that lists what pydantic refuses, each with its path (below `within`)."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    errors = [{"loc": [*within, *each["loc"]], "msg": each["msg"].removeprefix("Value error, ")} for each in found]
    shown = "; ".join(f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in errors)
    return ApiError(422, shown, errors=errors)


def request_id_of(request: web.Request) -> str:
    """Gives the request's id: the client's X-Request-Id where it is a plain short one, else a new one."""
    known = request.get(_REQUEST_ID)
    if known is None:
        given = request.headers.get("X-Request-Id", "")
        plain = 0 < len(given) <= 128 and given.isascii() and given.isprintable()
        known = request[_REQUEST_ID] = given if plain else secrets.token_hex(8)
    return known


def cursor(position: object) -> str:
    """Gives the opaque `_next` that stands for a position (any JSON value)."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).rstrip(b"=").decode()


def start_of(request: web.Request) -> Any:
    """Gives the position of the query's `start`, as `cursor` made it; None when there is none."""
    text = request.query.get("start", "")
    if not text:
        return None
    try:
        return orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError as error:
        raise ApiError(400, f"start: {text[:100]!r} is not what a reply gave as _next") from error


def limit_of(request: web.Request, *, default: int = 100, most: int = 1000) -> int:
    """Gives the query's `limit`, at most `most`."""
    text = request.query.get("limit")
    if text is None:
        return default
    if not text.isdecimal() or not text.isascii() or int(text) < 1:
        raise ApiError(400, f"limit: {text[:100]!r} is not a whole number from 1 to {most}")
    return min(int(text), most)


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> ApiError:
    match error:
        case web.HTTPNotFound():
            return ApiError(404, f"there is nothing at {request.path[:500]}; /openapi.json lists what there is")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return ApiError(405, f"{request.path[:500]} does not know {error.method}; it accepts {allowed}")
        case web.HTTPRequestEntityTooLarge():
            return ApiError(413, error.text or "the body is too large")
    return ApiError(error.status, error.text or error.reason)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
