"""`--watch`: the same again, every so many seconds, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds between two looks when `--watch` is given without a number.
LOOK_S = 2.0


def watchable(command: F) -> F:
    """Adds `--watch [SECONDS]`."""
    return click.option(
        "--watch",
        "every_s",
        is_flag=False,
        flag_value=LOOK_S,
        type=click.FloatRange(0.1, 3600),
        metavar="[SECONDS]",
        help=f"Again every SECONDS ({LOOK_S:g}), until Ctrl-C.",
    )(command)


def watch(draw: Callable[[], None], every_s: float | None) -> None:
    """Draws once, or, with `every_s`, again and again on a cleared screen; Ctrl-C ends it with status 0."""
    if every_s is None:
        draw()
        return
    try:
        while True:
            click.clear()  # (does nothing where the output is no terminal)
            draw()
            sys.stdout.flush()
            pause(every_s)
    except KeyboardInterrupt:
        click.echo()


def pause(seconds: float) -> None:
    """Waits between two looks."""
    time.sleep(seconds)
