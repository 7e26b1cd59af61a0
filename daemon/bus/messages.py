"""Making messages of triggers and stored profiles."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import orjson

from connectors.sdk.run import Message
from daemon import clock
from streams import profile as profiles
from streams.audience import AudienceSet
from streams.profile_view import output
from streams.schema import Schema
from streams.trigger import AudienceName, TriggerRow, message


class Named(Protocol):
    """An audience as far as a message names it."""

    @property
    def id(self) -> str:
        """What clients call it."""

    @property
    def slug(self) -> str:
        """What people call it."""


class Snapshot(Protocol):
    """What of the current definitions a message needs."""

    @property
    def schema(self) -> Schema:
        """The schema that profiles are shown by."""

    @property
    def audiences(self) -> Mapping[int, Named]:
        """The audiences by number."""

    @property
    def audience_set(self) -> AudienceSet:
        """The compiled audiences, for the end of a membership."""


Definitions = Callable[[], Snapshot]


class Builder:
    """Makes the messages of one subscription; `fields` None means all profile fields."""

    def __init__(self, definitions: Definitions, subscription_id: str, fields: Collection[str] | None) -> None:
        self._definitions = definitions
        self._subscription_id = subscription_id
        self._fields = None if fields is None else frozenset(fields)
        self._snapshot: Snapshot | None = None
        self._names: Mapping[int, AudienceName] = {}

    def build(self, rows: Sequence[TriggerRow], body: str | None, *, backfill: bool) -> Message:
        """Makes the message of `rows`, of one profile and commit, with the profile as in `body`.

        None as the body: nothing is known of the profile any more but its id. In a backfill the moment at which time
        alone would end a membership is found anew.
        """
        snapshot = self._definitions()
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._names = {
                number: AudienceName(audience.id, audience.slug) for number, audience in snapshot.audiences.items()
            }
        now_us = clock.now_us()
        fields: dict[str, Any]
        if body is None:
            fields = {"_id": str(rows[0].profile_id)}
            if self._fields is not None and "_id" not in self._fields:
                fields = {}
        else:
            profile = profiles.load(snapshot.schema, rows[0].profile_id, body)
            if snapshot.schema.expiring:
                profile.expire(snapshot.schema, now_us)
            fields = output(profile, snapshot.schema, self._fields, stored=body)
            if backfill:
                rows = [
                    row._replace(until_us=snapshot.audience_set.boundary((row.audience,), profile, clock.now()))
                    for row in rows
                ]
        content = message(rows, fields, self._names, self._subscription_id, now_us)
        enters = sum(row.kind == "enter" for row in rows)
        try:
            body_bytes = orjson.dumps(content)
        except TypeError:  # a whole number beyond 64 bits, which a destination is better given than denied
            body_bytes = json.dumps(content, separators=(",", ":")).encode()
        slugs = tuple(event["slug"] for event in content["data"]["segment_events"])
        return Message(content["id"], body_bytes, enters, len(rows) - enters, str(rows[0].profile_id), slugs)
