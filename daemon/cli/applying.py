"""`cohortd plan DIR` and `cohortd apply DIR`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from daemon.cli.client import Client, Refused, segment
from daemon.cli.output import client_of, remote, show_json

_SIGNS = {"create": ("+", "green"), "change": ("~", "yellow"), "delete": ("-", "red"), "blocked": ("!", "red")}


@click.command("plan")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--prune", is_flag=True, help="Also delete what is not in the folder.")
@remote
def plan(folder: Path, prune: bool, as_json: bool, **where: Any) -> None:
    """Shows what `apply` would change, and what that does to memberships; changes nothing."""
    client = client_of(**where)
    steps = _steps(client, folder, prune=prune)
    effects = {
        step.name: _effect(client, step) for step in steps if step.kind == "audience" and step.action == "change"
    }
    if as_json:
        show_json([_row(step, effects.get(step.name)) for step in steps])
    else:
        _show(steps, effects)
    if any(step.action == "blocked" for step in steps):
        raise SystemExit(1)


@click.command("apply")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--prune", is_flag=True, help="Also delete what is not in the folder.")
@remote
def apply(folder: Path, prune: bool, as_json: bool, **where: Any) -> None:
    """Makes the daemon's definitions those of FOLDER: queries, then audiences, then jobs. Twice is as once."""
    client = client_of(**where)
    steps = _steps(client, folder, prune=prune)
    blocked = [step for step in steps if step.action == "blocked"]
    if blocked:
        words = "\n".join(f"{step.kind} {step.name}: {step.why}" for step in blocked)
        raise click.ClickException(f"nothing was applied\n{words}")
    for step in steps:
        try:
            _apply(client, step)
        except Refused as error:
            file = f"{step.wanted.file}: " if step.wanted else ""
            raise click.ClickException(f"{file}{step.kind} {step.name}: {error.message}") from error
        if step.action != "keep" and not as_json:
            sign, colour = _SIGNS[step.action]
            click.secho(f"{sign} {step.kind} {step.name}", fg=colour)
    if as_json:
        show_json([_row(step, None) for step in steps])
    elif all(step.action == "keep" for step in steps):
        click.echo("nothing to change")


def _steps(client: Client, folder: Path, *, prune: bool) -> list[Any]:
    from daemon.cli import folder as folders

    try:
        wanted = folders.read(folder)
    except folders.FolderError as error:
        raise click.ClickException(str(error)) from error
    queries = client.call("GET", "/api/query")
    return folders.compare(wanted, queries, client.pages("/api/segment"), client.pages("/v2/job"), prune=prune)


def _apply(client: Client, step: Any) -> None:
    match step.action, step.kind:
        case "keep", _:
            return
        case "delete", "query":
            client.call("DELETE", f"/api/query/{segment(step.name)}")
        case "delete", "audience":
            client.call("DELETE", f"/api/segment/{segment(step.name)}")
        case "delete", "job":
            client.call("DELETE", f"/v2/job/{segment(step.id)}")
        case _, "query":
            client.call("POST", "/api/query", text=step.wanted.text)
        case _, "audience":
            client.call("POST", "/api/segment", text=step.wanted.text)
        case "change", "job":
            client.call("PATCH", f"/v2/job/{step.id}", json={"description": step.wanted.body.get("description") or ""})
        case _:
            body = {key: value for key, value in step.wanted.body.items() if key != "job_type"}
            client.call("POST", f"/v2/job/{segment(step.wanted.body['job_type'])}", json=body)


def _effect(client: Client, step: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.call("POST", f"/v2/segment/{segment(step.name)}/preview", text=step.wanted.text)
    return found


def _row(step: Any, effect: dict[str, Any] | None) -> dict[str, Any]:
    row = {"action": step.action, "kind": step.kind, "name": step.name}
    if step.wanted is not None:
        row["file"] = step.wanted.file
    if step.why:
        row["why"] = step.why
    if effect is not None:
        row["effect"] = {key: effect[key] for key in ("enters", "exits", "size", "jobs")}
    return row


def _show(steps: list[Any], effects: dict[str, dict[str, Any]]) -> None:
    changes = [step for step in steps if step.action != "keep"]
    for step in changes:
        sign, colour = _SIGNS[step.action]
        click.secho(f"{sign} {step.kind} {step.name}{f': {step.why}' if step.why else ''}", fg=colour)
        if step.action == "change" and step.kind != "job":
            lines = difflib.unified_diff(
                step.before.strip().splitlines(), step.wanted.text.strip().splitlines(), lineterm="", n=2
            )
            for line in list(lines)[2:]:
                click.echo(f"    {line}")
        if step.action == "change" and step.kind == "query":
            click.echo("    applies to events from then on; profiles keep what they have")
        effect = effects.get(step.name) if step.kind == "audience" else None
        if effect is not None:
            sends = f"; sent by {', '.join(job['label'] for job in effect['jobs'])}" if effect["jobs"] else ""
            click.echo(f"    {effect['enters']:,} would enter, {effect['exits']:,} would exit{sends}")
    kept = len(steps) - len(changes)
    click.echo(
        f"{len(changes)} to change, {kept} as they are" if changes else f"nothing to change ({kept} as they are)"
    )
