"""Options that many commands share, and how a command says that it failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from daemon import settings as settings_module
from daemon.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def with_settings(command: F) -> F:
    """Adds `--data-dir` and `--config`."""
    for option in (
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            help="TOML file of settings; else $COHORTD_CONFIG.",
        ),
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Data directory; else $COHORTD_DATA_DIR, $STATE_DIRECTORY, ./var.",
        ),
    ):
        command = option(command)
    return command


def load(config: Path | None, data_dir: Path | None, **sections: dict[str, Any]) -> Settings:
    """Loads the settings, with what the flags say."""
    flags: dict[str, Any] = dict(sections)
    if data_dir is not None:
        flags["data_dir"] = data_dir
    return settings_module.load(config, flags)


def as_json(command: F) -> F:
    """Adds `--json`."""
    return click.option("--json", "json_", is_flag=True, help="JSON for programs, not a table.")(command)
