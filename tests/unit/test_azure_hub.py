"""What an event hub gets: connection strings, the bytes of events, partitions, and messages that are too large."""

from __future__ import annotations

import asyncio
import json

import pytest
from azure.eventhub._buffered_producer._partition_resolver import PartitionResolver
from azure.eventhub._pyamqp.aio import _connection_async
from proton import Message as Decoder
from pydantic import ValidationError

from connectors.azure import hub_sockets
from connectors.azure.hub import EventHubCredentials
from connectors.azure.hub_connection import namespace_of
from connectors.azure.hub_events import OMITTED_NAMES, Partitions, encoded, reduced
from connectors.azure.hub_export import _Pace
from connectors.sdk.run import Message

KEY = "aHVzaCwgYSBrZXk="
STRING = f"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey={KEY}"
SIGNATURE = "SharedAccessSignature sr=sb%3a%2f%2fns&sig=aHVzaA%3d%3d&se=1900000000&skn=send"


@pytest.mark.parametrize(
    ("text", "host", "port", "hub", "emulator"),
    [
        (STRING, "ns.servicebus.windows.net", None, None, False),
        (STRING + ";EntityPath=people", "ns.servicebus.windows.net", None, "people", False),
        (f" {STRING};EntityPath=people; ", "ns.servicebus.windows.net", None, "people", False),
        (STRING.replace("Endpoint", "endpoint"), "ns.servicebus.windows.net", None, None, False),
        (
            STRING.replace("ns.servicebus.windows.net/", "localhost:5673") + ";UseDevelopmentEmulator=True",
            "localhost",
            5673,
            None,
            True,
        ),
        (
            f"Endpoint=sb://ns.servicebus.windows.net/;SharedAccessSignature={SIGNATURE}",
            "ns.servicebus.windows.net",
            None,
            None,
            False,
        ),
    ],
)
def test_the_connection_string_of_a_hub_is_read_in_all_its_forms(text, host, port, hub, emulator):
    found = namespace_of(text)

    assert (host, port, hub, emulator) == (found.host, found.port, found.hub, found.emulator)
    assert (KEY in found.text) == (SIGNATURE not in found.text)
    assert KEY not in repr(found)
    assert "sig=" not in repr(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("what", "no connection string"),
        (STRING.replace("Endpoint=", "Point="), "no Endpoint"),
        (STRING.replace("sb://", "ftp://"), "Endpoint: an address is accepted"),
        (STRING.replace("windows.net/", "windows.net:5671/"), "UseDevelopmentEmulator=true alone"),
        (STRING.replace("SharedAccessKeyName=send;", ""), "no SharedAccessKeyName"),
        (STRING.partition(";SharedAccessKey=")[0], "no SharedAccessKey"),
        (STRING + f";SharedAccessSignature={SIGNATURE}", "either"),
        ("Endpoint=sb://x/;SharedAccessSignature=what", "sr=…&sig=…"),
        (STRING + ";EntityPath=a b", "EntityPath"),
    ],
)
def test_a_connection_string_that_is_none_is_refused_with_what_is_accepted(text, words):
    with pytest.raises(ValueError, match=words) as told:
        namespace_of(text)

    assert KEY not in str(told.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"connection_string": STRING}, "name the event hub here"),
        ({"connection_string": STRING + ";EntityPath=a", "hub": "b"}, "leave one out"),
        ({"connection_string": STRING, "hub": "a", "endpoint": "a:b"}, "an address is accepted"),
        ({"connection_string": STRING, "hub": "a", "ca_certificates": "what"}, "no certificate"),
    ],
)
def test_an_authorization_that_cannot_work_is_refused(fields, words):
    with pytest.raises(ValidationError, match=words) as told:
        EventHubCredentials.model_validate(fields)

    assert KEY not in str(told.value.errors(include_input=False))


def test_an_event_is_what_another_decoder_reads():
    message = Message("4711", b'{"a":"\xc3\xbc"}', 1, 1, "12", ("demo", "ünal"))
    found = Decoder()
    found.decode(encoded(message, message.body, ["x"]))

    assert ("4711", "application/json") == (found.id, str(found.content_type))
    assert {"event": "both", "audience": "demo,ünal", "id": "4711", "omitted_fields": "x"} == found.properties
    assert {"x-opt-partition-key": "12"} == {str(name): value for name, value in found.annotations.items()}
    assert message.body == bytes(found.body)


def test_long_values_are_encoded_too():
    message = Message("1", b"{" + b" " * 70_000 + b"}", 1, 0, "1", tuple(f"audience_{n}" for n in range(3000)))
    found = Decoder()
    found.decode(encoded(message, message.body, [f"field {n}" for n in range(1000)]))

    assert message.body == bytes(found.body)
    assert found.properties["audience"].startswith("audience_0,audience_1,")
    assert found.properties["audience"].rpartition(",")[2] in message.audiences
    assert len(found.properties["omitted_fields"]) <= OMITTED_NAMES


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 32, 100])
def test_a_key_goes_to_the_partition_that_event_hubs_assigns(count):
    ids = [str(n) for n in range(count)]
    ours, theirs = Partitions(ids), PartitionResolver(ids)
    keys = [str(n * 7919) for n in range(300)] + ["k" * n for n in range(1, 60)]

    assert [theirs.get_partition_id_by_partition_key(key) for key in keys] == [ours.of(key) for key in keys]


def test_what_is_too_large_loses_the_largest_fields_until_it_fits():
    data = {"_id": "1", "b": "x" * 500, "a": "x" * 500, "large": "x" * 2000, "email": "a@example.org"}
    body = json.dumps({"id": "1", "data": data | {"segment_events": [{"id": "s"}]}, "meta": {}}).encode()

    def lost(most: int) -> list[str]:
        return reduced(body, most)[1]

    assert [] == lost(len(body))
    assert ["large"] == lost(len(body) - 1)
    assert ["large", "a"] == lost(1000)
    assert ["large", "a", "b"] == lost(400)
    assert ["large", "a", "b", "email"] == lost(1)
    assert {"_id": "1", "segment_events": [{"id": "s"}]} == json.loads(reduced(body, 1)[0])["data"]
    assert len(reduced(body, 700)[0]) <= 700


def test_whole_numbers_of_any_size_survive_a_reduction():
    body = json.dumps({"id": "1", "data": {"n": 2**70, "long": "x" * 99, "segment_events": []}, "meta": {}}).encode()

    assert json.loads(reduced(body, 90)[0])["data"]["n"] == 2**70


async def test_throughput_units_are_kept_to():
    now, waits = 0.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(round(seconds, 3))
        now += seconds

    pace = _Pace(2, lambda: now, sleep)
    for _ in range(3):
        await pace.passed(1000, 10)
    await pace.passed(1, 4_000_000)
    await pace.passed(1, 10)
    await _Pace(None, lambda: now, sleep).passed(10**9, 10**9)

    assert [0.5, 0.5, 0.5, 2.0] == waits


def test_the_sdk_opens_its_sockets_through_ours():
    assert _connection_async.SASLTransport is hub_sockets._Plain
    assert _connection_async.SASLWithWebSocket is hub_sockets._WebSocket
    assert asyncio.iscoroutinefunction(hub_sockets._Plain.connect)
