"""What the peer answers to requests, and where a receiver begins."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from eventhub.hubs import Hub
from proton import Message, timestamp

SELECTOR = re.compile(r"x-opt-(offset|sequence-number|enqueued-time)'?\s*(>=?)\s*'(.*)'")


class Reader:
    def __init__(self, link: Any, hub: str, events: list[Any], at: int) -> None:
        self.link = link
        self.hub = hub
        self.events = events
        self.at = at


def start_of(link: Any, events: list[Any]) -> int:
    """Gives the place of the first event that a receiver wants."""
    data = link.remote_source.filter
    data.rewind()
    found = SELECTOR.search(str(data.get_object())) if data.next() else None
    if found is None:
        return 0
    what, sign, value = found.groups()
    if value == "-1":
        return 0
    if value == "@latest":
        return len(events)
    number = int(float(value))
    read: Callable[[Any], int] = {
        "offset": lambda each: each.offset,
        "sequence-number": lambda each: each.sequence,
        "enqueued-time": lambda each: each.at_ms,
    }[what]
    for at, each in enumerate(events):
        if read(each) > number or (sign == ">=" and read(each) == number):
            return at
    return len(events)


def answer(status: int, words: str, body: Any = None) -> Message:
    return Message(
        body=body,
        properties={"status-code": status, "statusCode": status, "status-description": words,
                    "statusDescription": words},
    )  # fmt: skip


def moment(milliseconds: int) -> Any:
    return timestamp(milliseconds)


def about(hub: Hub, number: str) -> dict[str, Any]:
    events = hub.partitions[int(number)]
    return {
        "name": hub.name,
        "type": "com.microsoft:partition",
        "partition": number,
        "begin_sequence_number": 0,
        "last_enqueued_sequence_number": len(events) - 1,
        "last_enqueued_offset": str(events[-1].offset) if events else "-1",
        "last_enqueued_time_utc": moment(events[-1].at_ms if events else 0),
        "is_partition_empty": not events,
    }
