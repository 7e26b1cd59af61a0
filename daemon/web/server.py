"""The listeners: TCP (TLS by certificate files), a unix socket for a proxy, and the control socket.

No aiohttp middlewares: they cost every request. What all requests share stands in `_Door`, around the router.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger
from prometheus_client import Counter

from daemon import log
from daemon.metrics import REGISTRY
from daemon.settings import Server
from daemon.web import collect_json, health, openapi
from daemon.web.body import ApiError
from daemon.web.envelope import RETRY_S, refusal, refused, request_id_of
from daemon.web.services import SERVICES, Services

CONTROL = "control.sock"

#: Longest request line and header line, in bytes: an account, a stream and 2,000 bytes of pixel fit many times.
LINE_BYTES = 16_384

_REQUESTS = Counter("cohortd_http_requests", "Requests answered, by status.", ["status"], registry=REGISTRY)

_MALFORMED = Counter("cohortd_http_malformed_requests", "Requests that are no HTTP.", registry=REGISTRY)

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _NoQuotes(logging.Filter):
    """Keeps out of the log what aiohttp quotes of requests that are no HTTP: it may hold a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        malformed = record.exc_info is not None and isinstance(record.exc_info[1], HttpProcessingError)
        if malformed:
            _MALFORMED.inc()
        return not malformed


_NO_QUOTES = _NoQuotes()


class ListenError(RuntimeError):
    """An address or certificate that cannot be used; the message says which setting, and why."""


def application(services: Services, routes: Iterable[web.RouteDef]) -> web.Application:
    """Makes the application of `routes` and those that every daemon has."""
    app = web.Application(client_max_size=services.settings.collect.request_bytes)
    app[SERVICES] = services
    app.add_routes([*health.routes(), *openapi.routes(), *routes])
    return app


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[str]:
    """Listens as the settings say until left, and gives the address, such as http://127.0.0.1:8420.

    On leaving, in this order: what comes new, and what has not come whole, is refused with 503, the listeners close,
    requests under way may end within `server.stop_s`, and the rest is cut.
    """
    services = app[SERVICES]
    settings = services.settings.server
    tls = _tls(settings)
    server_logger.addFilter(_NO_QUOTES)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # daemon.web.body does, and tells a body that is not complete
        keepalive_timeout=settings.keep_alive_s,
        shutdown_timeout=1.0,
        max_line_size=LINE_BYTES,
        max_field_size=LINE_BYTES,
    )
    await runner.setup()
    assert runner.server is not None  # noqa: S101  (setup made it)
    door = _Door(services, runner.server.request_handler)
    runner.server.request_handler = door
    folder = os.open(services.settings.data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # Through the folder's descriptor, because a socket's path may have 107 bytes only.
    services.control_path = f"/proc/self/fd/{folder}/{CONTROL}"
    sites: list[web.BaseSite] = []
    try:
        sites.append(await _unix(runner, Path(services.control_path), 0o600))
        if settings.unix_socket is not None:
            sites.append(await _unix(runner, settings.unix_socket, int(settings.unix_socket_mode, 8)))
        address = await _tcp(runner, settings.listen, tls, sites)
        yield address
    finally:
        services.stopping.set()
        door.stop_reading()
        with anyio.CancelScope(shield=True):
            for site in sites:
                await site.stop()
            with anyio.move_on_after(settings.stop_s):
                await door.empty()
            await runner.cleanup()
        for path in (Path(services.control_path), settings.unix_socket):
            if path is not None:
                path.unlink(missing_ok=True)
        os.close(folder)


class _Door:
    """Stands around the router: counts requests, refuses them when stopping, and answers what no handler does."""

    def __init__(self, services: Services, inner: _Handler) -> None:
        self._services = services
        self._inner = inner
        # By identity: a request is a mapping and cannot stand in a set.
        self._within: dict[int, web.BaseRequest] = {}
        self._emptied = asyncio.Event()
        self._counts: dict[int, Callable[[], None]] = {}

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._services.stopping.is_set():
            response: web.StreamResponse = self._refuse(request)
            response.force_close()
        else:
            self._within[id(request)] = request
            try:
                taken = None
                if request.method == "POST" and request.raw_path.startswith(collect_json.PATH):
                    taken = await collect_json.quick(request, self._services)  # type: ignore[arg-type]
                response = await self._inner(request) if taken is None else taken
            except Exception as error:  # noqa: BLE001  (what no handler answered is answered here)
                response = refusal(request, error)  # type: ignore[arg-type]
            finally:
                self._within.pop(id(request), None)
                if not self._within:
                    self._emptied.set()
        count = self._counts.get(response.status)
        if count is None:
            count = self._counts[response.status] = _REQUESTS.labels(str(response.status)).inc
        count()
        return response

    def stop_reading(self) -> None:
        """Breaks off the bodies that still come; whoever reads one gets the error that says so."""
        for request in self._within.values():
            if not request.content.is_eof():
                request.content.set_exception(
                    ApiError(503, "the daemon is stopping, and the body had not come whole", retry_after=RETRY_S)
                )

    async def empty(self) -> None:
        """Waits until no request is under way."""
        while self._within:
            self._emptied.clear()
            await self._emptied.wait()

    @staticmethod
    def _refuse(request: web.BaseRequest) -> web.Response:
        error = ApiError(503, "the daemon is stopping; nothing of this was stored", retry_after=RETRY_S)
        return refused(request_id_of(request), error)  # type: ignore[arg-type]


async def _tcp(runner: web.AppRunner, listen: str, tls: ssl.SSLContext | None, sites: list[web.BaseSite]) -> str:
    host, _, port = listen.rpartition(":")
    site = web.TCPSite(runner, host.strip("[]"), int(port), ssl_context=tls, backlog=1024)
    try:
        with anyio.CancelScope(shield=True):  # cancelled in between, asyncio would forget a socket that listens
            await site.start()
    except OSError as error:
        raise ListenError(f"server.listen: cannot listen on {listen}: {error.strerror or error}") from error
    sites.append(site)
    # The first of the TCP addresses: port 0 has become a real one.
    taken = next(each for each in runner.addresses if isinstance(each, tuple))
    scheme = "http" if tls is None else "https"
    return f"{scheme}://{host}:{taken[1]}"


async def _unix(runner: web.AppRunner, path: Path, mode: int) -> web.UnixSite:
    site = web.UnixSite(runner, str(path), backlog=128)
    try:
        _clear(path)
        before = os.umask(0o777 & ~mode)  # so that it never stands open to others, not for an instant
        try:
            with anyio.CancelScope(shield=True):  # as in _tcp
                await site.start()
        finally:
            os.umask(before)
    except OSError as error:
        raise ListenError(f"cannot listen on the socket {path}: {error.strerror or error}") from error
    return site


def _clear(path: Path) -> None:
    # A socket may be left by a daemon that was killed; none runs now, since the lock on the directory is ours.
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ListenError(f"{path} is there already and is no socket: remove it, or name another")
        path.unlink()


def _tls(settings: Server) -> ssl.SSLContext | None:
    if settings.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ListenError(
            f"server.tls_certificate, server.tls_key: {settings.tls_certificate} and {settings.tls_key} are no "
            f"certificate and key that fit: {error}"
        ) from error
    log.get().info("tls_loaded", certificate=str(settings.tls_certificate))
    return context
