"""What `connectors/azure/README.md` says of the document's steps: each has its row, and the tests named there exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from connectors.azure import PROVIDER

ROOT = Path(__file__).parents[2]
README = (ROOT / "connectors" / "azure" / "README.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## [^`\n]*`(\w+)`[^\n]*\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE))
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
}

#: How many steps the document has: those of a run, and those of the form.
STEPS = {
    "azure_storage": (0, 2),
    "azure_eventhub": (0, 1),
    "azure_sql": (0, 5),
    "azure_blob_import": (6, 19),
    "azure_sql_import": (3, 17),
    "azure_blob_export_audience_json": (3, 14),
    "azure_blob_export_audience_csv": (3, 15),
    "azure_eventhub_export": (2, 8),
    "azure_blob_export_events": (5, 19),
}
PARTS = {each.slug: each.config for each in (*PROVIDER.auths, *PROVIDER.jobs)}

parts = pytest.mark.parametrize("slug", sorted(PARTS))


def rows(section: str) -> list[tuple[str, str]]:
    """The rows that answer a step: what stands before the colon in the first cell, and the last cell."""
    found = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) == 3 and re.match(r"(run|step) \d+:", cells[0]):
            found.append((cells[0].partition(":")[0], cells[2]))
    return found


@parts
def test_every_step_of_the_document_has_its_row(slug):
    runs, steps = STEPS[slug]
    wanted = [f"run {n}" for n in range(1, runs + 1)] + [f"step {n}" for n in range(1, steps + 1)]

    assert wanted == [step for step, _ in rows(SECTIONS[slug])]


@parts
def test_every_step_names_a_test_that_exists(slug):
    named = {step: re.findall(r"`(test_\w+)`", cell) for step, cell in rows(SECTIONS[slug])}

    assert [step for step, tests in named.items() if not tests] == []
    assert sorted({each for tests in named.values() for each in tests} - TESTS) == []


@parts
def test_every_field_stands_in_its_section(slug):
    assert [name for name in PARTS[slug].model_fields if f"`{name}`" not in SECTIONS[slug]] == []
