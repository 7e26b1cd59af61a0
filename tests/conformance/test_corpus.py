"""Runs the corpus of the languages: `tests/corpus/syntax/*.json`, each a list of texts with what becomes of them.

A case has `text` and either `prints` (its canonical text) or `refused` (line and column of each error, in order).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.ql.errors import QueryError
from streams.ql.parser import parse_expression, parse_filter, parse_query
from streams.ql.printer import print_filter, print_node, print_query

SYNTAX = Path(__file__).parent.parent / "corpus" / "syntax"
LANGUAGES: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "filter": (parse_filter, print_filter),
    "query": (parse_query, print_query),
    "expression": (parse_expression, print_node),
}


def cases() -> Iterator[Any]:
    for path in sorted(SYNTAX.glob("*.json")):
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
