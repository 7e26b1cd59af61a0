"""What commands print: tables for a terminal, JSON for programs (`--json`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson
from rich.console import Console
from rich.table import Table

from daemon.cli.client import TIMEOUT_S, Client

F = TypeVar("F", bound=Callable[..., Any])


def remote(command: F) -> F:
    """Adds the options of a command that talks to a daemon: --data-dir, --url, --token, --json."""
    for option in reversed(
        (
            click.option(
                "--data-dir", type=click.Path(path_type=Path), help="Data directory of the daemon on this host."
            ),
            click.option("--url", envvar="COHORTD_URL", help="Address of a remote daemon, http(s)://HOST:PORT."),
            click.option("--token", envvar="COHORTD_TOKEN", help="Token for --url."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        )
    ):
        command = option(command)
    return command


def client_of(data_dir: Path | None, url: str | None, token: str | None, *, timeout_s: float = TIMEOUT_S) -> Client:
    """Gives the client that the common options name. `timeout_s`: how long an answer may take."""
    from daemon.settings import load

    folder = load(flags={"data_dir": data_dir} if data_dir else None).data_dir
    return Client(folder, url, token, timeout_s=timeout_s)


def show_json(value: object) -> None:
    """Prints a value as JSON, indented."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, title: str = "") -> None:
    """Prints rows: as a JSON array, or as a table of `columns` (keys of the rows)."""
    if as_json:
        show_json(list(rows))
        return
    if not rows:
        click.echo(f"no {title}" if title else "nothing")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = all(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    _print(table)


def show_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Prints one object: as JSON, or a line a key; longer texts (definitions) stand below, as written."""
    if as_json:
        show_json(facts)
        return
    long = {key: value for key, value in facts.items() if isinstance(value, str) and "\n" in value}
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        if key not in long:
            table.add_row(key, cell(value))
    _print(table)
    for key, value in long.items():
        click.echo(f"\n{key}:\n{value}")


def cell(value: object) -> str:
    """Gives a value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str | float):
        return str(value)
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _print(table: Table) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(table)
        return
    # For a program the lines are as long as they are, neither folded nor padded.
    wide = Console(highlight=False, markup=False, emoji=False, width=100_000)
    with wide.capture() as capture:
        wide.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())
