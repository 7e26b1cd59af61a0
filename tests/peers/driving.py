"""What tests of jobs do with a daemon: define a person, post events, create jobs and wait for what becomes of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

QUERY = """
SELECT
    email(email)       AS email,
    tonumber(n)        AS n,
    set(tag)           AS tags KIND []string,
    map(tag, n)        AS numbers KIND map[string]number
FROM people INTO user BY email ALIAS people
"""
BIG = "FILTER n >= 10 ALIAS big"


async def define(client: Any) -> None:
    await client.call("POST", "/api/query", data=QUERY, ok=True)
    await client.call("POST", "/api/segment", data=BIG, ok=True)


async def create(client: Any, kind: str, config: dict[str, Any], **options: Any) -> str:
    answer = await client.post(f"/v2/job/{kind}", {"label": kind, "config": config} | options, ok=True)
    return str(answer.data["id"])


async def until(client: Any, job: str, holds: Any) -> dict[str, Any]:
    """Waits until the job is as wanted; gives it."""
    try:
        async with asyncio.timeout(60):
            while not holds(found := (await client.get(f"/v2/job/{job}", ok=True)).data):
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"waited in vain: {found}")
    return dict(found)


def state(*wanted: str) -> Any:
    return lambda job: job["state"] in wanted


async def settled(opened: Any) -> None:
    services = opened.daemon.services
    async with asyncio.timeout(20):
        while services.collector.lag("realtime") or services.collector.lag("bulk"):
            await asyncio.sleep(0.01)


async def put(opened: Any, **numbers: int) -> None:
    events = [
        {"email": f"{name}@example.org", "n": number, "tag": ["x", f"t{number}"]} for name, number in numbers.items()
    ]
    await opened.post("/collect/json/people", events, ok=True)
    await settled(opened)
