"""One bad client must not merge a user base: everybody with the same device id, or with the same address."""

from __future__ import annotations

import orjson
import pytest

from daemon.ingest.replay import replay

PEOPLE = 4000
SINGLE = "SELECT {field}, anonymous_id, email, sum(amount) AS spent KIND number FROM web INTO user"
#: How the client is mapped, what everybody has in common, and how many people it may join before it is stopped.
CLIENTS = {
    "device": (f"{SINGLE} BY user_id OR anonymous_id ALIAS web", {"anonymous_id": "shared"}, 1),
    "address": (f"{SINGLE} BY user_id OR email OR anonymous_id ALIAS web", {"email": "none@none"}, 1),
    "both": (
        f"{SINGLE} BY user_id OR email OR anonymous_id ALIAS web",
        {"email": "none@none", "anonymous_id": "shared"},
        1,
    ),
    "sets": (
        (
            "SELECT set(user_id) AS user_ids KIND []string CAPACITY 5, set(anonymous_id) AS devices KIND []string,"
            " sum(amount) AS spent KIND number FROM web INTO user BY user_ids OR devices ALIAS web"
        ),
        {"anonymous_id": "shared"},
        11,
    ),
}


@pytest.mark.parametrize("client", [*CLIENTS])
async def test_a_value_that_everybody_shares_merges_a_handful_at_most(tmp_path, start_cohortd, client):
    query, shared, most = CLIENTS[client]
    lines = [orjson.dumps({"user_id": f"u{each}", "amount": 1, **shared}) for each in range(PEOPLE)]
    async with start_cohortd(tmp_path) as cohortd:
        await cohortd.client.post("/api/query", data=query.format(field="user_id"), ok=True)
        await cohortd.client.post("/api/segment", data="FILTER spent > 1 ALIAS merged", ok=True)
        half = b"\n".join(lines[: PEOPLE // 2])
        await cohortd.client.post(
            "/collect/bulk/web", data=half, headers={"Content-Type": "application/x-ndjson"}, ok=True
        )
        await cohortd.kill()  # what was counted so far must hold
        await cohortd.start()
        for start in range(PEOPLE // 2, PEOPLE, 50):
            some = b"[" + b",".join(lines[start : start + 50]) + b"]"
            await cohortd.client.post("/collect/json/web", data=some, ok=True)
        await _taken(cohortd)

        field, identity = ("user_ids", "devices") if client == "sets" else ("user_id", next(iter(shared)))
        value = next(iter(shared.values()))
        bad = (await cohortd.client.get(f"/api/entity/user/{identity}/{value}")).data
        last = (await cohortd.client.get(f"/api/entity/user/{field}/u{PEOPLE - 1}", params={"explain": "true"})).body
        status = (await cohortd.client.get("/v2/status", params={"count": "true"})).data
        metrics = (await cohortd.client.get("/metrics")).content.decode()
        noise = [each for each in cohortd.log if each.get("event") == "keys_refused"]

    assert bad["spent"] == bad["_num_events"] == most
    assert status["profiles"] == PEOPLE - most + 1
    assert (last["data"]["spent"], last["data"]["_num_conflicts"]) == (1, len(shared) if client != "sets" else 1)
    reason = "window" if client == "sets" else "conflict"
    assert {each["reason"] for each in last["explain"]["refused"]} == {reason}
    refused = {each["key"][0] for each in last["explain"]["refused"]}
    assert refused == ({"devices"} if client == "sets" else {*shared})
    assert f'reason="{reason}"' in metrics
    assert 1 <= len(noise) <= 4
    again = await replay(tmp_path / "events.db", tmp_path / "state.db", tmp_path / "again.db")
    assert again.same, again.differences


async def _taken(cohortd):
    """Waits until all that was sent is in the profiles."""
    while True:
        status = (await cohortd.client.get("/v2/status")).data
        if not sum(status["lag"].values()):
            return
