"""`cohortd plan DIR` and `cohortd apply DIR`."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import click

from daemon.cli.client import Client, Refused, segment
from daemon.cli.folder_jobs import checked
from daemon.cli.folder_steps import FolderError
from daemon.cli.job_words import PAGE
from daemon.cli.output import client_of, remote, show_json
from daemon.cli.schema import PREVIEW_TIMEOUT_S
from daemon.cli.yaml_text import dump

#: Actions that change something.
_CHANGES = frozenset({"create", "change", "delete"})
_SIGNS = {"create": ("+", "green"), "change": ("~", "yellow"), "delete": ("-", "red"), "blocked": ("!", "red")}


@click.command("plan")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--prune", is_flag=True, help="Also delete what is not in the folder.")
@remote
def plan(folder: Path, prune: bool, as_json: bool, **where: Any) -> None:
    """Shows what `apply` would change, and what that does to memberships; changes nothing."""
    client = client_of(**where, timeout_s=PREVIEW_TIMEOUT_S)
    steps = _steps(client, folder, prune=prune)
    told, refused = _effects(client, steps)
    if as_json:
        show_json(_rows(steps, told, refused))
    else:
        _show(steps, told)
        if refused:
            click.secho(f"this would be refused:\n{refused}", fg="red", err=True)
    if refused or any(step.action == "blocked" for step in steps):
        raise SystemExit(1)


@click.command("apply")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--prune", is_flag=True, help="Also delete what is not in the folder.")
@remote
def apply(folder: Path, prune: bool, as_json: bool, **where: Any) -> None:
    """Makes the daemon's definitions those of FOLDER: guards, queries, audiences, authorizations, jobs.

    Twice is as once. Secrets are references, which the daemon looks up at each use.
    """
    client = client_of(**where)
    steps = _steps(client, folder, prune=prune)
    blocked = [step for step in steps if step.action == "blocked"]
    if blocked:
        words = "\n".join(f"{step.kind} {step.name}: {step.why}" for step in blocked)
        raise click.ClickException(f"nothing was applied\n{words}")
    if sum(step.kind == "query" and step.action in _CHANGES for step in steps) > 1:
        _apply_queries(client, steps)
        rest = [step for step in steps if step.kind != "query"]
    else:
        rest = steps
    auths = {each["label"]: each["id"] for each in _all(client, "/v2/auth")}
    for step in rest:
        try:
            _apply(client, step, auths)
        except Refused as error:
            file = f"{step.wanted.file}: " if step.wanted else ""
            raise click.ClickException(f"{file}{step.kind} {step.name}: {error.message}") from error
        if not as_json:
            _told(step)
    if as_json:
        show_json([_row(step, {}) for step in steps])
    elif all(step.action == "keep" for step in steps):
        click.echo("nothing to change")


def _apply_queries(client: Client, steps: list[Any]) -> None:
    """Stores and deletes queries together: what they say of a field may only go together."""
    change = _query_change(steps)
    try:
        client.call("POST", "/api/query", json=change)
    except Refused as error:
        files = ", ".join(sorted({step.wanted.file for step in steps if step.kind == "query" and step.wanted}))
        raise click.ClickException(f"the queries were not stored ({files}): {error.message}") from error
    for step in steps:
        if step.kind == "query":
            _told(step)


def _query_change(steps: list[Any]) -> dict[str, Any]:
    queries = [step for step in steps if step.kind == "query"]
    return {
        "queries": [step.wanted.text for step in queries if step.action in ("create", "change")],
        "delete": [step.name for step in queries if step.action == "delete"],
    }


def _told(step: Any) -> None:
    if step.action != "keep":
        sign, colour = _SIGNS[step.action]
        click.secho(f"{sign} {step.kind} {step.name}", fg=colour)


def _steps(client: Client, folder: Path, *, prune: bool) -> list[Any]:
    from daemon.cli import folder as folders

    try:
        wanted = folders.read(folder)
    except FolderError as error:
        raise click.ClickException(str(error)) from error
    queries = client.call("GET", "/api/query")
    audiences, jobs, auths = client.pages("/api/segment"), _all(client, "/v2/job"), _all(client, "/v2/auth")
    guards, providers = client.call("GET", "/v2/identity/guard"), client.call("GET", "/v2/provider")
    try:
        wanted = checked(wanted, providers, os.environ)
    except FolderError as error:
        raise click.ClickException(str(error)) from error
    return folders.compare(
        wanted, queries, audiences, jobs, prune=prune, guards=guards, auths=auths, providers=providers
    )


def _all(client: Client, path: str) -> list[Any]:
    return client.pages(path, params={"limit": PAGE})


def _apply(client: Client, step: Any, auths: dict[str, str]) -> None:
    """Makes one step; `auths` are the ids of authorizations by label, to which those are added that are made."""
    match step.action, step.kind:
        case "keep", _:
            return
        case "delete", "query":
            client.call("DELETE", f"/api/query/{segment(step.name)}")
        case "delete", "audience":
            client.call("DELETE", f"/api/segment/{segment(step.name)}")
        case "delete", "job":
            client.call("DELETE", f"/v2/job/{segment(step.id)}")
        case "delete", "guard":
            client.call("DELETE", f"/v2/identity/guard/{segment(step.id)}")
        case _, "guard":
            client.call("POST", "/v2/identity/guard", json=step.wanted.body)
        case _, "query":
            client.call("POST", "/api/query", text=step.wanted.text)
        case _, "audience":
            client.call("POST", "/api/segment", text=step.wanted.text)
        case "delete", "authorization":
            client.call("DELETE", f"/v2/auth/{segment(step.id)}")
        case "change", "authorization":
            client.call("PATCH", f"/v2/auth/{segment(step.id)}", json={each.name: each.after for each in step.changes})
        case _, "authorization":
            body = {key: value for key, value in step.wanted.body.items() if key not in ("provider", "method")}
            path = f"/v2/auth/{segment(step.wanted.body['provider'])}/{segment(step.wanted.body['method'])}"
            auths[step.name] = client.call("POST", path, json=body)["id"]
        case "change", "job":
            change = {each.name: each.after for each in step.changes}
            if (name := change.pop("authorization", None)) is not None:
                change["auth_id"] = auths.get(name, name)
            client.call("PATCH", f"/v2/job/{segment(step.id)}", json=change)
        case _:
            body = dict(step.wanted.body)
            path = f"/v2/job/{segment(body.pop('job_type'))}"
            if (name := body.pop("authorization", None)) is not None:
                body["auth_id"] = auths.get(name, name)
            client.call("POST", path, json=body)


def _effects(client: Client, steps: list[Any]) -> tuple[dict[str, Any], str]:
    """Gives what the changes of queries and audiences together would do, and why they would be refused if so."""
    filters = [step.wanted.text for step in steps if step.kind == "audience" and step.action in ("create", "change")]
    change = _query_change(steps)
    if not (filters or change["queries"] or change["delete"]):
        return {}, ""
    try:
        told: dict[str, Any] = client.call("POST", "/api/query/_preview", json={**change, "filters": filters})
    except Refused as error:
        return {}, error.message
    return told, ""


def _rows(steps: list[Any], told: dict[str, Any], refused: str) -> list[dict[str, Any]]:
    """Gives a row a step, and one for each other audience that would move."""
    rows = [_row(step, told) for step in steps]
    shown = {step.name.lower() for step in steps if step.kind == "audience"}
    for each in told.get("audiences", ()):
        if each["slug"] not in shown and (each["enters"] or each["exits"]):
            effect = _effect(told, each["slug"])
            rows.append({"action": "keep", "kind": "audience", "name": each["slug"], "effect": effect})
    return [*rows, {"action": "blocked", "kind": "folder", "name": "", "why": refused}] if refused else rows


def _row(step: Any, told: dict[str, Any]) -> dict[str, Any]:
    row = {"action": step.action, "kind": step.kind, "name": step.name}
    if step.wanted is not None:
        row["file"] = step.wanted.file
    if step.why:
        row["why"] = step.why
    if step.changes:
        row["changes"] = [each._asdict() for each in step.changes]
    if step.kind == "audience" and (effect := _effect(told, step.name)) is not None:
        row["effect"] = effect
    if step.kind == "query" and step.action in _CHANGES and told:
        row["fields"] = _fields(told, step.name)
    return row


def _effect(told: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Gives who would move in an audience, and the jobs that would send it."""
    slug = name.lower()
    found = next((each for each in told.get("audiences", ()) if slug in (each["slug"], each["name"].lower())), None)
    if found is None:
        return None
    jobs = [job for job in told["jobs"] if found["slug"] in job["audiences"]]
    return {**{key: found[key] for key in ("enters", "exits", "size")}, "jobs": jobs}


def _fields(told: dict[str, Any], alias: str) -> list[dict[str, Any]]:
    """Gives the fields that a query changes."""
    fields = told.get("schema", {}).get("fields", ())
    return [field for field in fields if any(mapping["query"] == alias for mapping in field["mappings"])]


def _show(steps: list[Any], told: dict[str, Any]) -> None:
    from daemon.cli import differences

    changes = [step for step in steps if step.action != "keep"]
    for step in changes:
        sign, colour = _SIGNS[step.action]
        click.secho(f"{sign} {step.kind} {step.name}{f': {step.why}' if step.why else ''}", fg=colour)
        if step.action == "change" and step.kind == "guard":
            click.echo(f"    {step.before or 'no note'} -> {step.wanted.canonical or 'no note'}")
        elif step.kind in ("job", "authorization"):
            _show_values(step)
        elif step.action == "change":
            lines = difflib.unified_diff(
                step.before.strip().splitlines(), step.wanted.text.strip().splitlines(), lineterm="", n=2
            )
            for line in list(lines)[2:]:
                click.echo(f"    {line}")
        if step.kind == "query" and step.action in _CHANGES:
            for field in _fields(told, step.name):
                differences.show_field(field, "    ")
        if step.action == "change" and step.kind == "query":
            click.echo("    applies to events from then on; profiles keep what they have")
        effect = _effect(told, step.name) if step.kind == "audience" else None
        if effect is not None:
            _show_effect(effect)
    shown = {step.name.lower() for step in changes if step.kind == "audience"}
    others = [each for each in told.get("audiences", ()) if each["slug"] not in shown and each["name"] not in shown]
    for each in others:
        effect = _effect(told, each["slug"])
        if effect is not None and (effect["enters"] or effect["exits"]):
            click.echo(f"  audience {each['slug']} moves with it")
            _show_effect(effect)
    for step in steps:
        if step.action == "keep" and step.why:
            click.echo(f"  {step.kind} {step.name}: {step.why}")
    kept = len(steps) - len(changes)
    click.echo(
        f"{len(changes)} to change, {kept} as they are" if changes else f"nothing to change ({kept} as they are)"
    )


def _show_values(step: Any) -> None:
    """Shows what a new job or authorization is, or what changes of it."""
    for each in step.changes:
        click.echo(f"    {each.name}: {each.before or 'none'} -> {each.after or 'none'}")
    if step.action == "create":
        # The configuration as written: what variables of the environment hold is not for a log of a build.
        body = {key: value for key, value in step.wanted.body.items() if key != "label"} | {"config": step.wanted.raw}
        for line in dump(body).splitlines():
            click.echo(f"    {line}")


def _show_effect(effect: dict[str, Any]) -> None:
    from daemon.cli import differences

    labels = ", ".join(job["label"] for job in effect["jobs"])
    click.echo(f"    {differences.moved(effect)}{f'; sent by {labels}' if labels else ''}")
