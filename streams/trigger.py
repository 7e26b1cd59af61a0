"""The trigger message: what one commit changed for one profile, as every destination gets it (API.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from streams.merge import moment
from streams.ql.coerce import text_of_date

#: The end of a membership that time alone does not end.
NEVER: Final = "2099-12-31T23:59:59Z"


class TriggerRow(NamedTuple):
    """A row of the trigger log, columns in the order of the table."""

    id: int
    commit_id: int
    profile_id: int
    audience: int
    kind: str
    sequence: int
    at_us: int
    entered_us: int
    until_us: int | None
    cause: str
    merged_into: int | None = None
    profile_body: str | None = None


class AudienceName(NamedTuple):
    """What clients know an audience by."""

    id: str
    slug: str


def message(
    rows: Sequence[TriggerRow],
    fields: Mapping[str, Any],
    audiences: Mapping[int, AudienceName],
    subscription_id: str,
    at_us: int,
    *,
    all_slugs: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Makes the message of rows of one commit and profile, at least one, in the order of their ids.

    `fields` is the profile as `profile.output` gives it. An audience that is no more is named by its number.
    `all_slugs`, when given, becomes `segments_all`: every audience that the profile is in.
    """
    data: dict[str, Any] = {**fields, "segment_events": [_segment_event(row, audiences) for row in rows]}
    if all_slugs is not None:
        data["segments_all"] = list(all_slugs)
    return {
        "id": str(rows[0].id),
        "data": data,
        "meta": {"object": "user", "subscription_id": subscription_id, "timestamp": time_text(at_us)},
    }


def time_text(us: int) -> str:
    """Gives RFC 3339 text in UTC of microseconds since the epoch."""
    return text_of_date(moment(us))


def _segment_event(row: TriggerRow, audiences: Mapping[int, AudienceName]) -> dict[str, Any]:
    name = audiences.get(row.audience) or AudienceName(str(row.audience), str(row.audience))
    end_us = row.until_us if row.kind == "enter" else row.at_us
    event = {
        "id": name.id,
        "slug": name.slug,
        "event": row.kind,
        "enter": time_text(row.entered_us),
        "exit": NEVER if end_us is None else time_text(end_us),
        "trigger_id": str(row.id),
    }
    if row.merged_into is not None:
        event["merged_into"] = str(row.merged_into)
    return event
