"""What a provider declares: its authorization methods and job types, each with one configuration model.

Form, validation, JSON Schema, redaction and docs come from the model. Bind each `JobType` to a name before listing
it in the provider: written inline, a job type whose function does not take its configuration passes the type checkers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from connectors.sdk.run import TriggerRun

Direction = Literal["import", "export", "enrichment"]
Events = Literal["both", "enters", "exits"]


class Config(BaseModel):
    """A job's configuration: read-only, and a name that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TriggerExport(Config):
    """What every export of triggers is configured with; the daemon makes the job's subscription of it."""

    audiences: tuple[str, ...] = Field(min_length=1, max_length=500, description="Slugs of the audiences to follow.")
    events: Events = Field("both", description="Which triggers are sent: both, enters, exits.")
    user_fields: tuple[str, ...] | None = Field(
        None, description="Profile fields in `data`; all of them when not given."
    )
    existing_users: bool = Field(
        default=False, description="Also send those who are members already, as enters, before and beside what comes."
    )

    @field_validator("audiences")
    @classmethod
    def _each_once(cls, audiences: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(audiences))


C = TypeVar("C", bound=TriggerExport)


@dataclass(frozen=True, slots=True)
class AuthMethod:
    """A way to authorize with a provider; the values of its model are kept sealed."""

    slug: str
    label: str
    config: type[BaseModel]


@dataclass(frozen=True, slots=True)
class JobType(Generic[C]):
    """A kind of job: `run` is called with what a run offers, and its lifetime is the run.

    `run` returns when there is nothing more to do (the job is completed), or raises what decides the job's next
    state. Without `auths` the job needs no authorization.
    """

    slug: str
    label: str
    description: str
    direction: Direction
    config: type[C]
    run: Callable[[TriggerRun[C]], Awaitable[None]]
    auths: tuple[AuthMethod, ...] = ()


@dataclass(frozen=True, slots=True)
class Provider:
    """A system that cohortd works with. `jobs` have slugs of their own, unique over all providers."""

    slug: str
    label: str
    description: str
    jobs: tuple[JobType[Any], ...]
    auths: tuple[AuthMethod, ...] = ()
