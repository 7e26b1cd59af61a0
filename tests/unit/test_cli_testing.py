"""`cohortd filter|expr|query test`: an answer a line, in order, whatever the lines hold."""

from __future__ import annotations

import orjson
import pytest
from click.testing import CliRunner

from daemon.cli import main, testing


def ask(kind, *lines):
    text = "\n".join(line if isinstance(line, str) else orjson.dumps(line).decode() for line in lines)
    result = CliRunner().invoke(main, [kind, "test"], input=text)
    return result.exit_code, [orjson.loads(line) for line in result.stdout.splitlines()]


def test_every_line_is_answered_in_order_and_refused_ones_keep_the_form():
    status, answers = ask(
        "filter",
        {"filter": "FILTER a > 1", "profile": {"a": 2}, "now": "2026-01-01T00:00:00Z"},
        "{",
        "",
        [1],
        {"filter": "FILTER a >", "profile": {}, "now": "2026-01-01T00:00:00Z"},
        {"filter": "FILTER b = 1", "profile": {}, "now": "2026-01-01T00:00:00Z"},
    )

    assert status == 0
    assert answers[0] == {"match": True, "ok": True, "boundary": None, "error": None}
    assert [set(answer) for answer in answers] == [{"match", "ok", "boundary", "error"}] * 5
    assert [answer["error"] is None for answer in answers] == [True, False, False, False, True]


def test_a_line_without_now_takes_the_clocks(frozen_clock):
    frozen_clock.us = 1_767_225_600_000_000
    status, answers = ask("filter", {"filter": 'FILTER d > "now-1d"', "profile": {"d": "2026-01-01T00:00:00Z"},
                                     "kinds": {"d": "date"}})  # fmt: skip

    assert status == 0
    assert (answers[0]["match"], answers[0]["boundary"]) == (True, "2026-01-02T00:00:00Z")


def test_expressions_and_queries_are_answered_too():
    expressions = ask("expr", {"expr": "tolower(x)", "data": {"x": "ABC"}, "kinds": {}})
    query = "SELECT a AS a, count(b) AS n FROM s INTO user BY a ALIAS q"
    queries = ask("query", {"query": query, "events": [{"a": "x1", "b": 1}, {"a": "x1", "b": 1}]})

    assert expressions[0] == queries[0] == 0
    assert expressions[1] == [{"value": "abc", "kind": "string", "ok": True, "error": None}]
    (profile,) = queries[1][0]["profiles"]
    assert (profile["a"], profile["n"]) == ("x1", 2)


def test_integers_of_64_bits_pass_whole():
    _, answers = ask("expr", {"expr": "x", "data": {"x": 9223372036854775807}, "kinds": {"x": "int"}})

    assert answers[0]["value"] == 9223372036854775807


def test_a_defect_of_ours_costs_one_answer_and_the_status(monkeypatch, capsysbinary):
    def row(given):
        if given["x"]:
            raise LookupError("a defect")
        return {"value": 1}

    class Input:
        buffer = (b'{"x": 1}\n', b'{"x": 0}\n')

    monkeypatch.setattr("sys.stdin", Input)
    with pytest.raises(SystemExit) as ended:
        testing._answer(row, {"value": None})

    lines = [orjson.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert ended.value.code == 1
    assert "cohortd failed" in lines[0]["error"]
    assert lines[1] == {"value": 1}
