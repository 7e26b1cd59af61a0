"""`authorizations/*.yaml` and `jobs/*.yaml` of a folder: what they say, and how that differs from what a daemon has.

A secret is a reference (env:NAME, file:/path, credential:name), which the daemon resolves at each use; anything else in
its place is refused with the file and the key, and never sent or repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from connectors.sdk.secret import check_reference
from daemon.cli.folder_steps import Change, FolderError, Step, Wanted
from daemon.cli.schedule_rows import findings
from daemon.cli.yaml_text import load
from daemon.model.quiet import QuietHours
from daemon.model.schedule import Schedule

JOB_KEYS = (
    "job_type", "label", "description", "authorization", "auth_id", "config", "schedule", "quiet", "expires_at",
)  # fmt: skip
AUTH_KEYS = ("provider", "method", "label", "description", "config")
#: `${NAME}` is a variable of the environment of who plans; `$${NAME}` is that text itself.
_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TIMES: dict[str, type[BaseModel]] = {"schedule": Schedule, "quiet": QuietHours}


def read_job(path: Path, text: str, variables: Mapping[str, str]) -> Wanted:
    """Gives the job of a file. Raises FolderError."""
    raw = _mapping(text, JOB_KEYS, ("job_type",), "a job")
    if raw.get("auth_id") and raw.get("authorization"):
        raise FolderError("authorization and auth_id both name one; give authorization, its label")
    body = _filled(raw, variables)
    refused: list[str] = []
    for name, model in _TIMES.items():
        if body.get(name) is not None:
            try:
                model.model_validate(body[name])
            except ValidationError as error:
                refused += findings(error, name)
    if body.get("expires_at") is not None and _moment(body["expires_at"]) is None:
        refused.append(f"expires_at: {body['expires_at']!r} is no moment: RFC 3339, as 2027-01-31T00:00:00Z")
    if refused:
        raise FolderError("; ".join(refused))
    body.setdefault("label", path.stem)
    return Wanted("job", body["label"], text, "", str(path), body, raw=raw.get("config") or {})


def read_authorization(path: Path, text: str, variables: Mapping[str, str]) -> Wanted:
    """Gives the authorization of a file. Raises FolderError."""
    raw = _mapping(text, AUTH_KEYS, ("provider", "method"), "an authorization")
    # What may be a secret is filled in only where it is none: a variable would put the secret itself there.
    body = {**raw, "config": raw.get("config") or {}}
    body = {key: _filled(value, variables) for key, value in body.items() if key != "config"} | {
        "config": body["config"]
    }
    body.setdefault("label", path.stem)
    return Wanted("authorization", body["label"], text, "", str(path), body, raw=body["config"])


def checked(
    wanted: Sequence[Wanted], providers: Sequence[Mapping[str, Any]], variables: Mapping[str, str]
) -> list[Wanted]:
    """Gives the definitions, authorizations with their variables put in, once every secret is a reference.

    Raises FolderError with every file and key that is unknown, or where something else stands for a secret; it is not
    repeated.
    """
    refused: list[str] = []
    given: list[Wanted] = []
    for each in wanted:
        schema = schema_of(each, providers) if each.kind in ("job", "authorization") else None
        if schema is None:
            given.append(each)
            continue
        unknown = sorted(set(each.raw) - set(schema.get("properties", {})))
        if unknown and schema.get("additionalProperties") is False:
            known = ", ".join(schema.get("properties", {}))
            refused.append(f"{each.file}: config.{unknown[0]}: unknown; there are {known or 'none'}")
        for place, value in secret_places(schema, each.raw):
            try:
                if not isinstance(value, str):
                    raise ValueError("a secret is given by reference: env:NAME, file:/path or credential:name")  # noqa: TRY004, TRY301 (one refusal)
                check_reference(value)
            except ValueError as error:
                refused.append(f"{each.file}: config.{'.'.join(place)}: {error}")
        if each.kind == "authorization" and not refused:
            try:
                config = _filled(each.raw, variables)
            except FolderError as error:
                refused.append(f"{each.file}: {error}")
                continue
            each = Wanted(  # noqa: PLW2901  (the same, filled)
                each.kind,
                each.name,
                each.text,
                each.canonical,
                each.file,
                {**each.body, "config": config},
                raw=each.raw,
            )
        given.append(each)
    if refused:
        raise FolderError("\n".join(refused))
    return given


def schema_of(wanted: Wanted, providers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Gives the JSON Schema of a job's or an authorization's configuration, None where the daemon knows no such."""
    if wanted.kind == "authorization":
        return method_schema(wanted.body["provider"], wanted.body["method"], providers) or None
    return job_schema(wanted.body["job_type"], providers) or None


def job_schema(job_type: str, providers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Gives the JSON Schema of a job type's configuration, {} where the daemon knows no such."""
    kinds = (kind for provider in providers for kind in provider["job_types"])
    return next((kind["schema"] for kind in kinds if kind["slug"] == job_type), {})


def method_schema(provider: str, method: str, providers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Gives the JSON Schema of an authorization method's values, {} where the daemon knows no such."""
    methods = (each for known in providers if known["slug"] == provider for each in known["auth_methods"])
    return next((each["schema"] for each in methods if each["slug"] == method), {})


def secret_places(schema: Mapping[str, Any], value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """Gives where in a configuration secrets stand by its JSON Schema, with what stands there."""
    yield from _secrets(schema, schema.get("$defs", {}), value, ())


def _secrets(
    schema: Mapping[str, Any], known: Mapping[str, Any], value: object, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    if value is None:
        return
    if "$ref" in schema:
        schema = known.get(str(schema["$ref"]).rpartition("/")[2], {})
    if schema.get("format") in ("password", "secret-reference") or schema.get("writeOnly"):
        yield place, value
        return
    for branch in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(branch, ()):
            yield from _secrets(each, known, value, place)
    if isinstance(value, Mapping):
        more = schema.get("additionalProperties")
        for name, each in value.items():
            below = schema.get("properties", {}).get(name, more if isinstance(more, Mapping) else {})
            yield from _secrets(below, known, each, (*place, str(name)))
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for number, each in enumerate(value):
            yield from _secrets(schema["items"], known, each, (*place, str(number)))


# --- how it differs


def authorization_step(
    wanted: Wanted, auths: Sequence[Mapping[str, Any]], providers: Sequence[Mapping[str, Any]] = ()
) -> Step:
    """Gives what is to be done for an authorization of the folder."""
    same = [each for each in auths if each["label"] == wanted.name]
    if not same:
        why = _unknown_method(wanted, providers)
        return Step("blocked" if why else "create", "authorization", wanted.name, wanted=wanted, why=why)
    if len(same) > 1:
        why = f"{len(same)} authorizations have this label; rename all but one"
        return Step("blocked", "authorization", wanted.name, wanted=wanted, why=why)
    there, body = same[0], wanted.body
    fixed = "an authorization's values cannot change: give the new one another label, and name that in its jobs"
    differs = next((key for key in ("provider", "method") if there[key] != body[key]), None)
    schema = schema_of(wanted, providers) or {}
    secrets = {"/".join(place): value for place, value in secret_places(schema, wanted.body["config"])}
    if differs is None:
        plain = {name: value for name, value in body["config"].items() if not any(_top(s) == name for s in secrets)}
        differs = _different(plain, there["config"], schema)
    sealed = []
    for name in sorted({*secrets, *(each for each, held in there["secrets"].items() if held["set"])}):
        held = there["secrets"].get(name) or {"set": False, "reference": None}
        if held["set"] and held["reference"] is None and name in secrets:
            sealed.append(name)
        elif secrets.get(name) != held["reference"]:
            differs = differs or f"config.{name}"
    if differs is not None:
        why = f"{differs} differs; {fixed}"
        return Step("blocked", "authorization", wanted.name, wanted=wanted, id=there["id"], why=why)
    why = f"{', '.join(sealed)}: given in clear once, and sealed; cannot be compared" if sealed else ""
    return _described(wanted, there, [], why)


def job_step(
    wanted: Wanted,
    jobs: Sequence[Mapping[str, Any]],
    auths: Sequence[Mapping[str, Any]] = (),
    providers: Sequence[Mapping[str, Any]] = (),
    coming: frozenset[str] = frozenset(),
) -> Step:
    """Gives what is to be done for a job of the folder; `coming` are labels of authorizations that the folder makes."""
    body = wanted.body
    auth, why = _authorization(body, auths, coming)
    if why:
        return Step("blocked", "job", wanted.name, wanted=wanted, why=why)
    same = [each for each in jobs if each["label"] == wanted.name and each["state"] != "completed"]
    if not same:
        return Step("create", "job", wanted.name, wanted=wanted)
    if len(same) > 1:
        why = f"{len(same)} jobs have this label; rename all but one: `cohortd job edit ID --label …`"
        return Step("blocked", "job", wanted.name, wanted=wanted, why=why)
    job = same[0]
    free = f"give the new job another label, or end this one: `cohortd job complete {job['id']}`"
    if job["job_type"] != body["job_type"]:
        why = f"it is a {job['job_type']} job; a job's type cannot change: {free}"
        return Step("blocked", "job", wanted.name, wanted=wanted, id=job["id"], why=why)
    differs = _different(body.get("config") or {}, job["config"], schema_of(wanted, providers) or {})
    if differs is not None:
        why = f"{differs} differs; a job's configuration cannot change: {free}"
        return Step("blocked", "job", wanted.name, wanted=wanted, id=job["id"], why=why)
    for name in ("schedule", "quiet", "expires_at"):
        before, after = _time(name, job.get(name)), _time(name, body.get(name))
        if before != after:
            why = f"{name} is {before or 'not set'} there, {after or 'not set'} here; it cannot change: {free}"
            return Step("blocked", "job", wanted.name, wanted=wanted, id=job["id"], why=why)
    changes = []
    if auth != job.get("auth_id"):
        if auth is None and not body.get("authorization"):
            why = "it has an authorization, which cannot be taken away: name it (authorization: its label)"
            return Step("blocked", "job", wanted.name, wanted=wanted, id=job["id"], why=why)
        labels = {each["id"]: each["label"] for each in auths}
        before_id = str(job.get("auth_id") or "")
        changes.append(Change("authorization", labels.get(before_id) or before_id, body.get("authorization") or auth))
    return _described(wanted, job, changes)


def _authorization(
    body: Mapping[str, Any], auths: Sequence[Mapping[str, Any]], coming: frozenset[str]
) -> tuple[str | None, str]:
    """Gives the id of the authorization that a job names, None where there is none yet; and what is wrong with it."""
    name = body.get("authorization")
    if name is None:
        return body.get("auth_id"), ""
    found = [each["id"] for each in auths if name in (each["label"], each["id"])]
    if len(found) > 1:
        return None, f"{len(found)} authorizations have the label {name!r}; name one by auth_id"
    if not found and name not in coming:
        return None, f"there is no authorization {name!r}, neither in the daemon nor in authorizations/"
    return (found[0] if found else None), ""


def _unknown_method(wanted: Wanted, providers: Sequence[Mapping[str, Any]]) -> str:
    if not providers or schema_of(wanted, providers) is not None:
        return ""
    there = [f"{each['slug']}/{method['slug']}" for each in providers for method in each["auth_methods"]]
    given = f"{wanted.body['provider']}/{wanted.body['method']}"
    return f"the daemon knows no {given}; there are {', '.join(there) or 'none'}"


def _described(wanted: Wanted, there: Mapping[str, Any], changes: list[Change], why: str = "") -> Step:
    after = wanted.body.get("description") or ""
    if after != there["description"]:
        changes = [*changes, Change("description", there["description"], after)]
    action: Any = "change" if changes else "keep"
    return Step(action, wanted.kind, wanted.name, "", wanted, there["id"], why, tuple(changes))


def _different(given: Mapping[str, Any], held: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """Gives the first value of a configuration that is another than the daemon has, defaults counted in."""
    for key, value in given.items():
        if held.get(key) != value:
            return f"config.{key}"
    for key, each in schema.get("properties", {}).items():
        if key not in given and key in held and held[key] != each.get("default"):
            return f"config.{key}"
    return None


def _time(name: str, value: Any) -> object:
    """Gives a schedule, quiet hours or a moment as what is compared, and shown."""
    if value is None:
        return None
    return _TIMES[name].model_validate(value) if name in _TIMES else _moment(value)


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _top(place: str) -> str:
    return place.partition("/")[0]


# --- reading


def _mapping(text: str, keys: Sequence[str], needed: Sequence[str], what: str) -> dict[str, Any]:
    try:
        body = load(text)
    except yaml.YAMLError as error:  # its words may repeat a line, and with it what stands for a secret
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise FolderError(f"no YAML{line}: {getattr(error, 'problem', None) or 'cannot be read'}") from None
    if not isinstance(body, dict) or not all(isinstance(body.get(key), str) for key in needed):
        raise FolderError(f"{what} is a mapping with {', '.join(needed)}, label, config")
    unknown = sorted(str(key) for key in set(body) - set(keys))
    if unknown:
        raise FolderError(f"unknown key {unknown[0]!r}; {what} has {', '.join(keys)}")
    if not isinstance(body.get("config") or {}, dict):
        raise FolderError("config: expected a mapping from names to values")
    for key in ("label", "description", "authorization", "auth_id"):
        if body.get(key) is not None and not isinstance(body[key], str):
            raise FolderError(f"{key}: expected text")
    return {key: value for key, value in body.items() if value is not None}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, variables) for each in value]
    if not isinstance(value, str):
        return value
    for escaped, name in _VARIABLE.findall(value):
        if not escaped and name not in variables:
            raise FolderError(f"the environment variable {name} is not set")
    return _VARIABLE.sub(lambda found: found[0][1:] if found[1] else variables[found[2]], value)


def escaped(value: Any) -> Any:
    """Gives a configuration as it is written to a file: what looks like a variable stays text."""
    if isinstance(value, dict):
        return {key: escaped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [escaped(each) for each in value]
    return _VARIABLE.sub(lambda found: f"${found[0]}", value) if isinstance(value, str) else value
