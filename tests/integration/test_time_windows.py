"""Having done something so often in so many days: in and out at the very second, with nobody asking."""

from __future__ import annotations

import pytest

DAY_US = 86_400_000_000
SECOND_US = 1_000_000
QUERY = (
    "SELECT user_id, timebucket(at) AS visits KIND []timebucket CAPACITY {capacity} KEEP_DAYS {keep_days}"
    " FROM web INTO user BY user_id ALIAS web"
)


async def begin(ingest, audience, *, capacity=0, keep_days=0):
    await ingest.pipeline.put_query(QUERY.format(capacity=capacity, keep_days=keep_days))
    await ingest.pipeline.put_audience(f"FILTER {audience} ALIAS often")


async def at(ingest, clock, us):
    """Who is in at a moment."""
    clock.us = us
    await ingest.drain()
    return await ingest.members("often")


async def test_who_did_it_often_enough_enters_with_the_event_and_leaves_when_the_window_passes(
    tmp_path, open_ingest, frozen_clock
):
    now = frozen_clock.us
    async with open_ingest(tmp_path) as ingest:
        await begin(ingest, "timewindow(visits, 2, 7)")
        await ingest.take({"user_id": "a", "at": "2025-12-28T10:00:00Z"})
        assert await ingest.members("often") == []
        await ingest.take({"user_id": "a", "at": "2025-12-30T10:00:05Z"})  # the second within seven days
        assert await ingest.members("often") == [1]
        ends = now + 3 * DAY_US + 10 * 3600 * SECOND_US  # when the first of them is seven days old

        assert await at(ingest, frozen_clock, ends - 1) == [1]
        assert await at(ingest, frozen_clock, ends) == []
        await ingest.take({"user_id": "a", "at": "2026-01-04T10:00:00Z"})
        assert await ingest.members("often") == [1]
        ends += 2 * DAY_US + 5 * SECOND_US
        assert await at(ingest, frozen_clock, ends - 1) == [1]
        assert await at(ingest, frozen_clock, ends) == []
        assert [each[2:] for each in await ingest.triggers()] == [
            ("enter", 1, "event"), ("exit", 2, "time"), ("enter", 3, "event"), ("exit", 4, "time"),
        ]  # fmt: skip


async def test_what_is_said_of_the_future_counts_when_it_comes(tmp_path, open_ingest, frozen_clock):
    now = frozen_clock.us
    async with open_ingest(tmp_path) as ingest:
        await begin(ingest, "timewindow(visits, 2, 1)")
        await ingest.take({"user_id": "a", "at": ["2025-12-31T12:00:00Z", "2026-01-01T06:00:00Z"]})

        assert await at(ingest, frozen_clock, now + 6 * 3600 * SECOND_US - 1) == []
        assert await at(ingest, frozen_clock, now + 6 * 3600 * SECOND_US) == [1]
        assert await at(ingest, frozen_clock, now + 12 * 3600 * SECOND_US - 1) == [1]
        assert await at(ingest, frozen_clock, now + 12 * 3600 * SECOND_US) == []


@pytest.mark.parametrize(
    ("limits", "ends_us"), [({"keep_days": 2}, 2 * DAY_US), ({"keep_days": 5}, 5 * DAY_US), ({}, 7 * DAY_US)]
)
async def test_what_keep_days_lets_go_counts_no_more(tmp_path, open_ingest, frozen_clock, limits, ends_us):
    now = frozen_clock.us
    async with open_ingest(tmp_path) as ingest:
        await begin(ingest, "timewindow(visits, 1, 7)", **limits)
        await ingest.take({"user_id": "a", "at": "2026-01-01T00:00:00Z"})

        assert await at(ingest, frozen_clock, now + ends_us - SECOND_US) == [1]
        assert await at(ingest, frozen_clock, now + ends_us + SECOND_US) == []


async def test_a_capacity_keeps_the_newest_whatever_order_they_come_in(tmp_path, open_ingest, frozen_clock):
    async with open_ingest(tmp_path) as ingest:
        await begin(ingest, "timewindow(visits, 3, 30)", capacity=2)
        for ago in (1, 3, 2):
            event_us = frozen_clock.us - ago * DAY_US
            await ingest.take({"user_id": "a", "at": event_us // 1000, "_ts": event_us})

        assert await ingest.members("often") == []  # there are never three
        await ingest.pipeline.put_audience('FILTER visits < "2025-12-30T00:00:00Z" ALIAS old')
        await ingest.drain()
        assert await ingest.members("old") == []
