"""Versions of the schema: each change of queries is one, can be compared with others, and gone back to."""

from __future__ import annotations

import pytest

from daemon.ingest.query_commands import QueryChange
from daemon.ingest.replay import replay
from daemon.model.refusal import Conflict, NotFound
from daemon.store import schema_versions
from streams.ql.errors import QueryError

SHOP = "SELECT user_id, sum(amount) AS spent KIND number, plan FROM web INTO user BY user_id ALIAS shop"
SHOP_INT = SHOP.replace("KIND number", "KIND int")
APP = "SELECT user_id, device, sum(price) AS spent KIND number FROM app INTO user BY user_id OR device ALIAS app"
APP_INT = APP.replace("KIND number", "KIND int")
BIG = "FILTER spent >= 100 ALIAS big"


async def told(ingest):
    rows = await ingest.state.read(lambda db: schema_versions.page(db, 1 << 62, 100))
    return [(row.number, row.cause, row.description, row.stored, row.deleted, row.reverted_to) for row in rows][::-1]


async def version(ingest, number):
    return await ingest.state.read(lambda db: schema_versions.queries_of(db, number))


async def test_every_change_of_queries_is_a_version(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(SHOP)
        await ingest.pipeline.put_query(SHOP)  # as it is: no version
        await ingest.take({"user_id": "a"}, {"user_id": "b"}, lane="bulk")
        await ingest.pipeline.put_audience(BIG)
        await ingest.pipeline.change_queries(QueryChange(put=[APP], description="the app, too"))
        await ingest.pipeline.delete_query("app")
        await ingest.pipeline.revert_schema(2, "it is wanted after all")

        assert await told(ingest) == [
            (1, "query", "", ("shop",), (), None),
            (2, "query", "the app, too", ("app",), (), None),
            (3, "query_deleted", "", (), ("app",), None),
            (4, "revert", "it is wanted after all", (), (), 2),
        ]
        assert [row.alias for row in await version(ingest, 0)] == []
        assert [row.text for row in await version(ingest, 1)] == [SHOP]
        assert [row.text for row in await version(ingest, 2)] == [SHOP, APP]
        assert [row.text for row in await version(ingest, 4)] == [SHOP, APP]
        assert await version(ingest, 5) is None


async def test_the_versions_are_found_without_reading_the_batches(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        for statement, values in ((schema_versions.COUNT, ()), (schema_versions.FIRST, (9,))):
            plan = await ingest.rows(f"EXPLAIN QUERY PLAN {statement}", *values)
            assert any("history_schema" in row[3] for row in plan), plan


async def test_what_only_goes_together_is_changed_together(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(SHOP)
        await ingest.pipeline.put_query(APP)
        with pytest.raises(QueryError, match="spent is int in shop, but number in app") as refused:
            await ingest.pipeline.put_query(SHOP_INT)

        await ingest.pipeline.change_queries(QueryChange(put=[SHOP_INT, APP_INT]))

        assert (refused.value.diagnostics[0].line, refused.value.diagnostics[0].column) == (1, 17)
        assert "in one request" in refused.value.diagnostics[0].hint
        assert ingest.pipeline.definitions.schema.fields["spent"].kind == "int"
        assert [row[1:5] for row in await told(ingest)][-1] == ("query", "", ("shop", "app"), ())


async def test_a_refused_change_of_several_changes_none(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(SHOP)
        for change, error in (
            (QueryChange(put=[APP, SHOP_INT]), QueryError),
            (QueryChange(put=[APP], delete=["nothing"]), NotFound),
            (QueryChange(put=[APP, "SELECT"], delete=["shop"]), QueryError),
            (QueryChange(put=[APP], delete=["app", "shop"]), NotFound),
        ):
            with pytest.raises(error):
                await ingest.pipeline.change_queries(change)
        await ingest.pipeline.put_query(APP)
        with pytest.raises(Conflict, match="both stored and deleted"):
            await ingest.pipeline.change_queries(QueryChange(put=[APP], delete=["app"]))

        assert [row.text for row in await version(ingest, 2)] == [SHOP, APP]
        assert await version(ingest, 3) is None
        assert await ingest.one("SELECT count(*) FROM query") == 2


async def test_queries_made_together_rank_their_identities_as_given(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        later = "SELECT b FROM web INTO user BY b ALIAS z_first"
        earlier = "SELECT c FROM web INTO user BY c ALIAS a_second"
        await ingest.pipeline.change_queries(QueryChange(put=[later, earlier]))

        assert [each.name for each in ingest.pipeline.definitions.schema.identities] == ["b", "c"]


async def test_kinds_by_expression_must_agree_unless_one_states_it(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query("SELECT id, toint(x) AS x FROM web INTO user BY id ALIAS one")
        other = "SELECT id,\n  todate(y) AS x FROM app INTO user BY id ALIAS two"
        with pytest.raises(QueryError, match="x is int by its expression in one, but date in two") as refused:
            await ingest.pipeline.put_query(other)

        assert (refused.value.diagnostics[0].line, refused.value.diagnostics[0].column) == (2, 3)
        await ingest.pipeline.put_query(other.replace("AS x", "AS x KIND int"))


async def test_a_revert_evaluates_audiences_again_and_ranks_as_before(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(SHOP)
        await ingest.pipeline.put_query(APP)
        await ingest.pipeline.put_audience(BIG)
        await ingest.take({"user_id": "a", "amount": 200})
        await ingest.pipeline.delete_query("shop")
        await ingest.pipeline.change_queries(QueryChange(put=[APP_INT]))  # spent begins anew
        await ingest.drain()
        assert await ingest.members("big") == []
        before = ingest.pipeline.definitions.schema

        changed = await ingest.pipeline.revert_schema(2)
        await ingest.drain()

        after = ingest.pipeline.definitions.schema
        assert changed
        assert [each.name for each in before.identities] == ["user_id", "device"]
        assert [each.name for each in after.identities] == ["user_id", "device"]
        assert after.fields["spent"].queries == ("shop", "app")
        assert await ingest.members("big") == [1]
        assert [row[2:] for row in await ingest.triggers()] == [
            ("enter", 1, "event"),
            ("exit", 2, "definition"),
            ("enter", 3, "definition"),
        ]
        await ingest.assert_sound()


async def test_a_revert_to_what_holds_changes_nothing(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(SHOP)

        assert not await ingest.pipeline.revert_schema(1)
        with pytest.raises(NotFound, match="no version 2"):
            await ingest.pipeline.revert_schema(2)
        assert len(await told(ingest)) == 1


async def test_a_revert_to_nothing_takes_all_queries_away_and_back(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(SHOP)
        await ingest.pipeline.put_query(APP)
        await ingest.pipeline.revert_schema(0)
        assert ingest.pipeline.definitions.queries == {}
        assert await version(ingest, 3) == []

        await ingest.pipeline.revert_schema(2)

        assert [row.text for row in await version(ingest, 4)] == [SHOP, APP]
        assert [row.version for row in await version(ingest, 4)] == [2, 2]


async def test_the_stored_queries_are_those_of_the_newest_version_also_after_a_restart(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(APP)
        await ingest.pipeline.delete_query("app")
        await ingest.pipeline.put_query(SHOP)
        await ingest.pipeline.put_query(APP)
        await ingest.pipeline.revert_schema(1)  # the first app, not the second: it ranks by the time of its making
    for number, aliases in ((5, ["app"]), (6, ["shop", "app"])):
        async with open_ingest(tmp_path) as ingest:
            stored = [each.row for each in ingest.pipeline.definitions.queries.values()]

            assert stored == await version(ingest, number)
            assert [row.alias for row in stored] == aliases
            if number == 5:
                await ingest.pipeline.revert_schema(4)


async def test_a_replay_plays_changes_of_several_queries_and_reverts(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        change = ingest.pipeline.change_queries
        await change(QueryChange(put=[SHOP, APP], description="both"))
        await ingest.pipeline.put_audience(BIG)
        await ingest.take({"user_id": "a", "amount": 150, "plan": "x"}, {"user_id": "b", "amount": 20})
        await ingest.take({"user_id": "b", "device": "d", "price": 90}, stream="app")
        await change(QueryChange(put=[SHOP_INT, APP_INT]))
        await ingest.take({"user_id": "a", "amount": 170}, {"user_id": "b", "amount": 60})
        await change(QueryChange(put=[SHOP], delete=["app"]))
        await ingest.take({"user_id": "c", "amount": 500}, {"user_id": "b", "plan": "y"})
        await ingest.pipeline.revert_schema(2)
        await ingest.take({"user_id": "a", "amount": 1}, {"device": "d", "amount": 60})
        await ingest.pipeline.revert_schema(1)
        await ingest.take({"user_id": "a", "amount": 1}, {"device": "d", "price": 60}, stream="app")
        await ingest.drain()
        await ingest.assert_sound()

        report = await replay(tmp_path / "events.db", tmp_path / "state.db", tmp_path / "again.db")

        assert report.differences == []
        assert report.same
        assert report.memberships > 0


async def test_an_audience_that_writes_a_field_in_another_case_is_evaluated_again(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(SHOP)
        await ingest.pipeline.put_audience("FILTER Spent >= 100 ALIAS big")
        await ingest.take({"user_id": "a", "amount": 200})
        await ingest.pipeline.put_query("SELECT user_id FROM web INTO user BY user_id ALIAS shop")
        await ingest.drain()
        assert await ingest.members("big") == []

        await ingest.pipeline.put_query(SHOP)
        await ingest.drain()

        assert await ingest.members("big") == [1]
        await ingest.assert_sound()


async def test_a_query_whose_expression_alone_changes_applies_to_the_next_event(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(SHOP)
        await ingest.take({"user_id": "a", "amount": 60})
        await ingest.pipeline.put_query(SHOP.replace("sum(amount)", "sum(amount * 2)"))  # the schema is the same
        await ingest.pipeline.put_audience(BIG)

        await ingest.take({"user_id": "a", "amount": 20})

        assert await ingest.members("big") == [1]


async def test_the_mapper_is_taken_over_where_queries_stay(tmp_path, open_ingest):
    async with open_ingest(tmp_path) as ingest:
        await ingest.pipeline.put_query(SHOP)
        mapper = ingest.pipeline.definitions.mapper
        await ingest.pipeline.put_audience(BIG)

        assert ingest.pipeline.definitions.mapper is mapper
