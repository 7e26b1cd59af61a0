"""Webhooks of GitHub: real payloads, as they are, become profiles and audiences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

EXAMPLES = Path(__file__).parent / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"

QUERY = """
SELECT
    sender.login                                AS login           SHORTDESC "GitHub login" KIND string,
    tostring(sender.id)                         AS github_id       KIND string,
    sender.type                                 AS account_type    KIND string,
    repository.full_name                        AS last_repository KIND string,
    set(repository.full_name)                   AS repositories    KIND []string,
    valuect(action)                             AS actions         KIND map[string]int,
    count(action)                               AS acted           KIND int,
    todate(issue.created_at)                    AS last_issue      KIND date   IF exists(issue.number),
    issue.title                                 AS last_title      KIND string IF action == "opened",
    oneof(repository.language, "none")          AS language        KIND string,
    host(sender.html_url)                       AS host            KIND string,
    hasprefix(repository.default_branch, "mas") AS old_branch      KIND bool
FROM github INTO user BY login OR github_id ALIAS github
"""

AUDIENCES = (
    'FILTER AND ( actions.opened >= 1, account_type = "User" ) FROM user ALIAS openers',
    'FILTER repositories INTERSECTS ("Codertocat/Hello-World") FROM user ALIAS hello_world',
    'FILTER last_issue > "now-30d" FROM user ALIAS recent_issue',
)


def payloads() -> list[dict[str, Any]]:
    if not EXAMPLES.exists():
        pytest.skip("npm's @octokit/webhooks-examples is not installed; `make test` does that")
    return [each for event in orjson.loads(EXAMPLES.read_bytes()) for each in event["examples"]]


async def test_every_example_payload_is_accepted_as_it_is_and_mapped(tmp_path: Path, open_daemon: Any) -> None:
    examples = payloads()
    with_sender = [each for each in examples if "sender" in each]
    wanted = {each["sender"]["login"] for each in with_sender}
    async with open_daemon(tmp_path) as daemon:
        await daemon.post("/api/query", data=QUERY, ok=True)
        for text in AUDIENCES:
            await daemon.post("/api/segment", data=text, ok=True)

        for each in examples:
            reply = await daemon.post("/collect/json/github", each)
            assert reply.status == 200, reply.content
            assert (reply.data["message_count"], reply.data["rejected_count"]) == (1, 0)
        await daemon.daemon.services.pipeline.drain()

        for login in wanted:
            profile = (await daemon.get(f"/api/entity/user/login/{login}", ok=True)).data
            assert profile["login"] == login
            assert profile["_num_events"] == sum(each["sender"]["login"] == login for each in with_sender)
        cat = (await daemon.get("/api/entity/user/login/Codertocat?segments=true", ok=True)).data
        opened = [
            each for each in with_sender if each["sender"]["login"] == "Codertocat" and each.get("action") == "opened"
        ]
        assert cat["actions"]["opened"] == len(opened)
        assert cat["host"] == "github.com"
        assert cat["old_branch"] is True
        assert "Codertocat/Hello-World" in cat["repositories"]
        assert cat["segments"] == ["hello_world", "openers"]
