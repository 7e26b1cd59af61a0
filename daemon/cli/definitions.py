"""Commands on what a running daemon has defined, and on what came of it.

`cohortd query`, `audience`, `rule`, `stream`, `profile`, `subscription`; jobs stand in `jobs`, what would change in
`schema`.
"""

from __future__ import annotations

from typing import Any, TextIO

import click
import orjson

from daemon.cli import completing
from daemon.cli.client import segment
from daemon.cli.identity import show_stitches
from daemon.cli.output import client_of, remote, show_facts, show_json, show_rows


def _text(file: TextIO) -> str:
    return file.read()


@click.command("list")
@remote
def query_list(as_json: bool, **where: Any) -> None:
    """Lists the queries (LQL)."""
    rows = client_of(**where).call("GET", "/api/query")
    for row in rows:
        row["fields_count"] = len(row.get("fields") or ())
    show_rows(rows, ("alias", "from", "into", "fields_count", "version", "updated"), as_json=as_json, title="queries")


@click.command("show")
@click.argument("alias", shell_complete=completing.queries)
@remote
def query_show(alias: str, as_json: bool, **where: Any) -> None:
    """Shows a query."""
    show_facts(client_of(**where).call("GET", f"/api/query/{segment(alias)}"), as_json=as_json)


@click.command("put")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--description", help="What for; kept with the version of the schema.")
@remote
def query_put(file: TextIO, description: str | None, as_json: bool, **where: Any) -> None:
    """Makes or replaces the queries in FILE (`-`: standard input), all or none; applies to events from now on."""
    made = client_of(**where).call("POST", "/api/query", text=_text(file), params={"description": description})
    for row in made if isinstance(made, list) else [made]:
        show_facts(row, as_json=as_json)


@click.command("validate")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@remote
def query_validate(file: TextIO, as_json: bool, **where: Any) -> None:
    """Checks LQL and changes nothing; exit status 1 when it would be refused."""
    _verdict(client_of(**where).call("POST", "/api/query/_validate", text=_text(file)), as_json=as_json)


@click.command("delete")
@click.argument("alias", shell_complete=completing.queries)
@click.option("--description", help="What for; kept with the version of the schema.")
@remote
def query_delete(alias: str, description: str | None, as_json: bool, **where: Any) -> None:
    """Deletes a query; what it has mapped stays."""
    client_of(**where).call("DELETE", f"/api/query/{segment(alias)}", params={"description": description})
    _done(f"query {alias} deleted", as_json=as_json)


@click.command("list")
@remote
def audience_list(as_json: bool, **where: Any) -> None:
    """Lists the audiences with their sizes."""
    rows = client_of(**where).pages("/api/segment")
    show_rows(rows, ("slug", "name", "size", "state", "version", "updated"), as_json=as_json, title="audiences")


@click.command("show")
@click.argument("slug", shell_complete=completing.audiences)
@remote
def audience_show(slug: str, as_json: bool, **where: Any) -> None:
    """Shows an audience."""
    show_facts(client_of(**where).call("GET", f"/api/segment/{segment(slug)}"), as_json=as_json)


@click.command("put")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@remote
def audience_put(file: TextIO, as_json: bool, **where: Any) -> None:
    """Makes or replaces the audience in FILE (`-`: standard input)."""
    show_facts(client_of(**where).call("POST", "/api/segment", text=_text(file)), as_json=as_json)


@click.command("validate")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@remote
def audience_validate(file: TextIO, as_json: bool, **where: Any) -> None:
    """Checks FilterQL and changes nothing; exit status 1 when it would be refused."""
    _verdict(client_of(**where).call("POST", "/api/segment/validate", text=_text(file)), as_json=as_json)


@click.command("size")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@remote
def audience_size(file: TextIO, as_json: bool, **where: Any) -> None:
    """Counts who a filter would match now; nothing is saved."""
    show_facts(client_of(**where).call("POST", "/api/segment/size", text=_text(file)), as_json=as_json)


@click.command("scan")
@click.argument("slug", shell_complete=completing.audiences)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Members to show at most.")
@remote
def audience_scan(slug: str, limit: int, as_json: bool, **where: Any) -> None:
    """Shows members of an audience, a JSON object a line."""
    rows = client_of(**where).pages(
        f"/api/segment/{segment(slug)}/scan", limit=limit, params={"limit": min(limit, 1000)}
    )
    if as_json:
        show_json(rows)
        return
    for row in rows:
        click.echo(orjson.dumps(row).decode())


@click.command("delete")
@click.argument("slug", shell_complete=completing.audiences)
@remote
def audience_delete(slug: str, as_json: bool, **where: Any) -> None:
    """Deletes an audience; refused while an audience or a job depends on it."""
    client_of(**where).call("DELETE", f"/api/segment/{segment(slug)}")
    _done(f"audience {slug} deleted", as_json=as_json)


@click.command("list")
@remote
def rule_list(as_json: bool, **where: Any) -> None:
    """Lists the routing rules in the order in which they are tried."""
    rows = client_of(**where).call("GET", "/v2/stream/rule")
    columns = ("id", "name", "priority", "input", "output", "expression", "active")
    show_rows(rows, columns, as_json=as_json, title="routing rules")


@click.command("put")
@click.option("--id", "rule_id", type=int, help="Replace this rule.")
@click.option("--name", required=True)
@click.option("--input", "source", required=True, help="Stream that the rule reads.")
@click.option("--output", required=True, help="Stream that matching events go to.")
@click.option("--expression", default="true", show_default=True, help="LQL condition.")
@click.option("--priority", type=int, default=0, show_default=True, help="Higher is tried first.")
@click.option("--active/--inactive", default=True)
@remote
def rule_put(
    rule_id: int | None,
    name: str,
    source: str,
    output: str,
    expression: str,
    priority: int,
    active: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Makes a routing rule, or replaces one."""
    body = {
        "name": name,
        "input": source,
        "output": output,
        "expression": expression,
        "priority": priority,
        "active": active,
    }
    path = "/v2/stream/rule" if rule_id is None else f"/v2/stream/rule/{rule_id}"
    show_facts(client_of(**where).call("POST" if rule_id is None else "PUT", path, json=body), as_json=as_json)


@click.command("delete")
@click.argument("rule_id", type=int)
@remote
def rule_delete(rule_id: int, as_json: bool, **where: Any) -> None:
    """Deletes a routing rule."""
    client_of(**where).call("DELETE", f"/v2/stream/rule/{rule_id}")
    _done(f"rule {rule_id} deleted", as_json=as_json)


@click.command("list")
@remote
def stream_list(as_json: bool, **where: Any) -> None:
    """Lists the streams that events came in on."""
    rows = client_of(**where).call("GET", "/v2/stream")
    columns = ("stream", "events", "duplicates", "rejects", "first", "last")
    show_rows(rows, columns, as_json=as_json, title="streams")


@click.command("show")
@click.argument("name", shell_complete=completing.streams)
@remote
def stream_show(name: str, as_json: bool, **where: Any) -> None:
    """Shows a stream and the fields seen on it."""
    client = client_of(**where)
    stream = client.call("GET", f"/v2/stream/{segment(name)}")
    fields = client.call("GET", f"/v2/stream/{segment(name)}/fields")
    if as_json:
        show_json({**stream, "fields": fields})
        return
    show_facts({key: value for key, value in stream.items() if key not in ("fields", "recent_events")}, as_json=False)
    click.echo()
    show_rows(fields, tuple(fields[0]) if fields else (), as_json=False, title="fields seen")


@click.command("events")
@click.argument("name", shell_complete=completing.streams)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@remote
def stream_events(name: str, limit: int, as_json: bool, **where: Any) -> None:
    """Shows the latest events of a stream, a JSON object a line."""
    rows = client_of(**where).call("GET", f"/v2/stream/{segment(name)}/events", params={"limit": limit})
    if as_json:
        show_json(rows)
        return
    for row in rows:
        click.echo(orjson.dumps(row).decode())


@click.command("rejects")
@click.argument("name", shell_complete=completing.streams)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@remote
def stream_rejects(name: str, limit: int, as_json: bool, **where: Any) -> None:
    """Shows what was refused on a stream, and why."""
    rows = client_of(**where).call("GET", f"/v2/stream/{segment(name)}/rejects", params={"limit": limit})
    show_rows(rows, tuple(rows[0]) if rows else (), as_json=as_json, title=f"rejects on {name}")


@click.command("show")
@click.argument("field")
@click.argument("value")
@click.option("--explain", is_flag=True, help="Show keys, how they were joined, and which were refused.")
@click.option("--segments", is_flag=True, help="Show the audiences that the person is in.")
@remote
def profile_show(field: str, value: str, explain: bool, segments: bool, as_json: bool, **where: Any) -> None:
    """Shows the profile that FIELD (an identity) = VALUE names."""
    params = {"segments": "true" if segments else None, "explain": "true" if explain else None}
    path = f"/api/entity/user/{segment(field)}/{segment(value)}"
    reply = client_of(**where).exchange("GET", path, params=params)
    if as_json:
        show_json({**reply["data"], **({"explain": reply["explain"]} if explain else {})})
        return
    show_facts(reply["data"], as_json=False)
    if explain:
        show_stitches(reply["explain"])


@click.command("status")
@click.option("--count", is_flag=True, help="Also count the profiles, which takes a while when there are many.")
@remote
def status(count: bool, as_json: bool, **where: Any) -> None:
    """Says how far a running daemon is behind, and what its files take."""
    found = client_of(**where).call("GET", "/v2/status", params={"count": "true" if count else None})
    show_facts(found, as_json=as_json)


@click.command("list")
@remote
def subscription_list(as_json: bool, **where: Any) -> None:
    """Lists the subscriptions with their lag."""
    rows = client_of(**where).call("GET", "/v2/subscription")
    columns = ("id", "job_id", "audiences", "events", "position", "lag_triggers", "lag_seconds", "backfilling", "acked")
    show_rows(rows, columns, as_json=as_json, title="subscriptions")


@click.command("show")
@click.argument("subscription", shell_complete=completing.subscriptions)
@remote
def subscription_show(subscription: str, as_json: bool, **where: Any) -> None:
    """Shows a subscription: cursor, lag in triggers and seconds."""
    show_facts(client_of(**where).call("GET", f"/v2/subscription/{segment(subscription)}"), as_json=as_json)


def _verdict(found: Any, *, as_json: bool) -> None:
    if as_json:
        show_json(found)
    else:
        for each in found["diagnostics"]:
            click.echo(f"{each['severity']}: {each['text']}")
        click.echo("valid" if found["valid"] else "refused")
    if not found["valid"]:
        raise SystemExit(1)


def _done(words: str, *, as_json: bool) -> None:
    if as_json:
        show_json({"message": words})
    else:
        click.echo(words)
