"""Commands about one person: erase, let in again, export. `cohortd profile erase`, `erasures`, `admit`, `export`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from daemon.cli.client import Client, segment
from daemon.cli.output import client_of, remote, show_facts, show_json, show_rows

_COLUMNS = ("id", "state", "accepted", "searched", "scrubbed", "cut", "kept", "rejects", "finished", "admitted")


@click.command("erase")
@click.argument("field")
@click.argument("value")
@click.option("--allow-return", is_flag=True, help="Events that come from now on make a new profile.")
@click.option("--wait", is_flag=True, help="Wait until nothing is left; the destinations must have taken the exits.")
@click.confirmation_option("--yes", prompt="Erase this person, in profile and log, for good?")
@remote
def erase(field: str, value: str, allow_return: bool, wait: bool, as_json: bool, **where: Any) -> None:
    """Erases the person that FIELD = VALUE names, in profile and log; their audiences' destinations get exits.

    Profile, keys and memberships are gone at once; the log is searched in the background. Events that name the person
    later are not taken in, unless --allow-return. Backups, and what destinations hold, are out of reach.
    """
    client = client_of(**where)
    params = {"allow_return": "true"} if allow_return else None
    accepted = client.exchange("DELETE", f"/api/entity/user/{segment(field)}/{segment(value)}", params=params)["data"]
    if wait:
        accepted = _waited(client, accepted)
    if as_json:
        show_json(accepted)
        return
    show_facts(accepted, as_json=False)
    if accepted["state"] != "done":
        click.echo(f"accepted; `cohortd profile erasures {accepted['id']}` says how far it is")


def _waited(client: Client, accepted: Mapping[str, Any]) -> Any:
    found: Any = accepted
    while found["state"] != "done":
        time.sleep(0.2)
        found = client.call("GET", f"/v2/erasure/{found['id']}")
    return found


@click.command("erasures")
@click.argument("erasure", metavar="[ID]", required=False)
@remote
def erasures(erasure: str | None, as_json: bool, **where: Any) -> None:
    """Says how far erasures are: the one with ID, or all."""
    client = client_of(**where)
    if erasure is not None:
        show_facts(client.call("GET", f"/v2/erasure/{segment(erasure)}"), as_json=as_json)
        return
    show_rows(client.pages("/v2/erasure"), _COLUMNS, as_json=as_json, title="erasures")


@click.command("admit")
@click.argument("field")
@click.argument("value")
@remote
def admit(field: str, value: str, as_json: bool, **where: Any) -> None:
    """Lets a person come back who was erased; FIELD = VALUE is a key they had.

    Events from now on make a profile again; those that were turned away stay away.
    """
    reply = client_of(**where).call("POST", f"/v2/entity/user/{segment(field)}/{segment(value)}/admit")
    if as_json:
        show_json(reply)
    else:
        click.echo(f"admitted (erasure {', '.join(reply['erasures'])})")


@click.command("export")
@click.argument("field")
@click.argument("value")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="ZIP file to be made.")
@remote
def export(field: str, value: str, output: Path, as_json: bool, **where: Any) -> None:
    """Writes all that is held about the person FIELD = VALUE to a ZIP archive; its README.txt says what is in it."""
    part = output.with_name(f".{output.name}.part")
    try:
        # For its owner only, and there under its name when it is whole.
        with open(part, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            size = client_of(**where).download(
                f"/v2/entity/user/{segment(field)}/{segment(value)}/export", file
            )  # fmt: skip
        part.replace(output)
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    if as_json:
        show_json({"file": str(output), "bytes": size})
    else:
        click.echo(f"{output}: {size:,} bytes")
