"""How far a subscription is done with: its cursor over the trigger log, and the one over existing members.

In memory this runs ahead of what is stored; what is lost in a crash is delivered again.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon.model.subscription import Ahead
from daemon.store import trigger_log
from daemon.store.subscriptions import Progress, SubscriptionRow


class Cursor:
    """One subscription.

    `read_to` is the trigger up to which the log was read, `caught_up` says that nothing wanted lies behind it. A commit
    that touches none of the subscription's audiences then costs it nothing: its place is the end of the log.
    """

    def __init__(self, row: SubscriptionRow) -> None:
        done = row.progress
        self.id = row.id
        self.job_id = row.job_id
        self.wanted = row.wanted
        self.created_us = row.created_us
        self.filter = trigger_log.make_filter(row.wanted.audiences, row.wanted.events.kinds)
        self.read_to = done.position
        self.caught_up = False
        self.touched = True
        self.backfill_trigger = done.backfill_trigger
        self.backfill_read_to = done.backfill_profile
        self.backfill_ended = False
        self.done_live = set(done.ahead.live)
        self.done_backfill = set(done.ahead.backfill)
        self.added = done.added
        self.removed = done.removed
        self.omitted = done.omitted
        self.failed = done.failed
        self.skipped = done.skipped
        self.acked_us = done.acked_us
        #: Whether messages may have been asked for again; and rows of those that are done with and still stored.
        self.again = False
        self.done_again: set[int] = set()
        #: Stands for the run that reads; what a former one still does has no effect.
        self.reader: object | None = None
        #: First of what was read and is not settled: (trigger id, profile id), as the feed that reads knows it.
        self.unsettled: Callable[[], tuple[int | None, int | None]] = _nothing
        self.wake: Callable[[], None] = _ignore
        self.stored: Progress | None = None

    @property
    def backfilling(self) -> bool:
        """Whether members that existed at the start are still to be sent."""
        return self.backfill_trigger is not None

    def touch(self, first: int) -> None:
        """Takes notice of a commit, its first trigger being `first`, that may hold something wanted."""
        if self.caught_up:
            self.read_to = max(self.read_to, first - 1)
            self.caught_up = False
        self.touched = True
        self.wake()

    def places(self, head: int) -> tuple[int, int]:
        """Gives the two cursors: trigger id and profile id up to which all is done with."""
        live, backfill = self.unsettled()
        read_to = max(self.read_to, head) if self.caught_up else self.read_to
        # What was sent before its page stands beyond the page that was read last.
        profile = self.backfill_read_to if backfill is None else min(self.backfill_read_to, backfill - 1)
        return read_to if live is None else live - 1, profile

    def forget_passed(self, head: int) -> tuple[int, int]:
        """Gives the two cursors, and forgets of what is done beyond them what they have passed."""
        position, profile = self.places(head)
        if self.done_live:
            self.done_live = {each for each in self.done_live if each > position}
        if self.done_backfill:
            self.done_backfill = {each for each in self.done_backfill if each > profile}
        return position, profile

    def progress(self, head: int) -> Progress:
        """Gives what is to be stored, and forgets what the cursors have passed."""
        position, profile = self.forget_passed(head)
        return Progress(
            position,
            self.backfill_trigger,
            profile,
            Ahead(frozenset(self.done_live), frozenset(self.done_backfill)),
            self.added,
            self.removed,
            self.omitted,
            self.failed,
            self.skipped,
            self.acked_us,
        )

    def release(self, head: int) -> None:
        """Ends a run's reading: what it left unsettled is read again by the next."""
        live, backfill = self.unsettled()
        position, profile = self.places(head)
        if live is not None:
            self.caught_up = False
        if backfill is not None:
            self.backfill_ended = False
        self.read_to, self.backfill_read_to = position, profile
        self.unsettled, self.wake, self.reader = _nothing, _ignore, None

    def skip_to(self, position: int, skipped: int) -> None:
        """Gives up what lies before `position`. Only while no run reads."""
        self.read_to = max(self.read_to, position)
        self.skipped += skipped


def _nothing() -> tuple[int | None, int | None]:
    return None, None


def _ignore() -> None:
    return
