"""The authorization `azure_eventhub`: the connection string of an Event Hubs namespace, or of one hub of it."""

from __future__ import annotations

import ssl

from pydantic import Field, SecretStr, field_validator, model_validator

from connectors.azure.hub_client import Transport, Way, open_hub
from connectors.azure.hub_connection import HUB_NAME, namespace_of, place_of
from connectors.sdk.declare import AuthCheck, AuthMethod
from connectors.sdk.errors import AuthError
from connectors.sdk.run import Credentials


class EventHubCredentials(Credentials):
    """A connection string, the hub where it names none, and the way there."""

    connection_string: SecretStr = Field(
        min_length=1,
        max_length=8000,
        description="Connection string of the hub, or of the namespace with `hub` beside it: with a key whose policy "
        "permits to send, with a shared access signature, or with UseDevelopmentEmulator=true.",
    )
    hub: str | None = Field(
        None,
        max_length=256,
        pattern=HUB_NAME,
        description="Name of the event hub, where the connection string has no EntityPath.",
    )
    transport: Transport = Field(
        "amqp", description="amqp: port 5671; websocket: AMQP over WebSockets, port 443, which firewalls let through."
    )
    endpoint: str | None = Field(
        None,
        max_length=300,
        description="HOST or HOST:PORT to connect to in the namespace's place: a private endpoint, or a gateway.",
    )
    ca_certificates: str | None = Field(
        None,
        max_length=200_000,
        description="Certificates (PEM) of the authorities to trust; not given: the system's.",
    )

    @field_validator("connection_string")
    @classmethod
    def _string(cls, value: SecretStr) -> SecretStr:
        namespace_of(value.get_secret_value())
        return value

    @field_validator("endpoint")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        if value is not None:
            place_of(value)
        return value

    @field_validator("ca_certificates")
    @classmethod
    def _certificates(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ssl.create_default_context(cadata=value)
            except (ssl.SSLError, ValueError):
                raise ValueError("is no certificate in PEM, -----BEGIN CERTIFICATE----- and so on") from None
        return value

    @model_validator(mode="after")
    def _one_hub(self) -> EventHubCredentials:
        named = namespace_of(self.connection_string.get_secret_value()).hub
        if named is None and self.hub is None:
            raise ValueError("hub: the connection string has no EntityPath, so name the event hub here")
        if named is not None and self.hub is not None and named != self.hub:
            raise ValueError(f"hub: the connection string is for {named!r}, and not for {self.hub!r}; leave one out")
        return self

    def way(self, transport: Transport | None = None) -> Way:
        """Gives the way to the hub, over another transport where one is given."""
        namespace = namespace_of(self.connection_string.get_secret_value())
        hub = namespace.hub or self.hub or ""
        return Way(namespace, hub, transport or self.transport, self.endpoint, self.ca_certificates)


def hub_of(auth: Credentials | None) -> EventHubCredentials:
    """Gives a run's authorization as what it is. Raises AuthError where there is none."""
    if not isinstance(auth, EventHubCredentials):
        raise AuthError("the job has no authorization of an event hub; give it one")
    return auth


async def _check(check: AuthCheck[EventHubCredentials]) -> None:
    """Opens the hub for sending, and sends nothing."""
    async with open_hub(check.config.way(), check.network):
        pass


AZURE_EVENTHUB = AuthMethod(
    "azure_eventhub",
    "Azure Event Hub",
    EventHubCredentials,
    _check,
    description="An event hub, by the connection string of a policy that permits to send.",
)
