"""The settings: defaults, then a TOML file, then the environment, then flags, each outweighing the one before.

A setting `name` in section `part` is `[part] name = …` in the file and `COHORTD_PART_NAME` in the environment (a list
as JSON or with commas). Each field says what it does and in which unit; `daemon/README.md` lists them all, and a test
holds that list to this module. Durations end in `_s` or `_days`, sizes in `_bytes`.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

PREFIX = "COHORTD_"

#: Names in the environment that are no settings: the file's place, and where the command line finds a daemon.
NOT_SETTINGS = frozenset({"COHORTD_CONFIG", "COHORTD_URL", "COHORTD_TOKEN"})


class SettingsError(ValueError):
    """Settings that are refused; the message has a line for each, with its name and what would be accepted."""


def setting(default: object, description: str, unit: str = "", **constraints: Any) -> Any:
    """Declares a setting: its default, what it does, the unit it is given in, and pydantic's constraints."""
    return Field(default, description=description, json_schema_extra={"unit": unit}, **constraints)


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:8420 or [::1]:8420")
    return text


def _network(text: str) -> str:
    ipaddress.ip_network(text, strict=False)
    return text


Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]


class Section(BaseModel):
    """A section of the settings: read-only, and a name that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Server(Section):
    """Where the daemon listens, and how long it waits for whom."""

    listen: Address = setting("127.0.0.1:8420", "address of the TCP listener; port 0 takes a free one", "HOST:PORT")
    unix_socket: Path | None = setting(None, "path of a unix socket to listen on too, for a reverse proxy")
    unix_socket_mode: str = setting("660", "file mode of that socket", "octal", pattern="^[0-7]{3}$")
    tls_certificate: Path | None = setting(
        None, "PEM file of the certificate and its chain; makes the TCP listener TLS"
    )
    tls_key: Path | None = setting(None, "PEM file of the certificate's private key")
    trusted_proxies: tuple[Network, ...] = setting(
        (),
        "networks whose X-Forwarded-For and X-Forwarded-Proto are believed; the unix socket's peer always is",
    )
    body_timeout_s: float = setting(60.0, "longest silence within a request's body before it is given up", "s", gt=0)
    keep_alive_s: float = setting(75.0, "how long an idle connection is kept", "s", gt=0)
    stop_s: float = setting(4.0, "time for requests under way when stopping; then they are cut", "s", gt=0, le=5)
    metrics_public: bool = setting(False, "serve /metrics without a token")

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given together or not at all")
        return self


class Collect(Section):
    """What collection accepts."""

    event_bytes: int = setting(32 * 1024, "largest event in real time", "bytes", gt=0)
    bulk_event_bytes: int = setting(256 * 1024, "largest event of a bulk upload", "bytes", gt=0)
    request_bytes: int = setting(10 * 1024 * 1024, "largest JSON request, unpacked", "bytes", gt=0)
    upload_bytes: int = setting(1_000_000_000, "largest bulk upload, unpacked", "bytes", gt=0)
    event_keys: int = setting(2000, "keys that one event may have, nested ones counted", "keys", ge=1)
    event_depth: int = setting(32, "levels to which an event may nest", "levels", ge=1, le=500)
    dedup_days: float = setting(7.0, "how long an event id is remembered", "days", gt=0)
    backlog_events: int = setting(
        2_000_000, "events of the real-time lane that may wait for ingest; beyond it: 429", "events", ge=1
    )
    bulk_backlog_events: int = setting(
        5_000_000,
        "events of the bulk lane that may wait for ingest; beyond it: 429, and an upload under way is slowed",
        "events",
        ge=1,
    )
    waiting_bytes: int = setting(
        64 * 1024 * 1024, "events that may wait in memory for the disk; beyond it: 429", "bytes", ge=1024
    )
    streams: int = setting(10_000, "streams that there may be; sending to an unknown one makes it", "streams", ge=1)
    stream_fields: int = setting(2000, "field names noted of one stream", "fields", ge=1)


class Ingest(Section):
    """How events become profiles."""

    cached_profiles: int = setting(100_000, "profiles kept in memory at most", "profiles", ge=1)
    cache_bytes: int = setting(32 * 1024 * 1024, "memory that they may take, as estimated", "bytes", ge=1024)
    batch_events: int = setting(16_384, "events of one bulk batch at most", "events", ge=1)
    batch_bytes: int = setting(12 * 1024 * 1024, "stored bytes of events of one bulk batch, about", "bytes", ge=1024)
    read_bytes: int = setting(2 * 1024 * 1024, "stored bytes of events that are read at a time", "bytes", ge=1024)
    realtime_events: int = setting(2048, "events of one real-time batch at most", "events", ge=1)


class Identity(Section):
    """Limits of the identity graph."""

    keys: int = setting(50, "identity keys that one profile may have", "keys", ge=1)
    stitches: int = setting(
        10,
        "how often one key may be stitched to keys of its own or a stronger identity within the window; 0: no limit",
        "stitches",
        ge=0,
    )
    stitch_window_s: float = setting(86_400.0, "that window, by the time of arrival", "s", gt=0)
    compact_keys: int = setting(0, "compaction: a profile keeps the newest so many identity keys; 0: all", "keys", ge=0)
    compact_days: int = setting(
        0, "compaction: a profile gives up identity keys that no event named for so long; 0: never", "days", ge=0
    )


class Bus(Section):
    """How triggers reach their subscriptions."""

    store_s: float = setting(
        0.2, "how long acknowledgements are gathered before they are stored together", "s", gt=0, le=10
    )


class Jobs(Section):
    """How jobs run and recover."""

    retry_s: float = setting(5.0, "how long a delivery is tried again inside a run, doubling", "s", ge=0, le=60)
    back_off_s: float = setting(60.0, "first sleep after an error; doubles with each one more", "s", gt=0)
    back_off_longest_s: float = setting(3600.0, "longest sleep after an error", "s", gt=0)
    retry_after_longest_s: float = setting(
        3600.0, "longest sleep that a destination may ask for by Retry-After", "s", gt=0
    )
    fail_after_s: float = setting(36_000.0, "errors in a row for so long make a job failed", "s", ge=0)
    runs_at_once: int = setting(16, "imports and exports that run at the same time; others wait", ge=1, le=1000)
    stop_s: float = setting(
        3.0,
        "how long a run may take to end when it is paused or the daemon stops; then it is left alone",
        "s",
        gt=0,
        le=8,
    )
    purge_days: float = setting(
        90.0, "failed, paused and completed jobs are deleted so long after their last change", "days", gt=0
    )
    request_timeout_s: float = setting(30.0, "deadline of each request of a connector", "s", gt=0, le=600)
    allow_loopback: bool = setting(True, "connectors may reach addresses of this host")
    allow_private: bool = setting(
        False, "connectors may reach private and link-local addresses, as in a company network"
    )


class Auth(Section):
    """How authorizations are looked after."""

    check_every_s: float = setting(86_400.0, "how often each authorization is checked; 0: never by itself", "s", ge=0)
    check_jitter: float = setting(
        0.1,
        "part of that time by which each check comes earlier or later, so that they do not all come at once",
        ge=0,
        le=0.5,
    )
    check_timeout_s: float = setting(30.0, "how long a check, or looking choices up, may take", "s", gt=0, le=55)


class Vault(Section):
    """The key under which secrets are kept; without any of these one is made in the data directory."""

    key_file: Path | None = setting(None, "file of the key; the systemd credential cohortd-key goes before it")
    key: SecretStr | None = setting(None, "the key itself, for the environment: COHORTD_VAULT_KEY")


class Retention(Section):
    """How long what is kept is kept."""

    events_days: float = setting(
        90.0, "how long events stay in the log after their arrival; never less than ingest needs", "days", gt=0
    )
    rejects_days: float = setting(7.0, "how long refused events can be read", "days", gt=0)
    rejects: int = setting(10_000, "refused events kept, the newest", "rejects", ge=0)

    triggers_days: float = setting(
        7.0, "triggers are kept so long, and always until every live subscription is done with them", "days", ge=0
    )
    dead_cursor_days: float = setting(
        30.0,
        "a failed, paused or sleeping job's triggers older than this are given up, with an error in the log",
        "days",
        gt=0,
    )
    sweep_s: float = setting(600.0, "how often what is too old is looked for", "s", gt=0)


class Journal(Section):
    """What is kept of what jobs did, and of what happened."""

    store_s: float = setting(1.0, "how long lines of job logs are gathered before they are stored together", "s", ge=0)
    logs_days: float = setting(30.0, "how long lines of job logs are kept", "days", gt=0)
    logs: int = setting(200_000, "lines of job logs kept at most, the newest, of all jobs together", "lines", ge=1000)
    runs_days: float = setting(90.0, "how long runs can be looked up", "days", gt=0)
    runs: int = setting(100_000, "runs kept at most, the newest", "runs", ge=1000)
    deliveries_days: float = setting(14.0, "how long deliveries can be looked up and asked for again", "days", gt=0)
    deliveries: int = setting(
        500_000, "messages of deliveries kept at most, the newest; each takes about 200 bytes", "messages", ge=1000
    )
    activity_days: float = setting(
        400.0, "how long the activity of jobs per day is kept; per hour 35 days", "days", gt=0
    )
    samples: bool = setting(
        False, "keep of each delivery its first message, with the profile's values replaced by their kind"
    )
    events_days: float = setting(30.0, "how long system events are kept for alerts and to be looked up", "days", gt=0)
    events: int = setting(100_000, "system events kept at most, the newest", "events", ge=1000)
    audit_days: float = setting(400.0, "how long it is kept who changed what", "days", gt=0)
    audit: int = setting(100_000, "entries of the audit log kept at most, the newest", "entries", ge=1000)
    heartbeat_s: float = setting(60.0, "how often the daemon says that it is alive; 0: never", "s", ge=0)


class Store(Section):
    """The database files."""

    reserve_bytes: int = setting(
        16 * 1024 * 1024,
        "disk space held back, given up when the disk is full; collection stops while less than this is free",
        "bytes",
        ge=0,
    )

    cache_kib: int = setting(
        16384, "page cache of what writes state.db; every other connection has a quarter of it", "KiB", ge=256
    )


class Log(Section):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "least level that is written")
    form: Literal["auto", "json", "text"] = setting(
        "auto", "json: an object a line; text: for people; auto: text on a terminal, else json"
    )


def _default_data_dir() -> Path:
    # systemd gives a list where a unit has several state directories; ours is the first.
    return Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0] or "var")


class Settings(BaseSettings):
    """All settings. Made by `load`; read-only."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="directory of the databases, the lock and the control socket; default $STATE_DIRECTORY, else ./var",
        json_schema_extra={"unit": ""},
    )
    server: Server = Server()
    collect: Collect = Collect()
    ingest: Ingest = Ingest()
    identity: Identity = Identity()
    bus: Bus = Bus()
    jobs: Jobs = Jobs()
    auth: Auth = Auth()
    vault: Vault = Vault()
    retention: Retention = Retention()
    journal: Journal = Journal()
    store: Store = Store()
    log: Log = Log()


def load(config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Gives the settings of the file `config`, the environment and `flags` (nested, as in the file).

    Without `config`: `$COHORTD_CONFIG`, else `cohortd.toml` in systemd's `$CONFIGURATION_DIRECTORY` where it exists.
    Raises SettingsError for a file that cannot be read and for every value that is refused.
    """
    content = _read(config)

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del env_settings, dotenv_settings, file_secret_settings
            file = InitSettingsSource(settings_cls, init_kwargs=content)
            return init_settings, _Environment(settings_cls), file

    try:
        return Sourced(**(flags or {}))
    except ValidationError as error:
        raise SettingsError("\n".join(_refusals(error))) from error


def describe(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yields (name, default, unit, description) of every setting, in the order of declaration."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from describe(annotation, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra
        unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
        default = "" if field.default_factory else _shown(field.default)
        yield f"{prefix}{name}", default, unit, field.description or ""


def reference() -> str:
    """Gives all settings as a Markdown table."""
    rows = ["| Setting | Default | Unit | What it does |", "|---|---|---|---|"]
    for name, default, unit, description in describe():
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{name}` | {shown} | {unit} | {description.replace('|', '/')} |")
    return "\n".join(rows)


def masked(settings: BaseModel) -> dict[str, Any]:
    """Gives the settings as JSON-able values, secrets as asterisks."""
    shown: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            shown[name] = masked(value)
        elif isinstance(value, SecretStr):
            shown[name] = "********"
        else:
            shown[name] = str(value) if isinstance(value, Path) else value
    return shown


def unknown_environment() -> list[str]:
    """Gives the names in the environment that look like settings of ours and are none."""
    sections = tuple(
        f"{PREFIX}{name.upper()}_"
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    )
    known = NOT_SETTINGS | {PREFIX + "DATA_DIR"}
    return sorted(
        name for name in os.environ if name.startswith(PREFIX) and name not in known and not name.startswith(sections)
    )


class _Environment(EnvSettingsSource):
    """The environment; a list may also be written with commas."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return [part.strip() for part in str(value).split(",")]


def _read(config: Path | None) -> dict[str, Any]:
    path = config
    if path is None and (named := os.environ.get("COHORTD_CONFIG")):
        path = Path(named)
    if path is None:
        directory = os.environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
        path = Path(directory) / "cohortd.toml"
        if not directory or not path.exists():
            return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a TOML file: {error}") from error


def _refusals(error: ValidationError) -> Iterator[str]:
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(str(part) for part in each["loc"]) or "settings"
        message = "there is no such setting" if each["type"] == "extra_forbidden" else each["msg"]
        yield f"{name}: {message.removeprefix('Value error, ')}"


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)
