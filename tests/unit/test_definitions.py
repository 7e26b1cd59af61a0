"""Definitions of the daemon: what may be stored."""

import threading

import pytest

from daemon.ingest import definitions as definitions_module
from daemon.ingest.definitions import build, refuse_cycle
from daemon.store.definitions import AudienceRow, QueryRow
from streams.ql.errors import QueryError
from streams.ql.parser import parse_filter


def row(number, slug, text):
    return AudienceRow(number, f"{number:032}", slug, slug, "", text, 1, 0, 0)


async def definitions(texts):
    return await build([], [row(number, slug, text) for number, (slug, text) in enumerate(texts.items(), 1)], [])


async def test_an_audience_that_would_include_itself_is_told_where_and_how():
    known = await definitions({"a": "FILTER INCLUDE b ALIAS a", "b": "FILTER n = 1 ALIAS b"})
    text = "FILTER AND (\n  n = 1,\n  INCLUDE a\n) ALIAS b"

    with pytest.raises(QueryError) as refused:
        refuse_cycle(parse_filter(text), text, "b", known)

    (found,) = refused.value.diagnostics
    assert (found.line, found.column) == (3, 3)
    assert found.message == "an audience cannot include itself: b includes a includes b"


async def test_audiences_that_include_one_another_by_many_ways_are_checked_at_once():
    levels = 60  # 2 ** 60 ways from the top to the bottom
    texts = {
        f"{side}{level}": f"FILTER AND ( INCLUDE a{level + 1}, INCLUDE b{level + 1} ) ALIAS {side}{level}"
        for level in range(levels)
        for side in "ab"
    }
    known = await definitions({**texts, f"a{levels}": "FILTER *", f"b{levels}": "FILTER *"})
    text = "FILTER AND ( INCLUDE a0, INCLUDE b0 ) ALIAS top"

    refuse_cycle(parse_filter(text), text, "top", known)


async def test_what_goes_through_all_queries_is_done_beside_the_loop(monkeypatch):
    threads = []
    for name in ("build_schema", "Mapper", "AudienceSet"):
        made = getattr(definitions_module, name)

        def noting(*args, made=made):
            threads.append(threading.current_thread())
            return made(*args)

        monkeypatch.setattr(definitions_module, name, noting)
    texts = [f"SELECT user_id, f{each} FROM web INTO user BY user_id ALIAS q{each}" for each in range(3)]
    rows = [QueryRow(f"q{place}", text, 1, place, place) for place, text in enumerate(texts)]

    built = await build(rows, [row(1, "a", "FILTER EXISTS f1 ALIAS a")], [])

    assert built.mapper.streams == {"web"}
    assert len(threads) == 3
    assert threading.current_thread() not in threads
