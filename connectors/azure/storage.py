"""The authorization `azure_storage`: a storage account's connection string, and PGP keys for what is in its blobs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from pydantic import Field, SecretStr, field_validator, model_validator

from connectors.azure.blobs import Blobs, open_blobs
from connectors.azure.connection import Endpoint, endpoint_of
from connectors.azure.refusals import NotPermittedError
from connectors.sdk.declare import AuthCheck, AuthMethod
from connectors.sdk.errors import AuthError, ConfigError
from connectors.sdk.formats.pgp import PgpError, PublicKey, check_keys, private_key
from connectors.sdk.run import Credentials, Patience, Run


class StorageCredentials(Credentials):
    """A connection string, and keys for encrypted blobs."""

    connection_string: SecretStr = Field(
        min_length=1,
        description="Connection string of the storage account: with its key, with a shared access signature, or "
        "UseDevelopmentStorage=true.",
    )
    container: str | None = Field(
        None,
        max_length=63,
        description="A container that the check looks into too; say it where a signature is for one container only.",
    )
    pgp_public_key: PublicKey | None = Field(
        None, description="PGP public key, armoured: exports are encrypted for it."
    )
    pgp_private_key: SecretStr | None = Field(
        None, description="PGP private key, armoured: imports of encrypted blobs are decrypted."
    )
    pgp_passphrase: SecretStr | None = Field(None, description="Passphrase of the private key.")

    @field_validator("connection_string")
    @classmethod
    def _string(cls, value: SecretStr) -> SecretStr:
        endpoint_of(value.get_secret_value())
        return value

    @field_validator("pgp_private_key")
    @classmethod
    def _private(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            private_key(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _passphrase_of_a_key(self) -> StorageCredentials:
        if self.pgp_passphrase is not None and self.pgp_private_key is None:
            raise ValueError("pgp_passphrase: give the private key that it opens too")
        return self

    @property
    def endpoint(self) -> Endpoint:
        """What the connection string says."""
        return endpoint_of(self.connection_string.get_secret_value())


def blobs_of(run: Run[Any]) -> AbstractAsyncContextManager[Blobs]:
    """Opens the blobs of a run's authorization, with its rate, its deadline and its patience."""
    return open_blobs(
        storage_of(run.auth).endpoint,
        run.network,
        request=run.request,
        now_us=run.now_us,
        patience=run.patience,
    )


def storage_of(auth: Credentials | None) -> StorageCredentials:
    """Gives a run's authorization as what it is. Raises AuthError where there is none."""
    if not isinstance(auth, StorageCredentials):
        raise AuthError("the job has no authorization of a storage account; give it one")
    return auth


async def _check(check: AuthCheck[StorageCredentials]) -> None:
    """Tries the keys, asks for what the connection string should allow, and looks for the container that it names."""
    config = check.config
    if config.pgp_public_key is not None or config.pgp_private_key is not None:
        try:
            await check_keys(
                public=config.pgp_public_key,
                private=_revealed(config.pgp_private_key),
                passphrase=_revealed(config.pgp_passphrase),
                now_us=check.now_us(),
            )
        except PgpError as error:
            raise ConfigError(f"PGP: {error}") from error
    endpoint, container = config.endpoint, config.container
    async with open_blobs(endpoint, check.network, now_us=check.now_us, patience=Patience(total_s=0)) as blobs:
        if not endpoint.narrow:
            await blobs.containers(limit=1)
        if container is None:
            return
        there = await blobs.exists(container)
        if there is False:
            raise ConfigError(await blobs.without(container))
        if there is None:
            try:
                await anext(blobs.blobs(container))
            except NotPermittedError:
                return  # it was signed well, and is for other things


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


AZURE_STORAGE = AuthMethod(
    "azure_storage",
    "Azure Storage connection string",
    StorageCredentials,
    _check,
    description="Blobs of a storage account, by its key or by a shared access signature; with PGP keys, if they are "
    "encrypted.",
    can_check=lambda config: config.container is not None or not config.endpoint.narrow,
)
