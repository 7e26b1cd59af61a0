"""What `cohortd schedule test` does with a line (API.md). Pure: a JSON object in, one out; a row never raises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from daemon.model.schedule import Schedule, runs, shown
from streams.ql.coerce import text_of_date

#: More runs than this are not given in one line.
LARGEST_COUNT = 100_000
#: A year with room on both sides for every offset and the longest gap.
_YEARS = range(1000, 9999)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def schedule_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Gives `{runs, error}` for `{schedule, after, count}`: `after` is now where it is missing, `count` 1."""
    try:
        schedule = Schedule.model_validate(_object(row.get("schedule")))
        after = _moment(row["now"] if row.get("after") is None else row["after"])
        found = runs(schedule, after, _count(row.get("count", 1)))
    except ValidationError as error:
        return {"runs": [], "error": "; ".join(findings(error, "schedule"))}
    except ValueError as error:
        return {"runs": [], "error": str(error)}
    return {"runs": [text_of_date(each) for each in found], "error": None}


def findings(error: ValidationError, what: str) -> list[str]:
    """Gives a line for each thing that a model refused, with where it stands below `what`."""
    return [
        f"{'.'.join([what, *map(str, each['loc'])])}: {each['msg'].removeprefix('Value error, ')}"
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _object(value: object) -> object:
    if not isinstance(value, Mapping):
        raise ValueError(f"schedule: {shown(value)} is no schedule: give an object with frequency, and what else holds")  # noqa: TRY004 (answered, as every refusal)
    return value


def _moment(text: object) -> datetime:
    if isinstance(text, str) and _RFC_3339.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text.upper())
        except ValueError:
            pass
        else:
            if moment.year in _YEARS:
                return moment
    raise ValueError(f"after: {shown(text)} is no moment: RFC 3339 with an offset, as 2026-03-29T01:30:00Z")


def _count(count: object) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= LARGEST_COUNT:
        raise ValueError(f"count: {shown(count)} is not a whole number from 0 to {LARGEST_COUNT}")
    return count
