"""The command line `cohortd`: may import everything, and imports a command's module only when it is called.

`COMMANDS` names every command by its words, so that `cohortd token create` starts without the web server, and
`cohortd --help` without anything. To add a command, write a click command and add its line here.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem


class Entry(NamedTuple):
    """Where a command stands (`module:attribute`), and its line in the help."""

    place: str
    help: str


#: Words that hold other words.
GROUPS: dict[str, str] = {
    "query": "Queries (LQL): how events become profiles.",
    "subscription": "Subscriptions: how far each destination is.",
    "stream": "Streams: what arrives.",
    "rule": "Routing rules: which stream an event goes to.",
    "schema": "The schema: what fields profiles have, its versions, and what differs.",
    "profile": "Profiles: what is known of a person.",
    "job": "Jobs: what is sent where.",
    "auth": "Authorizations: what may be done with providers, and whether it still works.",
    "audience": "Audiences (FilterQL): who is in what.",
    "identity": "Identity: values that are no keys, and how often keys may be stitched.",
    "config": "Show the settings.",
    "expr": "Try expressions.",
    "filter": "Try filters.",
    "schedule": "Try schedules.",
    "function": "The functions of LQL and FilterQL: what they take and give.",
    "token": "Make, list and revoke tokens.",
}

#: What a group does when none of its words follows it.
DEFAULTS: dict[str, str] = {"schema": "show"}

COMMANDS: dict[str, Entry] = {
    "apply": Entry("daemon.cli.applying:apply", "Makes the daemon's definitions those of a folder."),
    "audit": Entry("daemon.cli.audit:audit", "Shows who changed what, and when."),
    "audience delete": Entry(
        "daemon.cli.definitions:audience_delete",
        "Deletes an audience; refused while an audience or a job depends on it.",
    ),
    "audience list": Entry("daemon.cli.definitions:audience_list", "Lists the audiences with their sizes."),
    "audience preview": Entry(
        "daemon.cli.schema:audience_preview", "Says who would enter and exit if a filter changed; saves nothing."
    ),
    "audience put": Entry(
        "daemon.cli.definitions:audience_put", "Makes or replaces the audience in FILE (`-`: standard input)."
    ),
    "audience scan": Entry(
        "daemon.cli.definitions:audience_scan", "Shows members of an audience, a JSON object a line."
    ),
    "audience show": Entry("daemon.cli.definitions:audience_show", "Shows an audience."),
    "audience size": Entry(
        "daemon.cli.definitions:audience_size", "Counts who a filter would match now; nothing is saved."
    ),
    "audience validate": Entry(
        "daemon.cli.definitions:audience_validate",
        "Checks FilterQL and changes nothing; exit status 1 when it would be refused.",
    ),
    "auth check": Entry("daemon.cli.authorizations:check", "Checks an authorization with its provider now."),
    "auth create": Entry(
        "daemon.cli.authorizations:create", "Makes an authorization; `cohortd auth methods` lists methods and fields."
    ),
    "auth delete": Entry(
        "daemon.cli.authorizations:delete", "Deletes an authorization; refused while jobs may still use it."
    ),
    "auth edit": Entry("daemon.cli.authorizations:edit", "Changes an authorization's label or description."),
    "auth list": Entry("daemon.cli.authorizations:list_", "Lists the authorizations: whether each works and why."),
    "auth methods": Entry(
        "daemon.cli.authorizations:methods", "Lists the ways to authorize, and which job types each enables."
    ),
    "auth metrics": Entry("daemon.cli.authorizations:metrics", "Shows the API requests made with an authorization."),
    "auth rotate-key": Entry(
        "daemon.cli.authorizations:rotate_key", "Replaces the key that authorizations are sealed with."
    ),
    "auth show": Entry("daemon.cli.authorizations:show", "Shows an authorization."),
    "backup": Entry(
        "daemon.cli.backup:backup", "Copies the databases into a new folder, also beside a running daemon."
    ),
    "bench": Entry("daemon.cli.bench:bench", "Measures the figures of the README on this machine."),
    "completion": Entry("daemon.cli.completing:completion", "Prints a script that completes commands in a shell."),
    "config show": Entry("daemon.cli.config:show", "Show the settings that hold, secrets masked."),
    "config reference": Entry("daemon.cli.config:reference", "Print all settings that there are."),
    "demo": Entry("daemon.cli.demo:demo", "Show the main job on real data, live in the terminal."),
    "doctor": Entry("daemon.cli.doctor:doctor", "Check the installation and its data directory."),
    "explain": Entry(
        "daemon.cli.explain:explain", "Says why a person is, or is not, in an audience, or what made a field's value."
    ),
    "export": Entry("daemon.cli.exporting:export", "Writes the daemon's definitions to a folder, for `plan`."),
    "expr test": Entry("daemon.cli.testing:expr_test", "Evaluate expressions given as NDJSON."),
    "filter test": Entry("daemon.cli.testing:filter_test", "Evaluate filters given as NDJSON."),
    "identity limit": Entry(
        "daemon.cli.identity:guard_limit", "Limits how often one key of FIELD may be stitched to keys of an identity."
    ),
    "identity list": Entry(
        "daemon.cli.identity:guard_list",
        "Lists the merge guards: values that identify nobody, and how often keys may be stitched.",
    ),
    "identity refuse": Entry(
        "daemon.cli.identity:guard_refuse",
        "Refuses VALUES as keys from now on: they identify nobody. Compared without case.",
    ),
    "identity remove": Entry(
        "daemon.cli.identity:guard_remove", "Removes a merge guard; what it refused can be a key from then on."
    ),
    "function list": Entry(
        "daemon.cli.functions:list_", "Lists the functions; with WORD those that have it in their name or description."
    ),
    "function show": Entry(
        "daemon.cli.functions:show", "Shows the function NAME: what it takes and gives, and examples."
    ),
    "import": Entry("daemon.cli.importing:import_file", "Imports a CSV or NDJSON file, repeatably."),
    "job complete": Entry("daemon.cli.jobs:complete", "Ends a job for good."),
    "job copy": Entry("daemon.cli.jobs:copy", "Creates a job as another one is."),
    "job create": Entry("daemon.cli.jobs:create", "Creates a job of JOB_TYPE; `cohortd job types` lists them."),
    "job delete": Entry("daemon.cli.jobs:delete", "Deletes a job and its subscription."),
    "job deliveries": Entry("daemon.cli.job_history:deliveries", "Shows what a job sent, omitted, or failed to send."),
    "job dryrun": Entry("daemon.cli.job_history:dryrun", "Shows what a job would send; sends nothing, or one sample."),
    "job edit": Entry("daemon.cli.jobs:edit", "Changes a job's label, description or authorization."),
    "job list": Entry("daemon.cli.jobs:list_", "Lists the jobs."),
    "job logs": Entry("daemon.cli.job_history:logs", "Shows the log of a job, or of all."),
    "job metrics": Entry("daemon.cli.job_history:metrics", "Shows what a job did, by hour, day or week."),
    "job pause": Entry("daemon.cli.jobs:pause", "Pauses a job; its subscription keeps its place."),
    "job redeliver": Entry("daemon.cli.job_history:redeliver", "Sends messages again: what failed, or a range."),
    "job resume": Entry("daemon.cli.jobs:resume", "Resumes a paused or failed job where it was."),
    "job run": Entry("daemon.cli.jobs:run", "Ends a job's sleep: it runs now."),
    "job runs": Entry("daemon.cli.job_history:runs", "Shows a job's runs: when, how each ended, what it did."),
    "job show": Entry("daemon.cli.jobs:show", "Shows a job: its status and why, its configuration."),
    "job types": Entry("daemon.cli.jobs:types", "Lists the providers and the job types that they offer."),
    "plan": Entry("daemon.cli.applying:plan", "Shows what `apply` would change."),
    "profile admit": Entry(
        "daemon.cli.person:admit", "Lets a person come back who was erased; FIELD = VALUE is a key they had."
    ),
    "profile erase": Entry(
        "daemon.cli.person:erase",
        "Erases the person that FIELD = VALUE names, in profile and log; their audiences' destinations get exits.",
    ),
    "profile erasures": Entry("daemon.cli.person:erasures", "Says how far erasures are: the one with ID, or all."),
    "profile export": Entry(
        "daemon.cli.person:export", "Writes all that is held about the person FIELD = VALUE to a ZIP archive."
    ),
    "profile rejoin": Entry(
        "daemon.cli.identity:profile_rejoin",
        "Lets a profile be stitched again with what it was split from, by the next event with keys of both.",
    ),
    "profile show": Entry(
        "daemon.cli.definitions:profile_show", "Shows the profile that FIELD (an identity) = VALUE names."
    ),
    "profile split": Entry(
        "daemon.cli.identity:profile_split",
        "Takes keys of the profile that FIELD = VALUE names out into a new profile, with what their events made.",
    ),
    "query delete": Entry("daemon.cli.definitions:query_delete", "Deletes a query; what it has mapped stays."),
    "query list": Entry("daemon.cli.definitions:query_list", "Lists the queries (LQL)."),
    "query diff": Entry("daemon.cli.schema:query_diff", "Says what queries would change in the schema; saves nothing."),
    "query preview": Entry(
        "daemon.cli.schema:query_preview", "Says who would enter and exit if queries changed; saves nothing."
    ),
    "query put": Entry(
        "daemon.cli.definitions:query_put",
        "Makes or replaces the queries in FILE (`-`: standard input); applies to events from now on.",
    ),
    "query show": Entry("daemon.cli.definitions:query_show", "Shows a query."),
    "query test": Entry("daemon.cli.testing:query_test", "Map events given as NDJSON."),
    "query validate": Entry(
        "daemon.cli.definitions:query_validate",
        "Checks LQL and changes nothing; exit status 1 when it would be refused.",
    ),
    "replay": Entry(
        "daemon.cli.replay:replay", "Rebuilds profiles and memberships from the log, and compares them with the state."
    ),
    "restore": Entry("daemon.cli.backup:restore", "Puts a verified backup into a data directory."),
    "rule delete": Entry("daemon.cli.definitions:rule_delete", "Deletes a routing rule."),
    "rule list": Entry(
        "daemon.cli.definitions:rule_list", "Lists the routing rules in the order in which they are tried."
    ),
    "rule put": Entry("daemon.cli.definitions:rule_put", "Makes a routing rule, or replaces one."),
    "run": Entry("daemon.cli.run:run", "Run the daemon."),
    "schedule test": Entry("daemon.cli.testing:schedule_test", "Give the runs of schedules given as NDJSON."),
    "schema diff": Entry(
        "daemon.cli.schema:diff", "Says what differs between two versions, or would by queries and filters in files."
    ),
    "schema revert": Entry("daemon.cli.schema:revert", "Makes the queries those of an earlier version again."),
    "schema show": Entry(
        "daemon.cli.schema:show", "Shows the fields of profiles: kinds, merge operators, identities with ranks."
    ),
    "schema versions": Entry("daemon.cli.schema:versions", "Lists the versions of the schema, the newest first."),
    "status": Entry("daemon.cli.definitions:status", "Says how far a running daemon is behind."),
    "stream events": Entry(
        "daemon.cli.definitions:stream_events", "Shows the latest events of a stream, a JSON object a line."
    ),
    "stream list": Entry("daemon.cli.definitions:stream_list", "Lists the streams that events came in on."),
    "stream rejects": Entry("daemon.cli.definitions:stream_rejects", "Shows what was refused on a stream, and why."),
    "stream show": Entry("daemon.cli.definitions:stream_show", "Shows a stream and the fields seen on it."),
    "subscription list": Entry("daemon.cli.definitions:subscription_list", "Lists the subscriptions with their lag."),
    "subscription show": Entry(
        "daemon.cli.definitions:subscription_show", "Shows a subscription: cursor, lag in triggers and seconds."
    ),
    "token create": Entry("daemon.cli.token:create", "Make a token and print it on the last line."),
    "token list": Entry("daemon.cli.token:list_", "List the tokens."),
    "token revoke": Entry("daemon.cli.token:revoke", "Revoke a token."),
}


class Words(click.Group):
    """A group whose members are what `COMMANDS` and `GROUPS` have below its own words."""

    def __init__(self, words: str = "", *, help_text: str | None = None) -> None:
        super().__init__(words.rpartition(" ")[2] or "cohortd", help=help_text, no_args_is_help=True)
        self._words = words

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the words; a group with a default takes it when none of its own comes first."""
        default = DEFAULTS.get(self._words)
        own = (*self.list_commands(ctx), "--help")
        if default is not None and not ctx.resilient_parsing and (not args or args[0] not in own):
            args = [default, *args]
        return super().parse_args(ctx, args)

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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Gives the next words, and the options, that begin so; imports no command for it."""
        items = []
        for name in self.list_commands(ctx):
            if name.startswith(incomplete):
                words = f"{self._words} {name}".strip()
                items.append(CompletionItem(name, help=COMMANDS[words].help if words in COMMANDS else GROUPS[words]))
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

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
