"""Authorizations: checked before they are kept, their health as it is found out, who may delete them, what they count.

The counterpart is a small HTTP server that lets `sesame-…` in and refuses the rest, in words that repeat what it got.
"""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Mapping
from contextlib import asynccontextmanager, closing
from typing import Annotated

import aiohttp.web
import pytest
from pydantic import Field, SecretStr
from structlog.testing import capture_logs

from connectors.sdk.catalog import assemble
from connectors.sdk.declare import (
    AuthCheck,
    AuthMethod,
    Choice,
    Choices,
    Choosing,
    Provider,
    Rate,
    TriggerExport,
    TriggerJob,
)
from connectors.sdk.errors import AuthError, ConfigError, TransientError
from connectors.sdk.http import open_client
from connectors.sdk.run import Credentials, TriggerRun
from daemon import app
from daemon import vault as vault_module
from daemon.jobs.authorizations import CHECKS_AT_ONCE
from daemon.model.job import JobState

GOOD = "sesame-open-4711-\u00fc"
BAD = "let-me-in-0815"
DAY_US = 86_400_000_000
CONFIG = {"audiences": ["vip"]}

pytestmark = pytest.mark.usefixtures("runs")


class Shop:
    """The provider's server: `answers` what it says to whom it does not know."""

    def __init__(self) -> None:
        self.address = ""
        self.known = GOOD
        self.down = False
        self.asked: list[str] = []

    async def answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        given = base64.b64decode(request.headers["X-Token"]).decode()
        self.asked.append(given)
        if self.down:
            return aiohttp.web.Response(status=503, text="back soon")
        if given != self.known:
            return aiohttp.web.Response(status=401, text=f"nobody here knows {given}")
        return aiohttp.web.json_response(["inbox", "outbox"])


class ShopToken(Credentials):
    address: str
    account: str = "main"
    token: SecretStr = Field(min_length=8)
    headers: Mapping[str, SecretStr] = {}


class ShopBasic(Credentials):
    user: str
    password: SecretStr


async def ask(network, address: str, token: SecretStr) -> list[str]:
    shown = base64.b64encode(token.get_secret_value().encode()).decode()
    async with (
        open_client(network, connections=1) as client,
        client.session.get(address, headers={"X-Token": shown}) as response,
    ):
        if response.status == 401:
            raise AuthError(f"the shop says: {await response.text()}, nor {shown}")
        if response.status == 503:
            raise TransientError(f"the shop says: {await response.text()}", retry_after=7)
        return await response.json()


async def check(check: AuthCheck[ShopToken]) -> None:
    if check.config.account == "broken":
        raise RuntimeError(f"a defect with {check.config.token.get_secret_value()}")
    if check.config.account == "slow":
        await asyncio.Event().wait()
    if check.config.account == "none":
        raise ConfigError("there is no account 'none'")
    try:
        await ask(check.network, check.config.address, check.config.token)
    except aiohttp.ClientConnectionError as error:
        raise TransientError(f"no answer: {type(error).__name__}") from error


async def folders(choosing: Choosing) -> list[Choice]:
    if choosing.config.get("broken"):
        raise RuntimeError("a defect")
    if choosing.auth is None:
        raise ConfigError("which shop? give an authorization")
    assert isinstance(choosing.auth, ShopToken)
    found = await ask(choosing.network, choosing.auth.address, choosing.auth.token)
    return [Choice(each, each.title()) for each in found if choosing.search in each]


class ShopTriggers(TriggerExport):
    folder: Annotated[str, Choices("folders", folders)] = "inbox"


class Runs:
    """Runs that end as the test says."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[tuple[TriggerRun, asyncio.Future]] = asyncio.Queue()

    async def run(self, run: TriggerRun[ShopTriggers]) -> None:
        end = asyncio.get_running_loop().create_future()
        self.begun.put_nowait((run, end))
        await end


TOKEN = AuthMethod("token", "Token", ShopToken, check, rate=Rate(3, 0.2))
BASIC = AuthMethod("basic", "Basic", ShopBasic)


@pytest.fixture
def runs(monkeypatch):
    runs = Runs()
    kind = TriggerJob(
        slug="shop_triggers", label="", description="", direction="export", config=ShopTriggers, run=runs.run,
        auths=(TOKEN,), auth_required=True,
    )  # fmt: skip
    known = assemble([Provider("shop", "Shop", "", (kind,), (TOKEN, BASIC))])
    monkeypatch.setattr(app, "catalog", lambda: known)
    monkeypatch.setattr(vault_module, "LOOK_AGAIN_S", 0.0)
    return runs


@asynccontextmanager
async def opened_shop():
    shop = Shop()
    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(shop.answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        shop.address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield shop
    finally:
        await runner.cleanup()


async def make(daemon, shop, **more):
    config = {"address": shop.address, "token": GOOD} | more.pop("config", {})
    answer = await daemon.post("/v2/auth/shop/token", {"label": "mine", "config": config} | more, ok=True)
    return answer.data


async def make_job(daemon, auth_id):
    await daemon.post("/api/query", data="SELECT email(email) AS email FROM web INTO user BY email ALIAS q")
    await daemon.post("/api/segment", data="FILTER EXISTS email ALIAS vip")
    return (await daemon.post("/v2/job/shop_triggers", {"config": CONFIG, "auth_id": auth_id}, ok=True)).data


def rows(folder, table):
    with closing(sqlite3.connect(folder / "state.db")) as db:
        return db.execute(f"SELECT * FROM {table}").fetchall()


async def test_a_refused_login_is_told_in_the_providers_words_and_nothing_is_kept(tmp_path, open_daemon):
    with capture_logs() as logs:
        async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
            refused = await daemon.post("/v2/auth/shop/token", {"config": {"address": shop.address, "token": BAD}})
            wrong = await daemon.post(
                "/v2/auth/shop/token", {"config": {"address": shop.address, "token": GOOD, "account": "none"}}
            )
            listed = await daemon.get("/v2/auth", ok=True)

    assert (422, "the shop says: nobody here knows ********, nor ********") == (refused.status, refused.message)
    assert [{"loc": ["config"], "msg": refused.message}] == refused.errors
    assert (422, "there is no account 'none'") == (wrong.status, wrong.message)
    assert ([], 0) == (listed.data, listed.body["total"])
    assert ([], []) == (rows(tmp_path, "auth"), rows(tmp_path, "auth_secret"))
    assert BAD not in str(logs)


async def test_an_authorization_is_made_shown_without_its_secret_and_described_anew(
    tmp_path, open_daemon, monkeypatch, make_token
):
    monkeypatch.setenv("SHOP_KEY", "from-outside-1234")
    async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
        made = await make(daemon, shop, config={"headers": {"X-Key": "env:SHOP_KEY", "X-Two": "second-secret"}})
        reader = make_token(tmp_path, "read")
        seen = (await daemon.get(f"/v2/auth/{made['id']}", token=reader, ok=True)).data
        edited = await daemon.call("PATCH", f"/v2/auth/{made['id']}", json={"description": "of the till"}, ok=True)
        refused = await daemon.call("PATCH", f"/v2/auth/{made['id']}", json={"config": {"token": "x"}})
        forbidden = await daemon.post("/v2/auth/shop/token", {"config": {}}, token=reader)

    assert {**seen, "last_used": None} == {**made, "last_used": None}
    assert ("healthy", "", "mine", {"address": shop.address, "account": "main"}) == (
        seen["status"], seen["reason"], seen["label"], seen["config"],
    )  # fmt: skip
    assert {
        "token": {"set": True, "reference": None},
        "headers/X-Key": {"set": True, "reference": "env:SHOP_KEY"},
        "headers/X-Two": {"set": True, "reference": None},
    } == seen["secrets"]
    assert ("mine", "of the till") == (edited.data["label"], edited.data["description"])
    assert (422, 403) == (refused.status, forbidden.status)
    assert 8 == len(seen["owner"])  # the token that made it
    content = b"".join(each.read_bytes() for each in tmp_path.iterdir() if each.is_file())
    assert [] == [each for each in (GOOD, "second-secret", "from-outside-1234") if each.encode() in content]


@pytest.mark.parametrize(
    ("config", "loc", "said"),
    [
        ({}, ["config", "token"], "Field required"),
        ({"token": "short"}, ["config", "token"], "at least 8"),
        ({"token": 12345678}, ["config", "token"], "valid string"),
        ({"token": GOOD, "tokn": GOOD}, ["config", "tokn"], "Extra inputs"),
        ({"token": "env:NOWHERE"}, ["config", "token"], "NOWHERE is not set"),
        ({"token": "env:"}, ["config", "token"], "given by reference"),
        ({"token": GOOD, "headers": {"a": "env:NOWHERE"}}, ["config", "headers", "a"], "NOWHERE is not set"),
    ],
)
async def test_values_that_cannot_be_are_refused_by_field_without_repeating_them(
    tmp_path, open_daemon, config, loc, said
):
    async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
        refused = await daemon.post("/v2/auth/shop/token", {"config": {"address": shop.address} | config})

    assert 422 == refused.status
    assert [loc] == [each["loc"] for each in refused.errors]
    assert said in refused.message
    assert GOOD.encode() not in refused.content
    assert [] == shop.asked


async def test_what_could_not_be_found_out_is_unknown_and_says_why(tmp_path, open_daemon):
    with capture_logs() as logs:
        async with opened_shop() as shop, open_daemon(tmp_path, auth={"check_timeout_s": 0.05}) as daemon:
            shop.down = True
            made = [await make(daemon, shop, config={"account": each}) for each in ("main", "broken", "slow")]
            shop.down = False
            healed = (await daemon.post(f"/v2/auth/{made[0]['id']}/check", ok=True)).data
            unchecked = await daemon.post(
                "/v2/auth/shop/basic", {"config": {"user": "ann", "password": "hush-hush"}}, ok=True
            )
            asked = (await daemon.post(f"/v2/auth/{unchecked.data['id']}/check", ok=True)).data

    assert ["unknown"] * 3 == [each["status"] for each in made]
    assert [
        "the shop says: back soon",
        "the check failed by a defect: RuntimeError: a defect with ********",
        "no answer within 0.05 s",
    ] == [each["reason"] for each in made]
    assert ("healthy", "") == (healed["status"], healed["reason"])
    assert ("unknown", None, "unknown") == (unchecked.data["status"], unchecked.data["checked"], asked["status"])
    assert ["authorization_check_crashed"] == [each["event"] for each in logs if each["log_level"] == "error"]
    assert [] == [each for each in (GOOD, "hush-hush") if each in str(logs)]


async def test_what_there_is_not_is_a_404_that_names_what_there_is(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as daemon:
        answers = [
            await daemon.post("/v2/auth/nobody/token", {}),
            await daemon.post("/v2/auth/shop/oauth", {}),
            await daemon.get("/v2/auth/nothing"),
            await daemon.post("/v2/auth/nothing/check"),
            await daemon.get("/v2/auth/nothing/metrics"),
            await daemon.delete("/v2/auth/nothing"),
            await daemon.call("PATCH", "/v2/auth/nothing", json={}),
        ]
        bad = [
            await daemon.get("/v2/auth?status=fine"),
            await daemon.get("/v2/auth?start=x"),
            await daemon.post("/v2/auth/rotate-key", data="{", headers={"Content-Type": "application/json"}),
        ]

    assert [404] * 7 == [each.status for each in answers]
    assert "there are shop" in answers[0].message
    assert "there are token, basic" in answers[1].message
    assert [400] * 3 == [each.status for each in bad]


async def test_the_list_comes_in_pages_with_what_each_is_used_by(tmp_path, open_daemon):
    async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
        made = [await make(daemon, shop, label=str(number)) for number in range(5)]
        job = await make_job(daemon, made[3]["id"])
        first = await daemon.get("/v2/auth?limit=3", ok=True)
        second = await daemon.get(f"/v2/auth?limit=3&start={first.body['_next']}", ok=True)
        none = await daemon.get("/v2/auth?status=unhealthy", ok=True)

    assert list("01234") == [each["label"] for page in (first, second) for each in page.data]
    assert (5, 5, 0) == tuple(each.body["total"] for each in (first, second, none))
    assert "_next" not in second.body
    assert {job["state"]: 1} == second.data[0]["jobs"]


@pytest.mark.parametrize("state", list(JobState))
async def test_an_authorization_is_deleted_only_when_no_job_can_still_use_it(tmp_path, open_daemon, runs, state):
    async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
        made = await make(daemon, shop)
        job = await make_job(daemon, made["id"])
        _, end = await runs.begun.get()
        match state:
            case JobState.SLEEPING:
                end.set_exception(TransientError("not now"))
            case JobState.FAILED:
                end.set_exception(ConfigError("never"))
            case JobState.PAUSED:
                await daemon.post(f"/v2/job/{job['id']}/pause", ok=True)
            case JobState.COMPLETED:
                await daemon.post(f"/v2/job/{job['id']}/complete", ok=True)
        async with asyncio.timeout(10):
            while (await daemon.get(f"/v2/job/{job['id']}")).data["state"] != state:
                await asyncio.sleep(0)
        answer = await daemon.delete(f"/v2/auth/{made['id']}")
        left = (await daemon.get("/v2/auth")).body["total"]

    if state in (JobState.FAILED, JobState.COMPLETED):
        assert (200, 0, [], []) == (answer.status, left, rows(tmp_path, "auth_secret"), rows(tmp_path, "auth_count"))
    else:
        assert (409, 1) == (answer.status, left)
        assert [(job["id"], state)] == [(each["id"], each["state"]) for each in answer.data["jobs"]]
        assert f"{job['id']} ({state})" in answer.message


async def test_a_failed_job_whose_authorization_was_deleted_says_so_when_it_is_resumed(tmp_path, open_daemon):
    async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
        made = await make(daemon, shop)
        job = await make_job(daemon, made["id"])
        await daemon.post(f"/v2/job/{job['id']}/complete", ok=True)
        await daemon.delete(f"/v2/auth/{made['id']}", ok=True)
        refused = await daemon.post("/v2/job/shop_triggers", {"config": CONFIG, "auth_id": made["id"]})
        with pytest.raises(ConfigError, match="was deleted; give the job another one"):
            await daemon.daemon.services.authorizations.opened(made["id"])

    assert 422 == refused.status


async def test_each_is_checked_daily_about_its_time_and_only_changes_are_told(tmp_path, open_daemon, frozen_clock):
    with capture_logs() as logs:
        async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
            look_after = daemon.daemon.services.authorizations.check_due
            made = [await make(daemon, shop) for _ in range(CHECKS_AT_ONCE * 2 + 1)]
            start_us = frozen_clock.us
            frozen_clock.us = start_us + round(0.89 * DAY_US)
            early = await look_after()
            shop.known = "another"
            frozen_clock.us = start_us + round(1.11 * DAY_US)
            asked = len(shop.asked)
            late, again = await look_after(), await look_after()
            asked = len(shop.asked) - asked
            unhealthy = (await daemon.get("/v2/auth?status=unhealthy")).data
            frozen_clock.us += round(1.11 * DAY_US)
            await look_after()
            shop.known = GOOD
            frozen_clock.us += round(1.11 * DAY_US)
            await look_after()
            healthy = (await daemon.get("/v2/auth?status=healthy")).body["total"]
            frozen_clock.us -= 30 * DAY_US  # the clock was wrong: what is due far from now is checked, and dated anew
            back = await look_after()
            then = await look_after()

    assert (0, len(made), 0, len(made)) == (early, late, again, asked)
    assert len(made) == len({each["next_check"] for each in made})
    assert {"the shop says: nobody here knows ********, nor ********"} == {each["reason"] for each in unhealthy}
    assert [len(made)] * 3 == [len(unhealthy), healthy, back]
    assert 0 == then
    told = [(each["before"], each["status"], each["log_level"], each["cause"]) for each in logs
            if each["event"] == "authorization_status_changed"]  # fmt: skip
    assert [("healthy", "unhealthy", "warning", "check"), ("unhealthy", "healthy", "info", "check")] == sorted(
        set(told)
    )
    assert 2 * len(made) == len(told)


async def test_checks_can_be_switched_off(tmp_path, open_daemon, frozen_clock):
    async with opened_shop() as shop, open_daemon(tmp_path, auth={"check_every_s": 0}) as daemon:
        made = await make(daemon, shop)
        frozen_clock.us += 400 * DAY_US

        assert 0 == await daemon.daemon.services.authorizations.check_due()
        assert None is made["next_check"]


async def test_what_runs_meet_sets_the_health(tmp_path, open_daemon, runs):
    with capture_logs() as logs:
        async with opened_shop() as shop, open_daemon(tmp_path, jobs={"back_off_s": 0.01}) as daemon:
            made = await make(daemon, shop)
            await make_job(daemon, made["id"])
            run, end = await runs.begun.get()
            assert GOOD == run.auth.token.get_secret_value()
            end.set_exception(AuthError("401 from the shop"))
            run, end = await runs.begun.get()
            refused = (await daemon.get(f"/v2/auth/{made['id']}")).data
            authorizations = daemon.daemon.services.authorizations
            authorizations.met(made["id"], TransientError("no answer"))
            still = (await daemon.get(f"/v2/auth/{made['id']}")).data
            authorizations.met(made["id"], None)
            authorizations.met(made["id"], None)
            healed = (await daemon.get(f"/v2/auth/{made['id']}")).data
            authorizations.met("gone", AuthError("no"))
            metrics = (await daemon.get("/metrics")).content.decode()

    assert 'cohortd_authorizations{status="healthy"} 1.0' in metrics
    assert ("unhealthy", "401 from the shop") == (refused["status"], refused["reason"])
    assert refused == {**still, "last_used": refused["last_used"]}
    assert ("healthy", "") == (healed["status"], healed["reason"])
    assert ["run", "run"] == [each["cause"] for each in logs if each["event"] == "authorization_status_changed"]


async def test_requests_are_counted_by_hour_day_and_week_over_a_restart(tmp_path, open_daemon, runs, frozen_clock):
    async with opened_shop() as shop:
        async with open_daemon(tmp_path) as daemon:
            made = await make(daemon, shop)
            await make_job(daemon, made["id"])
            run, _ = await runs.begun.get()
            for _ in range(2):
                await run.request()
            before = (await daemon.get(f"/v2/auth/{made['id']}/metrics", ok=True)).data
            frozen_clock.us += 2 * 3_600_000_000
            await run.request()
        async with open_daemon(tmp_path) as daemon:
            after = (await daemon.get(f"/v2/auth/{made['id']}/metrics", ok=True)).data
            seen = (await daemon.get(f"/v2/auth/{made['id']}", ok=True)).data

    assert {"hour": 2, "day": 2, "week": 2} == before["now"]
    assert {"hour": 1, "day": 3, "week": 3} == after["now"]
    assert [("2026-01-01T00:00:00Z", 2), ("2026-01-01T02:00:00Z", 1)] == [
        tuple(each.values()) for each in after["hour"]
    ]
    assert [{"start": "2025-12-29T00:00:00Z", "requests": 3}] == after["week"]
    assert "2026-01-01T02:00:00Z" == seen["last_used"]


async def test_jobs_of_one_authorization_share_its_rate(tmp_path, open_daemon):
    async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
        made = await make(daemon, shop)
        authorizations = daemon.daemon.services.authorizations
        first, second = [await authorizations.opened(made["id"]) for _ in range(2)]
        loop = asyncio.get_running_loop()
        passed = []

        async def requests(opened):
            for _ in range(4):
                await opened.request()
                passed.append(loop.time())

        waiting = asyncio.create_task(requests(second))
        await asyncio.gather(requests(first), requests(second))
        waiting.cancel()
        await asyncio.wait([waiting])

    # Never more than three in 0.2 s, whoever asks.
    windows = [later - earlier for earlier, later in zip(passed, passed[3:], strict=False)]
    assert len(passed) >= 8
    assert min(windows) >= 0.199


async def test_choices_are_looked_up_with_the_authorization_and_refusals_are_the_providers_words(tmp_path, open_daemon):
    path = "/v2/provider/shop/folders"
    async with opened_shop() as shop, open_daemon(tmp_path, auth={"check_timeout_s": 5}) as daemon:
        made = await make(daemon, shop)
        values = {"address": shop.address, "token": BAD}
        found = await daemon.post(path, {"auth_id": made["id"], "job_type": "shop_triggers"}, ok=True)
        searched = await daemon.post(path, {"auth_id": made["id"], "search": "in"}, ok=True)
        one = await daemon.post(path, {"auth_id": made["id"], "limit": 1}, ok=True)
        unsaved = await daemon.post(path, {"authorization": {"method": "token", "config": values | {"token": GOOD}}})
        refused = [
            await daemon.post(path, {"authorization": {"method": "token", "config": values}}),
            await daemon.post(path, {}),
            await daemon.post(path, {"auth_id": "nothing"}),
            await daemon.post(path, {"auth_id": made["id"], "job_type": "other"}),
            await daemon.post(path, {"auth_id": made["id"], "authorization": {"method": "token"}}),
        ]
        missing = [await daemon.post(each, {}) for each in ("/v2/provider/shop/files", "/v2/provider/nobody/folders")]
        shop.down = True
        down = await daemon.post(path, {"auth_id": made["id"]})
        defect = await daemon.post(path, {"auth_id": made["id"], "config": {"broken": True}})
        shop.down, shop.known = False, "another"
        now_refused = await daemon.post(path, {"auth_id": made["id"]})
        health = (await daemon.get(f"/v2/auth/{made['id']}")).data

    assert [{"value": "inbox", "label": "Inbox", "hint": ""}, {"value": "outbox", "label": "Outbox", "hint": ""}] == (
        found.data
    )
    assert (["inbox"], ["inbox"], 2) == ([each["value"] for each in searched.data],
                                        [each["value"] for each in one.data], len(unsaved.data))  # fmt: skip
    assert [422] * 5 == [each.status for each in refused]
    assert [404, 404] == [each.status for each in missing]
    assert "the shop says: nobody here knows ********, nor ********" == refused[0].message == now_refused.message
    assert "which shop? give an authorization" == refused[1].message
    assert (503, "7", "the shop says: back soon") == (down.status, down.headers["Retry-After"], down.message)
    assert (503, True) == (defect.status, "failed by a defect" in defect.message)
    assert "unhealthy" == health["status"]


async def test_the_catalogue_says_which_methods_enable_which_job_types(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as daemon:
        shop = (await daemon.get("/v2/provider/shop", ok=True)).data

    token, basic = shop["auth_methods"]
    (kind,) = shop["job_types"]
    assert (["shop_triggers"], [], ["token"], True) == (
        token["job_types"], basic["job_types"], kind["auth_methods"], kind["auth_required"],
    )  # fmt: skip
    assert (["token", "headers"], True, False, {"requests": 3, "per_s": 0.2}) == (
        token["secrets"], token["checked"], basic["checked"], token["rate"],
    )  # fmt: skip
    assert ("folders", ["folders"]) == (kind["schema"]["properties"]["folder"]["x-choices"], kind["choices"])
    assert True is token["schema"]["properties"]["token"]["writeOnly"]


async def test_a_lost_key_is_a_clear_state_and_heals_when_it_is_put_back(tmp_path, open_daemon, runs):
    key = tmp_path / "vault.key"
    async with opened_shop() as shop:
        async with open_daemon(tmp_path) as daemon:
            made = await make(daemon, shop)
            job = await make_job(daemon, made["id"])
            await runs.begun.get()
        kept = key.read_text()
        key.unlink()
        with capture_logs() as logs:
            async with open_daemon(tmp_path) as daemon:
                async with asyncio.timeout(10):
                    while (told := (await daemon.get(f"/v2/job/{job['id']}")).data)["state"] != "sleeping":
                        await asyncio.sleep(0)
                lost = (await daemon.get(f"/v2/auth/{made['id']}", ok=True)).data
                asked = len(shop.asked)
                checked = (await daemon.post(f"/v2/auth/{made['id']}/check", ok=True)).data
                listed = (await daemon.get("/v2/auth?status=unknown", ok=True)).data
                another = await make(daemon, shop)
                choices = await daemon.post("/v2/provider/shop/folders", {"auth_id": made["id"]})
                with key.open("a") as file:
                    file.write(kept)
                await daemon.post(f"/v2/job/{job['id']}/run", ok=True)
                run, _ = await runs.begun.get()
                found = (await daemon.get(f"/v2/auth/{made['id']}", ok=True)).data

    assert ("unknown", "unknown", [made["id"]]) == (lost["status"], checked["status"], [each["id"] for each in listed])
    assert "sealed with another key" in lost["reason"]
    assert "add that key as a line to" in told["reason"]
    assert 1 == len(shop.asked) - asked  # the other one's: nobody was asked in vain
    assert "healthy" == another["status"]
    assert 503 == choices.status
    assert ("healthy", GOOD) == (found["status"], run.auth.token.get_secret_value())
    assert ["vault_key_made", "secrets_not_readable"] == [
        each["event"] for each in logs if each["event"] in ("vault_key_made", "secrets_not_readable")
    ]


async def test_a_key_that_cannot_be_read_keeps_nothing_from_starting(tmp_path, open_daemon, monkeypatch):
    (tmp_path / "vault.key").write_text("not a key")
    monkeypatch.setenv("SHOP_TOKEN", GOOD)
    async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
        refused = await daemon.post("/v2/auth/shop/token", {"config": {"address": shop.address, "token": GOOD}})
        reference = await make(daemon, shop, config={"token": "env:SHOP_TOKEN"})
        rotated = await daemon.post("/v2/auth/rotate-key")

    assert [503, 503] == [refused.status, rotated.status]
    assert "line 1: not a key" in refused.message
    assert "healthy" == reference["status"]  # nothing to seal
    assert "not a key" == (tmp_path / "vault.key").read_text()


async def test_an_authorization_made_with_its_job_remains_only_when_the_job_does(tmp_path, open_daemon, runs):
    def asked(**more):
        config = {"address": shop.address, "token": GOOD} | more.pop("credentials", {})
        return {"config": CONFIG, "authorization": {"method": "token", "label": "till", "config": config}} | more

    path = "/v2/job/shop_triggers"
    async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
        no_audience = await daemon.post(path, asked())
        await make_job(daemon, (await make(daemon, shop))["id"])
        before = (await daemon.get("/v2/auth")).body["total"]
        job = (await daemon.post(path, asked(label="both"), ok=True)).data
        _ = await runs.begun.get()
        run, _ = await runs.begun.get()
        refused = [
            no_audience,
            await daemon.post(path, asked(credentials={"token": BAD})),
            await daemon.post(path, asked(credentials={"token": "short"})),
            await daemon.post(path, asked(config={"audiences": ["vip"], "colour": "red"})),
            await daemon.post(path, asked(auth_id=job["auth_id"])),
            await daemon.post(path, asked(authorization={"method": "basic", "config": {"user": "x"}})),
            await daemon.post(path, asked(schedule={"frequency": "daily"})),
            await daemon.post(path, {"config": CONFIG}),
        ]
        listed = (await daemon.get("/v2/auth")).data
        contents = b"".join(each.content for each in refused)

    assert ["mine", "till"] == [each["label"] for each in listed]
    assert (1, job["auth_id"], job["owner"]) == (before, listed[1]["id"], listed[1]["owner"])
    assert GOOD == run.auth.token.get_secret_value()
    assert [422] * 8 == [each.status for each in refused]
    assert [["config", "audiences", 0], ["authorization", "config"], ["authorization", "config", "token"]] == [
        each.errors[0]["loc"] for each in refused[:3]
    ]
    assert "the shop says: nobody here knows ********" in refused[1].message
    assert [] == [each for each in (GOOD, BAD) if each.encode() in contents]


async def test_an_authorization_that_goes_while_a_job_comes_is_refused_to_it_or_kept(tmp_path, open_daemon):
    async with opened_shop() as shop, open_daemon(tmp_path) as daemon:
        await make_job(daemon, (await make(daemon, shop))["id"])
        for _ in range(10):
            made = await make(daemon, shop)
            job, gone = await asyncio.gather(
                daemon.post("/v2/job/shop_triggers", {"config": CONFIG, "auth_id": made["id"]}),
                daemon.delete(f"/v2/auth/{made['id']}"),
            )
            left = await daemon.get(f"/v2/auth/{made['id']}")

            assert (job.status, gone.status, left.status) in ((200, 409, 200), (422, 200, 404))
