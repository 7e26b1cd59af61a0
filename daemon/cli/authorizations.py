"""`cohortd auth`: list, show, methods, create, edit, check, delete, metrics, rotate-key.

Secrets are asked for, read from standard input, or given by reference; never as an argument, where every user of the
host and the shell's history see them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import click
import orjson

from connectors.sdk.secret import check_reference, is_reference
from daemon.cli import completing
from daemon.cli.client import Client, segment
from daemon.cli.job_words import PAGE, auth_id, moment
from daemon.cli.output import client_of, remote, show_facts, show_json, show_rows
from daemon.cli.watching import watch, watchable

_COLUMNS = ("id", "label", "provider", "method", "status", "reason", "jobs", "checked", "last used", "owner")
_UNITS = ("hour", "day", "week")
_STATUS_COLOURS = {"healthy": "green", "unhealthy": "red", "unknown": "yellow"}


@click.command("list")
@click.option("--provider", help="Only authorizations with this provider.")
@click.option("--method", help="Only authorizations by this method.")
@click.option("--status", type=click.Choice(("healthy", "unhealthy", "unknown")), help="Only those that are this.")
@watchable
@remote
def list_(
    provider: str | None,
    method: str | None,
    status: str | None,
    every_s: float | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Lists the authorizations: whether each works and why, and how many jobs use it."""
    client = client_of(**where)
    asked = {"provider": provider, "method": method, "status": status, "limit": PAGE}

    def draw() -> None:
        rows = client.pages("/v2/auth", params=asked)
        if as_json:
            show_json(rows)
            return
        show_rows([_listed(row) for row in rows], _COLUMNS, as_json=False, title="authorizations")

    watch(draw, every_s)


@click.command("show")
@click.argument("auth", shell_complete=completing.auths)
@remote
def show(auth: str, as_json: bool, **where: Any) -> None:
    """Shows an authorization: whether it works, what is no secret in it, its jobs. AUTH: its id or label."""
    client = client_of(**where)
    _show(client.call("GET", _path(client, auth)), as_json=as_json)


@click.command("methods")
@click.argument("provider", required=False, shell_complete=completing.providers)
@remote
def methods(provider: str | None, as_json: bool, **where: Any) -> None:
    """Lists the ways to authorize: with which fields, and which job types each enables."""
    client = client_of(**where)
    found = client.call("GET", f"/v2/provider/{segment(provider)}" if provider else "/v2/provider")
    providers = [found] if provider else found
    rows = [{"provider": each["slug"], **method} for each in providers for method in each["auth_methods"]]
    if as_json:
        show_json(rows)
        return
    shown = [
        {
            "provider": row["provider"],
            "method": row["slug"],
            "label": row["label"],
            "fields": ", ".join(_field_words(row)),
            "enables": ", ".join(row["job_types"]),
        }
        for row in rows
    ]
    show_rows(shown, ("provider", "method", "label", "fields", "enables"), as_json=False, title="methods")
    if shown:
        click.echo("* secret, ? may be left out")


@click.command("create")
@click.argument("provider", shell_complete=completing.providers)
@click.argument("method")
@click.option("--label", required=True)
@click.option("--description", default="")
@click.option(
    "--set",
    "fields",
    multiple=True,
    metavar="FIELD=VALUE",
    help="A field; of a mapping FIELD.KEY=VALUE. A secret: env:NAME, file:/path or credential:name.",
)
@click.option("--ask", multiple=True, metavar="FIELD", help="Ask for this secret, too; required ones are asked for.")
@click.option("--stdin", "piped", metavar="FIELD", help="Read this secret from standard input.")
@click.option(
    "--config", type=click.File("r", encoding="utf-8"), help="JSON or YAML file of fields, `-`: standard input."
)
@remote
def create(
    provider: str,
    method: str,
    label: str,
    description: str,
    fields: Sequence[str],
    ask: Sequence[str],
    piped: str | None,
    config: TextIO | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Checks an authorization with its provider, and makes it. `cohortd auth methods` lists methods and fields.

    Required secrets that are not given are asked for, without showing them.
    """
    client = client_of(**where)
    declared = _method(client, provider, method)
    secret = set(declared["secrets"])
    values = _read(config) if config is not None else {}
    for each in fields:
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise click.BadParameter("give FIELD=VALUE", param_hint="--set")  # what was given may be a secret
        _put(values, name, _value(declared, name, text, secret=name.split(".", 1)[0] in secret))
    if piped is not None:
        _put(values, piped, sys.stdin.read().removesuffix("\n").removesuffix("\r"))
    for name in dict.fromkeys((*ask, *_missing(declared, values, ask))):
        _put(values, name, _asked(name))
    body = {"label": label, "description": description, "config": values}
    made = client.call("POST", f"/v2/auth/{segment(provider)}/{segment(method)}", json=body)
    _show(made, as_json=as_json)


@click.command("edit")
@click.argument("auth", shell_complete=completing.auths)
@click.option("--label")
@click.option("--description")
@remote
def edit(auth: str, label: str | None, description: str | None, as_json: bool, **where: Any) -> None:
    """Changes an authorization's label or description; for other values make a new one, and give its jobs that."""
    if label is None and description is None:
        raise click.UsageError("give --label or --description")
    client = client_of(**where)
    body = {"label": label, "description": description}
    _show(client.call("PATCH", _path(client, auth), json=body), as_json=as_json)


@click.command("check")
@click.argument("auth", shell_complete=completing.auths)
@remote
def check(auth: str, as_json: bool, **where: Any) -> None:
    """Checks an authorization with its provider now; the exit status is 1 when it is unhealthy."""
    client = client_of(**where)
    found = client.call("POST", _path(client, auth, "/check"))
    if as_json:
        show_json(found)
    else:
        click.secho(found["status"], fg=_STATUS_COLOURS[found["status"]], bold=True, nl=False)
        click.echo(f": {found['reason']}" if found["reason"] else _why_unknown(found))
    if found["status"] == "unhealthy":
        raise SystemExit(1)


@click.command("delete")
@click.argument("auth", shell_complete=completing.auths)
@remote
def delete(auth: str, as_json: bool, **where: Any) -> None:
    """Deletes an authorization; refused while running, sleeping or paused jobs use it."""
    client = client_of(**where)
    client.call("DELETE", _path(client, auth))
    show_json({"message": "deleted"}) if as_json else click.echo(f"authorization {auth} deleted")


@click.command("metrics")
@click.argument("auth", shell_complete=completing.auths)
@click.option("--by", type=click.Choice(_UNITS), default="hour", show_default=True)
@watchable
@remote
def metrics(auth: str, by: str, every_s: float | None, as_json: bool, **where: Any) -> None:
    """Shows the API requests made with an authorization, by hour, day or week (UTC)."""
    client = client_of(**where)
    path = _path(client, auth, "/metrics")

    def draw() -> None:
        counts = client.call("GET", path)
        if as_json:
            show_json(counts)
            return
        rows = [{by: moment(each["start"]), "requests": each["requests"]} for each in counts[by]]
        show_rows(rows, (by, "requests"), as_json=False, title="requests yet")
        click.echo("now: " + ", ".join(f"{counts['now'][unit]:,} this {unit}" for unit in _UNITS))

    watch(draw, every_s)


@click.command("rotate-key")
@click.option("--keep-old", is_flag=True, help="Old keys stay and open, for backups that were made under them.")
@remote
def rotate_key(keep_old: bool, as_json: bool, **where: Any) -> None:
    """Replaces the key that authorizations are sealed with, beside a running daemon or without one.

    Every secret can be read throughout. Cut off in the middle, it is finished by doing it again. The exit status is 1
    when secrets are left that cannot be opened.
    """
    client = client_of(**where)
    rotated: dict[str, Any]
    if client.url is None and not _runs(client.data_dir):
        rotated = _rotate_here(client.data_dir, keep=keep_old)
    else:
        rotated = client.call("POST", "/v2/auth/rotate-key", json={"keep": keep_old})
    if as_json:
        show_json(rotated)
    else:
        _tell(rotated)
    if rotated["left"]:
        raise SystemExit(1)


def _tell(rotated: Mapping[str, Any]) -> None:
    if rotated["finished"]:
        click.echo("secrets were still under older keys: no new key was made, these were sealed with the present one")
    click.echo(f"key {rotated['key']} seals; {rotated['resealed']:,} secrets were sealed anew")
    if rotated["dropped"]:
        click.echo(f"gone: key {', '.join(rotated['dropped'])}; backups made under it need it, see --keep-old")
    if rotated["unused"]:
        click.echo(
            f"no secret needs key {', '.join(rotated['unused'])} any more: it can be taken away where it is given"
        )
    for key, count in rotated["left"].items():
        click.secho(
            f"{count:,} secrets are still sealed with key {key}, which is not there: put it back, or make these "
            "authorizations anew (`cohortd auth list --status unknown`)",
            fg="red",
        )


def _runs(data_dir: Path) -> bool:
    from daemon import lock

    return lock.holder(data_dir) is not None


def _rotate_here(data_dir: Path, *, keep: bool) -> dict[str, Any]:
    """Replaces the key in a data directory that no daemon holds."""
    from functools import partial

    from daemon import lock, log
    from daemon.jobs.rotation import rotate
    from daemon.settings import load
    from daemon.store.database import Database
    from daemon.store.migrate import migrate
    from daemon.vault import Vault, VaultError

    if not (data_dir / "state.db").exists():
        raise click.ClickException(f"{data_dir} is no data directory of cohortd; name one with --data-dir")
    log.configure("critical")  # what went wrong is told below, in words

    async def work() -> dict[str, Any]:
        with lock.hold(data_dir):
            vault = Vault.open(data_dir, load(flags={"data_dir": data_dir}))
            async with Database.open(data_dir / "state.db", prepare=partial(migrate, database="state")) as state:
                return asdict(await rotate(state, vault, keep=keep))

    try:
        return asyncio.run(work())
    except (VaultError, lock.LockedError) as error:
        raise click.ClickException(str(error)) from error


def _path(client: Client, auth: str, what: str = "") -> str:
    return f"/v2/auth/{segment(auth_id(client, auth) or '')}{what}"


def _method(client: Client, provider: str, method: str) -> dict[str, Any]:
    found = client.call("GET", f"/v2/provider/{segment(provider)}")["auth_methods"]
    for each in found:
        if each["slug"] == method:
            return dict(each)
    there = ", ".join(each["slug"] for each in found) or "none"
    raise click.ClickException(f"provider {provider} has no authorization method {method!r}; there are {there}")


def _read(file: TextIO) -> dict[str, Any]:
    """Gives what a JSON or YAML file holds; a refusal names the line, and repeats nothing of it."""
    import yaml

    from daemon.cli.yaml_text import load

    try:
        content = load(file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise click.ClickException(f"{file.name}{place}: neither JSON nor YAML") from None
    if not isinstance(content, dict):
        raise click.ClickException(f"{file.name} holds no fields: give a mapping from names to values")
    return content


def _missing(declared: Mapping[str, Any], values: Mapping[str, Any], ask: Sequence[str]) -> list[str]:
    """Gives the required secrets that were not given. Of a mapping only who makes it knows the names."""
    given = {*values, *(name.partition(".")[0] for name in ask)}
    missing = []
    for name in declared["schema"].get("required", ()):
        if name not in declared["secrets"] or name in given:
            continue
        if declared["schema"]["properties"][name].get("type") == "object":
            raise click.UsageError(
                f"{name} holds secrets by name: give each with --ask {name}.NAME, or --set by reference"
            )
        missing.append(name)
    return missing


def _value(declared: Mapping[str, Any], name: str, text: str, *, secret: bool) -> Any:
    """Gives what `--set` means: text, or JSON where the field is no text. A secret in clear is refused."""
    if secret:
        if not is_reference(text):
            raise click.UsageError(
                f"{name} is a secret: as an argument every user of this host, and the shell's history, would see it. "
                f"Leave it out to be asked for it, pipe it in with --stdin {name}, or name where it is: "
                f"--set {name}=env:NAME, file:/path or credential:name"
            )
        try:
            return check_reference(text)
        except ValueError as error:
            raise click.BadParameter(f"{name}: {error}", param_hint="--set") from None
    schema = declared["schema"].get("properties", {}).get(name, {})
    kinds = {schema.get("type"), *(each.get("type") for each in schema.get("anyOf", ()))}
    if "string" in kinds or not kinds - {None}:
        return text
    try:
        return orjson.loads(text)
    except ValueError:
        return text  # the daemon says what would be accepted


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    field, dot, key = name.partition(".")
    if dot:
        values.setdefault(field, {})[key] = value
    else:
        values[field] = value


def _asked(name: str) -> str:
    if not _somebody_there():
        raise click.UsageError(
            f"{name} is needed, and there is nobody to ask: pipe it in with --stdin {name}, or name where it is: "
            f"--set {name}=env:NAME, file:/path or credential:name"
        )
    return str(click.prompt(name, hide_input=True, err=True))


def _somebody_there() -> bool:
    return sys.stdin.isatty()


def _field_words(method: Mapping[str, Any]) -> list[str]:
    required = method["schema"].get("required", ())
    return [
        f"{name}{'*' if name in method['secrets'] else ''}{'' if name in required else '?'}"
        for name in method["schema"].get("properties", {})
    ]


def _listed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "jobs": sum(row["jobs"].values()),
        "checked": moment(row["checked"]),
        "last used": moment(row["last_used"]),
    }


def _show(row: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(row)
        return
    secrets = {
        name: (each["reference"] or "set, sealed") if each["set"] else "not set"
        for name, each in row["secrets"].items()
    }
    facts = {key: value for key, value in row.items() if key not in ("config", "secrets", "jobs")}
    facts |= {key: moment(row[key]) for key in ("since", "checked", "next_check", "last_used", "created", "modified")}
    facts |= row["config"] | secrets
    facts["jobs"] = ", ".join(f"{count} {state}" for state, count in row["jobs"].items()) or "none"
    show_facts(facts, as_json=False)
    if row["status"] == "unknown":
        click.secho(f"unknown{_why_unknown(row)}", fg="yellow", err=True)


def _why_unknown(row: Mapping[str, Any]) -> str:
    if row["reason"]:
        return f": {row['reason']}"
    return ": it was not checked; what its jobs meet decides" if row["status"] == "unknown" else ""
