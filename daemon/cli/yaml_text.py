"""YAML as people mean it: `12:30` is a time of day and `2027-01-31` a text, not a number and a date."""

from __future__ import annotations

from typing import Any

import yaml

_GONE = ("tag:yaml.org,2002:timestamp",)
#: Whole numbers without YAML 1.1's base 60, in which 12:30 is 750.
_INT = r"^(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o?[0-7]+)$"


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates and numbers of base 60."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that puts quotes around what either loader would take for something else than text."""


def load(text: object) -> Any:
    """Reads one YAML document (JSON is YAML) from text or a file. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)  # type: ignore[arg-type]  # noqa: S506  (it is a SafeLoader)


def dump(value: object) -> str:
    """Writes a value as `load` reads it, keys in their order."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if load(text) == value:
        return text
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)  # (line ends of Unicode are lost unless escaped)


def _resolvers() -> None:
    import re

    _Loader.yaml_implicit_resolvers = {
        first: [
            each for each in resolvers if each[0] not in (*_GONE, "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(_INT), list("-+0123456789"))
    number = r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+|\.(?:inf|nan))$"
    _Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(number, re.IGNORECASE), list("-+0123456789."))
    safe, ours = yaml.SafeDumper.yaml_implicit_resolvers, _Loader.yaml_implicit_resolvers
    _Dumper.yaml_implicit_resolvers = {first: [*ours.get(first, ()), *safe.get(first, ())] for first in {*safe, *ours}}


_resolvers()
