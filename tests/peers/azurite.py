"""Azurite, Microsoft's stand-in for Azure Blob Storage, as a process, and a second reader of what lies in it.

What is read and written here goes by plain HTTP with a signature of our own, and not through the SDK that is tested.
Stop it by SIGTERM: killed, it may forget what was written last (PEERS.md 1).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from xml.sax.saxutils import unescape

from node import FOLDER, MODULES, NODE

START_LIMIT_S = 30.0
VERSION = "2025-11-05"
ACCOUNT = "cohortd"
KEY = base64.b64encode(b"no secret: the key of an account that only tests have").decode()

_PROGRAM = MODULES / "azurite" / "dist" / "src" / "blob" / "main.js"


class Azurite:
    """A blob store with one account. `connection_string` lets in; every method asks it without the SDK."""

    def __init__(self, folder: Path, *, memory: bool = False) -> None:
        self.folder = folder
        self.port = _free_port()
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        return self.let_in(self.address)

    def let_in(self, address: str, key: str = KEY) -> str:
        """Gives a connection string for another address of it, as that of a proxy, or with another key."""
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={address};"

    # --- the process

    def start(self) -> None:
        """Starts it and waits until it listens."""
        options = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--silent", "--disableTelemetry"]
        kept = ["--inMemoryPersistence"] if self._memory else ["--location", str(self.folder)]
        self._process = subprocess.Popen(
            [NODE, _PROGRAM, *options, "--skipApiVersionCheck", *kept],
            cwd=FOLDER,
            env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ends_at = time.monotonic() + START_LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, "Azurite ended at once"
                assert time.monotonic() < ends_at, "Azurite did not start"
                time.sleep(0.02)  # its process, not ours: there is no signal to wait for
            else:
                return

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it; what it holds stays in its folder."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        """Stops it in the middle of whatever it does; connections stay open and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def multiply(self, container: str, name: str, names: list[str]) -> None:
        """Gives a container blobs of these names, all as the one of that name, while it is stopped: in no time.

        A second lies between each and the next, the last one is the newest.
        """
        assert self._process is None, "stop it first"
        path = self.folder / "__azurite_db_blob__.json"
        stored = json.loads(path.read_text())
        (blobs,) = [each for each in stored["collections"] if each["name"] == "$BLOBS_COLLECTION$"]
        (model,) = [each for each in blobs["data"] if (each["containerName"], each["name"]) == (container, name)]
        began = datetime(2026, 1, 1, tzinfo=UTC)
        blobs["data"] = [
            model
            | {"name": each, "$loki": number}
            | {"properties": model["properties"] | {"lastModified": (began + timedelta(seconds=number)).isoformat()}}
            for number, each in enumerate(sorted(names), 1)
        ]
        blobs["maxId"] = len(names)
        blobs["idIndex"] = None
        for index in blobs["binaryIndices"].values():
            index["values"] = list(range(len(names)))
        path.write_text(json.dumps(stored))

    # --- what lies in it

    def create(self, container: str) -> str:
        self.ask("PUT", f"/{container}", {"restype": "container"}, wanted=(201, 409))
        return container

    def delete_container(self, container: str) -> None:
        self.ask("DELETE", f"/{container}", {"restype": "container"}, wanted=(202,))

    def put(self, container: str, name: str, content: bytes) -> None:
        """Puts a blob in one go, in place of one of the same name."""
        self.ask("PUT", _path(container, name), body=content, headers={"x-ms-blob-type": "BlockBlob"}, wanted=(201,))

    def delete(self, container: str, name: str) -> None:
        self.ask("DELETE", _path(container, name), wanted=(202,))

    def read(self, container: str, name: str) -> bytes:
        return self.ask("GET", _path(container, name))

    def names(self, container: str, prefix: str = "") -> list[str]:
        """Gives the names of all blobs that can be seen, in order."""
        found: list[str] = []
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list", "prefix": prefix} | ({"marker": marker} if marker else {})
            answer = self.ask("GET", f"/{container}", query).decode()
            found += [unescape(each, {"&quot;": '"'}) for each in re.findall(r"<Blob><Name>([^<]*)</Name>", answer)]
            rest = re.search(r"<NextMarker>([^<]+)</NextMarker>", answer)
            if rest is None:
                return found
            marker = rest[1]

    def uncommitted(self, container: str, name: str) -> int:
        """Counts the blocks of a blob that were staged and not committed."""
        query = {"comp": "blocklist", "blocklisttype": "uncommitted"}
        answer = self.ask("GET", _path(container, name), query, wanted=(200, 404))
        return answer.decode("utf-8", "replace").count("<Block>")

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        wanted: tuple[int, ...] = (200, 206),
    ) -> bytes:
        """Makes a signed request; fails the test unless the answer has a wanted status."""
        query = {key: value for key, value in (query or {}).items() if value}
        sent = {"x-ms-version": VERSION, "x-ms-date": format_datetime(datetime.now(UTC), usegmt=True)} | dict(
            headers or {}
        )
        length = str(len(body)) if body else ""
        named = "".join(f"{key.lower()}:{sent[key]}\n" for key in sorted(sent, key=str.lower))
        resource = f"/{ACCOUNT}/{ACCOUNT}{path}" + "".join(f"\n{key}:{query[key]}" for key in sorted(query))
        text = f"{method}\n\n\n{length}\n\n\n\n\n\n\n\n\n{named}{resource}"
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
        sent["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
        address = f"/{ACCOUNT}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        sent["Content-Length"] = str(len(body))
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, address, body=body or None, headers=sent)
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status in wanted, (method, path, answer.status, content[:500])
        return content


@contextmanager
def azurite(folder: Path, *, memory: bool = False) -> Iterator[Azurite]:
    """Runs one while the block runs."""
    peer = Azurite(folder, memory=memory)
    try:
        peer.start()
        yield peer
    finally:
        peer.stop()


def _path(container: str, name: str) -> str:
    return f"/{container}/{urllib.parse.quote(name)}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
