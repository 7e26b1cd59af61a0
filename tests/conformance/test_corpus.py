"""Runs the corpus of the languages: `tests/corpus/**/*.json`, each a list of texts with what becomes of them.

A file's `given` is part of each of its cases. What a case must have, by folder (`filters`: test_filter_corpus.py):

| folder | text | what becomes of it |
|---|---|---|
| `syntax` | `text` | `prints` (its canonical text) or `refused` (line and column of each error, in order) |
| `functions`, `expressions` | `text`, `data`, `kinds`, `now` | `gives` (and `kind`), `missing`, or `error` (a part) |
| `queries` | `query`, `events`, `now` | `profiles` in any order, or `error` |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.ql.errors import QueryError
from streams.ql.functions import FUNCTIONS
from streams.ql.parser import parse_expression, parse_filter, parse_query
from streams.ql.printer import print_filter, print_node, print_query
from streams.ql.rows import expr_row
from streams.query_rows import query_row

CORPUS = Path(__file__).parent.parent / "corpus"
LANGUAGES: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "filter": (parse_filter, print_filter),
    "query": (parse_query, print_query),
    "expression": (parse_expression, print_node),
}


def cases() -> Iterator[Any]:
    for path in sorted((CORPUS / "syntax").glob("*.json")):
        corpus = json.loads(path.read_text())
        for number, case in enumerate(corpus["cases"]):
            yield pytest.param(corpus["language"], case, id=f"{path.stem}-{number}")


@pytest.mark.parametrize(("language", "case"), list(cases()))
def test_syntax(language: str, case: dict[str, Any]) -> None:
    read, show = LANGUAGES[language]
    found: dict[str, Any] = {"text": case["text"]}
    try:
        tree = read(case["text"])
    except QueryError as error:
        found["refused"] = [[each.line, each.column] for each in error.diagnostics]
    else:
        found["prints"] = show(tree)

    assert case == found
    if "prints" in found:
        assert read(found["prints"]) == tree


def given_cases(*folders: str) -> Iterator[Any]:
    for path in sorted(path for folder in folders for path in (CORPUS / folder).glob("*.json")):
        corpus = json.loads(path.read_text())
        for number, case in enumerate(corpus["cases"]):
            yield pytest.param(corpus["given"] | case, id=f"{path.parent.name}-{path.stem}-{number}")


def exact(value: Any) -> str:
    """JSON text, in which 1, 1.0 and true differ, and the order of keys does not show."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("case", list(given_cases("functions", "expressions")))
def test_expression(case: dict[str, Any]) -> None:
    row = {"expr": case["text"], "data": case["data"], "kinds": case.get("kinds", {}), "now": case["now"]}

    answer = expr_row(row)

    if "error" in case:
        assert case["error"].lower() in answer["error"].lower()
        assert (False, None) == (answer["ok"], answer["value"])
    elif "missing" in case:
        assert {"value": None, "kind": "nil", "ok": False, "error": None} == answer
    else:
        assert (True, None) == (answer["ok"], answer["error"])
        assert exact(case["gives"]) == exact(answer["value"])
        assert case.get("kind", answer["kind"]) == answer["kind"]


@pytest.mark.parametrize("case", list(given_cases("queries")))
def test_query(case: dict[str, Any]) -> None:
    answer = query_row({name: case[name] for name in ("query", "events", "now")})

    if "error" in case:
        assert case["error"] in answer["error"]
        assert [] == answer["profiles"]
    else:
        assert answer["error"] is None
        assert sorted(map(exact, case["profiles"])) == sorted(map(exact, answer["profiles"]))


def test_the_corpus_has_cases_of_every_function() -> None:
    texts = "\n".join(case.values[0]["text"].lower() for case in given_cases("functions"))

    assert [] == [name for name in FUNCTIONS if f"{name}(" not in texts]
