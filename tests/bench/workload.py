"""What the benchmarks run on: a query, 20 audiences, and purchase-like events of many customers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import orjson

QUERY = """
SELECT
    customer_id                         KIND string,
    email(email)      AS email          KIND string,
    country                             KIND string,
    sum(dollars)      AS spent          KIND number,
    sum(cds)          AS cds            KIND int,
    count(dollars)    AS orders         KIND int,
    max(todate(at))   AS last_purchase  KIND date,
    min(todate(at))   AS first_purchase KIND date,
    valuect(genre)    AS genres         KIND map[string]int,
    set(channel)      AS channels       KIND []string
FROM orders INTO user BY customer_id OR email ALIAS bench
"""

CONDITIONS = (
    "spent >= 100",
    "spent >= 1000",
    "spent BETWEEN 50 AND 500",
    "orders >= 2",
    "orders >= 10",
    "AND ( orders >= 5, spent >= 300 )",
    "cds > 20",
    'last_purchase > "now-30d"',
    'last_purchase > "now-7d"',
    'AND ( last_purchase > "now-90d", orders >= 3 )',
    'AND ( last_purchase < "now-60d", spent > 200 )',
    'first_purchase > "now-365d"',
    'country = "DE"',
    'country IN ("FR", "ES", "IT")',
    'AND ( country = "US", OR ( spent > 500, orders > 5 ) )',
    'channels INTERSECTS ("app", "store")',
    'AND ( channels INTERSECTS ("web"), NOT channels INTERSECTS ("store") )',
    "genres.rock >= 3",
    "AND ( genres.jazz >= 1, genres.rock >= 1 )",
    "AND ( EXISTS email, NOT INCLUDE b01 )",
)

AUDIENCES = tuple(f"FILTER {text} FROM user ALIAS b{number:02}" for number, text in enumerate(CONDITIONS))

COUNTRIES = ("DE", "FR", "ES", "IT", "US", "GB", "PL", "SE")
GENRES = ("rock", "jazz", "pop", "folk", "classical", "metal")
CHANNELS = ("web", "app", "store")
START = datetime(2026, 1, 1, tzinfo=UTC)


def events(count: int, customers: int, *, seed: int = 1) -> Iterator[dict[str, object]]:
    """Yields purchases of `customers` customers in the order of their time, over about 300 days."""
    chance = random.Random(seed)
    step = timedelta(days=300) / max(count, 1)
    for number in range(count):
        customer = chance.randrange(customers)
        yield {
            "customer_id": f"c{customer:07}",
            "email": f"c{customer:07}@example.com",
            "country": COUNTRIES[customer % len(COUNTRIES)],
            "dollars": round(chance.uniform(1, 120), 2),
            "cds": chance.randrange(1, 9),
            "at": (START + step * number).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "genre": chance.choice(GENRES),
            "channel": chance.choice(CHANNELS),
        }


def lines(count: int, customers: int, *, seed: int = 1) -> list[bytes]:
    """Gives the events as JSON texts."""
    return [orjson.dumps(event) for event in events(count, customers, seed=seed)]
