"""What the fields of blobs' jobs can be chosen from: containers and files."""

from __future__ import annotations

import asyncio
import heapq
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import AfterValidator

from connectors.azure.blobs import open_blobs
from connectors.azure.listing import Blob
from connectors.azure.storage import storage_of
from connectors.sdk.declare import Choice, Choices, Choosing
from connectors.sdk.errors import ConfigError
from connectors.sdk.run import Patience

#: How long blobs are looked at for a choice, in seconds.
LOOKED_S: Final = 20.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def find_containers(choosing: Choosing) -> Sequence[Choice]:
    """Gives the containers of the account; of a signature for one container, the one that the authorization names."""
    auth = storage_of(choosing.auth)
    async with open_blobs(auth.endpoint, choosing.network, patience=Patience(total_s=1)) as blobs:
        if auth.endpoint.narrow:
            if auth.container is None:
                raise ConfigError("the signature does not list containers; type the container's name")
            names = [auth.container]
        else:
            names = await blobs.containers()
    return [Choice(name) for name in names if choosing.search in name][: choosing.limit]


async def find_files(choosing: Choosing) -> Sequence[Choice]:
    """Gives blobs of the container that the form names, the newest first.

    Those whose names begin with the text; where these are not enough, all are looked at, page by page, for names that
    have it in them. Where that takes too long, what was found until then is given.
    """
    container = choosing.config.get("container")
    if not isinstance(container, str) or not container:
        raise ConfigError("container: choose it first")
    auth = storage_of(choosing.auth)
    found: dict[str, Blob] = {}
    looked_at = 0
    async with open_blobs(auth.endpoint, choosing.network, patience=Patience(total_s=1)) as blobs:
        try:
            async with asyncio.timeout(LOOKED_S):
                for prefix in dict.fromkeys((choosing.search, "")):
                    async for page in blobs.blobs(container, prefix):
                        looked_at += len(page)
                        fit = {each.name: each for each in page if choosing.search in each.name}
                        found = {each.name: each for each in _newest((found | fit).values(), choosing.limit)}
                    if len(found) >= choosing.limit:
                        break
        except TimeoutError:
            choosing.log.info("choices_cut_short", container=container, looked_at=looked_at)
    return [Choice(each.name, hint=_hint(each)) for each in found.values()]


def _newest(blobs: Iterable[Blob], limit: int) -> list[Blob]:
    return heapq.nlargest(limit, blobs, key=lambda each: (each.modified_us, each.name))


def _hint(blob: Blob) -> str:
    at = _EPOCH + timedelta(microseconds=blob.modified_us)
    return f"{blob.size:,} bytes, {at:%Y-%m-%d %H:%M} UTC"


def _check_container(name: str) -> str:
    if name not in {"$root", "$web"} and not re.fullmatch(r"[a-z0-9](?!.*--)[a-z0-9-]{1,61}[a-z0-9]", name):
        raise ValueError("3 to 63 small letters, digits and single hyphens are the name of a container")
    return name


#: A container in a configuration.
Container = Annotated[str, AfterValidator(_check_container), Choices("containers", find_containers)]
