"""What all handlers share: tokens, addresses behind proxies, bodies within bounds, errors as JSON, the description."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from pydantic import BaseModel, Field

from daemon import settings
from daemon.store import tokens
from daemon.store.database import Database
from daemon.store.tokens import Tokens
from daemon.web import auth, body, envelope, server
from daemon.web.envelope import Reply, endpoint
from daemon.web.openapi import document
from daemon.web.services import SERVICES
from streams.ql.errors import QueryError, diagnostic


class Config(BaseModel):
    url: str = Field(min_length=3)
    sizes: list[int] = []


@endpoint("read", tag="test", query={"x": "what it does"}, body={"application/json": Config}, reply=Config)
async def configure(request):
    """Configures.

    And says more.
    """
    return Config.model_validate(await body.json_object(request, most=1000))


FAILURES = {
    "api": body.ApiError(429, "too much", retry_after=7, data={"message_count": 3}),
    "query": QueryError([diagnostic("FILTER x", 7, "no such thing")]),
    "full": sqlite3.OperationalError("database or disk is full"),
    "bug": LookupError("secret detail"),
}


@endpoint(None, tag="test")
async def fail(request):
    """Fails."""
    raise FAILURES[request.match_info["how"]]


@endpoint(None, tag="test")
async def page(request):
    """Pages."""
    start = envelope.start_of(request) or 0
    limit = envelope.limit_of(request, default=2, most=3)
    return Reply(list(range(start, start + limit)), total=10, next_cursor=envelope.cursor(start + limit))


@endpoint(None, tag="test")
async def who(request):
    """Says who asks."""
    return [auth.remote(request), auth.scheme(request)]


@endpoint(None, tag="test")
async def slow(request):
    """Reads, but not for ever."""
    return len(await body.read(request, silence_s=0.05))


@endpoint(None, tag="test")
async def hold(request):
    """Waits until it may end."""
    request.app[SERVICES].entered.set()
    await request.app[SERVICES].may_end.wait()
    return "whole"


@asynccontextmanager
async def serving(folder, **section):
    folder.mkdir(exist_ok=True)
    with tokens.beside(folder) as db:
        made = {scope: tokens.create(db, scope) for scope in tokens.SCOPES}
    loaded = settings.load(flags={"data_dir": folder, "server": {"listen": "127.0.0.1:0"} | section})
    async with Database.open(folder / tokens.FILE) as state, Tokens.open(state) as live:
        services = SimpleNamespace(
            settings=loaded,
            tokens=live,
            trusted_proxies=auth.networks(loaded.server.trusted_proxies),
            control_path="",
            ready=True,
            stopping=asyncio.Event(),
            entered=asyncio.Event(),
            may_end=asyncio.Event(),
        )
        app = server.application(
            services,
            [
                web.post("/config", configure),
                web.get("/fail/{how}", fail),
                web.get("/page", page),
                web.get("/who", who),
                web.get("/hold", hold),
                web.post("/slow", slow),
            ],
        )
        async with server.serve(app) as address, aiohttp.ClientSession(address) as session:
            yield SimpleNamespace(app=app, session=session, tokens=made, services=services, address=address)


async def ask(session, method, path, **options):
    async with session.request(method, path, **options) as response:
        return response.status, response.headers, await response.json()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("{read}", 200),
        ("Bearer {read}", 200),
        ("bearer {admin}", 200),
        ("Basic {basic}", 200),
        ("{data}", 403),
        ("nonsense", 401),
        ("Basic !", 401),
        ("", 401),
    ],
)
async def test_a_token_is_taken_bare_bearer_or_basic_and_its_scope_is_checked(tmp_path, header, status):
    async with serving(tmp_path) as it:
        basic = base64.b64encode(f"{it.tokens['read']}:".encode()).decode()
        headers = {"Authorization": header.format(**it.tokens, basic=basic)} if header else {}
        got, _, reply = await ask(it.session, "POST", "/config", json={"url": "abc"}, headers=headers)

    assert got == status
    assert reply["status"] == status
    if status == 200:
        assert reply["data"] == {"url": "abc", "sizes": []}
    else:
        assert "cohortd token" in reply["message"] or "scope" in reply["message"]


async def test_a_token_in_the_query_counts_for_collection_only(tmp_path):
    async with serving(tmp_path) as it:
        path = f"/config?access_token={it.tokens['admin']}"
        status, _, _ = await ask(it.session, "POST", path, json={"url": "abc"})

    assert status == 401


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        (b'{"url": "x"}', 422, "url: String should have at least 3 characters"),
        (b'{"url": "abc", "sizes": [1, "b"]}', 422, "sizes.1: Input should be a valid integer"),
        (b'{"url": ', 400, "not JSON"),
        (b'["url"]', 400, "not an object"),
        (b"\xff\xfe", 400, "not JSON"),
        (b" " * 1001, 413, "at most 1000 are accepted"),
    ],
)
async def test_a_bad_body_is_refused_with_where_and_what_would_be_accepted(tmp_path, sent, status, told):
    async with serving(tmp_path) as it:
        headers = {"Authorization": it.tokens["read"]}
        got, _, reply = await ask(it.session, "POST", "/config", data=sent, headers=headers)

    assert got == status
    assert told in reply["message"]
    if status == 422:
        assert {"loc", "msg"} == set(reply["errors"][0])


@pytest.mark.parametrize(
    ("how", "status", "told", "headers"),
    [
        ("api", 429, "too much", {"Retry-After": "7"}),
        ("query", 422, "line 1, column 8", {}),
        ("full", 503, "full", {"Retry-After": "5"}),
        ("bug", 500, "its log says why", {}),
    ],
)
async def test_every_failure_is_an_envelope_and_a_defect_tells_nothing_of_itself(tmp_path, how, status, told, headers):
    async with serving(tmp_path) as it:
        got, replied, reply = await ask(it.session, "GET", f"/fail/{how}")

    assert (got, reply["status"]) == (status, status)
    assert told in reply["message"]
    assert "secret" not in str(reply)
    assert headers.items() <= dict(replied).items()
    assert reply["request_id"] == replied["X-Request-Id"]


async def test_lists_carry_total_and_a_cursor_that_leads_on(tmp_path):
    async with serving(tmp_path) as it:
        _, _, first = await ask(it.session, "GET", "/page")
        _, _, second = await ask(it.session, "GET", f"/page?limit=99&start={first['_next']}")
        wrong = [(await ask(it.session, "GET", f"/page?{text}"))[0] for text in ("limit=0", "limit=x", "start=%20")]

    assert (first["data"], first["total"]) == ([0, 1], 10)
    assert second["data"] == [2, 3, 4]
    assert wrong == [400, 400, 400]


@pytest.mark.parametrize(
    ("trusted", "forwarded", "expected"),
    [
        ((), "9.9.9.9", "127.0.0.1"),
        (("10.0.0.0/8",), "9.9.9.9", "127.0.0.1"),
        (("127.0.0.0/8",), "9.9.9.9", "9.9.9.9"),
        (("127.0.0.0/8",), "6.6.6.6, 9.9.9.9", "9.9.9.9"),
        (("127.0.0.0/8", "10.0.0.0/8"), "9.9.9.9, 10.1.1.1", "9.9.9.9"),
        (("127.0.0.0/8",), "9.9.9.9:4711", "9.9.9.9"),
        (("127.0.0.0/8",), "[2001:db8::1]:4711", "2001:db8::1"),
        (("127.0.0.0/8",), "nonsense", "127.0.0.1"),
        (("127.0.0.0/8",), "", "127.0.0.1"),
    ],
)
async def test_the_clients_address_is_believed_of_trusted_proxies_only(tmp_path, trusted, forwarded, expected):
    async with serving(tmp_path, trusted_proxies=trusted) as it:
        headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"}
        _, _, reply = await ask(it.session, "GET", "/who", headers=headers)

    address, scheme = reply["data"]
    assert address == expected
    assert scheme == ("https" if "127.0.0.0/8" in trusted else "http")


async def test_a_proxy_on_the_unix_socket_is_trusted_and_the_socket_has_its_mode(tmp_path):
    path = tmp_path / "http.sock"
    async with serving(tmp_path / "data", unix_socket=path, unix_socket_mode="660"):
        mode = path.stat().st_mode & 0o777
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
            _, _, reply = await ask(session, "GET", "http://x/who", headers={"X-Forwarded-For": "9.9.9.9"})
            status, _, _ = await ask(session, "POST", "http://x/config", json={"url": "abc"})

    assert mode == 0o660
    assert reply["data"][0] == "9.9.9.9"
    assert status == 401  # only the control socket is a credential
    assert not path.exists()


async def test_a_stop_lets_requests_end_and_refuses_new_ones(tmp_path):
    async with aiohttp.ClientSession() as session:
        async with serving(tmp_path) as it:
            held = asyncio.ensure_future(ask(session, "GET", f"{it.address}/hold"))
            await it.services.entered.wait()
            async with session.get(f"{it.address}/who") as response:
                await response.read()
            it.services.stopping.set()
            late = await ask(session, "GET", f"{it.address}/who")
            asyncio.get_running_loop().call_later(0.05, it.services.may_end.set)
        status, _, reply = await held

    assert late[0] == 503
    assert late[1]["Retry-After"]
    assert (status, reply["data"]) == (200, "whole")


async def test_a_silent_sender_is_given_up(tmp_path):
    async with serving(tmp_path) as it:
        host, port = it.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        first = await reader.readline()
        writer.close()

    assert b" 408 " in first


async def test_what_is_no_http_is_a_400_and_nothing_of_it_is_logged(tmp_path, caplog):
    async with serving(tmp_path) as it:
        host, port = it.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\nAuthorization cohortd_secret\r\n\r\n")
        first = await reader.readline()
        writer.close()

    assert b" 400 " in first
    assert "secret" not in caplog.text


async def test_the_description_is_whole(tmp_path):
    async with serving(tmp_path) as it:
        made = document(it.app)

    operation = made["paths"]["/config"]["post"]
    assert (operation["summary"], operation["description"]) == ("Configures.", "And says more.")
    assert operation["x-scope"] == "read"
    assert operation["parameters"][0]["name"] == "x"
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert made["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]["url"]["minLength"] == 3
    assert [each["name"] for each in made["paths"]["/fail/{how}"]["get"]["parameters"]] == ["how"]
    assert made["paths"]["/health"]["get"]["security"] == []


def test_a_route_that_says_nothing_of_itself_is_refused():
    async def silent(_request):
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/silent", silent)])

    with pytest.raises(TypeError, match="/silent"):
        document(app)
