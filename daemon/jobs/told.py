"""What a change of a job's state is called in the job's own log."""

from __future__ import annotations

from daemon import clock
from daemon.jobs.parts import Journal
from daemon.model import codes
from daemon.model.job import Message, SleepCause, Verdict


def tell(journal: Journal, job_id: str, run_id: str | None, verdict: Verdict) -> None:
    """Notes what became of a job, and why."""
    code, words = _words(verdict)
    known = codes.CODES[code]
    until = None if verdict.sleep_until_us is None else clock.from_us(verdict.sleep_until_us)
    if until is not None:
        words = f"{words}; it sleeps until {until:%Y-%m-%d %H:%M:%S} UTC"
    journal.job_event(
        job_id,
        run_id,
        known.level,
        code,
        words,
        until=until,
        reason=verdict.reason,
        errors=verdict.errors.count or None,
    )


def _words(verdict: Verdict) -> tuple[str, str]:
    reason = verdict.reason
    match verdict.message, verdict.sleep_cause:
        case Message.PAUSE, _:
            return codes.PAUSED, "the job was paused"
        case Message.COMPLETE, _:
            return codes.COMPLETED, "its owner ended the job"
        case Message.DONE, _:
            return codes.COMPLETED, "the job has done all that it had to"
        case Message.EXPIRE, _:
            return codes.EXPIRED, "the job's time is over"
        case Message.FAIL, _:
            return codes.FAILED, f"the job gave up: {reason}"
        case Message.BACK_OFF, SleepCause.RETRY_AFTER:
            return codes.ASKED_TO_WAIT, f"the destination asked to wait: {reason}"
        case Message.BACK_OFF, _:
            return codes.FAULT, f"error {verdict.errors.count} in a row: {reason}"
        case Message.REST, _ if reason == "quiet hours":
            return codes.QUIET, "quiet hours"
        case Message.REST, _ if reason:
            return codes.NOT_YET, reason
        case Message.REST, _:
            return codes.SLEPT, "all is done until the next run"
    return codes.RESUMED, "the job was resumed"
