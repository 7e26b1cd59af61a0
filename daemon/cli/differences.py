"""What would change, in words for a terminal: fields, queries, filters, and who would move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import orjson

from daemon.cli.output import cell

#: Status to the sign and colour of its line.
SIGNS = {"new": ("+", "green"), "modified": ("~", "yellow"), "deleted": ("-", "red"), "unmodified": (" ", "white")}
_VALUES = {
    "hidden": "existing values are kept but hidden, until the field comes back",
    "begun_anew": "existing values are kept but not shown: the field begins anew with the next event",
}
_ALIKE = ("text", "queries")
#: Longest value of a line.
_MOST = 100


def show_schema(told: Mapping[str, Any]) -> None:
    """Prints the differences of fields and queries."""
    counts = ", ".join(f"{count} {status}" for status, count in told["summary"].items())
    click.echo(f"fields: {counts}")
    for field in told["fields"]:
        show_field(field)
    for query in told["queries"]:
        _show_item(f"query {query['alias']}", query, skip=_ALIKE)
    if not (told["fields"] or told["queries"]):
        click.echo("no field and no query differs")


def show_field(field: Mapping[str, Any], indent: str = "") -> None:
    """Prints what differs of a field: properties, the queries that feed it, and who reads it."""
    about = field["after"] or field["before"]
    words = f"  {about['kind']}, {about['merge_op']}" if field["status"] in ("new", "deleted") else ""
    if about["is_identifier"] and words:
        words += f", identity of rank {about['rank']}"
    _line(field["status"], f"{field['name']}{words}", indent)
    show_changes(field["changes"], indent)
    for mapping in field["mappings"]:
        if mapping["status"] == "modified":
            show_changes(mapping["changes"], indent, f"{mapping['query']}: ")
        elif mapping["status"] in ("new", "deleted"):
            side = mapping["after"] or mapping["before"]
            guard = f" IF {side['guard_expr']}" if side["guard_expr"] else ""
            fed = "fed by" if mapping["status"] == "new" else "not fed any more by"
            click.echo(f"{indent}    {fed} {mapping['query']} from {side['stream']}: {side['expr']}{guard}")
    if field["values"] in _VALUES:
        click.echo(f"{indent}    {_VALUES[field['values']]}")
    _show_readers(field, indent)


def show_filters(filters: Sequence[Mapping[str, Any]]) -> None:
    """Prints the differences of filters."""
    for each in filters:
        _show_item(f"audience {each['slug']}", each)
        if each["unknown_fields"]:
            click.echo(f"    no query makes: {', '.join(each['unknown_fields'])}")
        if each["included_by"]:
            click.echo(f"    included by: {', '.join(each['included_by'])}")
        if each["jobs"]:
            click.echo(f"    sent by: {_labels(each['jobs'])}")


def show_moves(told: Mapping[str, Any], *, samples: bool = True) -> None:
    """Prints who would enter and exit, and which jobs would send it."""
    if not told["audiences"]:
        click.echo("no audience reads what changes")
    for each in told["audiences"]:
        click.echo(f"{each['slug']}: {moved(each)}, {each['size']:,} members then (now {each['members']:,})")
        for sign, kind in (("+", "sample_enters"), ("-", "sample_exits")):
            for profile in each[kind] if samples else ():
                keys = ", ".join(f"{name} = {', '.join(texts)}" for name, texts in profile["keys"].items())
                click.echo(f"    {sign} {keys or 'profile ' + profile['id']}")
    for job in told["jobs"]:
        click.echo(
            f"job {job['label'] or job['id']} ({job['job_type']}, {job['state']}) would send {job['enters']:,} enters"
            f" and {job['exits']:,} exits {job['sends']}"
        )
    click.echo(f"{told['profiles']:,} profiles looked at; nothing was saved")


def moved(audience: Mapping[str, Any]) -> str:
    """Gives the moves of one audience in words."""
    return f"{audience['enters']:,} would enter, {audience['exits']:,} would exit"


def show_events(queries: Sequence[Mapping[str, Any]]) -> None:
    """Prints what the last events give, and would."""
    for query in queries:
        of = f"query {query['query']} on the last {query['events']:,} events of {', '.join(query['streams'])}"
        mapped = f"{query['mapped_before']:,} give something now, {query['mapped_after']:,} would"
        click.echo(f"{of}: {query['differing']:,} differ; {mapped}")
        for field in query["fields"]:
            counts = [(status, field[status]) for status in ("new", "modified", "deleted") if field[status]]
            if not counts:
                continue
            told = ", ".join(f"{count:,} {status}" for status, count in counts)
            click.echo(f"    {field['name']}: {told}")
            for each in field["sample"]:
                click.echo(f"        {_value(each['before'])} -> {_value(each['after'])}")


def show_changes(changes: Sequence[Mapping[str, Any]], indent: str = "", prefix: str = "") -> None:
    """Prints properties, before and after."""
    for each in changes:
        if each["property"] not in _ALIKE:
            click.echo(f"{indent}    {prefix}{each['property']}: {_plain(each['before'])} -> {_plain(each['after'])}")


def _show_item(name: str, item: Mapping[str, Any], skip: Sequence[str] = ()) -> None:
    _line(item["status"], name)
    for each in item["changes"]:
        if each["property"] not in skip:
            click.echo(f"    {each['property']}: {_plain(each['before'])} -> {_plain(each['after'])}")


def _show_readers(field: Mapping[str, Any], indent: str) -> None:
    readers = [
        f"{each['slug']} (through {', '.join(each['via'])})" if each["via"] else each["slug"]
        for each in field["audiences"]
    ]
    if readers:
        click.echo(f"{indent}    read by: {', '.join(readers)}")
    if field["jobs"]:
        click.echo(f"{indent}    sent by: {_labels(field['jobs'])}")


def _labels(jobs: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{job['label'] or job['id']} ({job['state']})" for job in jobs)


def _line(status: str, words: str, indent: str = "") -> None:
    sign, colour = SIGNS[status]
    click.secho(f"{indent}{sign} {words}", fg=colour)


def _plain(value: object) -> str:
    return value if isinstance(value, str) and value else _value(value)


def _value(value: object) -> str:
    text = cell(value) if isinstance(value, bool | None) else orjson.dumps(value).decode()
    return text if len(text) <= _MOST else text[:_MOST] + "…"
