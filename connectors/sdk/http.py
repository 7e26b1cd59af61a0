"""An HTTP client for destinations that nobody vouches for.

Addresses are checked where the socket is made, so that a name which resolves to a forbidden address, literally or by a
trick, is refused however it got there. Names are resolved in threads of their own: a name server that hangs holds up
one job. Redirects are not followed, proxies of the environment not used, answers not unpacked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from connectors.sdk.errors import ConfigError
from connectors.sdk.run import Network

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

#: How long a resolved name is believed, in seconds.
NAME_TTL_S = 30


class RefusedAddressError(OSError):
    """A connection to an address that the settings do not allow."""


def refusal(address: str, network: Network) -> str | None:
    """Says why `address` must not be connected to; None when it may."""
    ip = _plain(ipaddress.ip_address(address.partition("%")[0]))
    if ip.is_loopback:
        if network.allow_loopback:
            return None
        return f"{address} is this host itself; jobs.allow_loopback would allow it"
    if ip.is_unspecified or ip.is_multicast:
        return f"{address} is no address of a host"
    if ip.is_global and not ip.is_reserved:
        return None
    if network.allow_private:
        return None
    return f"{address} is a private address; jobs.allow_private would allow it"


def _plain(ip: IPAddress) -> IPAddress:
    """Gives the IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip.sixtofour is not None:
            return ip.sixtofour
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


class Client:
    """An aiohttp session whose connections are checked. Made by `open_client`."""

    def __init__(self, session: aiohttp.ClientSession, gate: _Gate) -> None:
        self.session = session
        self._gate = gate

    def explain(self, error: Exception) -> Exception:
        """Gives ConfigError instead of a connection error when an address was refused, else the error itself."""
        if self._gate.refused is not None and isinstance(error, aiohttp.ClientConnectionError | OSError):
            return ConfigError(self._gate.refused)
        return error


@asynccontextmanager
async def open_client(network: Network, *, connections: int) -> AsyncIterator[Client]:
    """Opens a client with at most `connections` connections, closed on leaving."""
    gate = _Gate(network)
    connector = aiohttp.TCPConnector(
        limit=connections,
        resolver=_Resolver(),
        ttl_dns_cache=NAME_TTL_S,
        socket_factory=gate.socket,
        keepalive_timeout=30,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
    ) as session:
        yield Client(session, gate)


class _Gate:
    """Makes the sockets of a client, for the addresses that it may reach."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.refused: str | None = None

    def socket(self, info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        self.refused = refusal(address[0], self._network)
        if self.refused is not None:
            raise RefusedAddressError(self.refused)
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


class _Resolver(AbstractResolver):
    """Gives aiohttp the addresses of a name."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, protocol, _, address in await addresses(host, port, family)
        ]

    async def close(self) -> None:
        return


async def addresses(host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[Any]:
    """Gives what getaddrinfo finds, in a thread of its own, which nobody waits for when it hangs. Raises OSError."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Any]] = loop.create_future()

    def settle(result: list[Any] | OSError) -> None:
        if future.done():
            return
        if isinstance(result, OSError):
            future.set_exception(result)
        else:
            future.set_result(result)

    def look_up() -> None:
        result: list[Any] | OSError
        try:
            result = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        except OSError as error:
            result = error
        except UnicodeError:
            result = OSError(f"{host!r} is no host name")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    return await future
