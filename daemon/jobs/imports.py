"""The way of an import's rows into the log: made events, appended to the bulk lane with the import's checkpoint.

A run that was cut off while its rows were on their way is waited for by the next one before that reads the
checkpoint; and what a run that was given up hands over afterwards is refused. So no row comes twice, and none is left
out, whatever the end of a run was.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import orjson
from structlog.typing import FilteringBoundLogger

from connectors.sdk.declare import Import
from connectors.sdk.errors import TransientError
from connectors.sdk.imports import MOST_ROWS, Difference, Emitted, Row, Stored
from daemon import clock
from daemon.settings import Settings
from daemon.store import differences, import_checkpoints
from daemon.store.collector import Collector, NotAcceptedError
from daemon.store.database import Database
from daemon.store.differences import HASH_BYTES, Differences
from daemon.store.import_checkpoints import Checkpoint
from streams.event import (
    ID_KEY,
    TIME_KEY,
    Event,
    Refusal,
    RefusedError,
    Rules,
    accepted,
    event_time,
    sample,
    suspicious,
)

#: How long events are made before the loop gets its turn, in seconds.
SLICE_S: Final = 0.0005
#: Rows that become events between two looks at the time.
SLICE_ROWS: Final = 128
#: Keys of an event that mean something, in JSON.
_OWN: Final = re.compile(b"|".join(orjson.dumps(key) for key in (ID_KEY, TIME_KEY)))
#: How soon a job tries again that could not write down where it is, in seconds.
AGAIN_S: Final = 5.0


class Imports:
    """The imports of the daemon: which run of each job is the current one, and what of it is on its way."""

    def __init__(self, log: Database, collector: Collector, settings: Settings) -> None:
        self._log = log
        self._collector = collector
        self._settings = settings
        self._current: dict[str, object] = {}
        self._under_way: dict[str, asyncio.Future[int]] = {}

    @asynccontextmanager
    async def rows(self, job_id: str, config: Import, logger: FilteringBoundLogger) -> AsyncIterator[ImportedRows]:
        """Opens the way for one run, once everything of the run before has become durable or is refused."""
        run = object()
        self._current[job_id] = run
        if (left := self._under_way.get(job_id)) is not None:
            await asyncio.wait([left])
            del self._under_way[job_id]  # whatever became of it: this run begins behind what is durable
        checkpoint = await self._log.read(lambda db: import_checkpoints.read(db, job_id))
        try:
            yield ImportedRows(self, job_id, run, config, checkpoint, logger)
        finally:
            if self._current.get(job_id) is run:
                del self._current[job_id]

    async def forget(self, job_id: str) -> None:
        """Deletes what is kept for the imports of a job."""
        if (left := self._under_way.pop(job_id, None)) is not None:
            await asyncio.wait([left])
        await self._log.write(lambda db: import_checkpoints.forget(db, job_id))
        await asyncio.to_thread(differences.forget, self.differences_of(job_id))

    def differences_of(self, job_id: str) -> Path:
        """Gives the file of a job's comparisons."""
        return self._settings.data_dir / "differences" / f"{job_id}.db"

    def rules(self, config: Import) -> Rules:
        """Gives what is accepted as an event of an import."""
        collect = self._settings.collect
        return Rules(
            event_bytes=collect.bulk_event_bytes,
            depth=collect.event_depth,
            keys=collect.event_keys,
            timestamp_field=config.timestamp_field,
        )

    async def append(
        self, job_id: str, run: object, stream: str, events: Sequence[Event], received_us: int, checkpoint: Checkpoint
    ) -> asyncio.Future[int]:
        """Appends events with their checkpoint; gives the future of their being durable. Raises TransientError.

        Waits while the lane is full. What was appended before is durable before; where that failed, this is refused.
        """
        try:
            await self._collector.room("bulk")
            self._must_be_current(job_id, run)
            _must_hold(self._under_way.get(job_id))
            done = self._under_way[job_id] = self._collector.append("bulk", stream, events, received_us, checkpoint)
        except NotAcceptedError as error:
            raise _refused(error) from error
        return done

    async def settled(self, job_id: str) -> None:
        """Waits until all that was appended is durable. Raises TransientError."""
        if (left := self._under_way.get(job_id)) is not None:
            await asyncio.wait([left])
            _must_hold(left)

    async def save(self, job_id: str, run: object, checkpoint: Checkpoint) -> None:
        """Keeps a checkpoint without rows, behind those on their way."""
        await self.settled(job_id)
        self._must_be_current(job_id, run)
        try:
            await self._log.write(lambda db: import_checkpoints.save(db, checkpoint))
        except sqlite3.Error as error:
            raise TransientError(f"where the import is cannot be written: {error}", retry_after=AGAIN_S) from error

    def refuse(self, job_id: str, stream: str, refusals: Sequence[Refusal]) -> None:
        """Keeps refusals with the rejects of the stream."""
        self._collector.refuse(stream, "line", refusals, f"job {job_id}")

    def _must_be_current(self, job_id: str, run: object) -> None:
        if self._current.get(job_id) is not run:
            raise RuntimeError("this run was given up; another one imports now")


class ImportedRows:
    """The rows of one run; see `connectors.sdk.imports.RowSink`. It is its own sink."""

    def __init__(
        self,
        imports: Imports,
        job_id: str,
        run: object,
        config: Import,
        checkpoint: object,
        logger: FilteringBoundLogger,
    ) -> None:
        self.checkpoint = checkpoint
        self._imports = imports
        self._job_id = job_id
        self._run = run
        self._config = config
        self._rules = imports.rules(config)
        self._plain = Rules(self._rules.event_bytes, self._rules.depth, self._rules.keys)
        self._kept = None if config.fields is None else frozenset((*config.fields, ID_KEY, TIME_KEY))
        self._log = logger

    @property
    def sink(self) -> ImportedRows:
        """Takes the rows."""
        return self

    async def emit(
        self, rows: Sequence[Row], checkpoint: object, *, lines: Sequence[int] = (), refused: Sequence[Refusal] = ()
    ) -> Emitted:
        """Stores rows and the checkpoint, both or neither."""
        return await (await self.hand_over(rows, checkpoint, lines=lines, refused=refused))

    async def hand_over(
        self, rows: Sequence[Row], checkpoint: object, *, lines: Sequence[int] = (), refused: Sequence[Refusal] = ()
    ) -> Awaitable[Emitted]:
        """Sends rows and the checkpoint on their way, both or neither."""
        if len(rows) > MOST_ROWS:
            raise ValueError(f"{len(rows)} rows were emitted at a time; at most {MOST_ROWS} may be")
        received_us = clock.now_us()
        events: list[Event] = []
        refusals = list(refused)
        loop = asyncio.get_running_loop()
        slice_ends = loop.time() + SLICE_S
        for at in range(0, len(rows), SLICE_ROWS):
            numbers = lines[at : at + SLICE_ROWS] or range(at, len(rows))
            self._take(rows[at : at + SLICE_ROWS], numbers, received_us, events, refusals)
            if loop.time() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = loop.time() + SLICE_S
        kept = self._checkpoint(checkpoint, received_us)
        done: asyncio.Future[int] | None = None
        if events:
            done = await self._imports.append(self._job_id, self._run, self._config.stream, events, received_us, kept)
        else:
            await self._imports.save(self._job_id, self._run, kept)
        if refusals:
            refusals.sort(key=lambda each: each.place)
            self._imports.refuse(self._job_id, self._config.stream, refusals)
        emitted = Emitted(len(events), len(refusals), 0)
        return Stored(emitted) if done is None else _OnTheirWay(done, emitted)

    async def save(self, checkpoint: object) -> None:
        """Stores a checkpoint without rows."""
        await self._imports.save(self._job_id, self._run, self._checkpoint(checkpoint, clock.now_us()))

    @asynccontextmanager
    async def difference(self, name: str) -> AsyncIterator[Difference]:
        """Opens the comparison with the former import of this job."""
        path = self._imports.differences_of(self._job_id)
        try:
            async with Differences.open(path, name) as found:
                yield _Difference(found, self._compared)
        except sqlite3.Error as error:
            raise TransientError(f"{path}: {error}") from error

    def _compared(self, row: Row) -> Mapping[str, object]:
        """Gives what of a row is imported: its fields, and its time."""
        if self._kept is None:
            return row
        time_field = self._config.timestamp_field
        return {name: value for name, value in row.items() if name in self._kept or name == time_field}

    def _take(
        self,
        rows: Sequence[Row],
        numbers: Sequence[int],
        received_us: int,
        events: list[Event],
        refusals: list[Refusal],
    ) -> None:
        """Makes events of rows; what cannot be one is added to `refusals` by its number."""
        names = self._kept
        kept = rows if names is None else [{name: row[name] for name in row if name in names} for row in rows]
        made = self._plain_events(rows, kept, received_us)
        if made is not None:
            events += made
            return
        for place, row in enumerate(kept):
            try:
                events.append(self._event(rows[place], row, received_us))
            except RefusedError as refusal:
                refusals.append(Refusal(numbers[place], str(refusal), sample(repr(dict(rows[place])))))

    def _plain_events(self, rows: Sequence[Row], kept: Sequence[Row], received_us: int) -> list[Event] | None:
        """Makes events of small flat rows with nothing odd in them, at a time; None where each is to be looked at."""
        rules = self._rules
        try:
            texts = [orjson.dumps(row, option=orjson.OPT_PASSTHROUGH_DATETIME) for row in kept]
        except TypeError:  # what databases have and JSON has not
            return None
        whole = b"\n".join(texts)
        if (
            whole.count(b"{") != len(texts)
            or b"[" in whole
            or len(max(texts, key=len)) > min(rules.event_bytes, rules.keys)  # an object has fewer keys than bytes
            or _OWN.search(whole) is not None
            or suspicious(whole)
        ):
            return None
        moments: Iterable[int] = repeat(received_us)
        if rules.timestamp_field is not None:
            try:
                moments = [event_time(row, received_us, rules) for row in rows]  # type: ignore[arg-type]
            except RefusedError:
                return None
        bodies = whole.decode().split("\n")  # JSON has none within
        # What Event(…) does, without its detour.
        return list(map(tuple.__new__, repeat(Event), zip(moments, repeat(None), bodies, kept, strict=False)))

    def _event(self, row: Row, kept: Row, received_us: int) -> Event:
        try:
            text = orjson.dumps(kept, option=orjson.OPT_PASSTHROUGH_DATETIME)
            data: Any = kept
        except TypeError:
            text = as_json(kept)
            data = orjson.loads(text)
        event = accepted(data, text, received_us, self._plain)
        if self._config.timestamp_field is not None:
            when = event_time({**row}, received_us, self._rules)
            if when != event.event_us:
                event = event._replace(event_us=when)
        return event

    def _checkpoint(self, checkpoint: object, at_us: int) -> Checkpoint:
        return Checkpoint(self._job_id, orjson.dumps(checkpoint).decode(), at_us)


class _OnTheirWay:
    """Rows that are on their way into the log."""

    def __init__(self, done: asyncio.Future[int], emitted: Emitted) -> None:
        self._done = done
        self._emitted = emitted

    def __await__(self) -> Generator[Any, None, Emitted]:
        yield from asyncio.wait([self._done]).__await__()  # cancelled, it stops waiting, and they become durable
        _must_hold(self._done)
        duplicates = self._done.result()
        return self._emitted._replace(accepted=self._emitted.accepted - duplicates, duplicates=duplicates)


def _must_hold(done: asyncio.Future[int] | None) -> None:
    """Raises TransientError where what was sent on its way could not be stored."""
    if done is not None and done.done() and isinstance(error := done.exception(), NotAcceptedError):
        raise _refused(error) from error


def _refused(error: NotAcceptedError) -> TransientError:
    return TransientError(str(error), retry_after=error.retry_after_s)


class _Difference:
    """See `connectors.sdk.imports.Difference`."""

    def __init__(self, found: Differences, compared: Callable[[Row], Mapping[str, object]]) -> None:
        self._found = found
        self._compared = compared

    async def changed(self, rows: Sequence[Row]) -> Sequence[int]:
        """Gives the places of the rows that the former import did not have."""
        return await self._found.unseen(lambda: b"".join(self._hashes(rows)))

    async def complete(self) -> None:
        """Makes this import the one to compare with."""
        await self._found.complete()

    def _hashes(self, rows: Sequence[Row]) -> Iterator[bytes]:
        for row in rows:
            try:
                text = as_json(self._compared(row), orjson.OPT_SORT_KEYS)
            except RefusedError:  # it is told when it is emitted
                text = repr(sorted(row.items(), key=str)).encode("utf-8", "backslashreplace")
            yield hashlib.blake2b(text, digest_size=HASH_BYTES).digest()


def as_json(row: Mapping[str, object], option: int = 0) -> bytes:
    """Gives the JSON text of a row of any values: moments as text in UTC, bytes as Base64, all else as text."""
    try:
        return orjson.dumps(row, default=_plain, option=option | orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError as error:  # a key that is no text, a number of more than 64 bits, text with lone surrogates
        raise RefusedError(f"the row is no JSON: {error}") from None


def _plain(value: object) -> object:
    match value:
        case datetime():
            moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case set() | frozenset():
            return sorted(value, key=str)
        case _:
            return str(value)
