"""Connection strings of storage accounts, and what Azure refuses, in words."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from pydantic import ValidationError

from connectors.azure import listing
from connectors.azure.audience import AzureBlobExportAudienceJson
from connectors.azure.connection import Endpoint, endpoint_of
from connectors.azure.refusals import (
    BeyondError,
    BlobChangedError,
    BlobMissingError,
    MissingContainerError,
    NotPermittedError,
    told,
)
from connectors.azure.storage import StorageCredentials
from connectors.sdk.errors import AuthError, ConfigError, TransientError

KEY = base64.b64encode(b"hush, this is the key").decode()
NOW_US = 1_800_000_000_000_000


@pytest.mark.parametrize(
    ("text", "url", "account", "by"),
    [
        (
            f"DefaultEndpointsProtocol=https;AccountName=acct;AccountKey={KEY};EndpointSuffix=core.windows.net",
            "https://acct.blob.core.windows.net",
            "acct",
            "key",
        ),
        (f"AccountName=acct;AccountKey={KEY}", "https://acct.blob.core.windows.net", "acct", "key"),
        (
            f" accountname=acct ; ACCOUNTKEY={KEY};EndpointSuffix=core.chinacloudapi.cn;",
            "https://acct.blob.core.chinacloudapi.cn",
            "acct",
            "key",
        ),
        (
            f"AccountName=acct;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:10000/acct/;QueueEndpoint=http://x",
            "http://127.0.0.1:10000/acct",
            "acct",
            "key",
        ),
        (
            "BlobEndpoint=https://acct.blob.core.windows.net/;SharedAccessSignature=?sv=1&ss=b&srt=sco&sp=rl&sig=a%3D",
            "https://acct.blob.core.windows.net",
            "acct",
            "signature",
        ),
        ("UseDevelopmentStorage=true", "http://127.0.0.1:10000/devstoreaccount1", "devstoreaccount1", "key"),
        (
            "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://azurite",
            "http://azurite:10000/devstoreaccount1",
            "devstoreaccount1",
            "key",
        ),
    ],
)
def test_a_connection_string_is_read_in_all_its_forms(text, url, account, by):
    found = endpoint_of(text)

    assert (url, account) == (found.url, found.account)
    assert bool(found.key) == (by == "key")
    assert bool(found.signature) == (by == "signature")
    assert found.credential is not None
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hush", "is no connection string"),
        ("", "neither AccountName nor BlobEndpoint"),
        (f"AccountKey={KEY}", "neither AccountName nor BlobEndpoint"),
        ("AccountName=acct", "neither AccountKey nor SharedAccessSignature"),
        ("AccountName=acct;AccountKey=hush", "AccountKey is not complete" if len("hush") % 4 else ""),
        ("AccountName=acct;AccountKey=hush1", "AccountKey is not complete"),
        (f"AccountName=A B;AccountKey={KEY}", "small letters and digits"),
        (f"BlobEndpoint=hush;AccountKey={KEY}", "BlobEndpoint: an address"),
        (f"BlobEndpoint=http://x:hush;AccountKey={KEY}", "BlobEndpoint: an address"),
        ("BlobEndpoint=https://x;SharedAccessSignature=hush", "no sig="),
    ],
)
def test_what_is_no_connection_string_is_refused_without_repeating_it(text, words):
    if not words:
        assert endpoint_of(text)
        return
    with pytest.raises(ValueError, match=words) as refused:
        endpoint_of(text)
    with pytest.raises(ValidationError):
        StorageCredentials.model_validate({"connection_string": text})

    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("signature", "narrow"),
    [
        ("sv=1&ss=b&srt=sco&sp=rl&sig=x", False),
        ("sv=1&ss=b&srt=co&sp=rl&sig=x", True),
        ("sv=1&ss=b&srt=sco&sp=rw&sig=x", True),
        ("sv=1&sr=c&sp=rl&sig=x", True),
    ],
)
def test_a_signature_for_one_container_is_known_as_such(signature, narrow):
    assert narrow == Endpoint("https://acct.x", "acct", signature=signature).narrow


def answered(status: int, code: str = "", words: str = "No.", **headers: str) -> HttpResponseError:
    response: Any = SimpleNamespace(
        status_code=status,
        reason="No",
        headers={"x-ms-error-code": code, **{key.replace("_", "-"): value for key, value in headers.items()}},
        text=lambda: "",
        content_type="",
    )
    error = HttpResponseError(message=words, response=response)
    error.error_code = code
    return error


NOW = "Fri, 15 Jan 2027 08:00:00 GMT"  # NOW_US


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (answered(403, "AuthenticationFailed", "Server failed to authenticate."), AuthError, "AccountKey is refused"),
        (answered(403, "AuthorizationFailure", "Server failed to authenticate."), AuthError, "AccountKey is refused"),
        (answered(403, "AuthorizationFailure", "This request is not authorized."), AuthError, "firewall"),
        (answered(403, "AuthorizationPermissionMismatch"), NotPermittedError, "does not permit this"),
        (answered(403, "KeyBasedAuthenticationNotPermitted"), AuthError, "permits no keys"),
        (answered(401, "", "who?"), AuthError, "who?"),
        (
            answered(403, "AuthenticationFailed", "authenticate", Date="Fri, 15 Jan 2027 07:00:00 GMT"),
            AuthError,
            "clock of this host is 60 minutes ahead of theirs",
        ),
        (
            answered(403, "AuthenticationFailed", "authenticate", Date="Fri, 15 Jan 2027 08:20:00 GMT"),
            AuthError,
            "clock of this host is 20 minutes behind theirs",
        ),
        (answered(403, "AuthenticationFailed", "authenticate", Date=NOW), AuthError, "AccountKey is refused"),
        (answered(404, "ContainerNotFound"), MissingContainerError, "404 ContainerNotFound"),
        (answered(404, "BlobNotFound"), BlobMissingError, "404 BlobNotFound"),
        (answered(404, "", "not here"), ConfigError, "not here"),
        (answered(412, "ConditionNotMet"), BlobChangedError, "412"),
        (answered(416, "InvalidRange"), BeyondError, "416"),
        (answered(400, "InvalidResourceName", "illegal characters"), ConfigError, "illegal characters"),
        (answered(400, "InvalidBlockList"), TransientError, "written anew"),
        (answered(409, "ContainerBeingDeleted", "in a moment"), TransientError, "in a moment"),
        (answered(500, "InternalError", "try again"), TransientError, "try again"),
    ],
)
def test_what_is_refused_is_told_by_what_must_be_done(error, kind, words):
    found = told(error, "blob a in b", Endpoint("https://acct.x", "acct", key=KEY), now_us=NOW_US)

    assert kind is type(found)
    assert words in str(found)
    assert "blob a in b" in str(found)


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (answered(503, "ServerBusy"), 10.0),
        (answered(503, "ServerBusy", Retry_After="7"), 7.0),
        (answered(429, "", Retry_After="3"), 3.0),
        (answered(429, "TooManyRequests"), 10.0),
        (answered(500, "OperationTimedOut"), None),
        (answered(503, "", Retry_After="4"), 4.0),
    ],
)
def test_throttling_is_no_error_and_waits_as_long_as_it_was_asked_to(error, after):
    found = told(error, "blob a in b", Endpoint("https://acct.x", "acct", key=KEY))

    assert isinstance(found, TransientError)
    assert after == found.retry_after


def test_a_signature_that_has_ended_is_told_as_such_and_stands_nowhere():
    endpoint = Endpoint("https://acct.x", "acct", signature="sv=1&se=2027-01-14T00%3A00Z&sp=rl&sig=hush-hush")

    found = told(answered(403, "AuthenticationFailed", "authenticate hush-hush"), "it", endpoint, now_us=NOW_US)

    assert isinstance(found, AuthError)
    assert "ended 2027-01-14 00:00 UTC" in str(found)
    assert "hush" not in str(found)


def test_the_largest_file_is_5_gb_when_nobody_says():
    config = AzureBlobExportAudienceJson.model_validate({"audiences": ["vip"], "container": "out"})

    assert 5_368_709_120 == config.max_file_bytes


@pytest.mark.parametrize("name", ["ab", "a" * 64, "Abc", "a--b", "-abc", "abc-", "a_b", "a/b"])
def test_what_cannot_be_a_container_is_refused(name):
    with pytest.raises(ValidationError):
        AzureBlobExportAudienceJson.model_validate({"audiences": ["vip"], "container": name})


def test_a_list_is_read_as_azure_writes_it():
    body = b"""\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="c"><Blobs>
    <Blob><Name>a/\xc3\xbc &amp; b.csv</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:01 GMT</Last-Modified>
    <Etag>0x1</Etag><Content-Length>12</Content-Length></Properties></Blob>
    <Blob><Name Encoded="true">x%EF%BF%BEy%25</Name><Properties/></Blob><Blob><Name>bare</Name></Blob>
    </Blobs><NextMarker>2!n</NextMarker></EnumerationResults>"""

    page = listing.read(body, "Blob")

    assert "2!n" == page.token
    assert [
        ("a/\u00fc & b.csv", 12, "0x1", 1_767_225_601_000_000),
        ("x\ufffey%", 0, "", 0),
        ("bare", 0, "", 0),
    ] == [tuple(each) for each in page.entries]
    last = listing.read(b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>", "Blob")
    assert (None, []) == (last.token, last.entries)
    for broken in (b"", b"<html>", b"nothing"):
        with pytest.raises(ValueError, match="no list"):
            listing.read(broken, "Blob")
