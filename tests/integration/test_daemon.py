"""The process: starts, says so, refuses a second one, stops."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

COHORTD = Path(sys.executable).with_name("cohortd")


async def test_health_and_openapi_need_no_token_and_metrics_does(tmp_path, open_daemon, make_token):
    async with open_daemon(tmp_path) as opened:
        assert (await opened.get("/health", token="")).status == 200
        assert (await opened.get("/ready", token="")).status == 200
        assert (await opened.get("/openapi.json", token="")).body["openapi"] == "3.1.0"
        refused = await opened.get("/metrics", token="")
        metrics = await opened.get("/metrics", token=make_token(tmp_path, "read"))

    assert refused.status == 401
    assert "cohortd token create --scope read" in refused.message
    assert metrics.status == 200
    names = {line.split("{")[0].split(" ")[0] for line in metrics.content.decode().splitlines() if line[:1] != "#"}
    assert names
    assert {name for name in names if not name.startswith("cohortd_")} == set()


async def test_every_reply_carries_the_request_id_and_unknown_paths_are_enveloped(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        given = await opened.get("/health", headers={"X-Request-Id": "mine-1"})
        made = await opened.get("/nothing/here")
        wrong = await opened.post("/health")

    assert given.headers["X-Request-Id"] == given.body["request_id"] == "mine-1"
    assert made.status == 404
    assert made.headers["X-Request-Id"] == made.body["request_id"]
    assert wrong.status == 405
    assert "GET" in wrong.headers["Allow"]


async def test_a_token_made_beside_the_daemon_works_at_once_and_a_revoked_one_ends_within_two_seconds(
    tmp_path, start_cohortd
):
    async with start_cohortd(tmp_path) as cohortd:
        token = (await _cohortd("token", "create", "--data-dir", tmp_path, "--scope", "read")).splitlines()[-1]
        before = await cohortd.client.get("/metrics", token=token)
        await _cohortd("token", "revoke", "--data-dir", tmp_path, token)
        async with asyncio.timeout(2):
            while (await cohortd.client.get("/metrics", token=token)).status == 200:
                pass

    assert before.status == 200


async def test_a_second_daemon_refuses_and_names_the_first(tmp_path, start_cohortd):
    async with start_cohortd(tmp_path) as cohortd:
        second = await asyncio.create_subprocess_exec(
            str(COHORTD), "run", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0", stdout=subprocess.PIPE
        )
        output, _ = await second.communicate()

    assert second.returncode == 1
    assert f"process {cohortd.process.pid}" in output.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_status_0_and_the_reason(tmp_path, start_cohortd, number):
    async with start_cohortd(tmp_path) as cohortd, asyncio.timeout(10):
        status = await cohortd.stop(number)

    assert status == 0
    assert cohortd.log[-1]["event"] == "daemon_stopped"
    assert cohortd.log[-1]["reason"] == number.name


async def test_it_starts_again_after_a_kill_on_the_same_address(tmp_path, start_cohortd):
    async with start_cohortd(tmp_path) as cohortd:
        address = cohortd.address
        await cohortd.kill()
        await cohortd.start()

        assert cohortd.address == address
        assert (await cohortd.client.get("/health")).status == 200


async def test_the_control_socket_is_private_and_has_scope_admin(tmp_path, start_cohortd):
    async with start_cohortd(tmp_path):
        mode = (tmp_path / "control.sock").stat().st_mode & 0o777
        connector = aiohttp.UnixConnector(str(tmp_path / "control.sock"))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://x/metrics") as response:
            status = response.status

    assert mode == 0o600
    assert status == 200


async def test_an_address_in_use_is_refused_in_a_line(tmp_path, start_cohortd):
    async with start_cohortd(tmp_path / "one") as first:
        listen = first.address.removeprefix("http://")
        second = await asyncio.create_subprocess_exec(
            str(COHORTD), "run", "--data-dir", str(tmp_path / "two"), "--listen", listen, stdout=subprocess.PIPE
        )
        output, _ = await second.communicate()

    assert second.returncode == 1
    assert b"server.listen: cannot listen on" in output
    assert b"Traceback" not in output


async def _cohortd(*arguments):
    process = await asyncio.create_subprocess_exec(COHORTD, *arguments, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()
