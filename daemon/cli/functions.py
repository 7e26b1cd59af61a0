"""`cohortd function`: the functions of LQL and FilterQL, from their declarations. Needs no daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.output import show_json, show_rows

if TYPE_CHECKING:
    from streams.ql.functions import Function


@click.command("list")
@click.argument("word", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(word: str | None, as_json: bool) -> None:
    """Lists the functions; with WORD those that have it in their name or description."""
    rows = [_facts(each) for each in _all()]
    if word is not None:
        sought = word.lower()
        rows = [row for row in rows if any(sought in str(row[key]).lower() for key in ("name", "also", "about"))]
    if as_json:
        show_json(rows)
        return
    shown = [row | {"about": row["about"].partition("\n")[0]} for row in rows]
    show_rows(shown, ["signature", "gives", "about"], as_json=False, title="function has that word")


@click.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Shows the function NAME: what it takes and gives, and examples."""
    from streams.ql.checker import nearest
    from streams.ql.functions import FUNCTIONS
    from streams.ql.functions.__main__ import described

    found = FUNCTIONS.get(name.strip().lower().removesuffix("()"))
    if found is None:
        hint = nearest(name, FUNCTIONS) or "`cohortd function list` lists them"
        raise click.ClickException(f"there is no function {name}; {hint}")
    facts = _facts(found) | {"examples": _examples(found)}
    if as_json:
        show_json(facts)
        return
    click.echo(f"{facts['signature']}\n\n{facts['about']}\n")
    if facts["also"]:
        click.echo(f"also called: {', '.join(facts['also'])}")
    if facts["gives"]:
        click.echo(f"gives: {facts['gives']}")
    if facts["constants"]:
        click.echo("its patterns and names must be constants")
    if facts["merges_by"]:
        click.echo(f"an aggregate: stands only around a whole column, and merges by {facts['merges_by']}")
    click.echo("\nexamples:")
    for each in found.examples:
        click.echo(f"  {described(found, each)}")


def _all() -> list[Function]:
    from streams.ql.functions import FUNCTIONS

    return sorted({each.name: each for each in FUNCTIONS.values()}.values(), key=lambda each: each.name)


def _facts(function: Function) -> dict[str, Any]:
    return {
        "name": function.name,
        "signature": function.signature,
        "also": list(function.aliases),
        "gives": function.returns,
        "constants": bool(function.literal_args),
        "merges_by": function.aggregate,
        "about": function.doc,
    }


def _examples(function: Function) -> list[dict[str, Any]]:
    """The examples as rows of `expr test` and what they answer."""
    from streams.ql.functions.__main__ import written
    from streams.ql.missing import MISSING
    from streams.ql.values import plain

    rows = []
    for example in function.examples:
        text, data = written(function, example)
        found = example.gives is not MISSING and example.gives is not None
        rows.append({"expr": text, "data": plain(data), "value": plain(example.gives), "ok": found})
    return rows
