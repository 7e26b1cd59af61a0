"""Which profile an event belongs to, and which profiles it shows to be one person.

The graph is kept as profiles that own keys. An event's keys are taken in order of rank; the first is its home. Keys
that nobody owns are attached; profiles that other keys lead to are united with the first, the one that was created
first survives. What would give a profile two values of a single-valued identity, or too many keys, is refused key by
key: the event stays with the higher-ranked keys, and the refused key's own contribution is dropped.

The result depends on the order of events, on nothing else: the same order gives the same graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from streams import stitches
from streams.fragments import CREATED
from streams.guards import Limits, Windows
from streams.mapping import Key, Mapped, Refusal
from streams.merge import Value
from streams.profile import Profile
from streams.schema import Schema

DEFAULT_LIMITS: Final = Limits()
_NO_WINDOWS: Final[Windows] = {}


class Resolution(NamedTuple):
    """Where an event goes. `Profile.apply` carries it out in memory; the identity rows are the caller's.

    `keys` are the event's accepted keys, its home first; `attach` those of them that are new. `absorb` are the
    profiles that end in `profile`: all their keys are then its keys. `values` are the contributions that are left.
    `joins` are the stitches that a limit counts.
    """

    profile: Profile
    keys: tuple[Key, ...]
    attach: tuple[Key, ...]
    absorb: tuple[Profile, ...]
    refused: tuple[Refusal, ...]
    values: list[tuple[str, Value]]
    joins: stitches.Joins | None = None


def resolve(
    schema: Schema,
    mapped: Mapped,
    owner: Callable[[Key], Profile | None],
    create: Callable[[], Profile],
    *,
    limits: Limits = DEFAULT_LIMITS,
    windows: Windows = _NO_WINDOWS,
    at_us: int = 0,
) -> Resolution:
    """Finds the profile of an event. `owner` gives the profile that has a key, `create` a new one with the next id.

    Changes nothing. The first key is never refused, so every event with a key has a profile. `windows` limits how
    often keys may be stitched (`Guards.windows`), `at_us` is when the event was received.
    """
    keys, values, refused = mapped
    profile = owner(keys[0])
    if len(keys) == 1:
        if profile is None:
            return Resolution(create(), keys, keys, (), refused, values)
        return Resolution(profile, keys, (), (), refused, values)
    if profile is not None:
        for key in keys[1:]:
            if owner(key) is not profile:
                break
        else:
            return Resolution(profile, keys, (), (), refused, values)
    return _unite(schema, mapped, owner, create, limits, windows, at_us)


def _unite(
    schema: Schema,
    mapped: Mapped,
    owner: Callable[[Key], Profile | None],
    create: Callable[[], Profile],
    limits: Limits,
    windows: Windows,
    at_us: int,
) -> Resolution:
    """Goes through the keys by rank, and takes each that fits to what is united so far."""
    singles = schema.singles
    members: list[Profile] = []
    accepted: list[tuple[Key, Profile | None]] = []
    joins: dict[tuple[str, str, str], None] = {}
    attach: list[Key] = []
    refused = list(mapped.refused)
    held: dict[str, str] = {}  # the single values of what is united so far
    count = 0
    for key in stitches.coolest_first(mapped.keys, owner, windows, at_us) if windows else mapped.keys:
        name, text = key
        other = owner(key)
        if other is not None and any(other is member for member in members):
            accepted.append((key, other))
            continue
        theirs = {name: text} if name in singles else {}
        added = 1
        if other is not None:
            theirs = {each: texts[0] for each, texts in other.keys.items() if each in singles and texts}
            added = other.key_count()
        if any(held.get(each, value) != value for each, value in theirs.items()):
            refused.append(Refusal(key, "conflict"))
            continue
        if accepted and count + added > limits.keys:
            refused.append(Refusal(key, "limit"))
            continue
        if accepted and (reason := stitches.barred(key, other, accepted, windows, at_us)) is not None:
            refused.append(Refusal(key, reason))
            continue
        if accepted and windows:
            stitches.count_joins(key, other, accepted, windows, joins)
        held |= theirs
        count += added
        accepted.append((key, other))
        if other is None:
            attach.append(key)
        else:
            members.append(other)
    profile = min(members, key=_age, default=None) or create()
    return Resolution(
        profile=profile,
        keys=tuple(key for key, _ in accepted),
        attach=tuple(attach),
        absorb=tuple(sorted((member for member in members if member is not profile), key=_age)),
        refused=tuple(refused),
        values=_without(mapped.values, refused),
        joins=stitches.Joins((*joins,), at_us - max(each[1] for each in windows.values())) if joins else None,
    )


def _age(profile: Profile) -> tuple[int, bool, int, Key]:
    """What makes of two profiles the older one, the same in a replay without the erased.

    Ids keep their order there, but for halves of splits.
    """
    half = bool(stitches.origins(profile))
    return profile.meta[CREATED], half, 0 if half else profile.id, profile.home or ("", "")


def _without(values: list[tuple[str, Value]], refused: list[Refusal]) -> list[tuple[str, Value]]:
    """Takes the texts of refused keys out of the contributions to identities of several values."""
    if not refused:
        return values
    gone = {refusal.key for refusal in refused}
    names = {name for name, _ in gone}
    left: list[tuple[str, Value]] = []
    for name, value in values:
        if name in names and isinstance(value, list):
            texts = [text for text in value if (name, text) not in gone]
            if texts:
                left.append((name, texts))
        else:
            left.append((name, value))
    return left
