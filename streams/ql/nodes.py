"""The tree of both languages: expressions, and the two statement heads.

Nodes are plain frozen values; equality ignores where in the text they stood, so that "parse, print, parse is the
same tree" is an equality. Every node carries `at`, the offset in characters of its first token in the source text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal as L  # noqa: N817  (the node called Literal is the one that readers look for)
from typing import TypeAlias

UnaryOp: TypeAlias = L["not", "-"]
BinaryOp: TypeAlias = L[
    "=", "!=", ">", ">=", "<", "<=", "like", "contains", "in", "intersects", "+", "-", "*", "/", "%"
]
GroupOp: TypeAlias = L["and", "or"]

# The value of an option in WITH: a constant, or a list of them.
OptionValue: TypeAlias = "str | int | float | bool | tuple[str | int | float | bool, ...]"


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """A constant: text, int, float, bool, or None for NULL. 1, 1.0 and true are different constants."""

    value: str | int | float | bool | None
    at: int = field(default=0, compare=False)

    def __eq__(self, other: object) -> bool:
        # Python holds 1 == 1.0 == True; a definition in which one replaced the other has changed.
        if not isinstance(other, Literal):
            return NotImplemented
        return type(self.value) is type(other.value) and self.value == other.value

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


@dataclass(frozen=True, slots=True)
class Ident:
    """A field. `path` has one part for `a` and for the bare text `a.b`, two or more for `` `a`.`b.c` ``."""

    path: tuple[str, ...]
    at: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """The whole dotted text, as it is tried first (FACTS 3.2)."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Array:
    """A list of values: `("a", "b")` on the right of IN, or `["a", "b"]`."""

    items: tuple[Node, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Unary:
    """NOT x, or arithmetic minus."""

    op: UnaryOp
    operand: Node
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """A comparison or arithmetic. `==` is parsed as `=`; `x NOT IN y` as Unary("not", Binary("in", x, y))."""

    op: BinaryOp
    left: Node
    right: Node
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Between:
    """`x BETWEEN low AND high`, exclusive at both ends."""

    value: Node
    low: Node
    high: Node
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class IsNull:
    """`x IS NULL`; `IS NOT NULL` is Unary("not", IsNull(x))."""

    value: Node
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Exists:
    """`EXISTS x` (the operator; the function `exists(x)` is a Call, in a filter it is parsed as this)."""

    value: Node
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Include:
    """`INCLUDE name`: another audience by slug, id or name."""

    name: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class MatchAll:
    """`*` or `match_all`."""

    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Group:
    """AND / OR over two or more arguments, left to right; nested groups of the same operator are folded in."""

    op: GroupOp
    items: tuple[Node, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A function call; `name` lower-cased. `cast(x AS int)` is Call("cast", (x, Literal("int")))."""

    name: str
    args: tuple[Node, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Conditional:
    """`X IF cond ELSE Y` inside an expression, and each branch of `ifcase`. Without ELSE, `otherwise` is None."""

    value: Node
    condition: Node
    otherwise: Node | None = None
    at: int = field(default=0, compare=False)


Node: TypeAlias = (
    Literal
    | Ident
    | Array
    | Unary
    | Binary
    | Between
    | IsNull
    | Exists
    | Include
    | MatchAll
    | Group
    | Call
    | Conditional
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A FilterQL statement. `description` is the leading comment's text."""

    where: Node
    table: str = "user"
    limit: int | None = None
    options: tuple[tuple[str, OptionValue], ...] = ()
    alias: str | None = None
    description: str = field(default="", compare=False)  # not printed
    columns: tuple[Column, ...] = ()  # only for SELECT … FROM … FILTER


@dataclass(frozen=True, slots=True)
class Column:
    """One LQL column. `name` is the field it feeds; kind and merge operator as written, None where not."""

    expr: Node
    name: str
    guard: Node | None = None
    kind: str | None = None
    merge_op: str | None = None
    shortdesc: str | None = None
    longdesc: str | None = None
    capacity: int | None = None
    keep_days: int | None = None
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Query:
    """An LQL statement."""

    columns: tuple[Column, ...]
    stream: str
    table: str
    by: tuple[str, ...]
    alias: str
    where: Node | None = None
    options: tuple[tuple[str, OptionValue], ...] = ()
    description: str = field(default="", compare=False)
    by_at: tuple[int, ...] = field(default=(), compare=False)  # where the names of `by` stand
