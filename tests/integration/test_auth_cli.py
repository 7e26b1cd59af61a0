"""`cohortd auth`, as it is typed: what it shows, what it asks for, and that no secret is taken as an argument."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import aiohttp.web
import orjson
import pytest
from click.testing import CliRunner

from daemon.cli import authorizations, main

COHORTD = Path(sys.executable).with_name("cohortd")
SECRET = "hush-hush-4711"


class Shell:
    """Types commands; gives standard output and errors together."""

    def __init__(self, data_dir):
        self.data_dir = data_dir

    async def __call__(self, *words, status=0, stdin=""):
        process = await asyncio.create_subprocess_exec(
            COHORTD, "auth", *words, "--data-dir", self.data_dir, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        output, errors = await process.communicate(stdin.encode())
        assert process.returncode == status, (output + errors).decode()
        assert SECRET.encode() not in output + errors
        return (output + errors).decode()

    async def json(self, *words, **options):
        return orjson.loads(await self(*words, "--json", **options))


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


async def test_an_authorization_from_its_making_to_its_end(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path):
        methods = await shell("methods", "webhook")
        made = await shell.json(
            "create", "webhook", "bearer", "--label", "shop", "--stdin", "token", stdin=SECRET + "\n"
        )
        listed = await shell("list")
        shown = await shell("show", "shop")
        edited = await shell.json("edit", "shop", "--label", "till", "--description", "of the till")
        checked = await shell("check", "till")
        metrics = await shell("metrics", "till", "--by", "day")
        missing = await shell("show", "shop", status=1)
        await shell("delete", made["id"])
        none = await shell("list")

    assert "token*" in methods
    assert "webhook_triggers" in methods
    assert {"set": True, "reference": None} == made["secrets"]["token"]
    assert made["id"] in listed
    assert "set, sealed" in shown
    assert ("till", "of the till") == (edited["label"], edited["description"])
    assert "unknown: it was not checked" in checked
    assert "no requests yet" in metrics
    assert "there is no authorization 'shop'" in missing
    assert "no authorizations\n" == none


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bearer", "--set", f"token={SECRET}"), "token is a secret: as an argument every user of this host"),
        (("headers", "--set", f"headers.X-Key={SECRET}"), "headers.X-Key is a secret"),
        (("bearer", "--set", SECRET), "give FIELD=VALUE"),
        (("bearer", "--set", "token=env:"), "token: a secret is given by reference"),
        (("bearer",), "there is nobody to ask: pipe it in with --stdin token"),
        (("headers",), "give each with --ask headers.NAME"),
    ],
)
async def test_a_secret_in_clear_is_no_argument_and_it_says_what_to_do(tmp_path, open_daemon, shell, words, said):
    async with open_daemon(tmp_path) as daemon:
        refused = await shell("create", "webhook", *words, "--label", "x", status=2)
        left = (await daemon.get("/v2/auth", ok=True)).body["total"]

    assert said in refused
    assert 0 == left


async def test_secrets_come_by_reference_by_file_and_by_being_asked_for(
    tmp_path, open_daemon, shell, monkeypatch, tmp_path_factory
):
    monkeypatch.setenv("SHOP_KEY", SECRET)
    monkeypatch.setattr(authorizations, "_somebody_there", lambda: True)
    file = tmp_path_factory.mktemp("files") / "fields.yaml"
    file.write_text(f"user: ann\npassword: {SECRET}\n")
    broken = file.with_name("broken.yaml")
    broken.write_text(f"user: ann\npassword: '{SECRET}\n")

    def asked(*words):
        arguments = ["auth", "create", "webhook", *words, "--data-dir", str(tmp_path), "--json"]
        return CliRunner().invoke(main, arguments, input=f"{SECRET}\n")

    async with open_daemon(tmp_path) as daemon:
        reference = await shell.json("create", "webhook", "headers", "--label", "a", "--set", "headers.X=env:SHOP_KEY")
        await shell("create", "webhook", "basic", "--label", "b", "--config", str(file))
        await shell("create", "webhook", "basic", "--label", "c", "--config", "-", stdin=file.read_text())
        refused = await shell("create", "webhook", "basic", "--label", "d", "--config", str(broken), status=1)
        prompted = await asyncio.to_thread(asked, "bearer", "--label", "e")
        mapped = await asyncio.to_thread(asked, "headers", "--label", "f", "--ask", "headers.X-Key")
        opened = [
            await daemon.daemon.services.authorizations.opened(each["id"])
            for each in (await daemon.get("/v2/auth", ok=True)).data
        ]

    assert {"set": True, "reference": "env:SHOP_KEY"} == reference["secrets"]["headers/X"]
    assert "broken.yaml, line" in refused
    assert (0, 0) == (prompted.exit_code, mapped.exit_code), (prompted.output, mapped.output)
    assert SECRET not in prompted.output + mapped.output
    assert 5 == sum(SECRET in {each.reveal() for each in auth.secrets} for auth in opened)


async def test_an_unhealthy_one_ends_its_check_with_status_1(tmp_path, open_daemon, shell):
    refusing = False

    async def answer(_request):
        return aiohttp.web.Response(status=403 if refusing else 204, text="not any more" if refusing else None)

    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"check_url=http://127.0.0.1:{runner.addresses[0][1]}/"
        words = ("create", "webhook", "bearer", "--stdin", "token", "--label")
        async with open_daemon(tmp_path):
            await shell(*words, "x", "--set", url, stdin=SECRET)
            healthy = await shell("check", "x")
            refusing = True
            unhealthy = await shell("check", "x", status=1)
            listed = await shell("list", "--status", "unhealthy")
            refused = await shell(*words, "y", "--set", url, stdin=SECRET, status=1)
            private = await shell(*words, "z", "--set", "check_url=http://10.0.0.1/", stdin=SECRET, status=1)
    finally:
        await runner.cleanup()

    assert "healthy\n" == healthy
    assert "127.0.0.1 refused the credentials with 403 Forbidden: not any more" in unhealthy
    assert "not any more" in listed
    assert "not any more" in refused
    assert "10.0.0.1 is a private address" in private


async def test_the_key_is_replaced_beside_a_daemon_and_without_one(tmp_path, open_daemon, shell):
    async with open_daemon(tmp_path):
        await shell("create", "webhook", "bearer", "--label", "x", "--stdin", "token", stdin=SECRET)
        beside = await shell.json("rotate-key")
    without = await shell("rotate-key", "--keep-old")
    kept = (tmp_path / "vault.key").read_bytes()
    async with open_daemon(tmp_path) as daemon:
        made = (await daemon.get("/v2/auth")).data[0]
        opened = await daemon.daemon.services.authorizations.opened(made["id"])
    (tmp_path / "vault.key").unlink()
    lost = await shell("rotate-key", status=1)
    (tmp_path / "vault.key").write_bytes(kept)
    nowhere = await Shell(tmp_path / "nowhere")("rotate-key", status=1)

    assert (1, {}) == (beside["resealed"], beside["left"])
    assert 1 == len(beside["dropped"])
    assert "1 secrets were sealed anew" in without
    assert f"no secret needs key {beside['key']} any more" in without
    assert SECRET == opened.credentials.token.get_secret_value()
    assert "put it back, or make these authorizations anew" in lost
    assert "is no data directory" in nowhere


async def test_the_doctor_says_whether_the_key_is_there_and_makes_none(tmp_path, open_daemon, shell):
    async def vault():
        process = await asyncio.create_subprocess_exec(COHORTD, "doctor", "--json", "--data-dir", tmp_path, stdout=PIPE)
        output, _ = await process.communicate()
        return next((each["verdict"], each["text"]) for each in orjson.loads(output) if each["subject"] == "vault")

    before = await vault()
    made_by_looking = (tmp_path / "vault.key").exists()
    async with open_daemon(tmp_path):
        await shell("create", "webhook", "bearer", "--label", "x", "--stdin", "token", stdin=SECRET)
        (tmp_path / "vault.key").chmod(0o644)
        there = await vault()
    (tmp_path / "vault.key").write_text("broken")
    broken = await vault()
    (tmp_path / "vault.key").unlink()
    lost = await vault()

    assert ("ok", False) == (before[0], made_by_looking)
    assert "the first start makes" in before[1]
    assert "opens 1 secrets" in there[1]
    assert ["warning", "warning"] == [broken[0], lost[0]]
    assert "put the key back" in lost[1]
