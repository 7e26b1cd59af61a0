"""What a webhook job accepts, which addresses it may reach, and how it signs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from connectors.files.triggers import FilesExportTriggers
from connectors.sdk.catalog import catalog
from connectors.sdk.errors import ConfigError
from connectors.sdk.http import refusal
from connectors.sdk.run import Network
from connectors.sdk.secret import Secret
from connectors.webhook import ACCESS, BEARER, WebhookTriggers, _let_in, _signature, _signers
from daemon.jobs.references import resolve

URL = "https://example.com/check"


def config(**given):
    return WebhookTriggers.model_validate({"audiences": ["a"], "url": "https://example.com/hook"} | given)


def test_defaults_are_those_that_are_documented():
    made = config()

    assert (
        made.batch_size,
        made.flush_seconds,
        made.events,
        made.user_fields,
        made.existing_users,
    ) == (1, 1.0, "both", None, False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"url": "ftp://example.com"}, "http:// or https://"),
        ({"url": "/hook"}, "http:// or https://"),
        ({"url": "http://"}, "http:// or https://"),
        ({"url": "http://example.com:99999/"}, "url"),
        ({"url": "https://me:secret@example.com/"}, "user name or password"),
        ({"audiences": []}, "audiences"),
        ({"events": "all"}, "'both', 'enters' or 'exits'"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 1001}, "batch_size"),
        ({"flush_seconds": 301}, "flush_seconds"),
        ({"colour": "red"}, "colour"),
        ({"headers": {"Authorization": "Bearer abc"}}, "is a secret"),
        ({"headers": {"X-Api-Key": "abc"}}, "is a secret"),
        ({"headers": {"Authorization": "env:"}}, "by reference"),
        ({"headers": {"Content-Length": "3"}}, "set by cohortd"),
        ({"headers": {"X Y": "3"}}, "not the name of a header"),
        ({"headers": {"X-Env": "a\r\nB: c"}}, "line end"),
        ({"signature_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "by reference"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(given, says):
    with pytest.raises(ValidationError) as refused:
        config(**given)

    assert says in str(refused.value)


def test_a_secret_given_inline_is_not_repeated_in_the_refusal():
    for given in ({"signature_secret": "whsec_hush"}, {"headers": {"Authorization": "whsec_hush"}}):
        with pytest.raises(ValidationError) as refused:
            config(**given)
        said = refused.value.errors(include_url=False, include_input=False, include_context=False)

        assert "whsec_hush" not in str(said)


ALL = Network(allow_loopback=True, allow_private=True)
NONE = Network(allow_loopback=False, allow_private=False)
LOOPBACK = ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")
PRIVATE = (
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "fd00::1", "fe80::1", "fe80::1%eth0",
    "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::",
)  # fmt: skip
PUBLIC = ("8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")
NOBODY = ("0.0.0.0", "::", "224.0.0.1", "ff02::1")  # noqa: S104  (as data)


def test_addresses_are_refused_by_what_they_are_however_they_are_written():
    default = Network()
    cases = dict.fromkeys(LOOPBACK, (True, True, False))
    cases |= dict.fromkeys(PRIVATE, (False, True, False))
    cases |= dict.fromkeys(PUBLIC, (True, True, True))
    cases |= dict.fromkeys(NOBODY, (False, False, False))

    for address, expected in cases.items():
        assert expected == tuple(refusal(address, each) is None for each in (default, ALL, NONE)), address


def test_the_signature_is_that_of_standard_webhooks():
    # The example of the Standard Webhooks libraries.
    signers = _signers(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))

    headers = _signature(signers, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_secrets_make_two_signatures():
    headers = _signature(_signers(Secret("whsec_aGVsbG8= plain")), "1", 2, b"{}")

    assert len(headers["webhook-signature"].split(" ")) == 2


def test_references_are_resolved_when_they_are_needed(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("HOOK_TOKEN", "from-env")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert resolve("env:HOOK_TOKEN").reveal() == "from-env"
    assert resolve(f"file:{tmp_path}/token").reveal() == "from-file"
    assert resolve("credential:token").reveal() == "from-file"
    assert "from" not in f"{resolve('env:HOOK_TOKEN')!r} {resolve('env:HOOK_TOKEN')}"


@pytest.mark.parametrize("reference", ["env:NO_SUCH_NAME", "file:/no/such/file", "credential:x", "hush", "file:/dev"])
def test_a_reference_to_nothing_says_what_to_change(monkeypatch, reference):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    with pytest.raises(ConfigError):
        resolve(reference)


def test_a_relative_folder_cannot_lead_out_of_the_exports():
    with pytest.raises(ValidationError, match="must not lead out"):
        FilesExportTriggers(audiences=("a",), folder="../state")


def test_the_catalogue_is_what_the_folder_holds():
    found = catalog()

    assert {"webhook", "files"} <= found.providers.keys()
    assert {"webhook_triggers": "webhook", "files_export_triggers": "files"}.items() <= found.provider_of.items()
    for kind in found.job_types.values():
        assert kind.config.model_json_schema()["properties"]


def access(method, **given):
    return next(each for each in ACCESS if each.slug == method).config.model_validate(given)


@pytest.mark.parametrize(
    ("method", "given", "says"),
    [
        ("bearer", {}, "Field required"),
        ("bearer", {"token": "hush\nhush"}, "line end"),
        ("bearer", {"token": "hush", "check_url": "https://me:hush@example.com"}, "user name or password"),
        ("bearer", {"token": "hush", "signing_secret": "whsec_hush!"}, "not base64"),
        ("basic", {"user": "a:b", "password": "hush"}, "pattern"),
        ("headers", {"headers": {}}, "at least 1"),
        ("headers", {"headers": {"Content-Type": "hush"}}, "set by cohortd"),
        ("headers", {"headers": {"X-Key": "hu\r\nsh"}}, "line end"),
        ("signature", {"signing_secret": " "}, "is empty"),
        ("signature", {"signing_secret": "hush", "check_url": "https://example.com"}, "Extra inputs"),
    ],
)
def test_access_that_cannot_be_is_refused_without_the_secret(method, given, says):
    with pytest.raises(ValidationError) as refused:
        access(method, **given)

    said = " ".join(each["msg"] for each in refused.value.errors(include_input=False))
    assert says in said
    assert "hush" not in said


def test_each_way_of_access_has_its_headers_and_shows_none_of_them():
    made = [
        access("bearer", token="hush"),
        access("basic", user="ann", password="hush"),
        access("headers", headers={"X-Key": "hush", "Authorization": "Token hush"}),
        access("signature", signing_secret="hush"),
    ]

    assert [
        {"authorization": "Bearer hush"},
        {"authorization": "Basic YW5uOmh1c2g="},
        {"x-key": "hush", "authorization": "Token hush"},
        {},
    ] == [each.headers_sent() for each in made]
    assert all("hush" in {secret.reveal() for secret in each.secrets()} for each in made)
    assert "hush" not in repr(made)
    assert [False, True] == [BEARER.can_check(each) for each in (made[0], access("bearer", token="x", check_url=URL))]


def test_what_comes_from_the_job_and_from_its_authorization_is_not_chosen_from():
    with pytest.raises(ConfigError, match="header authorization comes from the job's headers and"):
        _let_in(access("bearer", token="hush"), {"authorization": "x"}, [])
    with pytest.raises(ConfigError, match="signature_secret, and a secret in the authorization"):
        _let_in(access("signature", signing_secret="hush"), {}, [b"x"])
