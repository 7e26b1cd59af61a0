"""`/v2/identity/guard` and `/v2/entity/…/split`: what keeps people apart, and taking apart what was joined."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from daemon import clock
from daemon.ingest.definitions import Definitions
from daemon.ingest.identity_commands import Split
from daemon.store.guards import GuardRow
from daemon.web import body
from daemon.web.api.entities import found_profile, identity_of
from daemon.web.body import ApiError
from daemon.web.envelope import Reply, endpoint
from daemon.web.services import SERVICES
from streams.guards import MOST_GUARDS, NOBODY
from streams.profile import Profile
from streams.profile_view import output
from streams.ql import glob
from streams.split import SplitError

#: Largest body of guards, in bytes: ten thousand of them.
GUARDS_BYTES = 8_000_000


class Guard(BaseModel):
    """A merge guard: a value that identifies nobody, or how often a key may be stitched."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["value", "stitches"] = "value"
    field: str | None = Field(
        None, min_length=1, max_length=200, description="an identity; a value without it: every identity"
    )
    value: str | None = Field(None, max_length=1024, description="compared without case and blanks around it")
    glob: bool = Field(False, description="`value` is a pattern: `*` any run, `?` one character, `[a-z]` a class")
    to: str | None = Field(
        None, min_length=1, max_length=200, description="stitches to keys of this identity; else its own and stronger"
    )
    stitches: int | None = Field(None, ge=0, le=1_000_000, description="within the window; 0: no limit")
    window_s: float | None = Field(None, gt=0, le=366 * 86_400, description="by the time of arrival, in seconds")
    note: str = Field("", max_length=1000)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.kind == "value":
            self._check_value()
        else:
            if self.field is None or self.stitches is None:
                raise ValueError("stitches: `field` and `stitches` are needed")
            if self.window_s is None and self.stitches:
                raise ValueError("stitches: `window_s` is needed, unless `stitches` is 0 (no limit)")
            if self.value is not None or self.glob:
                raise ValueError("stitches: `value` and `glob` belong to the kind `value`")
        return self

    def _check_value(self) -> None:
        if self.value is None or not self.value.strip():
            raise ValueError("value: a text is needed; nothing and blanks are never keys anyway")
        if self.to is not None or self.stitches is not None or self.window_s is not None:
            raise ValueError("value: `to`, `stitches` and `window_s` belong to the kind `stitches`")
        if self.glob and not glob.well_formed(self.value.strip()):
            raise ValueError(f"value: {self.value!r} is no pattern: a class is not closed, or a backslash ends it")
        if self.glob and not self.value.strip("*%? "):
            raise ValueError(f"value: {self.value!r} would refuse every key; take the identity out of BY instead")


class SplitBody(BaseModel):
    """Which keys go to the new profile."""

    model_config = ConfigDict(extra="forbid")

    keys: list[tuple[str, str]] = Field(min_length=1, max_length=1000, description="`[field, value]` each")
    keep_apart: bool = Field(True, description="events that name keys of both do not stitch them again")
    dry_run: bool = Field(False, description="show both halves, change nothing")


_GUARDS: TypeAdapter[list[Guard]] = TypeAdapter(list[Guard])
_ONE_OR_MANY = {"oneOf": [Guard.model_json_schema(), {"type": "array", "items": Guard.model_json_schema()}]}


def routes() -> list[web.RouteDef]:
    """Gives the routes of merge guards and splits."""
    return [
        web.get("/v2/identity/guard", list_guards),
        web.post("/v2/identity/guard", put_guards),
        web.delete(r"/v2/identity/guard/{id:\d{1,18}}", delete_guard),
        web.post("/v2/entity/{table}/{field}/{value}/split", split_profile),
        web.delete("/v2/entity/{table}/{field}/{value}/split", forget_split),
    ]


@endpoint("read", tag="identity")
async def list_guards(request: web.Request) -> object:
    """Lists the merge guards; `builtin` beside `data` has the values that are never keys, and `default` the limit."""
    services = request.app[SERVICES]
    rows = [_guard(row) for row in services.pipeline.definitions.guard_rows]
    identity = services.settings.identity
    default = {"stitches": identity.stitches, "window_s": identity.stitch_window_s, "keys": identity.keys}
    return Reply(rows, total=len(rows), extra={"builtin": sorted(NOBODY), "default": default})


@endpoint("admin", tag="identity", body={"application/json": _ONE_OR_MANY})
async def put_guards(request: web.Request) -> object:
    """Makes merge guards, one or a list; holds for events from now on. One about the same thing is replaced.

    `owners` beside `data` names profiles that are known by one of the values already: they keep it until they are
    split or erased.
    """
    sent = await body.json(request, most=GUARDS_BYTES)
    many = sent if isinstance(sent, list) else [sent]
    if not many or len(many) > MOST_GUARDS:
        raise ApiError(400, f"expected a merge guard or a list of 1 to {MOST_GUARDS} of them; got {len(many)}")
    drafts = [_row(each) for each in _GUARDS.validate_python(many)]
    change = await request.app[SERVICES].pipeline.put_guards(drafts)
    shown = [_guard(row) for row in change.rows]
    owners = [{"field": name, "value": value, "profile": str(owner)} for name, value, owner in change.owners]
    return Reply(shown if isinstance(sent, list) else shown[0], extra={"owners": owners})


@endpoint("admin", tag="identity")
async def delete_guard(request: web.Request) -> object:
    """Deletes a merge guard; from then on its value can be a key again."""
    await request.app[SERVICES].pipeline.delete_guard(int(request.match_info["id"]))
    return Reply(None, message="deleted")


@endpoint("admin", tag="identity", body={"application/json": SplitBody})
async def split_profile(request: web.Request) -> object:
    """Undoes a stitch: gives keys of the profile to a new one, with the values that their own events made.

    Both halves are evaluated: the profile that stays exits what it does not match any more, the new one enters what it
    does. `notes` says what could not be told apart. With `dry_run` nothing is changed.
    """
    asked = SplitBody.model_validate(await body.json_object(request))
    key, profile = await _key(request)
    keys = [_held(profile, identity_of(request, name), value) for name, value in asked.keys]
    pipeline = request.app[SERVICES].pipeline
    try:
        done = await pipeline.split(key, keys, apart=asked.keep_apart, dry_run=asked.dry_run)
    except SplitError as error:
        raise ApiError(422, str(error), [{"loc": ["keys"], "msg": str(error)}]) from None
    return _split(done, pipeline.definitions, dry_run=asked.dry_run)


@endpoint("admin", tag="identity")
async def forget_split(request: web.Request) -> object:
    """Lets the profile be stitched again with what it was split from, by the next event that names keys of both."""
    key, _ = await _key(request)
    if not await request.app[SERVICES].pipeline.forget_split(key):
        raise ApiError(404, "the profile is not kept apart from any other")
    return Reply(None, message="may be stitched again")


async def _key(request: web.Request) -> tuple[tuple[str, str], Profile]:
    """Gives the key that the path names, as the profile has it, and the profile."""
    field, value = identity_of(request, request.match_info["field"]), request.match_info["value"]
    found = await found_profile(request, [(field, value)])
    return _held(found.profile, field, value), found.profile


def _held(profile: Profile, field: str, value: str) -> tuple[str, str]:
    """Gives a key as the profile has it: exactly so, else without regard to case; what it has not, as it was given."""
    texts = profile.keys.get(field, ())
    if value in texts:
        return field, value
    return field, next((text for text in texts if text.lower() == value.lower()), value)


def _row(guard: Guard) -> GuardRow:
    value = guard.kind == "value"
    return GuardRow(
        id=0,
        kind=guard.kind,
        field=guard.field,
        value=guard.value.strip() if guard.value is not None else None,
        glob=guard.glob,
        to_field=guard.to,
        stitches=None if value else guard.stitches,
        window_us=None if value else round((guard.window_s or 0) * 1_000_000),
        note=guard.note,
        created_us=0,
    )


def _guard(row: GuardRow) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": row.id, "kind": row.kind, "field": row.field}
    if row.kind == "value":
        shown |= {"value": row.value, "glob": row.glob}
    else:
        shown |= {"to": row.to_field, "stitches": row.stitches, "window_s": (row.window_us or 0) / 1_000_000}
    return shown | {"note": row.note, "created": clock.from_us(row.created_us)}


def _split(done: Split, definitions: Definitions, *, dry_run: bool) -> dict[str, Any]:
    def half(profile: Profile, before: int, after: int) -> dict[str, Any]:
        data = output(profile, definitions.schema)
        return {
            "profile": data["_id"],
            "keys": profile.keys,
            "data": data,
            "enters": _slugs(definitions, after & ~before),
            "exits": _slugs(definitions, before & ~after),
        }

    made = half(done.made, 0, done.made_members)
    if dry_run:  # it has no id yet
        made["profile"] = None
        del made["data"]["_id"]
    kept = half(done.kept, done.before, done.kept_members)
    return {"dry_run": dry_run, "kept": kept, "made": made, "notes": done.notes}


def _slugs(definitions: Definitions, members: int) -> list[str]:
    numbers: Iterable[int] = (number for number in definitions.audiences if members >> number & 1)
    return sorted(definitions.audiences[number].slug for number in numbers)
