"""`cohortd job`: list, show, create, edit, copy, the commands, delete. What a job did stands in `job_history`."""

from __future__ import annotations

import shutil
import sys
from typing import Any, TextIO

import click

from daemon.cli import completing, watching
from daemon.cli.client import Client, segment
from daemon.cli.job_words import PAGE, SHORT_ID, auth_id, auth_labels, facts, find_id, job_path, listed
from daemon.cli.output import client_of, remote, show_facts, show_json, show_rows
from daemon.cli.watching import watch, watchable
from daemon.model.job import JobState

#: A terminal narrower than this shows what one looks for first, and the beginnings of ids.
_WIDE = 150
_NARROW_COLUMNS = ("id", "label", "type", "authorization", "status", "reason")
_COLUMNS = ("id", "label", "provider", "type", "direction", "authorization", "status", "reason", "modified")


@click.command("list")
@click.option("--state", type=click.Choice([each.value for each in JobState]), help="Only jobs in this state.")
@click.option("--type", "job_type", shell_complete=completing.job_types, help="Only jobs of this type.")
@click.option("--provider", shell_complete=completing.providers, help="Only jobs of this provider.")
@click.option("--auth", shell_complete=completing.auths, help="Only jobs with this authorization: its id or label.")
@click.option("--text", help="Only jobs with this in their label or description.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@watchable
@remote
def list_(
    state: str | None,
    job_type: str | None,
    provider: str | None,
    auth: str | None,
    text: str | None,
    limit: int | None,
    every_s: float | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Lists the jobs: what each sends where, its status and why."""
    client = client_of(**where)
    asked = {"state": state, "job_type": job_type, "provider": provider, "text": text}
    asked["auth_id"] = auth_id(client, auth)

    def draw() -> None:
        size = PAGE if limit is None else min(limit, PAGE)
        rows = client.pages("/v2/job", limit=limit, params={**asked, "limit": size})
        if as_json:
            show_json(rows)
            return
        labels = auth_labels(client, rows)
        narrow = sys.stdout.isatty() and shutil.get_terminal_size().columns < _WIDE
        shown = [listed(row, labels) for row in rows]
        if narrow:
            shown = [row | {"id": row["id"][:SHORT_ID]} for row in shown]
        show_rows(shown, _NARROW_COLUMNS if narrow else _COLUMNS, as_json=False, title="jobs")
        if len(rows) > 1:
            counts = {each: sum(row["state"] == each for row in rows) for each in JobState}
            click.echo(", ".join(f"{count} {each}" for each, count in counts.items() if count))

    watch(draw, every_s)


@click.command("show")
@click.argument("job", shell_complete=completing.jobs)
@watchable
@remote
def show(job: str, every_s: float | None, as_json: bool, **where: Any) -> None:
    """Shows a job: its status and why, schedule and configuration. JOB: its id, the beginning of it, or its label."""
    client = client_of(**where)
    path = job_path(client, job)
    watch(lambda: _show(client, client.call("GET", path), as_json=as_json), every_s)


@click.command("create")
@click.argument("job_type", shell_complete=completing.job_types)
@click.option("--label", required=True)
@click.option("--description", default="")
@click.option(
    "--config", type=click.File("r", encoding="utf-8"), required=True, help="JSON or YAML file, `-`: standard input."
)
@click.option("--auth", shell_complete=completing.auths, help="Authorization to use: its id or label.")
@click.option(
    "--new-auth",
    type=click.File("r", encoding="utf-8"),
    help="Or a JSON or YAML file of one to be made with the job: method, label, config.",
)
@click.option("--frequency", help="When it runs: once, minutes, hourly, daily, weekly, monthly.")
@click.option("--every", type=int, help="Every so many of these.")
@click.option("--at", "time_of_day", metavar="HH:MM", help="Time of day; without one, from the end of the last run.")
@click.option("--zone", "time_zone", help="Time zone of --at and --quiet-from, as Europe/Berlin; else UTC.")
@click.option("--weekday", help="For weekly: mon to sun.")
@click.option("--day", "day_of_month", type=int, help="For monthly: 1 to 31.")
@click.option("--quiet-from", metavar="HH:MM", help="Begin of hours in which it does not send.")
@click.option("--quiet-hours", type=float, help="How long they last.")
@click.option("--quiet-drop", is_flag=True, help="Drop what comes in them, instead of sending it afterwards.")
@click.option("--expires", "expires_at", metavar="MOMENT", help="Complete it at this moment (RFC 3339).")
@remote
def create(
    job_type: str,
    label: str,
    description: str,
    config: TextIO,
    auth: str | None,
    new_auth: TextIO | None,
    quiet_from: str | None,
    quiet_hours: float | None,
    quiet_drop: bool,
    expires_at: str | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Creates a job of JOB_TYPE and starts it; `cohortd job types` lists the types."""
    times = {
        name: rest.pop(name) for name in ("frequency", "every", "time_of_day", "time_zone", "weekday", "day_of_month")
    }
    client = client_of(**rest)
    body: dict[str, Any] = {"label": label, "description": description, "config": read_config(config)}
    if auth is not None and new_auth is not None:
        raise click.UsageError("--auth names an authorization, --new-auth makes one: give one of them")
    if auth is not None:
        body["auth_id"] = auth_id(client, auth)
    if new_auth is not None:
        body["authorization"] = read_config(new_auth)
    if schedule := _schedule(times):
        body["schedule"] = schedule
    if quiet_from is not None or quiet_hours is not None:
        if quiet_from is None or quiet_hours is None:
            raise click.UsageError("quiet hours need both --quiet-from and --quiet-hours")
        hours = int(quiet_hours) if quiet_hours.is_integer() else quiet_hours
        body["quiet"] = {"time_of_day": quiet_from, "hours": hours, "drop": quiet_drop}
        if times["time_zone"]:
            body["quiet"]["time_zone"] = times["time_zone"]
    if expires_at is not None:
        body["expires_at"] = expires_at
    _show(client, client.call("POST", f"/v2/job/{segment(job_type)}", json=body), as_json=as_json)


@click.command("edit")
@click.argument("job", shell_complete=completing.jobs)
@click.option("--label")
@click.option("--description")
@click.option(
    "--auth",
    shell_complete=completing.auths,
    help="Another authorization, by a method that enables the job's type: its id or label.",
)
@remote
def edit(job: str, label: str | None, description: str | None, auth: str | None, as_json: bool, **where: Any) -> None:
    """Changes a job's label, description or authorization; for anything else, create a new job."""
    client = client_of(**where)
    change = {"label": label, "description": description, "auth_id": auth_id(client, auth)}
    change = {name: value for name, value in change.items() if value is not None}
    if not change:
        raise click.UsageError("nothing to change: give --label, --description or --auth")
    _show(client, client.call("PATCH", job_path(client, job), json=change), as_json=as_json)


@click.command("copy")
@click.argument("job", shell_complete=completing.jobs)
@click.option("--label", help="What the copy is called.")
@remote
def copy(job: str, label: str | None, as_json: bool, **where: Any) -> None:
    """Creates a job as JOB is, and starts it: same configuration, authorization, schedule and quiet hours."""
    client = client_of(**where)
    body = {} if label is None else {"label": label}
    _show(client, client.call("POST", job_path(client, job, "/copy"), json=body), as_json=as_json)


@click.command("run")
@click.argument("job", shell_complete=completing.jobs)
@click.option("--wait", is_flag=True, help="Show what it does until the run has ended; status 1 when it failed.")
@remote
def run(job: str, wait: bool, as_json: bool, **where: Any) -> None:
    """Ends a job's sleep: it runs now."""
    client = client_of(**where)
    path = job_path(client, job)
    told = client.call("POST", f"{path}/run")
    if wait:
        told = _follow(client, path, told, as_json=as_json)
    _show(client, told, as_json=as_json)
    if wait and (told["state"] == "failed" or told["sleep_cause"] == "error"):
        raise SystemExit(1)


def _command(name: str, doc: str) -> click.Command:
    @click.command(name, help=doc)
    @click.argument("job", shell_complete=completing.jobs)
    @remote
    def command(job: str, as_json: bool, **where: Any) -> None:
        client = client_of(**where)
        _show(client, client.call("POST", job_path(client, job, f"/{name}")), as_json=as_json)

    return command


pause = _command("pause", "Pauses a job; its subscription keeps its place.")
resume = _command("resume", "Resumes a paused or failed job where it was.")
complete = _command("complete", "Ends a job for good.")


@click.command("delete")
@click.argument("job", shell_complete=completing.jobs)
@remote
def delete(job: str, as_json: bool, **where: Any) -> None:
    """Deletes a job and its subscription."""
    client = client_of(**where)
    job_id = find_id(client, "/v2/job", "job", job)
    client.call("DELETE", f"/v2/job/{segment(job_id)}")
    if as_json:
        show_json({"message": f"job {job_id} deleted"})
    else:
        click.echo(f"job {job_id} deleted")


@click.command("types")
@remote
def types(as_json: bool, **where: Any) -> None:
    """Lists the providers and the job types that they offer."""
    rows = [
        {
            "provider": provider["slug"],
            "job_type": each["slug"],
            "label": each["label"],
            "direction": each.get("direction"),
            "auth_methods": each.get("auth_methods") or [],
        }
        for provider in client_of(**where).call("GET", "/v2/provider")
        for each in provider["job_types"]
    ]
    if not as_json:
        rows = [row | {"auth_methods": ", ".join(row["auth_methods"]) or "none"} for row in rows]
    columns = ("job_type", "provider", "label", "direction", "auth_methods")
    show_rows(rows, columns, as_json=as_json, title="job types")


def read_config(file: TextIO) -> Any:
    """Gives what a JSON or YAML file holds; ends the command, saying where, when it is neither."""
    import yaml

    from daemon.cli.yaml_text import load

    try:
        content = load(file)
    except yaml.YAMLError as error:
        raise click.ClickException(f"{file.name} is neither JSON nor YAML: {error}") from error
    if not isinstance(content, dict):
        raise click.ClickException(f"{file.name} holds no configuration: give a mapping from names to values")
    return content


def _schedule(times: dict[str, Any]) -> dict[str, Any] | None:
    given = {name: value for name, value in times.items() if value is not None}
    if "frequency" not in given:
        others = sorted(set(given) - {"time_zone"})
        if others:
            raise click.UsageError("a schedule needs --frequency: once, minutes, hourly, daily, weekly or monthly")
        return None
    return given


def _show(client: Client, job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(job)
    else:
        show_facts(facts(job, auth_labels(client, [job])), as_json=False)


def _follow(client: Client, path: str, job: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Shows what a run has done until it has ended; Ctrl-C leaves it running."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=as_json,
    )
    with bar:
        task = bar.add_task("running", total=None)
        while job["state"] == "running":
            watching.pause(0.5)
            newest = client.call("GET", f"{path}/runs", params={"limit": 1})
            done = newest[0] if newest else {}
            counts = ("added", "removed", "omitted", "failed")
            words = ", ".join(f"{done[name]:,} {name}" for name in counts if done.get(name))
            bar.update(task, description=f"running: {words or 'nothing yet'}")
            job = client.call("GET", path)
    return job
