"""The membership work of the benchmarks in bytewax, conditions written by hand, with recovery each second.

Runs under `python -m bytewax.run`; EVENTS names the input, MOVES the output. It resolves no identities.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.files import FileSink, FileSource
from bytewax.dataflow import Dataflow

NOW = datetime.now(UTC)
DAYS = {days: NOW - timedelta(days=days) for days in (7, 30, 60, 90, 365)}


def merge(state: dict[str, Any] | None, event: dict[str, Any]) -> dict[str, Any]:
    at = datetime.fromisoformat(event["at"])
    if state is None:
        state = {
            "spent": 0.0, "cds": 0, "orders": 0, "last": at, "first": at, "genres": {}, "channels": set(),
            "members": [False] * 20,
        }  # fmt: skip
    state["email"] = event["email"].lower()
    state["country"] = event["country"]
    state["spent"] += event["dollars"]
    state["cds"] += event["cds"]
    state["orders"] += 1
    state["last"] = max(state["last"], at)
    state["first"] = min(state["first"], at)
    state["genres"][event["genre"]] = state["genres"].get(event["genre"], 0) + 1
    state["channels"].add(event["channel"])
    return state


def evaluate(s: dict[str, Any]) -> list[bool]:
    spent, orders, country, channels, genres = s["spent"], s["orders"], s["country"], s["channels"], s["genres"]
    return [
        spent >= 100,
        spent >= 1000,
        50 < spent < 500,
        orders >= 2,
        orders >= 10,
        orders >= 5 and spent >= 300,
        s["cds"] > 20,
        s["last"] > DAYS[30],
        s["last"] > DAYS[7],
        s["last"] > DAYS[90] and orders >= 3,
        s["last"] < DAYS[60] and spent > 200,
        s["first"] > DAYS[365],
        country == "DE",
        country in ("FR", "ES", "IT"),
        country == "US" and (spent > 500 or orders > 5),
        bool(channels & {"app", "store"}),
        "web" in channels and "store" not in channels,
        genres.get("rock", 0) >= 3,
        genres.get("jazz", 0) >= 1 and genres.get("rock", 0) >= 1,
        "email" in s and not spent >= 1000,
    ]


def step(state: dict[str, Any] | None, event: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[int, bool]]]:
    state = merge(state, event)
    now = evaluate(state)
    moves = [
        (number, is_in) for number, (was, is_in) in enumerate(zip(state["members"], now, strict=True)) if was != is_in
    ]
    state["members"] = now
    return state, moves


def parse(line: str) -> tuple[str, dict[str, Any]]:
    event = orjson.loads(line)
    return event["customer_id"], event


flow = Dataflow("memberships")
source = op.input("events", flow, FileSource(os.environ["EVENTS"], batch_size=1000))
keyed = op.map("parse", source, parse)
moved = op.stateful_map("profile", keyed, step)
told = op.filter("moved", moved, lambda item: bool(item[1]))
text = op.map("text", told, lambda item: (item[0], orjson.dumps([item[0], item[1]]).decode()))
op.output("moves", text, FileSink(os.environ["MOVES"]))
