"""Asking a provider whether an authorization works."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from connectors.sdk.declare import AuthCheck, AuthMethod
from connectors.sdk.errors import AuthError, ConfigError, TransientError, gravest
from connectors.sdk.run import Credentials, Network
from connectors.sdk.secret import Secret, hidden
from daemon import clock, log
from daemon.model.authorization import Health
from daemon.settings import Settings

#: Longest reason that is kept, in characters: a provider may answer with a page.
LONGEST_REASON = 1000


class Verdict(NamedTuple):
    """What a check found out, and why, in the provider's words."""

    health: Health
    reason: str


async def ask(
    auth_id: str, method: AuthMethod[Any], credentials: Credentials, secrets: Sequence[Secret], settings: Settings
) -> Verdict | None:
    """Checks values with their provider, within `auth.check_timeout_s`; None where they cannot be checked.

    Refused: unhealthy, with the provider's words, in which no secret stands. No answer: unknown. A defect of the
    connector is logged, and unknown too.
    """
    logger = log.get(authorization=auth_id, method=method.slug)
    timeout_s = settings.auth.check_timeout_s
    if method.check is None or not method.can_check(credentials):
        return None
    try:
        async with asyncio.timeout(timeout_s):
            await method.check(AuthCheck(credentials, network(settings), logger, clock.now_us))
    except Exception as error:  # noqa: BLE001  (the one place that decides what a check's end means)
        cause = gravest(error) if isinstance(error, BaseExceptionGroup) else error
        said = hidden(str(cause) or type(cause).__name__, secrets)[:LONGEST_REASON]
        match cause:
            case AuthError() | ConfigError():
                return Verdict(Health.UNHEALTHY, said)
            case TransientError():
                return Verdict(Health.UNKNOWN, said)
            case TimeoutError():
                return Verdict(Health.UNKNOWN, f"no answer within {timeout_s:g} s")
        trace = hidden("".join(traceback.format_exception(cause)), secrets)
        logger.error("authorization_check_crashed", error=said, exception=trace)  # noqa: TRY400  (without secrets)
        return Verdict(Health.UNKNOWN, f"the check failed by a defect: {type(cause).__name__}: {said}")
    return Verdict(Health.HEALTHY, "")


def network(settings: Settings) -> Network:
    """Gives what connectors may reach."""
    return Network(settings.jobs.request_timeout_s, settings.jobs.allow_loopback, settings.jobs.allow_private)
