"""Why a person is, or is not, in an audience, asked of a daemon (P8)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

QUERY = (
    "SELECT user_id, count(amount) AS orders KIND int, sum(amount) AS spent KIND number,"
    " max(todate(at)) AS last KIND date, set(tag) AS tags KIND []string KEEP_DAYS 30"
    " FROM web INTO user BY user_id ALIAS web"
)


async def _prepared(opened, *audiences, events=()):
    await opened.post("/api/query", data=QUERY)
    for text in audiences:
        await opened.post("/api/segment", data=text)
    for event in events:
        await opened.post("/collect/json/web", json=event)
    await opened.daemon.services.pipeline.drain()


async def _explained(opened, slug, value="anna"):
    return (await opened.get(f"/v2/entity/user/user_id/{value}/explain/{slug}")).data


async def test_each_condition_has_its_value_verdict_and_reason_and_the_flip_its_cause(tmp_path, open_daemon):
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    async with open_daemon(tmp_path) as opened:
        await _prepared(
            opened,
            "FILTER spent > 10 ALIAS big",
            'FILTER AND ( orders >= 1, last > "now-10d", NOT INCLUDE big ) ALIAS recent',
            events=[{"user_id": "anna", "amount": 5, "at": at.isoformat()}],
        )

        told = await _explained(opened, "recent")
        out = await _explained(opened, "big")

        assert told["member"] is True
        assert "all 3 conditions hold" == told["reason"]
        assert ["AND", "orders >= 1", 'last > "now-10d"', "NOT", "INCLUDE big", "spent > 10"] == [
            each["text"] for each in told["conditions"]
        ]
        assert "orders is 1; 1 >= 1 is true" == told["conditions"][1]["reason"]
        assert (at + timedelta(days=10)).isoformat() == told["next_flip"].replace("Z", "+00:00")
        assert [('last > "now-10d"', False)] == [(each["text"], each["match"]) for each in told["next_flip_by"]]
        assert (False, "spent is 5; 5 > 10 is false", None) == (out["member"], out["reason"], out["next_flip"])


async def test_what_keep_days_lets_go_is_a_next_flip_too(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, 'FILTER tags IN ("a") ALIAS tagged', events=[{"user_id": "anna", "tag": "a"}])

        told = await _explained(opened, "tagged")

        days = datetime.fromisoformat(told["next_flip"]) - datetime.now(UTC)
        assert timedelta(days=29, hours=23) < days < timedelta(days=30, seconds=1)
        assert ["the profile has no `tags`; IN of what is missing is false"] == [
            each["reason"] for each in told["next_flip_by"]
        ]


async def test_a_large_filter_is_explained_beside_the_loop(tmp_path, open_daemon):
    many = ", ".join(f"orders > {each}" for each in range(400))
    async with open_daemon(tmp_path) as opened:
        await _prepared(opened, f"FILTER OR ( {many} ) ALIAS many", events=[{"user_id": "anna", "amount": 5}])

        explaining = asyncio.create_task(_explained(opened, "many"))
        asked = 0
        while not explaining.done():
            assert (await opened.get("/health")).status == 200
            asked += 1

        assert 401 == len((await explaining)["conditions"])
        assert asked > 5
