"""What keeps a bad client from merging a user base: values that identify nobody, and how often a key may be stitched.

Some values never are keys: built in (`NOBODY`, zeros and dashes alone, nothing, too long), and those that users add,
for one identity or for all, as texts or as globs. Beyond them a key may be stitched so many times within a window to
keys of a field; the first of the limits that names both fields holds, then that of the field, then the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from streams.ql import glob
from streams.schema import Schema

#: Longest text of a key, in bytes of UTF-8.
KEY_BYTES: Final = 256
#: A text of these alone is none either: zeros in all forms in which ids and addresses are written.
EMPTY: Final = "0-.:_{} "
#: Values that clients send for want of an identity. Compared without case.
NOBODY: Final = frozenset(
    {"null", "nil", "none", "undefined", "nan", "n/a", "(null)", "<null>", "{}", "[]", "[object object]"}
    | {"unknown", "anonymous", "guest", "distinct_id", "distinctid", "not_authenticated", "true", "false"}
    | {"(none)", "<none>", "(not set)", "not set", "not_set", "(undefined)", "''", '""', "\\n"}
)
#: What users may add. Each glob is asked for each key of an event, a text costs nothing.
MOST_GUARDS: Final = 10_000
MOST_GLOBS: Final = 200

#: By the field of a key and the field that it is stitched to: how many stitches within how many microseconds.
Windows: TypeAlias = Mapping[tuple[str, str], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the identity graph; 0 is no limit, but for `keys`.

    `keys`: what one profile can be known by. `stitches` within `window_us`: how often one key may be stitched to keys
    of its own or a stronger field. `compact_keys`: a profile keeps the newest so many. `compact_us`: and those that
    an event has named so recently; keys that came before `since_us`, when compaction began, count as named then.
    """

    keys: int = 50
    stitches: int = 0
    window_us: int = 0
    compact_keys: int = 0
    compact_us: int = 0
    since_us: int = 0

    @property
    def compacting(self) -> bool:
        """Says whether profiles are compacted."""
        return bool(self.compact_keys or self.compact_us)


@dataclass(frozen=True, slots=True)
class ValueGuard:
    """A value that identifies nobody, in `field` or (None) in every identity; compared without case."""

    field: str | None
    value: str
    glob: bool = False


@dataclass(frozen=True, slots=True)
class StitchGuard:
    """How often a key of `field` may be stitched to keys of the field `to` within a window; 0: as often as it likes.

    `to` None: to keys of its own field, and of every stronger one.
    """

    field: str
    to: str | None
    stitches: int
    window_us: int


@dataclass(frozen=True, eq=False)
class Guards:
    """The guards that hold together; empty: what is built in alone."""

    values: Sequence[ValueGuard] = ()
    stitches: Sequence[StitchGuard] = ()
    _windows: dict[tuple[int, Limits], tuple[Schema, Windows]] = field(default_factory=dict)

    def nobody(self, name: str) -> frozenset[str]:
        """Gives the texts, in lower case, that are no keys of an identity."""
        added = {each.value.strip().lower() for each in self._of(name) if not each.glob}
        return NOBODY | added if added else NOBODY

    def has_globs(self, name: str) -> bool:
        """Says whether a text has to be matched with globs too."""
        return any(each.glob for each in self._of(name))

    def unusable(self, name: str) -> Callable[[str], str | None]:
        """Gives the function that says why a text cannot be a key of an identity; see `unusable`."""
        nobody = self.nobody(name)
        tests = tuple(glob.matcher(each.value.strip().lower()) for each in self._of(name) if each.glob)
        if not tests and nobody is NOBODY:
            return unusable

        def judge(text: str) -> str | None:
            reason = unusable(text)
            if reason is not None:
                return reason
            lower = text.lower()
            return "blocked" if lower in nobody or any(test(lower) for test in tests) else None

        return judge

    def windows(self, schema: Schema, limits: Limits) -> Windows:
        """Gives the limits of stitching between the identities of a schema; those without one are left out."""
        # Asked for with every batch, and there are few: kept while the schema is the same object.
        found = self._windows.get((id(schema), limits))
        if found is not None and found[0] is schema:
            return found[1]
        made = dict(self._each_window(schema, limits))
        if len(self._windows) > 16:
            self._windows.clear()
        self._windows[id(schema), limits] = (schema, made)
        return made

    def _each_window(self, schema: Schema, limits: Limits) -> list[tuple[tuple[str, str], tuple[int, int]]]:
        rules = {(each.field.lower(), each.to and each.to.lower()): each for each in self.stitches}
        made = []
        for one in schema.identities:
            for other in schema.identities:
                upward = (other.rank or 0) <= (one.rank or 0)
                rule = rules.get((one.name.lower(), other.name.lower()))
                if rule is None and upward:
                    rule = rules.get((one.name.lower(), None))
                if rule is not None:
                    limit = (rule.stitches, rule.window_us)
                else:
                    limit = (limits.stitches, limits.window_us) if upward else (0, 0)
                if limit[0]:
                    made.append(((one.name, other.name), limit))
        return made

    def _of(self, name: str) -> list[ValueGuard]:
        return [each for each in self.values if each.field is None or each.field.lower() == name.lower()]


NO_GUARDS: Final = Guards()


def unusable(text: str) -> str | None:
    """Says why a text cannot be a key (`blocked`, `too_long`), or None when it can. Blanks around it are gone."""
    if len(text) > KEY_BYTES or (len(text) * 4 > KEY_BYTES and len(text.encode(errors="replace")) > KEY_BYTES):
        return "too_long"
    if text.lower() in NOBODY or (text[0] in EMPTY and not text.strip(EMPTY)):
        return "blocked"
    return None
