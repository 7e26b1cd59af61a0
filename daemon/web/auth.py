"""Who asks: the token of a request, and the address that it comes from behind a trusted proxy."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence

from aiohttp import web

from daemon.store.tokens import Scope, Token
from daemon.web.body import ApiError
from daemon.web.services import SERVICES

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Whoever can open the control socket in the data directory: its file permission is the credential.
CONTROL = Token("control", "admin")

#: The token of a request that was let in, for what it makes or changes.
WHO = web.RequestKey("WHO", Token)


async def require(request: web.Request, scope: Scope, *, in_query: bool = False) -> Token:
    """Gives the request's token when it allows `scope`; else raises ApiError 401 or 403.

    `in_query`: also taken from `access_token` and `key` (collection only, since addresses get logged).
    """
    services = request.app[SERVICES]
    text = token_of(request, in_query=in_query)
    if not text:
        if request.protocol.sockname == services.control_path:
            return CONTROL
        where = "Authorization: <token>" + (", access_token= or key=" if in_query else "")
        raise ApiError(401, f"a token is needed ({where}); `cohortd token create --scope {scope}` makes one")
    token = services.tokens.check(text) or await services.tokens.find(text)
    if token is None:
        raise ApiError(401, "the token is unknown or revoked; `cohortd token list` shows those that are live")
    if not token.allows(scope):
        raise ApiError(403, f"the token has scope {token.scope}; this needs {scope}")
    return token


def token_of(request: web.Request, *, in_query: bool = False) -> str:
    """Gives the text of the request's token: bare or `Bearer`, or the user name of Basic; "" when there is none."""
    header = request.headers.get("Authorization", "").strip()
    if not header:
        if in_query:
            return request.query.get("access_token") or request.query.get("key") or ""
        return ""
    kind, _, rest = header.partition(" ")
    match kind.lower():
        case "bearer":
            return rest.strip()
        case "basic":
            try:
                return base64.b64decode(rest, validate=True).decode("utf-8").partition(":")[0]
            except ValueError:
                return ""
    return header


def remote(request: web.Request) -> str:
    """Gives the address of the client, "" for a local one over a unix socket.

    X-Forwarded-For is believed only of a proxy in `server.trusted_proxies`, or of one on the unix socket: the last
    address in it that is no trusted proxy itself. A client cannot make itself another one by sending the header.
    """
    peer = request.protocol.peername
    address = peer[0] if isinstance(peer, tuple) else ""
    trusted = request.app[SERVICES].trusted_proxies
    if address and not _within(address, trusted):
        return address
    for hop in reversed(",".join(request.headers.getall("X-Forwarded-For", ())).split(",")):
        hop = _address(hop)  # noqa: PLW2901  (the same hop, without port and brackets)
        if not hop:
            break
        address = hop
        if not _within(hop, trusted):
            break
    return address


def scheme(request: web.Request) -> str:
    """Gives http or https, as the client sees it."""
    peer = request.protocol.peername
    address = peer[0] if isinstance(peer, tuple) else ""
    forwarded = request.headers.get("X-Forwarded-Proto", "").lower()
    if forwarded in ("http", "https") and (not address or _within(address, request.app[SERVICES].trusted_proxies)):
        return forwarded
    return request.scheme


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Gives the networks of their texts."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _within(address: str, trusted: Sequence[Network]) -> bool:
    if not trusted:
        return False
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in trusted)


def _address(hop: str) -> str:
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
