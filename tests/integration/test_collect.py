"""Collection over HTTP: what is accepted, what is refused and how, and what hostile senders get."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import resource
import socket
import sqlite3
import zlib
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from daemon.store import events as event_log

NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv"}
JSON = {"Content-Type": "application/json"}
NOTHING = {
    "message_count": 0,
    "rejected_count": 0,
    "duplicate_count": 0,
    "dryrun": False,
    "filename": None,
    "errors": [],
}


async def bodies(opened, stream):
    found = (await opened.get(f"/v2/stream/{stream}/events", ok=True)).data
    return [each["data"] for each in reversed(found)]


async def memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_json_one_array_and_lines(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        one = await opened.post("/collect/json/web", {"n": 1}, ok=True)
        many = await opened.post("/collect/json/web?filename=f.json", [{"n": 2}, {"n": 3}], ok=True)
        lines = await opened.post("/collect/json/web", data=b'{"n":4}\n{"n":5}\n', headers=NDJSON, ok=True)
        unsaid = await opened.post("/collect/json/web", data=b'{"n":6}\n{"n":7}', headers=JSON, ok=True)
        packed = await opened.post(
            "/collect/json/web", data=gzip.compress(b'{"n":8}'), headers=JSON | {"Content-Encoding": "gzip"}, ok=True
        )
        deflated = await opened.post(
            "/collect/json/web", data=zlib.compress(b'{"n":9}'), headers=JSON | {"Content-Encoding": "deflate"}, ok=True
        )
        events = await bodies(opened, "web")

    assert one.data == NOTHING | {"message_count": 1}
    assert many.data == NOTHING | {"message_count": 2, "filename": "f.json"}
    assert [each.data["message_count"] for each in (lines, unsaid, packed, deflated)] == [2, 2, 1, 1]
    assert [each["n"] for each in events] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    for reply in (one, many, lines):
        assert reply.headers["X-Request-Id"] == reply.body["request_id"]
        assert reply.body["status"] == 200


async def test_what_curl_sends_without_a_content_type_of_its_own_is_read_as_json(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        reply = await opened.post("/collect/json/web", data=b'{"a": 1}', headers=headers)

        assert (reply.status, reply.data["message_count"]) == (200, 1)


async def test_a_lone_event_and_any_other_request_are_answered_alike(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        quick = [await opened.post("/collect/json/web", {"_id": "a"}) for _ in range(2)]
        slow = [await opened.post("/collect/json/web", {"_id": "b"}, headers={"X-Request-Id": "x"}) for _ in range(2)]

    assert [each.data for each in quick] == [each.data for each in slow]
    assert [each.data["duplicate_count"] for each in quick] == [0, 1]
    assert slow[0].headers["X-Request-Id"] == "x"
    assert {each.headers["Content-Type"] for each in quick} == {each.headers["Content-Type"] for each in slow}


async def test_bad_events_are_told_by_index_and_can_be_read_among_the_rejects(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        mixed = await opened.post(
            "/collect/json/web", data=b'[{"n":1},{"a":NaN},{"_ts":"soon"},{"n":2},3]', headers=JSON
        )
        nothing = await opened.post("/collect/json/web", data=b'[{"a":NaN}]', headers=JSON)
        malformed = await opened.post("/collect/json/web", data=b'{"a":', headers=JSON)
        rejects = (await opened.get("/v2/stream/web/rejects?limit=3", ok=True)).body
        more = (await opened.get(f"/v2/stream/web/rejects?limit=3&start={rejects['_next']}", ok=True)).body

    assert mixed.status == 200
    assert (mixed.data["message_count"], mixed.data["rejected_count"]) == (2, 3)
    assert [error["index"] for error in mixed.data["errors"]] == [1, 2, 4]
    assert nothing.status == 400
    assert nothing.data["rejected_count"] == 1
    assert malformed.status == 400
    assert "line 1 column 6" in malformed.message
    places = [each["place"] for each in rejects["data"] + more["data"]]
    assert places == ["body", "index 0", "index 4", "index 2", "index 1"]
    assert rejects["total"] == 5
    assert "_next" not in more
    assert rejects["data"][1]["sample"] == '{"a":NaN}'
    assert rejects["data"][2]["request_id"] == mixed.headers["X-Request-Id"]


async def test_a_dry_run_counts_and_stores_nothing(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        json = await opened.post("/collect/json/web?dryrun=true", [{"n": 1}, 3], ok=True)
        bulk = await opened.post("/collect/bulk/web?dryrun=1", data=b"a,b\n1,2\n", headers=CSV, ok=True)
        seen = await opened.get("/v2/stream/web")

    assert json.data["dryrun"] is True
    assert (json.data["message_count"], json.data["rejected_count"]) == (1, 1)
    assert bulk.data["message_count"] == 1
    assert seen.status == 404


@pytest.mark.parametrize(
    ("path", "headers", "data", "status", "told"),
    [
        ("/collect/json/web", {"Content-Type": "application/xml"}, b"<a/>", 415, "application/json"),
        ("/collect/json/web", JSON | {"Content-Encoding": "br"}, b"x", 415, "gzip"),
        ("/collect/bulk/web", CSV | {"Content-Encoding": "zstd"}, b"x", 415, "gzip"),
        (
            "/collect/json/web",
            JSON | {"Content-Encoding": "gzip"},
            gzip.compress(b"{}", mtime=0)[:-1],
            400,
            "not complete",
        ),
        ("/collect/json/web", JSON | {"Content-Encoding": "deflate"}, zlib.compress(b"{}")[:-1], 400, "not complete"),
        ("/collect/json/web", {"Content-Type": "application/json; charset=latin-1"}, b"{}", 415, "UTF-8"),
        ("/collect/json/web", JSON | {"Content-Encoding": "gzip"}, b"not packed", 400, "damaged"),
        ("/collect/json/web", JSON, b"[" + b" " * 11_000_000 + b"]", 413, "at most 10485760"),
        ("/collect/json/we%20b", JSON, b"{}", 400, "stream"),
        ("/collect/json/web?dryrun=perhaps", JSON, b"{}", 400, "dryrun"),
        ("/collect/bulk/web", {"Content-Type": "text/html"}, b"a,b", 415, "text/csv"),
        ("/collect/bulk/web?append=3", CSV, b"a,b", 400, "append"),
        ("/collect/bulk/web?delimiter=xyz", CSV, b"a,b", 400, "delimiter"),
        ("/collect/bulk/web", CSV, b"a,a\n1,2", 400, "more than once"),
        ("/collect/form/web", JSON, b"{}", 415, "multipart/form-data"),
        ("/collect/form/web", {"Content-Type": "application/x-www-form-urlencoded"}, b"", 400, "no fields"),
        ("/collect/form/web", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=%ff", 400, "UTF-8"),
        ("/collect/form/web", {"Content-Type": "multipart/form-data"}, b"a=1", 400, "form"),
    ],
)
async def test_what_is_refused_and_what_would_be_accepted(tmp_path, open_daemon, path, headers, data, status, told):
    async with open_daemon(tmp_path) as opened:
        reply = await opened.post(path, data=io.BytesIO(data), headers=headers)

    assert reply.status == status
    assert told in reply.message
    assert reply.headers["X-Request-Id"] == reply.body["request_id"]


async def test_tokens_of_collection(tmp_path, open_daemon, make_token):
    async with open_daemon(tmp_path) as opened:
        data, read = make_token(tmp_path, "data"), make_token(tmp_path, "read")
        ways = [
            await opened.post("/collect/json/web", {}, token=data),
            await opened.post("/collect/json/web", {}, token=f"Bearer {data}"),
            await opened.post(f"/collect/json/web?access_token={data}", {}, token=""),
            await opened.post(f"/collect/json/web?key={data}", {}, token=""),
        ]
        none = await opened.post("/collect/json/web", {}, token="")
        wrong = await opened.post("/collect/json/web", {}, token="nonsense")
        reader = await opened.post("/collect/json/web", {}, token=read)
        looking = await opened.get("/v2/stream", token=data)

    assert [each.status for each in ways] == [200] * 4
    assert (none.status, wrong.status, reader.status, looking.status) == (401, 401, 403, 403)


async def test_csv_without_droperrors_ends_at_the_first_malformed_line_and_keeps_what_came_before(
    tmp_path, open_daemon
):
    content = b"a,b\n1,2\n3,4\nbad\n5,6\n"
    async with open_daemon(tmp_path) as opened:
        ended = await opened.post("/collect/bulk/strict", data=content, headers=CSV)
        dropped = await opened.post("/collect/bulk/loose?droperrors=true", data=content, headers=CSV)
        strict, loose = await bodies(opened, "strict"), await bodies(opened, "loose")

    assert ended.status == 400
    assert "line 4" in ended.message
    assert ended.data["errors"] == [{"line": 4, "msg": "the row has 1 values, there are 2 columns"}]
    assert (ended.data["message_count"], ended.data["rejected_count"]) == (2, 1)
    assert dropped.status == 200
    assert (dropped.data["message_count"], dropped.data["rejected_count"]) == (3, 1)
    assert [each["a"] for each in strict] == ["1", "3"]
    assert [each["a"] for each in loose] == ["1", "3", "5"]


async def test_ndjson_without_droperrors_ends_at_the_first_malformed_line(tmp_path, open_daemon):
    content = b'{"n":1}\n{"n":NaN}\n{"n":3}\n'
    async with open_daemon(tmp_path) as opened:
        ended = await opened.post("/collect/bulk/strict", data=content, headers=NDJSON)
        dropped = await opened.post("/collect/bulk/loose?droperrors", data=content, headers=NDJSON)

    assert (ended.status, ended.data["message_count"], ended.data["errors"][0]["line"]) == (400, 1, 2)
    assert (dropped.status, dropped.data["message_count"], dropped.data["rejected_count"]) == (200, 2, 1)


async def test_the_parameters_of_csv(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        reply = await opened.post(
            "/collect/bulk/web",
            params={
                "headers": "id,when",
                "delimiter": ";",
                "append": '{"source":"till"}',
                "timestamp_field": "when",
                "filename": "till.csv",
            },
            data=gzip.compress(b"1;1997-01-05\n2;1998-06-30\n"),
            headers={"Content-Type": "application/csv", "Content-Encoding": "gzip"},
            ok=True,
        )
        events = (await opened.get("/v2/stream/web/events", ok=True)).data

    assert reply.data == NOTHING | {"message_count": 2, "filename": "till.csv"}
    assert [(each["time"], each["data"], each["lane"]) for each in reversed(events)] == [
        ("1997-01-05T00:00:00Z", {"id": "1", "when": "1997-01-05", "source": "till"}, "bulk"),
        ("1998-06-30T00:00:00Z", {"id": "2", "when": "1998-06-30", "source": "till"}, "bulk"),
    ]


@pytest.mark.parametrize("unsaid", ["application/gzip", "application/octet-stream"])
async def test_a_file_that_is_gzip_by_its_content_is_unpacked_and_its_form_told_by_its_start(
    tmp_path, open_daemon, unsaid
):
    both = gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n")
    async with open_daemon(tmp_path) as opened:
        headers = {"Content-Type": unsaid}
        csv = await opened.post("/collect/bulk/web", data=both, headers=headers, ok=True)
        json = await opened.post("/collect/bulk/web", data=gzip.compress(b'{"n":1}\n'), headers=headers, ok=True)
        cut = await opened.post("/collect/bulk/web", data=both[:-10], headers=headers)

    assert csv.data["message_count"] == 2
    assert json.data["message_count"] == 1
    assert cut.status == 400
    assert "not complete" in cut.message


async def test_a_long_upload_is_stored_whole_and_single_events_go_on_beside_it(tmp_path, open_daemon):
    async def rows():
        yield b"n,text\n"
        for start in range(0, 20_000, 1000):
            yield b"".join(b"%d,some text\n" % number for number in range(start, start + 1000))
            await asyncio.sleep(0)

    async with open_daemon(tmp_path) as opened:
        upload = asyncio.ensure_future(opened.post("/collect/bulk/web", data=rows(), headers=CSV))
        beside = [await opened.post("/collect/json/web", {"n": number}) for number in range(20)]
        reply = await upload
        stats = (await opened.get("/v2/stream/web/stats", ok=True)).data

    assert reply.status == 200
    assert reply.data["message_count"] == 20_000
    assert {each.status for each in beside} == {200}
    assert stats["events"] == 20_020


async def test_forms_and_the_pixel(tmp_path, open_daemon):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with open_daemon(tmp_path) as opened:
        await opened.post("/collect/form/web", data=b"a=1&b=x+y&b=%C3%A4", headers=form, ok=True)
        account = f"/c/{opened.token}"
        gif = await opened.get(
            f"{account}/web?k=v&_e=pv", token="", headers={"Origin": "https://shop.example"}, ok=True
        )
        default = await opened.get(f"{account}?k=w", token="", ok=True)
        posted = await opened.post(f"{account}/web?k=1", data=b"m=2", headers=form, token="", ok=True)
        beacon = await opened.post(
            f"{account}/web",
            data=b'{"beacon":1}',
            headers={"Content-Type": "text/plain;charset=UTF-8"},
            token="",
            ok=True,
        )
        preflight = await opened.call(
            "OPTIONS",
            f"{account}/web",
            token="",
            headers={"Origin": "https://shop.example", "Access-Control-Request-Headers": "content-type"},
        )
        wrong = await opened.get("/c/nonsense/web?k=v", token="", headers={"Origin": "https://shop.example"})
        events, others = await bodies(opened, "web"), await bodies(opened, "default")

    assert events == [{"a": "1", "b": ["x y", "ä"]}, {"k": "v", "_e": "pv"}, {"k": "1", "m": "2"}, {"beacon": 1}]
    assert others == [{"k": "w"}]
    for reply in (gif, default, posted, beacon):
        assert reply.content[:6] == b"GIF89a"
        assert reply.headers["Content-Type"] == "image/gif"
        assert "no-store" in reply.headers["Cache-Control"]
        assert reply.headers["X-Request-Id"]
    assert gif.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert default.headers["Access-Control-Allow-Origin"] == "*"
    assert preflight.status == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"] == "content-type"
    assert wrong.status == 401
    assert wrong.headers["Access-Control-Allow-Origin"] == "https://shop.example"


async def test_a_multipart_form_of_text_is_one_event_and_a_file_in_it_is_refused(tmp_path, open_daemon):
    def part(name, value, extra=""):
        return f'--x\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n{value}\r\n'

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with open_daemon(tmp_path) as opened:
        data = (part("a", "1") + part("b", "ä") + "--x--\r\n").encode()
        reply = await opened.post("/collect/form/web", data=data, headers=headers, ok=True)
        data = (part("f", "1", '; filename="f.txt"') + "--x--\r\n").encode()
        file = await opened.post("/collect/form/web", data=data, headers=headers)
        data = (part("a", "x" * 200_000) + "--x--\r\n").encode()
        large = await opened.post("/collect/form/web", data=data, headers=headers)
        events = await bodies(opened, "web")

    assert reply.data["message_count"] == 1
    assert events == [{"a": "1", "b": "ä"}]
    assert (file.status, large.status) == (400, 413)


async def test_the_segment_api(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        basic = {"Authorization": "Basic " + base64.b64encode(f"{opened.token}:".encode()).decode()}
        track = {"userId": "u", "event": "Bought", "properties": {"price": 5}, "messageId": "m1"}
        replies = [
            await opened.post("/v1/track", track, headers=basic, token=""),
            await opened.post("/v1/track", track, headers=basic, token=""),
            await opened.post("/v1/identify", {"userId": "u", "traits": {"a": 1}, "writeKey": opened.token}, token=""),
            await opened.post("/v1/page", {"userId": "u"}, token=f"Bearer {opened.token}"),
            await opened.post(
                "/v1/batch",
                {
                    "batch": [{"type": "screen", "anonymousId": "a"}, {"type": "track", "userId": "u"}],
                    "context": {"ip": "1.2.3.4"},
                },
                headers=basic,
                token="",
            ),
        ]
        wrong = await opened.post("/v1/track", track, token="")
        large = await opened.post("/v1/track", track | {"properties": {"text": "x" * 33_000}}, headers=basic, token="")
        call = {"type": "track", "userId": "u", "event": "e", "properties": {"text": "x" * 1000}}
        huge = await opened.post("/v1/batch", {"batch": [call] * 600}, headers=basic, token="")
        one = await opened.post(
            "/v1/batch", {"batch": [call, call | {"properties": {"text": "x" * 33_000}}]}, headers=basic, token=""
        )
        malformed = await opened.post("/v1/batch", data=b"{", headers=basic | JSON, token="")
        events = await bodies(opened, "segment")
        rejects = (await opened.get("/v2/stream/segment/rejects", ok=True)).data

    assert [(each.status, each.body) for each in replies] == [(200, {"success": True})] * 5
    assert all(each.headers["X-Request-Id"] for each in replies)
    assert [each["type"] for each in events] == ["track", "identify", "page", "screen"]
    assert events[0]["_id"] == "m1"
    assert events[0]["properties"] == {"price": 5}
    assert "writeKey" not in events[1]
    assert events[3]["context"] == {"ip": "1.2.3.4"}
    assert [each["message"] for each in rejects] == ["a track call needs event"]
    assert [each.status for each in (wrong, large, huge, one, malformed)] == [401, 400, 400, 400, 400]


async def test_beyond_the_backlog_every_way_in_is_429_with_retry_after(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        collector = opened.daemon.services.collector
        collector._cursors = lambda: {"realtime": -(10**9), "bulk": -(10**9)}
        account = f"/c/{opened.token}/web"
        replies = [
            await opened.post("/collect/json/web", {}),
            await opened.post("/collect/json/web", [{}, {}]),
            await opened.post("/collect/bulk/web", data=b"a\n1\n", headers=CSV),
            await opened.post(
                "/collect/form/web", data=b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"}
            ),
            await opened.get(f"{account}?a=1", token=""),
            await opened.post("/v1/track", {"userId": "u", "event": "e"}),
        ]

    assert [each.status for each in replies] == [429] * 6
    assert all(int(each.headers["Retry-After"]) > 0 for each in replies)


async def test_an_upload_under_way_is_slowed_while_ingest_is_behind_and_then_goes_on(tmp_path, open_daemon):
    async with open_daemon(tmp_path, collect={"bulk_backlog_events": 1000}) as opened:
        collector = opened.daemon.services.collector
        cursors = {"realtime": 0, "bulk": 0}
        collector._cursors = lambda: cursors
        content = b"".join(b'{"n":%d}\n' % number for number in range(5000))
        upload = asyncio.ensure_future(opened.post("/collect/bulk/web", data=content, headers=NDJSON))
        async with asyncio.timeout(10):
            while collector.lag("bulk") < 1000:
                await asyncio.sleep(0.01)
        stuck_at = collector._lanes["bulk"].head
        at_the_door = await opened.post("/collect/bulk/web", data=b'{"n":1}', headers=NDJSON)
        cursors["bulk"] = 10**6
        reply = await upload

    assert stuck_at < 5000
    assert at_the_door.status == 429
    assert reply.status == 200
    assert reply.data["message_count"] == 5000


async def test_a_log_that_fails_in_the_middle_of_an_upload_tells_how_much_is_stored(tmp_path, open_daemon, monkeypatch):
    append = event_log.append
    calls = []

    def failing(db, lane, batches, us):
        calls.append(lane)
        if lane == "bulk" and calls.count("bulk") > 3:
            raise sqlite3.OperationalError("disk I/O error")
        return append(db, lane, batches, us)

    content = b"".join(b'{"n":%d}\n' % number for number in range(5000))
    async with open_daemon(tmp_path) as opened:
        monkeypatch.setattr(event_log, "append", failing)
        reply = await opened.post("/collect/bulk/web", data=content, headers=NDJSON)
        stored = await opened.daemon.services.events.read(
            lambda db: db.execute("SELECT count(*), max(body) FROM event_bulk").fetchone()
        )

    assert reply.status == 503
    assert int(reply.headers["Retry-After"]) > 0
    assert 0 < reply.data["message_count"] < 5000
    assert reply.data["message_count"] == stored[0]


async def raw(address: str, *pieces: bytes, then_read: bool = True) -> bytes:
    """Sends bytes as they are and gives what comes back until the connection ends."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 20) if then_read else b""
    finally:
        writer.close()


def head(token: str, length: int | str, path: str = "/collect/json/web") -> bytes:
    framing = f"Content-Length: {length}" if isinstance(length, int) else length
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\n{framing}\r\n\r\n"
    ).encode()


async def test_a_sender_that_stops_in_its_body_gets_408_and_stores_nothing(tmp_path, open_daemon):
    async with open_daemon(tmp_path, server={"body_timeout_s": 0.2}) as opened:
        reply = await raw(opened.address, head(opened.token, 100), b'{"a":1')
        upload = await raw(
            opened.address,
            head(opened.token, 100, "/collect/bulk/web").replace(b"application/json", b"text/csv"),
            b"a,b\n1,2\n3,",
        )
        events = await bodies(opened, "web")

    assert reply.startswith(b"HTTP/1.1 408")
    assert upload.startswith(b"HTTP/1.1 408")
    assert b'"message_count":1' in upload
    assert events == [{"a": "1", "b": "2"}]


async def test_a_slow_sender_holds_up_nobody_and_is_cut_as_a_whole(tmp_path, open_daemon):
    async with open_daemon(tmp_path, server={"body_timeout_s": 0.5}) as opened:
        parts = urlsplit(opened.address)
        connections = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(50)]
        for _, writer in connections:
            writer.write(head(opened.token, 1000) + b"{")
        for _ in range(20):
            assert (await opened.post("/collect/json/web", {"n": 1})).status == 200
        replies = []
        for reader, writer in connections:
            writer.write(b" ")
            replies.append(await asyncio.wait_for(reader.readline(), 10))
            writer.close()

    assert {reply.split()[1] for reply in replies} == {b"408"}


async def test_a_body_of_a_gigabyte_is_refused_by_its_length_and_by_its_flow_in_bounded_memory(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        said = await raw(opened.address, head(opened.token, 1_000_000_000))
        before = await memory_bytes()
        parts = urlsplit(opened.address)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(head(opened.token, "Transfer-Encoding: chunked"))
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        sent = 0
        try:
            while sent < 1000 and not reader.at_eof() and not reader._buffer:
                writer.write(chunk)
                await writer.drain()
                sent += 1
        except ConnectionError:
            pass
        unsaid = await reader.readline()
        writer.close()
        grown = await memory_bytes() - before

    assert said.startswith(b"HTTP/1.1 413")
    assert unsaid.startswith(b"HTTP/1.1 413")
    assert grown < 60_000_000


@pytest.mark.parametrize("path", ["/collect/json/web", "/collect/bulk/web"])
async def test_a_gzip_bomb_is_refused_in_bounded_memory(tmp_path, open_daemon, path):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b" " * 1_000_000) for _ in range(400)) + packer.flush()
    assert len(bomb) < 500_000

    async with open_daemon(tmp_path, collect={"upload_bytes": 50_000_000}) as opened:
        before = await memory_bytes()
        headers = NDJSON | {"Content-Encoding": "gzip"}
        packed = await opened.post(path, data=bomb, headers=headers)
        file = await opened.post("/collect/bulk/web", data=bomb, headers={"Content-Type": "application/gzip"})
        grown = await memory_bytes() - before

    assert packed.status == 413
    assert file.status == 413
    assert grown < 60_000_000


async def test_large_requests_at_a_time_are_bounded_in_memory(tmp_path, open_daemon):
    content = orjson.dumps([{"text": "x" * 200} for _ in range(40_000)])

    async with open_daemon(tmp_path, collect={"waiting_bytes": 30_000_000}) as opened:
        await opened.post("/collect/json/web", data=io.BytesIO(content), headers=JSON, ok=True)
        before = await memory_bytes()
        replies = await asyncio.gather(
            *(opened.post("/collect/json/web", data=io.BytesIO(content), headers=JSON) for _ in range(12))
        )
        grown = await memory_bytes() - before
        after = await opened.post("/collect/json/web", data=io.BytesIO(content), headers=JSON)

    assert {reply.status for reply in replies} == {200, 429}
    assert all(reply.headers["Retry-After"] for reply in replies if reply.status == 429)
    assert after.status == 200
    assert grown < 150_000_000


@pytest.mark.parametrize("content", [b"[" + b"3," * 200_000 + b"3]", b"{}\n" * 200_000])
async def test_a_request_of_too_many_events_is_sent_to_bulk(tmp_path, open_daemon, content):
    async with open_daemon(tmp_path) as opened:
        reply = await opened.post("/collect/json/web", data=content, headers=JSON)

    assert reply.status == 400
    assert "more than 100000 events; /collect/bulk" in reply.message


async def test_ten_thousand_field_names_are_an_error_in_one_event_and_bounded_over_many(tmp_path, open_daemon):
    async with open_daemon(tmp_path, collect={"event_bytes": 1_000_000}) as opened:
        wide = await opened.post("/collect/json/web", {f"field{number}": 1 for number in range(10_000)})
        events = [{f"field{number}": 1} for number in range(10_000)]
        many = await opened.post("/collect/json/web", events, ok=True)
        for start in range(0, 10_000, 1000):
            await opened.post("/collect/json/web", events[start : start + 50], ok=True)
            await opened.get("/v2/stream/web")
        fields = (await opened.get("/v2/stream/web/fields", ok=True)).body

    assert wide.status == 400
    assert "more than 2000 keys" in wide.message
    assert many.data["message_count"] == 10_000
    assert fields["total"] <= 2000


async def test_a_client_that_is_gone_before_the_reply_harms_nobody(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        parts = urlsplit(opened.address)
        for _ in range(20):
            with socket.create_connection((parts.hostname, parts.port)) as connection:
                connection.sendall(head(opened.token, 7) + b'{"a":1}')
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        reply = await opened.post("/collect/json/web", {"last": True})

    assert reply.status == 200


async def test_an_event_once_acknowledged_outlives_kill_9(tmp_path, start_cohortd):
    async with start_cohortd(tmp_path) as cohortd:
        acknowledged = []

        async def send(name):
            number = 0
            while True:
                reply = await cohortd.client.post("/collect/json/web", {"_id": f"{name}-{number}"})
                if reply.status != 200:
                    return
                acknowledged.append(f"{name}-{number}")
                number += 1

        async with asyncio.TaskGroup() as tasks:
            senders = [tasks.create_task(_until_cut(send(name))) for name in range(8)]
            while len(acknowledged) < 200:
                await asyncio.sleep(0.005)
            await cohortd.kill()
        assert all(sender.done() for sender in senders)
        await cohortd.start()
        found = await cohortd.client.get("/v2/stream/web/events?limit=1000", ok=True)

    stored = [each["id"] for each in found.data]
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)


async def _until_cut(work):
    with contextlib.suppress(aiohttp.ClientError):
        await work


async def test_a_stop_commits_what_was_accepted_and_answers_what_was_not_with_503(tmp_path, start_cohortd):
    async with start_cohortd(tmp_path) as cohortd:
        replies = []

        async def send(name):
            number = 0
            while True:
                reply = await cohortd.client.post("/collect/json/web", {"_id": f"{name}-{number}"})
                replies.append((f"{name}-{number}", reply.status))
                if reply.status != 200:
                    return
                number += 1

        async with asyncio.TaskGroup() as tasks:
            for name in range(8):
                tasks.create_task(_until_cut(send(name)))
            while len(replies) < 200:
                await asyncio.sleep(0.005)
            status = await cohortd.stop()
        await cohortd.start()
        found = await cohortd.client.get("/v2/stream/web/events?limit=1000", ok=True)

    stored = {each["id"] for each in found.data}
    assert status == 0
    assert {code for _, code in replies} <= {200, 503}
    accepted = {name for name, code in replies if code == 200}
    assert {name for name in accepted if name in stored} == accepted or len(accepted) > 1000
    assert not {name for name, code in replies if code == 503} & stored


async def test_openapi_tells_of_collection(tmp_path, open_daemon):
    async with open_daemon(tmp_path) as opened:
        paths = (await opened.get("/openapi.json", ok=True)).body["paths"]

    for path in ("/collect/json/{stream}", "/collect/bulk/{stream}", "/collect/form/{stream}", "/v1/batch"):
        assert paths[path]["post"]["summary"]
    assert orjson.dumps(paths["/c/{account}/{stream}"])
