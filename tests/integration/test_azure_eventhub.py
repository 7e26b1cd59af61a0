"""The Event Hubs peer, proven with Microsoft's JavaScript SDK; and the authorization of a hub against it."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
import structlog
from eventhub.started import WRONG, foreign, running

from connectors.azure.hub import AZURE_EVENTHUB, EventHubCredentials
from connectors.azure.hub_client import open_hub
from connectors.azure.hub_refusals import BusyError, TooLargeError
from connectors.sdk.declare import AuthCheck
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.run import Network

SLOW = "The request was terminated because the entity is being throttled. Error code: 50002. Please wait 7 seconds."


def credentials(connection: str, **fields: Any) -> EventHubCredentials:
    return EventHubCredentials.model_validate({"connection_string": connection} | fields)


async def check(connection: str, *, seconds: float = 10, **fields: Any) -> None:
    config = credentials(connection, **fields)
    assert AZURE_EVENTHUB.check is not None
    await AZURE_EVENTHUB.check(
        AuthCheck(config=config, network=Network(seconds), log=structlog.get_logger(), now_us=lambda: 0)
    )


async def told(work: Any) -> tuple[type[BaseException] | None, str]:
    try:
        await work
    except (AuthError, ConfigError, TransientError, TooLargeError) as error:
        return type(error), str(error)
    return None, ""


# --- the peer


async def test_the_peer_serves_a_foreign_client(eventhub):
    hub = await eventhub.new_hub()
    connection = eventhub.connection(hub)
    bodies = {f"p{n}": [{"n": n, "i": i} for i in range(3)] for n in range(5)}

    said = await foreign(connection=connection, send=bodies)
    came = (await foreign(connection=connection, receive=15))["events"]

    assert {"partitions": ["0", "1", "2", "3"], "name": hub} == said
    for key, sent in bodies.items():
        mine = [each for each in came if each["key"] == key]
        assert sent == [each["body"] for each in mine]
        assert len({each["partition"] for each in mine}) == 1
        assert {("enter", f"{key}-1", "application/json")} == {
            (each["properties"]["event"], each["messageId"], each["contentType"]) for each in mine
        }


async def test_the_peer_refuses_a_foreign_client_with_another_key(eventhub):
    hub = await eventhub.new_hub()
    said = await foreign(connection=eventhub.connection(hub, key=WRONG), send={"a": [1]})

    assert said["error"] == "UnauthorizedError"
    assert "invalid signature" in said["message"]


async def test_the_peer_keeps_what_it_acknowledged_through_a_kill(tmp_path):
    with running(tmp_path) as peer:
        await foreign(connection=peer.connection(), send={"a": [1, 2], "b": [3]})
        before = await peer.events()
        peer.end(signal.SIGKILL)
        peer.start()
        after = await peer.events()

    assert len(before) == 3
    assert [(each["key"], each["body"], each["partition"]) for each in before] == [
        (each["key"], each["body"], each["partition"]) for each in after
    ]


# --- the authorization


async def test_the_check_of_a_hub_tells_what_is_wrong_apart(eventhub):
    hub = await eventhub.new_hub()
    gone = "Endpoint=sb://no-such.invalid/;SharedAccessKeyName=send;SharedAccessKey=aHVzaA==;EntityPath=x"
    cases = [
        (eventhub.connection(hub), {}, None, ""),
        (eventhub.connection(None), {"hub": hub}, None, ""),
        (eventhub.connection(hub, key=WRONG), {}, AuthError, "SharedAccessKey is refused"),
        (eventhub.connection("none"), {}, ConfigError, "there is no hub 'none'"),
        (gone, {}, TransientError, "does not resolve"),
        (eventhub.connection(hub, port=1), {}, TransientError, "transport websocket takes port 443"),
    ]
    found = [await told(check(string, **fields)) for string, fields, _, _ in cases]

    assert [kind for _, _, kind, _ in cases] == [kind for kind, _ in found]
    assert [] == [(words, said) for (*_, words), (_, said) in zip(cases, found, strict=True) if words not in said]
    assert not [said for _, said in found if WRONG in said or eventhub.key in said or "sig=" in said]


@pytest.mark.parametrize(
    ("on", "words", "kind", "advice"),
    [
        ("attach", "Unauthorized access. 'Send' claim(s) are required.", AuthError, "use one with the claim Send"),
        ("cbs", "Ip has been prevented to connect to the endpoint.", AuthError, "a firewall of the namespace"),
        ("cbs", "ExpiredToken: The token has expired.", AuthError, "the clock of this host"),
    ],
)
async def test_the_check_of_a_hub_says_what_is_refused(eventhub, on, words, kind, advice):
    hub = await eventhub.new_hub()
    fault = {"condition": "amqp:unauthorized-access"} if on == "attach" else {"status": 401}
    await eventhub.ask("fault", on=on, kind="refuse", description=words, times=9, **fault)
    try:
        found = await told(check(eventhub.connection(hub)))
    finally:
        await eventhub.ask("clear")

    assert found[0] is kind
    assert advice in found[1]


@pytest.mark.parametrize("transport", ["amqp", "websocket"])
async def test_a_hub_is_reached_with_tls_over_each_transport(eventhub, transport):
    hub = await eventhub.new_hub()
    port = eventhub.ports["amqps" if transport == "amqp" else "wss"]
    endpoint = {"endpoint": f"localhost:{port}", "transport": transport}

    trusted = await told(check(eventhub.cloud(hub), ca_certificates=eventhub.ca.read_text(), **endpoint))
    untrusted = await told(check(eventhub.cloud(hub), **endpoint))

    assert (None, "") == trusted
    assert untrusted[0] is TransientError
    assert "name its authority as ca_certificates" in untrusted[1]


@pytest.mark.parametrize(
    ("silent", "transport"),
    [("cbs", "amqp"), ("management", "websocket"), ("attach", "amqp"), ("all", "amqp"), ("all", "websocket")],
)
async def test_a_hub_that_does_not_answer_is_given_up_in_time(tmp_path, silent, transport):
    with running(tmp_path) as peer:
        if silent == "all":
            peer.send_signal(signal.SIGSTOP)
        else:
            await peer.ask("fault", on=silent, kind="silent", times=9)
        port = peer.ports["amqps" if transport == "amqp" else "wss"]
        ca = peer.ca.read_text()
        async with asyncio.timeout(4):
            found = await told(
                check(peer.cloud(), seconds=0.7, endpoint=f"localhost:{port}", ca_certificates=ca, transport=transport)
            )

    assert found[0] is TransientError
    assert "took longer than 0.7 s" in found[1]


async def test_addresses_that_the_settings_do_not_allow_are_not_connected_to(eventhub):
    config = credentials(eventhub.connection("any"))
    before = (await eventhub.ask("stats"))["opened"]
    with pytest.raises(ConfigError, match="allow_loopback"):
        async with open_hub(config.way(), Network(5, allow_loopback=False)):
            pass

    assert before == (await eventhub.ask("stats"))["opened"]


# --- what sending meets


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"kind": "reject", "condition": "com.microsoft:server-busy", "description": SLOW}, BusyError),
        ({"kind": "reject", "condition": "amqp:link:message-size-exceeded"}, TooLargeError),
        ({"kind": "reject", "condition": "com.microsoft:timeout"}, TransientError),
        ({"kind": "detach", "condition": "amqp:internal-error"}, TransientError),
        ({"kind": "close", "condition": "amqp:connection:forced"}, TransientError),
        ({"kind": "drop"}, TransientError),
        ({"kind": "release"}, TransientError),
        ({"kind": "end"}, TransientError),
        ({"kind": "silent"}, TransientError),
    ],
    ids=lambda each: each.get("condition", each["kind"]) if isinstance(each, dict) else "",
)
async def test_what_a_hub_answers_is_told_apart_and_never_waited_for(eventhub, fault, kind):
    hub = await eventhub.new_hub(1)
    async with open_hub(credentials(eventhub.connection(hub)).way(), Network(20)) as opened:
        batch = opened.batch("0", 100_000)
        assert batch.add_encoded(b"\x00\x53\x75\xa0\x02{}")
        await opened.send(batch)
        if fault["kind"] in {"release", "end", "silent"}:  # the SDK would wait for ever
            opened._network = Network(1)
        await eventhub.ask("fault", on="send", times=9, **fault)
        try:
            found, said = await told(opened.send(batch))
        finally:
            await eventhub.ask("clear")

    assert found is kind
    assert said


async def test_what_the_sdk_breaks_off_by_itself_is_an_error_and_no_end(eventhub, monkeypatch):
    async def broken_off(_batch: Any) -> None:
        raise asyncio.CancelledError

    hub = await eventhub.new_hub(1)
    async with open_hub(credentials(eventhub.connection(hub)).way(), Network(20)) as opened:
        monkeypatch.setattr(opened._client, "send_batch", broken_off)
        found, said = await told(opened.send(opened.batch("0", 100_000)))

    assert (TransientError, True) == (found, "broke it off" in said)


async def test_a_busy_hub_says_how_long_to_wait(eventhub):
    hub = await eventhub.new_hub(1)
    async with open_hub(credentials(eventhub.connection(hub)).way(), Network(20)) as opened:
        batch = opened.batch("0", 100_000)
        batch.add_encoded(b"\x00\x53\x75\xa0\x02{}")
        await eventhub.ask(
            "fault", on="send", kind="reject", condition="com.microsoft:server-busy", description=SLOW, times=2
        )
        with pytest.raises(BusyError) as told_busy:
            await opened.send(batch)
        await opened.send(batch)  # the same client goes on

    assert told_busy.value.pause_s == 7
