"""Which field a name means, as far as that is known when a text is compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from streams.ql.kinds import element, is_map
from streams.ql.lookup import parts_of
from streams.ql.nodes import Ident


@dataclass(frozen=True, slots=True)
class Known:
    """A field by its exact name, of a known kind."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a map field, reached by `rest`; `kind` is that of the map's values, None where not known."""

    name: str
    rest: tuple[str, ...]
    kind: str | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A name to be looked up in the data."""

    path: tuple[str, ...]


class Fields:
    """The known fields. Without any, every name is Unknown."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds
        self._lowered: dict[str, str] = {}
        for name in kinds:
            self._lowered.setdefault(name.lower(), name)

    def resolve(self, ident: Ident) -> Known | Entry | Unknown:
        """Finds the field as `lookup` would: exactly, then reached into, then without regard to case."""
        parts = parts_of(ident.path)
        whole = ".".join(parts)
        heads = [(head, rest) for head, rest in _heads(parts) if head in self._kinds]
        if whole in self._kinds:
            # Where both `a.b` and the map `a` exist, the data decides which of them the profile has.
            return Unknown(ident.path) if heads else Known(whole, self._kinds[whole])
        name = self._lowered.get(whole.lower())
        if len(heads) + (name is not None) > 1:
            return Unknown(ident.path)
        if heads:
            return self._entry(*heads[0])
        if name is not None:
            return Known(name, self._kinds[name])
        found = [(self._lowered[head.lower()], rest) for head, rest in _heads(parts) if head.lower() in self._lowered]
        return self._entry(*found[0]) if len(found) == 1 else Unknown(ident.path)

    def names(self, ident: Ident) -> Iterator[str]:
        """Gives the names of all fields that the identifier may read."""
        match self.resolve(ident):
            case Known(name=name) | Entry(name=name):
                yield name
            case Unknown(path=path):
                parts = parts_of(path)
                yield ".".join(parts)
                for head, _rest in _heads(parts):
                    yield head

    def _entry(self, name: str, rest: tuple[str, ...]) -> Entry:
        kind = self._kinds[name]
        return Entry(name, rest, element(kind) if is_map(kind) and len(rest) == 1 else None)


def _heads(parts: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for split in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:split]), parts[split:]
