"""What Azure Storage refuses, told so that somebody knows what to do: which of our errors it is, and in which words.

Classified by status and error code, and never by the SDK's classes: the same refusal is of another class there than
with the emulator (PEERS.md 1).
"""

from __future__ import annotations

import re
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
from azure.core.exceptions import HttpResponseError

from connectors.azure.connection import Endpoint
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.secret import Secret, hidden

#: How long to wait where the account is throttled and names no time, in seconds.
THROTTLED_S: Final = 10.0
#: How far clocks may be apart: Azure refuses what is signed further away.
CLOCKS_S: Final = 15 * 60
_LONGEST: Final = 300


class MissingContainerError(ConfigError):
    """There is no such container."""


class NotPermittedError(AuthError):
    """What lets in is right, and does not permit this."""


class BlobMissingError(Exception):
    """There is no such blob."""


class BlobChangedError(Exception):
    """The blob is not the one that was asked for any more: its ETag is another."""


class BeyondError(Exception):
    """What was asked for lies behind the blob's end."""


#: Error codes of refusals that are not for a wrong key, and what to do about each.
_REFUSALS: Final = {
    "AuthorizationPermissionMismatch": "the shared access signature does not permit this; make one that does "
    "(read and list for imports; create, write and list for exports)",
    "AuthorizationResourceTypeMismatch": "the shared access signature is not for this kind of resource; make one for "
    "services, containers and objects",
    "AuthorizationServiceMismatch": "the shared access signature is not for blobs; make one that is",
    "AuthorizationProtocolMismatch": "the shared access signature wants another protocol; name an https address",
    "AuthorizationSourceIPMismatch": "the shared access signature is for other IP addresses; make one for this host's",
    "InsufficientAccountPermissions": "the account does not permit this",
    "AccountIsDisabled": "the account is disabled",
    "KeyBasedAuthenticationNotPermitted": "the account permits no keys; allow key access in its configuration",
    "PublicAccessNotPermitted": "what was sent was not signed",
}


def told(error: Exception, what: str, endpoint: Endpoint, *, now_us: int | None = None) -> Exception:
    """Gives what is to be raised for an error of the SDK about `what`. No secret stands in it.

    AuthError, ConfigError, TransientError; BlobMissingError, BlobChangedError, BeyondError where it is about a blob.
    `now_us` is the time here, to tell a clock that goes wrong.
    """
    if not isinstance(error, HttpResponseError) or error.response is None:
        return _unreached(error, what, endpoint)
    code = _code(error)
    status = int(error.status_code or 0)
    said = f"{what}: {endpoint.account} answered {status}" + (f" {code}" if code else "")
    words = _words(error, endpoint)
    match status, code:
        case 403, "AuthorizationPermissionMismatch" | "AuthorizationResourceTypeMismatch":
            return NotPermittedError(f"{said}: {_refused(error, code, endpoint, now_us)}")
        case 401 | 403, _:
            return AuthError(f"{said}: {_refused(error, code, endpoint, now_us)}")
        case 404, "BlobNotFound":
            return BlobMissingError(said)
        case 404, "ContainerNotFound":
            return MissingContainerError(f"{said}: {words}")
        case 404, _:
            return ConfigError(f"{said}: {words}")
        case 412, "ConditionNotMet" | "":
            return BlobChangedError(said)
        case 416, _:
            return BeyondError(said)
        case 429, _:
            return TransientError(f"{said}: {words}", retry_after=_after(error) or THROTTLED_S)
        case 503, "ServerBusy":
            return TransientError(f"{said}: {words}", retry_after=_after(error) or THROTTLED_S)
        case 400, "InvalidBlockList" | "InvalidBlobOrBlock":
            return TransientError(f"{said}: its blocks are gone; it is written anew")
        case 400 | 405 | 413 | 414, _:
            return ConfigError(f"{said}: {words}")
        case _:
            return TransientError(f"{said}: {words}", retry_after=_after(error))


def _refused(error: HttpResponseError, code: str, endpoint: Endpoint, now_us: int | None) -> str:
    words = _words(error, endpoint)
    off_s = _clocks_apart(error, now_us)
    if off_s is not None and abs(off_s) > CLOCKS_S:
        way = "ahead of" if off_s > 0 else "behind"
        return f"the clock of this host is {abs(off_s) / 60:.0f} minutes {way} theirs; set it. {words}"
    if code in _REFUSALS:
        return f"{_REFUSALS[code]}. {words}"
    if endpoint.signature:
        ends_at, now = endpoint.ends_at, _now(error, now_us)
        if ends_at is not None and now is not None and ends_at <= now:
            return f"the shared access signature ended {ends_at:%Y-%m-%d %H:%M} UTC; make a new one. {words}"
    if code == "AuthenticationFailed" or "authenticate" in words:
        held = "shared access signature" if endpoint.signature else "AccountKey"
        return f"the {held} is refused; copy it again, it may have been regenerated. {words}"
    if code == "AuthorizationFailure":
        return f"a firewall of the account keeps this host out; allow its address in the account's networking. {words}"
    return words


def _unreached(error: Exception, what: str, endpoint: Endpoint) -> Exception:
    inner = getattr(error, "inner_exception", None) or error
    cause = getattr(inner, "os_error", None) or inner
    host = re.sub(r"^https?://|/.*$", "", endpoint.url)
    if isinstance(cause, socket.gaierror) or isinstance(inner, aiohttp.ClientConnectorDNSError):
        return TransientError(
            f"{what}: the name {host} does not resolve; is AccountName right? {_short(cause, endpoint)}"
        )
    if isinstance(cause, ssl.SSLError | ssl.CertificateError) or isinstance(inner, aiohttp.ClientSSLError):
        return TransientError(f"{what}: {host} shows no certificate that this host trusts: {_short(cause, endpoint)}")
    return TransientError(f"{what}: {host} cannot be reached: {_short(cause, endpoint)}")


def _code(error: HttpResponseError) -> str:
    code: Any = getattr(error, "error_code", None)
    code = getattr(code, "value", code) or _header(error, "x-ms-error-code") or ""
    return str(code)[:100]


def _words(error: HttpResponseError, endpoint: Endpoint) -> str:
    return _short(error.message or error.reason or "", endpoint)


def _short(said: object, endpoint: Endpoint) -> str:
    """Gives the first line of what was said, without what lets in."""
    first = (str(said).strip().splitlines() or [""])[0]
    secrets = [Secret(each) for each in (endpoint.key, endpoint.signature, *_signed(endpoint)) if each]
    return hidden(first, secrets)[:_LONGEST] or type(said).__name__


def _signed(endpoint: Endpoint) -> list[str]:
    found = re.search(r"(?:^|&)sig=([^&]+)", endpoint.signature)
    return [found[1]] if found else []


def _header(error: HttpResponseError, name: str) -> str | None:
    headers: Any = getattr(error.response, "headers", None) or {}
    found = headers.get(name)
    return None if found is None else str(found)


def _after(error: HttpResponseError) -> float | None:
    """Gives what Retry-After says, in seconds."""
    said = _header(error, "Retry-After") or ""
    if said.isdecimal():
        return float(said)
    milliseconds = _header(error, "x-ms-retry-after-ms") or _header(error, "retry-after-ms") or ""
    return float(milliseconds) / 1000 if milliseconds.isdecimal() else None


def _theirs(error: HttpResponseError) -> datetime | None:
    try:
        return parsedate_to_datetime(_header(error, "Date") or "")
    except ValueError:
        return None


def _clocks_apart(error: HttpResponseError, now_us: int | None) -> float | None:
    theirs = _theirs(error)
    return None if theirs is None or now_us is None else now_us / 1e6 - theirs.timestamp()


def _now(error: HttpResponseError, now_us: int | None) -> datetime | None:
    if now_us is not None:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us)
    return _theirs(error)
