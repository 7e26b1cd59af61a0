"""The codes of a job's log: what each line says, how grave it is, and of which system event it is the cause."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
LEVELS: Final[tuple[Level, ...]] = ("debug", "info", "warning", "error")


class Code(NamedTuple):
    """What stands for a code: its level, what it means and what to do, and the verb of its system event."""

    level: Level
    means: str
    verb: str | None = None


CREATED: Final = "JOB-CREATED-001"
STARTED: Final = "JOB-STARTED-002"
SYNCED: Final = "JOB-SYNCED-003"
COMPLETED: Final = "JOB-COMPLETED-004"
PAUSED: Final = "JOB-PAUSED-005"
RESUMED: Final = "JOB-RESUMED-006"
CHANGED: Final = "JOB-CHANGED-007"
DELETED: Final = "JOB-DELETED-008"
PURGE_DUE: Final = "JOB-PURGE-009"
PURGED: Final = "JOB-PURGED-010"
SLEPT: Final = "JOB-SLEPT-011"
ASKED_TO_WAIT: Final = "JOB-SLEPT-012"
QUIET: Final = "JOB-QUIET-013"
NOT_YET: Final = "JOB-WAITS-014"
EXPIRED: Final = "JOB-EXPIRED-015"
UNAUTHORIZED: Final = "UNAUTHORIZED-017"
FAULT: Final = "JOB-FAULT-020"
CRASHED: Final = "JOB-FAULT-021"
FAILED: Final = "JOB-FAULT-022"
INTERRUPTED: Final = "JOB-FAULT-023"
RECOVERED: Final = "JOB-RECOVERED-024"
OMITTED: Final = "JOB-OMITTED-030"
GIVEN_UP: Final = "JOB-GIVENUP-031"
BACKFILLED: Final = "JOB-BACKFILL-032"
REDELIVERY: Final = "JOB-REDELIVERY-033"
NOTE: Final = "JOB-NOTE-040"

CODES: Final[dict[str, Code]] = {
    CREATED: Code("info", "the job was created", "created"),
    STARTED: Code("info", "a run began", "started"),
    SYNCED: Code("info", "a run did all that it had to", "synced"),
    COMPLETED: Code("info", "the job has done all that it had to, or its owner ended it", "completed"),
    PAUSED: Code("info", "somebody paused the job; resume it to go on from the same place", "paused"),
    RESUMED: Code("info", "somebody resumed the job, or had it run at once", "resumed"),
    CHANGED: Code("info", "label, description or authorization of the job were changed", "updated"),
    DELETED: Code("info", "somebody deleted the job", "deleted"),
    PURGE_DUE: Code(
        "warning",
        "the job has stood still for long and will be deleted soon; resume it, or copy it, to keep it",
        "purge_announced",
    ),
    PURGED: Code("warning", "the job stood still for `jobs.purge_days` and was deleted", "purged"),
    SLEPT: Code("info", "the job sleeps until the next run of its schedule", "slept"),
    ASKED_TO_WAIT: Code("info", "the destination asked to be left alone for a while (Retry-After)", "slept"),
    QUIET: Code("info", "quiet hours: the job sleeps until they end", "slept"),
    NOT_YET: Code("info", "there is nothing to do yet; the job looks again later"),
    EXPIRED: Code("info", "the job's time is over; it is completed", "completed"),
    UNAUTHORIZED: Code(
        "error", "the provider refused the credentials; check the authorization or give another one", "unauthorized"
    ),
    FAULT: Code("warning", "a run ended in an error; it is tried again, later each time", "error"),
    CRASHED: Code("error", "a run ended in a way that no connector should; tried again. Please report it"),
    FAILED: Code("error", "the job gave up; mend the cause and resume it", "failed"),
    INTERRUPTED: Code("info", "the daemon ended in the middle of a run; the next one goes on from where it was"),
    RECOVERED: Code("info", "it delivers again after errors", "recovered"),
    OMITTED: Code("warning", "the destination refused messages for good; see the job's deliveries", None),
    GIVEN_UP: Code("error", "triggers waited longer than `retention.dead_cursor_days` and were given up", "given_up"),
    BACKFILLED: Code("info", "all existing members were sent; what follows is live", "backfilled"),
    REDELIVERY: Code("info", "somebody asked for messages to be sent again"),
    NOTE: Code("info", "a word of the connector"),
}

#: Verbs of system events, by what they are about.
VERBS: Final[dict[str, tuple[str, ...]]] = {
    "job": tuple(sorted({code.verb for code in CODES.values() if code.verb is not None})),
    "authorization": ("changed", "created", "deleted", "healthy", "unhealthy", "unknown"),
    "daemon": ("heartbeat",),
}
