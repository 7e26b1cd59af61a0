"""The house (DESIGN section 3): an import only goes down, and what belongs to one package is used in it alone."""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "connectors", "daemon")

#: From the ground up. A module may import from its own floor's same room, and from every floor below.
FLOORS = (
    ("streams",),
    ("connectors.sdk",),
    ("connectors",),
    (
        "daemon.clock",
        "daemon.heap",
        "daemon.log",
        "daemon.settings",
        "daemon.lock",
        "daemon.metrics",
        "daemon.sdnotify",
        "daemon.vault",
    ),
    ("daemon.model",),
    ("daemon.store",),
    ("daemon.ingest", "daemon.bus", "daemon.jobs"),
    ("daemon.web",),
    ("daemon.app", "daemon.cli", "daemon.demo"),
)

#: Rooms of one floor that may use each other: the plain parts beside `model`, the two that know everything. The
#: loops may not.
OPEN_FLOORS = (3, 8)

#: What only some may import, and why it is theirs.
OWNERS = {
    "aiosqlite": ("daemon.store",),
    "aiohttp.web": ("daemon.web", "daemon.demo.receiver"),
    "azure": ("connectors.azure",),
    "pysequoia": ("connectors.sdk.formats.pgp_process",),
}

#: Names that read the wall clock.
WALL_CLOCK = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


class Import(NamedTuple):
    module: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text("utf-8"))


MODULES = dict(modules())


def imports() -> Iterator[Import]:
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(name, alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}:{node.lineno}: imports are absolute here"
                for alias in node.names:
                    yield Import(name, f"{node.module}.{alias.name}", node.lineno)


def place(module: str) -> tuple[int, str]:
    """The floor and the room of a module of ours."""
    for floor, rooms in reversed(list(enumerate(FLOORS))):
        for room in rooms:
            if within(module, room) and not (room == "connectors" and within(module, "connectors.sdk")):
                return floor, room
    raise AssertionError(f"{module} stands on no floor: add it to FLOORS, and to DESIGN section 3 if it is a new one")


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


OURS = [each for each in imports() if each.target.partition(".")[0] in PACKAGES]


def test_every_module_stands_on_a_floor():
    for name in MODULES:
        if name != "daemon":
            place(name)


def test_imports_only_go_down():
    wrong = []
    for each in OURS:
        if each.target.partition(".")[2] == "" or each.module == "daemon":
            continue
        target = each.target if each.target in MODULES else each.target.rpartition(".")[0]
        if target == "daemon":
            continue
        floor, room = place(each.module)
        below, there = place(target)
        same = room == there or (floor == below and floor in OPEN_FLOORS)
        # The catalogue alone looks upward, by scanning; that is no import statement.
        if below > floor or (below == floor and not same):
            wrong.append(str(each))

    assert wrong == []


def test_a_provider_imports_no_other_provider():
    def provider(name):
        parts = name.split(".")
        return parts[1] if parts[0] == "connectors" and len(parts) > 1 and parts[1] != "sdk" else None

    wrong = [
        str(each)
        for each in OURS
        if provider(each.module) and provider(each.target) and provider(each.module) != provider(each.target)
    ]

    assert wrong == []


@pytest.mark.parametrize("library", OWNERS)
def test_some_libraries_have_an_owner(library):
    wrong = [
        str(each)
        for each in imports()
        if within(each.target, library) and not any(within(each.module, owner) for owner in OWNERS[library])
    ]

    assert wrong == []


def test_the_wall_clock_is_read_in_one_module():
    wrong = []
    for name, tree in MODULES.items():
        if name == "daemon.clock":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                read = ".".join(ast.unparse(node.func).split(".")[-2:])
                if read in WALL_CLOCK:
                    wrong.append(f"{name}:{node.lineno} calls {read}")

    assert wrong == []


def test_streams_does_no_input_or_output():
    forbidden = ("asyncio", "anyio", "aiohttp", "socket", "sqlite3", "threading", "subprocess", "os", "pathlib", "io")
    wrong = [
        str(each)
        for each in imports()
        if within(each.module, "streams") and any(within(each.target, name) for name in forbidden)
    ]

    assert wrong == []


def test_no_other_distribution_claims_our_packages():
    owners = importlib.metadata.packages_distributions()
    others = {package: set(owners.get(package, ())) - {"cohortd"} for package in PACKAGES}

    assert [package for package in PACKAGES if others[package]] == []


def test_there_are_no_packages_under_tests():
    # tests/daemon/__init__.py would shadow the real daemon.
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_package_says_what_it_holds():
    assert [name for name, tree in MODULES.items() if not ast.get_docstring(tree)] == []
