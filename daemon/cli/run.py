"""`cohortd run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daemon import app, log
from daemon.cli import options


@click.command()
@options.with_settings
@click.option("--listen", metavar="HOST:PORT", help="Address of the TCP listener; port 0 takes a free one.")
def run(config: Path | None, data_dir: Path | None, listen: str | None) -> None:
    """Run the daemon until SIGTERM or SIGINT; then the status is 0, within ten seconds."""
    flags: dict[str, Any] = {"server": {"listen": listen}} if listen else {}
    settings = options.load(config, data_dir, **flags)
    log.configure(settings.log.level, terminal={"auto": None, "json": False, "text": True}[settings.log.form])
    raise SystemExit(app.main(settings))
