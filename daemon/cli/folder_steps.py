"""What a folder of definitions wants, and the steps from what a daemon has to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Action = Literal["create", "change", "keep", "delete", "blocked"]
Kind = Literal["guard", "query", "audience", "authorization", "job"]


class FolderError(Exception):
    """A folder that cannot be used; one line a finding, each with its file."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One definition of the folder. `text` is as written; `canonical` is what comparison goes by.

    `raw` is the configuration before variables of the environment were put in.
    """

    kind: Kind
    name: str
    text: str
    canonical: str
    file: str
    body: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)


class Change(NamedTuple):
    """What a step changes of a job or an authorization: a name, and its value before and after."""

    name: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan. `id` is the daemon's id of what is there; `why` explains a step that is blocked, or kept."""

    action: Action
    kind: Kind
    name: str
    before: str = ""
    wanted: Wanted | None = None
    id: str = ""
    why: str = ""
    changes: tuple[Change, ...] = ()
