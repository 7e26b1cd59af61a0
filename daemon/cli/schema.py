"""`cohortd schema`, and what queries and filters would change before they are saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

import click
import orjson

from daemon.cli import completing, differences
from daemon.cli.client import Client, segment
from daemon.cli.output import client_of, remote, show_json, show_rows

TABLE = "user"
PATH = f"/v2/schema/{TABLE}"
_FILE = click.File("r", encoding="utf-8")
#: A preview looks at all profiles, which takes a while when there are many.
PREVIEW_TIMEOUT_S = 3600.0


def _version(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Reads the number of a version; the table's name stands for the version that holds."""
    if value is None or value == TABLE:
        return None
    if not (value.isascii() and value.isdecimal()):
        words = f"{value!r} is not the number of a version; `cohortd schema versions` lists them"
        raise click.BadParameter(words, ctx, param)
    return int(value)


@click.command("show")
@click.argument("version", callback=_version, required=False)
@remote
def show(version: int | None, as_json: bool, **where: Any) -> None:
    """Shows the fields of profiles, as they are or as they were in VERSION."""
    path = PATH if version is None else f"{PATH}/version/{version}"
    found = client_of(**where).call("GET", path)
    if as_json:
        show_json(found)
        return
    click.echo(f"version {found['version']}, {_cause(found)}" if found["version"] else "version 0: no query was made")
    columns = ("name", "kind", "merge_op", "is_identifier", "rank", "capacity", "keep_days", "queries")
    show_rows(found["fields"], columns, as_json=False, title="fields")
    for each in found.get("query_texts", ()):
        click.echo(f"\n{each['alias']}:\n{each['text'].strip()}")


@click.command("versions")
@click.option("--limit", type=click.IntRange(1), help="Versions to show at most; default: all.")
@remote
def versions(limit: int | None, as_json: bool, **where: Any) -> None:
    """Lists the versions of the schema, the newest first: when and by what each came to be."""
    rows = client_of(**where).pages(f"{PATH}/version", limit=limit)
    if not as_json:
        rows = [{**row, "cause": _cause(row, when=False)} for row in rows]
    show_rows(rows, ("version", "at", "cause", "description"), as_json=as_json, title="versions")


@click.command("diff")
@click.argument("before", callback=_version, required=False)
@click.argument("after", callback=_version, required=False)
@click.option("--query", "queries", type=_FILE, multiple=True, help="LQL file that would be stored; may be repeated.")
@click.option("--delete", "deleted", multiple=True, help="Alias of a query that would be deleted; may be repeated.")
@click.option("--filter", "filters", type=_FILE, multiple=True, help="FilterQL file that would be stored.")
@remote
def diff(
    before: int | None,
    after: int | None,
    queries: tuple[TextIO, ...],
    deleted: tuple[str, ...],
    filters: tuple[TextIO, ...],
    as_json: bool,
    **where: Any,
) -> None:
    """Says what differs between two versions, or what files would change.

    Without anything: between the version that holds and the one before. BEFORE alone: to the one that holds. With
    --query, --delete or --filter: what would change if that were saved. Fields come with the audiences that read
    them, also through INCLUDE, and the jobs that send those.
    """
    if queries or deleted or filters:
        if before is not None:
            raise click.UsageError("give versions, or files that would be stored; not both")
        _show_diff(_proposed(client_of(**where), queries, deleted, filters), as_json=as_json)
        return
    told = client_of(**where).call("GET", f"{PATH}/diff", params={"from": before, "to": after})
    _show_diff(told, as_json=as_json)


@click.command("revert")
@click.argument("version", type=click.IntRange(0))
@click.option("--description", help="What for; kept with the new version.")
@remote
def revert(version: int, description: str | None, as_json: bool, **where: Any) -> None:
    """Makes the queries those of VERSION again, which is a new version; `schema diff` shows the difference before."""
    body = orjson.dumps({"description": description} if description else {})
    reply = client_of(**where).exchange("POST", f"{PATH}/version/{version}/revert", body=body)
    if as_json:
        show_json(reply["data"])
    elif reply["data"]["changed"]:
        click.echo(f"version {reply['data']['version']} has the queries of version {version}; it holds from now on")
    else:
        click.echo(reply["message"])


@click.command("diff")
@click.argument("files", type=_FILE, nargs=-1)
@click.option("--delete", "deleted", multiple=True, help="Alias of a query that would be deleted; may be repeated.")
@remote
def query_diff(files: tuple[TextIO, ...], deleted: tuple[str, ...], as_json: bool, **where: Any) -> None:
    """Says what the queries in FILES (`-`: standard input) would change in the schema, and saves nothing."""
    _needs(files, deleted)
    _show_diff(_proposed(client_of(**where), files, deleted, ()), as_json=as_json)


@click.command("preview")
@click.argument("files", type=_FILE, nargs=-1)
@click.option("--delete", "deleted", multiple=True, help="Alias of a query that would be deleted; may be repeated.")
@click.option("--audience", "audiences", multiple=True, help="Look at this audience, too; may be repeated.")
@click.option(
    "--events", type=click.IntRange(0, 1000), default=0, help="Also map so many last events, before and after."
)
@remote
def query_preview(
    files: tuple[TextIO, ...],
    deleted: tuple[str, ...],
    audiences: tuple[str, ...],
    events: int,
    as_json: bool,
    **where: Any,
) -> None:
    """Says who would enter and exit, and which jobs would send it, if the queries in FILES were saved; saves nothing.

    Profiles keep their values, and only new events are mapped anew. Members move by fields that would be hidden, come
    back, or begin anew.
    """
    _needs(files, deleted)
    body = {"queries": [file.read() for file in files], "delete": deleted, "audiences": audiences, "events": events}
    told = client_of(**where, timeout_s=PREVIEW_TIMEOUT_S).call("POST", "/api/query/_preview", json=body)
    if as_json:
        show_json(told)
        return
    differences.show_schema(told["schema"])
    differences.show_events(told.get("events", ()))
    differences.show_moves(told)


@click.command("preview")
@click.argument("slug", shell_complete=completing.audiences)
@click.argument("file", type=_FILE, required=False)
@remote
def audience_preview(slug: str, file: TextIO | None, as_json: bool, **where: Any) -> None:
    """Says who would enter and exit if SLUG had the filter in FILE, and which jobs would send it; saves nothing.

    Without FILE: with the filter that it has, which is who would move if all were evaluated now.
    """
    client = client_of(**where, timeout_s=PREVIEW_TIMEOUT_S)
    path = f"/v2/segment/{segment(slug)}/preview"
    told = client.call("GET", path) if file is None else client.call("POST", path, text=file.read())
    if as_json:
        show_json(told)
    else:
        differences.show_moves(told)


def _proposed(
    client: Client, queries: Sequence[TextIO], deleted: Sequence[str], filters: Sequence[TextIO]
) -> dict[str, Any]:
    body = {
        "queries": [file.read() for file in queries],
        "delete": deleted,
        "filters": [file.read() for file in filters],
    }
    told: dict[str, Any] = client.call("POST", f"{PATH}/diff", json=body)
    return told


def _show_diff(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(told)
        return
    to = "as proposed" if told["to"] is None else f"version {told['to']}"
    click.echo(f"version {told['from']} -> {to}")
    differences.show_schema(told)
    differences.show_filters(told.get("filters", ()))


def _needs(files: Sequence[TextIO], deleted: Sequence[str]) -> None:
    if not (files or deleted):
        raise click.UsageError("give a file of LQL, or --delete ALIAS")


def _cause(version: dict[str, Any], *, when: bool = True) -> str:
    """Says in words what made a version."""
    if version["cause"] == "revert":
        words = f"reverted to version {version['reverted_to']}"
    else:
        parts = [("stored", version["stored"]), ("deleted", version["deleted"])]
        words = "; ".join(f"{what} {', '.join(aliases)}" for what, aliases in parts if aliases)
    return f"{words} at {version['at']}" if when else words
