"""The real Segment SDKs, unmodified but for the host, send to the daemon."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from pathlib import Path

import pytest
from node import NODE

HERE = Path(__file__).parent
SDK = HERE / "node_modules" / "@segment" / "analytics-node"

PYTHON = """
import datetime, sys
import segment.analytics as analytics

analytics.host, analytics.write_key, gzip = sys.argv[1], sys.argv[2], sys.argv[3] == "gzip"
analytics.gzip = gzip
errors = []
analytics.on_error = lambda error, items: errors.append(error)
analytics.identify("u1", {"email": "u1@example.com", "plan": "pro"})
analytics.track("u1", "Order Completed", {"revenue": 39.95}, message_id="order-1")
analytics.track("u1", "Order Completed", {"revenue": 39.95}, message_id="order-1")
long_ago = datetime.datetime(1997, 1, 1, tzinfo=datetime.timezone.utc)
analytics.track("u1", "Imported", {}, timestamp=long_ago, context={"ip": "1.2.3.4"})
analytics.page("u1", "Docs", "Python")
analytics.screen("u1", "Home")
analytics.group("u1", "g1", {"name": "Initech"})
analytics.alias("anonymous", "u1")
for number in range(300):
    analytics.track("u2", "Many", {"number": number})
analytics.shutdown()
print(len(errors))
"""

NODE_SCRIPT = """
const { Analytics } = require('@segment/analytics-node')
const analytics = new Analytics({ writeKey: process.argv[2], host: process.argv[1], flushAt: 5 })
let errors = 0
analytics.on('error', () => { errors += 1 })
analytics.identify({ userId: 'u1', traits: { email: 'u1@example.com' } })
analytics.track({ userId: 'u1', event: 'Order Completed', properties: { revenue: 39.95 }, messageId: 'order-1' })
analytics.track({ userId: 'u1', event: 'Order Completed', properties: { revenue: 39.95 }, messageId: 'order-1' })
analytics.track({ userId: 'u1', event: 'Imported', timestamp: new Date('1997-01-01T00:00:00Z') })
analytics.page({ anonymousId: 'a1', name: 'Docs' })
analytics.screen({ anonymousId: 'a1', name: 'Home' })
analytics.group({ userId: 'u1', groupId: 'g1', traits: { name: 'Initech' } })
analytics.alias({ userId: 'u1', previousId: 'anonymous' })
for (let number = 0; number < 50; number += 1) analytics.track({ userId: 'u2', event: 'Many', properties: { number } })
analytics.closeAndFlush().then(() => console.log(errors))
"""


async def run(*command: object, cwd: Path | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode().strip()


async def received(opened) -> dict[str, list[dict]]:
    found = (await opened.get("/v2/stream/segment/events?limit=1000", ok=True)).data
    by_type: dict[str, list[dict]] = {}
    for each in reversed(found):
        by_type.setdefault(each["data"]["type"], []).append(each)
    return by_type


def check(by_type: dict[str, list[dict]], many: int) -> None:
    assert {name: len(each) for name, each in by_type.items()} == {
        "identify": 1,
        "track": 2 + many,
        "page": 1,
        "screen": 1,
        "group": 1,
        "alias": 1,
    }
    (identify,) = by_type["identify"]
    assert identify["data"]["userId"] == "u1"
    assert identify["data"]["traits"]["email"] == "u1@example.com"
    assert identify["data"]["context"]["library"]["name"]
    assert identify["id"] == identify["data"]["messageId"] == identify["data"]["_id"]
    order = next(each for each in by_type["track"] if each["data"]["event"] == "Order Completed")
    assert order["data"]["properties"] == {"revenue": 39.95}
    assert order["id"] == "order-1"
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(order["time"])
    assert abs(age.total_seconds()) < 60
    imported = next(each for each in by_type["track"] if each["data"]["event"] == "Imported")
    assert imported["time"] == "1997-01-01T00:00:00Z"
    numbers = [each["data"]["properties"]["number"] for each in by_type["track"] if each["data"]["event"] == "Many"]
    assert sorted(numbers) == list(range(many))
    assert by_type["group"][0]["data"]["groupId"] == "g1"
    assert by_type["alias"][0]["data"]["previousId"] == "anonymous"


@pytest.mark.parametrize("packing", ["gzip", "plain"])
async def test_segment_analytics_python(tmp_path, open_daemon, make_token, packing):
    async with open_daemon(tmp_path) as opened:
        key = make_token(tmp_path, "data")
        errors = await run(sys.executable, "-c", PYTHON, opened.address, key, packing)
        by_type = await received(opened)
        stats = (await opened.get("/v2/stream/segment/stats", ok=True)).data

    assert errors == "0"
    check(by_type, 300)
    assert stats["duplicates"] == 1
    assert stats["rejects"] == 0


@pytest.mark.skipif(not SDK.exists(), reason="@segment/analytics-node is not installed: npm ci in tests/integration")
async def test_segment_analytics_node(tmp_path, open_daemon, make_token):
    async with open_daemon(tmp_path) as opened:
        key = make_token(tmp_path, "data")
        errors = await run(NODE, "-e", NODE_SCRIPT, opened.address, key, cwd=HERE)
        by_type = await received(opened)
        stats = (await opened.get("/v2/stream/segment/stats", ok=True)).data

    assert errors == "0"
    check(by_type, 50)
    assert stats["duplicates"] == 1
    assert stats["rejects"] == 0
