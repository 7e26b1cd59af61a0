"""Dynamic choices: the values that a field of a configuration may have, as its provider says now."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel

from connectors.sdk.catalog import Catalog
from connectors.sdk.declare import Choice, Choices, Choosing, Provider
from connectors.sdk.errors import AuthError, ConfigError, TransientError, gravest
from daemon import clock, log
from daemon.jobs.authorizations import Authorizations
from daemon.jobs.checking import LONGEST_REASON, network
from daemon.jobs.opening import OpenedAuth
from daemon.model.refusal import NotFound, Refused
from daemon.settings import Settings


class UnavailableError(Exception):
    """The provider did not answer; asking again may help. `retry_after` in seconds, where it named a time."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Asked(NamedTuple):
    """What choices are asked for with. An authorization by its id, or by method and values that are not stored."""

    auth_id: str | None
    method: str | None
    credentials: Mapping[str, Any]
    job_type: str | None
    config: Mapping[str, Any]
    search: str
    limit: int


def choices_of(model: type[BaseModel]) -> dict[str, Choices]:
    """Gives the dynamic choices of a model's fields, by name."""
    found = {}
    for field in model.model_fields.values():
        for each in (*field.metadata, *_within(field.annotation)):
            if isinstance(each, Choices):
                found[each.name] = each
    return found


async def choose(
    known: Catalog, authorizations: Authorizations, settings: Settings, provider: str, name: str, asked: Asked
) -> Sequence[Choice]:
    """Gives at most `asked.limit` choices, within `auth.check_timeout_s`.

    Raises NotFound; Refused with the provider's words (its authorization is unhealthy then, when that was refused);
    UnavailableError.
    """
    declared = known.providers.get(provider)
    if declared is None:
        raise NotFound(f"there is no provider {provider[:100]!r}; there are {', '.join(known.providers)}")
    choices = _named(declared, name, asked.job_type)
    opened: OpenedAuth | None = None
    try:
        async with asyncio.timeout(settings.auth.check_timeout_s):
            opened = await _opened(declared, authorizations, asked)
            if opened is not None:
                await opened.request()
            choosing = Choosing(
                auth=None if opened is None else opened.credentials,
                config=asked.config,
                search=asked.search,
                limit=asked.limit,
                network=network(settings),
                log=log.get(provider=provider, choices=name),
                folders={each: settings.data_dir / each for each in ("imports", "exports", "spool")},
                now_us=clock.now_us,
            )
            found = await choices.find(choosing)
    except (NotFound, Refused):
        raise
    except Exception as error:  # noqa: BLE001  (the one place that decides what a look-up's end means)
        raise _told(error, opened, authorizations, settings) from None
    return list(found)[: asked.limit]


async def _opened(provider: Provider, authorizations: Authorizations, asked: Asked) -> OpenedAuth | None:
    if asked.auth_id is not None:
        of = await authorizations.method_of(asked.auth_id)
        if of is None:
            raise _refused("auth_id", f"there is no authorization {asked.auth_id[:100]!r}")
        if of[0] != provider.slug:
            raise _refused("auth_id", f"authorization {asked.auth_id} is with {of[0]}, not with {provider.slug}")
        return await authorizations.opened(asked.auth_id)
    if asked.method is not None:
        return authorizations.unsaved(provider.slug, asked.method, asked.credentials)
    return None


def _told(error: Exception, opened: OpenedAuth | None, authorizations: Authorizations, settings: Settings) -> Exception:
    cause = gravest(error) if isinstance(error, BaseExceptionGroup) else error
    said = str(cause) or type(cause).__name__
    said = (said if opened is None else opened.hidden(said))[:LONGEST_REASON]
    match cause:
        case AuthError():
            if opened is not None and opened.id:
                authorizations.met(opened.id, AuthError(said))
            return _refused("auth_id", said)
        case ConfigError():
            return _refused("config", said)
        case TransientError():
            return UnavailableError(said, cause.retry_after)
        case TimeoutError():
            return UnavailableError(f"no answer within {settings.auth.check_timeout_s:g} s")
    trace = "".join(traceback.format_exception(cause))
    trace = trace if opened is None else opened.hidden(trace)
    log.get().error("choices_crashed", error=said, exception=trace)
    return UnavailableError(f"looking them up failed by a defect: {type(cause).__name__}: {said}")


def _named(provider: Provider, name: str, job_type: str | None) -> Choices:
    models: list[type[BaseModel]] = [each.config for each in provider.jobs if job_type in (None, each.slug)]
    if job_type is not None and not models:
        there = ", ".join(each.slug for each in provider.jobs)
        raise _refused("job_type", f"{provider.slug} has no job type {job_type[:100]!r}; there are {there}")
    models += [each.config for each in provider.auths]
    found: dict[str, Choices] = {}
    for model in models:
        found = choices_of(model) | found
    if name not in found:
        there = ", ".join(sorted(found)) or "none"
        raise NotFound(f"provider {provider.slug} has no choices {name[:100]!r}; there are {there}")
    return found[name]


def _refused(where: Literal["auth_id", "config", "job_type"], text: str) -> Refused:
    return Refused([{"loc": [where], "msg": text}], text)


def _within(annotation: Any) -> Iterator[object]:
    yield from getattr(annotation, "__metadata__", ())
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from choices_of(annotation).values()
    for each in get_args(annotation):
        yield from _within(each)
