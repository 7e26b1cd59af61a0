"""The audiences that a filter includes, found before it is compiled."""

from __future__ import annotations

from collections.abc import Callable

from streams.ql.nodes import Include, Node
from streams.ql.tree import walk

#: Audiences that include one another in a chain; a longer chain is not evaluable, like a cycle.
DEEPEST = 100
#: Include statements looked at for one filter.
_MOST = 10_000


class Includes:
    """The trees of all audiences that can be reached from a filter, by their lower-cased names.

    `usable` has those that can be evaluated: known, not on a cycle, not too deep. `shared` are those that
    are included more than once, so that an evaluation works them out once.
    """

    def __init__(self, where: Node, find: Callable[[str], Node | None]) -> None:
        self.trees: dict[str, Node] = {}
        self.names: set[str] = set()
        self.shared: set[str] = set()
        self._uses: dict[str, list[str]] = {}
        self._find = find
        met: set[str] = set()
        pending = self._included_by(where, met)
        while pending and len(self._uses) < _MOST:
            name = pending.pop()
            key = name.lower()
            if key in self._uses:
                continue
            tree = self._find(name)
            if tree is None:
                self._uses[key] = []
                continue
            self.trees[key] = tree
            inner = self._included_by(tree, met)
            self._uses[key] = [each.lower() for each in inner]
            pending.extend(inner)
        heights = self._heights()
        self.usable = {key for key in self.trees if heights.get(key, DEEPEST + 1) <= DEEPEST}

    def in_order(self) -> list[str]:
        """Gives the usable audiences, each after those that it includes."""
        heights = self._heights()
        return sorted(self.usable, key=lambda key: heights[key])

    def _included_by(self, tree: Node, met: set[str]) -> list[str]:
        found = [node.name for node in walk(tree) if isinstance(node, Include)]
        self.names.update(found)
        for name in found:
            key = name.lower()
            if key in met:
                self.shared.add(key)
            met.add(key)
        return found

    def _heights(self) -> dict[str, int]:
        """How long the longest chain below each audience is; those on or above a cycle are left out.

        An audience above a cycle is evaluable all the same: only those on the cycle are not.
        """
        heights: dict[str, int] = {}
        cyclic = self._on_cycles()
        waiting = [key for key in self._uses if key not in cyclic]
        while waiting:
            later = []
            for key in waiting:
                uses = [each for each in self._uses[key] if each not in cyclic and each in self._uses]
                if all(each in heights for each in uses):
                    heights[key] = 1 + max((heights[each] for each in uses), default=0)
                else:
                    later.append(key)
            if len(later) == len(waiting):
                break
            waiting = later
        return heights

    def _on_cycles(self) -> set[str]:
        return {key for key in self._uses if self._reaches(key, key)}

    def _reaches(self, start: str, goal: str) -> bool:
        seen: set[str] = set()
        pending = list(self._uses.get(start, ()))
        while pending:
            key = pending.pop()
            if key == goal:
                return True
            if key not in seen:
                seen.add(key)
                pending.extend(self._uses.get(key, ()))
        return False
