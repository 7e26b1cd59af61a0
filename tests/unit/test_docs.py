"""What is written is so: settings and log events in `daemon/README.md`, commands and functions where they are named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from daemon import settings
from daemon.model.job import TRANSITIONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "daemon" / "README.md").read_text("utf-8")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def test_the_readme_lists_every_setting_as_it_is():
    assert settings.reference() in README, "put the output of `cohortd config reference` into daemon/README.md"


def logged() -> Iterator[tuple[str, str]]:
    """Event names and levels of all log calls, found by their form: a level's method with a name as its first word."""
    for package in ("daemon", "connectors"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                    continue
                name = node.args[0]
                if node.func.attr in LEVELS and isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield name.value, "error" if node.func.attr == "exception" else node.func.attr


def catalogue() -> Iterator[tuple[str, str]]:
    for line in section("Log events").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) >= 3 and (name := re.fullmatch(r"`(\w+)`", cells[0])):
            for level in cells[1].split(", "):
                yield name[1], level


def test_every_log_event_is_in_the_catalogue_and_nothing_else_is():
    code, listed = set(logged()), set(catalogue())

    assert (sorted(code - listed), sorted(listed - code)) == ([], []), "logged but not listed, listed but not logged"


def test_log_events_are_past_tense_snake_names():
    present = {"start", "stop", "fail", "retry", "skip", "is", "has", "can"}
    names = {name for name, _ in logged()}

    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []
    assert [name for name in names if name.rpartition("_")[2] in present] == []


def test_the_readme_has_every_transition_of_a_job():
    head, _, *lines = [line for line in section("Jobs").splitlines() if line.startswith("|")]
    messages = re.findall(r"`(\w+)`", head)
    written = {
        (line.split("**")[1], message): target
        for line in lines
        for message, target in zip(messages, [cell.strip() for cell in line.split("|")][2:-1], strict=True)
        if target
    }

    assert {(s, m): t for s, each in TRANSITIONS.items() for m, t in each.items()} == written
