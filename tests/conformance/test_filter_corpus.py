"""Each row of the evaluation rules (FACTS 3.2 to 3.4) as data: `tests/corpus/filters`, one file a rule."""

import json
from pathlib import Path

import pytest

from streams.ql.rows import filter_row

CORPUS = Path(__file__).parents[1] / "corpus" / "filters"
CASES = [
    pytest.param(case, id=f"{path.stem}-{place}")
    for path in sorted(CORPUS.glob("*.json"))
    for place, case in enumerate(json.loads(path.read_text())["cases"])
]
ANSWER = ("match", "ok", "boundary")


@pytest.mark.parametrize("case", CASES)
def test_a_filter_answers_as_the_rule_says(case):
    row = {name: value for name, value in case.items() if name not in ANSWER}

    answer = filter_row(row)

    assert answer == {name: case[name] for name in ANSWER} | {"error": None}, case["filter"]


@pytest.mark.parametrize("case", CASES)
def test_kinds_taken_from_the_values_change_nothing(case):
    """Fields without a kind take that of their JSON value: to say so must give the same."""
    names = {str: "string", int: "int", float: "number", bool: "bool"}
    kinds = {name: names[type(value)] for name, value in case["profile"].items() if type(value) in names}
    row = {name: value for name, value in case.items() if name not in ANSWER}

    answer = filter_row(row | {"kinds": kinds | case.get("kinds", {})})

    assert answer == {name: case[name] for name in ANSWER} | {"error": None}, case["filter"]
