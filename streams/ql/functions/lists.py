"""Lists and maps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from streams.ql.coerce import texts, to_date, to_int, to_text
from streams.ql.functions.registry import EXAMPLE_NOW, example, function
from streams.ql.glob import matches
from streams.ql.missing import MISSING, Missing, Value, is_nil


@function(
    "len",
    "char_length",
    returns="int",
    examples=[
        example("abc", gives=3),
        example("né", gives=3),
        example(["5", "6"], gives=2),
        example({"a": 1}, gives=1),
        example(10, gives=0),
        example(None, gives=MISSING),
    ],
)
def len_(x: Value) -> int | Missing:
    """Gives the number of bytes of text, of elements of a list or map; 0 for other values."""
    if x is None or x is MISSING:
        return MISSING
    if isinstance(x, str):
        return len(x.encode("utf-8", "surrogatepass"))
    if isinstance(x, list | dict):
        return len(x)
    return 0


@function(
    "array.index",
    examples=[
        example(["a", "b", "c"], 1, gives="b"),
        example(["a", "b", "c"], -1, gives="c"),
        example(["a"], 6, gives=MISSING),
        example("", 6, gives=MISSING),
    ],
)
def array_index(x: Value, place: Value) -> Value:
    """Gives the element at a place, counted from 0, or from the end when negative."""
    at = to_int(place)
    if not isinstance(x, list) or isinstance(at, Missing):
        return MISSING
    return x[at] if -len(x) <= at < len(x) else MISSING


@function(
    "array.slice",
    examples=[
        example(["a", "b", "c", "d"], 2, gives=["c", "d"]),
        example(["a", "b", "c", "d"], 1, 3, gives=["b", "c"]),
        example(["a", "b", "c", "d"], -3, -1, gives=["b", "c"]),
        example(["a", "b", "c", "d"], 1, 7, gives=MISSING),
    ],
)
def array_slice(x: Value, start: Value, end: Value = MISSING) -> list[Value] | Missing:
    """Gives the elements from `start` up to but without `end`, counted from the end when negative.

    Not ok outside the list.
    """
    low = to_int(start)
    if not isinstance(x, list) or not x or isinstance(low, Missing):
        return MISSING
    high = len(x) if end is MISSING else to_int(end)
    if isinstance(high, Missing):
        return MISSING
    low += len(x) if low < 0 else 0
    high += len(x) if high < 0 else 0
    return x[low:high] if 0 <= low < len(x) and low <= high <= len(x) else MISSING


@function(
    "map",
    examples=[
        example("hello", 22, gives={"hello": 22}),
        example("", 6, gives=MISSING),
        example("key", "", gives=MISSING),
    ],
)
def map_(key: Value, value: Value) -> dict[str, Value] | Missing:
    """Gives a map of one entry; not ok when key or value is nothing."""
    text = to_text(key)
    if is_nil(key) or is_nil(value) or isinstance(text, Missing):
        return MISSING
    return {text: value}


@function(
    "maptime",
    returns="map[string]time",
    examples=[
        example("Hello", gives={"hello": EXAMPLE_NOW}),
        example("hello", EXAMPLE_NOW, gives={"hello": EXAMPLE_NOW}),
        example("key", "not_a_date", gives=MISSING),
        example("", gives=MISSING),
    ],
)
def maptime(now: datetime, key: Value, moment: Value = MISSING) -> dict[str, datetime] | Missing:
    """Gives a map of one entry, the key in lower case, the event's time or the given one."""
    text = to_text(key)
    if is_nil(key) or isinstance(text, Missing):
        return MISSING
    at = now if moment is MISSING else to_date(moment)
    return at if isinstance(at, Missing) else {text.lower(): at}


@function(
    "match",
    examples=[
        example("score_", gives={"amount": "22"}, event={"score_amount": "22", "tag_name": "bob"}),
        example(
            "score_", "tag_", gives={"amount": "22", "name": "bob"}, event={"score_amount": "22", "tag_name": "bob"}
        ),
        example("tag.", gives={"a": 1}, event={"tag": {"a": 1}}),
        example("none_", gives=MISSING, event={"tag_name": "bob"}),
    ],
)
def match(event: Mapping[str, Value], prefix: Value, *more: Value) -> dict[str, Value] | Missing:
    """Gives all keys of the event that begin with a prefix, with the prefix taken off.

    A key that is the prefix itself is left out; not ok when nothing is found. Nested objects count by their
    dotted keys.
    """
    out: dict[str, Value] = {}
    prefixes = [each for each in (prefix, *more) if isinstance(each, str) and each]
    for key, value in event.items():
        if value is None:
            continue
        for each in prefixes:
            if key.startswith(each):
                if len(key) > len(each):
                    out[key[len(each) :]] = value
            elif isinstance(value, dict) and each.startswith(key + "."):
                inner = match(value, each[len(key) + 1 :]) if len(each) > len(key) + 1 else _flat(value)
                if not isinstance(inner, Missing):
                    out.update(inner)
    return out or MISSING


@function(
    "mapkeys",
    returns="[]string",
    examples=[example({"a": 1, "b": 2}, gives=["a", "b"]), example("x", gives=MISSING)],
)
def mapkeys(x: Value, *more: Value) -> list[str] | Missing:
    """Gives the keys of one map or of several, each once."""
    keys = dict.fromkeys(key for each in (x, *more) if isinstance(each, dict) for key in each)
    return list(keys) or MISSING


@function(
    "mapvalues",
    returns="[]string",
    examples=[example({"a": 1, "b": "x"}, gives=["1", "x"]), example("x", gives=MISSING)],
)
def mapvalues(x: Value) -> list[str] | Missing:
    """Gives the values of a map as text, each once."""
    if not isinstance(x, dict):
        return MISSING
    return list(dict.fromkeys(texts(list(x.values())))) or MISSING


@function(
    "mapinvert",
    returns="map[string]string",
    examples=[example({"1": "news", "2": "sports"}, gives={"news": "1", "sports": "2"}), example("x", gives=MISSING)],
)
def mapinvert(x: Value) -> dict[str, str] | Missing:
    """Gives the map with values (as text) and keys changed over."""
    if not isinstance(x, dict):
        return MISSING
    pairs = ((to_text(value), key) for key, value in x.items())
    return {text: key for text, key in pairs if isinstance(text, str)} or MISSING


@function(
    "filter",
    examples=[
        example(["apples", "oranges"], "ora*", gives=["apples"]),
        example(["apples", "oranges"], "ora", gives=["apples"]),
        example({"amount": 22, "name": "bob"}, "nam", gives={"amount": 22}),
        example("apples", "app*", gives=None),
        example("apples", "ban", gives="apples"),
        example(["apples"], "app", gives=MISSING),
        example(["apples", "oranges", ""], [""], gives=["apples", "oranges"]),
    ],
)
def filter_(x: Value, pattern: Value, *more: Value) -> Value:
    """Takes out what matches a pattern: elements of a list, entries of a map by key, or the text itself.

    `*` (or `%`) stands for anything; a pattern without it is a prefix. Not ok when nothing is left, but a single
    text that is taken out is nil.
    """
    return _filtered(x, (pattern, *more), keep=False)


@function(
    "filtermatch",
    examples=[
        example(["event43", "event4=63.00"], "event4=", gives=["event4=63.00"]),
        example({"amount": 22, "name": "bob"}, "amo*", gives={"amount": 22}),
        example("apples", "app", gives="apples"),
        example("apples", "bam*", gives=None),
        example(["oranges"], "app%", gives=MISSING),
    ],
)
def filtermatch(x: Value, pattern: Value, *more: Value) -> Value:
    """Keeps what matches a pattern; the opposite of `filter`."""
    return _filtered(x, (pattern, *more), keep=True)


def _filtered(x: Value, patterns: tuple[Value, ...], *, keep: bool) -> Value:
    globs = [
        text for each in patterns for text in (each if isinstance(each, list) else [each]) if isinstance(text, str)
    ]
    if is_nil(x):
        return MISSING
    if isinstance(x, str):
        return x if _matches(x, globs) is keep else None
    if isinstance(x, dict):
        return {key: value for key, value in x.items() if _matches(key, globs) is keep} or MISSING
    if isinstance(x, list):
        return [each for each in texts(x) if _matches(each, globs) is keep] or MISSING
    return MISSING


def _matches(text: str, patterns: list[str]) -> bool:
    for pattern in patterns:
        if "*" in pattern or "%" in pattern:
            if matches(pattern, text):
                return True
        elif text.startswith(pattern) and (pattern or not text):  # empty text fits empty text only
            return True
    return False


def _flat(nested: Mapping[str, Value], before: str = "") -> dict[str, Value]:
    out: dict[str, Value] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            out.update(_flat(value, f"{before}{key}."))
        elif value is not None:
            out[before + key] = value
    return out
