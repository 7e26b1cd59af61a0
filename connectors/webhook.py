"""Webhooks: every enter and exit as an HTTP request, as soon as it is durable.

Credentials come from an authorization (sealed, checked, counted), or by reference from the job's own configuration.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
from pydantic import AfterValidator, Field, SecretStr, field_validator
from yarl import URL

from connectors.sdk.declare import (
    AuthCheck,
    AuthMethod,
    Config,
    Provider,
    SystemExport,
    SystemJob,
    TriggerExport,
    TriggerJob,
)
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.http import Client, open_client
from connectors.sdk.run import Batching, Credentials, Lease, Message, TriggerRun, deadline
from connectors.sdk.secret import Secret, SecretReference, check_reference, hidden, is_reference

#: Replies that say "never send this again": the messages are omitted, and logged.
NEVER_AGAIN = frozenset({400, 404, 410, 413})
#: Replies that refuse the credentials.
REFUSED = frozenset({401, 403})
#: How much of an answer is read: enough to keep the connection, and to show an error.
ANSWER_BYTES = 64 * 1024
ANSWER_S = 2.0
SHOWN_CHARACTERS = 200

#: Headers that are ours, or the transport's.
OWN_HEADERS = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "upgrade", "te",
     "trailer", "expect", "webhook-id", "webhook-timestamp", "webhook-signature"}
)  # fmt: skip
#: Parts of a header's name that make its value a secret.
SECRET_WORDS = ("auth", "token", "secret", "key", "cookie", "password", "signature", "credential")


def _check_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("is not a http:// or https:// address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; give them as a header, by reference")
    try:
        URL(text)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"is not an address: {error}") from error
    return text


class Requests(Config):
    """Where and how is posted."""

    url: Annotated[str, AfterValidator(_check_url)] = Field(
        max_length=2000, description="http:// or https:// address that each request is posted to."
    )
    batch_size: int = Field(
        1, ge=1, le=1000, description="Most messages in a request; 1: the message itself, no array."
    )
    flush_seconds: float = Field(1.0, ge=0, le=300, description="Longest wait for a batch to fill, in seconds.")
    concurrency: int = Field(5, ge=1, le=20, description="Requests at the same time; never two for one profile.")
    headers: Mapping[str, str] = Field(
        default_factory=dict,
        description="Headers to add. A secret value is a reference: env:NAME, file:/path or credential:name.",
    )
    signature_secret: SecretReference | None = Field(
        None,
        description="Reference to the secret of a Standard Webhooks signature (whsec_…); several, separated by spaces,"
        " while one replaces the other.",
    )

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        if len(headers) > 50:
            raise ValueError("at most 50 headers")
        for name, value in headers.items():
            _check_header(name, value)
        return dict(headers)


class WebhookTriggers(Requests, TriggerExport):
    """Where and how triggers are posted."""


class WebhookSystemEvents(Requests, SystemExport):
    """Where and how alerts are posted."""


def _check_header(name: str, value: str) -> None:
    _check_header_name(name)
    if is_reference(value):
        check_reference(value)
    elif any(word in name.lower() for word in SECRET_WORDS):
        raise ValueError(
            f"the value of {name} is a secret: give it as env:NAME, file:/path or credential:name, or in an "
            "authorization"
        )
    elif any(each in value for each in "\r\n\0"):
        raise ValueError(f"the value of {name} has a line end")


def _check_header_name(name: str) -> None:
    if not name or not all(each.isascii() and (each.isalnum() or each in "!#$%&'*+-.^_`|~") for each in name):
        raise ValueError(f"{name!r} is not the name of a header")
    if name.lower() in OWN_HEADERS:
        raise ValueError(f"{name} is set by cohortd")


# --- authorizations


class Access(Credentials):
    """What all ways to be let in have: a secret to sign with."""

    signing_secret: SecretStr | None = Field(
        None, description="Secret of a Standard Webhooks signature (whsec_…); several, separated by spaces."
    )

    @field_validator("signing_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            try:
                _signers(Secret(secret.get_secret_value()))
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return secret

    def headers_sent(self) -> dict[str, str]:
        """Gives the headers that let a request in."""
        return {}

    def secrets(self) -> list[Secret]:
        """Gives what must be in no text."""
        texts = [] if self.signing_secret is None else [self.signing_secret.get_secret_value()]
        for text in self.headers_sent().values():
            texts += [text, text.partition(" ")[2]]
        return [Secret(text) for text in texts if text]


class CheckedAccess(Access):
    """What can be checked, where there is an address for that."""

    check_url: Annotated[str, AfterValidator(_check_url)] | None = Field(
        None,
        max_length=2000,
        description="Address that a GET with these credentials checks: 2xx is healthy, 401 and 403 are not. Without"
        " one, what deliveries meet decides.",
    )


class BearerAccess(CheckedAccess):
    """A token in the Authorization header."""

    token: SecretStr = Field(min_length=1, max_length=8000, description="Sent as `Authorization: Bearer <token>`.")

    @field_validator("token")
    @classmethod
    def _check_token(cls, token: SecretStr) -> SecretStr:
        _one_line(token, "token")
        return token

    def headers_sent(self) -> dict[str, str]:
        """Gives the Authorization header."""
        return {"authorization": f"Bearer {_one_line(self.token, 'token')}"}


class BasicAccess(CheckedAccess):
    """A user name and a password."""

    user: str = Field(max_length=500, pattern=r"^[^:\x00-\x1f]+$", description="User name; no colon in it.")
    password: SecretStr = Field(max_length=8000, description="Password.")

    def headers_sent(self) -> dict[str, str]:
        """Gives the Authorization header."""
        pair = f"{self.user}:{self.password.get_secret_value()}"
        return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def secrets(self) -> list[Secret]:
        """Gives what must be in no text."""
        password = self.password.get_secret_value()
        return [*super().secrets(), *([Secret(password)] if password else [])]


class HeaderAccess(CheckedAccess):
    """Headers with secret values."""

    headers: Mapping[str, SecretStr] = Field(
        min_length=1, max_length=50, description="Headers to send, each value secret: an API key under its own name."
    )

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
        for name, value in headers.items():
            _check_header_name(name)
            _one_line(value, name)
        return dict(headers)

    def headers_sent(self) -> dict[str, str]:
        """Gives the headers."""
        return {name.lower(): _one_line(value, name) for name, value in self.headers.items()}


class SignatureAccess(Access):
    """A signature of each request, after Standard Webhooks, and nothing else."""

    signing_secret: SecretStr = Field(
        description="Secret of the signature (whsec_…); several, separated by spaces, while one replaces the other."
    )


def _one_line(value: SecretStr, name: str) -> str:
    text = value.get_secret_value()
    if any(each in text for each in "\r\n\0"):
        raise ValueError(f"the value of {name} has a line end in it")
    return text


async def check(check: AuthCheck[CheckedAccess]) -> None:
    """Asks `check_url` whether the credentials are let in."""
    url = check.config.check_url
    if url is None:
        return
    host = URL(url).host
    headers = {"accept-encoding": "identity", "user-agent": "cohortd", **check.config.headers_sent()}
    async with open_client(check.network, connections=1) as client:
        try:
            async with client.session.get(url, headers=headers, allow_redirects=False) as response:
                shown = await _drain(response, check.config.secrets())
        except (aiohttp.ClientError, OSError) as error:
            explained = client.explain(error)
            if explained is not error:
                raise explained from error
            raise TransientError(f"no answer from {host}: {type(error).__name__}: {error}") from error
    said = f"{response.status} {response.reason or ''}".rstrip() + (f": {shown}" if shown else "")
    if response.status in REFUSED:
        raise AuthError(f"{host} refused the credentials with {said}")
    if not 200 <= response.status < 300:
        raise TransientError(f"{host} answered {said}, which says nothing of the credentials")


def _can_check(access: CheckedAccess) -> bool:
    return access.check_url is not None


BEARER = AuthMethod("bearer", "Bearer token", BearerAccess, check, can_check=_can_check)
BASIC = AuthMethod("basic", "User name and password", BasicAccess, check, can_check=_can_check)
HEADERS = AuthMethod("headers", "Secret headers", HeaderAccess, check, can_check=_can_check)
SIGNATURE = AuthMethod("signature", "Signature (Standard Webhooks)", SignatureAccess)
ACCESS = (BEARER, BASIC, HEADERS, SIGNATURE)


# --- runs


async def run(run: TriggerRun[WebhookTriggers | WebhookSystemEvents]) -> None:
    """Posts batch after batch until cancelled."""
    config = run.config
    values, secrets = _headers(run)
    signers: list[bytes] = []
    if config.signature_secret is not None:
        secret = run.secret(config.signature_secret)
        signers = _signers(secret)
        secrets = [*secrets, secret]
    if isinstance(run.auth, Access):
        values, signers = _let_in(run.auth, values, signers)
        secrets = [*secrets, *run.auth.secrets()]
    batching = Batching(count=config.batch_size, age_s=config.flush_seconds if config.batch_size > 1 else 0.0)
    async with open_client(run.network, connections=config.concurrency) as client:
        destination = _Destination(client, URL(config.url), secrets, run.now_us)

        async def send(lease: Lease) -> None:
            body = _body(lease.messages, array=config.batch_size > 1)
            headers = values
            if signers:
                headers = values | _signature(signers, _request_id(lease.messages), run.now_us() // 1_000_000, body)
            await run.request()
            async with deadline(run.network.deadline_s, f"the request to {destination.host}"):
                await destination.post(body, headers, lease)

        fields = config.user_fields if isinstance(config, WebhookTriggers) else None
        await run.deliver(send, batching, fields=fields, concurrency=config.concurrency)


class _Destination:
    """Where a run posts to, and what its answers mean."""

    def __init__(self, client: Client, url: URL, secrets: Sequence[Secret], now_us: Callable[[], int]) -> None:
        self._client = client
        self._url = url
        self._secrets = secrets
        self._now_us = now_us
        self.host = url.host

    async def post(self, body: bytes, headers: Mapping[str, str], lease: Lease) -> None:
        """Posts a batch and settles it, or raises what decides when it is tried again."""
        lease.note(to=self.host or "", size=len(body))
        try:
            async with self._client.session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                lease.note(status=response.status)
                if 200 <= response.status < 300:
                    lease.ack()
                    await _drain(response)
                else:
                    self._refused(response, await _drain(response, self._secrets), lease)
        except (aiohttp.ClientError, OSError) as error:
            explained = self._client.explain(error)
            if explained is not error:
                raise explained from error
            if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
                raise ConfigError(f"{self._url} cannot be posted to: {error}") from error
            raise TransientError(f"no answer from {self.host}: {type(error).__name__}: {error}") from error

    def _refused(self, response: aiohttp.ClientResponse, shown: str, lease: Lease) -> None:
        """Omits what must not be sent again, else raises."""
        said = f"{response.status} {response.reason or ''}".rstrip() + (f": {shown}" if shown else "")
        said = hidden(said, self._secrets)  # an answer may repeat what it was sent
        if response.status in NEVER_AGAIN:
            lease.omit(said)
            return
        if response.status in REFUSED:
            raise AuthError(f"the destination refused the credentials with {said}")
        if 300 <= response.status < 400:
            raise TransientError(f"the destination answered {said}; redirects are not followed, give the final address")
        raise TransientError(f"the destination answered {said}", retry_after=_retry_after(response, self._now_us()))


async def _drain(response: aiohttp.ClientResponse, secrets: Sequence[Secret] = ()) -> str:
    """Reads a bounded part of the answer for a bounded time, and gives its beginning, without secrets.

    The connection is kept only when that was all of it.
    """
    parts = bytearray()
    try:
        async with asyncio.timeout(ANSWER_S):
            while len(parts) < ANSWER_BYTES:
                part = await response.content.read(ANSWER_BYTES - len(parts))
                if not part:
                    break
                parts += part
            else:
                response.close()
    except (aiohttp.ClientError, TimeoutError):
        response.close()
    text = hidden(bytes(parts).decode("utf-8", "replace"), secrets)
    return hidden(" ".join(text.split()), secrets)[:SHOWN_CHARACTERS]


def _retry_after(response: aiohttp.ClientResponse, now_us: int) -> float | None:
    """Reads Retry-After: seconds, or a date, taken against the answer's own Date where it has one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    at = _date(text)
    if at is None:
        return None
    date = _date(response.headers.get("Date", ""))
    return max(at - (now_us / 1e6 if date is None else date), 0.0)


def _date(text: str) -> float | None:
    """Reads an HTTP date as seconds since the epoch."""
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


# --- what is sent


def _body(messages: Sequence[Message], *, array: bool) -> bytes:
    if not array:
        return messages[0].body
    return b"[" + b",".join(each.body for each in messages) + b"]"


def _headers(run: TriggerRun[Requests]) -> tuple[dict[str, str], list[Secret]]:
    """Gives the headers of each request, and the secrets among them."""
    headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "cohortd"}
    secrets: list[Secret] = []
    for name, value in run.config.headers.items():
        text = value
        if is_reference(value):
            secrets.append(run.secret(value))
            text = secrets[-1].reveal()
        if any(each in text for each in "\r\n\0"):
            raise ConfigError(f"the value of the header {name} has a line end in it")
        headers[name.lower()] = text
    return headers, secrets


def _let_in(access: Access, headers: dict[str, str], signers: list[bytes]) -> tuple[dict[str, str], list[bytes]]:
    """Adds what an authorization brings; what the job's own configuration brings too is refused, not chosen from."""
    added = access.headers_sent()
    both = sorted(headers.keys() & added.keys())
    if both:
        raise ConfigError(
            f"the header {both[0]} comes from the job's headers and from its authorization; leave one out"
        )
    if access.signing_secret is not None:
        if signers:
            raise ConfigError("signature_secret, and a secret in the authorization: leave one of them out")
        signers = _signers(Secret(access.signing_secret.get_secret_value()))
    return headers | added, signers


def _request_id(messages: Sequence[Message]) -> str:
    """Names a batch: the same for each attempt at it."""
    if len(messages) == 1:
        return messages[0].id
    return f"{messages[0].id}-{messages[-1].id}-{len(messages)}"


def _signers(secret: Secret) -> list[bytes]:
    """Gives the keys of a Standard Webhooks secret; several stand separated by spaces."""
    keys = []
    for text in secret.reveal().split():
        if text.startswith("whsec_"):
            try:
                keys.append(base64.b64decode(text.removeprefix("whsec_"), validate=True))
            except binascii.Error:
                raise ConfigError("the signature secret begins with whsec_ but is not base64 behind it") from None
        else:
            keys.append(text.encode())
    if not keys:
        raise ConfigError("the signature secret is empty")
    return keys


def _signature(keys: Sequence[bytes], request_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Gives the headers of a Standard Webhooks signature for an attempt at `timestamp`, in seconds."""
    signed = f"{request_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    return {
        "webhook-id": request_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
    }


WEBHOOK_TRIGGERS = TriggerJob(
    slug="webhook_triggers",
    label="Audience triggers",
    description="Posts a message for every enter into and exit from the chosen audiences, as it happens.",
    direction="export",
    config=WebhookTriggers,
    run=run,
    auths=ACCESS,
)

WEBHOOK_SYSTEM_EVENTS = SystemJob(
    slug="webhook_system_events",
    label="Alerts",
    description="Posts a message when something happens to jobs or authorizations: created, failed, unhealthy …",
    direction="other",
    config=WebhookSystemEvents,
    run=run,
    auths=ACCESS,
)

PROVIDER = Provider(
    slug="webhook",
    label="Webhooks",
    description="Any system that takes HTTP requests.",
    jobs=(WEBHOOK_TRIGGERS, WEBHOOK_SYSTEM_EVENTS),
    auths=ACCESS,
)
