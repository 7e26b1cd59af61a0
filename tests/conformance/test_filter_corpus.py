"""Each row of the evaluation rules (FACTS 3.2 to 3.4) as data: `tests/corpus/filters`, one file a rule.

A file's `given` is part of each of its cases. A case has `match`, `ok` and `boundary`, or a part of the `error`.
"""

import json
from pathlib import Path

import pytest

from streams.ql.rows import filter_row
from streams.ql.values import kind_of

CORPUS = Path(__file__).parents[1] / "corpus" / "filters"
ALL = [
    pytest.param(corpus.get("given", {}) | case, id=f"{path.stem}-{place}")
    for path in sorted(CORPUS.glob("*.json"))
    for corpus in [json.loads(path.read_text())]
    for place, case in enumerate(corpus["cases"])
]
REFUSED = [each for each in ALL if "error" in each.values[0]]
CASES = [each for each in ALL if "error" not in each.values[0]]
ANSWER = ("match", "ok", "boundary", "error")


@pytest.mark.parametrize("case", CASES)
def test_a_filter_answers_as_the_rule_says(case):
    row = {name: value for name, value in case.items() if name not in ANSWER}

    answer = filter_row(row)

    assert answer == {name: case.get(name) for name in ANSWER}, case["filter"]


@pytest.mark.parametrize("case", CASES)
def test_kinds_taken_from_the_values_change_nothing(case):
    """Fields without a kind take that of their JSON value: to say so must give the same."""
    kinds = {name: kind_of(value) for name, value in case["profile"].items() if isinstance(value, str | float | int)}
    row = {name: value for name, value in case.items() if name not in ANSWER}

    answer = filter_row(row | {"kinds": kinds | case.get("kinds", {})})

    assert answer == {name: case.get(name) for name in ANSWER}, case["filter"]


@pytest.mark.parametrize("case", REFUSED)
def test_a_filter_is_refused_with_its_reason(case):
    row = {name: value for name, value in case.items() if name not in ANSWER}

    answer = filter_row(row)

    assert case["error"].lower() in answer.pop("error").lower()
    assert answer == {"match": False, "ok": False, "boundary": None}
