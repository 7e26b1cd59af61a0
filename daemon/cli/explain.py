"""`cohortd explain`: why a person is, or is not, in an audience."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.client import segment
from daemon.cli.output import client_of, remote, show_json


@click.command("explain")
@click.argument("slug")
@click.argument("field")
@click.argument("value")
@remote
def explain(slug: str, field: str, value: str, as_json: bool, **where: Any) -> None:
    """Says why the person FIELD = VALUE is, or is not, in the audience SLUG."""
    path = f"/v2/entity/user/{segment(field)}/{segment(value)}/explain/{segment(slug)}"
    found = client_of(**where).call("GET", path)
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


def _truth(found: Any) -> str:
    return ("true" if found["match"] else "false") if found["ok"] else "not evaluable"
