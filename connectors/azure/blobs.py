"""Azure Blob Storage as the jobs use it: listing, reading ranges, staging blocks and committing them.

Over Microsoft's SDK, with what it does not do itself (PEERS.md): every request, also one that the SDK repeats in
secret, has a deadline of its own, waits for the authorization's rate and is counted; connections go only where the
settings allow. What is refused is told by `told`, in the provider's own words. A call that failed in passing is made
again for about 5 s; all of them give the same when they are made twice.
"""

from __future__ import annotations

import asyncio
import difflib
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from anyio.to_thread import run_sync
from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob import BlobBlock, ContentSettings
from azure.storage.blob.aio import BlobServiceClient

from connectors.azure import listing
from connectors.azure.connection import Endpoint
from connectors.azure.listing import Blob
from connectors.azure.refusals import BeyondError, MissingContainerError, NotPermittedError, told
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.http import Client, open_client
from connectors.sdk.run import Network, Patience

T = TypeVar("T")

#: Entries of a page of a list.
PAGE_BLOBS = 1000
PAGE_CONTAINERS = 1000
#: Containers that a message names.
NAMED_CONTAINERS = 20

#: The deadline of the call under way, put off while a request waits for its turn.
_deadline: ContextVar[asyncio.Timeout] = ContextVar("_deadline")


async def _no_turn() -> None:
    return


@asynccontextmanager
async def open_blobs(
    endpoint: Endpoint,
    network: Network,
    *,
    request: Callable[[], Awaitable[None]] = _no_turn,
    now_us: Callable[[], int] | None = None,
    patience: Patience | None = None,
    connections: int = 4,
) -> AsyncIterator[Blobs]:
    """Opens the blobs of an account, closed on leaving; nothing is asked yet.

    `request` is a run's `request`: called before every request. `now_us` lets a refusal for a wrong clock be told.
    """
    async with open_client(network, connections=connections) as client:
        transport = _Transport(client.session, request, network.deadline_s)
        service = BlobServiceClient(
            endpoint.url,
            credential=endpoint.credential,
            transport=transport,
            retry_total=0,
            permit_redirects=False,
            connection_timeout=network.deadline_s,
            read_timeout=network.deadline_s,
            max_single_put_size=0,
        )
        try:
            yield Blobs(service, client, endpoint, now_us=now_us, patience=patience or Patience(), network=network)
        finally:
            await service.close()  # it closes nothing: the session is ours


class Blobs:
    """The blobs of one account. Made by `open_blobs`.

    All raise AuthError, ConfigError (MissingContainerError among them) and TransientError; what is said beside that
    stands at each.
    """

    def __init__(
        self,
        service: BlobServiceClient,
        client: Client,
        endpoint: Endpoint,
        *,
        now_us: Callable[[], int] | None,
        patience: Patience,
        network: Network,
    ) -> None:
        self._service = service
        self._client = client
        self._endpoint = endpoint
        self._now_us = now_us
        self._patience = patience
        self._network = network

    @property
    def account(self) -> str:
        """The account's name."""
        return self._endpoint.account

    @property
    def host(self) -> str:
        """The host that is asked."""
        return urlsplit(self._endpoint.url).netloc

    async def containers(self, prefix: str = "", limit: int = 5000) -> list[str]:
        """Gives the names of containers, at most `limit`, in their order."""
        found: list[str] = []
        token: str | None = None
        while True:
            page = await self._page(
                "the list of containers",
                self._service.list_containers(
                    name_starts_with=prefix or None,
                    results_per_page=min(limit, PAGE_CONTAINERS),
                    raw_response_hook=listing.take,
                ).by_page(token),
                "Container",
            )
            found += [each.name for each in page.entries]
            token = page.token
            if token is None or len(found) >= limit:
                return found[:limit]

    async def exists(self, container: str) -> bool | None:
        """Tells whether there is a container; None where the signature does not allow to ask."""
        client = self._service.get_container_client(container)
        try:
            await self._ask(f"container {container}", client.get_container_properties)
        except MissingContainerError:
            return False
        except NotPermittedError:
            return None
        return True

    async def blobs(self, container: str, prefix: str = "") -> AsyncIterator[Sequence[Blob]]:
        """Gives pages of the blobs of a container whose names begin so, in the order of their names."""
        client = self._service.get_container_client(container)
        token: str | None = None
        while True:
            page = await self._page(
                f"the list of blobs of {container}",
                client.list_blobs(
                    name_starts_with=prefix or None, results_per_page=PAGE_BLOBS, raw_response_hook=listing.take
                ).by_page(token),
                "Blob",
                container,
            )
            yield page.entries
            token = page.token
            if token is None:
                return

    async def properties(self, container: str, name: str) -> Blob:
        """Gives what there is to say of a blob. Raises BlobMissingError."""
        client = self._service.get_blob_client(container, name)
        found = await self._ask(f"blob {name} in {container}", client.get_blob_properties, container)
        etag = str(found.etag or "").strip('"')
        return Blob(name, int(found.size or 0), etag, listing.modified_us(found.last_modified))

    async def read(self, container: str, name: str, offset: int, length: int, etag: str | None = None) -> bytes:
        """Gives `length` bytes of a blob from `offset` on, fewer at its end, as they lie there.

        Raises BlobMissingError, and BlobChangedError when it is not the blob of that ETag any more.
        """
        client = self._service.get_blob_client(container, name)
        condition: dict[str, Any] = {}
        if etag is not None:
            condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified}

        async def read() -> bytes:
            stream = await client.download_blob(offset, length, max_concurrency=1, decompress=False, **condition)
            return bytes(await stream.readall())

        try:
            return await self._ask(f"blob {name} in {container}", read, container)
        except BeyondError:
            return b""

    async def stage(self, container: str, name: str, block: str, content: bytes) -> None:
        """Puts a block, which nobody sees before `commit`. The ids of a blob's blocks are of one length."""
        client = self._service.get_blob_client(container, name)
        what = f"a block of {name} in {container}"
        # From a file, so that it goes out piece by piece: the loop would copy a large one in one go.
        await self._ask(what, lambda: client.stage_block(block, io.BytesIO(content), length=len(content)), container)

    async def commit(self, container: str, name: str, blocks: Sequence[str], content_type: str) -> None:
        """Makes a blob of staged blocks appear, whole, in place of one of the same name.

        Durable when it returns.
        """
        client = self._service.get_blob_client(container, name)
        wanted = [BlobBlock(block) for block in blocks]
        settings = ContentSettings(content_type=content_type)
        await self._ask(
            f"blob {name} in {container}",
            lambda: client.commit_block_list(wanted, content_settings=settings),
            container,
        )

    async def without(self, container: str) -> str:
        """Says that a container is not there, with those that are, the most similar ones first."""
        text = f"there is no container {container!r} in {self.account}; "
        try:
            there = await self.containers(limit=1000)
        except (TransientError, ConfigError):  # a signature for one container does not list them
            return text + "create it, or name another"
        there = list(dict.fromkeys([*difflib.get_close_matches(container, there), *there]))
        named = ", ".join(there[:NAMED_CONTAINERS]) + (" …" if len(there) > NAMED_CONTAINERS else "")
        return text + (f"there are: {named}" if there else "there is none at all: create it")

    # --- calls

    async def _page(self, what: str, pages: AsyncIterator[Any], kind: str, container: str = "") -> listing.Page:
        """Gives a page of a list."""

        async def read() -> bytes:
            try:
                await anext(pages)
            except listing.TakenError as taken:
                return taken.body
            raise TransientError(f"{what}: {self.host} gave no list")

        body = await self._ask(what, read, container)
        try:
            return await run_sync(listing.read, body, kind)
        except ValueError as error:
            raise TransientError(f"{what}: {self.host} answered with {error}") from None

    async def _ask(self, what: str, call: Callable[[], Awaitable[T]], container: str = "") -> T:
        """Makes a call, again where it failed in passing."""
        loop = asyncio.get_running_loop()
        delay = self._patience.first_s
        give_up_at: float | None = None
        while True:
            try:
                return await self._once(what, call)
            except MissingContainerError:
                if not container:
                    raise
                raise MissingContainerError(await self.without(container)) from None
            except TransientError as error:
                if give_up_at is None:
                    give_up_at = loop.time() + self._patience.total_s
                pause = delay * random.uniform(0.5, 1.0)  # noqa: S311  (jitter, no secret)
                if error.retry_after is not None or isinstance(error, AuthError) or loop.time() + pause > give_up_at:
                    raise
                await asyncio.sleep(pause)
                delay *= 2

    async def _once(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(None) as scope:
                mark = _deadline.set(scope)
                try:
                    return await call()
                finally:
                    _deadline.reset(mark)
        except TimeoutError:
            seconds = self._network.deadline_s
            raise TransientError(f"{what}: {self.host} did not answer within {seconds:g} s") from None
        except (AzureError, aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise self._told(error, what) from None  # the SDK's error may have an address with a signature in it

    def _told(self, error: Exception, what: str) -> Exception:
        inner = getattr(error, "inner_exception", None) or error
        refused = self._client.explain(inner)
        if isinstance(refused, ConfigError):
            return refused
        now_us = None if self._now_us is None else self._now_us()
        return told(error, what, self._endpoint, now_us=now_us)


class _Transport(AioHttpTransport):  # type: ignore[misc]  # the SDK's class has no type
    """Sends the SDK's requests: each waits for its turn, and then has the deadline of one request."""

    def __init__(
        self, session: aiohttp.ClientSession, request: Callable[[], Awaitable[None]], deadline_s: float
    ) -> None:
        super().__init__(session=session, session_owner=False)
        self._request = request
        self._deadline_s = deadline_s

    async def open(self) -> None:
        """The session is open, and stays so."""

    async def send(self, request: Any, **config: Any) -> Any:
        scope = _deadline.get()
        scope.reschedule(None)
        await self._request()
        scope.reschedule(asyncio.get_running_loop().time() + self._deadline_s)
        return await super().send(request, **config)
