"""Connection strings of Event Hubs namespaces: what they say, and what is wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from connectors.sdk.secret import Secret

_KNOWN = (
    "Endpoint", "SharedAccessKeyName", "SharedAccessKey", "SharedAccessSignature", "EntityPath",
    "UseDevelopmentEmulator",
)  # fmt: skip
_ACCEPTED = (
    "Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=HUB, or with "
    "SharedAccessSignature=… instead of the two keys"
)
#: Ports of AMQP with TLS, and of WebSockets.
PORTS = {"amqp": 5671, "websocket": 443}
#: What an event hub may be called.
HUB_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._\-]{0,254}[A-Za-z0-9])?$"


@dataclass(frozen=True, slots=True)
class Namespace:
    """What a connection string says: where the namespace is, what lets in, and which hub it is for, if it says."""

    host: str
    port: int | None = None
    hub: str | None = None
    emulator: bool = False  # no TLS, and any port
    key_name: str = ""
    key: str = field(default="", repr=False)
    signature: str = field(default="", repr=False)  # a shared access signature, whole

    @property
    def text(self) -> str:
        """The connection string, as the SDK reads it. A secret."""
        place = self.host if self.port is None else f"{self.host}:{self.port}"
        parts = [f"Endpoint=sb://{place}/"]
        if self.key:
            parts += [f"SharedAccessKeyName={self.key_name}", f"SharedAccessKey={self.key}"]
        else:
            parts.append(f"SharedAccessSignature={self.signature}")
        return ";".join([*parts, *(["UseDevelopmentEmulator=true"] if self.emulator else [])])

    def secrets(self) -> list[Secret]:
        """Gives what must be in no text."""
        signed = parse_qs(self.signature.partition(" ")[2]).get("sig", [])
        return [Secret(each) for each in (self.key, self.signature, *signed) if each]


def namespace_of(connection_string: str) -> Namespace:
    """Reads a connection string. Raises ValueError, in which nothing of it stands but names of its parts."""
    names = {name.lower(): name for name in _KNOWN}
    parts: dict[str, str] = {}
    for part in connection_string.strip().split(";"):
        if not part.strip():
            continue
        name, equals, value = part.strip().partition("=")
        if not equals:
            raise ValueError(f"is no connection string of an Event Hubs namespace; accepted is {_ACCEPTED}")
        parts[names.get(name.strip().lower(), name)] = value.strip()
    if "Endpoint" not in parts:
        raise ValueError(f"there is no Endpoint in it; accepted is {_ACCEPTED}")
    host, port = _place(parts["Endpoint"])
    emulator = parts.get("UseDevelopmentEmulator", "").lower() == "true"
    if port is not None and not emulator:
        raise ValueError(
            "Endpoint: a port stands beside UseDevelopmentEmulator=true alone; name another way in as endpoint"
        )
    hub = parts.get("EntityPath") or None
    if hub is not None and not re.fullmatch(HUB_NAME, hub):
        raise ValueError("EntityPath: letters, digits, dots, hyphens and underscores are the name of a hub")
    key_name, key = parts.get("SharedAccessKeyName", ""), parts.get("SharedAccessKey", "")
    signature = parts.get("SharedAccessSignature", "")
    if bool(key_name) != bool(key):
        lacking = "SharedAccessKeyName" if key else "SharedAccessKey"
        raise ValueError(f"there is no {lacking} in it; accepted is {_ACCEPTED}")
    if bool(key) == bool(signature):
        raise ValueError(f"either a SharedAccessKey or a SharedAccessSignature belongs in it; accepted is {_ACCEPTED}")
    if signature and not (signature.startswith("SharedAccessSignature ") and "sig=" in signature):
        raise ValueError("SharedAccessSignature: SharedAccessSignature sr=…&sig=…&se=…&skn=… is a signature")
    return Namespace(host, port, hub, emulator, key_name, key, signature)


def place_of(text: str) -> tuple[str, int | None]:
    """Reads `HOST` or `HOST:PORT`, with `sb://` before it or not. Raises ValueError."""
    return _place(text if "//" in text else f"sb://{text}")


def _place(text: str) -> tuple[str, int | None]:
    try:
        found = urlsplit(text)
        port = found.port
        good = found.scheme in {"sb", "amqps", "amqp", "https", "wss"} and bool(found.hostname) and port != 0
    except ValueError:
        good = False
    if not good or found.query or found.username or found.path.strip("/"):
        raise ValueError("Endpoint: an address is accepted, such as sb://NAMESPACE.servicebus.windows.net/")
    host = found.hostname or ""
    return (f"[{host}]" if ":" in host else host), port
