"""What the daemon is to an import that is run alone: a sink of rows that may break off, as kill -9 does."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import structlog

from connectors.sdk.imports import Emitted, ImportRun, Stored
from connectors.sdk.run import Network, Patience

NOW = 1_800_000_000_000_000


class CutError(Exception):
    """The process ended here."""


class Sink:
    """Keeps rows and checkpoint together. `cut_at`: ends it at that emission; `before_emit` is called at each."""

    def __init__(self):
        self.rows = []
        self.lines = []
        self.refused = []
        self.checkpoint = None
        self.emissions = 0
        self.cut_at = None
        self.former = set()
        self.before_emit: Callable[[], Any] = lambda: None

    async def hand_over(self, rows, checkpoint, *, lines=(), refused=()):
        self.emissions += 1
        self.before_emit()
        if self.emissions == self.cut_at:
            raise CutError
        self.rows += rows
        self.lines += lines
        self.refused += refused
        self.checkpoint = orjson.loads(orjson.dumps(checkpoint))
        return Stored(Emitted(len(rows), len(refused), 0))

    async def save(self, checkpoint):
        self.checkpoint = orjson.loads(orjson.dumps(checkpoint))

    @asynccontextmanager
    async def difference(self, _name):
        coming = set()

        class Difference:
            async def changed(_self, rows):  # noqa: N805
                texts = [json.dumps(row) for row in rows]
                coming.update(texts)
                return [at for at, text in enumerate(texts) if text not in self.former]

            async def complete(_self):  # noqa: N805
                self.former = coming

        yield Difference()


class Control:
    """What a run tells: `told`; and how often it asked for its turn."""

    def __init__(self):
        self.told = []
        self.requests = 0

    async def request(self):
        self.requests += 1

    def count(self, **_):
        pass

    async def tell(self, reason):
        self.told.append(reason)

    def finish(self):
        pass


def run_of(config: Any, sink: Sink, folder: Path, now_us: int = NOW, **options: Any) -> ImportRun[Any]:
    """Makes the run of an import, which goes on where the sink is."""
    given: dict[str, Any] = {
        "job": "j",
        "config": config,
        "log": structlog.get_logger(),
        "secret": lambda _: None,
        "exports": folder,
        "imports": folder,
        "spool": folder / "spool",
        "now_us": lambda: now_us,
        "control": Control(),
        "network": Network(10),
        "patience": Patience(total_s=5),
        "checkpoint": sink.checkpoint,
        "sink": sink,
    }
    return ImportRun(**(given | options))
