"""How a person came into an audience and left it: when, by which events or decisions, and who was told (P8)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from daemon import clock
from daemon.ingest.person import Event, PersonEvents
from daemon.store import history, jobs, subscriptions, transitions
from daemon.store.events import Lane
from daemon.store.memberships import Membership
from daemon.store.subscriptions import SubscriptionRow
from daemon.store.transitions import Transition, Transitions
from daemon.web.services import Services
from streams.person import keys_of, share
from streams.profile import Profile

#: Trigger ids looked through for one answer, and events of the log looked at.
MOST_IDS: Final = 5_000_000
MOST_EVENTS: Final = 100_000
#: Events named of one transition.
MOST_NAMED: Final = 20


class History(NamedTuple):
    """Transitions as the API shows them, the newest first. `complete`: back to the first that ever was.

    `before` is the trigger id to go on from when there may be more; `lost` says that older ones are not in the log.
    """

    entries: list[dict[str, Any]]
    complete: bool
    before: int | None
    lost: bool


class _Target(NamedTuple):
    """A subscription that listens to the audience."""

    row: SubscriptionRow
    job_id: str
    label: str
    state: str


async def history_of(
    services: Services, profile: Profile, member: Membership | None, limit: int, before: int | None
) -> History:
    """Gives up to `limit` transitions of a profile in one audience, those before the trigger `before` where given."""
    if member is None:
        return History([], complete=True, before=None, lost=False)
    upto = member.trigger_id if before is None else min(before - 1, member.trigger_id)
    found, looked_to, first = await _read(services, profile.id, member.audience, upto, limit)
    begun = any(each.sequence == 1 and each.profile_id == profile.id for each in found)
    lost = not begun and looked_to < first
    walk = await PersonEvents.open(services.events, services.state, frozenset(keys_of(profile)).__contains__)
    targets = await _targets(services, member.audience)
    entries = [await _entry(services, walk, each, member.audience, targets, profile.id) for each in found]
    return History(entries, begun, None if begun or lost else looked_to + 1, lost)


async def _entry(
    services: Services, walk: PersonEvents, of: Transition, audience: int, targets: Sequence[_Target], profile_id: int
) -> dict[str, Any]:
    return {
        "trigger_id": str(of.id),
        "event": of.kind,
        "at": clock.from_us(of.at_us),
        "entered": clock.from_us(of.entered_us),
        "transition": of.sequence,
        "of": None if of.profile_id == profile_id else str(of.profile_id),
        "cause": of.cause,
        **await _cause(services, walk, of, audience),
        "until": _moment(of.until_us),
        "merged_into": None if of.merged_into is None else str(of.merged_into),
        "deliveries": await _deliveries(services, of, targets),
    }


async def _read(services: Services, profile_id: int, audience: int, upto: int, limit: int) -> Transitions:
    found: list[Transition] = []
    looked_to, first = upto, 0
    while len(found) < limit and upto - looked_to < MOST_IDS:
        read = partial(
            transitions.page, profile_id=profile_id, audience=audience, upto=looked_to, limit=limit - len(found)
        )
        more, looked_to, first = await services.state.read(read)
        found += more
        if looked_to < first or (found and found[-1].sequence == 1 and found[-1].profile_id == profile_id):
            break
    return Transitions(found, looked_to, first)


# --- what changed it


async def _cause(services: Services, walk: PersonEvents, of: Transition, audience: int) -> dict[str, Any]:
    """Gives `because`, words; and what it is about: `events`, the `range` of the log they stand in, a `decision`."""
    origin = of.origin
    if of.cause == "time":
        return {"because": "by time alone"}
    if "lane" in origin:
        return await _events(walk, of, origin["lane"], origin["after"], origin["upto"])
    number = origin.get("decision", origin.get("decisions", {}).get(str(audience)))
    entry = None if number is None else await services.state.read(partial(history.one, sequence=number))
    if entry is None:
        return {"because": _UNNAMED.get(of.cause, of.cause)}
    words = await _decision(services, entry)
    return {
        "because": words,
        "decision": {"number": entry.sequence, "kind": entry.kind, "at": clock.from_us(entry.at_us)},
    }


_UNNAMED: Final = {
    "definition": "by a change of definitions",
    "replay": "by applying a query to the past",
    "erase": "the person was erased",
    "merge": "two profiles were found to be one person",
    "event": "by events of this person",
}


async def _events(walk: PersonEvents, of: Transition, lane: Lane, after: int, upto: int) -> dict[str, Any]:
    found: list[Event] = []
    complete = True
    async for page, at in walk.pages(lane, after, upto, rest=0):
        for each in page:
            mapped = each.stand.now if of.cause == "replay" else each.stand.then
            if share(mapped, walk.theirs).own:
                found.append(each.event)
        if walk.looked_at > MOST_EVENTS and at < upto:
            complete = False
            break
    named = [event_object(each) for each in found[-MOST_NAMED:]]
    words = _UNNAMED[of.cause]
    if of.merged_into is not None:
        words += f", and went on as profile {of.merged_into}"
    if len(found) == 1 and complete:
        words += f": event {found[0].position} of the {lane} lane, on stream {found[0].stream}"
    elif found:
        words += f": {len(found)} events of the {lane} lane that were taken together"
    elif complete:
        words += "; they are not in the log any more"
    return {
        "because": words,
        "events": named,
        "range": {"lane": lane, "after": after, "upto": upto, "complete": complete},
    }


def event_object(event: Event) -> dict[str, Any]:
    """Gives an event as it is named to people, without its body."""
    return {
        "lane": event.lane,
        "position": event.position,
        "stream": event.stream,
        "id": event.event_id,
        "time": clock.from_us(event.event_us),
        "received": clock.from_us(event.received_us),
    }


async def _decision(services: Services, entry: history.Entry) -> str:
    body = entry.body
    match entry.kind:
        case "audience":
            return f"version {body['version']} of audience {body['slug']} was stored"
        case "query" if "queries" in body:
            told = [f"{row['alias']} (version {row['version']})" for row in body["queries"]]
            return f"queries were changed: {', '.join([*told, *(f'{alias} deleted' for alias in body['deleted'])])}"
        case "query":
            return f"version {body['version']} of query {body['alias']} was stored"
        case "query_deleted":
            return f"query {body['alias']} was deleted"
        case "revert":
            return f"the schema was reverted to version {body['to']}"
        case "rebuilt":
            began = await services.state.read(partial(history.one, sequence=body["rebuild"]))
            which = "a query" if began is None else f"version {began.body['version']} of query {began.body['alias']}"
            return f"{which} was applied to the past"
        case "erase":
            return "the person was erased"
        case "split":
            return "the profile was split"
        case kind:
            return f"a decision of kind {kind}"


# --- who was told


async def _targets(services: Services, audience: int) -> list[_Target]:
    def read(db: sqlite3.Connection) -> list[_Target]:
        of = {each.id: each for each in jobs.every(db)}
        rows = [row for row in subscriptions.every(db) if audience in row.wanted.audiences and row.job_id in of]
        return [_Target(row, row.job_id, of[row.job_id].label, of[row.job_id].state) for row in rows]

    return await services.state.read(read)


async def _deliveries(services: Services, of: Transition, targets: Sequence[_Target]) -> list[dict[str, Any]]:
    """Says for each job that listens whether it is done with the trigger, as far as its cursor tells."""
    told = []
    for target in targets:
        row = services.bus.row(target.row.id) or target.row  # the bus is ahead of what is stored
        if of.kind not in row.wanted.events.kinds:
            continue
        state = "waiting"
        if of.at_us < row.created_us:
            state = "before the job began"
        elif of.id <= row.progress.position:
            state = "done"
        elif row.progress.ahead.live:
            ids = await services.state.read(partial(transitions.message_ids, of=of))
            state = "waiting" if row.progress.ahead.live.isdisjoint(ids) else "done"
        told.append({"job": target.job_id, "label": target.label, "job_state": target.state, "state": state})
    return told


def _moment(us: int | None) -> datetime | None:
    return None if us is None else clock.from_us(us)
