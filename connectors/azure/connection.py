"""Connection strings of storage accounts: what they say, and what is wrong with them."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

#: Where the storage emulator listens, its account and its key, which everybody knows.
_EMULATOR = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint={proxy}:10000/devstoreaccount1"
)
_KNOWN = (
    "DefaultEndpointsProtocol", "AccountName", "AccountKey", "BlobEndpoint", "EndpointSuffix", "SharedAccessSignature",
    "UseDevelopmentStorage", "DevelopmentStorageProxyUri",
)  # fmt: skip
_ACCEPTED = (
    "DefaultEndpointsProtocol=https;AccountName=…;AccountKey=…;EndpointSuffix=core.windows.net, or "
    "BlobEndpoint=https://…;SharedAccessSignature=…, or UseDevelopmentStorage=true"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a connection string says: where the blobs are, and what lets in."""

    url: str
    account: str
    key: str = field(default="", repr=False)
    signature: str = field(default="", repr=False)  # a shared access signature, without its question mark

    @property
    def credential(self) -> AzureNamedKeyCredential | AzureSasCredential:
        """The same for the SDK."""
        return AzureNamedKeyCredential(self.account, self.key) if self.key else AzureSasCredential(self.signature)

    @property
    def ends_at(self) -> datetime | None:
        """When the signature ends, as it says itself; None of a key, and of one that a stored policy ends."""
        said = parse_qs(self.signature).get("se")
        if not said:
            return None
        try:
            moment = datetime.fromisoformat(said[0])
        except ValueError:
            return None
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    @property
    def narrow(self) -> bool:
        """Whether the signature is for one container or blob, or not for containers: the account cannot be asked."""
        if not self.signature:
            return False
        said = parse_qs(self.signature)
        kinds = said.get("srt", [""])[0]
        return "sr" in said or "s" not in kinds or "l" not in said.get("sp", ["l"])[0]


def endpoint_of(connection_string: str) -> Endpoint:
    """Reads a connection string. Raises ValueError, in which nothing of it stands but names of its parts."""
    parts: dict[str, str] = {}
    names = {name.lower(): name for name in _KNOWN}
    for part in connection_string.strip().split(";"):
        name, equals, value = part.strip().partition("=")
        if not part.strip():
            continue
        if not equals:
            raise ValueError(f"is no connection string of a storage account; accepted is {_ACCEPTED}")
        parts[names.get(name.strip().lower(), name)] = value.strip()
    if parts.get("UseDevelopmentStorage", "").lower() == "true":
        proxy = parts.get("DevelopmentStorageProxyUri", "http://127.0.0.1").rstrip("/")
        return endpoint_of(_EMULATOR.format(proxy=proxy))
    url = _address(parts)
    account = parts.get("AccountName") or _account(url)
    key, signature = parts.get("AccountKey", ""), parts.get("SharedAccessSignature", "").removeprefix("?")
    if key:
        try:
            base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("AccountKey is not complete: a key is base64 text, and ends with its = signs") from None
    if not key and not signature:
        raise ValueError(f"there is neither AccountKey nor SharedAccessSignature in it; accepted is {_ACCEPTED}")
    if signature and "sig=" not in signature:
        raise ValueError("SharedAccessSignature has no sig=; copy the whole query that the portal shows")
    return Endpoint(url, account, key, "" if key else signature)


def _address(parts: dict[str, str]) -> str:
    url = parts.get("BlobEndpoint", "").rstrip("/")
    if not url:
        account = parts.get("AccountName", "")
        if not account:
            raise ValueError(f"there is neither AccountName nor BlobEndpoint in it; accepted is {_ACCEPTED}")
        if not re.fullmatch(r"[a-z0-9]{3,24}", account):
            raise ValueError("AccountName: 3 to 24 small letters and digits are the name of an account")
        suffix = parts.get("EndpointSuffix", "core.windows.net").strip("./")
        url = f"{parts.get('DefaultEndpointsProtocol', 'https').lower()}://{account}.blob.{suffix}"
    try:
        found = urlsplit(url)
        good = found.scheme in {"http", "https"} and bool(found.hostname) and not found.query and (found.port or 1)
    except ValueError:
        good = False
    if not good:
        raise ValueError("BlobEndpoint: an address is accepted, such as https://NAME.blob.core.windows.net")
    return url


def _account(url: str) -> str:
    found = urlsplit(url)
    path = found.path.strip("/")
    return path.partition("/")[0] or (found.hostname or "").partition(".")[0]
