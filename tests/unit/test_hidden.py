"""A provider's words never repeat a secret, in whatever form it comes back, nor a part of it at a cut."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from connectors.sdk.errors import AuthError
from connectors.sdk.run import Credentials
from connectors.sdk.secret import HIDDEN, Secret, hidden
from daemon.jobs.credentials import divided, secret_fields
from daemon.jobs.limiter import Limiter
from daemon.jobs.opening import OpenedAuth

SECRET = "p\"ss'w\u00f6rd/+ 4711"


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        quote(SECRET, safe=""),
        repr(SECRET)[1:-1],
    ],
)
def test_each_form_is_hidden_wherever_it_stands_and_where_it_was_cut(form):
    assert f"no {HIDDEN}, nor {HIDDEN}!" == hidden(f"no {form}, nor {form}!", [Secret("other"), Secret(SECRET)])
    for size in range(4, len(form)):
        assert form[:4] not in hidden(f"no: {form[:size]}", [Secret(SECRET)])


def test_what_is_no_secret_stays():
    assert "nothing here" == hidden("nothing here", [Secret(SECRET), Secret("")]) == hidden("nothing here", [])


def test_of_a_key_of_several_lines_each_line_is_hidden():
    key = "-----BEGIN KEY-----\nMIIBAAKCAQEAx7abcdefgh\nzzzz\n-----END KEY-----"

    assert "MIIB" not in hidden("line 2 is bad: MIIBAAKCAQEAx7abcdefgh (see there)", [Secret(key)])


def test_an_error_is_cleansed_with_its_causes_and_parts():
    opened = OpenedAuth("1", None, Credentials(), Limiter(None), lambda _: None, [Secret(SECRET)])
    refused = AuthError(f"refused {SECRET}", retry_after=3)
    refused.__cause__ = ValueError(SECRET)
    refused.__context__ = KeyError(SECRET)
    refused.__context__.__context__ = refused  # a circle

    opened.cleanse(ExceptionGroup("several", [refused]))

    assert [f"refused {HIDDEN}", HIDDEN, repr(HIDDEN)] == [
        str(each) for each in (refused, refused.__cause__, refused.__context__)
    ]
    assert 3 == refused.retry_after


def test_a_secret_in_a_form_that_cannot_be_sealed_is_refused_in_the_declaration():
    class Good(Credentials):
        one: SecretStr
        maybe: SecretStr | None = None
        more: Mapping[str, SecretStr] = {}
        plain: str = ""

    class Bad(Credentials):
        several: list[SecretStr]

    assert {"one": "text", "maybe": "text", "more": "mapping"} == secret_fields(Good)
    with pytest.raises(TypeError, match=r"Bad\.several"):
        secret_fields(Bad)


def test_secrets_are_taken_out_and_references_stay_references():
    class Model(Credentials):
        one: SecretStr
        more: Mapping[str, SecretStr] = {}

    given = divided(Model, {"one": "clear", "more": {"a": "env:X", "b/c": "clear"}, "plain": "env:Y"})

    assert {"plain": "env:Y"} == given.plain
    assert ["one", "more/a", "more/b/c"] == list(given.secrets)
    assert "env:X" == given.secrets["more/a"]
    assert "clear" not in repr(given)
