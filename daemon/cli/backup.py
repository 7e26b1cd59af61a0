"""`cohortd backup` and `cohortd restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from daemon import clock
from daemon.cli.output import show_facts

PAGE_BYTES = 4096

directory = click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory.")
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _data_dir(data_dir: Path | None) -> Path:
    from daemon.settings import load

    return load(flags={"data_dir": data_dir} if data_dir else None).data_dir


@click.command("backup")
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@directory
@as_json_option
def backup(target: Path, data_dir: Path | None, as_json: bool) -> None:
    """Copies the data directory's databases into the new folder TARGET, beside a running daemon or without one."""
    from daemon.store import backup as backups

    bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), transient=True, disable=as_json)
    tasks: dict[str, Any] = {}

    def show(name: str, done: int, total: int) -> None:
        task = tasks.setdefault(name, bar.add_task(name, total=None))
        bar.update(task, completed=done * PAGE_BYTES, total=total * PAGE_BYTES)

    try:
        with bar:
            taken = backups.take(_data_dir(data_dir), target, now_us=clock.now_us(), progress=show)
    except backups.BackupError as error:
        raise click.ClickException(str(error)) from error
    show_facts(_facts(taken, target), as_json=as_json)


@click.command("restore")
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@directory
@click.option("--replace", is_flag=True, help="Move databases that are there aside.")
@click.option("--check-only", is_flag=True, help="Verify the backup and restore nothing.")
@as_json_option
def restore(source: Path, data_dir: Path | None, replace: bool, check_only: bool, as_json: bool) -> None:
    """Restores the backup SOURCE into the data directory, with no daemon running on it.

    Triggers get new ids from then on, well above those given before, so that no receiver takes a new one for a repeat.
    """
    from daemon.lock import LockedError, hold
    from daemon.store import backup as backups

    try:
        if check_only:
            show_facts(_facts(backups.verify(source), source), as_json=as_json)
            return
        where = _data_dir(data_dir)
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        with hold(where):
            restored = backups.restore(source, where, replace=replace)
    except (backups.BackupError, LockedError) as error:
        raise click.ClickException(str(error)) from error
    show_facts(_facts(restored, where), as_json=as_json)


def _facts(found: Any, where: Path) -> dict[str, Any]:
    return {
        "folder": str(where),
        "taken": clock.from_us(found.taken_us).isoformat(),
        "cursor": found.cursor,
        "bytes": sum(found.sizes.values()),
    }
