"""`cohortd config`: the settings that hold, and all that there are."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from daemon import settings as settings_module
from daemon.cli import options


@click.command()
@options.with_settings
@options.as_json
def show(config: Path | None, data_dir: Path | None, *, json_: bool) -> None:
    """Show the settings that hold after file, environment and flags, secrets masked."""
    values = settings_module.masked(options.load(config, data_dir))
    if json_:
        click.echo(orjson.dumps(values, default=str))
        return
    for name, _, unit, description in settings_module.describe():
        value: object = values
        for part in name.split("."):
            value = value[part] if isinstance(value, dict) else None
        text = orjson.dumps(value, default=str).decode()
        click.echo(f"{name} = {text}{' ' + unit if unit else ''}  # {description}")


@click.command()
def reference() -> None:
    """Print all settings as a Markdown table, as `daemon/README.md` has it."""
    click.echo(settings_module.reference())
