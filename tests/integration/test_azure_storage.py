"""Storage accounts against Azurite: authorizations and their check, choices, and what a broken network does to them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas, generate_container_sas
from azurite import ACCOUNT, KEY, Azurite
from azurite import azurite as azurite_running
from chaos import chaos
from gpg import gpg_home

from connectors.azure.blobs import open_blobs
from connectors.azure.choices import find_files
from connectors.azure.connection import endpoint_of
from connectors.azure.output import BLOCK_BYTES, opened_output
from connectors.azure.refusals import BlobChangedError, BlobMissingError, MissingContainerError
from connectors.azure.storage import AZURE_STORAGE, StorageCredentials
from connectors.sdk.declare import AuthCheck, Choosing
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.run import Network, Patience

WRONG = base64.b64encode(b"hush, this is another key").decode()
QUICK = Patience(total_s=0)


def container(azurite: Any) -> str:
    return str(azurite.create(f"c-{uuid.uuid4().hex[:12]}"))


def signature(azurite: Any, permissions: str, *, minutes: int = 60) -> str:
    signed = generate_account_sas(
        ACCOUNT,
        KEY,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions.from_string(permissions),
        expiry=datetime.now(UTC) + timedelta(minutes=minutes),
    )
    return f"BlobEndpoint={azurite.address};SharedAccessSignature={signed}"


async def check(string: str, *, seconds: float = 10, **fields: Any) -> None:
    config = StorageCredentials.model_validate({"connection_string": string} | fields)
    now_us = int(datetime.now(UTC).timestamp() * 1e6)
    assert AZURE_STORAGE.check is not None
    await AZURE_STORAGE.check(
        AuthCheck(config=config, network=Network(seconds), log=structlog.get_logger(), now_us=lambda: now_us)
    )


def opened(string: str, *, seconds: float = 10, **options: Any) -> Any:
    return open_blobs(endpoint_of(string), Network(seconds), **options)


# --- the check


async def test_the_check_tells_what_is_wrong_apart(azurite):
    there = container(azurite)
    similar = f"no container '{there}-2' in cohortd; there are: {there}"
    nowhere = "DefaultEndpointsProtocol=http;AccountName=no1;AccountKey=aHVzaA==;BlobEndpoint=http://no1.invalid"
    cases = [
        (azurite.connection_string, {}, None, ""),
        (azurite.connection_string, {"container": there}, None, ""),
        (signature(azurite, "rl"), {}, None, ""),
        (azurite.let_in(azurite.address, WRONG), {}, AuthError, "AccountKey is refused"),
        (signature(azurite, "rl", minutes=-5), {}, AuthError, "signature ended"),
        (signature(azurite, "rl") + "x", {}, AuthError, "shared access signature is refused"),
        (
            azurite.connection_string,
            {"container": f"{there}-2"},
            ConfigError,
            similar,
        ),
        (nowhere, {}, TransientError, "does not resolve"),
        (azurite.let_in("http://127.0.0.1:1/x"), {}, TransientError, "cannot be reached"),
    ]
    found = []
    for string, fields, _, _ in cases:
        try:
            await check(string, **fields)
        except (AuthError, ConfigError, TransientError) as error:
            found.append((type(error), str(error)))
        else:
            found.append((None, ""))

    assert [kind for _, _, kind, _ in cases] == [kind for kind, _ in found]
    assert [] == [(words, said) for (*_, words), (_, said) in zip(cases, found, strict=True) if words not in said]
    assert not [said for _, said in found if WRONG in said or KEY in said or "sig=" in said]


async def test_a_signature_for_one_container_is_checked_by_that_container(azurite):
    there = container(azurite)
    signed = generate_container_sas(
        ACCOUNT, there, KEY, permission="rl", expiry=datetime.now(UTC) + timedelta(minutes=60)
    )
    string = f"BlobEndpoint={azurite.address};SharedAccessSignature={signed}"

    assert not AZURE_STORAGE.can_check(StorageCredentials.model_validate({"connection_string": string}))
    await check(string, container=there)
    with pytest.raises((AuthError, ConfigError)):
        await check(string, container="another")


async def test_a_host_that_does_not_answer_leaves_it_unknown_in_time(azurite):
    async with chaos(azurite.port) as proxy:
        proxy.silent = True
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        async with asyncio.timeout(5):
            with pytest.raises(TransientError, match=r"did not answer within 0\.2 s"):
                await check(string, seconds=0.2)


async def test_addresses_that_the_settings_forbid_are_not_asked(azurite):
    async with open_blobs(endpoint_of(azurite.connection_string), Network(5, allow_loopback=False)) as blobs:
        with pytest.raises(ConfigError, match="allow_loopback"):
            await blobs.containers()


# --- blobs


async def test_a_blob_is_read_by_ranges_as_long_as_it_is_the_same(azurite):
    there = container(azurite)
    content = bytes(range(256)) * 1000
    azurite.put(there, "a/ü b%.bin", content)
    async with opened(azurite.connection_string) as blobs:
        found = await blobs.properties(there, "a/ü b%.bin")
        read = b""
        while piece := await blobs.read(there, found.name, len(read), 100_000, found.etag):
            read += piece
        azurite.put(there, "a/ü b%.bin", content)
        with pytest.raises(BlobChangedError):
            await blobs.read(there, found.name, 0, 10, found.etag)
        with pytest.raises(BlobMissingError):
            await blobs.read(there, "b", 0, 10)
        with pytest.raises(BlobMissingError):
            await blobs.properties(there, "b")
        azurite.put(there, "empty", b"")

        assert content == read
        assert b"" == await blobs.read(there, "empty", 0, 10)
        with pytest.raises(MissingContainerError, match=f"there are: {there}"):
            await blobs.read(f"{there}-2", "b", 0, 10)


async def test_blobs_are_listed_by_pages(azurite, monkeypatch):
    monkeypatch.setattr("connectors.azure.blobs.PAGE_BLOBS", 3)
    there = container(azurite)
    for n in range(8):
        azurite.put(there, f"a/{n}", b"x" * n)
    azurite.put(there, "b", b"")
    async with opened(azurite.connection_string) as blobs:
        pages = [page async for page in blobs.blobs(there, "a/")]

    assert [3, 3, 2] == [len(page) for page in pages]
    assert [(f"a/{n}", n) for n in range(8)] == [(each.name, each.size) for page in pages for each in page]


async def test_staged_blocks_are_seen_when_they_are_committed_and_not_before(azurite):
    there = container(azurite)
    async with opened(azurite.connection_string) as blobs:
        await blobs.stage(there, "x", "b2", b"world")
        await blobs.stage(there, "x", "b1", b"hello ")
        before = azurite.names(there)
        await blobs.commit(there, "x", ["b1", "b2"], "text/plain")
        await blobs.commit(there, "x", ["b1", "b2"], "text/plain")  # an answer that was lost

    assert [] == before
    assert b"hello world" == azurite.read(there, "x")


async def test_what_fails_in_passing_is_tried_again_and_every_request_is_counted(azurite):
    there = container(azurite)
    azurite.put(there, "x", b"hello")
    count = 0

    async def request() -> None:
        nonlocal count
        count += 1

    async with chaos(azurite.port) as proxy:
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        async with opened(string, request=request, patience=Patience(0.01, 5)) as blobs:
            proxy.answer(500, times=2)
            first = await blobs.read(there, "x", 0, 10)
            proxy.cut(after=10)
            proxy.drop()
            second = await blobs.read(there, "x", 0, 10)
            proxy.answer(503, headers="x-ms-error-code: ServerBusy\r\nRetry-After: 9\r\n")
            with pytest.raises(TransientError) as throttled:
                await blobs.read(there, "x", 0, 10)

        assert (b"hello", b"hello", 9.0) == (first, second, throttled.value.retry_after)
        assert proxy.struck.is_set()
        assert count >= len(proxy.requests) > 4


async def test_a_stopped_store_is_given_up_after_the_deadline_and_asked_again_later(tmp_path):
    with azurite_running(tmp_path / "own") as peer:
        there = container(peer)
        peer.put(there, "x", b"hello")
        async with opened(peer.connection_string, seconds=0.3, patience=QUICK) as blobs:
            peer.freeze()
            try:
                async with asyncio.timeout(5):
                    with pytest.raises(TransientError, match="did not answer"):
                        await blobs.read(there, "x", 0, 10)
            finally:
                peer.thaw()

            assert b"hello" == await blobs.read(there, "x", 0, 10)


async def test_an_answer_that_drips_is_given_up_after_the_deadline():
    over = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        over.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        string = f"AccountName=acct;AccountKey=aHVzaA==;BlobEndpoint=http://127.0.0.1:{port}/acct"
        async with asyncio.timeout(5), opened(string, seconds=0.3, patience=QUICK) as blobs:
            with pytest.raises(TransientError, match="did not answer"):
                await blobs.containers()
        await over.wait()


async def test_what_an_earlier_run_still_has_on_the_wire_is_no_part_of_a_later_blob(azurite):
    there = container(azurite)
    async with opened(azurite.connection_string) as blobs:
        async with opened_output(blobs, there) as late, opened_output(blobs, there) as output:
            for each, letter in ((late, b"a"), (output, b"b")):
                await each.begin("x")
                await each.write(letter * (BLOCK_BYTES + 1))
            await output._arrived()
            await late._arrived()
            await late._stage(b"late")
            await late._arrived()
            assert ("x", BLOCK_BYTES + 1) == await output.finish()

        assert b"b" * (BLOCK_BYTES + 1) == azurite.read(there, "x")


async def test_a_blob_of_many_blocks_is_whole_and_memory_holds_two(azurite, monkeypatch):
    monkeypatch.setattr("connectors.azure.output.BLOCK_BYTES", 1000)
    monkeypatch.setattr("connectors.azure.output.GROW_AFTER", 4)
    there = container(azurite)
    content = b"".join(b"%09d\n" % n for n in range(5000))
    async with opened(azurite.connection_string) as blobs, opened_output(blobs, there) as output:
        await output.begin("x.ndjson")
        for at in range(0, len(content), 700):
            await output.write(content[at : at + 700])
            assert len(output._buffer) <= output._block_bytes
        found = await output.finish()

    assert ("x.ndjson", len(content)) == found
    assert content == azurite.read(there, "x.ndjson")
    assert len(output._blocks) < 25


# --- choices


async def chosen(string: str, container: str, search: str = "", limit: int = 100) -> list[str]:
    choosing = Choosing(
        auth=StorageCredentials.model_validate({"connection_string": string}),
        config={"container": container},
        search=search,
        limit=limit,
        network=Network(30),
        log=structlog.get_logger(),
    )
    return [each.value for each in await find_files(choosing)]


@pytest.mark.parametrize("count", [2_500, pytest.param(100_000, marks=pytest.mark.scale)])
@pytest.mark.timeout(300)
async def test_a_file_is_chosen_among_many_by_its_beginning_or_a_part_of_its_name(tmp_path, count, monkeypatch):
    monkeypatch.setattr("connectors.azure.blobs.PAGE_BLOBS", 1000)
    names = [f"daily/orders-{n:06d}.csv" for n in range(count)]
    peer = Azurite(tmp_path)
    try:
        peer.start()
        peer.create("many")
        peer.put("many", "x", b"hello")
        peer.stop()
        peer.multiply("many", "x", names)
        peer.start()
        began = await chosen(peer.connection_string, "many", f"daily/orders-{count // 10 - 1:05d}")
        if count < 10_000:  # Azurite takes a second for each page of so many
            part = await chosen(peer.connection_string, "many", "2499")
            newest = await chosen(peer.connection_string, "many", limit=3)
            none = await chosen(peer.connection_string, "many", "nothing")
            assert [["daily/orders-002499.csv"], names[:-4:-1], []] == [part, newest, none]
    finally:
        peer.stop()

    assert list(reversed(names[-10:])) == began


async def test_what_was_found_until_the_time_is_over_is_given(azurite, monkeypatch):
    monkeypatch.setattr("connectors.azure.blobs.PAGE_BLOBS", 2)
    monkeypatch.setattr("connectors.azure.choices.LOOKED_S", 1.0)
    there = container(azurite)
    for n in range(5):
        azurite.put(there, f"{n}.csv", b"x")
    async with chaos(azurite.port) as proxy:
        proxy.answer(503, times=1000, matching="marker=", headers="x-ms-error-code: InternalError\r\n")
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/{ACCOUNT}")
        monkeypatch.setattr("connectors.azure.choices.Patience", lambda **_: Patience(0.05, 100))
        found = await chosen(string, there, limit=4)

    assert ["1.csv", "0.csv"] == found


async def test_without_a_container_there_is_nothing_to_choose_and_a_missing_one_is_told(azurite):
    with pytest.raises(ConfigError, match="choose it first"):
        await chosen(azurite.connection_string, "")
    with pytest.raises(ConfigError, match="no container 'no-such'"):
        await chosen(azurite.connection_string, "no-such")


# --- the daemon


@pytest.mark.skipif(shutil.which("gpg") is None, reason="needs gpg")
async def test_keys_of_pgp_are_tried_with_the_authorization(azurite, tmp_path, open_daemon):
    with gpg_home() as gpg:
        gpg.make("ann", passphrase="open sesame")
        gpg.make("bob")
        ann, private, bob = gpg.public("ann"), gpg.private("ann", "open sesame"), gpg.public("bob")
    string = {"connection_string": azurite.connection_string}
    cases = [
        ({"pgp_public_key": bob}, 200, ""),
        ({"pgp_public_key": ann, "pgp_private_key": private, "pgp_passphrase": "open sesame"}, 200, ""),
        ({"pgp_public_key": "no key"}, 422, "not armoured"),
        ({"pgp_public_key": private}, 422, "this is a private key"),
        ({"pgp_private_key": ann}, 422, "this is a public key"),
        ({"pgp_private_key": private, "pgp_passphrase": "hush hush"}, 422, "passphrase"),
        ({"pgp_public_key": bob, "pgp_private_key": private, "pgp_passphrase": "open sesame"}, 422, "no pair"),
        ({"pgp_passphrase": "hush hush"}, 422, "give the private key"),
    ]
    async with open_daemon(tmp_path) as opened:
        answers = [
            await opened.post("/v2/auth/azure/azure_storage", {"label": "keys", "config": string | given})
            for given, *_ in cases
        ]
        shown = json.dumps((await opened.get("/v2/auth", ok=True)).data)

    assert [status for _, status, _ in cases] == [200 if each.status < 300 else each.status for each in answers]
    said = [each.content.decode() for each in answers]
    assert [] == [(words, text) for (*_, words), text in zip(cases, said, strict=True) if words not in text]
    assert not [text for text in (*said, shown) if "hush" in text or "sesame" in text or "PRIVATE KEY BLOCK" in text]


async def test_a_real_daemon_keeps_the_authorization_and_tells_its_health(azurite, tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:

        async def create(label: str, string: str) -> Any:
            body = {"label": label, "config": {"connection_string": string}}
            return await opened.post("/v2/auth/azure/azure_storage", body)

        good = await create("good", azurite.connection_string)
        bad = await create("bad", azurite.let_in(azurite.address, WRONG))
        shown = json.dumps((await opened.get("/v2/auth", ok=True)).data)

    assert "healthy" == good.data["status"], good.data
    assert 422 == bad.status
    assert "AccountKey is refused" in bad.content.decode()
    assert KEY not in shown
    assert WRONG not in bad.content.decode()
