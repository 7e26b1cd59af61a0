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
@options.with_settings
@options.as_json
def replay(into: Path | None, config: Path | None, data_dir: Path | None, json_: bool) -> None:
    """Rebuilds profiles and memberships from the log, and compares them with the state.

    Beside a running daemon or without one; nothing is delivered and the state is not changed. Exit status 1 when
    something differs, or when the log no longer has all events.
    """
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
