"""`cohortd job`: what jobs did (logs, runs, deliveries, metrics), doing it again, and what a new one would do."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import click
import orjson

from daemon.cli import completing, watching
from daemon.cli.client import Client, segment
from daemon.cli.job_words import PAGE, auth_id, job_path, moment
from daemon.cli.output import client_of, remote, show_facts, show_json, show_rows
from daemon.cli.watching import watch, watchable

LEVELS = ("debug", "info", "warning", "error")
_COLOURS = {"warning": "yellow", "error": "red", "debug": "bright_black"}
COUNTS = ("added", "removed", "omitted", "failed")


@click.command("logs")
@click.argument("job", required=False, shell_complete=completing.jobs)
@click.option("--level", type=click.Choice(LEVELS), help="This level and graver.")
@click.option("--run", "run_id", help="Of this run alone.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest so many lines.")
@watchable
@remote
def logs(
    job: str | None,
    level: str | None,
    run_id: str | None,
    limit: int,
    every_s: float | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Shows a job's log, or that of all jobs, the newest line last. With --watch it goes on as lines come."""
    client = client_of(**where)
    if job is None and run_id is not None:
        raise click.UsageError("--run goes with a job: name it")
    path = "/v2/job/logs" if job is None else job_path(client, job, "/logs")
    asked = {"level": level, "run": run_id, "limit": min(limit, PAGE)}
    lines = client.pages(path, limit=limit, params=asked)[::-1]
    if every_s is None and as_json:
        show_json(lines)
        return
    if not lines and every_s is None:
        click.echo("no log lines")
    try:
        _tell(lines, job, as_json=as_json)
        last = lines[-1]["id"] if lines else 0
        while every_s is not None:
            watching.pause(every_s)
            lines = _newer(client, path, asked, last)
            _tell(lines, job, as_json=as_json)
            last = lines[-1]["id"] if lines else last
    except KeyboardInterrupt:
        click.echo()


def _newer(client: Client, path: str, asked: dict[str, Any], last: int) -> list[dict[str, Any]]:
    """Gives the lines after `last`, the oldest first, however many pages they are."""
    found: list[dict[str, Any]] = []
    start: str | None = None
    while True:
        reply = client.exchange("GET", path, params={**asked, "limit": PAGE, "start": start})
        rows = reply.get("data") or []
        found += [row for row in rows if row["id"] > last]
        start = reply.get("_next")
        if not start or not rows or rows[-1]["id"] <= last:
            return found[::-1]


def _tell(lines: list[dict[str, Any]], job: str | None, *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            click.echo(orjson.dumps(line))
            continue
        of = "" if job is not None else f"{line['job_id']} "
        facts = " ".join(f"{name}={_fact(value)}" for name, value in (line.get("context") or {}).items())
        text = f"{moment(line['timestamp'])} {line['level']:<7} {of}{line['code']} {line['message']}"
        click.secho(f"{text}  {facts}".rstrip(), fg=_COLOURS.get(line["level"]))
    sys.stdout.flush()


def _fact(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


@click.command("metrics")
@click.argument("job", shell_complete=completing.jobs)
@click.option("--by", type=click.Choice(["hour", "day", "week"]), help="Spans of the activity; else hours.")
@click.option("--spans", type=click.IntRange(1, 1000), help="How many of them.")
@watchable
@remote
def metrics(job: str, by: str | None, spans: int | None, every_s: float | None, as_json: bool, **where: Any) -> None:
    """Shows what a job added, removed, omitted and failed: in all, and by hour, day or week (UTC)."""
    client = client_of(**where)
    path = job_path(client, job, "/metrics")

    def draw() -> None:
        told = client.call("GET", path, params={"by": by, "spans": spans})
        if as_json:
            show_json(told)
            return
        activity = told.pop("activity", ())
        told.pop("by", None)
        show_facts(told, as_json=False)
        rows = [each | {"start": moment(each["start"])} for each in activity]
        click.echo()
        show_rows(rows, ("start", *COUNTS), as_json=False, title="activity in this time")

    watch(draw, every_s)


@click.command("runs")
@click.argument("job", shell_complete=completing.jobs)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The newest so many.")
@watchable
@remote
def runs(job: str, limit: int, every_s: float | None, as_json: bool, **where: Any) -> None:
    """Shows a job's runs, the newest first: when, how each ended, why, and what it did."""
    client = client_of(**where)
    path = job_path(client, job, "/runs")

    def draw() -> None:
        rows = client.pages(path, limit=limit, params={"limit": min(limit, PAGE)})
        if not as_json:
            rows = [row | {name: moment(row.get(name)) for name in ("began", "ended")} for row in rows]
        show_rows(rows, ("run", "began", "ended", "outcome", *COUNTS, "reason"), as_json=as_json, title="runs")

    watch(draw, every_s)


@click.command("deliveries")
@click.argument("job", shell_complete=completing.jobs)
@click.option("--outcome", help="delivered, omitted or failed; several with commas.")
@click.option("--after", help="From this moment on (RFC 3339).")
@click.option("--before", help="Before this moment (RFC 3339).")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The newest so many.")
@watchable
@remote
def deliveries(
    job: str,
    outcome: str | None,
    after: str | None,
    before: str | None,
    limit: int,
    every_s: float | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Shows what a job sent, omitted, or failed to send, the newest first: when, to whom, answer, attempt."""
    client = client_of(**where)
    path = job_path(client, job, "/deliveries")
    asked = {"outcome": outcome, "after": after, "before": before, "limit": min(limit, PAGE)}

    def draw() -> None:
        rows = client.pages(path, limit=limit, params=asked)
        if not as_json:
            rows = [row | {"at": moment(row["at"]), "messages": row["message_count"]} for row in rows]
        columns = ("id", "at", "outcome", "status", "attempt", "messages", "bytes", "to", "answer")
        show_rows(rows, columns, as_json=as_json, title="deliveries")

    watch(draw, every_s)


@click.command("redeliver")
@click.argument("job", shell_complete=completing.jobs)
@click.option("--delivery", "ids", type=int, multiple=True, help="This delivery; may be given again.")
@click.option("--failed", is_flag=True, help="What failed, and was not delivered since.")
@click.option("--omitted", is_flag=True, help="What the destination refused, and was not delivered since.")
@click.option("--delivered", is_flag=True, help="What was delivered.")
@click.option("--after", help="With the three above: from this moment on (RFC 3339).")
@click.option("--before", help="With the three above: before this moment (RFC 3339).")
@click.option("--first-trigger", type=click.IntRange(1), help="Triggers from this id on.")
@click.option("--last-trigger", type=click.IntRange(1), help="Triggers up to this id.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@remote
def redeliver(
    job: str,
    ids: tuple[int, ...],
    after: str | None,
    before: str | None,
    first_trigger: int | None,
    last_trigger: int | None,
    dry_run: bool,
    as_json: bool,
    **rest: Any,
) -> None:
    """Sends messages of a job again: deliveries by id, all that failed or were omitted, or a range of triggers."""
    outcomes = [name for name in ("delivered", "omitted", "failed") if rest.pop(name)]
    asked = {
        "deliveries": list(ids),
        "outcomes": outcomes,
        "after": after,
        "before": before,
        "first_trigger": first_trigger,
        "last_trigger": last_trigger,
    }
    body = {name: value for name, value in asked.items() if value}
    if not body:
        raise click.UsageError("what is to be sent again? --failed, --omitted, --delivery ID, or --first-trigger ID")
    client = client_of(**rest)
    told = client.call("POST", job_path(client, job, "/redeliver"), json=body | {"dryrun": dry_run})
    if as_json:
        show_json(told)
    else:
        click.echo(f"{'would be: ' if dry_run else ''}{told['statement']}")


@click.command("dryrun")
@click.argument("job_type", shell_complete=completing.job_types)
@click.option(
    "--config", type=click.File("r", encoding="utf-8"), required=True, help="JSON or YAML file, `-`: standard input."
)
@click.option("--auth", shell_complete=completing.auths, help="Authorization to use: its id or label.")
@click.option("--send", is_flag=True, help="Send one sample.")
@remote
def dryrun(job_type: str, config: TextIO, auth: str | None, send: bool, as_json: bool, **where: Any) -> None:
    """Shows what a job of JOB_TYPE would send; sends nothing, or with --send that one message. No job is made.

    The exit status is 1 when the destination did not take the sample.
    """
    from daemon.cli.jobs import read_config

    client = client_of(**where)
    body: dict[str, Any] = {"config": read_config(config)}
    if auth is not None:
        body["auth_id"] = auth_id(client, auth)
    path = f"/v2/job/{segment(job_type)}/dryrun"
    told = client.call("POST", path, json=body, params={"send": 1 if send else None})
    sent = told.get("sent")
    if as_json:
        show_json(told)
    elif "rows" in told:
        for row in told["rows"]:
            show_json(row)
        for refused in told["refused"]:
            click.echo(f"refused: line {refused['line']}: {refused['msg']}", err=True)
        if not told["rows"]:
            click.echo(told["error"] or "there is nothing yet")
    else:
        message = told["message"]
        members = ", ".join(f"{count:,} in {slug}" for slug, count in told["members"].items())
        show_facts({"members": members, "would be sent at once": told["would_send_now"]}, as_json=False)
        click.echo()
        click.echo("nobody is in these audiences, so there is no example" if message is None else "one of them:")
        if message is not None:
            show_json(message)
        if sent is not None:
            click.echo()
            show_facts({name: value for name, value in sent.items() if value is not None}, as_json=False)
    if sent is not None and sent["outcome"] != "delivered":
        raise SystemExit(1)
