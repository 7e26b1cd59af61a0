"""`azure_blob_import` against Azurite: cut off, replaced, encrypted, late, throttled, stopped; and in a real daemon."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import re
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import structlog
from azurite import Azurite
from azurite import azurite as azurite_running
from chaos import chaos
from gpg import Gpg, gpg_home
from import_sink import NOW, Control, CutError, Sink, run_of
from pydantic import ValidationError
from structlog.testing import capture_logs

from connectors.azure import shelf
from connectors.azure.blobs import Blobs
from connectors.azure.imports import AzureBlobImport, find_columns, find_prefixes, run
from connectors.azure.shelf import is_encrypted
from connectors.azure.storage import StorageCredentials
from connectors.sdk.declare import Choosing
from connectors.sdk.errors import AuthError, ConfigError, NotYetError, TransientError
from connectors.sdk.formats.compression import Packer
from connectors.sdk.run import Network, Patience

PASSPHRASE = "hush, it is a passphrase"
HOUR_US = 3_600_000_000


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    with gpg_home() as home:
        home.make("ours", passphrase=PASSPHRASE)
        home.make("theirs")
        yield home


@pytest.fixture
def box(azurite: Any) -> str:
    return str(azurite.create(f"c-{uuid.uuid4().hex[:12]}"))


@pytest.fixture(scope="module")
def keys(gpg: Gpg) -> dict[str, str]:
    """What an authorization has to decrypt with."""
    return {"pgp_private_key": gpg.private("ours", PASSPHRASE), "pgp_passphrase": PASSPHRASE}


def table(count: int, start: int = 0, name: str = "x") -> list[dict[str, str]]:
    return [{"id": str(n), "name": f'{name} "{n}"\n,;{n % 7}'} for n in range(start, start + count)]


def as_csv(rows: list[dict[str, str]], delimiter: str = ",", *, header: bool = True) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter, lineterminator="\n")
    if header:
        writer.writerow(("id", "name"))
    writer.writerows((row["id"], row["name"]) for row in rows)
    return sink.getvalue().encode()


def packed(form: str, content: bytes, gpg: Gpg | None = None) -> bytes:
    """Packs by `none`, `gzip` or `zip`, and encrypts with gpg after `pgp+`."""
    compression = form.removeprefix("pgp+")
    packer = Packer(compression, "a.csv")  # type: ignore[arg-type]
    found = packer.feed(content) + packer.end()
    if form.startswith("pgp+"):
        assert gpg is not None
        found = gpg.encrypt(found, "ours", armour=compression == "none")
    return found


async def go(
    azurite: Any,
    box: str,
    sink: Sink,
    folder: Any,
    now_us: int = NOW,
    *,
    string: str | None = None,
    credentials: Any = None,
    options: Any = None,
    **config: Any,
) -> None:
    accepted = AzureBlobImport.model_validate({"stream": "people", "container": box} | config)
    auth = StorageCredentials.model_validate(
        {"connection_string": string or azurite.connection_string} | (credentials or {})
    )
    await run(run_of(accepted, sink, folder, now_us, auth=auth, **(options or {})))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Every range that was asked for: of which blob, from where, how much."""
    found: list[tuple[str, int, int]] = []
    read = Blobs.read

    async def noted(self: Blobs, container: str, name: str, offset: int, length: int, etag: str | None = None) -> bytes:
        assert etag, "a range is asked for of one state of the blob alone"
        found.append((name, offset, length))
        return await read(self, container, name, offset, length, etag)

    monkeypatch.setattr(Blobs, "read", noted)
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges so small that there are many of them."""
    monkeypatch.setattr(shelf, "FIRST_BYTES", 1000)
    monkeypatch.setattr(shelf, "RANGE_BYTES", 10_000)
    monkeypatch.setattr(shelf, "PIECE_BYTES", 3000)


# --- rows


@pytest.mark.parametrize("form", ["none", "gzip", "zip", "pgp+none", "pgp+gzip", "pgp+zip"])
@pytest.mark.usefixtures("small")
async def test_a_blob_is_imported_whole_whatever_it_is_packed_in(azurite, box, tmp_path, gpg, keys, form):
    rows = table(3000)
    azurite.put(box, "daily/people.csv", packed(form, as_csv(rows), gpg))
    sink = Sink()

    await go(azurite, box, sink, tmp_path, credentials=keys, file="daily/people.csv")

    assert rows == sink.rows


@pytest.mark.parametrize(("form", "diff"), [("none", False), ("none", True), ("gzip", True), ("pgp+gzip", False)])
@pytest.mark.usefixtures("small")
async def test_wherever_a_blob_import_is_cut_off_no_row_comes_twice_and_none_is_left_out(
    azurite, box, tmp_path, gpg, keys, form, diff
):
    azurite.put(box, "people.csv", packed(form, as_csv(table(1200)), gpg))
    cuts = 0
    sink = Sink()
    while True:
        sink.cut_at = sink.emissions + 2  # one emission comes through each time
        try:
            await go(azurite, box, sink, tmp_path, credentials=keys, file="people.csv", diff=diff)
        except CutError:
            cuts += 1
            continue
        break

    assert cuts > 3
    assert table(1200) == sink.rows


@pytest.mark.usefixtures("small")
async def test_a_plain_blob_is_gone_on_with_by_ranges_behind_what_is_in(azurite, box, tmp_path, reads):
    content = as_csv(table(3000))
    azurite.put(box, "people.csv", content)
    sink = Sink()
    sink.cut_at = 6
    with pytest.raises(CutError):
        await go(azurite, box, sink, tmp_path, file="people.csv")
    offset = sink.checkpoint["mark"]["offset"]
    first = list(reads)
    reads.clear()
    await go(azurite, box, sink, tmp_path, file="people.csv")

    assert table(3000) == sink.rows
    assert offset > 1000
    assert max(at + length for _, at, length in first) < len(content), "it was not read ahead to its end"
    assert [("people.csv", 0, 1000), ("people.csv", offset, 10_000)] == reads[:2]


async def test_a_small_blob_costs_two_requests_and_an_empty_one_is_nothing(azurite, box, tmp_path, reads):
    azurite.put(box, "people.csv", as_csv(table(10)))
    azurite.put(box, "empty.csv", b"")
    control, sink = Control(), Sink()
    await go(azurite, box, sink, tmp_path, file="people.csv", options={"control": control})
    await go(azurite, box, Sink(), tmp_path, file="empty.csv")

    assert table(10) == sink.rows
    assert (2, 1) == (control.requests, len(reads))


async def test_options_of_the_format_of_a_blob(azurite, box, tmp_path):
    azurite.put(box, "a.csv", b"1\tAnn\r\n2\tB\xe9a\r\n")
    azurite.put(box, "b.txt", b"id|name\n1|Ann\n")
    azurite.put(box, "c.jsonl", b'{"id":1,"tags":["a"]}\n\n{"id":2}\nno\n')
    for config, rows in [
        (
            {"file": "a.csv", "delimiter": "t", "header": False, "columns": ["id", "name"], "encoding": "latin-1"},
            [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Béa"}],
        ),
        ({"file": "b.txt", "delimiter": "|xyz"}, [{"id": "1", "name": "Ann"}]),
        ({"file": "c.jsonl"}, [{"id": 1, "tags": ["a"]}, {"id": 2}]),
    ]:
        sink = Sink()
        await go(azurite, box, sink, tmp_path, **config)
        assert sink.rows == rows
    assert [1, 3] == sink.lines
    assert [4] == [each.place for each in sink.refused]


async def test_a_named_blob_comes_again_on_its_schedule_when_it_is_another_and_only_what_changed(
    azurite, box, tmp_path
):
    azurite.put(box, "a.csv", as_csv(table(300)))
    sink = Sink()
    with capture_logs() as logs:
        for _ in range(2):
            await go(azurite, box, sink, tmp_path, options={"repeats": True}, file="a.csv", diff=True)
    azurite.put(box, "a.csv", as_csv([*table(300), *table(2, 700)]))
    await go(azurite, box, sink, tmp_path, options={"repeats": True}, file="a.csv", diff=True)

    assert [*table(300), *table(2, 700)] == sink.rows
    assert 1 == len([each for each in logs if each["event"] == "file_unchanged"])


# --- files one after the other


async def test_blobs_come_in_the_order_of_their_moments_and_late_ones_are_taken_up(azurite, box, tmp_path):
    sink = Sink()
    config = {"prefix": "in/people-", "continuous": True}
    for day, start in (("2026-01-10", 20), ("2026-01-02", 10), ("20260101", 0)):
        azurite.put(box, f"in/people-{day}.csv", as_csv(table(10, start)))
    azurite.put(box, "in/other-2026-01-05.csv", as_csv(table(5, 100)))
    azurite.put(box, "people-2026-01-05.csv", as_csv(table(5, 100)))
    with pytest.raises(NotYetError, match=r"a file in/people-… in container c-\w+ of cohortd, the next after in/.*-10"):
        await go(azurite, box, sink, tmp_path, **config)
    first = list(sink.rows)
    azurite.put(box, "in/people-2026-01-11.csv.gz", gzip.compress(as_csv(table(10, 30))))
    azurite.put(box, "in/people-2026-01-05.csv", as_csv(table(10, 40)))
    with capture_logs() as logs, pytest.raises(NotYetError):
        await go(azurite, box, sink, tmp_path, **config)

    assert table(30) == first
    assert table(30) + table(10, 40) + table(10, 30) == sink.rows
    assert ["file_late"] == [each["event"] for each in logs if each["log_level"] == "warning"]


async def test_a_blob_that_does_not_come_is_said_once_loudly_and_kills_nothing(azurite, box, tmp_path):
    sink = Sink()
    config = {"file": "2026-01-01.csv", "continuous": True, "warn_after_hours": 2}
    azurite.put(box, "2026-01-01.csv", as_csv(table(1)))
    with pytest.raises(NotYetError):
        await go(azurite, box, sink, tmp_path, **config)
    with capture_logs() as logs:
        for hours in (1, 3, 4):
            with pytest.raises(NotYetError) as told:
                await go(azurite, box, sink, tmp_path, NOW + hours * HOUR_US, **config)
    azurite.put(box, "2026-01-02.csv", as_csv(table(1, 1)))
    with pytest.raises(NotYetError, match=r"the next after 2026-01-02\.csv"):
        await go(azurite, box, sink, tmp_path, NOW + 5 * HOUR_US, **config)

    assert [3.0] == [each["hours"] for each in logs if each["event"] == "file_overdue"]
    assert str(told.value).endswith("for 4 h now")
    assert 30 == told.value.again_s
    assert table(2) == sink.rows


async def test_a_prefix_may_be_a_regular_expression_and_a_first_file_may_be_named(azurite, box, tmp_path):
    for day in (1, 2, 3):
        azurite.put(box, f"2026/0{day}/p{day}_2026010{day}.csv", as_csv(table(2, day * 10)))
    sink = Sink()

    await go(azurite, box, sink, tmp_path, prefix=r"\d+/\d+/p\d_", regex=True, file="2026/02/p2_20260102.csv")

    assert ["20", "21", "30", "31"] == [row["id"] for row in sink.rows]


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.scale)])
@pytest.mark.timeout(1200)
async def test_the_next_files_are_taken_in_order_among_many_others(tmp_path, monkeypatch, count):
    monkeypatch.setattr("connectors.azure.blobs.PAGE_BLOBS", max(count // 20, 500))
    monkeypatch.setattr("connectors.sdk.files.imports.FOUND_AT_ONCE", 10)
    days = [f"2026-01-{day:02d}" for day in range(1, 29)]
    others = [f"in/p{n % 7}-20260101.{n:06d}.csv" for n in range(count)]
    peer = Azurite(tmp_path / "azurite")
    try:
        peer.start()
        peer.create("many")
        peer.put("many", "x", b"id\n1\n")
        peer.stop()
        peer.multiply("many", "x", [*others, *(f"late/orders-{day}.csv" for day in days)])
        peer.start()
        with capture_logs() as logs:
            await go(peer, "many", Sink(), tmp_path, prefix=r"la\w+/orders-", regex=True)
    finally:
        peer.stop()

    assert [f"late/orders-{day}.csv" for day in days] == [
        each["file"] for each in logs if each["event"] == "file_imported"
    ]


async def test_a_blob_that_is_still_appended_to_is_left_until_it_is_settled(azurite, box, tmp_path):
    azurite.put(box, "a.csv", as_csv(table(1)))
    written_us = int(azurite_time(azurite, box, "a.csv") * 1e6)
    sink = Sink()
    with pytest.raises(NotYetError, match="still being written"):
        await go(azurite, box, sink, tmp_path, written_us + 1_000_000, file="a.csv", settle_seconds=5)
    await go(azurite, box, sink, tmp_path, written_us + 6_000_000, file="a.csv", settle_seconds=5)

    assert table(1) == sink.rows


def azurite_time(azurite: Any, box: str, name: str) -> float:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    answer = azurite.ask("GET", f"/{box}", {"restype": "container", "comp": "list"}).decode()
    found = re.search(rf"<Name>{re.escape(name)}</Name>.*?<Last-Modified>([^<]+)<", answer)
    assert found is not None
    return parsedate_to_datetime(found[1]).timestamp()


# --- blobs that change meanwhile


@pytest.mark.parametrize("form", ["none", "gzip"])
@pytest.mark.usefixtures("small")
async def test_a_blob_replaced_in_the_middle_is_noticed_by_its_etag_and_begun_anew(azurite, box, tmp_path, form):
    azurite.put(box, "a.csv", packed(form, as_csv(table(4000))))
    sink = Sink()

    def replace() -> None:
        if sink.emissions == 3:
            azurite.put(box, "a.csv", packed(form, as_csv(table(700, name="y"))))

    sink.before_emit = replace
    with capture_logs() as logs:
        await go(azurite, box, sink, tmp_path, file="a.csv")

    said = next(each for each in logs if each["event"] == "file_replaced")
    assert 0 < said["rows"] < 4000
    assert table(said["rows"]) == sink.rows[: said["rows"]]
    assert table(700, name="y") == sink.rows[said["rows"] :]


@pytest.mark.usefixtures("small")
async def test_a_blob_that_only_grew_or_was_put_again_is_read_on(azurite, box, tmp_path):
    azurite.put(box, "a.csv", as_csv(table(2000)))
    sink = Sink()

    def again() -> None:
        if sink.emissions == 2:
            azurite.put(box, "a.csv", as_csv(table(2000)))
        if sink.emissions == 22:
            azurite.put(box, "a.csv", as_csv(table(3000)))

    sink.before_emit = again
    with capture_logs() as logs:
        await go(azurite, box, sink, tmp_path, file="a.csv")

    assert table(3000) == sink.rows
    assert ["file_touched", "file_touched"] == [each["event"] for each in logs if each["event"].startswith("file_t")]
    assert [] == [each for each in logs if each["event"] == "file_replaced"]


@pytest.mark.usefixtures("small")
async def test_a_blob_that_changes_faster_than_it_is_read_is_tried_again_later(azurite, box, tmp_path, monkeypatch):
    azurite.put(box, "a.csv", as_csv(table(2000)))
    sink = Sink()
    read = Blobs.read

    async def touched(self: Blobs, container: str, name: str, offset: int, *rest: Any) -> bytes:
        if offset:
            azurite.put(box, "a.csv", as_csv(table(2000)))
        return await read(self, container, name, offset, *rest)

    monkeypatch.setattr(Blobs, "read", touched)
    with pytest.raises(TransientError, match="faster than it can be read"):
        await go(azurite, box, sink, tmp_path, file="a.csv")
    monkeypatch.undo()
    await go(azurite, box, sink, tmp_path, file="a.csv")

    assert table(2000) == sink.rows


@pytest.mark.usefixtures("small")
async def test_a_blob_deleted_in_the_middle_is_waited_for_and_gone_on_with(azurite, box, tmp_path):
    azurite.put(box, "a.csv", as_csv(table(4000)))
    sink = Sink()
    sink.before_emit = lambda: azurite.delete(box, "a.csv") if sink.emissions == 3 else None
    with pytest.raises(NotYetError, match=r"a\.csv in container c-\w+ of cohortd, of which \d+ rows are in"):
        await go(azurite, box, sink, tmp_path, file="a.csv")
    azurite.put(box, "a.csv", as_csv(table(4000)))
    await go(azurite, box, sink, tmp_path, file="a.csv")

    assert table(4000) == sink.rows


@pytest.mark.usefixtures("small")
async def test_a_container_deleted_in_the_middle_says_which_there_are(azurite, box, tmp_path):
    azurite.put(box, "a.csv", as_csv(table(4000)))
    sink = Sink()
    sink.before_emit = lambda: azurite.delete_container(box) if sink.emissions == 3 else None

    with pytest.raises(ConfigError, match=f"there is no container '{box}' in cohortd; there"):
        await go(azurite, box, sink, tmp_path, file="a.csv")


# --- what lets in, and what breaks


async def test_a_wrong_key_is_the_authorizations_fault_and_no_secret_is_told(azurite, box, tmp_path):
    azurite.put(box, "a.csv", as_csv(table(3)))
    wrong = "aHVzaCwgdGhpcyBpcyBhbm90aGVyIGtleQ=="

    string = azurite.let_in(azurite.address, wrong)
    with pytest.raises(AuthError) as told:
        await go(azurite, box, Sink(), tmp_path, int(time.time() * 1e6), string=string, file="a.csv")

    assert "AccountKey is refused" in str(told.value)
    assert wrong not in repr(told.value)


@pytest.mark.usefixtures("small")
async def test_resets_errors_and_latency_are_got_over_within_the_run(azurite, box, tmp_path):
    azurite.put(box, "a.csv", as_csv(table(4000)))
    sink = Sink()
    async with chaos(azurite.port) as proxy:
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/cohortd")
        proxy.delay_s = 0.005
        proxy.cut_back_after = 25_000
        proxy.answer(500, 2, matching="^GET", skip=2)
        proxy.answer(503, 1, matching="^GET", skip=4)

        await go(azurite, box, sink, tmp_path, string=string, file="a.csv", options={"patience": Patience(0.01, 5)})

    assert table(4000) == sink.rows
    assert proxy.struck.is_set()


@pytest.mark.usefixtures("small")
async def test_throttling_is_respected_and_the_import_goes_on_where_it_was(azurite, box, tmp_path):
    azurite.put(box, "a.csv", as_csv(table(4000)))
    sink = Sink()
    async with chaos(azurite.port) as proxy:
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/cohortd")
        busy = "x-ms-error-code: ServerBusy\r\nRetry-After: 7\r\n"
        proxy.answer(503, 1, matching="^GET", skip=5, headers=busy)
        with pytest.raises(TransientError) as told:
            await go(azurite, box, sink, tmp_path, string=string, file="a.csv")
        done = len(sink.rows)
        await go(azurite, box, sink, tmp_path, string=string, file="a.csv")

    assert 7 == told.value.retry_after
    assert 0 < done < 4000
    assert table(4000) == sink.rows


@pytest.mark.usefixtures("small")
async def test_while_the_store_says_nothing_the_run_ends_at_once_when_it_is_asked_to(azurite, box, tmp_path):
    azurite.put(box, "a.csv", as_csv(table(4000)))
    sink = Sink()
    async with chaos(azurite.port) as proxy:
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/cohortd")

        def silence() -> None:
            if sink.emissions == 3:
                proxy.silent = True
                silenced.set()

        silenced = asyncio.Event()
        sink.before_emit = silence
        running = asyncio.ensure_future(go(azurite, box, sink, tmp_path, string=string, file="a.csv"))
        await silenced.wait()
        while not [each for each in asyncio.all_tasks() if "_fetch" in repr(each)]:
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=2)

    assert done
    assert running.cancelled()
    assert [] == [each for each in asyncio.all_tasks() if "_fetch" in repr(each)]


async def test_a_store_that_says_nothing_is_given_up_after_the_deadline(azurite, box, tmp_path):
    async with chaos(azurite.port) as proxy:
        string = azurite.let_in(f"http://127.0.0.1:{proxy.port}/cohortd")
        proxy.silent = True

        options = {"network": Network(0.2), "patience": Patience(total_s=0)}

        with pytest.raises(TransientError, match=r"did not answer within 0\.2 s"):
            await go(azurite, box, Sink(), tmp_path, string=string, file="a.csv", options=options)


# --- PGP


async def test_what_cannot_be_decrypted_says_why_and_none_of_its_rows_is_imported(azurite, box, tmp_path, gpg, keys):
    content = as_csv(table(3000))
    message = packed("pgp+gzip", content, gpg)
    azurite.put(box, "a.csv.pgp", message)
    azurite.put(box, "theirs.csv.pgp", gpg.encrypt(content, "theirs"))
    azurite.put(box, "damaged.csv.pgp", message[:-200] + bytes(100) + message[-100:])
    azurite.put(box, "short.csv.pgp", message[: len(message) // 2])
    sink = Sink()
    found = []
    for name, credentials, error, words in [
        ("a.csv.pgp", {}, ConfigError, "put the private key into the authorization"),
        ("a.csv.pgp", keys | {"pgp_passphrase": "another"}, AuthError, "passphrase does not open"),
        ("theirs.csv.pgp", keys, ConfigError, "theirs.csv.pgp: the message is encrypted for"),
        ("damaged.csv.pgp", keys, ConfigError, "damaged"),
        ("short.csv.pgp", keys, ConfigError, "not complete"),
    ]:
        with pytest.raises(error, match=words) as told:
            await go(azurite, box, sink, tmp_path, credentials=credentials, file=name)
        found.append(repr(told.value))

    assert [] == sink.rows
    assert not [each for each in found if PASSPHRASE in each or "BEGIN PGP" in each]
    assert [] == list((tmp_path / "spool").iterdir())


async def test_a_blob_that_is_not_encrypted_is_taken_as_it_is_though_there_is_a_key(azurite, box, tmp_path, keys):
    azurite.put(box, "a.csv", as_csv(table(3)))
    sink = Sink()

    await go(azurite, box, sink, tmp_path, credentials=keys, file="a.csv")

    assert table(3) == sink.rows


def test_encrypted_messages_are_known_by_their_first_bytes(gpg):
    content = b"id,name\n"
    symmetric = gpg("--symmetric", given=content, passphrase="x")

    assert all(map(is_encrypted, (gpg.encrypt(content, "ours"), gpg.encrypt(content, "ours", armour=True), symmetric)))
    for text in ("Á,é\n1,2\n", "„a“;b\n", "…,b\n", "id,name\n1,2\n", '{"a":1}\n'):
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"):
            assert not is_encrypted(text.encode(encoding, "replace"))
    assert not is_encrypted(gzip.compress(content))


# --- choices and the form


def choosing(azurite: Any, folder: Any, search: str = "", credentials: Any = None, **config: Any) -> Choosing:
    auth = StorageCredentials.model_validate({"connection_string": azurite.connection_string} | (credentials or {}))
    folders = {"spool": folder / "spool"}
    return Choosing(auth, config, search, 10, Network(10), structlog.get_logger(), folders, lambda: NOW)


async def test_columns_and_prefixes_are_worked_out_from_the_chosen_file(azurite, box, tmp_path, gpg, keys):
    azurite.put(box, "2026/01/a-20260101.csv", b"id;name\n1;2\n")
    azurite.put(box, "b.ndjson.gz", gzip.compress(b'{"x":1}\n'))
    azurite.put(box, "c.csv.pgp", gpg.encrypt(b"id,secret\n1,2\n", "ours"))

    async def columns(**form: Any) -> list[str]:
        found = await find_columns(choosing(azurite, tmp_path, credentials=keys, container=box, **form))
        return [each.value for each in found]

    async def prefixes(file: str, search: str = "") -> list[str]:
        return [each.value for each in await find_prefixes(choosing(azurite, tmp_path, search, file=file))]

    assert ["id", "name"] == await columns(file="2026/01/a-20260101.csv", delimiter=";")
    assert ["id;name"] == await columns(prefix="2026/01/a-")
    assert ["x"] == await columns(file="b.ndjson.gz")
    assert ["id", "secret"] == await columns(file="c.csv.pgp")
    assert [] == await columns(prefix="none-")
    assert ["2026/01/a-", r"\d+/\d+/a\-"] == await prefixes("2026/01/a-20260101.csv")
    assert ["orders_"] == await prefixes("orders_2026-01-31T10-00.csv.gz.pgp")
    assert [""] == await prefixes("2026-01-31.csv")
    assert [] == await prefixes("people.csv")
    assert [] == await prefixes("a-20260101.csv", search="b")
    with pytest.raises(ConfigError, match="choose it first"):
        await find_columns(choosing(azurite, tmp_path, file="a.csv"))
    with pytest.raises(ConfigError, match=r"none\.csv"):
        await columns(file="none.csv")


async def test_a_prefix_that_is_offered_fits_the_file_it_is_worked_out_from(azurite, box, tmp_path):
    name = "in (1)/2026/01/31/a+b-20260131.csv"
    azurite.put(box, name, as_csv(table(1)))
    for at, choice in enumerate(await find_prefixes(choosing(azurite, tmp_path, file=name))):
        sink = Sink()
        await go(azurite, box, sink, tmp_path, prefix=choice.value, regex=at == 1)
        assert table(1) == sink.rows


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"file": "a.csv", "container": ""},
        {"file": "a.csv", "continuous": True},
        {"file": "a.csv", "header": False},
        {"file": "a.csv", "encoding": "rot13"},
        {"file": "a.csv", "delimiter": '"'},
        {"prefix": "(", "regex": True},
    ],
)
def test_configurations_of_a_blob_import_that_cannot_work_are_refused(config):
    with pytest.raises(ValidationError):
        AzureBlobImport.model_validate({"stream": "a", "container": "c"} | config)


# --- in a daemon


async def create(client: Any, string: str, box: str, credentials: Any = None, **config: Any) -> str:
    """Makes an authorization and a job of it."""
    fields = {"connection_string": string} | (credentials or {})
    auth = (await client.post("/v2/auth/azure/azure_storage", {"label": "a", "config": fields}, ok=True)).data["id"]
    accepted = {"stream": "people", "container": box} | config
    body = {"label": "import", "auth_id": auth, "config": accepted}
    return str((await client.post("/v2/job/azure_blob_import", body, ok=True)).data["id"])


async def until(client: Any, job: str, holds: Any) -> dict[str, Any]:
    """Waits until the job is as wanted; gives it."""
    try:
        async with asyncio.timeout(60):
            while not holds(found := (await client.get(f"/v2/job/{job}", ok=True)).data):
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"waited in vain: {found}")
    return dict(found)


def logged(folder: Any) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder / "events.db")) as db:
        return [json.loads(body) for (body,) in db.execute("SELECT body FROM event_bulk ORDER BY position")]


@pytest.mark.parametrize("form", ["none", "pgp+gzip"])
async def test_a_blob_import_killed_again_and_again_brings_each_row_once(
    azurite, box, tmp_path, start_cohortd, gpg, keys, form
):
    expected = table(20_000)
    azurite.put(box, "people.csv", packed(form, as_csv(expected), gpg))
    kills = 0
    async with start_cohortd(tmp_path) as cohortd:
        job = await create(cohortd.client, azurite.connection_string, box, keys, file="people.csv", diff=True)
        while kills < 3:
            before = len(logged(tmp_path))
            async with asyncio.timeout(60):
                while len(logged(tmp_path)) == before:
                    await asyncio.sleep(0.005)
            if (await cohortd.client.get(f"/v2/job/{job}")).data["state"] == "completed":
                break
            await cohortd.kill()
            kills += 1
            await cohortd.start()
        await until(cohortd.client, job, lambda it: it["state"] == "completed")
        await cohortd.kill()

    assert kills >= 2
    assert expected == logged(tmp_path)
    assert [] == list((tmp_path / "spool").glob("*"))


async def test_a_store_that_is_stopped_ended_and_begun_again_hinders_nobody_for_long(tmp_path, start_cohortd):
    """Pausing and ending while the store says nothing; going on when it is there again."""
    rows = [{"id": str(n), "name": "x" * 500} for n in range(20_000)]  # of several ranges
    data = tmp_path / "data"
    settings = {"REQUEST_TIMEOUT_S": "2", "RETRY_S": "0.2", "BACK_OFF_S": "0.2", "BACK_OFF_LONGEST_S": "1"}
    environment = {f"COHORTD_JOBS_{name}": value for name, value in settings.items()}
    with azurite_running(tmp_path / "azurite") as peer:
        box = peer.create("box")
        peer.put(box, "people.csv", as_csv(rows))
        async with start_cohortd(data, environment=environment) as cohortd:
            job = await create(cohortd.client, peer.connection_string, box, file="people.csv")
            async with asyncio.timeout(60):
                while not logged(data):
                    await asyncio.sleep(0.005)
            peer.freeze()
            began = time.monotonic()
            await cohortd.client.post(f"/v2/job/{job}/pause", ok=True)
            await until(cohortd.client, job, lambda it: it["state"] == "paused")
            paused_s = time.monotonic() - began
            await cohortd.client.post(f"/v2/job/{job}/resume", ok=True)
            told = await until(cohortd.client, job, lambda it: it["errors"])
            began = time.monotonic()
            status = await cohortd.stop()
            stopped_s = time.monotonic() - began
            peer.stop()
            await cohortd.start()
            refused = await until(cohortd.client, job, lambda it: "cannot be reached" in it["reason"])
            peer.start()
            await until(cohortd.client, job, lambda it: it["state"] == "completed")
            await cohortd.stop()

    assert (0, True, True) == (status, paused_s < 5, stopped_s < 10)
    assert "did not answer within 2 s" in told["reason"]
    assert refused["errors"] >= 1
    assert rows == logged(data)


async def test_credentials_that_go_wrong_in_mid_life_stop_the_import_until_they_are_right_again(
    azurite, box, tmp_path, open_daemon
):
    secret = tmp_path / "connection"
    secret.write_text(azurite.connection_string)
    azurite.put(box, "p-20260101.csv", as_csv(table(3)))
    jobs = {"back_off_s": 0.2}
    async with open_daemon(tmp_path / "d", jobs=jobs) as opened:
        config = {"prefix": "p-", "continuous": True, "poll_seconds": 1}
        job = await create(opened, f"file:{secret}", box, **config)
        waiting = await until(opened, job, lambda it: "the next after p-20260101.csv" in it["reason"])
        secret.write_text(azurite.let_in(azurite.address, "aHVzaCwgYW5vdGhlciBrZXk="))
        azurite.put(box, "p-20260102.csv", as_csv(table(3, 3)))
        refused = await until(opened, job, lambda it: "refused" in it["reason"])
        auth = (await opened.get("/v2/auth", ok=True)).data[0]
        secret.write_text(azurite.connection_string)
        await until(opened, job, lambda it: "the next after p-20260102.csv" in it["reason"])
        healed = (await opened.get("/v2/auth", ok=True)).data[0]

    assert ("sleeping", "sleeping", "unhealthy", "healthy") == (
        waiting["state"],
        refused["state"],
        auth["status"],
        healed["status"],
    )
    assert table(6) == logged(tmp_path / "d")


async def test_a_container_deleted_in_mid_life_fails_the_job_and_resuming_goes_on(azurite, box, tmp_path, open_daemon):
    azurite.put(box, "p-20260101.csv", as_csv(table(3)))
    async with open_daemon(tmp_path) as opened:
        config = {"prefix": "p-", "continuous": True, "poll_seconds": 1}
        job = await create(opened, azurite.connection_string, box, **config)
        await until(opened, job, lambda it: it["state"] == "sleeping")
        azurite.delete_container(box)
        failed = await until(opened, job, lambda it: it["state"] == "failed")
        azurite.create(box)
        azurite.put(box, "p-20260102.csv", as_csv(table(3, 3)))
        await opened.post(f"/v2/job/{job}/resume", ok=True)
        await until(opened, job, lambda it: "p-20260102.csv" in it["reason"])

    assert f"there is no container '{box}' in cohortd" in failed["reason"]
    assert table(6) == logged(tmp_path)


async def test_fields_a_timestamp_and_a_schedule_are_taken_as_they_are_for_every_import(
    azurite, box, tmp_path, open_daemon
):
    azurite.put(box, "p.csv", b"email;at;x\nann@b.c;2026-01-02;1\nbob@b.c;soon;2\n")
    async with open_daemon(tmp_path) as opened:
        auth = {"connection_string": azurite.connection_string}
        made = (await opened.post("/v2/auth/azure/azure_storage", {"config": auth}, ok=True)).data["id"]
        config = {"stream": "people", "container": box, "file": "p.csv", "delimiter": ";;"}
        config |= {"fields": ["email"], "timestamp_field": "at"}
        schedule = {"frequency": "daily", "time_of_day": "06:00", "time_zone": "Europe/Berlin"}
        body = {"label": "x", "auth_id": made, "config": config, "schedule": schedule}
        job = (await opened.post("/v2/job/azure_blob_import", body, ok=True)).data["id"]
        slept = await until(opened, job, lambda it: it["state"] == "sleeping")
        rejects = (await opened.get("/v2/stream/people/rejects", ok=True)).data
        shown = {}
        for name, form in [("containers", {}), ("files", {"container": box}), ("columns", config)]:
            asked = {"job_type": "azure_blob_import", "auth_id": made, "config": form, "limit": 1000}
            shown[name] = (await opened.post(f"/v2/provider/azure/{name}", asked, ok=True)).data
        prefixes = {"job_type": "azure_blob_import", "auth_id": made, "config": {"file": "p-20260101.csv"}}
        offered = (await opened.post("/v2/provider/azure/prefixes", prefixes, ok=True)).data
        glance = (
            await opened.post("/v2/job/azure_blob_import/dryrun", {"auth_id": made, "config": config}, ok=True)
        ).data

    assert [{"email": "ann@b.c"}] == logged(tmp_path)
    assert "soon" in rejects[0]["message"]
    assert slept["schedule"] == schedule or slept["schedule"]["time_of_day"] == "06:00"
    assert box in [each["value"] for each in shown["containers"]]
    assert ["p.csv"] == [each["value"] for each in shown["files"]]
    assert ["email", "at", "x"] == [each["value"] for each in shown["columns"]]
    assert ["p-"] == [each["value"] for each in offered]
    assert 2 == len(glance["rows"])
