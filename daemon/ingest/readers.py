"""Which audiences read which fields, by themselves or through what they include."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from daemon.ingest.definitions import Audience, Definitions
from streams.profile_view import fields_read
from streams.ql.nodes import Ident, Include, Node
from streams.ql.tree import walk
from streams.schema import Schema


@dataclass(frozen=True, slots=True)
class Reader:
    """An audience that reads a field; `via`: the slugs of the included audiences that do, when it does not itself."""

    number: int
    via: tuple[str, ...] = ()


class Readers:
    """The audiences of one snapshot, asked by the fields of any schema."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._names: dict[int, frozenset[str]] = {}
        self._inner: dict[int, frozenset[int]] = {}
        for number, each in definitions.audiences.items():
            if each.filter is None or each.compiled is None:
                continue
            self._names[number] = frozenset(_names(each.filter.where))
            included = (definitions.audience(name) for name in each.compiled.includes)
            self._inner[number] = frozenset(one.number for one in included if one is not None and one is not each)

    def of(self, schema: Schema, wanted: Iterable[str]) -> dict[str, list[Reader]]:
        """Gives the audiences that read each of the wanted fields, in the order of their making."""
        found: dict[str, list[Reader]] = {name: [] for name in wanted}
        own = {number: fields_read(schema, names) & found.keys() for number, names in self._names.items()}
        for number in sorted(own):
            through: dict[str, list[str]] = {}
            for inner in sorted(self._inner[number] & own.keys()):
                for name in own[inner] - own[number]:
                    through.setdefault(name, []).append(self._definitions.audiences[inner].slug)
            for name in own[number]:
                found[name].append(Reader(number))
            for name, slugs in through.items():
                found[name].append(Reader(number, tuple(sorted(slugs))))
        return found

    def including(self, number: int) -> list[int]:
        """Gives the audiences that include one, directly or through others."""
        return sorted(each for each, inner in self._inner.items() if number in inner)


def merged(one: Mapping[str, list[Reader]], other: Mapping[str, list[Reader]]) -> dict[str, list[Reader]]:
    """Gives who reads each field on either side; who reads it by itself on one side is told so."""
    result: dict[str, list[Reader]] = {}
    for name in {**one, **other}:
        by_number: dict[int, Reader] = {}
        for each in (*one.get(name, ()), *other.get(name, ())):
            known = by_number.get(each.number)
            if known is None or (known.via and not each.via):
                by_number[each.number] = each
        result[name] = [by_number[number] for number in sorted(by_number)]
    return result


def filter_reads(audience: Audience) -> frozenset[str]:
    """Gives the names that an audience's own text reads."""
    return frozenset() if audience.filter is None else frozenset(_names(audience.filter.where))


def filter_includes(audience: Audience) -> list[str]:
    """Gives the names that an audience's own text includes, in their order."""
    if audience.filter is None:
        return []
    return list(dict.fromkeys(each.name for each in walk(audience.filter.where) if isinstance(each, Include)))


def _names(where: Node) -> Iterable[str]:
    return (".".join(each.path) for each in walk(where) if isinstance(each, Ident))
