"""How large an untrusted text, and what is read from it, may be. Later stages may recurse: depth is small."""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 100 * 1024
MAX_DEPTH: Final = 100
MAX_NODES: Final = 20_000
MAX_DIAGNOSTICS: Final = 50
#: Parts of one name, and fields or calls in one list of values.
MAX_NAME_PARTS: Final = 100
MAX_LIST_VALUES: Final = 1_000
