"""No secret is ever readable again (P9): searched for, byte by byte, in every file, log line and reply."""

from __future__ import annotations

import asyncio
import base64
import signal
import sys
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp.web
import orjson
import pytest

SECRETS = {
    "bearer": "tok-Zq8 geheim \u00fc/+?",
    "password": "pw-Kx4\"quoted'&\\secret",
    "header": "hdr-Yv2-secret-value",
    "signing": "whsec_" + base64.b64encode(b"sig-Wu7-secret-of-24-bytes").decode(),
    "reference": "ref-Tn5-secret-value",
    "refused": "ref-Sm3-refused-value",
}


def forms(secret: str) -> set[bytes]:
    """All that a secret could be found as: itself, base64 however it is aligned, hexadecimal, in an address or JSON."""
    content = secret.encode()
    found = {content, content.hex().encode(), quote(secret).encode(), orjson.dumps(secret)[1:-1]}
    for before in range(3):
        text = base64.b64encode(b"\0" * before + content)
        # Without the digits at the ends that depend on what stands beside it.
        found.add(text[4 if before else 0 : -4])
    return found


def leaks(content: bytes) -> list[str]:
    return [name for name, secret in SECRETS.items() if any(form in content for form in forms(secret))]


class Echo:
    """A destination that repeats, whatever it answers, what it was sent."""

    def __init__(self) -> None:
        self.status = 200
        self.address = ""
        self.seen: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.method == "POST":
            self.seen.put_nowait(headers)
        status = 401 if SECRETS["refused"] in str(headers) else self.status
        return aiohttp.web.Response(status=status, text=f"you sent {headers}", reason=f"no {headers.get('x-key')}")


@asynccontextmanager
async def opened_echo():
    echo = Echo()
    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(echo.answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        echo.address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield echo
    finally:
        await runner.cleanup()


CLI = "from daemon.cli import main; main()"


async def run(*arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.DEVNULL)
    return await process.wait()


def test_the_search_finds_what_it_is_for():
    for name, secret in SECRETS.items():
        for before in (b"", b"u:", b"user:"):
            content = before + secret.encode()
            assert [name] == leaks(b"..." + base64.b64encode(content) + b"...") == leaks(content)


async def test_a_full_run_leaves_no_secret_in_any_file_log_line_or_reply(tmp_path, start_cohortd):
    data = tmp_path / "data"
    environment = {"COHORTD_LOG_LEVEL": "debug", "COHORTD_JOBS_BACK_OFF_S": "0.05", "COHORTD_JOBS_RETRY_S": "0.1",
                   "KEPT_OUTSIDE": SECRETS["reference"]}  # fmt: skip
    replies: list[bytes] = []
    log: list[dict] = []
    async with opened_echo() as echo, start_cohortd(data, environment=environment) as cohortd:

        async def call(method, path, json=None, **more):
            answer = await cohortd.client.call(method, path, json=json, **more)
            replies.append(answer.content + str(answer.headers).encode())
            return answer

        async def make(method, config):
            body = {"label": method, "config": config}
            if method != "signature":
                config["check_url"] = echo.address
            return await call("POST", f"/v2/auth/webhook/{method}", body)

        made = [
            await make("bearer", {"token": SECRETS["bearer"]}),
            await make("basic", {"user": "ann", "password": SECRETS["password"]}),
            await make("headers", {"headers": {"X-Key": SECRETS["header"]}}),
            await make("signature", {"signing_secret": SECRETS["signing"]}),
            await make("bearer", {"token": "env:KEPT_OUTSIDE"}),
        ]
        refused = [
            await make("bearer", {"token": SECRETS["refused"]}),
            await make("bearer", {"token": [SECRETS["refused"]]}),
            await make("bearer", {"tokn": SECRETS["bearer"]}),
            await make("headers", {"headers": {"X Y": SECRETS["header"]}}),
            await make("oauth", {"token": SECRETS["bearer"]}),
            await call(
                "POST", "/v2/auth/webhook/bearer", None, data=b'{"config": {"token": "' + SECRETS["header"].encode()
            ),
        ]
        await call("POST", "/api/query", data="SELECT email(email) AS email FROM web INTO user BY email ALIAS q")
        await call("POST", "/api/segment", data="FILTER EXISTS email ALIAS vip")
        jobs = []
        for each in made:
            config = {"audiences": ["vip"], "url": echo.address}
            jobs.append(
                (await call("POST", "/v2/job/webhook_triggers", {"config": config, "auth_id": each.data["id"]})).data
            )
        for status in (200, 401, 500, 400):
            echo.status = status
            await call("POST", "/collect/json/web", {"email": f"{status}@example.com"}, ok=True)
            seen = [await echo.seen.get() for _ in made]
            if status == 200:
                assert {f"Bearer {SECRETS['bearer']}", f"Bearer {SECRETS['reference']}"} <= {
                    each.get("authorization", "").encode("utf-8", "surrogateescape").decode() for each in seen
                }
                assert [SECRETS["header"]] == [each["x-key"] for each in seen if "x-key" in each]
                assert 1 == sum("webhook-signature" in each for each in seen)
                await cohortd.logged(  # it cannot be checked: a delivery found it out
                    "authorization_status_changed", authorization=made[3].data["id"], status="healthy", cause="run"
                )
                log += cohortd.log
                await cohortd.kill()  # what a crash leaves behind counts too
                await cohortd.start()
            if status == 401:
                for each in made:
                    await cohortd.logged(
                        "authorization_status_changed", authorization=each.data["id"], status="unhealthy"
                    )
        rotated = await call("POST", "/v2/auth/rotate-key")
        for each, job in zip(made, jobs, strict=True):
            for path in ("", "/metrics"):
                await call("GET", f"/v2/auth/{each.data['id']}{path}")
                await call("GET", f"/v2/job/{job['id']}{path}")
            await call("POST", f"/v2/auth/{each.data['id']}/check")
        for path in ("/v2/auth", "/v2/job", "/v2/provider", "/metrics", "/v2/subscription", "/openapi.json"):
            await call("GET", path)
        backup = await run("-c", CLI, "backup", str(tmp_path / "backup"), "--data-dir", str(data))
        assert 0 == await cohortd.stop(signal.SIGTERM)
        log += cohortd.log

    assert [200] * 5 == [each.status for each in made], [each.content for each in made]
    assert [422, 422, 422, 422, 404, 400] == [each.status for each in refused]
    assert (200, 5) == (rotated.status, rotated.data["resealed"] + 1)  # the reference has nothing to be sealed
    assert 0 == backup
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert {"state.db", "events.db", "vault.key"} <= {each.name for each in files}
    assert [] == [(str(each), found) for each in files if (found := leaks(each.read_bytes()))]
    assert [] == [(line, found) for line in log if (found := leaks(orjson.dumps(line) + str(line).encode()))]
    assert {"authorization_created", "run_failed", "triggers_omitted"} <= {line["event"] for line in log}
    assert [] == [(reply[:300], found) for reply in replies if (found := leaks(reply))]


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from daemon import log
from daemon.jobs import rotation
from daemon.settings import Settings
from daemon.store import auths
from daemon.store.database import Database
from daemon.vault import Vault

folder, where, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rotation.PAGE = 3
calls = 0

def dying(name, real):
    def call(*given, **named):
        global calls
        calls += name == where
        if name == where and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    return call

Vault.drop = dying("drop", Vault.drop)
auths.reseal = dying("reseal", auths.reseal)
auths.under_other_keys = dying("look", auths.under_other_keys)
os.rename = dying("rename", os.rename)
Path.rename = dying("rename", Path.rename)

async def main():
    vault = Vault.open(folder, Settings(data_dir=folder))
    async with Database.open(folder / "state.db") as state:
        await rotation.rotate(state, vault)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("where", "number"),
    [("rename", 1), ("look", 1), ("reseal", 1), ("look", 2), ("reseal", 2), ("reseal", 4), ("drop", 1), ("rename", 2)],
)
async def test_a_rotation_killed_in_the_middle_leaves_every_secret_readable_and_is_finished_by_the_next(
    tmp_path, open_daemon, where, number
):
    async def readable(daemon, ids):
        found = [await daemon.daemon.services.authorizations.opened(each) for each in ids]
        return [each.credentials.token.get_secret_value() for each in found]

    async with open_daemon(tmp_path) as daemon:
        made = [
            (await daemon.post("/v2/auth/webhook/bearer", {"config": {"token": f"secret-{each}"}}, ok=True)).data["id"]
            for each in range(10)
        ]
        before = daemon.daemon.services.authorizations.vault.key_id
    killed = await run("-c", KILLED, str(tmp_path), where, str(number))
    async with open_daemon(tmp_path) as daemon:
        after_kill = await readable(daemon, made)
        rotated = (await daemon.post("/v2/auth/rotate-key", ok=True)).data
        after = await readable(daemon, made)
        known = daemon.daemon.services.authorizations.vault.known
    async with open_daemon(tmp_path) as daemon:
        restarted = await readable(daemon, made)
        reused = (await daemon.post("/v2/auth/rotate-key", {"keep": True}, ok=True)).data

    assert -signal.SIGKILL == killed
    assert [f"secret-{each}" for each in range(10)] == after_kill == after == restarted
    assert before not in known
    assert ({}, [rotated["key"]]) == (rotated["left"], known)
    assert (10, [], [rotated["key"]]) == (reused["resealed"], reused["dropped"], reused["unused"])
    assert [] == list(tmp_path.glob("vault.key.*"))


async def test_what_is_made_while_the_key_is_replaced_can_be_read_afterwards(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as daemon:

        async def make(number):
            answer = await daemon.post("/v2/auth/webhook/bearer", {"config": {"token": f"secret-{number}"}}, ok=True)
            return answer.data["id"]

        first = [await make(each) for each in range(3)]
        *rest, rotated, again = await asyncio.gather(
            *(make(each) for each in range(3, 20)),
            daemon.post("/v2/auth/rotate-key", ok=True),
            daemon.post("/v2/auth/rotate-key", ok=True),
        )
        authorizations = daemon.daemon.services.authorizations
        opened = [await authorizations.opened(each) for each in (*first, *rest)]

    assert [f"secret-{each}" for each in range(20)] == [each.credentials.token.get_secret_value() for each in opened]
    assert ({}, {}) == (rotated.data["left"], again.data["left"])
    assert 1 == len(authorizations.vault.known)
