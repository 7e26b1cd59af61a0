"""`cohortd replay`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from daemon.cli import options
from daemon.cli.output import show_facts


@click.command("replay")
@click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the rebuilt state in this new file; else it is thrown away.",
)
@click.option("--query", "alias", help="Apply this query to the past, in the running daemon; compares nothing.")
@click.option("--dry-run", is_flag=True, help="With --query: say what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="With --query: accept that the log has lost a part of the past.")
@click.option("--cancel", is_flag=True, help="With --query: give up what is under way; the fields stay as they are.")
@click.option("--wait/--no-wait", default=True, help="With --query: show how far it is until it has ended.")
@click.option("--url", envvar="COHORTD_URL", help="With --query: address of a remote daemon, http(s)://HOST:PORT.")
@click.option("--token", envvar="COHORTD_TOKEN", help="Token for --url.")
@options.with_settings
@options.as_json
def replay(
    into: Path | None, alias: str | None, dry_run: bool, yes: bool, cancel: bool, wait: bool, url: str | None,
    token: str | None, config: Path | None, data_dir: Path | None, json_: bool,
) -> None:  # fmt: skip
    """Rebuilds profiles and memberships from the log, and compares them with the state.

    Beside a running daemon or without one; nothing is delivered and the state is not changed. Exit status 1 when
    something differs, or when the log no longer has all events.

    With --query the fields of that query are made again from the past in the running daemon. A changed query applies
    to new events alone; this applies it to the old ones. It goes on when you leave, and over restarts.
    """
    if alias is not None:
        from daemon.cli.client import Client
        from daemon.cli.replaying import replay_query

        if into is not None:
            raise click.UsageError("--into goes without --query")
        client = Client(options.load(config, data_dir).data_dir, url, token)
        replay_query(client, alias, dry_run=dry_run, yes=yes, cancel=cancel, wait=wait, as_json=json_)
        return
    if dry_run or yes or cancel or not wait:
        raise click.UsageError("--dry-run, --yes, --cancel and --no-wait go with --query ALIAS")
    from daemon.ingest.replay import ReplayError, Report
    from daemon.ingest.replay import replay as run
    from daemon.store.migrate import NewerFileError

    where = options.load(config, data_dir).data_dir
    bar = Progress(
        TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True, disable=json_
    )

    async def rebuild(target: Path) -> Report:
        task = bar.add_task("events", total=None)
        return await run(
            where / "events.db",
            where / "state.db",
            target,
            lambda done, everything: bar.update(task, completed=done, total=everything),
        )

    try:
        with bar, tempfile.TemporaryDirectory(dir=where, prefix="replay-") as folder:
            report = asyncio.run(rebuild(into or Path(folder) / "state.db"))
    except (ReplayError, NewerFileError, OSError) as error:
        raise click.ClickException(str(error)) from error
    show_facts(
        {
            "events": report.events,
            "decisions": report.decisions,
            "profiles": report.profiles,
            "memberships": report.memberships,
            "complete": report.complete,
            "unfinished": report.unfinished,
            "differing": report.differing,
            "differences": report.differences,
        },
        as_json=json_,
    )
    if not report.complete:
        click.echo(
            "The log no longer has all events of the history (retention): older profiles cannot be rebuilt.", err=True
        )
    if not report.same:
        raise SystemExit(1)
