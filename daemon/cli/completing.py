"""Shell completion: `cohortd completion SHELL` prints the script, and these say what there is in a running daemon.

A daemon that does not answer within a second has nothing to offer; pressing Tab never fails and never waits long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from daemon.cli.client import Client

#: Longest wait for a daemon, in seconds, and most things that are offered.
ANSWER_S = 1.0
MOST = 200
SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_COHORTD_COMPLETE"
Found = Iterable[tuple[str, str]]


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Prints a script that completes commands, options, and the names of what a running daemon has.

    \b
    bash: cohortd completion bash > ~/.local/share/bash-completion/completions/cohortd
    zsh:  cohortd completion zsh > "${fpath[1]}/_cohortd"
    fish: cohortd completion fish > ~/.config/fish/completions/cohortd.fish
    """  # noqa: D301  (click knows a block that it must not wrap by this character)
    kind = get_completion_class(shell)
    root = click.get_current_context().find_root()
    if kind is None:
        raise click.ClickException(f"this version of click completes nothing for {shell}")
    click.echo(kind(root.command, {}, "cohortd", VARIABLE).source())


def _offers(find: Callable[[Client], Found]) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Makes a completion of what `find` gives as (value, help)."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del param
        try:
            found = sorted(set(find(_client(ctx))))
        except Exception:  # noqa: BLE001  (no daemon, no right to read, an odd answer: nothing to offer)
            return []
        fitting = [(value, words) for value, words in found if value.lower().startswith(incomplete.lower())]
        return [CompletionItem(value, help=words or None) for value, words in fitting[:MOST]]

    return complete


def _client(ctx: click.Context) -> Client:
    from daemon.cli.output import client_of

    given: dict[str, Any] = {name: ctx.params.get(name) for name in ("data_dir", "url", "token")}
    return client_of(**given, timeout_s=ANSWER_S)


def _labelled(rows: Iterable[dict[str, Any]], words: Callable[[dict[str, Any]], str]) -> Found:
    """Gives each row by its label where that is one word and its alone, else by its id."""
    listed = list(rows)
    labels = [row["label"] for row in listed]
    for row in listed:
        label = row["label"]
        if label and not any(each.isspace() or not each.isprintable() for each in label) and labels.count(label) == 1:
            yield label, words(row)
        else:
            yield row["id"], f"{label} {words(row)}".strip()


def _jobs(client: Client) -> Found:
    rows = client.call("GET", "/v2/job", params={"limit": MOST})
    return _labelled(rows, lambda row: f"{row['job_type']}, {row['state']}")


def _auths(client: Client) -> Found:
    rows = client.call("GET", "/v2/auth", params={"limit": MOST})
    return _labelled(rows, lambda row: f"{row['provider']} {row['method']}, {row['status']}")


def _job_types(client: Client) -> Found:
    kinds = [each for provider in client.call("GET", "/v2/provider") for each in provider["job_types"]]
    return [(each["slug"], each["label"]) for each in kinds]


jobs = _offers(_jobs)
auths = _offers(_auths)
job_types = _offers(_job_types)
providers = _offers(lambda client: [(each["slug"], each["label"]) for each in client.call("GET", "/v2/provider")])
audiences = _offers(lambda client: [(each["slug"], each["name"]) for each in client.call("GET", "/api/segment")])
queries = _offers(lambda client: [(each["alias"], "") for each in client.call("GET", "/api/query")])
streams = _offers(lambda client: [(each["name"], "") for each in client.call("GET", "/v2/stream")])
subscriptions = _offers(lambda client: [(each["id"], "") for each in client.call("GET", "/v2/subscription")])
