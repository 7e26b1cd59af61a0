"""What a profile remembers of stitches: those refused, how often its keys were stitched lately, what it was split from.

It stands in the profile's body, so that it is as durable as the profile and comes out the same in a replay:

| Key | Holds |
|---|---|
| `r` | refused keys: `{"n": {reason: times}, "l": [[reason, field, mark, lane, position, received_us, times], …]}` |
| `w` | stitches that a limit counts: `[[field, value, to field, received_us], …]`, as long as a window may ask |
| `x` | kept apart: `[[us of the split, [mark of a key of the other half, …]], …]` |
| `o` | us of all splits, kept apart or not, of which it or what it has taken in is a half |
| `t` | while profiles are compacted: `{field: {value: day on which an event last named it}}` |
| `d` | the day for which ages were looked at |
| `c` | keys given up by compaction: `[how many, us of the last time]` |

A key of somebody else stands as a mark, a hash: what is erased of a person is not readable here. The event that a
refusal names tells the value, for as long as the log has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from streams.guards import Windows

if TYPE_CHECKING:
    from streams.mapping import Key, Refusal
    from streams.profile import Position, Profile

#: JSON-able, see above.
Memory: TypeAlias = dict[str, Any]

#: Refusals that a profile remembers with their events, and splits that it remembers.
MOST_REFUSALS: Final = 20
MOST_SPLITS: Final = 20
#: Splits of which it is known that a profile comes of them.
MOST_ORIGINS: Final = 200
#: The reasons that count as a refused stitch: the key was usable, and would have led to somebody else.
CONFLICTS: Final = frozenset({"conflict", "limit", "window", "split"})


class Joins(NamedTuple):
    """The stitches of one event that a limit counts: (field, value, to field) each; older than `floor_us` may go."""

    each: tuple[tuple[str, str, str], ...]
    floor_us: int


class Marked(str):
    """Stands for a key's value where only its mark is known: the person was erased."""

    __slots__ = ()


@lru_cache(maxsize=4096)  # what is refused again and again is of few values
def mark(key: Key) -> str:
    """Gives what a key of somebody else is remembered by."""
    if isinstance(key[1], Marked):
        return str(key[1])
    return blake2b(f"{key[0]}\0{key[1]}".encode(errors="replace"), digest_size=8).hexdigest()


# --- before a stitch


def coolest_first(
    keys: Sequence[Key], owner: Callable[[Key], Profile | None], windows: Windows, at_us: int
) -> Sequence[Key]:
    """Puts keys that have no stitch left behind the others of their field, so that the event goes to those.

    A value that a bad client puts into everybody's list is then not the home of everybody's events.
    """
    before = ""
    for name, _ in keys:  # they stand by rank, so those of a field stand together
        if name == before:
            break
        before = name
    else:
        return keys
    hot = {key for key in keys if (key[0], key[0]) in windows and _spent(owner(key), key, key[0], windows, at_us)}
    if not hot:
        return keys
    fields = [name for name, _ in keys]
    return sorted(keys, key=lambda key: (fields.index(key[0]), key in hot))


def barred(
    key: Key,
    other: Profile | None,
    accepted: Sequence[tuple[Key, Profile | None]],
    windows: Windows,
    at_us: int,
) -> str | None:
    """Says why a key must not be stitched to those of its event that were accepted: `split`, `window`, or None.

    `other` owns the key; with each accepted key stands its owner, None where it is new.
    """
    remembered = other is not None and other.memory is not None
    if remembered and _apart(key, other, accepted):
        return "split"
    for theirs, holder in accepted:
        if remembered and _spent(other, key, theirs[0], windows, at_us):
            return "window"
        if holder is not None and holder.memory is not None and _spent(holder, theirs, key[0], windows, at_us):
            return "window"
    return None


def count_joins(
    key: Key,
    other: Profile | None,
    accepted: Sequence[tuple[Key, Profile | None]],
    windows: Windows,
    joins: dict[tuple[str, str, str], None],
) -> None:
    """Notes in `joins` the stitches that a limit counts when a key is accepted beside those.

    Only where somebody was known before: an event that makes a profile counts nothing.
    """
    name, text = key
    for (their_name, their_text), holder in accepted:
        if other is None and holder is None:
            continue
        if (name, their_name) in windows:
            joins[name, text, their_name] = None
        if (their_name, name) in windows:
            joins[their_name, their_text, name] = None


def _spent(profile: Profile | None, key: Key, to: str, windows: Windows, at_us: int) -> bool:
    """Says whether a key has been stitched to keys of a field as often as its window allows."""
    if profile is None or profile.memory is None or (rule := windows.get((key[0], to))) is None:
        return False
    most, window_us = rule
    since_us = at_us - window_us
    made = profile.memory.get("w")
    if made is None:
        return False
    mine, text = key
    for name, of_text, of, us in made:
        if us > since_us and name == mine and of_text == text and of == to:
            most -= 1
    return most <= 0


def _apart(key: Key, other: Profile | None, accepted: Sequence[tuple[Key, Profile | None]]) -> bool:
    """Says whether a split holds between the owner of a key and that of an accepted one: both remember it."""
    theirs = _splits(other)
    for each, holder in accepted if theirs else ():
        for at_us, marks in _splits(holder):
            for their_us, their_marks in theirs:
                if at_us == their_us and (mark(key) in marks or mark(each) in their_marks):
                    return True
    return False


def _splits(profile: Profile | None) -> Sequence[tuple[int, Sequence[str]]]:
    return () if profile is None or profile.memory is None else profile.memory.get("x", ())


# --- after it


def note_refusals(profile: Profile, refused: Iterable[Refusal], position: Position, received_us: int) -> int:
    """Remembers refused keys, the newest twenty of them; returns how many count as refused stitches."""
    memory = profile.memory
    if memory is None:
        memory = profile.memory = {}
    kept = memory.get("r")
    if kept is None:
        kept = memory["r"] = {"n": {}, "l": []}
    counts, rows = kept["n"], kept["l"]
    conflicts = 0
    for key, reason in refused:
        conflicts += reason in CONFLICTS
        counts[reason] = counts.get(reason, 0) + 1
        which = mark(key)
        for place in range(len(rows) - 1, -1, -1):
            row = rows[place]
            if row[2] == which and row[0] == reason:
                row[3], row[4] = position
                row[5] = received_us
                row[6] += 1
                if place < len(rows) - 1:
                    rows.append(rows.pop(place))
                break
        else:
            rows.append([reason, key[0], which, *position, received_us, 1])
            if len(rows) > MOST_REFUSALS:
                del rows[0]
    return conflicts


def why(memory: Memory | None, which: str, position: Position) -> str | None:
    """Gives the reason for which the key with this mark was refused in an event, as far as it is remembered."""
    rows = [row for row in ((memory or {}).get("r") or {"l": ()})["l"] if row[2] == which]
    lane, number = position
    reason: str | None = next((row[0] for row in rows if row[3] == lane and row[4] >= number), None)
    if reason or rows:
        return reason or str(rows[-1][0])
    apart = (memory or {}).get("x", ())  # the refusal itself may stand in another half by now
    return "split" if any(which in marks for _, marks in apart) else None


def note_joins(profile: Profile, joins: Joins, received_us: int) -> None:
    """Counts stitches of the profile's keys."""
    memory = _memory(profile)
    kept = [row for row in memory.get("w", ()) if row[3] > joins.floor_us]
    memory["w"] = [*kept, *([*each, received_us] for each in joins.each)]


def note_split(profile: Profile, keys: Iterable[Key], at_us: int) -> None:
    """Remembers that the profile was split from those keys, which are not to be stitched to it again."""
    memory = _memory(profile)
    memory["x"] = [*memory.get("x", ()), [at_us, [*map(mark, keys)]]][-MOST_SPLITS:]
    profile.remember(memory)


def note_origin(profile: Profile, at_us: int) -> None:
    """Remembers for good that the profile is a half of a split."""
    memory = _memory(profile)
    memory["o"] = [*memory.get("o", ()), at_us][-MOST_ORIGINS:]
    profile.remember(memory)


def origins(profile: Profile) -> list[int]:
    """Gives the times, in microseconds since the epoch, of the splits that the profile comes of, in order."""
    memory = profile.memory or {}
    return sorted({*memory.get("o", ()), *(each[0] for each in memory.get("x", ()))})


def forget_split(profile: Profile) -> bool:
    """Lets the profile be stitched again with whatever it was split from; says whether there was anything."""
    profile.values.pop("_split", None)
    memory = profile.memory
    if memory is None or memory.pop("x", None) is None:
        return False
    profile.remember(memory or None)
    return True


def _memory(profile: Profile) -> Memory:
    if profile.memory is None:
        profile.memory = {}
    return profile.memory


def forget_keys(profile: Profile, keys: Collection[Key]) -> None:
    """Forgets what is counted of keys that the profile gives up: what it remembers must not grow with all that came."""
    memory = profile.memory
    if memory is None:
        return
    if "w" in memory:
        memory["w"] = [row for row in memory["w"] if (row[0], row[1]) not in keys]
    for name, text in keys if "t" in memory else ():
        memory["t"].get(name, {}).pop(text, None)


def united(one: Memory | None, other: Memory | None) -> Memory | None:
    """Gives what a stitched profile remembers; `one` and `other` are used up."""
    if not one or not other:
        return one or other
    if "r" in other:
        mine = one.setdefault("r", {"n": {}, "l": []})
        for reason, times in other["r"]["n"].items():
            mine["n"][reason] = mine["n"].get(reason, 0) + times
        mine["l"] = sorted([*mine["l"], *other["r"]["l"]], key=lambda row: row[5])[-MOST_REFUSALS:]
    if "w" in other:
        one["w"] = sorted([*one.get("w", ()), *other["w"]], key=lambda row: row[3])
    if "x" in other:
        one["x"] = sorted([*one.get("x", ()), *other["x"]])[-MOST_SPLITS:]
    if "o" in other:
        one["o"] = sorted({*one.get("o", ()), *other["o"]})[-MOST_ORIGINS:]
    for name, times in other.get("t", {}).items():
        seen = one.setdefault("t", {}).setdefault(name, {})
        for text, day in times.items():
            seen[text] = max(day, seen.get(text, day))
    if "d" in other:
        one["d"] = min(one.get("d", other["d"]), other["d"])
    if "c" in other:
        count, us = one.get("c", (0, 0))
        one["c"] = [count + other["c"][0], max(us, other["c"][1])]
    return one


def divided(memory: Memory | None, keys: Collection[Key]) -> tuple[Memory | None, Memory | None]:
    """Gives what stays with a profile and what goes with `keys` when it is split; refusals and the like stay."""
    if memory is None:
        return None, None
    stays: Memory = dict(memory)
    goes: Memory = {}
    if "w" in memory:
        stays["w"] = [row for row in memory["w"] if (row[0], row[1]) not in keys]
        goes["w"] = [row for row in memory["w"] if (row[0], row[1]) in keys]
    if "t" in memory:
        stays["t"], goes["t"] = {}, {}
        for name, times in memory["t"].items():
            for text, day in times.items():
                side = goes if (name, text) in keys else stays
                side["t"].setdefault(name, {})[text] = day
    for name in ("x", "o"):
        if name in memory:
            goes[name] = list(memory[name])
    return _filled(stays), _filled(goes)


def _filled(memory: Memory) -> Memory | None:
    return {name: value for name, value in memory.items() if value} or None
