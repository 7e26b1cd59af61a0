"""Tables read as they come: however they are cut, and from whatever mark."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.formats import tables
from connectors.sdk.formats.compression import Packer
from connectors.sdk.formats.encodings import EncodingError, encoding_of
from connectors.sdk.formats.tables import ChangedError, Mark, Rows, Shape, TableReader
from streams.delimited import HeaderError

VALUE = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)
TABLE = st.lists(st.tuples(VALUE, VALUE, VALUE), max_size=20)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]


def read(shape: Shape, content: bytes, size: int, start: Mark | None = None, *, sought: bool = False) -> list[Rows]:
    reader = TableReader(shape, start, sought=sought)
    found: list[Rows] = []
    for at in range(0, len(content), size):
        found += reader.feed(content[at : at + size])
    return [*found, *reader.end()]


def rows_of(found: list[Rows]) -> list[dict[str, object]]:
    return [row for each in found for row in each.rows]


def as_csv(table: list[tuple[str, ...]], ends: str = "\n") -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator=ends, quoting=csv.QUOTE_MINIMAL)
    writer.writerow(("a", "b", "c"))
    writer.writerows(table)
    return sink.getvalue()


@given(TABLE, st.integers(1, 80), st.sampled_from(ENCODINGS), st.sampled_from(["\n", "\r\n"]))
def test_a_table_is_read_as_it_was_written_however_it_is_cut(table, size, encoding, ends):
    content = as_csv(table, ends).encode(encoding)
    shape = Shape(encoding="utf-8" if encoding == "utf-8-sig" else encoding_of(encoding))

    found = rows_of(read(shape, content, size))

    assert found == [dict(zip("abc", row, strict=True)) for row in table]


@given(TABLE, st.integers(1, 80), st.sampled_from(["none", "gzip", "zip"]), st.sampled_from([b"", codecs.BOM_UTF8]))
def test_from_every_mark_the_rest_is_read_and_nothing_else(table, size, compression, bom):
    packer = Packer(compression, "a.csv")
    content = packer.feed(bom + as_csv(table).encode()) + packer.end()
    shape = Shape(compression=compression)
    whole = read(shape, content, size)
    total = rows_of(whole)

    for at, each in enumerate(whole):
        left = total[sum(len(before.rows) for before in whole[: at + 1]) :]
        mark = Mark.of_json(json.loads(json.dumps(each.mark.as_json())))
        assert rows_of(read(shape, content, 7, mark)) == left
        place = shape.place_of(mark, content[:4])
        if place is not None and mark.columns:
            again = read(shape, content[place:], 7, mark, sought=True)
            assert rows_of(again) == left
            assert again[-1].mark == whole[-1].mark


@given(st.lists(st.dictionaries(VALUE, VALUE | st.integers(-5, 5), max_size=3), max_size=20), st.integers(1, 80))
def test_lines_of_json_are_read_with_their_numbers(table, size):
    content = b"\n".join(json.dumps(row).encode() + b"\n" for row in table)  # with blank lines in between

    found = read(Shape(form="ndjson"), content, size)

    assert rows_of(found) == table
    assert [line for each in found for line in each.lines] == list(range(1, 2 * len(table), 2))


def test_rows_that_cannot_be_read_are_told_by_their_lines_and_the_rest_is_read():
    content = b'a,b\n1,2\n3\n"4",5\n6,"7\n8"\n9,x"y\n10,11\n\xff,12\n'

    found = read(Shape(), content, 5)

    assert rows_of(found) == [
        {"a": "1", "b": "2"},
        {"a": "4", "b": "5"},
        {"a": "6", "b": "7\n8"},
        {"a": "10", "b": "11"},
    ]
    assert [(each.place, each.reason[:30]) for rows in found for each in rows.refusals] == [
        (3, "the row has 1 values, there ar"),
        (7, "a quote is opened and never cl"),
        (9, "the row is not valid UTF-8"),
    ]
    assert [line for each in found for line in each.lines] == [2, 4, 5, 8]


def test_a_file_that_was_replaced_is_noticed_at_the_mark():
    content = as_csv([(str(n), "x", "y") for n in range(1000)]).encode()
    packed = gzip.compress(content)
    shape = Shape(compression="gzip")
    mark = next(each.mark for each in read(shape, packed, 100) if each.mark.row > 300)

    for other in (content.replace(b"17,x", b"17,z"), content[: mark.offset - 5]):
        with pytest.raises(ChangedError):
            read(shape, gzip.compress(other), 100, mark)
    longer = content + b"new,x,y\n"
    assert rows_of(read(shape, gzip.compress(longer), 100, mark))[-1] == {"a": "new", "b": "x", "c": "y"}


def test_a_line_beyond_all_bounds_takes_no_memory_and_only_itself_away(monkeypatch):
    monkeypatch.setattr(tables, "LONGEST_ROW", 1000)
    reader = TableReader(Shape(columns=("a",)))

    found = [*reader.feed(b"1\n")]
    for _ in range(2000):
        found += reader.feed(b"x" * 1000)
        assert len(reader._pending) <= 2000
    found += [*reader.feed(b"\n2\n"), *reader.end()]

    assert rows_of(found)[0] == {"a": "1"}
    assert rows_of(found)[-1] == {"a": "2"}
    assert found[-1].mark.offset == 2 + 2_000_000 + 3
    assert found[-1].mark.line == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,,c\n", "column 2 has no name"),
        (b"a,b,a\n", "more than once: a"),
        (b'a,"b\n', "header line cannot be read"),
    ],
)
def test_a_header_that_cannot_be_used_says_why(content, words):
    with pytest.raises(HeaderError, match=words):
        read(Shape(), content, 100)


def test_bytes_that_are_no_text_of_the_encoding_are_refused():
    with pytest.raises(EncodingError, match="not valid utf-16"):
        read(Shape(encoding="utf-16"), "a\nb\n".encode("utf-16-le") + b"x", 3)


@pytest.mark.parametrize("name", ["base64", "klingon", "a" * 300])
def test_only_encodings_of_text_are_accepted(name):
    with pytest.raises(ValueError, match="is not known"):
        encoding_of(name)


def test_a_row_that_no_encoding_of_one_byte_has_is_refused_alone():
    found = read(Shape(encoding="cp1252", columns=("a",)), b"\xe9t\xe9\n\x81\nb\n", 2)

    assert rows_of(found) == [{"a": "été"}, {"a": "b"}]
    assert [each.place for rows in found for each in rows.refusals] == [2]
