"""`cohortd explain`: why a person is, or is not, in an audience; what made the value of a field."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.client import Client, segment
from daemon.cli.job_words import job_path, moment
from daemon.cli.output import cell, client_of, remote, show_json, show_rows


@click.command("explain")
@click.argument("words", nargs=-1, required=True, metavar="[SLUG | delivery JOB] FIELD VALUE [AUDIENCE]")
@click.option("--field", "name", help="Say what made the value of this field instead; without SLUG.")
@click.option("--limit", type=click.IntRange(0, 1000), help="Transitions, or events of a field, to show at most.")
@click.option(
    "--seconds", type=click.IntRange(1, 600), default=30, show_default=True, help="With --field: walk so long at most."
)
@remote
def explain(
    words: tuple[str, ...], name: str | None, limit: int | None, seconds: int, as_json: bool, **where: Any
) -> None:
    """Says why the person FIELD = VALUE is, or is not, in the audience SLUG, and how that came.

    `explain delivery JOB FIELD VALUE [AUDIENCE]` says why the person was, or was not, sent by a job, and what to do.

    With --field NAME: which events, by which queries, made the value of that field of the person.
    """
    client = client_of(**where)
    if name is not None:
        if len(words) != 2:
            raise click.UsageError("with --field NAME give FIELD VALUE, the identity that names the person")
        client.timeout_s = seconds + 60.0
        path = f"/v2/entity/user/{segment(words[0])}/{segment(words[1])}/explain-field/{segment(name)}"
        _tell_field(client.call("GET", path, params={"limit": limit, "seconds": seconds}), as_json=as_json)
        return
    if words[0] == "delivery" and len(words) in (4, 5):
        _tell_delivery(client, *words[1:], as_json=as_json)
        return
    if len(words) != 3:
        raise click.UsageError("give SLUG FIELD VALUE: the audience, and the identity that names the person")
    slug, field, value = words
    path = f"/v2/entity/user/{segment(field)}/{segment(value)}/explain/{segment(slug)}"
    found = client.call("GET", path, params={"history": limit})
    if as_json:
        show_json(found)
        return
    click.echo(f"{'in' if found['member'] else 'not in'} {found['audience']}; evaluates to {_truth(found)} now")
    click.echo(f"because {found['reason']}")
    click.echo()
    for node in found["conditions"]:
        click.echo(f"{'  ' * (node['depth'] + 1)}{_truth(node):14}{node['text']}")
        click.echo(f"{'  ' * (node['depth'] + 1)}{'':14}  {node['reason']}")
    click.echo()
    click.echo(f"next change by time alone: {found['next_flip'] or 'none'}")
    for node in found["next_flip_by"]:
        click.echo(f"  {node['text']} is {_truth(node)} then")
    _tell_history(found)


def _tell_delivery(
    client: Client, job: str, field: str, value: str, audience: str | None = None, *, as_json: bool
) -> None:
    path = job_path(client, job, f"/explain/{segment(field)}/{segment(value)}")
    found = client.call("GET", path, params={"audience": audience})
    if as_json:
        show_json(found)
        return
    reason = f": {found['reason']}" if found["reason"] else ""
    click.echo(f"job {found['label'] or found['job']} is {found['state']}{reason}")
    for each in found["audiences"]:
        click.echo(f"\n{each['audience']}: {each['verdict'].replace('_', ' ')}")
        click.echo(f"  {each['because']}")
        click.echo(f"  what to do: {each['do']}")
    rows = [row | {"at": moment(row["at"])} for row in found["attempts"]]
    if rows:
        click.echo("\nattempts:")
        show_rows(rows, ("id", "at", "outcome", "status", "attempt", "to", "answer"), as_json=False)


def _tell_history(found: Any) -> None:
    click.echo()
    click.echo("history:" if found["history"] else "history: never a member")
    for entry in found["history"]:
        of = f" (as profile {entry['of']}, now part of this one)" if entry["of"] else ""
        click.echo(f"  {entry['at']}  {entry['event']:5}  {entry['because']}{of}  [trigger {entry['trigger_id']}]")
        for event in entry.get("events") or ():
            named = f", id {event['id']}" if event["id"] else ""
            click.echo(f"      {event['stream']} {event['lane']}/{event['position']}{named}, of {event['time']}")
        for delivery in entry["deliveries"]:
            click.echo(
                f"      job {delivery['label'] or delivery['job']} ({delivery['job_state']}): {delivery['state']}"
            )
    if found["history_lost"]:
        click.echo("  older transitions are not in the trigger log any more (retention)")
    elif not found["history_complete"]:
        click.echo("  … older transitions: --json and the API's `before` go on")


def _truth(found: Any) -> str:
    return ("true" if found["match"] else "false") if found["ok"] else "not evaluable"


def _tell_field(found: Any, *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    click.echo(f"{found['field']} ({found['kind']}, {found['merge_op']}) is {cell(found['value'])}")
    made = "made by" if found["agrees"] else "found"
    click.echo(f"{made} {found['contributions']:,} contributions of {found['events']:,} events of this person")
    click.echo(f"the log goes back to {found['log_since'] or '(it is empty)'}")
    for note in found["notes"]:
        click.echo(f"note: {note}")
    click.echo()
    columns = ("time", "outcome", "value", "stream", "lane", "position", "id", "query", "version", "stands")
    show_rows(found["effects"], columns, as_json=False, title="contributions")
    left = found["contributions"] - len(found["effects"])
    if left > 0:
        click.echo(f"… {left:,} more; --limit shows more")
