"""The codes of job logs: unique numbers, and all that are used are known."""

from __future__ import annotations

import re
from pathlib import Path

from connectors.sdk.declare import SYSTEM_VERBS
from daemon.model import codes


def test_codes_have_a_form_and_a_number_of_their_own():
    assert all(re.fullmatch(r"[A-Z]+(-[A-Z]+)*-\d{3}", each) for each in codes.CODES)
    numbers = [each.rpartition("-")[2] for each in codes.CODES]
    assert len(numbers) == len(set(numbers))


def test_every_code_is_explained():
    constants = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}

    assert constants == set(codes.CODES)
    assert all(each.level in codes.LEVELS and each.means for each in codes.CODES.values())


def test_alerts_can_name_every_verb_and_no_other():
    assert sorted(SYSTEM_VERBS) == sorted({verb for verbs in codes.VERBS.values() for verb in verbs})


def test_the_readme_explains_every_code():
    readme = (Path(__file__).parents[2] / "daemon" / "README.md").read_text("utf-8")

    rows = {f"| `{name}` | {each.level} | {each.means} |" for name, each in codes.CODES.items()}
    assert rows <= set(readme.splitlines())
