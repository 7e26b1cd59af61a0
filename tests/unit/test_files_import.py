"""`files_import` alone, over a sink that may break off at any moment as kill -9 does."""

from __future__ import annotations

import csv
import gzip
import io
import os
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from import_sink import NOW, CutError, Sink, run_of
from pydantic import ValidationError
from structlog.testing import capture_logs

from connectors.files import imports, shelf
from connectors.files.choices import find_columns, find_files, find_folders
from connectors.files.imports import FilesImport
from connectors.sdk.declare import Choosing
from connectors.sdk.errors import ConfigError, NotYetError, TransientError
from connectors.sdk.formats.compression import Packer
from connectors.sdk.formats.names import check_format, moment_of, moment_text, prefix_of, reader
from connectors.sdk.run import Network


async def go(folder, sink, now_us=NOW, *, repeats=False, **config):
    accepted = FilesImport(stream="people", folder=str(folder), **config)
    await imports.run(run_of(accepted, sink, folder, now_us, repeats=repeats))


def table(count, start=0, name="x"):
    return [{"id": str(n), "name": f'{name} "{n}"\n,;{n % 7}'} for n in range(start, start + count)]


def as_csv(rows, delimiter=",", *, header=True):
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter, lineterminator="\n")
    if header:
        writer.writerow(("id", "name"))
    writer.writerows((row["id"], row["name"]) for row in rows)
    return sink.getvalue().encode()


def packed(compression, content):
    packer = Packer(compression, "a.csv")
    return packer.feed(content) + packer.end()


def put(path, content, age_s=100.0):
    path.write_bytes(content)
    at = NOW / 1e6 - age_s
    os.utime(path, (at, at))


@pytest.mark.parametrize("compression", ["none", "gzip", "zip"])
async def test_a_file_is_imported_whole_whatever_it_is_packed_in(tmp_path, compression):
    put(tmp_path / "people.csv", packed(compression, as_csv(table(1000))))
    sink = Sink()

    await go(tmp_path, sink, file="people.csv")

    assert sink.rows == table(1000)


@pytest.mark.parametrize("compression", ["none", "gzip", "zip"])
@pytest.mark.parametrize("diff", [False, True])
async def test_wherever_it_is_cut_off_no_row_comes_twice_and_none_is_left_out(tmp_path, compression, diff):
    put(tmp_path / "people.csv", packed(compression, as_csv(table(2000))))
    cuts = 0
    sink = Sink()
    while True:
        sink.cut_at = sink.emissions + 2  # one emission comes through each time
        try:
            await go(tmp_path, sink, file="people.csv", diff=diff)
        except CutError:
            cuts += 1
            continue
        break

    assert cuts > 5
    assert sink.rows == table(2000)


async def test_options_of_the_format(tmp_path):
    put(tmp_path / "a.csv", b"1\tAnn\r\n2\tB\xe9a\r\n")
    put(tmp_path / "b.txt", b"id|name\n1|Ann\n")
    put(tmp_path / "c.jsonl", b'{"id":1,"tags":["a"]}\n\n{"id":2}\nno\n')
    for config, rows in [
        (
            {"file": "a.csv", "delimiter": "t", "header": False, "columns": ["id", "name"], "encoding": "latin-1"},
            [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Béa"}],
        ),
        ({"file": "b.txt", "delimiter": "|xyz"}, [{"id": "1", "name": "Ann"}]),
        ({"file": "c.jsonl"}, [{"id": 1, "tags": ["a"]}, {"id": 2}]),
    ]:
        sink = Sink()
        await go(tmp_path, sink, **config)
        assert sink.rows == rows
    assert sink.lines == [1, 3]
    assert [each.place for each in sink.refused] == [4]


async def test_files_come_in_the_order_of_their_moments_and_the_next_is_waited_for(tmp_path):
    sink = Sink()
    config = {"prefix": "people-", "continuous": True}
    for day, start in (("2026-01-10", 20), ("2026-01-02", 10), ("20260101", 0)):
        put(tmp_path / f"people-{day}.csv", as_csv(table(10, start)))
    put(tmp_path / "other-2026-01-05.csv", as_csv(table(5, 100)))
    put(tmp_path / "people-soon.csv", as_csv(table(5, 100)))

    with pytest.raises(NotYetError, match=r"waits for a file people-… in .*, the next after people-2026-01-10\.csv"):
        await go(tmp_path, sink, **config)
    first = list(sink.rows)
    put(tmp_path / "people-2026-01-11.csv.gz", gzip.compress(as_csv(table(10, 30))))
    put(tmp_path / "people-2026-01-05.csv", as_csv(table(10, 40)))
    with capture_logs() as logs, pytest.raises(NotYetError):
        await go(tmp_path, sink, **config)

    assert first == table(30)
    assert sink.rows == table(30) + table(10, 40) + table(10, 30)
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["file_late"]


async def test_however_many_files_there_are_a_few_are_known_at_a_time_and_late_ones_take_their_place(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("connectors.sdk.files.imports.FOUND_AT_ONCE", 3)
    monkeypatch.setattr(shelf, "PAGE", 2)
    for day in range(1, 11):
        put(tmp_path / f"a-2026-01-{day * 2:02d}.csv", as_csv(table(1, day * 2)))
    sink = Sink()

    def late():
        if len(sink.rows) == 4:
            put(tmp_path / "a-2026-01-13.csv", as_csv(table(1, 13)))

    sink.before_emit = late
    with capture_logs() as logs:
        await go(tmp_path, sink, prefix="a-")

    assert [int(row["id"]) for row in sink.rows] == [2, 4, 6, 8, 10, 12, 13, 14, 16, 18, 20]
    assert [each for each in logs if each["log_level"] == "warning"] == []


async def test_a_file_that_does_not_come_is_said_once_loudly_and_kills_nothing(tmp_path):
    sink = Sink()
    config = {"prefix": "a-", "continuous": True, "warn_after_hours": 2}
    put(tmp_path / "a-2026-01-01.csv", as_csv(table(1)))
    with pytest.raises(NotYetError):
        await go(tmp_path, sink, **config)
    with capture_logs() as logs:
        for hours in (1, 3, 4):
            with pytest.raises(NotYetError) as told:
                await go(tmp_path, sink, NOW + hours * 3_600_000_000, **config)

    assert [each["hours"] for each in logs if each["event"] == "file_overdue"] == [3.0]
    assert str(told.value).endswith("for 4 h now")
    assert told.value.again_s == 30


async def test_a_scheduled_import_whose_next_file_is_late_waits_for_it_and_then_for_its_schedule(tmp_path):
    sink = Sink()
    put(tmp_path / "a-2026-01-01.csv", as_csv(table(1)))
    await go(tmp_path, sink, repeats=True, prefix="a-")
    with pytest.raises(NotYetError, match=r"the next after a-2026-01-01\.csv"):
        await go(tmp_path, sink, repeats=True, prefix="a-")
    put(tmp_path / "a-2026-01-02.csv", as_csv(table(1, 1)))
    await go(tmp_path, sink, repeats=True, prefix="a-")

    assert sink.rows == table(2)


async def test_once_means_all_files_that_are_there_and_a_first_one_may_be_named(tmp_path):
    for day in (1, 2, 3):
        put(tmp_path / f"p{day}_2026010{day}.csv", as_csv(table(2, day * 10)))
    sink = Sink()

    await go(tmp_path, sink, prefix=r"p\d_", regex=True, file="p2_20260102.csv")

    assert [row["id"] for row in sink.rows] == ["20", "21", "30", "31"]


async def test_a_file_still_being_written_is_left_for_later(tmp_path):
    put(tmp_path / "a.csv", as_csv(table(1)), age_s=0.5)
    sink = Sink()

    with pytest.raises(NotYetError, match="still being written"):
        await go(tmp_path, sink, file="a.csv")
    await go(tmp_path, sink, NOW + 2_000_000, file="a.csv")

    assert sink.rows == table(1)


async def test_a_named_file_comes_again_on_its_schedule_when_it_is_another(tmp_path):
    put(tmp_path / "a.csv", as_csv(table(3)), age_s=300)
    sink = Sink()
    for _ in range(2):
        await go(tmp_path, sink, repeats=True, file="a.csv", diff=True)
    put(tmp_path / "a.csv", as_csv([*table(3), *table(1, 7)]), age_s=200)
    await go(tmp_path, sink, repeats=True, file="a.csv", diff=True)

    assert sink.rows == table(3) + table(1, 7)


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_file_replaced_in_the_middle_is_noticed_and_begun_anew(tmp_path, compression, monkeypatch):
    monkeypatch.setattr(shelf, "CHUNK_BYTES", 500)
    put(tmp_path / "a.csv", packed(compression, as_csv(table(2000))))
    sink = Sink()

    def replace():
        if sink.emissions == 3:
            (tmp_path / "new").write_bytes(packed(compression, as_csv(table(700, name="y"))))
            (tmp_path / "new").rename(tmp_path / "a.csv")

    sink.before_emit = replace
    with capture_logs() as logs:
        await go(tmp_path, sink, file="a.csv")

    said = next(each for each in logs if each["event"] == "file_replaced")
    assert sink.rows[: said["rows"]] == table(said["rows"])
    assert sink.rows[said["rows"] :] == table(700, name="y")


async def test_a_file_that_grows_is_read_on(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "CHUNK_BYTES", 500)
    put(tmp_path / "a.csv", as_csv(table(500)))
    sink = Sink()

    def grow():
        if sink.emissions == 2:
            with (tmp_path / "a.csv").open("ab") as file:
                file.write(as_csv(table(300, 500), header=False))

    sink.before_emit = grow
    with capture_logs() as logs:
        await go(tmp_path, sink, file="a.csv")

    assert sink.rows == table(800)
    assert not [each for each in logs if each["event"] == "file_replaced"]


async def test_the_same_bytes_put_there_again_between_two_runs_are_the_same_file(tmp_path):
    sink = Sink()
    put(tmp_path / "a.csv", as_csv(table(2000)))
    sink.cut_at = 4
    with pytest.raises(CutError):
        await go(tmp_path, sink, file="a.csv")
    done = len(sink.rows)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(NotYetError, match=f"of which {done} rows are in"):
        await go(tmp_path, sink, file="a.csv")
    put(tmp_path / "a.csv", as_csv(table(2000)), age_s=50)
    await go(tmp_path, sink, file="a.csv")

    assert sink.rows == table(2000)


@pytest.mark.parametrize(
    ("content", "config", "words"),
    [
        (b"id,id\n1,2\n", {}, "a.csv: column names that stand more than once: id"),
        (b"id,name\n1,2\n", {"fields": ["nam"]}, "no such columns; the columns are id, name"),
        (b"id,name\n1,2\n", {"timestamp_field": "at"}, "timestamp_field 'at' is not a column"),
        (b"\x1f\x8bxx\n", {}, "a.csv: not gzip"),
    ],
)
async def test_a_file_that_cannot_be_imported_as_configured_says_why(tmp_path, content, config, words):
    put(tmp_path / "a.csv", content)

    with pytest.raises(ConfigError, match=words):
        await go(tmp_path, Sink(), file="a.csv", **config)


async def test_a_packed_file_that_is_not_complete_is_tried_again(tmp_path):
    content = gzip.compress(as_csv(table(2000)))
    put(tmp_path / "a.csv", content[:-500])
    sink = Sink()
    with pytest.raises(TransientError, match="not complete"):
        await go(tmp_path, sink, file="a.csv")
    put(tmp_path / "a.csv", content, age_s=50)
    await go(tmp_path, sink, file="a.csv")

    assert sink.rows == table(2000)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"file": "../a.csv"},
        {"file": "a.csv", "folder": "../up"},
        {"file": "a.csv", "continuous": True},
        {"file": "a.csv", "header": False},
        {"file": "a.csv", "columns": ["a"]},
        {"file": "a.csv", "encoding": "rot13"},
        {"file": "a.csv", "delimiter": '"'},
        {"prefix": "(", "regex": True},
        {"file": "a.csv", "regex": True},
    ],
)
def test_configurations_that_cannot_work_are_refused(config):
    with pytest.raises(ValidationError):
        FilesImport(**({"stream": "a", "folder": "f"} | config))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("20260131", "2026-01-31T00:00:00"),
        ("2026-01-31", "2026-01-31T00:00:00"),
        ("202601311305", "2026-01-31T13:05:00"),
        ("20260131130559", "2026-01-31T13:05:59"),
        ("2026-01-31T13-05-59Z", "2026-01-31T13:05:59"),
        ("2026-01-31_13:05:59+02:00", "2026-01-31T11:05:59"),
        ("20260131T130559.25", "2026-01-31T13:05:59.250000"),
        ("1769864759", "2026-01-31T13:05:59"),
        ("1769864759123", "2026-01-31T13:05:59.123000"),
        ("1769864759123456789", "2026-01-31T13:05:59.123456"),
        ("2026013113", "2026-01-31T13:00:00"),
        ("20261331", None),
        ("12", None),
        ("2026-02-30", None),
    ],
)
def test_moments_in_names_are_read(text, moment):
    found = moment_of(text)

    assert found == (None if moment is None else int(datetime.fromisoformat(moment + "+00:00").timestamp() * 1e6))
    if moment:
        assert reader("orders-", regex=False)(f"orders-{text}.csv.gz") == found
        assert reader(r"[a-z0-9]+-", regex=True)(f"orders2-{text}.json") == found
        assert prefix_of(f"orders_{text}.csv") == "orders_"
        assert reader("orders-", regex=False)(f"order-{text}.csv") is None


def test_moments_are_written_in_the_chosen_format():
    at = int(datetime(2026, 1, 31, 13, 5, 59, tzinfo=UTC).timestamp() * 1e6)

    assert moment_text(at, "YYYY-MM-DDTHH-mm-ss") == "2026-01-31T13-05-59"
    assert moment_text(at, "unix") == str(at // 1_000_000)
    for form in ("", "YYYY/MM", "hello"):
        with pytest.raises(ValueError, match="accepted are"):
            check_format(form)


async def test_folders_files_and_columns_can_be_chosen(tmp_path):
    (tmp_path / "daily" / "deep").mkdir(parents=True)
    put(tmp_path / "daily" / "a-20260101.csv", b"id;name\n1;2\n", age_s=20)
    put(tmp_path / "daily" / "b.ndjson", b'{"x":1}\n', age_s=10)

    def choosing(search="", **config):
        return Choosing(
            None, config, search, 10, Network(), SimpleNamespace(), {"imports": tmp_path, "exports": tmp_path}
        )

    assert [each.value for each in await find_folders(choosing())] == [".", "daily", "daily/deep"]
    assert [each.value for each in await find_files(choosing(folder="daily"))] == ["b.ndjson", "a-20260101.csv"]
    named = choosing(folder="daily", file="a-20260101.csv", delimiter=";")
    assert [each.value for each in await find_columns(named)] == ["id", "name"]
    assert [each.value for each in await find_columns(choosing(folder="daily", prefix="a-"))] == ["id;name"]
    assert [each.value for each in await find_columns(choosing(folder="daily", file="b.ndjson"))] == ["x"]
    with pytest.raises(ConfigError, match="choose it first"):
        await find_files(choosing())
    with pytest.raises(ConfigError, match="No such file"):
        await find_files(choosing(folder="none"))
