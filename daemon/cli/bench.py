"""`cohortd bench`: the figures of the README, measured on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

#: Benchmarks stand in the checkout, beside the packages; an installed wheel has none.
FOLDER = Path(__file__).parents[2] / "tests" / "bench"
#: What `make bench-peers` runs needs an environment of its own; the core's is a tool for its authors.
LEFT_OUT = frozenset({"peers", "core"})


@click.command("bench")
@click.argument("name", nargs=-1)
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds, where a benchmark has them.")
def bench(name: tuple[str, ...], quick: bool) -> None:
    """Measures NAME (collect, ingest, bus, daemon, jobs; default: all), each beside its floor in the same run."""
    if not FOLDER.is_dir():
        raise click.ClickException(f"{FOLDER} does not exist: benchmarks come with the checkout, not with the package")
    known = {path.stem.removeprefix("bench_"): path for path in sorted(FOLDER.glob("bench_*.py"))}
    chosen = name or tuple(each for each in known if each not in LEFT_OUT)
    unknown = [each for each in chosen if each not in known]
    if unknown:
        raise click.UsageError(f"there is no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    for each in chosen:
        flags = ["--quick"] if quick and "--quick" in known[each].read_text(encoding="utf-8") else []
        command = [sys.executable, str(known[each]), *flags]
        status = subprocess.run(command, check=False).returncode  # noqa: S603  (scripts of this checkout)
        if status:
            raise click.exceptions.Exit(1)
