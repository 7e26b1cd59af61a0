"""How the demo looks: a view that is drawn again and again on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from daemon.demo.watch import Snapshot

LINE_EVERY_S = 2.0


@dataclass
class View:
    """What is on the screen; `now` says what is being done."""

    console: Console
    now: str = ""
    live: Live | None = None
    _began: float = field(default_factory=time.monotonic)
    _lined: float = 0.0
    _rate: tuple[float, int] = (0.0, 0)
    _per_s: float = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keeps the view on the screen while the block runs; what it showed last stays."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=8, transient=False) as live:
            self.live = live
            try:
                yield
            finally:
                self.live = None

    def step(self, now: str) -> None:
        """Begins a part of the demo."""
        self.now = now
        self._lined = 0.0
        if self.live is None:
            self.console.print(f"== {now}", highlight=False)

    def update(self, snapshot: Snapshot) -> None:
        """Shows a snapshot."""
        taken = snapshot.events - snapshot.waiting
        at = time.monotonic()
        if at - self._rate[0] >= 1.0:
            self._per_s = max(0, taken - self._rate[1]) / (at - self._rate[0]) if self._rate[0] else 0.0
            self._rate = (at, taken)
        if self.live is not None:
            self.live.update(self._drawn(snapshot))
        elif at - self._lined >= LINE_EVERY_S:
            self._lined = at
            sizes = " ".join(f"{each.slug}={each.size}" for each in snapshot.audiences)
            self.console.print(
                f"events={snapshot.events} waiting={snapshot.waiting} profiles={snapshot.profiles} {sizes} "
                f"webhook={snapshot.webhook_triggers} files={snapshot.lines} undelivered={snapshot.undelivered}",
                highlight=False,
                soft_wrap=True,
            )

    def _drawn(self, snapshot: Snapshot) -> RenderableType:
        elapsed = time.monotonic() - self._began
        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="right")
        head.add_row(Text(self.now, style="bold"), f"{elapsed:.0f} s")
        return Panel(
            Group(head, "", self._counts(snapshot), "", self._audiences(snapshot), "", self._latest(snapshot)),
            title="cohortd",
            border_style="cyan",
        )

    def _counts(self, snapshot: Snapshot) -> RenderableType:
        table = Table.grid(padding=(0, 3))
        for _ in range(4):
            table.add_column()
        behind = f"{snapshot.waiting:,} waiting, {self._per_s:,.0f}/s" if snapshot.waiting else "all taken in"
        left = f"{snapshot.undelivered:,} on their way" if snapshot.undelivered else "all delivered"
        table.add_row("events", _number(snapshot.events), "on disk before each 200", behind)
        table.add_row("profiles", _number(snapshot.profiles), "one for each customer", "")
        table.add_row(
            "webhook", _number(snapshot.webhook_triggers), f"triggers in {snapshot.webhook_requests:,} requests", left
        )
        table.add_row("files", _number(snapshot.lines), f"triggers in {snapshot.files:,} files", "")
        return table

    def _audiences(self, snapshot: Snapshot) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        for name in ("audience", "members", "enters", "exits"):
            table.add_column(name, justify="left" if name == "audience" else "right", no_wrap=True)
        table.add_column("who", overflow="fold", ratio=1)
        for each in sorted(snapshot.audiences, key=lambda audience: -audience.size):
            table.add_row(
                each.slug, f"{each.size:,}", f"{each.enters:,}", f"{each.exits:,}", Text(each.description, "dim")
            )
        return table

    def _latest(self, snapshot: Snapshot) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("latest at the webhook", style="bold"))
        for each in reversed(snapshot.latest[-6:]):
            style = "green" if each["event"] == "enter" else "red"
            table.add_row(
                str(each["at"])[11:19], f"customer {each['customer_id']}", Text(each["event"], style), each["slug"]
            )
        return table


def _number(value: int) -> Text:
    return Text(f"{value:,}", style="bold cyan", justify="right")
