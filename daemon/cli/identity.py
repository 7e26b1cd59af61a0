"""`cohortd identity`, `cohortd profile split` and `rejoin`: what keeps people apart, and taking them apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click
import orjson

from daemon.cli.client import segment
from daemon.cli.output import client_of, remote, show_facts, show_json, show_rows

_GUARDS = "/v2/identity/guard"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Seconds(click.ParamType[float]):
    """A length of time such as 90, 10m, 24h, 7d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Gives it in seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a time such as 90, 10m, 24h or 7d", param, ctx)
        return float(found[1]) * _UNITS[found[2] or "s"]


class KeyArgument(click.ParamType[tuple[str, str]]):
    """A key, as FIELD=VALUE."""

    name = "field=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Gives field and value."""
        field, equals, text = str(value).partition("=")
        if not equals or not field:
            self.fail(f"{value!r} is not FIELD=VALUE, for example email=ann@example.com", param, ctx)
        return field, text


@click.command("list")
@click.option("--builtin", is_flag=True, help="Also list the values that are refused without a guard.")
@remote
def guard_list(builtin: bool, as_json: bool, **where: Any) -> None:
    """Lists the merge guards: values that identify nobody, and how often keys may be stitched."""
    reply = client_of(**where).exchange("GET", _GUARDS)
    if as_json:
        show_json(
            {**({"builtin": reply["builtin"]} if builtin else {}), "default": reply["default"]}
            | {"guards": reply["data"]}
        )
        return
    rows = [_row(each) for each in reply["data"]]
    show_rows(rows, ("id", "kind", "field", "what", "note", "created"), as_json=False, title="merge guards")
    default = reply["default"]
    limit = f"{default['stitches']:,} stitches in {default['window_s']:,g} s" if default["stitches"] else "no limit"
    click.echo(
        f"without a guard: {limit} to keys of its own or a stronger identity; {default['keys']:,} keys a profile"
    )
    if builtin:
        click.echo(f"never keys: {', '.join(reply['builtin'])}, zeros in every form, more than 256 bytes")


def _row(guard: Mapping[str, Any]) -> dict[str, Any]:
    if guard["kind"] == "value":
        what = f"refuses {'like ' if guard['glob'] else ''}{guard['value']}"
    else:
        limit = f"{guard['stitches']:,} in {guard['window_s']:,g} s" if guard["stitches"] else "no limit"
        what = f"to {guard['to'] or 'its own and stronger ones'}: {limit}"
    return {**guard, "what": what, "field": guard["field"] or "every identity"}


@click.command("refuse")
@click.argument("values", nargs=-1, required=True)
@click.option("--field", help="Only as this identity; else as every one.")
@click.option("--glob", is_flag=True, help="VALUES are patterns: * any run, ? one character, [a-z] a class.")
@click.option("--note", default="", help="Why; for people.")
@remote
def guard_refuse(
    values: tuple[str, ...], field: str | None, glob: bool, note: str, as_json: bool, **where: Any
) -> None:
    """Refuses VALUES as keys from now on: they identify nobody. Compared without case."""
    body = [{"kind": "value", "field": field, "value": value, "glob": glob, "note": note} for value in values]
    _made(client_of(**where).exchange("POST", _GUARDS, body=orjson.dumps(body)), as_json=as_json)
    if not glob and not as_json and any("*" in value for value in values):
        click.secho("`*` stands for itself here; with --glob it is a pattern", fg="yellow")


@click.command("limit")
@click.argument("field")
@click.option("--stitches", type=click.IntRange(0), required=True, help="Within the window; 0: no limit.")
@click.option("--window", type=Seconds(), default="24h", show_default=True, help="By the time of arrival.")
@click.option("--to", help="Stitches to keys of this identity; else to its own and every stronger one.")
@click.option("--note", default="", help="Why; for people.")
@remote
def guard_limit(
    field: str, stitches: int, window: float, to: str | None, note: str, as_json: bool, **where: Any
) -> None:
    """Limits how often one key of FIELD may be stitched to keys of an identity."""
    body = {"kind": "stitches", "field": field, "to": to, "stitches": stitches, "window_s": window, "note": note}
    _made(client_of(**where).exchange("POST", _GUARDS, body=orjson.dumps([body])), as_json=as_json)


def _made(reply: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json({"guards": reply["data"], "owners": reply["owners"]})
        return
    for each in reply["data"]:
        row = _row(each)
        click.echo(f"guard {row['id']}, {row['field']}: {row['what']}; holds from now on")
    for owner in reply["owners"]:
        click.secho(
            f"profile {owner['profile']} is known by {owner['field']} = {owner['value']} already, and keeps it: "
            "see `cohortd profile split`",
            fg="yellow",
        )


@click.command("remove")
@click.argument("guard_id", type=int)
@remote
def guard_remove(guard_id: int, as_json: bool, **where: Any) -> None:
    """Removes a merge guard; what it refused can be a key from then on."""
    client_of(**where).call("DELETE", f"{_GUARDS}/{guard_id}")
    show_json({"message": "deleted"}) if as_json else click.echo(f"guard {guard_id} removed")


@click.command("split")
@click.argument("field")
@click.argument("value")
@click.argument("keys", nargs=-1, required=True, type=KeyArgument(), metavar="KEY=VALUE...")
@click.option("--dry-run", is_flag=True, help="Show both halves, change nothing.")
@click.option("--stitch-again", is_flag=True, help="Let the next event with keys of both stitch them again.")
@remote
def profile_split(
    field: str,
    value: str,
    keys: tuple[tuple[str, str], ...],
    dry_run: bool,
    stitch_again: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Takes keys of the profile that FIELD = VALUE names out into a new profile, with what their events made.

    An event belongs to the strongest key in it, so a key that came only beside stronger ones takes no values with it.
    Both profiles are evaluated anew, and kept apart from then on.
    """
    body = {"keys": [list(each) for each in keys], "dry_run": dry_run, "keep_apart": not stitch_again}
    done = client_of(**where).call("POST", f"{_place(field, value)}/split", json=body)
    if as_json:
        show_json(done)
        return
    for name in ("kept", "made"):
        half = done[name]
        who = f"profile {half['profile']}" if half["profile"] else "a new profile"
        verb = "would keep" if dry_run and name == "kept" else "would get" if dry_run else "has"
        click.secho(f"{who} {verb} {_keys(half['keys'])}", bold=True)
        show_facts({key: each for key, each in half["data"].items() if key not in half["keys"]}, as_json=False)
        for what in ("enters", "exits"):
            if half[what]:
                click.echo(f"{what}: {', '.join(half[what])}")
        click.echo()
    for note in done["notes"]:
        click.secho(f"note: {note}", fg="yellow")
    if dry_run:
        click.echo("nothing was changed")


@click.command("rejoin")
@click.argument("field")
@click.argument("value")
@remote
def profile_rejoin(field: str, value: str, as_json: bool, **where: Any) -> None:
    """Lets a profile be stitched again with what it was split from, by the next event with keys of both."""
    client_of(**where).call("DELETE", f"{_place(field, value)}/split")
    done = f"the profile of {field} = {value} may be stitched again"
    show_json({"message": done}) if as_json else click.echo(done)


def show_stitches(explained: Mapping[str, Any]) -> None:
    """Prints how a profile hangs together: its keys with their neighbours, and the keys that were refused."""
    fragments = [
        {
            "key": "=".join(each["key"]),
            "linked to": ", ".join(sorted("=".join(key) for key in each["neighbors"])) or "-",
            "values from its events": ", ".join(sorted(each["fragment"])) or "-",
        }
        for each in explained["fragments"]
    ]
    click.echo()
    show_rows(fragments, ("key", "linked to", "values from its events"), as_json=False)
    if "compacted" in explained:
        click.echo(
            f"{explained['compacted']['keys']:,} keys given up by compaction, last {explained['compacted']['last']}"
        )
    for each in explained.get("splits", ()):
        click.echo(f"split {each['at']}, and kept apart from the other half: see `cohortd profile rejoin`")
    if not explained["refusals"]:
        return
    click.echo()
    refused = [
        {
            "key": f"{each['key'][0]}={each['key'][1]}" if each["key"][1] is not None else f"{each['key'][0]} (gone)",
            "of profile": each["owner"],
            "reason": each["reason"],
            "why": each["why"],
            "event": f"{each['lane']} {each['position']}",
            "received": each["received"],
            "times": each["times"],
        }
        for each in explained["refused"]
    ]
    columns = ("key", "of profile", "reason", "why", "event", "received", "times")
    counts = ", ".join(f"{reason} {times:,}" for reason, times in sorted(explained["refusals"].items()))
    click.echo(f"refused keys ({counts}), the newest last")
    show_rows(refused, columns, as_json=False)


def _place(field: str, value: str) -> str:
    return f"/v2/entity/user/{segment(field)}/{segment(value)}"


def _keys(keys: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{name}={text}" for name, texts in keys.items() for text in texts)
