"""What Event Hubs refuses, told so that somebody knows what to do: which of our errors it is, and in which words.

Classified by the AMQP condition and the status, never by the SDK's classes: one class has many causes there (PEERS.md
2.5).
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import Final

from azure.eventhub.exceptions import EventHubError

from connectors.azure.hub_connection import Namespace
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.secret import hidden

#: How long to wait where the hub is busy and names no time, in seconds; what it usually names.
BUSY_S: Final = 4.0
_LONGEST: Final = 300
_STATUS = re.compile(r"[Ss]tatus[ -][Cc]ode: (\d{3})")
_WAIT = re.compile(r"[Ww]ait (?:for )?(\d{1,4}) second")
#: Words of Azure for a network that is not let in.
_FIREWALL = re.compile(r"prevented to connect|firewall|public network access|virtual network", re.IGNORECASE)


class BusyError(TransientError):
    """The hub takes no more for now; `retry_after` says for how long."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, retry_after=retry_after)
        self.pause_s = retry_after


class TooLargeError(Exception):
    """What was sent at once is larger than the hub takes."""


def told(error: BaseException, what: str, namespace: Namespace, hub: str) -> Exception:
    """Gives what is to be raised for an error of the SDK at doing `what`. No secret stands in it."""
    name = (getattr(error, "error", None) or "") if isinstance(error, EventHubError) else ""
    words = _words(error, namespace)
    said = f"{what}: {words.rstrip('. ')}"
    status = _STATUS.search(str(error))
    if status is not None:
        name = {"401": "unauthorized-access", "403": "unauthorized-access", "404": "not-found"}.get(status[1], name)
        if status[1] in {"429", "503"}:
            name = "server-busy"
    match name:
        case "unauthorized-access":
            return AuthError(f"{said}; {_advice(words, namespace)}")
        case "not-found":
            return ConfigError(
                f"{said}; there is no hub {hub!r} in {namespace.host}: create it, or name one that is there"
            )
        case "server-busy" | "resource-limit-exceeded":
            named = _WAIT.search(words)
            return BusyError(said, retry_after=float(named[1]) if named else BUSY_S)
        case "entity-disabled":
            return TransientError(f"{said}; the hub {hub!r} is disabled: set its status to Active")
        case "link:message-size-exceeded" | "message-size-exceeded":
            return TooLargeError(said)
        case _:
            return TransientError(f"{said}{_hint(str(error), namespace)}")


def unresolved(error: OSError, namespace: Namespace, host: str) -> Exception:
    """Gives what is to be raised where a name has no address."""
    if isinstance(error, socket.gaierror) and host == namespace.host:
        return TransientError(f"the name {host} does not resolve; is Endpoint right? {error.strerror or error}")
    return TransientError(f"the name {host} does not resolve: {error.strerror or error}")


def _advice(words: str, namespace: Namespace) -> str:
    if _FIREWALL.search(words):
        return "a firewall of the namespace keeps this host out: allow its address in the namespace's networking"
    if "Expired" in words or "expired" in words:
        return "the shared access signature has ended, make a new one; or the clock of this host is wrong"
    if "claim" in words:
        return f"the policy {namespace.key_name!r} does not permit to send: use one with the claim Send"
    held = "SharedAccessKey" if namespace.key else "SharedAccessSignature"
    return f"the {held} is refused: copy the connection string again, its key may have been regenerated"


def _hint(text: str, namespace: Namespace) -> str:
    if "certificate" in text.lower():
        return f"; {namespace.host} shows no certificate that this host trusts: name its authority as ca_certificates"
    if "Connect call failed" in text or "Cannot connect" in text or "refused" in text:
        return "; where a firewall lets port 5671 out not, transport websocket takes port 443"
    return ""


def _words(error: BaseException, namespace: Namespace) -> str:
    """Gives what was said in one line, once, without what lets in."""
    if isinstance(error, ssl.SSLError):
        said = str(error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason or error)
    else:
        said = str(error)
    lines: list[str] = []
    for line in said.splitlines():
        text = line.strip()
        if text and not text.startswith(("Error condition:", "Error:", "Error Description:")) and text not in lines:
            lines.append(text)
    words = hidden(" ".join(" ".join(lines).split()), namespace.secrets())[:_LONGEST]
    if words:
        return words
    condition = getattr(error, "error", None)
    if condition == "unknown-error":
        return "the connection was ended without a reason"
    return condition or type(error).__name__
