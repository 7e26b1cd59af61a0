"""One person's events are found in the log as ingest took them, whatever queries held when."""

from __future__ import annotations

import pytest

from daemon.ingest.person import PersonEvents, all_pages
from daemon.store import event_reader
from streams.person import Texts

QUERY = "SELECT user_id, email(email) AS email FROM web INTO user BY user_id OR email ALIAS web"
END = {"realtime": event_reader.END, "bulk": event_reader.END}


async def found(ingest, *keys, texts=None):
    walk = await PersonEvents.open(ingest.events, ingest.state, frozenset(keys).__contains__, texts)
    return [each async for page in all_pages(walk, END, rest=0) for each in page]


async def test_events_are_found_in_both_lanes_over_many_pages(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.append(*({"user_id": f"u{each % 100}"} for each in range(3000)), lane="bulk")
        await ingest.take({"user_id": "u7", "email": "u7@example.com"}, {"email": "u7@example.com"}, {"user_id": "x"})

        mine = await found(ingest, ("user_id", "u7"), ("email", "u7@example.com"))

        assert len([each for each in mine if each.event.lane == "bulk"]) == 30
        assert [each.event.position for each in mine if each.event.lane == "realtime"] == [1, 2]
        assert all(each.own and not each.others and not each.named for each in mine)


async def test_each_event_is_seen_by_the_queries_that_mapped_it_and_by_those_of_now(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.take({"user_id": "a", "n": 0})
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "a", "n": 1})
        await ingest.pipeline.put_query("SELECT name AS user_id FROM web INTO user BY user_id ALIAS web")
        await ingest.take({"user_id": "a", "n": 2}, {"name": "a", "n": 3})
        await ingest.append({"name": "a", "n": 4})

        mine = await found(ingest, ("user_id", "a"))

        assert [each.event.body["n"] for each in mine] == [1, 3, 4]
        assert [bool(each.stand.then) for each in mine] == [True, True, True]


@pytest.mark.parametrize("body", [{"who": "ann@example.com"}, {"user_id": "a"}])
async def test_events_that_no_query_maps_are_found_by_their_text(tmp_path, open_ingest, body):
    keys = (("user_id", "a"), ("email", "ann@example.com"))
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take(body, {"who": "else"}, stream="other")

        (one,) = await found(ingest, *keys, texts=Texts(keys))

        assert one.event.body == body
        assert (one.own, one.others, one.named) == (False, False, False)
        assert await found(ingest, *keys) == []


async def test_a_refused_stitch_is_told_apart(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(QUERY)
        await ingest.take({"user_id": "a", "email": "ann@example.com"}, {"user_id": "b", "email": "ann@example.com"})

        one, two = await found(ingest, ("user_id", "a"), ("email", "ann@example.com"))

        assert one.own
        assert (two.own, two.others, two.named) == (False, True, True)
