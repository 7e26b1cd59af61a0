"""What of a job commands show, and how one is named: by its id, the beginning of it, or its label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from daemon.cli.client import Client, Refused, segment
from daemon.cli.yaml_text import dump

#: Rows of a page: the most that the daemon gives.
PAGE = 1000
#: So many characters of an id name a job, if only one has them.
LEAST_PREFIX = 4
#: So many of them stand in a narrow table.
SHORT_ID = 8
_ID = re.compile(r"[0-9a-f]{32}")


def job_path(client: Client, job: str, what: str = "") -> str:
    """Gives the path of the job that an id, its beginning or a label names, with `what` behind it."""
    return f"/v2/job/{segment(find_id(client, '/v2/job', 'job', job))}{what}"


def auth_id(client: Client, auth: str | None) -> str | None:
    """Gives the id of the authorization that an id, its beginning or a label names; None for None."""
    return None if auth is None else find_id(client, "/v2/auth", "authorization", auth)


def find_id(client: Client, path: str, kind: str, name: str) -> str:
    """Gives the id of what `name` names; ends the command where nothing, or more than one, has the name."""
    if _ID.fullmatch(name):
        return name
    rows = client.pages(path, params={"limit": PAGE})
    found = [row for row in rows if row["label"] == name]
    if not found and len(name) >= LEAST_PREFIX:
        found = [row for row in rows if row["id"].startswith(name.lower())]
    if len(found) == 1:
        return str(found[0]["id"])
    word = "auth" if kind == "authorization" else kind
    if found:
        ids = ", ".join(row["id"] for row in found[:5])
        raise click.ClickException(f"{len(found)} have the name {name!r}: {ids}; name one by its id")
    raise click.ClickException(f"there is no {kind} {name!r}; `cohortd {word} list` shows them")


def auth_labels(client: Client, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Gives the labels of the authorizations that jobs use, by id; asks only where there are any."""
    if not any(row.get("auth_id") for row in rows):
        return {}
    try:
        return {each["id"]: each["label"] for each in client.pages("/v2/auth", params={"limit": PAGE})}
    except Refused:  # who may not read them, sees ids
        return {}


def status(job: Mapping[str, Any]) -> str:
    """Gives a job's state, and until when and why."""
    words = str(job["state"])
    if job.get("sleep_until"):
        cause = {"error": "after an error", "retry_after": "as the destination asked"}.get(job.get("sleep_cause") or "")
        words += f" until {moment(job['sleep_until'])}{f', {cause}' if cause else ''}"
    return words


def moment(text: str | None) -> str:
    """Gives a moment in whole seconds."""
    return "-" if text is None else re.sub(r"\.\d+", "", text).replace("+00:00", "Z")


def facts(job: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Gives a job as a person reads it: times short, schedule in words, the configuration as YAML."""
    from daemon.model.quiet import QuietHours
    from daemon.model.schedule import Schedule

    shown: dict[str, Any] = {"id": job["id"], "label": job["label"]}
    if job.get("description"):
        shown["description"] = job["description"]
    shown |= {
        "provider": job.get("provider"),
        "job_type": job["job_type"],
        "direction": job.get("direction"),
        "authorization": labels.get(job.get("auth_id") or "") or job.get("auth_id"),
        "status": status(job),
    }
    if job.get("reason"):
        shown["reason"] = job["reason"]
    if job.get("errors"):
        shown["errors"] = f"{job['errors']} in a row since {moment(job.get('first_error'))}"
    if job.get("schedule"):
        shown["schedule"] = str(Schedule.model_validate(job["schedule"]))
    if job.get("quiet"):
        shown["quiet"] = str(QuietHours.model_validate(job["quiet"]))
    if job.get("expires_at"):
        shown["expires"] = moment(job["expires_at"])
    shown |= {
        "runs": job.get("runs"),
        "last_run": moment(job.get("last_run")),
        "subscription": job.get("subscription_id"),
        "owner": job.get("owner"),
        "created": moment(job.get("created")),
        "modified": moment(job.get("modified")),
        "configuration": dump(job["config"]),
    }
    return shown


def listed(job: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Gives a job as a row of a table."""
    return {
        "id": job["id"],
        "label": job["label"],
        "provider": job.get("provider"),
        "type": job["job_type"],
        "direction": job.get("direction"),
        "authorization": labels.get(job.get("auth_id") or "") or job.get("auth_id"),
        "status": status(job),
        "reason": job.get("reason") or "",
        "modified": moment(job.get("modified")),
    }
