"""CDNOW's purchases, moved in time so that the log ends now.

The log has days between January 1997 and June 1998. All of it is moved by one whole number of days, so that gaps
between purchases stay what they were, and ends today. Within a day, purchases get times of day in the order of the
file, evenly over the day (today: over what has passed of it), since the log does not have them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

COLUMNS = ("customer_id", "purchased_at", "cds", "dollars")
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Purchase:
    """One row of the log."""

    customer_id: str
    day: date
    cds: str
    dollars: str


def read(path: Path) -> list[Purchase]:
    """Reads the log, in order of days; raises ValueError for a file that is not CDNOW's."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}")
        purchases = [
            Purchase(row["customer_id"], date.fromisoformat(row["purchased_at"]), row["cds"], row["dollars"])
            for row in rows
        ]
    return sorted(purchases, key=lambda each: each.day)


def moved(purchases: Sequence[Purchase], now: datetime) -> Iterator[tuple[Purchase, datetime]]:
    """Gives each purchase with its moment, when the log's last day is the day of `now`; none is after `now`."""
    if not purchases:
        return
    shift = now.date() - purchases[-1].day
    of_day = Counter(each.day for each in purchases)
    seen: Counter[date] = Counter()
    for each in purchases:
        start = datetime.combine(each.day + shift, time(), now.tzinfo)
        length = min(DAY_S, int((now - start).total_seconds()))
        place = seen[each.day]
        seen[each.day] += 1
        yield each, start + timedelta(seconds=length * place // of_day[each.day])


def write(path: Path, rows: Iterator[tuple[Purchase, datetime]]) -> int:
    """Writes the moved log as CSV; gives the number of rows."""
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for each, moment in rows:
            writer.writerow((each.customer_id, moment.isoformat(), each.cds, each.dollars))
            count += 1
    return count
