"""CSV into events: text as written, strict quoting, exact lines."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.delimited import Delimited, HeaderError, delimiter_of
from streams.event import Event, Refusal, Rules
from streams.lines import Lines

SMALL = Rules(event_bytes=4096)


def read(
    content: bytes, *, chunk: int = 1 << 20, rules: Rules = SMALL, **options: object
) -> tuple[list[Event], list[Refusal]]:
    reader = Delimited(rules, **options)
    lines = Lines(rules.event_bytes)
    events: list[Event] = []
    refusals: list[Refusal] = []
    pieces = [content[at : at + chunk] for at in range(0, len(content), chunk)]
    for piece in [*pieces, None]:
        first = lines.number
        found = reader.read(lines.end() if piece is None else lines.feed(piece), first, 7)
        events += found[0]
        refusals += found[1]
    found = reader.end(lines.number, 7)
    return events + found[0], refusals + found[1]


def rows(events: list[Event]) -> list[list[object]]:
    return [list(event.data.values()) for event in events]


cells = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=8)


@given(
    st.lists(st.lists(cells, min_size=2, max_size=2), max_size=8),
    st.integers(1, 40),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_csv_writer_wrote_is_read_back_however_it_is_cut(table, chunk, delimiter, terminator):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=terminator).writerows([["a", "b"], *table])

    events, refusals = read(text.getvalue().encode(), chunk=chunk, delimiter=delimiter)

    assert table == rows(events)
    assert refusals == []


HOSTILE = (
    b'\xef\xbb\xbfa,b\r\n1,2\r\n\r\n"x ""y"" z","q\nr"\n5" p,3\n4,5\n1,2,3\n"a"b,c\n7,8\n\xff,1\n9,\x00\n"open,1\n10,11'
)


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_malformed_rows_are_told_by_their_line_and_the_next_line_is_read(chunk):
    events, refusals = read(HOSTILE, chunk=chunk)

    assert rows(events) == [["1", "2"], ['x "y" z', "q\nr"], ["4", "5"], ["7", "8"], ["10", "11"]]
    assert [(refusal.place, refusal.reason.split(";")[0]) for refusal in refusals] == [
        (6, "a quote stands within a value"),
        (8, "the row has 3 values, there are 2 columns"),
        (9, "a quote stands within a value"),
        (11, "the row is not valid UTF-8"),
        (12, "the row has the character NUL"),
        (13, "a quote is opened and never closed"),
    ]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_read_or_refused_the_same_however_they_are_cut(content, chunk):
    rules = Rules(event_bytes=120)
    whole = read(content, rules=rules, headers=["a", "b"])

    assert whole == read(content, chunk=chunk, rules=rules, headers=["a", "b"])


def test_a_quote_that_is_never_closed_holds_back_no_more_than_an_event():
    content = b'a,b\n"open,1\n' + b"1,2\n" * 5000

    events, refusals = read(content, chunk=100)

    assert len(events) == 5000
    assert [(refusal.place, refusal.reason) for refusal in refusals] == [(2, "a quote is not closed within 4096 bytes")]


def test_a_line_longer_than_an_event_is_refused_and_not_kept():
    lines = Lines(100)

    cut = lines.feed(b"x" * 1000) + lines.feed(b"y" * 1000) + lines.feed(b"z\nnext\n")

    assert cut == [b"x" * 101, b"next"]
    assert lines.number == 3


def test_values_are_text_as_written_and_what_is_appended_wins():
    (event,), _ = read(b"a,b\n007, x \n", append={"b": 1, "source": {"file": "f"}})

    assert event.data == {"a": "007", "b": 1, "source": {"file": "f"}}
    assert event.body == '{"a":"007","b":1,"source":{"file":"f"}}'


def test_the_times_and_ids_of_columns():
    rules = Rules(event_bytes=4096, timestamp_field="at")
    events, refusals = read(b"at,_id\n1997-01-01,x\n,y\nsoon,z\n", rules=rules)

    assert [(event.event_us, event.event_id) for event in events] == [(852_076_800_000_000, "x"), (7, "y")]
    assert [refusal.place for refusal in refusals] == [4]


def test_with_stop_nothing_behind_the_first_refusal_is_read():
    events, refusals = read(b"a,b\n1,2\nbad\n3,4\nworse\n", stop=True)

    assert rows(events)[0] == ["1", "2"]
    assert refusals[0].place == 3


def test_one_column_and_blank_lines():
    events, refusals = read(b"a\n1\n\n2\n")

    assert rows(events) == [["1"], ["2"]]
    assert refusals == []


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (b"a,,b\n", {}, "column 2 has no name"),
        (b"a,b,a\n", {}, "more than once: a"),
        (b'a"b,c\n', {}, "header line cannot be read"),
        (b"a,b\n", {"rules": Rules(timestamp_field="when")}, "timestamp_field 'when' is not a column"),
        (b"a,b\n", {"append": {"x": 2**70}}, None),
        (
            b",".join(b"c%d" % n for n in range(3000)) + b"\n",
            {"rules": Rules(event_bytes=10**6)},
            "more than 2000 keys",
        ),
    ],
)
def test_a_header_that_cannot_be_used(content, options, told):
    if told is None:
        with pytest.raises((HeaderError, TypeError)):
            read(content, **options)
        return
    with pytest.raises(HeaderError, match=told):
        read(content, **options)


@pytest.mark.parametrize(("text", "expected"), [("tab", "\t"), ("\t", "\t"), ("\\t", "\t"), (";", ";"), ("pipe", "|")])
def test_delimiters(text, expected):
    assert expected == delimiter_of(text)


@pytest.mark.parametrize("text", ["", "ab", '"', "\n"])
def test_delimiters_that_are_none(text):
    with pytest.raises(HeaderError, match="delimiter"):
        delimiter_of(text)
