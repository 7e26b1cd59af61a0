"""A folder of definitions: what is read of it, in which order, and how it differs from what a daemon has."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.cli import folder

LQL = "SELECT user_id, email(email) AS email FROM orders INTO user BY user_id OR email ALIAS shop"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_an_audience_comes_after_those_that_it_includes(tmp_path: Path) -> None:
    files = {
        "audiences/a.fql": "FILTER INCLUDE zulu ALIAS alpha",
        "audiences/z.fql": "FILTER EXISTS email ALIAS zulu",
        "queries/shop.lql": LQL,
    }

    wanted = folder.read(write(tmp_path, files))

    assert [each.name for each in wanted] == ["shop", "zulu", "alpha"]


def test_every_finding_is_told_with_its_file(tmp_path: Path) -> None:
    files = {
        "audiences/bad.fql": "FILTER AND ( x > ",
        "audiences/noalias.fql": "FILTER EXISTS email",
        "jobs/typo.yaml": "job_type: webhook_triggers\nconfg: {}\n",
        "jobs/unset.yaml": "job_type: webhook_triggers\nconfig: {url: '${NOWHERE}'}\n",
    }

    with pytest.raises(folder.FolderError) as refused:
        folder.read(write(tmp_path, files), environment={})

    text = str(refused.value)
    assert "bad.fql" in text
    assert "noalias.fql: the filter has no ALIAS" in text
    assert "typo.yaml: unknown key 'confg'" in text
    assert "unset.yaml: the environment variable NOWHERE is not set" in text


def test_what_differs_only_in_form_is_kept(tmp_path: Path) -> None:
    wanted = folder.read(write(tmp_path, {"audiences/a.fql": "filter and (a = 1\n b = 2) alias good"}))
    there = [{"slug": "good", "segment_ql": "FILTER AND ( a = 1, b = 2 ) ALIAS good"}]

    steps = folder.compare(wanted, [], there, [], prune=False)

    assert [step.action for step in steps] == ["keep"]


def test_only_with_prune_is_anything_deleted_and_jobs_go_before_what_they_use(tmp_path: Path) -> None:
    wanted = folder.read(write(tmp_path, {"queries/shop.lql": LQL}))
    queries = [{"alias": "shop", "text": LQL}, {"alias": "old", "text": LQL.replace("shop", "old")}]
    audiences = [{"slug": "gone", "segment_ql": "FILTER EXISTS x ALIAS gone"}]
    jobs = [{"id": "1", "label": "crm", "job_type": "webhook_triggers", "state": "running", "config": {}}]

    careful = folder.compare(wanted, queries, audiences, jobs, prune=False)
    pruned = folder.compare(wanted, queries, audiences, jobs, prune=True)

    assert [step.action for step in careful] == ["keep"]
    deleted = [(step.kind, step.name) for step in pruned if step.action == "delete"]
    assert deleted == [("job", "crm"), ("audience", "gone"), ("query", "old")]


def test_a_job_with_another_configuration_is_blocked_not_replaced(tmp_path: Path) -> None:
    files = {"jobs/crm.yaml": "job_type: webhook_triggers\nlabel: crm\nconfig: {url: '${HOOK}'}\n"}
    wanted = folder.read(write(tmp_path, files), environment={"HOOK": "http://new/"})
    job = {"id": "1", "label": "crm", "description": "", "job_type": "webhook_triggers", "state": "running"}

    same = folder.compare(wanted, [], [], [{**job, "config": {"url": "http://new/", "batch_size": 1}}], prune=False)
    other = folder.compare(wanted, [], [], [{**job, "config": {"url": "http://old/"}}], prune=False)

    assert [step.action for step in same] == ["keep"]
    assert [step.action for step in other] == ["blocked"]
    assert "config.url" in other[0].why
