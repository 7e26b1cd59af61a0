"""What a connector raises decides the state of its job; these four are the whole contract.

Any other exception counts as transient too, with its traceback in the log, and is counted apart.
"""

from __future__ import annotations


class TransientError(Exception):
    """The destination could not take it now: the job sleeps and goes on from where it was.

    `retry_after` (seconds) is what the destination asked for; such a sleep is not counted as an error.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuthError(TransientError):
    """The destination refused the authorization: as transient, and the authorization is unhealthy."""


class NotYetError(Exception):
    """There is nothing to do yet (a file that has not come): the job sleeps for `again_s` seconds and says why.

    No error: it is not counted, and the schedule goes on.
    """

    def __init__(self, message: str, *, again_s: float) -> None:
        super().__init__(message)
        self.again_s = again_s


class ConfigError(Exception):
    """The job cannot work as it is configured: it fails at once. The message says what to change."""


def gravest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Gives the error of a task group that decides: configuration, then authorization, then a bug, then transient."""
    return min(_leaves(group), key=_rank)


def _rank(error: BaseException) -> int:
    match error:
        case ConfigError():
            return 0
        case AuthError():
            return 1
        case TransientError() | NotYetError():
            return 3
        case _:
            return 2


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]
