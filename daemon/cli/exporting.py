"""`cohortd export DIR`: what a daemon has, as a folder of which `cohortd plan` finds nothing to change."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from daemon.cli.folder_jobs import escaped, job_schema, method_schema
from daemon.cli.job_words import PAGE
from daemon.cli.output import client_of, remote, show_json
from daemon.cli.yaml_text import dump

_FIELDS = {"value": ("value", "field", "glob", "note"), "stitches": ("field", "to", "stitches", "window_s", "note")}
_NO_NAME = re.compile(r"[^a-z0-9._-]+")


@click.command("export")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--overwrite", is_flag=True, help="Write over files of a folder that is there; no file is deleted.")
@remote
def export(folder: Path, overwrite: bool, as_json: bool, **where: Any) -> None:
    """Writes guards, queries, audiences, authorizations and jobs to FOLDER, for `plan` and `apply`.

    No secret is written: those by reference as their reference, those that were given in clear as the name of a
    variable of the environment, which a daemon that has not got them yet will want.
    """
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise click.ClickException(f"{folder} is not empty; name a new folder, or give --overwrite")
    client = client_of(**where)
    providers = client.call("GET", "/v2/provider")
    auths = client.pages("/v2/auth", params={"limit": PAGE})
    jobs = [each for each in client.pages("/v2/job", params={"limit": PAGE}) if each["state"] != "completed"]
    left_out: list[str] = []
    files: dict[str, str] = {}
    if guards := client.call("GET", "/v2/identity/guard"):
        files["identity/guards.yaml"] = dump(_guards(guards))
    files |= _named("queries", ".lql", ((each["alias"], each["text"]) for each in client.call("GET", "/api/query")))
    audiences = client.pages("/api/segment")
    files |= _named("audiences", ".fql", ((each["slug"], each["segment_ql"]) for each in audiences))
    labels = {each["id"]: each["label"] for each in _told_apart("authorization", auths, left_out)}
    told = [each for each in auths if each["id"] in labels]
    files |= _named(
        "authorizations", ".yaml", ((each["label"], dump(_authorization(each, providers))) for each in told)
    )
    kept = _told_apart("job", jobs, left_out)
    files |= _named("jobs", ".yaml", ((each["label"], dump(_job(each, labels, providers))) for each in kept))
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
    if as_json:
        show_json({"folder": str(folder), "files": sorted(files), "left_out": left_out})
    else:
        counts = Counter(name.partition("/")[0] for name in files)
        words = ", ".join(f"{count} in {name}/" for name, count in counts.items())
        click.echo(f"{folder}: {words or 'there is nothing to write'}")
        for each in left_out:
            click.secho(f"left out: {each}", fg="yellow", err=True)
    if left_out:
        raise SystemExit(1)


def _guards(guards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def of(kind: str) -> list[dict[str, Any]]:
        return [
            {name: each[name] for name in _FIELDS[kind] if each.get(name) not in (None, False, "")}
            for each in guards
            if each["kind"] == kind
        ]

    return {name: rows for name, rows in (("refuse", of("value")), ("limits", of("stitches"))) if rows}


def _authorization(auth: Mapping[str, Any], providers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config = escaped(_set(auth["config"], method_schema(auth["provider"], auth["method"], providers)))
    for place, secret in auth["secrets"].items():
        if secret["set"]:
            name, _, key = place.partition("/")
            reference = secret["reference"] or f"env:{_variable(auth['label'], place)}"
            if key:
                config.setdefault(name, {})[key] = reference
            else:
                config[name] = reference
    body = {"provider": auth["provider"], "method": auth["method"], "label": auth["label"]}
    if auth["description"]:
        body["description"] = auth["description"]
    return body | {"config": config}


def _job(job: Mapping[str, Any], labels: Mapping[str, str], providers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    body: dict[str, Any] = {"job_type": job["job_type"], "label": job["label"]}
    if job["description"]:
        body["description"] = job["description"]
    if job["auth_id"] is not None:
        label = labels.get(job["auth_id"])
        body |= {"authorization": label} if label else {"auth_id": job["auth_id"]}
    for name in ("schedule", "quiet"):
        if job[name] is not None:
            body[name] = {key: value for key, value in job[name].items() if value is not None}
    if job["expires_at"] is not None:
        body["expires_at"] = job["expires_at"]
    return body | {"config": escaped(_set(job["config"], job_schema(job["job_type"], providers)))}


def _set(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a configuration without what is as when nothing is given."""
    known = schema.get("properties", {})
    return {
        key: value
        for key, value in config.items()
        if key not in known or "default" not in known[key] or value != known[key]["default"]
    }


def _told_apart(kind: str, rows: Sequence[Mapping[str, Any]], left_out: list[str]) -> list[Mapping[str, Any]]:
    """Gives the rows whose label is theirs alone; a folder knows a definition by its label."""
    counts = Counter(each["label"] for each in rows)
    for label, count in counts.items():
        if count > 1:
            word = "auth" if kind == "authorization" else kind
            left_out.append(f"{count} {kind}s are called {label!r}; give them labels: cohortd {word} edit ID --label …")
    return [each for each in rows if counts[each["label"]] == 1]


def _named(folder: str, suffix: str, texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Gives texts by the names of their files, which are those of the definitions as far as file names can be."""
    files: dict[str, str] = {}
    for name, text in texts:
        stem = _NO_NAME.sub("-", name.lower()).strip("-.")[:100] or "unnamed"
        if stem.startswith("readme"):
            stem = f"_{stem}"
        path, number = f"{folder}/{stem}{suffix}", 2
        while path in files:
            path, number = f"{folder}/{stem}-{number}{suffix}", number + 1
        files[path] = text
    return files


def _variable(label: str, place: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", f"COHORTD_{label}_{place}".upper()).strip("_")
