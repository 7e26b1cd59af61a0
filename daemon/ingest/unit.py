"""One step of ingest while it is computed: the bundle that it will write, and the ids that it gives out.

Everything a step does to memberships goes through here, so that a transition, its trigger, the audience's size and
the membership row cannot part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

import orjson

from daemon import clock
from daemon.ingest.cache import Entry, Memberships
from daemon.store.bundle import Bundle, Position
from daemon.store.definitions import Pass
from daemon.store.rebuilds import RebuildRow

Lane: TypeAlias = Literal["realtime", "bulk"]
Cause: TypeAlias = Literal["event", "time", "definition", "merge", "split", "erase", "replay"]
LANES: Final[tuple[Lane, Lane]] = ("realtime", "bulk")


class Commit(NamedTuple):
    """The triggers of one commit: their first and last id, and the numbers of their audiences."""

    first: int
    last: int
    audiences: frozenset[int]


@dataclass(slots=True)
class Head:
    """Where the loop stands in memory, ahead of the database while a bundle is on its way."""

    cursors: dict[Lane, int]
    last_profile: int
    last_trigger: int
    last_history: int
    last_audience: int
    last_rule: int
    open_batch: str | None
    next_due_us: int | None
    passes: tuple[Pass, ...] = ()
    past: RebuildRow | None = None

    @classmethod
    def at(cls, position: Position, passes: Iterable[Pass], past: RebuildRow | None = None) -> Head:
        """Gives the head that stands where the database does."""
        return cls(
            cursors={"realtime": position.realtime, "bulk": position.bulk},
            last_profile=position.last_profile,
            last_trigger=position.last_trigger,
            last_history=position.last_history,
            last_audience=position.last_audience,
            last_rule=position.last_rule,
            open_batch=position.open_batch,
            next_due_us=position.first_due_us,
            passes=tuple(passes),
            past=past,
        )

    def copy(self) -> Head:
        """Gives a copy that a step may move."""
        return replace(self, cursors=dict(self.cursors))


@dataclass(slots=True)
class Unit:
    """A step under way. `head` is the loop's own: what the step moves there is dropped with it on failure.

    `scanned`: it changed profiles that the cache does not hold, so no read may have begun before its commit.
    """

    number: int
    head: Head
    now_us: int
    now: datetime = field(init=False)
    bundle: Bundle = field(default_factory=Bundle)
    first_trigger: int = field(init=False)
    audiences: set[int] = field(default_factory=set)
    events: int = 0
    scanned: bool = False
    #: Whether the log has something to be scrubbed once this is durable.
    to_scrub: bool = False

    def __post_init__(self) -> None:
        self.now = clock.from_us(self.now_us)
        self.first_trigger = self.head.last_trigger + 1

    @property
    def commit(self) -> Commit | None:
        """What the bus is told once this is durable; None without triggers."""
        if self.head.last_trigger < self.first_trigger:
            return None
        return Commit(self.first_trigger, self.head.last_trigger, frozenset(self.audiences))

    # --- decisions

    def take_batch(self, lane: Lane, upto: int) -> None:
        """Notes that the lane's events up to a position are taken in, and moves its cursor."""
        head, bundle = self.head, self.bundle
        before = head.cursors[lane]
        bundle.cursor = (lane, before, upto)
        head.cursors[lane] = upto
        body = orjson.dumps({"lane": lane, "upto": upto}).decode()
        bundle.origin = origin = f'{{"lane":"{lane}","after":{before},"upto":{upto}}}'
        if head.open_batch == lane:
            bundle.history_extended = (head.last_history, body)
            return
        self.decide("batch", {"lane": lane, "upto": upto})
        bundle.origin = origin
        head.open_batch = lane

    def decide(self, kind: str, body: object) -> None:
        """Adds a decision to the history."""
        head = self.head
        head.last_history += 1
        head.open_batch = None
        self.bundle.history.append((head.last_history, self.now_us, kind, orjson.dumps(body).decode()))
        self.bundle.origin = f'{{"decision":{head.last_history}}}'

    # --- memberships

    def move(self, entry: Entry, moves: Iterable[tuple[int, int | None]], cause: Cause) -> None:
        """Turns memberships of a profile over: (audience, until_us where it becomes a member) each."""
        memberships = entry.memberships()
        for number, until_us in moves:
            before = memberships.get(number)
            memberships[number] = self.turn(entry.id, number, before, cause, until_us=until_us)
            entry.members ^= 1 << number
        entry.keep(memberships)

    def turn(
        self,
        profile_id: int,
        number: int,
        before: tuple[int, int] | None,
        cause: Cause,
        *,
        until_us: int | None = None,
    ) -> tuple[int, int]:
        """Writes one enter or exit: the trigger, the membership, the size. Returns (sequence, time of the enter)."""
        now_us, head, bundle = self.now_us, self.head, self.bundle
        sequence, entered_us = (0, now_us) if before is None else before
        sequence += 1
        head.last_trigger = trigger_id = head.last_trigger + 1
        sizes = bundle.sizes
        if sequence & 1:
            entered_us = now_us
            sizes[number] = sizes.get(number, 0) + 1
            bundle.triggers += (
                trigger_id, self.first_trigger, profile_id, number, "enter", sequence, now_us, now_us, until_us,
                cause, None, None, None,
            )  # fmt: skip
        else:
            sizes[number] = sizes.get(number, 0) - 1
            bundle.triggers += (
                trigger_id, self.first_trigger, profile_id, number, "exit", sequence, now_us, entered_us, None,
                cause, None, None, None,
            )  # fmt: skip
        bundle.memberships += (profile_id, number, sequence, trigger_id, now_us, entered_us, sequence & 1)
        self.audiences.add(number)
        return sequence, entered_us

    def leave_for_good(
        self, profile_id: int, memberships: Memberships, cause: Cause, body: str, merged_into: int | None = None
    ) -> None:
        """Writes the exits of a profile that is no more, with its last fields."""
        for number, (sequence, entered_us) in sorted(memberships.items()):
            if sequence & 1:
                self._last_exit(profile_id, number, sequence + 1, entered_us, cause, body, merged_into)

    def _last_exit(
        self, profile_id: int, number: int, sequence: int, entered_us: int, cause: Cause, body: str,
        merged_into: int | None,
    ) -> None:  # fmt: skip
        head, bundle = self.head, self.bundle
        head.last_trigger += 1
        bundle.triggers += (
            head.last_trigger, self.first_trigger, profile_id, number, "exit", sequence, self.now_us, entered_us,
            None, cause, merged_into, body, None,
        )  # fmt: skip
        bundle.sizes[number] = bundle.sizes.get(number, 0) - 1
        self.audiences.add(number)

    # --- timers

    def set_timer(self, profile_id: int, due_us: int) -> None:
        """Sets the moment at which time alone could change the profile's memberships."""
        self.bundle.timers += (profile_id, due_us)
        head = self.head
        if head.next_due_us is None or due_us < head.next_due_us:
            head.next_due_us = due_us
