"""The keys of people who were erased, as keyed hashes: what they keep out, and what a replay leaves out.

A tombstone holds for ever, or up to a position of each lane: what was sent before the erasure and is taken in after
it is kept out in any case. While it holds nobody can have its key. An event whose first key has one is not taken in;
nor is one that would make a new profile and names such a key; to a profile that is there the event goes without it.

A replay (`Foreseen`) knows of erasures before their time: what a person had done before is not there again, and what
the person was to others is what others had of it: a refused stitch.

Who was one with the person until a split cannot be made again from events that are gone. Such a half begins at the
split, as the history has kept it; what it did before is left out like the person's.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, TypeAlias

from streams.mapping import Key, Mapped, Refusal
from streams.person import without_keys
from streams.stitches import Marked, mark

#: Bytes of a hash, and of the key that it is made with.
HASH_BYTES: Final = 16
SALT_BYTES: Final = 32

Lane: TypeAlias = Literal["realtime", "bulk"]
#: The last position of each lane for which a tombstone holds; None: it holds for ever.
Bounds: TypeAlias = Mapping[Lane, int] | None


#: Refused keys of somebody who was erased: the mark (`streams.stitches`) of the home of the contribution that named
#: them, and of each its field, mark and reason.
Noted: TypeAlias = tuple[str, Sequence[tuple[str, str, str]]]


class Screened(NamedTuple):
    """What is left of an event, how many of its contributions were turned away whole, and which keys others lost."""

    mapped: list[Mapped]
    turned_away: int
    cut: frozenset[bytes]


class Tombstones:
    """Those that hold, by hash. False when there are none: then nothing has to be asked."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._bounds: dict[bytes, Bounds] = {}
        self._bounded = 0

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __len__(self) -> int:
        return len(self._bounds)

    @property
    def noted(self) -> Container[tuple[Lane, int]]:
        """The events, by lane and position, that have to be screened whatever keys they have."""
        return ()

    @property
    def all_concerned(self) -> bool:
        """Whether events of people who are known have to be screened too."""
        return self.bounded

    @property
    def bounded(self) -> bool:
        """Whether some hold up to a position only: those keep events of people out who are there again."""
        return self._bounded > 0

    def hash(self, key: Key) -> bytes:
        """Gives the hash that stands for a key."""
        field, value = key
        text = f"{field}\0{value}".encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=HASH_BYTES, key=self._salt).digest()

    def put(self, hashes: Iterable[bytes], bounds: Bounds) -> None:
        """Sets tombstones, in place of those that these keys have."""
        for each in hashes:
            self._bounded += (bounds is not None) - (self._bounds.get(each) is not None)
            self._bounds[each] = bounds

    def passed(self, cursors: Mapping[Lane, int]) -> list[bytes]:
        """Takes those away that hold for no event behind the cursors any more; gives their hashes."""
        if not self._bounded:
            return []
        gone = [
            each
            for each, bounds in self._bounds.items()
            if bounds is not None and all(cursors[lane] >= upto for lane, upto in bounds.items())
        ]
        for each in gone:
            del self._bounds[each]
        self._bounded -= len(gone)
        return gone

    def among(self, keys: Iterable[Key]) -> dict[Key, bytes]:
        """Gives those of some keys that have a tombstone, with their hashes."""
        of = self._bounds
        return {key: each for key in keys if (each := self.hash(key)) in of}

    def holds(self, hashed: bytes, lane: Lane, position: int) -> bool:
        """Says whether the key with this hash has a tombstone for an event."""
        if hashed not in self._bounds:
            return False
        bounds = self._bounds[hashed]
        return bounds is None or position <= bounds[lane]

    def screen(
        self,
        mapped: Sequence[Mapped],
        lane: Lane,
        position: int,
        marks: Mapping[Key, bytes],
        known: Callable[[Key], object | None],
    ) -> Screened:
        """Gives what is left of an event. `marks` are the hashes of its keys as `among` gave them."""
        kept: list[Mapped] = []
        turned_away = 0
        cut: set[bytes] = set()
        for each in mapped:
            gone = {key for key in each.keys if key in marks and self.holds(marks[key], lane, position)}
            if not gone:
                kept.append(each)
            elif each.keys[0] in gone or known(each.keys[0]) is None:
                turned_away += 1
            else:
                kept.append(without_keys(each, gone))
                cut.update(marks[key] for key in gone)
        return Screened(kept, turned_away, frozenset(cut))


class Erased(NamedTuple):
    """An erasure as the history tells it: its place there, its id, and the hashes of the keys."""

    sequence: int
    id: int
    hashes: tuple[bytes, ...]


class Half(NamedTuple):
    """A half of a split as the history has kept it: its keys, its stored text, and what had been taken in by then."""

    keys: tuple[Key, ...]
    body: str
    upto: Mapping[Lane, int]


#: Why others, by their home, were refused the key with a mark in an event of a lane and position, where that is
#: remembered.
Why: TypeAlias = Callable[[Key, str, tuple[Lane, int]], str | None]
#: Of each erasure, by the place in the history of each split that the person came of, the halves that are kept there.
Halves: TypeAlias = Mapping[int, Mapping[int, Sequence[Half]]]


class Foreseen(Tombstones):
    """What a replay knows: the tombstones that hold where it is, and the erasures that are still to come.

    `refused`: of events of others that named the erased, by lane and position and then by erasure: the keys
    that were refused of the contributions to others, in their order. `why` is asked where that is not noted yet.
    """

    def __init__(
        self,
        salt: bytes,
        erasures: Iterable[Erased] = (),
        refused: Mapping[tuple[Lane, int], Mapping[int, Sequence[Noted]]] | None = None,
        halves: Halves | None = None,
        why: Why = lambda *_: None,
    ) -> None:
        super().__init__(salt)
        self._refused = refused or {}
        self._why = why
        #: The marks of keys whose refusals have their reason from what others remember.
        self.unsure: set[str] = set()
        self._ahead: dict[bytes, list[Erased]] = {}
        for erasure in erasures:
            for each in erasure.hashes:
                self._ahead.setdefault(each, []).append(erasure)
        self._known = {erasure.sequence for each in self._ahead.values() for erasure in each}
        self._at = 0
        #: The halves that go on, by split; none where both are erased.
        self._halves: dict[int, dict[str, Half]] = {}
        later: list[tuple[bytes, Erased]] = []
        for number, of_splits in (halves or {}).items():
            for sequence, of_split in of_splits.items():
                going_on = self._halves.setdefault(sequence, {})
                for half in of_split:
                    hashes = [self.hash(key) for key in half.keys]
                    if not any(of.sequence > sequence for its in hashes for of in self._ahead.get(its, ())):
                        going_on[half.body] = half
                        later += [(its, Erased(sequence, number, ())) for its in hashes]
        for hashed, begins in later:
            self._ahead.setdefault(hashed, []).append(begins)

    def going_on(self, sequence: int) -> list[Half] | None:
        """Gives the halves with which a split has to be played; None for one that nobody erased had a part in."""
        halves = self._halves.get(sequence)
        return None if halves is None else list(halves.values())

    def __bool__(self) -> bool:
        return bool(self._bounds or self._ahead or self._refused)

    @property
    def noted(self) -> Container[tuple[Lane, int]]:
        """The events, by lane and position, that have to be screened whatever keys they have."""
        return self._refused

    @property
    def all_concerned(self) -> bool:
        """Whether events of people who are known have to be screened too."""
        return self.bounded or bool(self._refused)

    @property
    def bounded(self) -> bool:
        """Whether some hold up to a position or a split only: those keep events of people out who are there again."""
        return super().bounded or bool(self._halves)

    def foresaw(self, sequence: int) -> bool:
        """Says whether a decision of the history was known as an erasure from the beginning."""
        return sequence in self._known

    def reach(self, sequence: int) -> None:
        """Notes that the replay has come to a decision of the history."""
        self._at = sequence

    def among(self, keys: Iterable[Key]) -> dict[Key, bytes]:
        """Gives those of some keys that have a tombstone or an erasure to come, with their hashes."""
        return {key: each for key in keys if (each := self.hash(key)) in self._bounds or self._coming(each)}

    def screen(
        self,
        mapped: Sequence[Mapped],
        lane: Lane,
        position: int,
        marks: Mapping[Key, bytes],
        known: Callable[[Key], object | None],
    ) -> Screened:
        """Gives what is left of an event, as it was for those who are not erased."""
        screened = super().screen(mapped, lane, position, marks, known)
        noted = {number: list(lists) for number, lists in self._refused.get((lane, position), {}).items()}
        kept: list[Mapped] = []
        for each in screened.mapped:
            coming = {key: self._coming(marks[key]) for key in each.keys if key in marks}
            if coming.get(each.keys[0]):
                continue
            gone = [key for key in each.keys if coming.get(key)]
            home = mark(each.keys[0])
            refused: dict[tuple[str, str], Refusal] = {}
            for lists in noted.values():
                theirs = next((one for one in lists if one[0] == home), None)
                if theirs is not None:
                    lists.remove(theirs)
                    for field, its, reason in theirs[1]:
                        refused[field, its] = Refusal((field, Marked(its)), reason)
            for key in gone:
                if not any(one.id in noted for one in coming[key]):
                    its = mark(key)
                    reason = self._why(each.keys[0], its, (lane, position)) or "conflict"
                    refused.setdefault((key[0], its), Refusal(key, reason))
            one = without_keys(each, gone) if gone else each
            if refused:
                self.unsure.update(its for _, its in refused)
                one = one._replace(refused=(*one.refused, *refused.values()))
            kept.append(one)
        return screened._replace(mapped=kept)

    def _coming(self, hashed: bytes) -> list[Erased]:
        return [each for each in self._ahead.get(hashed, ()) if each.sequence > self._at]
