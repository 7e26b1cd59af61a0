"""What a provider declares: its authorization methods and job types, each with one configuration model.

Form, validation, JSON Schema, redaction and docs come from the model. Bind each job type to a name before listing it in
the provider: written inline, one whose function does not take its configuration passes the type checkers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from structlog.typing import FilteringBoundLogger

from connectors.sdk.exports import AudienceRun, EventsRun
from connectors.sdk.imports import ImportRun
from connectors.sdk.run import Credentials, Network, TriggerRun

Direction = Literal["import", "export", "enrichment", "other"]
Events = Literal["both", "enters", "exits"]
#: Whether a job of a type has a schedule: never (it runs all the time), as its owner likes (without one it runs once).
Scheduling = Literal["never", "optional"]


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


class Import(Config):
    """What every import of rows is configured with."""

    stream: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_.\-]+$",
        description="Stream of the events.",
    )
    timestamp_field: str | None = Field(
        None, max_length=200, description="Column that holds a row's time; without one it is the time of the import."
    )
    fields: tuple[str, ...] | None = Field(None, description="Columns to import; all of them when not given.")


class AudienceExport(Config):
    """What every export of an audience's members is configured with."""

    audiences: tuple[str, ...] = Field(min_length=1, max_length=500, description="Slugs of the audiences to export.")
    user_fields: tuple[str, ...] | None = Field(None, description="Profile fields to export; all of them if not given.")

    @field_validator("audiences")
    @classmethod
    def _each_once(cls, audiences: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(audiences))


class EventsExport(Config):
    """What every export of events is configured with."""

    streams: tuple[str, ...] = Field((), description="Streams to export; none named: all of them.")


#: What may happen to jobs, authorizations and the daemon; a test holds it to `daemon.model.codes`.
SYSTEM_VERBS = (
    "backfilled", "changed", "completed", "created", "deleted", "error", "failed", "given_up", "healthy", "heartbeat",
    "paused", "purge_announced", "purged", "recovered", "resumed", "slept", "started", "synced", "unauthorized",
    "unhealthy", "unknown", "updated",
)  # fmt: skip


class SystemExport(Config):
    """What every job of alerts is configured with: of which system events it tells. Never of its own."""

    subjects: tuple[Literal["job", "authorization", "daemon"], ...] = Field(
        ("job", "authorization"), min_length=1, description="What the events are about."
    )
    verbs: tuple[str, ...] = Field(
        (), max_length=50, description="What happened: failed, error, unhealthy, …; none named: all but heartbeats."
    )
    jobs: tuple[str, ...] = Field((), max_length=500, description="Ids of the jobs; none named: all.")
    authorizations: tuple[str, ...] = Field(
        (), max_length=500, description="Ids of the authorizations; none named: all."
    )

    @field_validator("verbs")
    @classmethod
    def _known_verbs(cls, verbs: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [each for each in verbs if each not in SYSTEM_VERBS]
        if unknown:
            raise ValueError(f"{unknown[0][:50]!r} is none of {', '.join(SYSTEM_VERBS)}")
        return verbs


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the values that a field may have."""

    value: str
    label: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Choosing:
    """What finding choices may use. `config` is what the form holds so far, not validated."""

    auth: Credentials | None
    config: Mapping[str, Any]
    search: str
    limit: int
    network: Network
    log: FilteringBoundLogger
    folders: Mapping[str, Path] = field(default_factory=dict)  # "imports", "exports" and "spool", as a run has them
    now_us: Callable[[], int] = lambda: 0


@dataclass(frozen=True, slots=True)
class Choices:
    """Says that a field's values can be looked up: `Annotated[str, Choices("containers", find_containers)]`.

    Several fields of a provider may share a name when they share the function. `find` gives at most `limit`.
    """

    name: str
    find: Callable[[Choosing], Awaitable[Sequence[Choice]]]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Adds `x-choices` to the field's JSON Schema."""
        schema = handler(core)
        schema["x-choices"] = self.name
        return schema


@dataclass(frozen=True, slots=True)
class Rate:
    """How many requests in how many seconds one authorization may make, all its jobs together."""

    requests: int
    per_s: float


A = TypeVar("A", bound=Credentials)
A_co = TypeVar("A_co", bound=Credentials, covariant=True)


@dataclass(frozen=True, slots=True)
class AuthCheck(Generic[A_co]):
    """What the check of an authorization may use."""

    config: A_co
    network: Network
    log: FilteringBoundLogger
    now_us: Callable[[], int]


@dataclass(frozen=True, slots=True)
class AuthMethod(Generic[A]):
    """A way to authorize with a provider; the secret values of its model are kept sealed.

    `check` returns when the authorization works; an AuthError or a ConfigError says, in the provider's own words, that
    it does not (unhealthy); a TransientError, or anything else, that this could not be found out (unknown). None, or
    values for which `can_check` is false: it cannot be checked, and what runs meet decides.
    """

    slug: str
    label: str
    config: type[A]
    check: Callable[[AuthCheck[A]], Awaitable[None]] | None = None
    description: str = ""
    rate: Rate | None = None
    can_check: Callable[[A], bool] = lambda _: True


C = TypeVar("C", bound=Config)
T = TypeVar("T", bound=TriggerExport)
I = TypeVar("I", bound=Import)  # noqa: E741  (the import's)
M = TypeVar("M", bound=AudienceExport)
E = TypeVar("E", bound=EventsExport)
S = TypeVar("S", bound=SystemExport)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType(Generic[C]):
    """A kind of job; one of the classes below, which say what its run is given. Its lifetime is the run.

    `run` returns when there is nothing more to do now, or raises what decides the job's next state. `auths` are the
    methods that enable it; with `auth_required` False it also runs without an authorization. `frequency` is that of a
    schedule which names none; None: it must name one.
    """

    slug: str
    label: str
    description: str
    direction: Direction
    config: type[C]
    auths: tuple[AuthMethod[Any], ...] = ()
    auth_required: bool = False
    schedule: Scheduling = "never"
    frequency: Literal["hourly", "daily", "weekly", "monthly"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerJob(JobType[T]):
    """A job that delivers enters and exits as they come."""

    run: Callable[[TriggerRun[T]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob(JobType[I]):
    """A job that brings rows in."""

    run: Callable[[ImportRun[I]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AudienceJob(JobType[M]):
    """A job that writes down who is in its audiences."""

    run: Callable[[AudienceRun[M]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsJob(JobType[E]):
    """A job that writes events of the log down."""

    run: Callable[[EventsRun[E]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemJob(JobType[S]):
    """A job that tells of what happens to jobs, authorizations and the daemon; its messages are system events."""

    run: Callable[[TriggerRun[S]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Provider:
    """A system that cohortd works with. `jobs` have slugs of their own, unique over all providers."""

    slug: str
    label: str
    description: str
    jobs: tuple[JobType[Any], ...]
    auths: tuple[AuthMethod[Any], ...] = ()
