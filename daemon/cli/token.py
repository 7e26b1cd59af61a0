"""`cohortd token`: works on the file, so before the first start and beside a running daemon alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import click
import orjson

from daemon import clock
from daemon.cli import options
from daemon.store import tokens


@click.command()
@options.with_settings
@click.option(
    "--scope",
    type=click.Choice(get_args(tokens.Scope)),
    required=True,
    help="data: collect; read: look; admin: everything.",
)
@click.option("--label", default="", help="What it is for, in your words.")
@click.option("--stream", help="Stream of Segment calls made with it; else segment.")
def create(config: Path | None, data_dir: Path | None, scope: tokens.Scope, label: str, stream: str | None) -> None:
    """Make a token and print it, alone, on the last line; it cannot be shown again."""
    with _store(config, data_dir) as db:
        token = tokens.create(db, scope, label, stream)
    click.echo(token)


@click.command("list")
@options.with_settings
@options.as_json
def list_(config: Path | None, data_dir: Path | None, *, json_: bool) -> None:
    """List the tokens, revoked ones too; the tokens themselves are not stored."""
    with _store(config, data_dir) as db:
        rows = tokens.listed(db)
    if json_:
        click.echo(orjson.dumps([_shown(row) for row in rows]))
        return
    from rich.console import Console  # costs more than the rest of this command
    from rich.table import Table

    table = Table("id", "scope", "label", "stream", "created", "revoked")
    for row in rows:
        shown = _shown(row)
        table.add_row(*(str(shown[name] or "") for name in ("id", "scope", "label", "stream", "created", "revoked")))
    Console().print(table)


@click.command()
@options.with_settings
@click.argument("token")
def revoke(config: Path | None, data_dir: Path | None, token: str) -> None:
    """Revoke TOKEN, given by its id or itself; a running daemon refuses it within two seconds."""
    with _store(config, data_dir) as db:
        if not tokens.revoke(db, token):
            raise click.ClickException("no live token has that id or text; `cohortd token list` shows the ids")
    click.echo("revoked")


@contextmanager
def _store(config: Path | None, data_dir: Path | None) -> Iterator[sqlite3.Connection]:
    directory = options.load(config, data_dir).data_dir
    try:
        with tokens.beside(directory) as db:
            yield db
    except (OSError, sqlite3.Error, RuntimeError) as error:
        raise click.ClickException(f"{directory}: {error}") from error


def _shown(row: tokens.Listed) -> dict[str, object]:
    shown: dict[str, object] = asdict(row)
    created_us, revoked_us = shown.pop("created_us"), shown.pop("revoked_us")
    shown["created"] = _time(created_us)
    shown["revoked"] = _time(revoked_us)
    return shown


def _time(moment_us: object) -> str | None:
    return clock.from_us(moment_us).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(moment_us, int) else None
