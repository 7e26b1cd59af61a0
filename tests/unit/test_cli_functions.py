"""`cohortd function`: the reference that a user reads at the prompt."""

import json

import pytest
from click.testing import CliRunner

from daemon.cli import main
from streams.ql.functions import FUNCTIONS
from streams.ql.rows import expr_row


def run(*words):
    return CliRunner().invoke(main, ["function", *words])


def test_every_function_is_listed_once():
    listed = json.loads(run("list", "--json").output)

    names = [each["name"] for each in listed]
    assert sorted({each.name for each in FUNCTIONS.values()}) == names


def test_a_word_finds_functions_by_name_other_name_and_description():
    assert "len(x)" in run("list", "char_length").output
    assert "timewindow" in run("list", "last `days` days").output
    assert run("list", "no such word").output == "no function has that word\n"


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_shows_examples_that_can_be_tried_as_they_stand(name):
    shown = json.loads(run("show", name, "--json").output)

    assert shown["about"]
    for example in shown["examples"]:
        row = {name: example[name] for name in ("expr", "data")} | {"now": "2026-01-15T12:30:00Z"}
        answer = expr_row(row)
        assert (example["ok"], None) == (answer["ok"], answer["error"])
        assert example["value"] == answer["value"] or "uuid" in example["expr"]


def test_a_slip_of_the_pen_is_answered_with_the_nearest_name():
    result = run("show", "tolowr")

    assert result.exit_code == 1
    assert "did you mean tolower?" in result.output


def test_a_function_is_found_by_its_other_name_and_with_brackets():
    assert run("show", "CHAR_LENGTH()").output == run("show", "len").output
