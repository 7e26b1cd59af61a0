"""`cohortd replay --query`: begins, follows or gives up applying a query to the past, in a running daemon."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from daemon.cli.client import Client, segment
from daemon.cli.output import show_facts, show_json

#: How often a running daemon is asked how far it is, in seconds.
LOOK_S = 0.5


def replay_query(
    client: Client, alias: str, *, dry_run: bool, yes: bool, cancel: bool, wait: bool, as_json: bool
) -> None:
    """Does what the options say; exit status 1 when it ended cancelled."""
    path = f"/v2/query/{segment(alias)}/replay"
    if cancel:
        show_facts(client.call("DELETE", path), as_json=as_json)
        return
    planned = client.call("POST", path, params={"dryrun": "true"})
    if dry_run:
        show_facts(planned, as_json=as_json)
        _warn(planned)
        return
    if planned["events_lost"] and not yes:
        _warn(planned)
        raise click.ClickException("nothing was begun; --yes accepts that the past is incomplete")
    status = client.call("POST", path, params={"incomplete": "true" if yes else None})
    if wait:
        status = _follow(client, path, status, as_json=as_json)
    if as_json:
        show_json(status)
    else:
        show_facts(status, as_json=False)
    if wait and status["state"] != "done":
        raise SystemExit(1)


def _follow(client: Client, path: str, status: Any, *, as_json: bool) -> Any:
    """Shows how far it is until it has ended; leaving (Ctrl-C) does not end it."""
    bar = Progress(
        TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True, disable=as_json
    )
    with bar:
        task = bar.add_task("events", total=status["events_of"])
        while status["state"] == "running":
            time.sleep(LOOK_S)
            status = client.call("GET", path)
            bar.update(task, completed=status["events_looked_at"], total=status["events_of"])
    return status


def _warn(planned: Any) -> None:
    if planned["events_lost"]:
        click.echo(
            f"Up to {planned['events_lost']:,} events of the past are not in the log any more (retention): what they "
            f"gave to {', '.join(planned['fields'])} would be gone, sums and counts would shrink.",
            err=True,
        )
