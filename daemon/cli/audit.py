"""`cohortd audit`: who changed what, and when."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.job_words import PAGE, moment
from daemon.cli.output import client_of, remote, show_rows


@click.command("audit")
@click.option("--subject", help="What was changed: the path of the request, such as /v2/job/ID.")
@click.option("--actor", help="Id or label of a token; control; local.")
@click.option("--action", help="Name of the change, such as pause_job.")
@click.option("--after", help="From this moment on (RFC 3339).")
@click.option("--before", help="Before this moment (RFC 3339).")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@remote
def audit(limit: int, as_json: bool, **rest: Any) -> None:
    """Shows who changed what, the newest first: jobs, authorizations, definitions, tokens."""
    asked = {name: rest.pop(name) for name in ("subject", "actor", "action", "after", "before")}
    rows = client_of(**rest).pages("/v2/audit", limit=limit, params={**asked, "limit": min(limit, PAGE)})
    if not as_json:
        rows = [row | {"at": moment(row["at"]), "who": row["actor_label"] or row["actor"]} for row in rows]
    show_rows(rows, ("at", "who", "action", "subject", "facts"), as_json=as_json, title="changes")
