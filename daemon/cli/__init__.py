"""The command line `cohortd`: may import everything, and imports a command's module only when it is called.

`COMMANDS` names every command by its words, so that `cohortd token create` starts without the web server, and
`cohortd --help` without anything. To add a command, write a click command and add its line here.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click


class Entry(NamedTuple):
    """Where a command stands (`module:attribute`), and its line in the help."""

    place: str
    help: str


#: Words that hold other words.
GROUPS: dict[str, str] = {
    "config": "Show the settings.",
    "expr": "Try expressions.",
    "filter": "Try filters.",
    "query": "LQL queries.",
    "token": "Make, list and revoke tokens.",
}

COMMANDS: dict[str, Entry] = {
    "config show": Entry("daemon.cli.config:show", "Show the settings that hold, secrets masked."),
    "doctor": Entry("daemon.cli.doctor:doctor", "Check the installation and its data directory."),
    "expr test": Entry("daemon.cli.testing:expr_test", "Evaluate expressions given as NDJSON."),
    "filter test": Entry("daemon.cli.testing:filter_test", "Evaluate filters given as NDJSON."),
    "query test": Entry("daemon.cli.testing:query_test", "Map events given as NDJSON."),
    "run": Entry("daemon.cli.run:run", "Run the daemon."),
    "token create": Entry("daemon.cli.token:create", "Make a token and print it on the last line."),
    "token list": Entry("daemon.cli.token:list_", "List the tokens."),
    "token revoke": Entry("daemon.cli.token:revoke", "Revoke a token."),
}


class Words(click.Group):
    """A group whose members are what `COMMANDS` and `GROUPS` have below its own words."""

    def __init__(self, words: str = "", *, help_text: str | None = None) -> None:
        super().__init__(words.rpartition(" ")[2] or "cohortd", help=help_text, no_args_is_help=True)
        self._words = words

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Gives the next word of every command below this one."""
        del ctx
        return sorted({name for key in (*COMMANDS, *GROUPS) if (name := self._next(key)) is not None})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Gives a command below this one, importing its module; None where there is none."""
        del ctx
        words = f"{self._words} {cmd_name}".strip()
        if words in GROUPS:
            return Words(words, help_text=GROUPS[words])
        if words not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[words].place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing them."""
        rows = []
        for name in self.list_commands(ctx):
            words = f"{self._words} {name}".strip()
            rows.append((name, COMMANDS[words].help if words in COMMANDS else GROUPS[words]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command; settings that it finds refused are wrong usage (status 2), not a traceback."""
        try:
            result: object = super().invoke(ctx)
        except ValueError as error:
            from daemon.settings import SettingsError  # the command has imported it, where that is the error

            if isinstance(error, SettingsError):
                raise click.UsageError(f"settings refused:\n{error}") from error
            raise
        return result

    def _next(self, key: str) -> str | None:
        head, _, tail = f" {key}".rpartition(" ")
        return tail if head.strip() == self._words else None


main = click.version_option(package_name="cohortd", prog_name="cohortd")(
    Words(help_text="Collects events, keeps profiles and audiences current, and tells every destination.")
)
