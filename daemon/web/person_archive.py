"""All that is held about a person, as one archive (ZIP), written as it is read: memory does not grow with it.

What it holds stands in its README.txt. Times are RFC 3339 in UTC.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from functools import partial
from typing import Any, Final

import anyio.to_thread
import orjson

from daemon import clock
from daemon.ingest.definitions import Definitions
from daemon.ingest.person import Found, PersonEvents
from daemon.store import erasures, events, person_triggers
from daemon.store.database import Database
from daemon.store.events import LANES
from daemon.store.person_triggers import PersonMembership, PersonTrigger, Sender
from streams.person import Texts, keys_of
from streams.profile import Profile, load
from streams.profile_view import output, shown_value

README: Final = """\
All that cohortd holds about one person
=======================================

Made on {now} for {key}. Times are in UTC.

profile.json        What is known now: each field with its kind, the keys that the person is known by, how they came
                    to be known as one person (links), and stitches that were refused.
events.ndjson       Every event in the log that made this profile, and every event that no query reads and that names
                    the person; one JSON object a line, in the order of their coming. "found_by" says which of the two;
                    "shared" says that the event is about somebody else as well. Events older than the log's retention
                    ({days:g} days) are not there any more; what they made is in profile.json.
splits.json         What the person's profile was when it was split from another, as far as the history keeps it.
memberships.json    The audiences that the person is in, and those that it was in.
triggers.ndjson     Each enter and exit that the log of triggers still has, one JSON object a line.
deliveries.ndjson   Which job sends which of these triggers, and whether it is done with it. What a destination has
                    done with it since, it alone knows.

What is not here: events of other people that only mention this person; backups; what destinations hold.
"""


class _Sink(io.RawIOBase):
    """Takes what the archive writes, until it is fetched. Cannot be sought in, so sizes follow each entry."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def fetch(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


class Archive:
    """One person's archive; `chunks` gives its bytes in order."""

    def __init__(
        self, events: Database, state: Database, definitions: Definitions, profile: Profile, key: str, days: float
    ) -> None:
        self._events = events
        self._state = state
        self._definitions = definitions
        self._profile = profile
        self._key = key
        self._days = days
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Gives the archive's bytes piece by piece."""
        now = clock.now()
        text = README.format(now=now.isoformat(timespec="seconds"), key=self._key, days=self._days)
        async for chunk in self._entry("README.txt", _once(text.encode())):
            yield chunk
        async for chunk in self._entry("profile.json", _once(_pretty(self._profile_shown()))):
            yield chunk
        halves = await self._state.read(partial(erasures.halves_of, keys=self._profile.all_keys()))
        async for chunk in self._entry("splits.json", _once(_pretty([self._half(*each) for each in halves]))):
            yield chunk
        found = await self._state.read(partial(person_triggers.memberships, profile_id=self._profile.id))
        async for chunk in self._entry("memberships.json", _once(_pretty([_membership(each) for each in found]))):
            yield chunk
        async for chunk in self._entry("triggers.ndjson", self._triggers(lambda each: [_trigger(each)])):
            yield chunk
        senders = await self._state.read(person_triggers.senders)
        async for chunk in self._entry("deliveries.ndjson", self._triggers(partial(_deliveries, senders))):
            yield chunk
        async for chunk in self._entry("events.ndjson", self._event_lines()):
            yield chunk
        await anyio.to_thread.run_sync(self._zip.close)
        yield self._sink.fetch()

    async def _entry(self, name: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        info = zipfile.ZipInfo(name, clock.now().timetuple()[:6])
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        with self._zip.open(info, "w", force_zip64=True) as entry:
            async for piece in pieces:
                await anyio.to_thread.run_sync(entry.write, piece)
                if chunk := self._sink.fetch():
                    yield chunk

    def _profile_shown(self) -> dict[str, Any]:
        profile, schema = self._profile, self._definitions.schema
        shown = output(profile, schema, meta=False)
        meta = {name: each for name, each in output(profile, schema).items() if name not in shown}
        memory = profile.memory or {}
        return {
            "id": str(profile.id),
            "meta": meta,
            "fields": [
                {
                    "name": name, "value": value, "kind": schema.fields[name].kind,
                    "merge_operator": schema.fields[name].merge_op, "description": schema.fields[name].shortdesc,
                }
                for name, value in shown.items()
            ],
            "keys": profile.keys,
            "links": [
                {"from": link[:2], "to": link[2:4], "event": {"lane": link[4], "position": link[5]}}
                for link in profile.edges or ()
            ],
            "refused_stitches": [
                {
                    "reason": reason, "identity": field, "event": {"lane": lane, "position": position},
                    "last": clock.from_us(received_us), "times": times,
                }
                for reason, field, _, lane, position, received_us, times in memory.get("r", {}).get("l", ())
            ],
        }  # fmt: skip

    def _half(self, at_us: int, text: str) -> dict[str, Any]:
        schema = self._definitions.schema
        half = load(schema, self._profile.id, text)
        return {"at": clock.from_us(at_us), "keys": half.keys, "fields": output(half, schema, meta=False)}

    async def _triggers(self, rows: Any) -> AsyncIterator[bytes]:
        spans = await self._state.read(person_triggers.spans)
        profiles: list[int] = [self._profile.id]
        for span in reversed(spans):
            profiles = await self._state.read(partial(person_triggers.absorbed, span=span, into=profiles))
        for span in spans:
            found = await self._state.read(partial(person_triggers.triggers, span=span, profiles=profiles))
            if lines := _lines(row for each in found for row in rows(each)):
                yield lines

    async def _event_lines(self) -> AsyncIterator[bytes]:
        keys = keys_of(self._profile)
        walk = await PersonEvents.open(self._events, self._state, frozenset(keys).__contains__, Texts(keys))
        heads = await self._events.read(events.heads)
        for lane in LANES:
            async for page, _ in walk.pages(lane, 0, heads[lane], rest=0.5):
                theirs = [each for each in page if each.own or not each.others]
                if lines := _lines(map(_event, theirs)):
                    yield lines


def _event(found: Found) -> dict[str, Any]:
    event = found.event
    return {
        "received": clock.from_us(event.received_us),
        "time": clock.from_us(event.event_us),
        "stream": event.stream,
        "found_by": "query" if found.own else "text",
        "shared": found.others,
        "id": event.event_id,
        "lane": event.lane,
        "position": event.position,
        "body": event.body,
    }


def _trigger(each: PersonTrigger) -> dict[str, Any]:
    return {
        "id": str(each.id),
        "at": clock.from_us(each.at_us),
        "audience": each.slug,
        "name": each.name,
        "event": each.kind,
        "cause": each.cause,
        "entered": clock.from_us(each.entered_us),
        "until": None if each.until_us is None else clock.from_us(each.until_us),
        "profile": str(each.profile_id),
        "merged_into": None if each.merged_into is None else str(each.merged_into),
    }


def _membership(each: PersonMembership) -> dict[str, Any]:
    return {
        "audience": each.slug,
        "name": each.name,
        "member": each.member,
        "entered": clock.from_us(each.entered_us),
        "left": None if each.member else clock.from_us(each.changed_us),
        "changes": each.transitions,
        "trigger_id": str(each.trigger_id),
    }


def _deliveries(senders: Iterable[Sender], each: PersonTrigger) -> Iterator[dict[str, Any]]:
    for sender in senders:
        if each.audience not in sender.audiences or not sender.events.startswith(("both", each.kind)):
            continue
        if each.at_us < sender.created_us:  # sent, if at all, as what held when the job began
            state = "before the job began"
        else:
            state = "done" if each.id <= sender.position else "waiting"
        yield {
            "trigger_id": str(each.id),
            "audience": each.slug,
            "event": each.kind,
            "at": clock.from_us(each.at_us),
            "job": sender.job,
            "label": sender.label,
            "job_type": sender.job_type,
            "job_state": sender.state,
            "state": state,
        }


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(row, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE) for row in rows)


def _pretty(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z | orjson.OPT_INDENT_2, default=shown_value)
