"""Why somebody was, or was not, sent to a destination: in words that say what to do (P8).

The walk: membership, what the job wants, when it began, what became of the attempts, how far its subscription is, its
state. The first that decides is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from daemon import clock
from daemon.bus.bus import Lag
from daemon.model.job import JobState, SleepCause
from daemon.store.deliveries import Delivery, Sent
from daemon.store.jobs import JobRow
from daemon.store.memberships import Membership
from daemon.store.subscriptions import SubscriptionRow

#: Attempts that are looked through and shown.
ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one person and one audience of a job; `attempts` are the newest of the person, newest first."""

    job: JobRow
    row: SubscriptionRow
    lag: Lag | None
    audience: str
    key: tuple[str, str]
    member: Membership | None
    existing_users: bool
    attempts: list[tuple[Delivery, Sent]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Story:
    """The answer: `verdict` for programs, `because` and `do` for people."""

    verdict: str
    because: str
    do: str
    trigger_id: int | None = None


def tell(known: Known) -> Story:
    """Says what became of the last enter or exit of a person in an audience, for one job."""
    member, row = known.member, known.row
    why = f"`cohortd explain {known.audience} {known.key[0]} {known.key[1]}` says why"
    if member is None:
        return Story("never_a_member", f"this person was never in {known.audience}", why)
    kind = "enter" if member.member else "exit"
    moved = f"{'entered' if member.member else 'left'} {known.audience} at {_at(member.changed_us)}"
    trigger = member.trigger_id
    tried = [each for each, sent in known.attempts if sent.first_id <= trigger <= sent.last_id]
    done = next((each for each in tried if each.outcome == "delivered"), None)
    if done is not None:
        answer = f", which answered {done.status}" if done.status is not None else ""
        again = "to have it sent once more: `cohortd job redeliver " + f"{known.job.id} --delivery {done.id}`"
        words = f"the person {moved}, and that was sent at {_at(done.at_us)} to {done.receiver or 'the destination'}"
        return Story("delivered", words + answer, again, trigger)
    if kind not in row.wanted.events.kinds:
        return Story(
            "not_wanted",
            f"the person {moved}, and the job sends {row.wanted.events} only",
            "create a job with events: both",
            trigger,
        )
    before = member.changed_us < row.created_us
    if before and not (known.existing_users and kind == "enter"):
        how = "`existing_users` is off" if kind == "enter" else "what was over by then is not sent"
        return Story(
            "before_the_job",
            f"the person {moved}, before the job began at {_at(row.created_us)}, and {how}",
            "create a job with existing_users: true; it sends those who are members already"
            if kind == "enter"
            else "nothing: the destination never heard of it",
            trigger,
        )
    if tried and tried[0].outcome == "omitted":
        last = tried[0]
        return Story(
            "omitted",
            f"the person {moved}; at {_at(last.at_us)} that was given up for good: {last.answer or 'no answer kept'}",
            f"mend what the destination did not like, then `cohortd job redeliver {known.job.id} --delivery {last.id}`",
            trigger,
        )
    if _passed(known, before=before):
        return _lost(known, moved, trigger)
    return _waiting(known, moved, trigger, tried[0] if tried else None)


def _passed(known: Known, *, before: bool) -> bool:
    """Says whether the job is done with the person's last move."""
    done, member = known.row.progress, known.member
    if member is None:
        return False
    if before:
        return done.backfill_trigger is None
    return member.trigger_id <= done.position or member.trigger_id in done.ahead.live


def _lost(known: Known, moved: str, trigger: int) -> Story:
    again = f"`cohortd job redeliver {known.job.id} --first-trigger {trigger} --last-trigger {trigger}` sends it again"
    if known.row.progress.skipped:
        return Story(
            "given_up",
            f"the person {moved}; the job has passed that, and gave {known.row.progress.skipped} triggers up that had"
            " waited longer than retention.dead_cursor_days: this is most likely one of them",
            again,
            trigger,
        )
    return Story(
        "done",
        f"the person {moved}; the job is done with that, but what became of it is not kept any more"
        " (journal.deliveries_days, journal.deliveries), or it came with very many in one file",
        again,
        trigger,
    )


def _waiting(known: Known, moved: str, trigger: int, last: Delivery | None) -> Story:
    job = known.job
    failing = "" if last is None else f"; attempt {last.attempt} at {_at(last.at_us)} failed: {last.answer}"
    head = f"the person {moved}, and that waits to be sent: "
    match job.state:
        case JobState.PAUSED:
            return Story("paused", f"{head}the job is paused", f"`cohortd job resume {job.id}`", trigger)
        case JobState.FAILED:
            words = f"{head}the job has failed: {job.reason}{failing}"
            return Story("failed", words, f"mend that, then `cohortd job resume {job.id}`", trigger)
        case JobState.COMPLETED:
            words = f"{head}the job is completed, and sends nothing more"
            return Story("completed", words, f"`cohortd job copy {job.id}`", trigger)
        case JobState.SLEEPING:
            until = "" if job.sleep_until_us is None else f" until {_at(job.sleep_until_us)}"
            if job.reason == "quiet hours":
                words = f"{head}quiet hours, the job sleeps{until}"
                return Story("quiet_hours", words, f"wait, or `cohortd job run {job.id}`", trigger)
            if job.sleep_cause is SleepCause.RETRY_AFTER:
                words = f"{head}the destination asked to wait, the job sleeps{until}: {job.reason}"
                return Story("asked_to_wait", words, f"wait, or `cohortd job run {job.id}`", trigger)
            words = f"{head}the job sleeps after an error{until}: {job.reason}{failing}"
            do = f"mend that; it is tried again by itself, or `cohortd job run {job.id}`"
            return Story("error", words, do, trigger)
    lag = known.lag
    if known.row.progress.backfill_trigger is not None:
        words = f"{head}existing members are still being sent{failing}"
        return Story("waiting", words, "wait", trigger)
    waiting = "" if lag is None else "1 trigger waits" if lag.triggers == 1 else f"{lag.triggers} triggers wait"
    behind = "" if lag is None else f", {waiting}, the oldest for {lag.seconds:.0f} s"
    words = f"{head}the job is running{behind}{failing}"
    return Story("waiting", words, f"wait; if it stays so, `cohortd job logs {job.id}`", trigger)


def shown(known: Known, story: Story) -> dict[str, Any]:
    """Gives the answer as the API shows it."""
    member = known.member
    return {
        "audience": known.audience,
        "verdict": story.verdict,
        "because": story.because,
        "do": story.do,
        "member": member is not None and member.member,
        "since": _moment(None if member is None else member.changed_us),
        "trigger_id": None if story.trigger_id is None else str(story.trigger_id),
    }


def _moment(at_us: int | None) -> datetime | None:
    return None if at_us is None else clock.from_us(at_us)


def _at(at_us: int) -> str:
    return clock.from_us(at_us).strftime("%Y-%m-%d %H:%M:%S UTC")
