"""How a figure is measured and shown: ours and the floor in the same run, several times, with the spread."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson


@dataclass
class Figure:
    """One line of the report.

    `ratio` is ours to the floor, of medians. `bound` "least": the ratio must reach `target`; "most": stay at or below.
    Values are in `unit`; for a figure without a floor (a plain limit) the ratio is the value itself.
    """

    name: str
    unit: str
    bound: Literal["least", "most"]
    target: float
    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def ratio(self) -> float:
        ours = statistics.median(self.ours)
        return ours / statistics.median(self.floor) if self.floor else ours

    @property
    def met(self) -> bool:
        return self.ratio >= self.target if self.bound == "least" else self.ratio <= self.target

    def show(self) -> str:
        sign = "≥" if self.bound == "least" else "≤"
        text = f"{'ok   ' if self.met else 'SHORT'} {self.name}: "
        text += f"{self.ratio:.3f} (wanted {sign} {self.target:g}); ours {_spread(self.ours)} {self.unit}"
        if self.floor:
            text += f", floor {_spread(self.floor)} {self.unit}"
        return text + (f"; {self.note}" if self.note else "")

    def facts(self) -> bytes:
        return orjson.dumps({
            "name": self.name, "unit": self.unit, "ratio": self.ratio, "bound": self.bound, "target": self.target,
            "met": self.met, "ours": self.ours, "floor": self.floor, "note": self.note,
        })  # fmt: skip


def alternate(figure: Figure, ours: Callable[[], float], floor: Callable[[], float] | None, times: int) -> Figure:
    """Measures ours and the floor in turn, `times` times each, so that a slow spell of the machine meets both."""
    for _ in range(times):
        if floor is not None:
            gc.collect()
            figure.floor.append(floor())
        gc.collect()
        figure.ours.append(ours())
    return figure


def quantile(values: Sequence[float], share: float) -> float:
    """Gives the value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _spread(values: Sequence[float]) -> str:
    middle = statistics.median(values)
    return f"{_number(middle)} [{_number(min(values))}-{_number(max(values))}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
