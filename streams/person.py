"""One person's part in events: which events made a profile, what of them is others', and how to take it out.

An event belongs to the profile that owns its home, the first of its keys: the home is never refused, and keys move
only together. So "whose event was this" needs no more than the event, the queries as they were, and the keys that the
person is known by. Where several queries map one event it may belong to several people.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from streams.mapping import Key, Mapped, Mapper
from streams.profile import Profile

#: Whether a key is one of the person's.
IsTheirs: TypeAlias = Callable[[Key], bool]
#: Where a value stands in an event's body: names of objects and places in lists.
Path: TypeAlias = tuple[str | int, ...]

#: Shorter texts, and shorter ones of digits alone, say nothing where no query says what they mean.
DISTINCT_CHARACTERS = 6
DISTINCT_DIGITS = 9


class Share(NamedTuple):
    """What an event contributes to the person, and what to others; both in the order of the queries."""

    own: tuple[Mapped, ...]
    others: tuple[Mapped, ...]


def keys_of(profile: Profile) -> list[Key]:
    """Gives every key that a profile is known by, the former ones that its fragments and links remember too.

    A former key (pushed out by a capacity) may have another owner by now: only the first `len(profile.all_keys())` are
    certainly the profile's.
    """
    keys = dict.fromkeys(profile.all_keys())
    if profile.home is not None:
        keys.setdefault(profile.home)
    keys.update(dict.fromkeys(profile.parts or ()))
    for one, two, three, four, *_ in profile.edges or ():
        keys.setdefault((one, two))
        keys.setdefault((three, four))
    return list(keys)


def share(mapped: Iterable[Mapped], theirs: IsTheirs) -> Share:
    """Divides what an event contributes by whose it is."""
    own: list[Mapped] = []
    others: list[Mapped] = []
    for each in mapped:
        (own if theirs(each.keys[0]) else others).append(each)
    return Share(tuple(own), tuple(others))


def names(mapped: Iterable[Mapped], theirs: IsTheirs) -> bool:
    """Says whether contributions to others name one of the person's keys (a refused stitch)."""
    return any(theirs(key) for each in mapped for key in each.keys)


class Texts:
    """The person's identity values as plain text, for events that no query says anything about.

    An event names the person where a string or a number in it equals, but for case and surrounding blanks, a value
    that is distinct (6 characters or more, of digits alone 9), or any value where the event's own field has the name
    of the identity.
    """

    def __init__(self, keys: Collection[Key]) -> None:
        self._by_field: dict[str, set[str]] = {}
        for field, text in keys:
            self._by_field.setdefault(field.lower(), set()).add(text.strip().lower())
        #: Those that say who it is wherever they stand.
        self.distinct = frozenset(
            text
            for texts in self._by_field.values()
            for text in texts
            if len(text) >= DISTINCT_DIGITS or (len(text) >= DISTINCT_CHARACTERS and not text.isdigit())
        )

    def within(self, body: object, field: str = "") -> bool:
        """Says whether an event's body names the person."""
        if isinstance(body, str):
            text = body.strip().lower()
            return text in self.distinct or text in self._by_field.get(field, ())
        if isinstance(body, dict):
            return any(self.within(each, name.lower()) for name, each in body.items())
        if isinstance(body, list):
            return any(self.within(each, field) for each in body)
        if isinstance(body, int) and not isinstance(body, bool):
            text = str(body)
            return text in self.distinct or text in self._by_field.get(field, ())
        return False

    def within_text(self, text: str) -> bool:
        """Says whether a piece of text has one of the distinct values somewhere in it."""
        lowered = text.lower()
        return any(each in lowered for each in self.distinct)


class Stand(NamedTuple):
    """What an event contributed when it was taken in, and what it would now that queries have changed."""

    then: tuple[Mapped, ...]
    now: tuple[Mapped, ...]


class Eye:
    """Sees events as ingest saw them, and as it would see them now.

    `then` maps as the queries were, `now` those streams whose queries are others by now (None: none are).
    """

    __slots__ = ("_now", "_then", "streams")

    def __init__(self, then: Mapper, now: Mapper | None) -> None:
        self._then = then
        self._now = now
        #: The streams that either of them reads.
        self.streams = then.streams | (now.streams if now is not None else frozenset())

    def see(self, stream: str, body: dict[str, Any], event_us: int, event_id: str | None, received_us: int) -> Stand:
        """Maps an event."""
        now = self._now
        return Stand(
            tuple(self._then.map(stream, body, event_us, event_id, received_us)),
            () if now is None else tuple(now.map(stream, body, event_us, event_id, received_us)),
        )


def cut(body: dict[str, Any], look: Callable[[dict[str, Any]], Stand], theirs: IsTheirs) -> dict[str, Any]:
    """Gives an event that others have a part in without what is the person's alone.

    Of an event that is theirs too, all goes that nothing of the others' is made of. Of an event of others that only
    names the person, the values go that are their keys. What the others' contributions are made of stays in any case.
    """
    before = look(body)
    kept = _others(before, theirs)
    whole = any(theirs(each.keys[0]) for mapped in before for each in mapped)
    named = _named(before, theirs)
    # What goes first may be what held something else in its place: until nothing more goes.
    while True:
        gone = False
        for path in list(_leaves(body)):
            trial = _without(body, path)
            seen = look(trial)
            if _others(seen, theirs) != kept:
                continue
            left = _named(seen, theirs)
            if whole or left < named:
                body, named, gone = trial, left, True
        if not gone:
            return body


def without_keys(mapped: Mapped, gone: Collection[Key]) -> Mapped:
    """Gives a contribution without some of its keys (never its home), and without their texts among its values."""
    fields = {field for field, _ in gone}
    values = []
    for name, value in mapped.values:
        if name in fields and isinstance(value, list):
            left = [text for text in value if (name, text) not in gone]
            if left:
                values.append((name, left))
        else:
            values.append((name, value))
    return Mapped(tuple(key for key in mapped.keys if key not in gone), values, mapped.refused)


def _others(stand: Stand, theirs: IsTheirs) -> list[list[Mapped]]:
    """What others get of an event, without the keys that are the person's."""
    result = []
    for mapped in stand:
        part = []
        for each in mapped:
            if theirs(each.keys[0]):
                continue
            gone = {key for key in each.keys if theirs(key)}
            part.append(without_keys(each, gone) if gone else each)
        result.append(part)
    return result


def _named(stand: Stand, theirs: IsTheirs) -> int:
    return sum(theirs(key) for mapped in stand for each in mapped for key in each.keys)


def _leaves(value: object, path: Path = ()) -> Iterator[Path]:
    """Gives the places of all values within a body that are neither objects nor lists with something in them."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _leaves(each, (*path, name))
    elif isinstance(value, list) and value:
        for place, each in enumerate(value):
            yield from _leaves(each, (*path, place))
    elif path and value is not None:
        yield path


def _without(body: dict[str, Any], path: Path) -> dict[str, Any]:
    """Gives a copy without the value at a place: of an object the member goes, in a list null stands there."""
    copy = dict(body)
    at: Any = copy
    for step in path[:-1]:
        at[step] = at[step].copy()
        at = at[step]
    if isinstance(at, dict):
        del at[path[-1]]
    else:
        at[path[-1]] = None
    return copy
