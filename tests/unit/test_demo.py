"""The demo's parts that need no daemon."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from rich.console import Console

from daemon.cli import folder as folders
from daemon.demo import purchases, stage
from daemon.demo.play import Play
from daemon.demo.purchases import Purchase
from daemon.demo.receiver import Receiver
from daemon.demo.show import View
from daemon.demo.stage import Stage, StageError
from daemon.demo.watch import AudienceNow, Snapshot

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)


def test_the_data_is_what_its_readme_says():
    rows = purchases.read(ROOT / "tests" / "data" / "cdnow.csv")

    assert (len(rows), len({each.customer_id for each in rows})) == (69_659, 23_570)
    assert (date(1997, 1, 1), date(1998, 6, 30)) == (rows[0].day, rows[-1].day)


def test_the_log_ends_now_and_gaps_stay_what_they_were():
    rows = purchases.read(ROOT / "tests" / "data" / "cdnow.csv")
    moved = list(purchases.moved(rows, NOW))
    moments = [moment for _, moment in moved]

    assert moments == sorted(moments)
    assert NOW - timedelta(days=1) < moments[-1] <= NOW
    shifts = {moment.date() - each.day for each, moment in moved}
    assert len(shifts) == 1


def test_purchases_of_a_day_are_spread_over_it():
    rows = [Purchase(str(number), date(1998, 6, 29), "1", "1") for number in range(4)]
    moved = [moment for _, moment in purchases.moved([*rows, Purchase("5", date(1998, 6, 30), "1", "1")], NOW)]

    assert [moment.hour for moment in moved] == [0, 6, 12, 18, 0]


def test_another_file_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")

    with pytest.raises(ValueError, match="customer_id, purchased_at"):
        purchases.read(tmp_path / "other.csv")


def test_the_folder_of_definitions_is_in_order():
    wanted = folders.read(ROOT / "examples" / "cdnow", {"DEMO_RECEIVER_URL": "http://127.0.0.1:9/"})

    audiences = [each.name for each in wanted if each.kind == "audience"]
    assert audiences.index("champions") > max(audiences.index("big_spenders"), audiences.index("regulars"))
    assert {"CRM", "Warehouse"} == {each.name for each in wanted if each.kind == "job"}


def test_a_folder_that_is_no_demos_is_left_alone(tmp_path):
    (tmp_path / "events.db").write_bytes(b"mine")

    with pytest.raises(StageError, match="not by a demo"):
        stage.begin(tmp_path)
    assert (tmp_path / "events.db").read_bytes() == b"mine"
    with pytest.raises(StageError, match="not the folder of a demo"):
        stage.end(tmp_path)


def _play(seen: Snapshot, tmp_path: Path) -> Play:
    scene = Stage(tmp_path, "http://127.0.0.1:1", "token", "http://127.0.0.1:2/", 0, {})
    return Play(scene, tmp_path, View(Console(quiet=True)), seen)


GOOD = Snapshot(
    events=10,
    profiles=3,
    audiences=(AudienceNow("big", "", 2, 3, 1), AudienceNow("just_bought", "", 1, 2, 1)),
    webhook_triggers=7,
    files=1,
    lines=4,
)


def test_a_demo_that_went_well_has_no_findings(tmp_path):
    assert _play(GOOD, tmp_path)._findings(10) == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"events": 9}, "10 purchases were sent, 9 taken in"),
        ({"waiting": 1}, "10 purchases were sent, 9 taken in"),
        ({"undelivered": 2}, "2 triggers were not delivered"),
        ({"webhook_triggers": 0}, "the webhook has 0 triggers"),
        ({"forged": 1}, "1 with a wrong signature"),
        ({"lines": 0}, "no file"),
        ({"audiences": (AudienceNow("big", "", 5, 3, 1), *GOOD.audiences[1:])}, "counts 2 members, the daemon 5"),
        ({"audiences": GOOD.audiences[:1]}, "nobody left an audience by time"),
    ],
)
def test_what_did_not_come_out_is_found(tmp_path, change, finding: str):
    from dataclasses import replace  # noqa: PLC0415  (only here)

    findings = _play(replace(GOOD, **change), tmp_path)._findings(10)

    assert [each for each in findings if finding in each]


async def test_the_receiver_counts_a_trigger_once_and_refuses_forgeries():
    key = b"0123456789abcdef01234567"
    receiver = Receiver("whsec_" + base64.b64encode(key).decode())
    app = web.Application()
    app.add_routes([web.post("/", receiver.take), web.get("/", receiver.tell)])
    event = {"slug": "big", "event": "enter", "enter": "2026-01-01T00:00:00Z", "exit": "2099-12-31T23:59:59Z"}
    body = orjson.dumps([{"data": {"customer_id": "1", "segment_events": [event | {"trigger_id": "7"}]}}])
    signature = "v1," + base64.b64encode(hmac.digest(key, b"7.1700000000." + body, hashlib.sha256)).decode()
    head = {"webhook-id": "7", "webhook-timestamp": "1700000000", "webhook-signature": signature}

    async with TestClient(TestServer(app)) as client:
        statuses = [
            (await client.post("/", data=body, headers=head)).status,
            (await client.post("/", data=body, headers=head)).status,
            (await client.post("/", data=body + b" ", headers=head)).status,
            (await client.post("/", data=body)).status,
        ]
        told = orjson.loads(await (await client.get("/")).read())

    assert statuses == [204, 204, 401, 401]
    assert {"triggers": 1, "repeats": 1, "forged": 2, "events": {"big enter": 1}}.items() <= told.items()


def test_the_view_draws_every_number():
    console = Console(width=120, height=50)
    view = View(console, "Taking in")
    with console.capture() as captured:
        console.print(view._drawn(GOOD))

    for shown in ("Taking in", "big", "just_bought", "all delivered", "10", "7"):
        assert shown in captured.get()
