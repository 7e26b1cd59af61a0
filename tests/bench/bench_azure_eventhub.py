"""The export of an audience to an event hub, beside the SDK's bare send_batch of the same messages, same peer.

`python bench_azure_eventhub.py [--quick]`: the real daemon and the peer as processes. Events a second, from the first
to the last as the hub notes them.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient
from figures import Figure, alternate
from running import Daemon, daemon

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from eventhub.started import Peer, running

QUERY = """SELECT user_id, email(email) AS email, first_name AS first_name, city AS city, tonumber(score) AS score
    FROM web INTO user BY user_id ALIAS web"""
PARTITIONS = 4


def fill(ours: Daemon, people: int) -> None:
    ours.define((QUERY,), ("FILTER EXISTS user_id ALIAS all_of_them",))
    for first in range(0, people, 5000):
        rows = b"\n".join(
            orjson.dumps({
                "user_id": f"user{n}", "email": f"somebody{n}@example.org", "first_name": "Somebody", "city": "Berlin",
                "score": n % 100,
            })
            for n in range(first, min(first + 5000, people))
        )  # fmt: skip
        ours.call("POST", "/collect/bulk/web", rows)
    ours.settle()


class Hubs:
    """Hubs of the peer, a new one for each round."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._number = 0

    def new(self) -> str:
        self._number += 1
        name = f"round{self._number}"
        self.peer.ask_now("create", hub=name, partitions=PARTITIONS)
        return name

    def rate(self, hub: str) -> float:
        """Gives the events a second, and forgets the hub."""
        count, first_ms, last_ms = self.peer.ask_now("span", hub=hub)
        self.peer.ask_now("delete", hub=hub)
        return float(1000 * (count - 1) / (last_ms - first_ms))


def send(ours: Daemon, hubs: Hubs, people: int) -> str:
    """Exports the audience to a new hub, and gives that."""
    hub = hubs.new()
    login = {"label": hub, "config": {"connection_string": hubs.peer.connection(hub)}}
    auth = ours.call("POST", "/v2/auth/azure/azure_eventhub", orjson.dumps(login))["id"]
    body = {"label": hub, "auth_id": auth, "config": {"audiences": ["all_of_them"], "existing_users": True}}
    job = ours.call("POST", "/v2/job/azure_eventhub_export", orjson.dumps(body))["id"]
    hubs.peer.ask_now("wait", hub=hub, count=people)
    ours.call("POST", f"/v2/job/{job}/complete")
    return hub


async def bare(hubs: Hubs, messages: list[dict[str, Any]]) -> float:
    """Sends the messages as anybody would: one batch filled after the other, each to the next partition."""
    hub = hubs.new()
    async with EventHubProducerClient.from_connection_string(hubs.peer.connection(hub)) as client:
        number = 0
        batch = await client.create_batch(partition_id="0")
        for message in messages:
            event = EventData(message["body"])
            event.properties = message["properties"]
            event.message_id = message["message_id"]
            event.content_type = "application/json"
            try:
                batch.add(event)
            except ValueError:
                await client.send_batch(batch)
                number += 1
                batch = await client.create_batch(partition_id=str(number % PARTITIONS))
                batch.add(event)
        await client.send_batch(batch)
    return hubs.rate(hub)


def measure(*, quick: bool) -> Figure:
    people, rounds = (10_000, 3) if quick else (30_000, 5)
    figure = Figure("events a second exported to a hub, to the SDK's bare send_batch", "events/s", "least", 0.5)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "peer", {}, store=None) as peer:
        hubs = Hubs(peer)
        with daemon(Path(folder) / "data") as ours:
            fill(ours, people)
            messages = sample(ours, hubs, people)
            return alternate(
                figure,
                lambda: hubs.rate(send(ours, hubs, people)),
                lambda: asyncio.run(bare(hubs, messages)),
                rounds,
            )


def sample(ours: Daemon, hubs: Hubs, people: int) -> list[dict[str, Any]]:
    """Exports once, and gives what arrived: it warms everything up, and the floor sends the same."""
    hub = send(ours, hubs, people)
    found = hubs.peer.ask_now("events", hub=hub)
    hubs.peer.ask_now("delete", hub=hub)
    return [each | {"body": base64.b64decode(each["body"])} for each in found]


if __name__ == "__main__":
    figure = measure(quick="--quick" in sys.argv)
    print(figure.show(), flush=True)
    if not figure.met:
        sys.exit(1)
