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
        self._heights = self._measured()
        self.usable = {key for key in self.trees if self._heights.get(key, DEEPEST + 1) <= DEEPEST}

    def in_order(self) -> list[str]:
        """Gives the usable audiences, each after those that it includes."""
        return sorted(self.usable, key=lambda key: self._heights[key])

    def _included_by(self, tree: Node, met: set[str]) -> list[str]:
        found = [node.name for node in walk(tree) if isinstance(node, Include)]
        self.names.update(found)
        for name in found:
            key = name.lower()
            if key in met:
                self.shared.add(key)
            met.add(key)
        return found

    def _measured(self) -> dict[str, int]:
        """How long the longest chain below each audience is; those on a cycle are left out.

        An audience above a cycle is evaluable all the same: only those on the cycle are not. One pass (Tarjan's), as
        the audiences may include one another in any way.
        """
        heights: dict[str, int] = {}
        order: dict[str, int] = {}  # when each was met, and the earliest that is reached from it and not yet settled
        reaches: dict[str, int] = {}
        unsettled: list[str] = []
        waiting: set[str] = set()
        for start in self._uses:
            if start in order:
                continue
            path = [(start, iter(self._uses[start]))]
            while path:
                key, rest = path[-1]
                if key not in order:
                    order[key] = reaches[key] = len(order)
                    unsettled.append(key)
                    waiting.add(key)
                for each in rest:
                    if each not in self._uses:
                        continue
                    if each not in order:
                        path.append((each, iter(self._uses[each])))
                        break
                    if each in waiting:
                        reaches[key] = min(reaches[key], order[each])
                else:
                    path.pop()
                    if path:
                        above = path[-1][0]
                        reaches[above] = min(reaches[above], reaches[key])
                    if reaches[key] == order[key]:
                        place = unsettled.index(key) if unsettled[-1] != key else len(unsettled) - 1
                        settled = unsettled[place:]
                        del unsettled[place:]
                        waiting.difference_update(settled)
                        if len(settled) == 1 and key not in self._uses[key]:
                            heights[key] = 1 + max((heights.get(each, 0) for each in self._uses[key]), default=0)
        return heights
