"""How far the demo is: asked from the daemon's API, from the receiver, and from the folder of files."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from daemon.demo.stage import Stage

STREAM = "purchases"


@dataclass(frozen=True, slots=True)
class AudienceNow:
    """An audience and what its receiver has of it."""

    slug: str
    description: str
    size: int
    enters: int
    exits: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at everything."""

    events: int = 0
    waiting: int = 0
    profiles: int = 0
    audiences: tuple[AudienceNow, ...] = ()
    undelivered: int = 0
    webhook_requests: int = 0
    webhook_triggers: int = 0
    forged: int = 0
    files: int = 0
    lines: int = 0
    latest: tuple[dict[str, Any], ...] = ()

    @property
    def settled(self) -> bool:
        """Says whether all that was sent has been taken in and delivered."""
        return self.waiting == 0 and self.undelivered == 0 and self.events > 0


@dataclass
class Watch:
    """Asks; remembers which files it has counted."""

    stage: Stage
    session: aiohttp.ClientSession
    _lines: dict[Path, int] = field(default_factory=dict)

    async def look(self) -> Snapshot:
        """Takes a snapshot; raises aiohttp.ClientError when the daemon or the receiver does not answer."""
        status, segments, subscriptions, streams, received = await asyncio.gather(
            self._ask("/v2/status?count=true"),
            self._ask("/api/segment"),
            self._ask("/v2/subscription"),
            self._ask("/v2/stream"),
            self._received(),
        )
        lines = await asyncio.to_thread(self._count_lines)
        events = received["events"]
        return Snapshot(
            events=sum(each["events"] for each in streams if each["stream"] == STREAM),
            waiting=sum(status["lag"].values()),
            profiles=status["profiles"],
            audiences=tuple(
                AudienceNow(
                    each["slug"],
                    each["description"],
                    each["size"],
                    events.get(f"{each['slug']} enter", 0),
                    events.get(f"{each['slug']} exit", 0),
                )
                for each in segments
            ),
            undelivered=sum(each["lag_triggers"] for each in subscriptions),
            webhook_requests=received["requests"],
            webhook_triggers=received["triggers"],
            forged=received["forged"],
            files=len(self._lines),
            lines=lines,
            latest=tuple(received["latest"]),
        )

    async def _ask(self, path: str) -> Any:
        headers = {"Authorization": self.stage.token}
        async with self.session.get(self.stage.address + path, headers=headers) as response:
            response.raise_for_status()
            return orjson.loads(await response.read())["data"]

    async def _received(self) -> Any:
        async with self.session.get(self.stage.receiver) as response:
            return orjson.loads(await response.read())

    def _count_lines(self) -> int:
        for path in self.stage.exports.glob("*.ndjson"):
            if path not in self._lines:
                self._lines[path] = path.read_bytes().count(b"\n")
        return sum(self._lines.values())
