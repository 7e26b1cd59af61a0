"""Authorizations and jobs of a folder: secrets by reference alone, and how they differ from what a daemon has."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from connectors.sdk.declare import Config
from connectors.sdk.run import Credentials
from connectors.sdk.secret import SecretReference
from daemon.cli import folder, folder_jobs
from daemon.cli.yaml_text import dump, load

REFUSAL = "a secret is given by reference: env:NAME, file:/path or credential:name"


class Login(Credentials):
    host: str
    port: int = 22
    password: SecretStr | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)


class Send(Config):
    url: str
    batch_size: int = 1
    key: SecretReference | None = None


PROVIDERS = [
    {
        "slug": "sftp",
        "auth_methods": [{"slug": "password", "schema": Login.model_json_schema()}],
        "job_types": [{"slug": "send", "schema": Send.model_json_schema()}],
    }
]
AUTH = """\
provider: sftp
method: password
label: store
config: {host: "${HOST}", password: env:STORE_PASSWORD, headers: {X-Key: "file:/run/key"}}
"""
THERE = {
    "id": "a1", "label": "store", "provider": "sftp", "method": "password", "description": "",
    "config": {"host": "files.example", "port": 22},
    "secrets": {
        "password": {"set": True, "reference": "env:STORE_PASSWORD"},
        "headers/X-Key": {"set": True, "reference": "file:/run/key"},
    },
}  # fmt: skip
JOB = {
    "id": "j1", "label": "out", "description": "", "job_type": "send", "state": "running", "auth_id": "a1",
    "config": {"url": "http://x/", "batch_size": 1, "key": None},
    "schedule": {"frequency": "daily", "every": 1, "time_of_day": "12:30", "time_zone": "UTC", "weekday": None,
                 "day_of_month": None},
    "quiet": None, "expires_at": "2099-01-01T00:00:00+00:00",
}  # fmt: skip
JOB_FILE = """\
job_type: send
label: out
authorization: store
config: {url: "http://x/"}
schedule: {frequency: daily, time_of_day: 12:30}
expires_at: 2099-01-01T01:00:00+01:00
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def steps(root, files, *, auths=(), jobs=(), prune=False, variables=None):
    variables = {"HOST": "files.example"} if variables is None else variables
    wanted = folder_jobs.checked(folder.read(write(root, files), variables), PROVIDERS, variables)
    return folder.compare(wanted, [], [], jobs, prune=prune, auths=auths, providers=PROVIDERS)


def test_what_is_there_already_is_kept_whatever_way_it_is_written(tmp_path):
    found = steps(tmp_path, {"authorizations/a.yaml": AUTH, "jobs/j.yaml": JOB_FILE}, auths=[THERE], jobs=[JOB])

    assert [(each.action, each.kind, each.name, each.why) for each in found] == [
        ("keep", "authorization", "store", ""),
        ("keep", "job", "out", ""),
    ]


def test_authorizations_are_made_before_the_jobs_that_name_them(tmp_path):
    found = steps(tmp_path, {"authorizations/store.yaml": AUTH.replace("label: store\n", ""), "jobs/j.yaml": JOB_FILE})

    assert [(each.action, each.kind, each.name) for each in found] == [
        ("create", "authorization", "store"), ("create", "job", "out")
    ]  # fmt: skip
    assert found[0].wanted.body["config"]["host"] == "files.example"
    assert found[0].wanted.body["config"]["password"] == "env:STORE_PASSWORD"
    assert found[0].wanted.raw["host"] == "${HOST}"


@pytest.mark.parametrize(
    "inline", ["hunter2", "${STORE_PASSWORD}", "env:", "env:A B", "123456", "[hunter2]", "{a: hunter2}"]
)
def test_a_secret_that_is_no_reference_is_refused_with_file_and_key_and_not_repeated(tmp_path, inline):
    files = {
        "authorizations/a.yaml": AUTH.replace("env:STORE_PASSWORD", f"'{inline}'" if inline[0] in "$e1" else inline),
        "authorizations/b.yaml": AUTH.replace("label: store", "label: b").replace('"file:/run/key"', "hunter2"),
        "jobs/j.yaml": JOB_FILE.replace("http://x/", "http://x/").replace('x/"}', 'x/", key: hunter2}'),
    }

    with pytest.raises(folder.FolderError) as refused:
        steps(tmp_path, files, variables={"HOST": "x", "STORE_PASSWORD": "hunter2"})

    assert str(refused.value).splitlines() == [
        f"{tmp_path}/authorizations/a.yaml: config.password: {REFUSAL}",
        f"{tmp_path}/authorizations/b.yaml: config.headers.X-Key: {REFUSAL}",
        f"{tmp_path}/jobs/j.yaml: config.key: {REFUSAL}",
    ]
    assert refused.value.__cause__ is None


def test_a_misspelt_name_is_refused_before_anything_is_sent(tmp_path):
    with pytest.raises(folder.FolderError, match=r"a.yaml: config.pasword: unknown; there are host, port, password, "):
        steps(tmp_path, {"authorizations/a.yaml": AUTH.replace("password: env", "pasword: env")})


def test_what_yaml_cannot_read_is_not_repeated(tmp_path):
    with pytest.raises(folder.FolderError, match="no YAML in line 1, column ") as refused:
        folder.read(write(tmp_path, {"authorizations/a.yaml": "provider: a: hunter2"}))

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: password", "an authorization is a mapping with provider, method, label, config"),
        (f"{AUTH}secret: x", "unknown key 'secret'; an authorization has provider, method, label, description, config"),
        ("provider: a\nmethod: b\nconfig: [x]", "config: expected a mapping"),
        ("provider: a\nmethod: b\nlabel: 7", "label: expected text"),
    ],
)
def test_what_is_no_authorization_is_refused(tmp_path, text, words):
    with pytest.raises(folder.FolderError, match=words):
        folder.read(write(tmp_path, {"authorizations/a.yaml": text}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedule": {"frequency": "daily", "time_of_day": "25:00"}}, "schedule.time_of_day: '25:00' is no time"),
        ({"quiet": {"time_of_day": "22:00", "hours": 30}}, "quiet.hours: 30 is not a number of hours"),
        ({"expires_at": "tomorrow"}, "expires_at: 'tomorrow' is no moment"),
        ({"expires_at": "2099-01-01"}, "expires_at: '2099-01-01' is no moment"),
        ({"auth_id": "a1"}, "authorization and auth_id both name one"),
    ],
)
def test_times_of_a_job_are_refused_where_they_are_read(tmp_path, change, words):
    text = dump(load(JOB_FILE) | change)

    with pytest.raises(folder.FolderError, match=words):
        folder.read(write(tmp_path, {"jobs/j.yaml": text}))


@pytest.mark.parametrize(
    ("there", "action", "words"),
    [
        ({"config": {"host": "other", "port": 22}}, "blocked", "config.host differs; an authorization's values cannot"),
        ({"config": {"host": "files.example", "port": 23}}, "blocked", "config.port differs"),
        ({"method": "key"}, "blocked", "method differs"),
        (
            {"secrets": {**THERE["secrets"], "password": {"set": True, "reference": "env:B"}}},
            "blocked",
            "config.password",
        ),
        ({"secrets": {"password": THERE["secrets"]["password"]}}, "blocked", "config.headers/X-Key differs"),
        (
            {"secrets": {**THERE["secrets"], "password": {"set": True, "reference": None}}},
            "keep",
            "password: given in clear",
        ),
        ({"description": "old"}, "change", ""),
    ],
)
def test_how_an_authorization_differs_is_told(tmp_path, there, action, words):
    (step,) = steps(tmp_path, {"authorizations/a.yaml": AUTH}, auths=[{**THERE, **there}])

    assert step.action == action
    assert words in step.why


@pytest.mark.parametrize(
    ("there", "action", "words"),
    [
        ({"config": {**JOB["config"], "batch_size": 9}}, "blocked", "config.batch_size differs; a job's configuration"),
        ({"schedule": {"frequency": "hourly"}}, "blocked", "schedule is hourly there, daily at 12:30 UTC here"),
        ({"schedule": None}, "blocked", "schedule is not set there"),
        ({"quiet": {"time_of_day": "22:00", "hours": 8}}, "blocked", "quiet is 22:00 for 8 h UTC there, not set here"),
        ({"expires_at": None}, "blocked", "expires_at is not set there"),
        (
            {"job_type": "other"},
            "blocked",
            "a job's type cannot change: give the new job another label, or end this one",
        ),
        ({"auth_id": "a2"}, "change", ""),
        ({"auth_id": None}, "change", ""),
        ({"state": "completed"}, "create", ""),
    ],
)
def test_how_a_job_differs_is_told(tmp_path, there, action, words):
    files = {"authorizations/a.yaml": AUTH, "jobs/j.yaml": JOB_FILE}
    other = {**THERE, "id": "a2", "label": "old one"}
    step = steps(tmp_path, files, auths=[THERE, other], jobs=[{**JOB, **there}])[1]

    assert step.action == action
    assert words in step.why


def test_a_job_that_names_no_authorization_that_there_is_is_blocked(tmp_path):
    (step,) = steps(tmp_path, {"jobs/j.yaml": JOB_FILE})

    assert step.action == "blocked"
    assert step.why == "there is no authorization 'store', neither in the daemon nor in authorizations/"


def test_an_authorization_by_an_unknown_method_is_blocked_with_those_that_there_are(tmp_path):
    (step,) = steps(tmp_path, {"authorizations/a.yaml": AUTH.replace("password\n", "key\n")})

    assert step.why == "the daemon knows no sftp/key; there are sftp/password"


def test_only_with_prune_authorizations_go_and_after_the_jobs_that_use_them(tmp_path):
    files = {"jobs/j.yaml": JOB_FILE.replace("authorization: store\n", "").replace("label: out", "label: new")}
    careful = steps(tmp_path, files, auths=[THERE], jobs=[JOB])
    pruned = steps(tmp_path, files, auths=[THERE], jobs=[JOB], prune=True)

    assert [each.action for each in careful] == ["create"]
    assert [(each.action, each.kind, each.name) for each in pruned] == [
        ("create", "job", "new"), ("delete", "job", "out"), ("delete", "authorization", "store")
    ]  # fmt: skip


def test_times_and_dates_of_yaml_stay_text():
    text = "{a: 12:30, b: 2027-01-31, c: 2027-01-31T00:00:00Z, d: 12, e: 1.5, f: 0x1f, g: true, h: ~, i: -3, j: 1e3}"

    assert load(text) == {
        "a": "12:30", "b": "2027-01-31", "c": "2027-01-31T00:00:00Z", "d": 12, "e": 1.5, "f": 31, "g": True, "h": None,
        "i": -3, "j": 1000.0,
    }  # fmt: skip


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(), _VALUES, max_size=4))
def test_what_is_written_is_read_as_it_was(value):
    try:
        text = dump(folder_jobs.escaped(value))
        read = load(text)
    except (yaml.YAMLError, UnicodeEncodeError):  # YAML has no such characters
        return

    assert folder_jobs._filled(read, {}) == value


def test_what_looks_like_a_variable_is_written_so_that_it_stays_text():
    value = {"url": "http://x/${NAME}/$${NAME}", "list": ["${A}"]}
    written = dump(folder_jobs.escaped(value))

    assert "$${NAME}" in written
    assert folder_jobs._filled(load(written), {"NAME": "n", "A": "a"}) == value
    assert folder_jobs._filled({"url": "${NAME}"}, {"NAME": "n"}) == {"url": "n"}
