"""Prints the reference of all functions, made from their declarations: `python -m streams.ql.functions`.

`README.md` beside it holds what this prints; a test says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from streams.ql.functions import FUNCTIONS, Example, Function
from streams.ql.functions.registry import EXAMPLE_NOW
from streams.ql.missing import Missing
from streams.ql.values import plain

HEAD = f"""# Functions

Made by `python -m streams.ql.functions` from the declarations in this folder; a test holds this page to them, and runs
every example. A missing argument is nothing, and so are empty text, empty lists and maps, NaN and int -2147483648: most
functions pass over them alike. "Not ok" means that the expression has no value: a column is not set, a condition does
not hold. In square brackets: what may be left out. The examples' clock and event time is {plain(EXAMPLE_NOW)}; a name
in them stands for a field.
"""
TITLES = {
    "logic": "Comparison, truth and choice",
    "numbers": "Numbers, conversions, aggregates",
    "text": "Text",
    "lists": "Lists and maps",
    "times": "Dates and times",
    "urls": "E-mail and URLs",
    "agents": "User agents",
    "hashing": "Hashes and encodings",
    "formats": "JSON, phone numbers, places",
}


def reference() -> str:
    """Gives the page as Markdown."""
    functions = sorted({each.name: each for each in FUNCTIONS.values()}.values(), key=lambda each: each.name)
    parts = [HEAD]
    for module, title in TITLES.items():
        parts.append(f"## {title}\n")
        parts += ["\n".join(_described(each)) for each in functions if each.impl.__module__.endswith(f".{module}")]
    return "\n".join(parts)


def written(function: Function, example: Example) -> tuple[str, dict[str, Any]]:
    """Gives an example's call as a text of the language, and the fields it reads: what has no literal is a field."""
    data = dict(example.event)
    parts = []
    for place, value in enumerate(example.args):
        if isinstance(value, str):
            parts.append('"' + value.replace("\\", "\\\\").replace('"', '""') + '"')
        elif isinstance(value, bool | int | float):
            parts.append(json.dumps(value))
        else:
            name = "abcdef"[place]
            parts.append(name)
            if value is not None:
                data[name] = value
    if function.name == "ifcase":  # a case that does not hold has no value
        *cases, last = zip(parts, example.args, strict=True)
        parts = [f"{part} IF {'false' if value is None else 'true'}" for part, value in cases]
        parts.append(f"{last[0]} IF false" if last[1] is None else last[0])
    return f"{function.name}({', '.join(parts)})", data


def described(function: Function, example: Example) -> str:
    """Gives an example on one line: the call, what it gives, and what its names stand for."""
    text, data = written(function, example)
    where = ", ".join(f"{name} = {_shown(value)}" for name, value in data.items())
    return f"{text}  →  {_shown(example.gives)}{f'    where {where}' if where else ''}"


def _described(function: Function) -> Iterator[str]:
    yield f"### `{function.signature}`\n"
    yield function.doc + "\n"
    facts = []
    if function.aliases:
        facts.append(f"Also called {', '.join(f'`{each}`' for each in function.aliases)}.")
    if function.returns:
        facts.append(f"Gives `{function.returns}`.")
    if function.literal_args:
        facts.append("Its patterns and names must be literals.")
    if function.aggregate:
        facts.append(f"An aggregate: only as a column's outermost expression; merges by `{function.aggregate}`.")
    if facts:
        yield " ".join(facts) + "\n"
    yield "```"
    for example in function.examples:
        yield described(function, example)
    yield "```\n"


def _shown(value: Any) -> str:
    if isinstance(value, Missing):
        return "not ok"
    if isinstance(value, datetime):
        return str(plain(value))
    return json.dumps(plain(value), ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(reference())
