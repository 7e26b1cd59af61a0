"""A folder of definitions: what it says, and how that differs from what a daemon has.

`identity/*.yaml` (merge guards), `queries/*.lql`, `audiences/*.fql`, `authorizations/*.yaml`, `jobs/*.yaml`.
Comparing is pure; `cohortd plan` prints the difference, and `cohortd apply` makes it so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from daemon.cli.folder_jobs import authorization_step, job_step, read_authorization, read_job
from daemon.cli.folder_steps import Action, FolderError, Step, Wanted
from streams.ql.errors import QueryError
from streams.ql.parser import parse_filter, parse_queries
from streams.ql.printer import print_filter, print_query

GUARD_KEYS = frozenset({"kind", "field", "value", "glob", "to", "stitches", "window_s", "note"})
_FOLDERS = {"identity": ".yaml", "queries": ".lql", "audiences": ".fql", "authorizations": ".yaml", "jobs": ".yaml"}


def read(folder: Path, environment: Mapping[str, str] | None = None) -> list[Wanted]:
    """Gives the definitions of a folder: guards, queries, audiences in the order of their includes, then all else.

    Raises FolderError with every finding. `${NAME}` in a job's values stands for a variable of the environment; those
    of authorizations are put in by `folder_jobs.checked`, once it is known which values are secrets.
    """
    variables = os.environ if environment is None else environment
    findings: list[str] = []
    if not any((folder / name).is_dir() for name in _FOLDERS):
        raise FolderError(f"{folder} has none of the folders {', '.join(_FOLDERS)}; nothing to plan")
    wanted: list[Wanted] = []
    for name, suffix in _FOLDERS.items():
        for path in sorted((folder / name).glob("*")):
            if path.name.startswith(".") or path.name.lower().startswith("readme"):
                continue
            if path.suffix != suffix and not (suffix == ".yaml" and path.suffix == ".yml"):
                findings.append(f"{path}: not a *{suffix} file")
                continue
            try:
                wanted += _READERS[name](path, path.read_text(encoding="utf-8"), variables)
            except (QueryError, FolderError, UnicodeDecodeError, yaml.YAMLError) as error:
                findings.append(f"{path}: {error}")
    seen: dict[tuple[str, str], Wanted] = {}
    for each in wanted:
        other = seen.setdefault((each.kind, each.name), each)
        if other is not each:
            findings.append(f"{each.file}: {each.kind} {each.name!r} is also in {other.file}")
    if findings:
        raise FolderError("\n".join(findings))
    return _in_order(wanted)


def _guards(path: Path, text: str, _: Mapping[str, str]) -> list[Wanted]:
    content = yaml.safe_load(text)
    if not isinstance(content, dict) or not content.keys() <= {"refuse", "limits"}:
        raise FolderError("merge guards are a mapping with the lists refuse and limits")
    wanted = []
    for name, kind in (("refuse", "value"), ("limits", "stitches")):
        for each in content.get(name) or ():
            guard = {"value": each} if kind == "value" and isinstance(each, str | int | float) else each
            if not isinstance(guard, dict):
                raise FolderError(f"{name}: {each!r} is no guard; expected a mapping, or of values a text")
            unknown = sorted(guard.keys() - GUARD_KEYS)
            if unknown:
                raise FolderError(f"{name}: unknown key {unknown[0]!r}; a guard has {', '.join(sorted(GUARD_KEYS))}")
            if "value" in guard:
                guard = {**guard, "value": str(guard["value"])}
            body = {"kind": kind, **guard}
            wanted.append(Wanted("guard", guard_name(body), "", _canonical_guard(body), str(path), body))
    return wanted


def guard_name(guard: Mapping[str, Any]) -> str:
    """Gives what a merge guard is about, in words; of two with the same name the later replaces the other."""
    field = guard.get("field") or "every identity"
    if guard["kind"] == "value":
        return f"{field}: refuse {'like ' if guard.get('glob') else ''}{str(guard.get('value')).strip()}".lower()
    return f"{field}: stitches to {guard.get('to') or 'its own and stronger ones'}".lower()


def _canonical_guard(guard: Mapping[str, Any]) -> str:
    if guard["kind"] == "value":
        return str(guard.get("note") or "")
    window_s = float(guard.get("window_s") or 0)
    return f"{guard.get('stitches')} in {window_s:g} s {guard.get('note') or ''}".strip()


def _queries(path: Path, text: str, _: Mapping[str, str]) -> list[Wanted]:
    queries = parse_queries(text)
    return [
        Wanted("query", query.alias, text if len(queries) == 1 else print_query(query), print_query(query), str(path))
        for query in queries
    ]


def _audiences(path: Path, text: str, _: Mapping[str, str]) -> list[Wanted]:
    statement = parse_filter(text)
    if not statement.alias:
        raise FolderError("the filter has no ALIAS; an audience is known by it")
    needs = tuple(sorted(_includes(statement.where)))
    return [Wanted("audience", statement.alias, text, print_filter(statement), str(path), needs=needs)]


def _authorizations(path: Path, text: str, variables: Mapping[str, str]) -> list[Wanted]:
    return [read_authorization(path, text, variables)]


def _jobs(path: Path, text: str, variables: Mapping[str, str]) -> list[Wanted]:
    return [read_job(path, text, variables)]


_READERS: dict[str, Callable[[Path, str, Mapping[str, str]], list[Wanted]]] = {
    "identity": _guards, "queries": _queries, "audiences": _audiences,
    "authorizations": _authorizations, "jobs": _jobs,
}  # fmt: skip


def _includes(node: Any) -> set[str]:
    from dataclasses import fields, is_dataclass

    from streams.ql.nodes import Include

    if isinstance(node, Include):
        return {node.name.lower()}
    if isinstance(node, tuple):
        return set().union(*(_includes(each) for each in node)) if node else set()
    if is_dataclass(node):
        return set().union(*(_includes(getattr(node, part.name)) for part in fields(node)))
    return set()


def _in_order(wanted: Sequence[Wanted]) -> list[Wanted]:
    audiences = {each.name.lower(): each for each in wanted if each.kind == "audience"}
    ordered: dict[str, Wanted] = {}

    def visit(each: Wanted, above: frozenset[str]) -> None:
        if each.name in ordered or each.name.lower() in above:  # a circle is for the daemon to refuse
            return
        for name in each.needs:
            if name in audiences:
                visit(audiences[name], above | {each.name.lower()})
        ordered[each.name] = each

    for each in audiences.values():
        visit(each, frozenset())
    return [
        *(each for each in wanted if each.kind == "guard"),
        *(each for each in wanted if each.kind == "query"),
        *ordered.values(),
        *(each for each in wanted if each.kind == "authorization"),
        *(each for each in wanted if each.kind == "job"),
    ]


def compare(
    wanted: Sequence[Wanted],
    queries: Sequence[Mapping[str, Any]],
    audiences: Sequence[Mapping[str, Any]],
    jobs: Sequence[Mapping[str, Any]],
    *,
    prune: bool,
    guards: Sequence[Mapping[str, Any]] = (),
    auths: Sequence[Mapping[str, Any]] = (),
    providers: Sequence[Mapping[str, Any]] = (),
) -> list[Step]:
    """Gives the steps from what a daemon has to what the folder says; with `prune` what is only there is deleted.

    `providers` is the daemon's catalogue, whose schemas say what is a secret and what a default.
    """
    steps: list[Step] = []
    have = {("query", each["alias"].lower()): each["text"] for each in queries}
    have |= {("audience", each["slug"].lower()): each["segment_ql"] for each in audiences}
    held = {guard_name(each): each for each in guards}
    coming = frozenset(each.name for each in wanted if each.kind == "authorization")
    for each in wanted:
        if each.kind == "guard":
            old = held.pop(each.name, None)
            before = "" if old is None else _canonical_guard(old)
            action: Action = "create" if old is None else "keep" if before == each.canonical else "change"
            steps.append(Step(action, "guard", each.name, before, each))
            continue
        if each.kind == "job":
            steps.append(job_step(each, jobs, auths, providers, coming))
            continue
        if each.kind == "authorization":
            steps.append(authorization_step(each, auths, providers))
            continue
        text = have.pop((each.kind, each.name.lower()), None)
        if text is None:
            steps.append(Step("create", each.kind, each.name, wanted=each))
        else:
            same = _canonical(each.kind, text) == each.canonical
            steps.append(Step("keep" if same else "change", each.kind, each.name, text, each))
    if prune:
        labels = {each.name for each in wanted if each.kind == "job"}
        gone = [each for each in jobs if each["label"] not in labels and each["state"] not in ("completed", "failed")]
        steps += [Step("delete", "job", each["label"], id=each["id"]) for each in gone]
        kept = [each for each in auths if each["label"] not in coming]
        steps += [Step("delete", "authorization", each["label"], id=each["id"]) for each in kept]
        for (kind, name), text in reversed(have.items()):
            steps.append(Step("delete", "query" if kind == "query" else "audience", name, text))
        steps += [Step("delete", "guard", name, id=str(each["id"])) for name, each in held.items()]
    return steps


def _canonical(kind: str, text: str) -> str:
    if kind == "query":
        return "; ".join(print_query(each) for each in parse_queries(text))
    return print_filter(parse_filter(text))
